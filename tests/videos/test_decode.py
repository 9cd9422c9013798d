"""A broken video is found out, with a reason in words; a whole one keeps its pictures and times."""

import os
import pickle
import socket
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.videos.decode import BrokenVideo, open_video
from rspnet_cli.videos.store import open_store, write_video
from tests.encode import (
    CODECS,
    Codec,
    encode,
    ffconcat,
    make_video,
    no_frames,
    not_a_video,
    numbered_frames,
    pixel_bomb,
    read_number,
    read_numbers,
    sound_only,
    truncated,
)

# Codecs whose files say how many pictures they hold, and those of which only the end can tell.
COUNTED = ["h264", "h264-open-gop", "hevc", "mpeg4", "mjpeg"]
UNCOUNTED = ["h264-mkv", "vp9", "h264-ts", "mpeg2", "wmv2"]


def noise(num_frames: int) -> list[np.ndarray]:
    """Numbered pictures that compress badly, so that a cut goes through a picture."""
    grain = np.random.default_rng(0).integers(-30, 31, (num_frames, 96, 128, 1))
    return [np.clip(frame + own, 0, 255).astype(np.uint8) for frame, own in zip(numbered_frames(num_frames, 128, 96), grain, strict=True)]


def decode_all(path: Path, **settings: bool | int) -> tuple[list[float], list[int]]:
    with open_video(path, **settings) as video:  # type: ignore[arg-type]
        shown = [(time_s, read_number(frame)) for time_s, frame in video.frames()]
    return [time_s for time_s, _ in shown], [number for _, number in shown]


def times_by_pyav(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize("codec", list(CODECS))
def test_every_picture_comes_once_in_order_with_its_time(tmp_path: Path, codec: str) -> None:
    path = make_video(tmp_path / f"a{CODECS[codec].suffix}", 30, codec)
    times_s, numbers = decode_all(path)
    assert numbers == list(range(30))
    expected = times_by_pyav(path)
    if path.suffix in {".ts", ".mpg"}:  # a free clock: the file starts at 0
        expected = [time_s - expected[0] for time_s in expected]
    assert times_s == pytest.approx(expected, abs=1e-9)


def test_info_is_known_before_all_is_decoded(tmp_path: Path) -> None:
    with open_video(make_video(tmp_path / "a.mp4", 30, fps=Fraction(30_000, 1001), rotation=90)) as video:
        assert (video.info.width, video.info.height, video.info.declared, video.info.codec) == (64, 48, 30, "h264")
        assert video.info.rate == pytest.approx(30_000 / 1001)


def test_pictures_can_be_had_as_the_store_would_hold_them(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 6, size=(161, 121), codec=Codec("libx264", ".mp4", "yuv444p"))
    write_video(path, tmp_path / "store.mp4", short_side=64)
    with open_video(path) as video, open_store(tmp_path / "store.mp4") as stored:
        for (time_s, frame), stored_time_s, kept in zip(video.frames(64), stored.times_s, stored.read(range(6)), strict=True):
            assert time_s == stored_time_s
            assert frame.shape == kept.shape
            assert np.abs(frame.astype(int) - kept).mean() < 5


# Times ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_of_a_variable_frame_rate_are_kept(tmp_path: Path, suffix: str) -> None:
    times_s = np.cumsum(np.random.default_rng(0).integers(1, 400, 24)) / 1000 - 0.001
    path = make_video(tmp_path / f"a{suffix}", 24, times_s=times_s.tolist())
    assert decode_all(path)[0] == pytest.approx(times_s, abs=1e-5)


def test_a_video_that_starts_after_its_sound_keeps_its_late_start(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 5, times_s=[0.5, 0.6, 0.7, 0.8, 0.9], audio_s=1.0)
    assert decode_all(path)[0] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])


