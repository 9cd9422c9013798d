"""Strips hold the frames they should, in order, from every store, and stay small."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest

from rspnet_cli.report.clips import NUM_FRAMES, clip_class, clip_indices, clip_strip, css_rule
from rspnet_cli.videos.extraction import ENDINGS
from rspnet_cli.videos.store import Codec, open_store, write_video
from tests.encode import make_video, read_number


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


def test_any_id_gives_a_class_of_its_own_that_css_can_name() -> None:
    ids = ["v_Bow_g01_c01", "v_Bow-g01.c01", "v_Bow_g01.c01", "ä", "a b", "}{", "1", "_", "_5f_", "</style>"]
    classes = [clip_class(video_id) for video_id in ids]
    assert len(set(classes)) == len(ids)
    assert all(re.fullmatch(r"v-\w+", name, flags=re.ASCII) for name in classes)
