"""Frames -> a real video file, in one of several containers and codecs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray


@dataclass(frozen=True)
class Format:
    """A container, a codec and a picture size; `share` of the groups have it."""

    extension: str
    container: str
    codec: str
    width: int
    height: int
    share: float
    options: dict[str, str] = field(hash=False)


# mbtree=0: without it x264's bitstream differs between runs on some CPUs.
_H264 = {"preset": "veryfast", "crf": "21", "x264-params": "mbtree=0"}
_VP9 = {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}
_MPEG4 = {"qscale": "4", "flags": "+qscale"}

FORMATS = (
    Format("mp4", "mp4", "libx264", 160, 120, 0.30, _H264),
    Format("mp4", "mp4", "libx264", 192, 144, 0.15, _H264),
    Format("mov", "mov", "libx264", 176, 144, 0.15, _H264),
    Format("avi", "avi", "mpeg4", 161, 121, 0.20, _MPEG4),
    Format("webm", "webm", "libvpx-vp9", 175, 131, 0.10, _VP9),
    Format("mkv", "matroska", "libvpx-vp9", 160, 120, 0.10, _VP9),
)


def write_video(path: Path, frames: NDArray[np.uint8], *, file_format: Format, fps: int) -> None:
    """Writes frames (F, H, W, 4), uint8 RGB and an unused fourth, as a whole file or, when interrupted, not at all."""
    unfinished = path.with_name(path.name + ".part")
    # bitexact: no random numbers or dates in the file's header.
    with av.open(str(unfinished), "w", format=file_format.container, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(file_format.codec, rate=fps, options=dict(file_format.options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = file_format.width, file_format.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba")))
        container.mux(stream.encode())
    unfinished.replace(path)