def remux(source: Path, target: Path, times: Callable[[int], int | None], options: dict[str, str] | None = None) -> Path:
    """Copy packets with other times: `times` gets the number of a packet. For codecs without B-frames."""
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        packets = [packet for packet in reading.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream = copy
            packet.pts = packet.dts = times(number)
            writing.mux(packet)
    return target


def test_times_that_repeat_are_repaired_and_counted(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.nut", 10, Codec("mjpeg", ".nut", "yuvj420p"))
    base = 1 / (25 * source_time_base(source))
    # Frame 6 says the time of frame 5.
    path = remux(source, tmp_path / "b.mkv", lambda i: round((5 if i == 6 else i) * base))
    with open_video(path) as video:
        times_s = [time_s for time_s, _ in video.frames()]
        assert video.repaired_timestamps == 1
    assert times_s[:6] + times_s[7:] == pytest.approx([i / 25 for i in (0, 1, 2, 3, 4, 5, 7, 8, 9)])
    assert times_s[5] < times_s[6] < times_s[7]
    info = write_video(path, tmp_path / "store.mp4", short_side=48)
    assert info.repaired_timestamps == 1
    with open_store(tmp_path / "store.mp4") as stored:
        assert stored.times_s.tolist() == times_s


def source_time_base(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        assert base is not None
        return Fraction(base)


def test_what_an_edit_list_hides_is_neither_shown_nor_missed(tmp_path: Path) -> None:
    # A cut made without encoding anew: the mp4 still holds the 5 frames in front of it, and declares them.
    source = make_video(tmp_path / "a.mp4", 40, options={"x264-params": "bframes=0:keyint=12:scenecut=0:threads=1"})
    path = remux(source, tmp_path / "b.mp4", lambda i: (i - 5) * 512, {"avoid_negative_ts": "disabled"})
    times_s, numbers = decode_all(path)
    assert numbers == list(range(5, 40))
    assert times_s == pytest.approx([i / 25 for i in range(35)])


def test_an_avi_may_repeat_a_picture_without_holding_it_twice(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.avi", 20, "mjpeg")
    path = remux(source, tmp_path / "b.avi", lambda i: i if i < 6 else i + 3)
    with open_video(path) as video:
        times_s, frames = zip(*video.frames(), strict=True)
    assert read_numbers(frames) == list(range(20))
    assert times_s == pytest.approx([i / 25 for i in [*range(6), *range(9, 23)]])


def shown(path: Path, start: Fraction) -> tuple[list[tuple[float, int]], int]:
    """(time, number) of the pictures from `start` on, and how many had to be decoded."""
    with open_video(path) as video:
        video.skip_to(start)
        pictures = [(time_s, read_number(frame)) for time_s, frame in video.frames() if time_s >= start]
        return pictures, video.decoded


@pytest.mark.parametrize("codec", list(CODECS))
def test_skipping_loses_no_picture_and_no_time(tmp_path: Path, codec: str) -> None:
    path = make_video(tmp_path / f"a{CODECS[codec].suffix}", 60, codec)
    times_s, numbers = decode_all(path)
    whole = list(zip(times_s, numbers, strict=True))
    for start in (Fraction(0), Fraction(1, 25), Fraction(12, 25), Fraction("0.99"), Fraction(31, 25), Fraction(59, 25), Fraction(100)):
        pictures, _ = shown(path, start)
        assert pictures == [picture for picture in whole if picture[0] >= start], start
    indexed = CODECS[codec].suffix in (".mp4", ".mkv", ".webm")
    # Key frames are 12 apart: with an index not more than the group in front and what the encoder kept back need be decoded.
    assert (shown(path, Fraction(50, 25))[1] < 30) == indexed, "an index saves decoding"


def test_skipping_does_not_trust_an_index(tmp_path: Path) -> None:
    """A file that is written while it is watched has none, one that was cut has one that leads beyond its end."""
    path = make_video(tmp_path / "live.mkv", 60, "h264-mkv", container_options={"live": "1"})
    assert [number for _, number in shown(path, Fraction(2))[0]] == list(range(50, 60))
    whole = encode(tmp_path / "whole.mp4", noise(60), "h264", container_options={"movflags": "faststart"})
    cut = truncated(whole, tmp_path / "cut.mp4", 0.5)
    with pytest.raises(BrokenVideo, match="cut short"):
        shown(cut, Fraction(2))


def test_a_video_that_starts_below_zero_keeps_its_times_when_skipping(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mkv", 60, "h264-mkv", options={"x264-params": "bframes=0:keyint=12:scenecut=0:threads=1"})
    path = remux(source, tmp_path / "b.mkv", lambda i: (i - 5) * 40, {"avoid_negative_ts": "disabled"})
    times_s, numbers = decode_all(path)
    whole = list(zip(times_s, numbers, strict=True))
    assert shown(path, Fraction(1))[0] == [picture for picture in whole if picture[0] >= 1]


# Broken ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("codec", COUNTED + UNCOUNTED)
def test_a_file_that_was_cut_short_is_found_out(tmp_path: Path, codec: str, share: float) -> None:
    suffix = CODECS[codec].suffix
    options = {"movflags": "faststart"} if suffix == ".mp4" else None
    whole = encode(tmp_path / f"whole{suffix}", noise(40), codec, container_options=options)
    with open_video(whole) as video:
        assert len(list(video.decoded_frames())) == 40
    cut = truncated(whole, tmp_path / f"cut{suffix}", share)
    with pytest.raises(BrokenVideo, match="cut short") as found:
        write_video(cut, tmp_path / "store.mp4", short_side=48)
    assert not (tmp_path / "store.mp4").exists()
    assert found.value.decoded is not None
    assert 0 < found.value.decoded < 40
    assert found.value.declared == (40 if codec in COUNTED else None)


@pytest.mark.parametrize("codec", COUNTED + UNCOUNTED)
def test_keep_partial_keeps_what_decodes_before_the_damage(tmp_path: Path, codec: str) -> None:
    suffix = CODECS[codec].suffix
    options = {"movflags": "faststart"} if suffix == ".mp4" else None
    whole = encode(tmp_path / f"whole{suffix}", noise(40), codec, container_options=options)
    cut = truncated(whole, tmp_path / f"cut{suffix}", 0.8)
    info = write_video(cut, tmp_path / "store.mp4", short_side=96, keep_partial=True)
    assert info.partial
    assert 0 < info.frames < 40
    with open_store(tmp_path / "store.mp4") as stored:
        assert stored.num_frames == info.frames
        numbers = read_numbers(stored.read(range(info.frames - info.corrupt_frames)))
        assert numbers[:-4] == list(range(len(numbers) - 4))
        assert numbers == sorted(set(numbers))  # at the very end B-frames may be missing: their reference is what was cut


def test_a_whole_file_is_not_partial(tmp_path: Path) -> None:
    info = write_video(make_video(tmp_path / "a.mp4", 10), tmp_path / "store.mp4", short_side=48, keep_partial=True)
    assert not info.partial


def test_an_mp4_cut_before_its_index_is_no_video(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", noise(10), "h264")
    with pytest.raises(BrokenVideo, match="header is damaged or cut off"):
        open_video(truncated(whole, tmp_path / "cut.mp4"))


def overwritten(path: Path, number: int, *, start: float = 0.0, end: float = 1.0) -> Path:
    """Zeros over a part of packet `number` of an avi."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        assert packet.pos is not None
        first, last = (packet.pos + int(packet.size * share) for share in (start, end))
    content = bytearray(path.read_bytes())
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("number", "decoded"), [(0, 19), (12, 12)])
def test_a_picture_that_does_not_decode_is_damage_with_both_counts(tmp_path: Path, number: int, decoded: int) -> None:
    path = overwritten(encode(tmp_path / "a.avi", noise(20), "mjpeg"), number)
    with pytest.raises(BrokenVideo, match="damaged") as found, open_video(path) as video:
        list(video.frames())
    assert (found.value.decoded, found.value.declared) == (decoded, 20)


def test_a_recording_that_starts_in_the_middle_is_whole(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.ts", noise(40), "h264-ts")
    content = whole.read_bytes()
    start = len(content) // 188 // 4 * 188
    (tmp_path / "a.ts").write_bytes(content[: 188 * 3] + content[start:])  # the tables of the stream, then from its middle
    times_s, numbers = decode_all(tmp_path / "a.ts")
    assert numbers[-20:] == list(range(20, 40))
    assert times_s == sorted(set(times_s))


def test_pictures_flagged_corrupt_are_kept_and_counted(tmp_path: Path) -> None:
    path = overwritten(encode(tmp_path / "a.avi", noise(20), "mpeg4"), 8, start=0.5, end=0.8)
    info = write_video(path, tmp_path / "store.mp4", short_side=48)
    assert info.frames == 20
    assert info.corrupt_frames >= 1
    assert not info.partial


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "mjpeg", "vp9", "h264-ts", "hevc"])
def test_whatever_is_damaged_ends_in_a_store_or_in_a_reason(tmp_path: Path, codec: str) -> None:
    content = make_video(tmp_path / f"a{CODECS[codec].suffix}", 12, codec).read_bytes()
    outcomes = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 1 + seed % 8).tolist():
            damaged[place] = int(rng.integers(256))
        path = tmp_path / f"b{CODECS[codec].suffix}"
        path.write_bytes(damaged)
        try:
            info = write_video(path, tmp_path / "store.mp4", short_side=32, keep_partial=bool(seed % 2), max_pixels=10**6)
        except BrokenVideo:
            outcomes.add("reason")
            continue
        with open_store(tmp_path / "store.mp4") as stored:
            assert stored.read(range(info.frames)).shape == (info.frames, info.height, info.width, 3)
        outcomes.add("store")
    assert outcomes == {"store", "reason"}


def broken(kind: str, folder: Path) -> Path:
    path = folder / "a.mp4"
    if kind == "not a video":
        return not_a_video(path)
    if kind == "text":
        path.write_text("hello\n" * 100)
    elif kind == "sound":
        return sound_only(path)
    elif kind == "wav":
        return sound_only(folder / "a.wav")
    elif kind == "no frames":
        return no_frames(path)
    elif kind == "concat":
        return ffconcat(path, make_video(folder / "other.mp4", 5))
    elif kind == "playlist":
        make_video(folder / "other.ts", 5, "h264-ts")
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n")
    elif kind == "picture":
        with av.open(str(folder / "a.png"), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frames(1, 64, 48)[0])))
            container.mux(stream.encode(None))
        return folder / "a.png"
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        return Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to(folder / "gone.mp4")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    return path


REASONS = {
    "not a video": "is not a video file",
    "text": "is not a video file",
    "sound": "has no video stream",
    "wav": "is not a video file",
    "no frames": "has no picture that decodes",
    "concat": "is not a video file: what it holds is text, a playlist",
    "playlist": "is not a video file",
    "picture": "is not a video file",
    "empty": r"is empty \(0 bytes\)",
    "folder": "is a folder",
    "pipe": "is a named pipe",
    "device": "is a device",
    "link to a device": "is a device",
    "dangling": "is a link to a file that does not exist",
    "loop": "is a link in a loop of links",
    "socket": "is a socket",
    "nothing": "does not exist",
}


@pytest.mark.parametrize("kind", list(REASONS))
def test_what_is_no_video_has_a_reason_in_words(tmp_path: Path, kind: str) -> None:
    path = broken(kind, tmp_path)
    with pytest.raises(BrokenVideo, match=REASONS[kind]) as found:
        write_video(path, tmp_path / "store.mp4", short_side=48)
    assert str(found.value).startswith(str(path))
    assert "Errno" not in found.value.reason
    assert sorted(item.name for item in tmp_path.iterdir() if item.name.startswith((".tmp", "store"))) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_said_so(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    path.chmod(0)
    with pytest.raises(BrokenVideo, match="permission denied"):
        open_video(path)


def test_a_concat_file_really_would_have_played(tmp_path: Path) -> None:
    path = ffconcat(tmp_path / "a.mp4", make_video(tmp_path / "other.mp4", 5))
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 5


def test_links_to_videos_are_videos(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 5)
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    assert decode_all(tmp_path / "link.mp4")[1] == list(range(5))


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "[bold]red.mp4", "new\nline.mp4", "%03d.mp4", "-i.mp4", "concat:a.mp4|b.mp4", os.fsdecode(b"\xff.mp4")]
)
def test_odd_names_are_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(make_video(tmp_path / "a.mp4", 5).read_bytes())
    assert decode_all(Path(name))[1] == list(range(5))


# Limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_decompression_bomb_is_refused(tmp_path: Path, suffix: str) -> None:
    path = pixel_bomb(tmp_path / f"a{suffix}")
    assert path.stat().st_size < 1_000_000
    with pytest.raises(BrokenVideo, match=r"beyond the limit of 64,000,000"):
        open_video(path)


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "vp9", "hevc", "ffv1", "h264-ts"])
def test_the_pixel_limit_is_exact(tmp_path: Path, codec: str) -> None:
    path = make_video(tmp_path / f"a{CODECS[codec].suffix}", 12, codec, size=(128, 96))
    assert decode_all(path, max_pixels=128 * 96)[1] == list(range(12))
    with pytest.raises(BrokenVideo, match=r"limit of 12,287"):
        open_video(path, max_pixels=128 * 96 - 1)


def test_a_header_that_lies_about_the_size_does_not_help(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", numbered_frames(3, 640, 480), "mjpeg")
    size = struct.pack("<II", 640, 480)
    content = path.read_bytes()
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<II", 64, 48)))
    with pytest.raises(BrokenVideo, match="limit of 10,000"):
        write_video(path, tmp_path / "store.mp4", short_side=48, max_pixels=10_000)


def test_a_picture_that_grows_within_the_video_is_refused(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{i}.ts", 6, "h264-ts", size=size) for i, size in enumerate([(64, 48), (640, 480)])]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(BrokenVideo, match="limit of 100,000"):
        write_video(path, tmp_path / "store.mp4", short_side=48, max_pixels=100_000)


def test_a_pixel_shape_cannot_blow_a_picture_up(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", 3, "h264-mkv", sample_aspect_ratio=Fraction(10))
    with pytest.raises(BrokenVideo, match="640 x 48 = 30,720 pixels, beyond the limit of 20,000"):
        open_video(path, max_pixels=20_000)


# The error ------------------------------------------------------------------------------------------------------------


def test_a_broken_video_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BrokenVideo(Path("a.mp4"), "is cut short: 3 of 5", 3, 5)))
    assert isinstance(error, InputError)
    assert (str(error), error.path, error.reason, error.decoded, error.declared) == (
        "a.mp4 is cut short: 3 of 5.",
        Path("a.mp4"),
        "is cut short: 3 of 5",
        3,
        5,
    )


def test_leaving_in_the_middle_closes_the_file(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 30)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        with open_video(path) as video:
            next(video.frames())
    assert len(list(Path("/dev/fd").iterdir())) == before
