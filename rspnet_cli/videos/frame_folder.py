"""The frames of a folder as a video: decoded one by one, at times that a frame rate gives. The counterpart of decode.py's `Video`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from rspnet_cli.timing import timed
from rspnet_cli.videos.broken import BrokenVideo
from rspnet_cli.videos.container import DECODER_MARGIN, error_words
from rspnet_cli.videos.decode import IMPOSSIBLE_SIZE, Picture, VideoInfo, check_size
from rspnet_cli.videos.frame_files import NoFrames, frame_files, read_frame
from rspnet_cli.videos.picture import Orientation, UnsupportedColour, display_size, orientation_of
from rspnet_cli.videos.timestamps import store_timescale


class FrameFolder(AbstractContextManager["FrameFolder"]):
    """An open folder of frames, to be read once from the start to the end; members as in `Video`.

    num_frames: how many its list states; fewer in the folder mean that it is cut short, more do not count. rate: frames per second.
    keep_partial: give what is there and decodes, instead of BrokenVideo. Raises BrokenVideo.
    """

    repaired_timestamps = 0
    corrupt_frames = 0

    def __init__(self, path: Path, *, num_frames: int, rate: float, max_pixels: int, keep_partial: bool) -> None:
        self.path = path
        self.max_pixels = max_pixels
        self.keep_partial = keep_partial
        self.declared = num_frames
        self.decoded = 0
        self.partial = False
        self.rate = Fraction(rate).limit_denominator(10_000)
        self.time_base = Fraction(1, store_timescale(1 / self.rate))
        try:
            self._names = frame_files(path)[:num_frames]
        except NoFrames as fault:
            raise BrokenVideo(path, str(fault)) from fault
        kind = "png" if self._names[0].lower().endswith("png") else "mjpeg"
        self._decoder = _decoder(kind, max_pixels)
        self._first = self._frame(self._names[0])
        self.orientation: Orientation = orientation_of(self._first)
        width, height = display_size(self._first.width, self._first.height, None, self.orientation)
        self.info = VideoInfo(width, height, float(self.rate), num_frames, "folder", kind)

    def decoded_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """(time in ticks of `time_base`, frame as decoded) of every frame. Raises BrokenVideo."""
        step = 1 / self.rate / self.time_base
        for index, name in enumerate(self._names):
            try:
                frame = self._frame(name) if index else self._first
            except BrokenVideo:
                if not self.keep_partial:
                    raise
                self.partial = True
                return
            self.decoded += 1
            yield round(index * step), frame
        if len(self._names) < self.declared:
            if not self.keep_partial:
                what = f"is cut short: {self.decoded} frames are there of the {self.declared} that its list states"
                raise BrokenVideo(self.path, what, self.decoded, self.declared)
            self.partial = True

    def converted(self, convert: Callable[[VideoFrame], Picture]) -> Iterator[tuple[int, Picture]]:
        """The same with what `convert` makes of each frame."""
        return ((ticks, convert(frame)) for ticks, frame in self.decoded_frames())

    def unsupported(self, error: UnsupportedColour) -> BrokenVideo:
        """The reason for a colour matrix that cannot be converted."""
        return BrokenVideo(self.path, f"uses a colour matrix that cannot be converted ({error})")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing stays open between frames."""

    def _frame(self, name: str) -> VideoFrame:
        try:
            packet = av.Packet(read_frame(self.path, name))
            packet.is_keyframe = True  # FFmpeg's PNG decoder adds the picture before to one that is not (animated PNG)
            with timed("decode"):
                frames = self._decoder.decode(packet)
        except NoFrames as fault:
            raise BrokenVideo(self.path, str(fault), self.decoded, self.declared) from fault
        except av.FFmpegError as error:
            check_size(self.path, self._decoder.width, self._decoder.height, self.max_pixels, self.decoded)
            why = error_words(error) if self._decoder.width else IMPOSSIBLE_SIZE.format(limit=self.max_pixels)
            words = f"is damaged: {self.decoded} frames decode, then {name} does not ({why})"
            raise BrokenVideo(self.path, words, self.decoded, self.declared) from error
        if len(frames) != 1:
            raise BrokenVideo(self.path, f"has a frame {name} that is no single picture", self.decoded, self.declared)
        check_size(self.path, frames[0].width, frames[0].height, self.max_pixels, self.decoded)
        return frames[0]


def _decoder(kind: str, max_pixels: int) -> VideoCodecContext:
    decoder = av.CodecContext.create(kind, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    # Bounded before memory is taken. Without `explode` a JPEG file that is cut in the middle decodes, grey below the cut.
    decoder.options = {"max_pixels": str(max_pixels + DECODER_MARGIN), "err_detect": "explode"}
    return decoder
