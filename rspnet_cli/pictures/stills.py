"""A picture as the bytes of a PNG or JPEG file."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace


def png_bytes(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) uint8 RGB as a PNG file, unchanged."""
    return _encoded(_frame_of(picture), "png", {})


def jpeg_bytes(picture: npt.NDArray[np.uint8], *, quantiser: int) -> bytes:
    """A picture (H, W, 3) uint8 RGB as a JPEG file. quantiser: FFmpeg's scale, 2 (best) to 31."""
    frame = _frame_of(picture).reformat(format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG)
    return _encoded(frame, "mjpeg", {"qmin": str(quantiser), "qmax": str(quantiser)})


def _frame_of(picture: npt.NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")


def _encoded(frame: av.VideoFrame, codec: str, options: Mapping[str, str]) -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.color_range = ColorRange.JPEG
    encoder.options = {"flags": "+bitexact", **options}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
