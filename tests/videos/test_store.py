"""The frame store gives back exactly the frames that were written, by index, in any order, with their times."""

import errno
import json
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from rspnet_cli.codecs import ENDINGS
from rspnet_cli.errors import DiskFullError, InputError
from rspnet_cli.files import sha256_of, sha256_of_folder
from rspnet_cli.videos import h264_store, jpeg_store, raw_store
from rspnet_cli.videos.decode import BrokenVideo, open_video
from rspnet_cli.videos.span import Span
from rspnet_cli.videos.store import Codec, StoredInfo, open_store, write_video
from tests.encode import CODECS, encode, make_video, numbered_frame, numbered_frames, read_numbers, truncated

SOURCES = ["h264", "h264-open-gop", "mpeg4", "vp9", "hevc", "hevc-open-gop", "mjpeg", "av1", "mpeg2", "h264-10bit"]
STORES: list[Codec] = ["h264", "jpeg", "raw"]


def store(source: Path, codec: Codec = "h264", **how: int | bool | Span) -> tuple[Path, StoredInfo]:
    target = source.with_name(f"store{ENDINGS[codec]}")
    return target, write_video(source, target, codec=codec, **({"short_side": 48} | how))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[Codec, Path]:
    """70 numbered frames in both stores: more than four groups of pictures."""
    source = make_video(tmp_path_factory.mktemp("stored") / "a.mp4", 70)
    return {codec: store(source, codec)[0] for codec in STORES}


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", STORES)
@pytest.mark.parametrize("source", ["h264", "mpeg4", "vp9"])
def test_a_part_has_its_frames_alone_at_their_times_in_the_whole(tmp_path: Path, source: str, codec: Codec) -> None:
    path = make_video(tmp_path / f"a{CODECS[source].suffix}", 60, source)
    with open_video(path) as video:
        whole = [time_s for time_s, _ in video.frames()]
    for start, end, count in ((Fraction("0.52"), Fraction("1.6"), 27), (Fraction(2), None, 10)):
        target, info = store(path, codec, span=Span(start, end))
        within = [frame for frame, time_s in enumerate(whole) if start - Fraction(1, 1000) <= time_s < (end or 3)]
        with open_store(target) as part:
            assert read_numbers(part.read(range(part.num_frames))) == within
            assert part.times_s.tolist() == [whole[frame] for frame in within]
        assert (info.frames, info.fps) == (pytest.approx(count, abs=1), pytest.approx(25))


def test_a_part_far_into_a_recording_is_exact(tmp_path: Path) -> None:
    times = [Fraction(frame, 25) + (3600 if frame >= 30 else 0) for frame in range(60)]
    path = encode(tmp_path / "a.mp4", numbered_frames(60, 64, 48), times_s=times)
    target, _ = store(path, span=Span(Fraction(3602), Fraction("3602.2")))
    with open_store(target) as part:
        assert read_numbers(part.read(range(5))) == list(range(50, 55))
        assert part.times_s.tolist() == pytest.approx([float(time) for time in times[50:55]], abs=1e-9)


def test_a_part_without_a_picture_is_told_with_the_end_of_the_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 25)
    with pytest.raises(BrokenVideo, match=r"has no picture in 00:02.00-00:03.00: its last one is at 00:00.96"):
        store(path, span=Span(Fraction(2), Fraction(3)))
    with pytest.raises(BrokenVideo, match=r"has no picture in 00:00.01-00:00.02\.$"):
        store(path, span=Span(Fraction("0.01"), Fraction("0.02")))
    assert [item.name for item in tmp_path.iterdir()] == ["a.mp4"]


