"""Really encoded videos for the tests: every frame shows its own number, in a code that survives codecs and resizing.

A picture is a grid of 4 x 4 blocks, black or white: block 0 (top left) is white and block 15 black, so that a wrong
orientation is noticed, blocks 1 to 12 are the number in binary, blocks 13 and 14 its parity and the inverse of it.
`read_number` reads it back from any decoded frame.
"""

import os
import struct
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder is talkative otherwise

Frame = npt.NDArray[np.uint8]  # (H, W, 3) RGB

GRID = 4
NUMBER_BITS = 12
MAX_NUMBER = 2**NUMBER_BITS - 1


@dataclass(frozen=True)
class Codec:
    """How to encode one kind of video: FFmpeg's encoder, the usual container, pixel format, encoder options."""

    encoder: str
    suffix: str
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)


_X264 = "bframes={b}:keyint=12:min-keyint=12:scenecut=0:open-gop={open}:threads=1:mbtree=0"
_X265 = "bframes=3:keyint=12:min-keyint=12:scenecut=0:open-gop={open}:pools=1:frame-threads=1:log-level=none"
_GOOD = {"qmin": "3", "qmax": "3"}  # FFmpeg's own encoders: a constant quantiser of 3 (2 is best, 31 worst)
CODECS = {
    "h264": Codec("libx264", ".mp4", options={"x264-params": _X264.format(b=3, open=0), "preset": "fast"}),
    "h264-open-gop": Codec("libx264", ".mp4", options={"x264-params": _X264.format(b=3, open=1), "preset": "fast"}),
    "h264-mkv": Codec("libx264", ".mkv", options={"x264-params": _X264.format(b=3, open=0), "preset": "fast"}),
    "h264-10bit": Codec("libx264", ".mp4", "yuv420p10le", {"x264-params": _X264.format(b=2, open=0), "preset": "fast"}),
    "h264-ts": Codec("libx264", ".ts", options={"x264-params": _X264.format(b=3, open=0), "preset": "fast"}),
    "h264-flv": Codec("libx264", ".flv", options={"x264-params": _X264.format(b=2, open=0), "preset": "fast"}),
    "hevc": Codec("libx265", ".mp4", options={"x265-params": _X265.format(open=0), "preset": "ultrafast"}),
    "hevc-open-gop": Codec("libx265", ".mp4", options={"x265-params": _X265.format(open=1), "preset": "ultrafast"}),
    "mpeg4": Codec("mpeg4", ".avi", options={"bf": "2", "g": "12", **_GOOD}),
    "mpeg2": Codec("mpeg2video", ".mpg", options={"bf": "2", "g": "12"}),
    "vp9": Codec("libvpx-vp9", ".webm", options={"deadline": "realtime", "cpu-used": "8", "g": "12", "lag-in-frames": "12"}),
    "av1": Codec("libsvtav1", ".mp4", options={"preset": "13", "svtav1-params": "lp=1:pred-struct=1:crf=20", "g": "12"}),
    "mjpeg": Codec("mjpeg", ".avi", "yuvj420p", _GOOD),
    "wmv2": Codec("wmv2", ".wmv", options=_GOOD),
    "ffv1": Codec("ffv1", ".mkv"),
}


def numbered_frame(number: int, width: int, height: int) -> Frame:
    """A picture of `number` (0 to 4095), uint8 RGB of shape (height, width, 3)."""
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"number {number} does not fit into {NUMBER_BITS} bits")
    bits = [number >> bit & 1 for bit in range(NUMBER_BITS)]
    parity = sum(bits) % 2
    blocks = np.array([1, *bits, parity, 1 - parity, 0], np.uint8).reshape(GRID, GRID)
    rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
    luma = np.where(blocks[np.ix_(rows, columns)] == 1, 224, 32).astype(np.uint8)
    return np.repeat(luma[:, :, None], 3, axis=2)


def numbered_frames(num_frames: int, width: int, height: int, *, start: int = 0) -> list[Frame]:
    """Pictures of the numbers start, start + 1, ..."""
    return [numbered_frame(start + i, width, height) for i in range(num_frames)]


def read_number(frame: npt.NDArray[np.uint8]) -> int:
    """The number that a decoded picture (H, W, 3) or (H, W) shows. Raises ValueError where it shows none."""
    luma = frame.astype(np.float64) if frame.ndim == 2 else frame.astype(np.float64).mean(2)
    height, width = luma.shape
    means = np.empty((GRID, GRID))
    for row in range(GRID):
        for column in range(GRID):  # the middle half of each block: edges ring and are interpolated
            top, bottom = (row + 0.25) * height / GRID, (row + 0.75) * height / GRID
            left, right = (column + 0.25) * width / GRID, (column + 0.75) * width / GRID
            rows, columns = (
                slice(round(top), max(round(bottom), round(top) + 1)),
                slice(round(left), max(round(right), round(left) + 1)),
            )
            means[row, column] = luma[rows, columns].mean()
    blocks = means.ravel()
    if np.any((blocks > 96) & (blocks < 160)):
        raise ValueError(f"neither black nor white: {np.round(blocks)}")
    bits = (blocks > 128).astype(int)
    number_bits = bits[1 : 1 + NUMBER_BITS]
    parity = number_bits.sum() % 2
    if list(bits[[0, 13, 14, 15]]) != [1, parity, 1 - parity, 0]:
        raise ValueError(f"not a numbered picture, or turned: {bits.reshape(GRID, GRID).tolist()}")
    return int((number_bits << np.arange(NUMBER_BITS)).sum())


