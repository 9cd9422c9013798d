"""The default store: H.264 in MP4, made for random access. Any player opens it.

Closed groups of 16 frames without B-frames, so a frame is at most 16 decoded frames away and packets are in the order of their times;
decoding is made cheap (no CABAC, no loop filter). CRF 20 measures 42 to 46 dB luma PSNR against the resized source on scenes with figures
at 160 x 120 and at 128 x 96, at 125 to 195 KiB for 250 frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from rspnet_cli.errors import InputError
from rspnet_cli.files import atomic_path
from rspnet_cli.timing import timed
from rspnet_cli.videos.broken import BrokenVideo
from rspnet_cli.videos.container import open_container
from rspnet_cli.videos.picture import BT601, reformatter, rgb_of
from rspnet_cli.videos.planes import Cut, Pixels, Planes, copy_planes
from rspnet_cli.videos.stored import StoredVideo
from rspnet_cli.videos.timestamps import average_rate, store_timescale

GROUP = 16
MAX_STORED_PIXELS = 2**28
# The encoder gets so many bytes of pictures at a time: decoder and encoder in turns for every picture push each other's code and tables
# out of the core's caches. For 340 x 256 to 170 x 128 the blocks saved 1 % on idle cores, 6 to 11 % where 4 processes shared 2.
BLOCK_BYTES = 2**21
# Pixel formats of a frame file: is that FFmpeg's name for full range?
_FULL_RANGE = {"yuv420p": False, "yuvj420p": True}

# With AVX-512 and mbtree the same frames gave 3 to 4 different files in 8 processes; without mbtree and with one thread always the same.
_X264 = (
    f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:open-gop=0:bframes=0:"
    "mbtree=0:rc-lookahead=0:sync-lookahead=0:threads=1:lookahead-threads=1"
)


class _Output:
    """A file for FFmpeg to write to that remembers its first error: FFmpeg ignores those of the last bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None
        self.tell = file.tell
        self.seek = file.seek
        self.seekable = file.seekable

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise


def write_h264(
    pictures: Iterable[tuple[int, VideoFrame]], target: Path, *, size: tuple[int, int], time_base: Fraction, rate: Fraction, crf: int
) -> list[int]:
    """Encode (ticks of time_base, yuv420p picture of `size`) into an MP4; the ticks written. Raises DiskFullError.

    time_base must be one that MP4 states exactly: 1 / store_timescale(...).
    """
    timescale = time_base.denominator
    assert time_base == Fraction(1, store_timescale(time_base))
    times: list[int] = []
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        output = _Output(file)
        try:
            options = {"movie_timescale": str(timescale), "video_track_timescale": str(timescale), "fflags": "+bitexact"}
            with av.open(output, "w", format="mp4", options=options) as container:
                stream = _add_stream(container, size, time_base, rate, crf)
                for ticks, picture in _in_blocks(pictures, size):
                    picture.pts, picture.time_base = ticks, time_base
                    picture.pict_type = PictureType.NONE  # else the source's key frames would be forced upon ours
                    times.append(ticks)
                    with timed("encode"):
                        container.mux(stream.encode(picture))
                with timed("encode"):
                    container.mux(stream.encode(None))
        finally:
            if output.error is not None:
                raise output.error
        file.flush()
    return times