def test_damage_behind_a_part_is_not_looked_at(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", numbered_frames(60, 64, 48), container_options={"movflags": "faststart"})
    cut = truncated(whole, tmp_path / "cut.mp4", 0.7)
    with pytest.raises(BrokenVideo, match="cut short"):
        store(cut)
    assert store(cut, span=Span(Fraction(0), Fraction("0.4")))[1].frames == 10


# What goes in comes out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", STORES)
@pytest.mark.parametrize("source", SOURCES)
def test_every_frame_of_the_source_is_there_once(tmp_path: Path, source: str, codec: Codec) -> None:
    path = make_video(tmp_path / f"a{CODECS[source].suffix}", 40, source)
    target, info = store(path, codec)
    with open_video(path) as video:
        times_s = [time_s for time_s, _ in video.frames()]
    with open_store(target) as stored:
        frames = stored.read(range(40))
        assert read_numbers(frames) == list(range(40))
        assert stored.times_s.tolist() == times_s
        assert (
            (info.frames, info.fps, info.width, info.height)
            == (stored.num_frames, stored.fps, stored.width, stored.height)
            == (40, 25, 64, 48)
        )
        assert frames.shape == (40, 48, 64, 3)
        assert (frames.dtype, frames.flags.c_contiguous) == (np.uint8, True)
    assert (info.repaired_timestamps, info.corrupt_frames, info.partial) == (0, 0, False)


@pytest.mark.parametrize("codec", STORES)
def test_odd_sizes_become_even(tmp_path: Path, codec: Codec) -> None:
    target, info = store(make_video(tmp_path / "a.mkv", 5, "ffv1", size=(63, 47)), codec)
    assert (info.width, info.height) == (62, 46)
    with open_store(target) as stored:
        assert read_numbers(stored.read(range(5))) == list(range(5))


def test_a_video_is_shrunk_but_never_enlarged(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 3, size=(200, 120))
    assert [store(path, short_side=side)[1].height for side in (40, 120, 500)] == [40, 120, 120]


@pytest.mark.parametrize("codec", STORES)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30_000, 1001), Fraction(8), Fraction(1, 3)])
def test_a_constant_rate_is_exact(tmp_path: Path, rate: Fraction, codec: Codec) -> None:
    target, info = store(make_video(tmp_path / "a.mp4", 7, fps=rate), codec)
    with open_store(target) as stored:
        assert stored.fps == info.fps == float(rate)
        assert stored.times_s.tolist() == [float(i / rate) for i in range(7)]


@pytest.mark.parametrize("codec", STORES)
@pytest.mark.parametrize("base", [Fraction(1, 90_000), Fraction(1, 1000), Fraction(1, 600), Fraction(1, 1_000_000)])
def test_times_of_a_variable_rate_are_the_same_to_the_tick(tmp_path: Path, base: Fraction, codec: Codec) -> None:
    steps = np.random.default_rng(1).integers(1, 500, 30)
    ticks = (np.cumsum(steps) + 700).tolist()  # a late start, too
    path = make_video(tmp_path / "a.nut", 30, CODECS["mjpeg"], times_s=[tick * base for tick in ticks], time_base=base)
    target, info = store(path, codec)
    with open_store(target) as stored:
        assert stored.times_s.tolist() == [float(tick * base) for tick in ticks]
        assert info.fps == stored.fps == pytest.approx(29 / float((ticks[-1] - ticks[0]) * base))


@pytest.mark.parametrize("codec", STORES)
def test_a_single_frame_is_a_video(tmp_path: Path, codec: Codec) -> None:
    target, info = store(make_video(tmp_path / "a.mp4", 1, fps=10), codec)
    with open_store(target) as stored:
        assert (info.frames, stored.num_frames, stored.fps) == (1, 1, 10.0)
        assert read_numbers(stored.read([0, 0])) == [0, 0]


def test_the_sound_stays_behind(tmp_path: Path) -> None:
    target, _ = store(make_video(tmp_path / "a.mp4", 25, audio_s=1.0))
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_groups_are_closed_and_16_long_and_decoding_is_cheap(stored: dict[Codec, Path]) -> None:
    with av.open(str(stored["h264"])) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        assert keys == [0, 16, 32, 48, 64]
        assert all(packet.pts == packet.dts for packet in packets)  # no B-frames
    content = stored["h264"].read_bytes()
    assert b"cabac=0" in content
    assert b"deblock=0" in content