def read_numbers(frames: Iterable[npt.NDArray[np.uint8]]) -> list[int]:
    return [read_number(frame) for frame in frames]


def encode(
    path: Path,
    frames: Iterable[Frame | av.VideoFrame],
    codec: str | Codec = "h264",
    *,
    fps: Fraction | int = 25,
    times_s: Sequence[float | Fraction] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    hflip: bool = False,
    sample_aspect_ratio: Fraction | None = None,
    options: dict[str, str] | None = None,
    color: dict[str, int] | None = None,
    audio_s: float = 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode pictures (RGB arrays, or ready frames in the codec's pixel format); the suffix decides the container.

    times_s: time of each frame in seconds, for a variable frame rate (time base 1/90000 unless given); otherwise frame
    i is at i / fps. rotation: degrees clockwise by which a player turns the picture. color: color_range, colorspace and
    so on, set on the encoder as they are. audio_s: seconds of silent audio beside the video.
    """
    kind = CODECS[codec] if isinstance(codec, str) else codec
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [as_video_frame(frame, kind.pix_fmt) for frame in frames]
    base = time_base or (Fraction(1, 90_000) if times_s is not None else 1 / Fraction(fps))
    with av.open(str(path), "w", options=container_options) as container:
        stream: Any = container.add_stream(kind.encoder, rate=Fraction(fps), options=dict(kind.options) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, kind.pix_fmt
        stream.thread_count = 1
        stream.time_base = stream.codec_context.time_base = base
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
            stream.sample_aspect_ratio = sample_aspect_ratio
        for name, value in (color or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation or hflip:
            stream.set_display_rotation(-rotation, hflip=hflip)
        sound: Any = container.add_stream("aac" if path.suffix in {".mp4", ".mov", ".mkv"} else "mp2", rate=48_000) if audio_s else None
        if sound is not None:
            for block in _silence(audio_s, sound):
                container.mux(sound.encode(block))
        for index, picture in enumerate(pictures):
            seconds = Fraction(times_s[index]) if times_s is not None else index / Fraction(fps)
            picture.pts, picture.time_base = round(seconds / base), base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def make_video(
    path: Path,
    num_frames: int = 40,
    codec: str | Codec = "h264",
    *,
    size: tuple[int, int] = (64, 48),
    start: int = 0,
    **how: Any,
) -> Path:
    """A video in which frame i shows the number start + i. See `encode`.

    size: (width, height) as a viewer sees it, also of a rotated video.
    """
    frames = numbered_frames(num_frames, *size, start=start)
    turns = how.get("rotation", 0) // 90
    # A player turns the stored picture clockwise, so it is stored turned the other way round.
    stored = [np.ascontiguousarray(np.rot90(frame, turns)) for frame in frames]
    return encode(path, stored, codec, **how)


def make_frames(
    folder: Path,
    num_frames: int = 10,
    *,
    size: tuple[int, int] = (64, 48),
    start: int = 0,
    first: int = 1,
    name: str = "img_{:05d}.jpg",
) -> Path:
    """A folder of numbered pictures, as other toolkits make of a video; picture i shows the number start + i."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(numbered_frames(num_frames, *size, start=start)):
        (folder / name.format(first + index)).write_bytes(picture_bytes(picture, "png" if name.endswith("png") else "mjpeg"))
    return folder


def picture_bytes(picture: Frame | av.VideoFrame, encoder: str = "mjpeg") -> bytes:
    """A picture as the content of a JPEG (mjpeg) or PNG file."""
    context: Any = av.CodecContext.create(encoder, "w")
    frame = as_video_frame(picture, "rgb24" if encoder == "png" else "yuvj420p")
    context.width, context.height, context.pix_fmt, context.time_base = frame.width, frame.height, frame.format.name, Fraction(1, 25)
    context.options = {"qmin": "2", "qmax": "2"} if encoder == "mjpeg" else {}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def as_video_frame(picture: Frame | av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """An RGB array as a frame in `pix_fmt`, by the BT.601 matrix (full range for yuvj formats)."""
    if isinstance(picture, av.VideoFrame):
        return picture
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt, dst_colorspace="ITU601", threads=1)


def _silence(seconds: float, sound: Any) -> Iterable[av.AudioFrame]:
    for start in range(0, int(seconds * 48_000), 1024):
        block = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), format="s16", layout="stereo")
        block.sample_rate, block.pts, block.time_base = 48_000, start, Fraction(1, 48_000)
        yield block


# Broken videos


def truncated(source: Path, target: Path, share: float = 0.6) -> Path:
    """The first part of a video file."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def not_a_video(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    return path


def sound_only(path: Path) -> Path:
    """A well-formed media file without pictures."""
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(8000))
        return path
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=48_000)
        for block in _silence(0.5, stream):
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def no_frames(path: Path) -> Path:
    """A video stream whose header is all there is: a good mp4 with its media data overwritten."""
    make_video(path, 10, "mpeg4")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    (size,) = struct.unpack(">I", content[start - 8 : start - 4])
    content[start : start + size - 8] = bytes(size - 8)
    path.write_bytes(content)
    return path


def ffconcat(path: Path, other: Path) -> Path:
    """A text file that FFmpeg's concat demuxer would play as `other`."""
    path.write_text(f"ffconcat version 1.0\nfile '{other.name}'\n")
    return path


def pixel_bomb(path: Path, size: tuple[int, int] = (9000, 8000)) -> Path:
    """A small file that holds one enormous picture."""
    return encode(path, [grey(*size)], Codec("mjpeg", path.suffix, "yuvj420p", {}), fps=1)


def grey(width: int, height: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, "yuvj420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    return frame