def _in_blocks(pictures: Iterable[tuple[int, VideoFrame]], size: tuple[int, int]) -> Iterator[tuple[int, VideoFrame]]:
    """The same pictures; those of a block are all made before the first of them is given."""
    source = iter(pictures)
    length = max(1, BLOCK_BYTES // (size[0] * size[1] * 3 // 2))
    while block := list(islice(source, length)):
        yield from block


def _add_stream(
    container: av.container.OutputContainer, size: tuple[int, int], time_base: Fraction, rate: Fraction, crf: int
) -> VideoStream:
    options = {"preset": "veryfast", "tune": "fastdecode", "crf": str(crf), "x264-params": _X264, "a53cc": "0"}
    stream = container.add_stream("libx264", rate=rate.limit_denominator(10_000), options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = time_base
    context = stream.codec_context
    context.time_base = time_base
    context.thread_count = 1
    context.colorspace = BT601
    context.color_range = ColorRange.MPEG
    return stream


class H264Video(StoredVideo):
    """Random access by frame index: seek to the key frame in front of it, decode forwards, convert only what was asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._container, self._stream = open_container(path, max_pixels=MAX_STORED_PIXELS, demuxer="mov")
        except BrokenVideo as error:
            raise self.damaged(f"it {error.reason}") from error
        self._file = -1
        try:
            self._read_index()
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            self.close()
            raise self.damaged(f"it cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
        self._position = -1  # index of the frame that the decoder gives next; -1: none

    def _read_index(self) -> None:
        stream, context = self._stream, self._stream.codec_context
        # Without B-frames the index is the table of times; reading it takes 0.3 ms for 250 frames and decodes nothing.
        entries = list(stream.index_entries)
        self._pts = np.array([entry.timestamp for entry in entries], np.int64)  # (N,) in ticks
        self._places = [(entry.size, entry.pos) for entry in entries]  # of the pictures, in bytes
        keys = np.array([entry.is_keyframe for entry in entries], bool)
        ours = context.name == "h264" and not context.has_b_frames and context.pix_fmt in _FULL_RANGE and context.colorspace == BT601
        if not ours or any(entry.is_discard for entry in entries):
            raise InputError(f"{self.path} is no frame file of `rspnet extract`: name a folder that it wrote.")
        if not len(entries) or not keys[0] or (np.diff(self._pts) <= 0).any() or stream.time_base is None:
            raise self.damaged("its index is not in order")
        self._key = np.maximum.accumulate(np.where(keys, np.arange(len(keys)), 0))  # (N,): the key frame at or before each frame
        base = Fraction(stream.time_base)
        self.times_s = self._pts * base.numerator / base.denominator
        rate = average_rate(int(self._pts[0]), int(self._pts[-1]), len(self._pts), base)
        self.fps = rate or float(stream.guessed_rate or 25)
        self.width, self.height = context.width, context.height
        # Luma spans 0 to 255, not 16 to 235 (and chroma likewise).
        self.full_range = _FULL_RANGE[str(context.pix_fmt)] or context.color_range == ColorRange.JPEG

    def read_cuts(self, cuts: Sequence[Cut], into: Sequence[Pixels]) -> None:
        """See StoredVideo."""
        self._read_each(cuts, into, self._read_frame)

    def _read_frame(self, index: int) -> Pixels:
        frame = self._decode(index)
        with timed("convert"):
            picture = reformatter().reformat(
                frame,
                format="rgb24",
                src_colorspace=Colorspace.ITU601,
                dst_colorspace=Colorspace.ITU601,
                src_color_range=ColorRange.JPEG if self.full_range else ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        return rgb_of(picture)

    def read_planes(self, cuts: Sequence[Cut], into: Sequence[Planes]) -> None:
        """The even boxes around the cuts as the decoder gives them, in one pass. Raises as `read`."""
        for index, places in self._in_order(cuts):
            frame = self._decode(index)
            with timed("crop"):
                copy_planes(frame, [(cuts[number].box.even, into[number], place) for number, place in places])

    def _decode(self, index: int) -> VideoFrame:
        decoder = self._stream.codec_context
        key = int(self._key[index])
        if not self._position <= index or key > self._position:
            decoder.flush_buffers()
            self._position = key
        while True:
            position = self._position
            # Not by the container's demuxer, which takes a twelfth of the time to find what the index says.
            try:
                packet = av.Packet(os.pread(self._file, *self._places[position]))
                packet.pts = int(self._pts[position])
                frames = decoder.decode(packet)
            except (av.FFmpegError, OSError) as error:
                raise self._lost(f"frame {position} does not decode") from error
            frame = frames[0] if len(frames) == 1 else None
            if (
                frame is None
                or frame.pts != self._pts[position]
                or frame.is_corrupt
                or (frame.width, frame.height) != (self.width, self.height)
                or frame.format.name not in _FULL_RANGE
            ):
                raise self._lost(f"frame {position} is not there or does not decode")
            self._position += 1
            if position == index:
                return frame

    def _lost(self, what: str) -> InputError:
        self._position = -1
        return self.damaged(what)

    def close(self) -> None:
        """Close the file; a container that is left to the garbage collector leaks (PyAV#1117)."""
        self._container.close()
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
