"""Any video file -> its pictures with their times; or why the file is broken.

Foreign videos are hostile input. All commands read them through here, with the same limits: container.py decides what is opened, each
picture is bounded in pixels by the header and again when it has decoded, and a file is whole only if all that it declares is there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rspnet_cli.timing import timed
from rspnet_cli.videos.broken import BrokenVideo
from rspnet_cli.videos.container import declared_frames, error_words, missing_bytes, open_container
from rspnet_cli.videos.picture import Orientation, UnsupportedColour, display_size, orientation_of, rgb_of, stored_size, to_picture
from rspnet_cli.videos.timestamps import Timeline, store_timescale

__all__ = ["MAX_PIXELS", "BrokenVideo", "Video", "VideoInfo", "open_video"]

Picture = TypeVar("Picture")

MAX_PIXELS = 64_000_000
# Clocks of these formats start anywhere (a recording of a broadcast at 26 h): times count from the start of the file, as players do.
_FREE_CLOCKS = {"mpeg", "mpegts"}
# Their index leads to the key frame before any time, and their frames tell their times themselves (mp4, mov, mkv, webm).
_INDEXED = {"mov", "matroska"}
DEFAULT_RATE = Fraction(25)
# Pictures are decoded in another order than they are shown in, at most so far apart (H.264 and HEVC).
MAX_REORDER = 16
# What a decoder means that is left without a size: it met one that it was told not to take memory for.
IMPOSSIBLE_SIZE = "its size is impossible or beyond the limit of {limit:,} pixels, --max-pixels"


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its video, before all of it has been decoded."""

    width: int
    """Pixels, upright and with square pixels, as a player shows it."""
    height: int
    rate: float
    """Frames per second by the header; the times of the frames are the truth."""
    declared: int | None
    """Pictures that the file says it holds; None where its format does not say."""
    container: str
    codec: str


def open_video(path: Path, *, max_pixels: int = MAX_PIXELS, keep_partial: bool = False) -> Video:
    """Open a video file; use it in a `with` block, once: it is read from the start to the end.

    max_pixels: largest picture. keep_partial: of a truncated or damaged file give what decodes before the damage, instead of BrokenVideo at
    its end. Raises BrokenVideo for everything that is no video, also for one without a single picture.
    """
    return Video(path, max_pixels=max_pixels, keep_partial=keep_partial)


