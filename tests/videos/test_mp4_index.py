"""The index that we read of our MP4 files is the one that FFmpeg reads; of damaged and foreign files nothing but an error comes."""

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.videos.mp4_index import Mp4Index, NotOurs, read_mp4_index
from rspnet_cli.videos.store import open_store, write_video
from tests.encode import CODECS, encode, make_video, numbered_frames


def index_of(path: Path) -> Mp4Index:
    file = os.open(path, os.O_RDONLY)
    try:
        return read_mp4_index(file)
    finally:
        os.close(file)


def stored(source: Path) -> Path:
    target = source.with_name("store.mp4")
    write_video(source, target, short_side=48)
    return target


def irregular(num: int, base: Fraction) -> list[Fraction]:
    """A late start, no two distances alike."""
    return [Fraction(int(tick)) * base for tick in np.cumsum(np.random.default_rng(2).integers(1, 900, num)) + 5000]


@pytest.mark.parametrize(
    ("num_frames", "times_s", "base"),
    [
        (40, None, None),
        (1, None, None),
        (33, irregular(33, Fraction(1, 1000)), Fraction(1, 1000)),
        (20, irregular(20, Fraction(1, 90_000)), Fraction(1, 90_000)),
        (6, [Fraction(60_000 * i) for i in range(6)], Fraction(1, 1000)),
    ],
)
def test_the_index_is_that_of_ffmpeg(tmp_path: Path, num_frames: int, times_s: list[Fraction] | None, base: Fraction | None) -> None:
    source = encode(tmp_path / "a.nut", numbered_frames(num_frames, 64, 48), CODECS["mjpeg"], times_s=times_s, time_base=base)
    path = stored(source)
    index = index_of(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        entries = list(stream.index_entries)
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert index.times.tolist() == [entry.timestamp for entry in entries]
        assert index.keys.tolist() == [entry.is_keyframe for entry in entries] == [frame % 16 == 0 for frame in range(num_frames)]
        assert list(zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)) == [(packet.pos, packet.size) for packet in packets]
        assert (index.width, index.height) == (stream.codec_context.width, stream.codec_context.height)
        assert (Fraction(1, index.timescale), index.decoder) == (stream.time_base, stream.codec_context.extradata)


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_other_videos_are_not_ours(tmp_path: Path, codec: str) -> None:
    with pytest.raises(NotOurs):
        index_of(make_video(tmp_path / "a.mp4", 10, codec))
    with pytest.raises(NotOurs):
        index_of(make_video(tmp_path / "sound.mp4", 10, "h264", audio_s=0.5))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(make_video(tmp_path_factory.mktemp("whole") / "a.mp4", 18))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(place=st.integers(0, 2**16), value=st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), count=st.sampled_from([1, 4]))
def test_a_damaged_index_is_refused_or_gives_frames_and_nothing_else(
    whole: Path, tmp_path: Path, place: int, value: int, count: int
) -> None:
    content = bytearray(whole.read_bytes())
    start = content.index(b"moov") - 4
    at = start + place % (len(content) - start)
    content[at : at + count] = bytes([value]) * len(content[at : at + count])
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    with contextlib.suppress(InputError), open_store(path) as video:
        video.read([0, video.num_frames - 1])


def test_a_file_that_is_cut_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    for length in range(1, len(content), 97):
        path = tmp_path / "cut.mp4"
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.mp4 is (damaged|no frame file)"):
            open_store(path)
