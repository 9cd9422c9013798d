"""Strips hold the frames they should, in order, from every store, and stay small."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest

from rspnet_cli.codecs import ENDINGS
from rspnet_cli.progress import Reporter
from rspnet_cli.report.clips import NUM_FRAMES, Clips, Moment, clip_class, clip_indices, clip_strip, css_rule, rule_bytes
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.store import Codec, open_store, write_video
from tests.encode import encode, make_video, numbered_frames, read_number
from tests.extracted import make_extract


def decoded(strip: bytes) -> np.ndarray:
    codec = av.CodecContext.create("mjpeg", "r")
    return codec.decode(av.Packet(strip))[0].to_ndarray(format="rgb24")


@pytest.mark.parametrize("codec", ["h264", "jpeg", "raw"])
@pytest.mark.parametrize(("size", "width"), [((64, 48), 96), ((96, 54), 128), ((48, 64), 48), ((200, 16), 192)])
def test_a_strip_shows_the_chosen_frames_side_by_side(tmp_path: Path, codec: Codec, size: tuple[int, int], width: int) -> None:
    stored = tmp_path / f"stored{ENDINGS[codec]}"
    write_video(make_video(tmp_path / "source.mp4", 60, size=size, start=300), stored, short_side=48, codec=codec)
    with open_store(stored) as video:
        strip, frame_width, height = clip_strip(video)
        indices = clip_indices(video)
    pixels = decoded(strip)
    assert (frame_width, height) == (width, 72)
    assert pixels.shape == (72, NUM_FRAMES * width, 3)
    if size[1] > 16:  # a grid of 4 x 4 blocks that can still be read
        numbers = [read_number(pixels[:, place * width : (place + 1) * width]) for place in range(NUM_FRAMES)]
        assert numbers == (300 + indices).tolist()
    assert len(css_rule("x", strip, width, height)) < 30_000


def test_the_frames_are_those_of_the_middle_or_of_all_of_a_short_video(tmp_path: Path) -> None:
    for name, frames in (("long", 100), ("short", 10), ("one", 1)):
        write_video(make_video(tmp_path / f"{name}.mp4", frames), tmp_path / f"{name}-stored.mp4", short_side=48)
    chosen = {}
    for name in ("long", "short", "one"):
        with open_store(tmp_path / f"{name}-stored.mp4") as video:
            chosen[name] = clip_indices(video).tolist()
            times = video.times_s
            if name == "long":
                shown = times[chosen[name]]
                assert shown[-1] - shown[0] == pytest.approx(1.5, abs=0.05)  # 15 of the 16 steps of 1.6 s
                assert (shown[0] + shown[-1]) / 2 == pytest.approx(times[-1] / 2, abs=0.1)
    assert len(set(chosen["long"])) == NUM_FRAMES
    assert chosen["short"][0] == 0
    assert chosen["short"] == sorted(chosen["short"])
    assert set(chosen["short"]) >= set(range(9))
    assert chosen["one"] == [0] * NUM_FRAMES


def test_the_frames_are_those_around_a_moment_and_within_the_video(tmp_path: Path) -> None:
    times = [3 + frame / 25 for frame in range(100)]  # seconds of a source that begins late, as a part of a video does
    encode(tmp_path / "source.mp4", numbered_frames(100, 64, 48), times_s=times)
    write_video(tmp_path / "source.mp4", tmp_path / "stored.mp4", short_side=48)
    with open_store(tmp_path / "stored.mp4") as video:
        shown = {middle_s: video.times_s[clip_indices(video, middle_s)] for middle_s in (3.0, 4.2, 6.9)}
    assert shown[4.2][0] == pytest.approx(3.4, abs=0.05)
    assert shown[4.2][-1] == pytest.approx(4.9, abs=0.05)
    assert shown[3.0][0] == pytest.approx(3.0)
    assert shown[6.9][-1] == pytest.approx(times[-1] - 0.1, abs=0.05)


def test_moments_of_a_video_are_clips_of_their_own(tmp_path: Path) -> None:
    frames = read_frames(make_extract(tmp_path / "extract", num_frames=(60, 20)))
    clips = Clips(frames)
    wanted = ["v000", Moment("v000", 0.2), Moment("v000", 2.2), Moment("v000", 0.2), Moment("v001", 0.2), Moment("elsewhere", 1.0)]
    clips.make(wanted, 10**6, Reporter.silent())
    assert list(clips.styles) == ["v000", "v000@0.200", "v000@2.200", "v001@0.200"]
    assert len({rule.partition("{")[2] for rule in clips.styles.values()}) == 4
    assert [name for name, _ in clips.rules()] == [clip_class(name) for name in clips.styles]
    room = sum(rule_bytes(name, rule) for name, rule in list(clips.styles.items())[:2])
    few = Clips(frames)
    few.make(wanted, room, Reporter.silent())
    assert list(few.styles) == ["v000", "v000@0.200"]


def test_any_id_gives_a_class_of_its_own_that_css_can_name() -> None:
    ids = ["v_Bow_g01_c01", "v_Bow-g01.c01", "v_Bow_g01.c01", "ä", "a b", "}{", "1", "_", "_5f_", "</style>"]
    classes = [clip_class(video_id) for video_id in ids]
    assert len(set(classes)) == len(ids)
    assert all(re.fullmatch(r"v-\w+", name, flags=re.ASCII) for name in classes)