class Video(AbstractContextManager["Video"]):
    """An open video. The counts below are final when all its pictures have been taken.

    decoded: pictures so far. corrupt_frames: those that the decoder flagged as damaged. repaired_timestamps: times that were missing or did
    not increase. partial: the file ended early and keep_partial was set. time_base: seconds per tick of the times, one that the store can
    state: the source's own or a whole fraction of it, or about a microsecond where that is finer.
    """

    def __init__(self, path: Path, *, max_pixels: int, keep_partial: bool) -> None:
        self.path = path
        self.max_pixels = max_pixels
        self.keep_partial = keep_partial
        self._open()

    def _open(self) -> None:
        path = self.path
        self.decoded = 0
        self.corrupt_frames = 0
        self.partial = False
        self._skipped = False
        self._error: str | None = None
        self._packets = 0
        self._failed_at_start = 0
        self._last_packet_corrupt = False
        self._last_corrupt: int | None = None  # number of the last picture that was flagged
        self._container, self._stream = open_container(path, max_pixels=self.max_pixels)
        try:
            context = self._stream.codec_context
            self._check_size(context.width, context.height)
            self.declared = declared_frames(self._container, self._stream)
            rate = self._stream.guessed_rate or self._stream.average_rate or DEFAULT_RATE
            self.rate = Fraction(rate) if 0 < rate <= 1000 else DEFAULT_RATE
            self._source_base = Fraction(self._stream.time_base or 1 / self.rate)
            self.time_base = Fraction(1, store_timescale(self._source_base))
            self._timeline = Timeline(nominal=round(1 / (self.rate * self.time_base)))
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise BrokenVideo(path, "has no picture that decodes" + (f" ({self._error})" if self._error else ""), 0, self.declared)
            self._first = first
            self.orientation: Orientation = orientation_of(first)
            aspect = self._stream.sample_aspect_ratio
            width, height = display_size(first.width, first.height, Fraction(aspect) if aspect else None, self.orientation)
            self._check_size(width, height)
            self.info = VideoInfo(width, height, float(self.rate), self.declared, self._container.format.name, context.name)
        except BaseException:
            self._container.close()
            raise

    @property
    def repaired_timestamps(self) -> int:
        """How many times had to be made up so far."""
        return self._timeline.repaired

    def frames(self, short_side: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """(time in seconds, RGB (H, W, 3) uint8) of every picture. Raises BrokenVideo.

        short_side: shrink to the size that the frame store would have; without it pictures have `info`'s size.
        """
        size = (self.info.width, self.info.height)
        if short_side is not None:
            size = stored_size(*size, short_side)

        def rgb(frame: VideoFrame) -> np.ndarray:
            try:
                return np.ascontiguousarray(rgb_of(to_picture(frame, size, self.orientation, "rgb24")))
            except UnsupportedColour as error:
                raise self.unsupported(error) from error

        for ticks, picture in self.converted(rgb):
            yield float(ticks * self.time_base), picture

    def skip_to(self, start: Fraction) -> None:
        """Leave out pictures before a time in seconds, where the file has an index; never one from there on. Before any is taken.

        Minutes of a long recording need not be decoded to reach a part of it. Raises BrokenVideo as opening does.
        """
        origin, first = self._origin(), self._first.pts
        target = int(start / self._source_base) + origin
        # Times that begin below zero are moved as a whole, by the first of them.
        if not set(self._container.format.name.split(",")) & _INDEXED or first is None or not origin <= first < target:
            return
        self._frames.close()
        try:
            self._container.seek(target, stream=self._stream)
            self._frames = self._decode()
            found = next(self._frames, None)
        except av.FFmpegError:
            found = None
        if found is None or found.pts is None or found.pts > target:  # no index, or one that lies: from the beginning, then
            self.close()
            self._open()
            return
        self._first, self._skipped = found, True

    def decoded_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """(time in ticks of `time_base`, frame as decoded) of every picture, times strictly increasing. Raises BrokenVideo."""
        return self.converted(lambda frame: frame)

    def converted(self, convert: Callable[[VideoFrame], Picture]) -> Iterator[tuple[int, Picture]]:
        """The same with what `convert` makes of each frame.

        One picture is held back: whether to believe its time depends on the next one's, and the last of a cut file may be half a picture.
        It is converted before that, while the frame is in the core's cache.
        """
        origin, scale = self._origin(), self._source_base / self.time_base
        whole = scale.numerator if scale.denominator == 1 else None  # fractions are slow, and seldom needed

        def ticks(pts: int | None) -> int | None:
            if pts is None:
                return None
            return (pts - origin) * whole if whole is not None else round((pts - origin) * scale)

        held, time, is_corrupt = convert(self._first), ticks(self._first.pts), self._first.is_corrupt
        for frame in self._frames:
            picture, following = convert(frame), ticks(frame.pts)
            yield self._timeline.next(time, following), held
            held, time, is_corrupt = picture, following, frame.is_corrupt
        problem = self._problem()
        if problem is not None:
            if not self.keep_partial:
                raise BrokenVideo(self.path, problem, self.decoded, self.declared)
            self.partial = True
            if is_corrupt or self._last_packet_corrupt:
                self.corrupt_frames -= is_corrupt
                return
        yield self._timeline.next(time, None), held

    def unsupported(self, error: UnsupportedColour) -> BrokenVideo:
        """The reason for a colour matrix that cannot be converted."""
        return BrokenVideo(self.path, f"uses a colour matrix that cannot be converted ({error})")

    def close(self) -> None:
        """Close the file; a container that is left to the garbage collector leaks (PyAV#1117)."""
        self._frames.close()
        self._container.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _origin(self) -> int:
        """The time that counts as 0, in ticks of the source."""
        names = set(self._container.format.name.split(","))
        if not names & _FREE_CLOCKS or self._container.start_time is None:
            return 0
        start = round(Fraction(self._container.start_time, av.time_base) / self._source_base)
        # Both say when the file begins, the stream's own in exact ticks.
        own = self._stream.start_time
        return own if own is not None and abs(own - start) * self._source_base <= Fraction(1, 1000) else start

    def _decode(self) -> Generator[VideoFrame]:
        """The pictures as they decode, up to the end or the first error after the first picture; what went wrong goes to `_error`."""
        for packet in self._packets_read():
            try:
                with timed("decode"):
                    frames = self._stream.codec_context.decode(packet)
            except av.error.EOFError:
                break
            except av.FFmpegError as error:
                self._error = self._words(error)
                if self.decoded:
                    break
                self._failed_at_start += 1  # a recording may start in the middle; nothing decodes before the first key frame
                continue
            yield from self._checked(frames)
        try:
            with timed("decode"):
                rest = self._stream.codec_context.decode(None)  # what the decoder still holds, in front of an error too
        except av.FFmpegError as error:
            rest = []
            if not isinstance(error, av.error.EOFError):
                self._error = self._error or self._words(error)
        yield from self._checked(rest)

    def _packets_read(self) -> Iterator[av.Packet[VideoStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                with timed("decode"):
                    packet = next(packets, None)
            except av.FFmpegError as error:
                self._error = f"reading failed: {error_words(error)}"
                return
            if packet is None:
                return
            if packet.size == 0:
                # The last one, or "the same picture again": a decoder would take it for the end of the stream.
                self._packets += packet.dts is not None
                continue
            self._packets += not packet.is_discard
            self._last_packet_corrupt = packet.is_corrupt
            yield packet

    def _checked(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            self._check_size(frame.width, frame.height)
            if self.decoded == 0:
                self._error = None
            self.decoded += 1
            self.corrupt_frames += frame.is_corrupt
            if frame.is_corrupt:
                self._last_corrupt = self.decoded
            yield frame

    def _check_size(self, width: int, height: int) -> None:
        check_size(self.path, width, height, self.max_pixels, self.decoded)

    def _words(self, error: av.FFmpegError) -> str:
        context = self._stream.codec_context
        self._check_size(context.width, context.height)  # the decoder stopped at a size that the header did not tell
        return error_words(error) if context.width else IMPOSSIBLE_SIZE.format(limit=self.max_pixels)

    def _problem(self) -> str | None:
        """Why the file is not whole, after its last picture; None if it is."""
        uncounted = self.declared is None or self._skipped
        counts = f"{self.decoded} pictures decode" + ("" if uncounted else f" of the {self.declared} it declares")
        if self._error is not None:
            return f"is damaged or cut short: {counts}, then an error ({self._error})"
        if self.declared is not None:
            if self._skipped:
                return None
            if self._failed_at_start:
                return f"is damaged at its start: {counts}"
            # Packets, not pictures: a packet may rightly show nothing (mpeg4's "not coded", the start of an open GOP).
            return f"is cut short: {counts}" if self._packets < self.declared else None
        corrupt_end = self._last_corrupt is not None and self.decoded - self._last_corrupt < MAX_REORDER
        if corrupt_end or self._last_packet_corrupt:
            return f"is cut short: it ends in the middle of a picture; {counts}"
        missing = missing_bytes(self.path)
        return f"is cut short: {missing:,} bytes are missing at its end; {counts}" if missing else None


def check_size(path: Path, width: int, height: int, max_pixels: int, decoded: int) -> None:
    """Raise BrokenVideo for a picture of too many pixels. decoded: pictures before it."""
    if width * height > max_pixels:
        size = f"{width:,} x {height:,} = {width * height:,} pixels"
        raise BrokenVideo(path, f"has pictures of {size}, beyond the limit of {max_pixels:,} (--max-pixels)", decoded)