def test_quality_and_size_of_the_default(tmp_path: Path) -> None:
    # A soft picture that moves by a pixel a frame. Measured: 44.4 dB (h264), 46.9 dB (jpeg).
    waves = np.cos(np.linspace(0, 40, 160))[None, :] * np.sin(np.linspace(0, 30, 120))[:, None]
    picture = np.stack([128 + 80 * waves, 128 - 60 * waves, 128 + 40 * waves], -1)
    source = encode(tmp_path / "a.mkv", [np.roll(picture, i, 1).astype(np.uint8) for i in range(20)], "ffv1")
    with open_video(source) as video:
        truth = np.stack([frame for _, frame in video.frames()]).astype(np.float64)
    luma = np.array([0.299, 0.587, 0.114])
    for codec in STORES[:2]:
        target, _ = store(source, codec, short_side=120)
        with open_store(target) as stored:
            error = (stored.read(range(20)) - truth) @ luma
        db = 10 * np.log10(255**2 / np.square(error).mean())
        assert db > 42


def test_crf_trades_size_for_quality_and_means_nothing_to_other_stores(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.avi", list(np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), np.uint8)), "mjpeg")
    sizes = [store(source, crf=crf)[1].bytes for crf in (10, 20, 40)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert store(source)[1].bytes == sizes[1]
    for codec in STORES[1:]:
        with pytest.raises(InputError, match=f"crf .* nothing for {codec}"):
            store(source, codec, crf=20)


def test_a_raw_store_holds_the_pixels_themselves_for_any_safetensors_library(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    target, info = store(encode(tmp_path / "a.mkv", list(noise), CODECS["ffv1"]), "raw")
    with open_video(tmp_path / "a.mkv") as video:
        truth = np.stack([frame for _, frame in video.frames()])
    with open_store(target) as stored:
        assert np.array_equal(stored.read(range(5)), truth)
    tensors = load_file(target)
    assert np.array_equal(tensors["frames"], truth)
    assert tensors["times_s"].tolist() == [0.0, 0.04, 0.08, 0.12, 0.16]
    assert info.bytes == raw_store.HEADER_BYTES + 5 * (48 * 64 * 3 + 8)


# Random access --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", STORES)
def test_random_access_equals_a_full_decode(stored: dict[Codec, Path], codec: Codec) -> None:
    with open_store(stored[codec]) as video:
        everything = video.read(np.arange(70))
        assert read_numbers(everything) == list(range(70))

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(st.integers(0, 69), min_size=1, max_size=12))
        def equal(indices: list[int]) -> None:
            assert np.array_equal(video.read(indices), everything[indices])

        equal()
        for start in (0, 15, 16, 30, 38):  # clips, across key frames
            assert np.array_equal(video.read(range(start, start + 32)), everything[start : start + 32])


@pytest.mark.parametrize("codec", STORES)
def test_every_single_frame_is_right_from_a_fresh_start(stored: dict[Codec, Path], codec: Codec) -> None:
    for index in range(70):
        with open_store(stored[codec]) as video:
            assert read_numbers(video.read([index])) == [index]


def test_a_full_decode_by_any_player_shows_the_same(stored: dict[Codec, Path]) -> None:
    with av.open(str(stored["h264"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with open_store(stored["h264"]) as video:
        assert np.abs(video.read(range(70)).astype(int) - np.stack(frames)).max() <= 3


@pytest.mark.parametrize("codec", STORES)
def test_reading_nothing_and_outside(stored: dict[Codec, Path], codec: Codec) -> None:
    with open_store(stored[codec]) as video:
        assert video.read([]).shape == (0, 48, 64, 3)
        for indices in ([70], [-1], [0, 5, 1000]):
            with pytest.raises(IndexError, match="frames 0 to 69"):
                video.read(indices)


_LEAVE_IN_MID_STREAM = """
import os, resource, sys
from pathlib import Path
from rspnet_cli.videos.store import open_store

def leave(times):
    for _ in range(times):
        with open_store(Path(sys.argv[1])) as video:
            video.read([17])  # one frame behind a key frame: two more are still to come

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)

leave(500)
files, kib = len(os.listdir("/dev/fd")), peak_kib()
leave(9500)
print(len(os.listdir("/dev/fd")) - files, peak_kib() - kib)
"""


def test_ten_thousand_closes_in_mid_stream_neither_leak_nor_hang(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.avi", 20, "mpeg4", size=(16, 16))
    target, _ = store(source, short_side=16)
    # In a process of its own, whose memory has no earlier peak that would hide a leak.
    run = subprocess.run([sys.executable, "-c", _LEAVE_IN_MID_STREAM, target], capture_output=True, text=True, check=True, timeout=200)
    open_files, kib = map(int, run.stdout.split())
    assert open_files == 0
    assert kib < 8_000  # less than a KiB each


# Bytes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", STORES)
def test_equal_input_gives_equal_bytes_in_any_process(tmp_path: Path, codec: Codec) -> None:
    rng = np.random.default_rng(0)
    frames = [np.clip(numbered_frame(i, 96, 64) + rng.integers(-40, 41, (64, 96, 3)), 0, 255).astype(np.uint8) for i in range(60)]
    source = encode(tmp_path / "a.mp4", frames)
    _, info = store(source, codec)
    code = (
        "import sys; from pathlib import Path; from rspnet_cli.videos.store import write_video;"
        "print(write_video(Path(sys.argv[1]), Path(sys.argv[2]), short_side=48, codec=sys.argv[3]).sha256)"
    )
    for number in range(3):
        target = tmp_path / f"other{number}" / f"x{ENDINGS[codec]}"
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        run = subprocess.run(
            [sys.executable, "-c", code, source, target, codec], capture_output=True, text=True, check=True, env=environment
        )
        assert run.stdout.strip() == info.sha256


@pytest.mark.parametrize("num_pictures", [0, 1, 7, 40])
def test_how_many_pictures_are_encoded_at_a_time_changes_no_byte(
    tmp_path: Path, stored: dict[Codec, Path], monkeypatch: pytest.MonkeyPatch, num_pictures: int
) -> None:
    monkeypatch.setattr(h264_store, "BLOCK_BYTES", num_pictures * 64 * 48 * 3 // 2)
    target, _ = store(make_video(tmp_path / "a.mp4", 70))
    assert target.read_bytes() == stored["h264"].read_bytes()


def test_bytes_and_hash_are_those_of_the_store(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 5)
    target, info = store(source)
    assert (info.bytes, info.sha256) == (target.stat().st_size, sha256_of(target))
    target, info = store(source, "jpeg")
    assert (info.bytes, info.sha256) == sha256_of_folder(target)


def test_a_jpeg_folder_is_as_other_toolkits_expect(tmp_path: Path) -> None:
    target, _ = store(make_video(tmp_path / "a.mp4", 3), "jpeg")
    assert sorted(item.name for item in target.iterdir()) == ["img_00001.jpg", "img_00002.jpg", "img_00003.jpg", "times.json"]
    assert all((target / f"img_0000{i}.jpg").read_bytes()[:2] == b"\xff\xd8" for i in (1, 2, 3))
    assert json.loads((target / "times.json").read_text())["times_s"] == [0.0, 0.04, 0.08]


@pytest.mark.parametrize("codec", STORES)
def test_writing_again_replaces_what_was_written(tmp_path: Path, codec: Codec) -> None:
    store(make_video(tmp_path / "a.mp4", 9), codec)
    target, info = store(make_video(tmp_path / "b.mp4", 4, start=100), codec)
    with open_store(target) as stored:
        assert read_numbers(stored.read(range(info.frames))) == [100, 101, 102, 103]
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(["a.mp4", "b.mp4", target.name])


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are no frames"):
        store(make_video(tmp_path / "a.mp4", 4), "jpeg")
    assert [item.name for item in (tmp_path / "store").iterdir()] == ["thesis.txt"]


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", STORES)
def test_a_broken_video_leaves_nothing_behind(tmp_path: Path, codec: Codec) -> None:
    whole = encode(tmp_path / "a.avi", numbered_frames(30, 64, 48), "mjpeg")
    cut = truncated(whole, tmp_path / "cut.avi", 0.8)
    with pytest.raises(BrokenVideo, match="cut short"):
        store(cut, codec)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.avi", "cut.avi"]


def test_half_a_picture_is_not_kept_even_if_it_is_the_only_one(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    whole = encode(tmp_path / "a.avi", list(noise), "mjpeg")
    with av.open(str(whole)) as container:
        first = next(container.demux(video=0))
        assert first.pos is not None
        cut = tmp_path / "cut.avi"
        cut.write_bytes(whole.read_bytes()[: first.pos + first.size // 2])
    with pytest.raises(BrokenVideo, match="has no undamaged picture"):
        store(cut, keep_partial=True)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new file of this process is as good as on a full disk: writing it ends in ENOSPC."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: object, **named: object) -> object:
        return real(Path("/dev/full") if "w" in mode else path, mode, *rest, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opened)


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@needs_dev_full
@pytest.mark.parametrize("codec", STORES)
@pytest.mark.parametrize("num_frames", [2, 60])  # with 2 the first write is the last one, when the file is closed
def test_a_full_disk_is_no_fault_of_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec, num_frames: int) -> None:
    source = make_video(tmp_path / "a.mp4", num_frames)
    full_disk(monkeypatch)
    with pytest.raises(DiskFullError, match="The disk is full"):
        store(source, codec)
    assert [item.name for item in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("codec", STORES)
def test_a_disk_that_is_found_full_when_the_files_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec) -> None:
    source = make_video(tmp_path / "a.mp4", 20)

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError, match="The disk is full"):
        store(source, codec)
    assert [item.name for item in tmp_path.iterdir()] == ["a.mp4"]


@needs_dev_full
def test_a_disk_that_fills_up_with_the_last_bytes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_video(tmp_path / "a.mp4", 20)
    writes: list[int] = []
    real = h264_store._Output.write
    monkeypatch.setattr(h264_store._Output, "write", lambda self, data: writes.append(len(data)) or real(self, data))
    store(source)
    num_writes = len(writes)

    def fills_up(self: h264_store._Output, data: bytes) -> int:
        writes.append(len(data))
        if len(writes) == num_writes:
            with Path("/dev/full").open("wb", buffering=0) as full:
                self.file = full  # type: ignore[assignment]
                return real(self, data)
        return real(self, data)

    writes.clear()
    monkeypatch.setattr(h264_store._Output, "write", fills_up)
    with pytest.raises(DiskFullError):
        store(source)


def test_a_missing_store_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        open_store(tmp_path / "gone.mp4")


@pytest.mark.parametrize("what", ["empty", "text", "cut", "other video", "avi"])
def test_what_is_no_store_is_refused(tmp_path: Path, what: str) -> None:
    source = make_video(tmp_path / "a.mp4", 20)
    target, _ = store(source)
    if what == "empty":
        target.write_bytes(b"")
    elif what == "text":
        target.write_text("hello")
    elif what == "cut":
        target.write_bytes(target.read_bytes()[:-400])
    elif what == "other video":
        target.write_bytes(source.read_bytes())
    elif what == "avi":
        target.write_bytes(make_video(tmp_path / "b.avi", 3, "mpeg4").read_bytes())
    with pytest.raises(InputError, match="rspnet extract") as found:
        open_store(target)
    assert str(target) in str(found.value)
    assert not isinstance(found.value, BrokenVideo)


def test_damage_within_the_store_is_found_when_it_is_read(tmp_path: Path) -> None:
    target, _ = store(make_video(tmp_path / "a.mp4", 40))
    with av.open(str(target)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.size and packet.pts and packet.is_keyframe)
        assert packet.pos is not None
    content = bytearray(target.read_bytes())
    content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    target.write_bytes(content)
    with open_store(target) as stored:
        assert read_numbers(stored.read(range(16))) == list(range(16))
        with pytest.raises(InputError, match="is damaged"):
            stored.read([20])
        assert read_numbers(stored.read([3, 35])) == [3, 35]  # the rest is still there


@pytest.mark.parametrize("damage", ["no times", "no list", "backwards", "nan", "no picture", "text", "other size", "cut"])
def test_a_damaged_jpeg_folder_is_refused(tmp_path: Path, damage: str) -> None:
    target, _ = store(make_video(tmp_path / "a.mp4", 4), "jpeg")
    times, picture = target / jpeg_store.TIMES, target / "img_00003.jpg"
    content = json.loads(times.read_text())
    if damage == "no times":
        times.unlink()
    elif damage == "no list":
        times.write_text("[]")
    elif damage in {"backwards", "nan"}:
        content["times_s"][2] = -1.0 if damage == "backwards" else float("nan")
        times.write_text(json.dumps(content))
    elif damage == "no picture":
        picture.unlink()
    elif damage == "text":
        picture.write_text("hello")
    elif damage == "cut":
        picture.write_bytes(picture.read_bytes()[:100])
    else:
        make_video(tmp_path / "b.mp4", 4, size=(32, 32))
        other = tmp_path / "other"
        write_video(tmp_path / "b.mp4", other, short_side=16, codec="jpeg")
        picture.write_bytes((other / "img_00001.jpg").read_bytes())
    with pytest.raises(InputError, match="is damaged"), open_store(target) as stored:
        stored.read(range(4))


@pytest.mark.parametrize("damage", ["empty", "text", "no number", "huge", "other shape", "backwards", "nan", "longer", "cut", "deep"])
def test_a_damaged_raw_file_is_refused(tmp_path: Path, damage: str) -> None:
    target, _ = store(make_video(tmp_path / "a.mp4", 4), "raw")
    content = target.read_bytes()
    head, frames, times_s = content[: raw_store.HEADER_BYTES], content[raw_store.HEADER_BYTES : -32], np.frombuffer(content[-32:])
    changed = {
        "empty": b"",
        "text": b"hello",
        "no number": content.replace(b"[4,", b"[x,", 1),
        "huge": content.replace(b"[4,", b"[4" + b"0" * 30 + b",", 1),
        "other shape": content.replace(b"[4,48,64,3]", b"[4,48,63,3]", 1),
        "backwards": head + frames + times_s[::-1].tobytes(),
        "nan": head + frames + np.full(4, np.nan).tobytes(),
        "longer": content + b" ",
        "cut": content[:-500],
        "deep": head[:8] + (b"[" * 4000).ljust(len(head) - 8) + content[len(head) :],
    }
    assert changed[damage] != content
    target.write_bytes(changed[damage])
    with pytest.raises(InputError, match="rspnet extract"), open_store(target) as stored:
        stored.read(range(4))


def test_a_raw_file_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    target, _ = store(make_video(tmp_path / "a.mp4", 4), "raw")
    with open_store(target) as stored:
        os.truncate(target, raw_store.HEADER_BYTES + 64 * 48 * 3 + 5)
        assert read_numbers(stored.read([0])) == [0]
        with pytest.raises(InputError, match="frame 1 is cut short"):
            stored.read([1])


def test_times_increase_in_every_store(stored: dict[Codec, Path]) -> None:
    for path in stored.values():
        with open_store(path) as video:
            assert all(a < b for a, b in pairwise(video.times_s))


@pytest.mark.parametrize("codec", STORES)
@pytest.mark.parametrize("base", [Fraction(1, 1_000_000_000), Fraction(1_000_000, 7), Fraction(1, 3_000_001)])
def test_clocks_that_an_mp4_cannot_state_still_give_the_times_that_are_told(tmp_path: Path, base: Fraction, codec: Codec) -> None:
    times_s = [index * base * (40_000_037 if base < 1 else 1) for index in range(6)]
    path = make_video(tmp_path / "a.nut", 6, CODECS["mjpeg"], times_s=times_s, time_base=base)
    target, info = store(path, codec)
    with open_store(target) as stored:
        assert read_numbers(stored.read(range(6))) == list(range(6))
        assert stored.fps == info.fps > 0
        assert (np.diff(stored.times_s) > 0).all()
        if base < 1:
            assert info.repaired_timestamps == 0
            assert stored.times_s == pytest.approx([float(time_s) for time_s in times_s], abs=1.1e-6)
        else:
            assert info.repaired_timestamps == 5  # frames days apart: nobody can mean that
