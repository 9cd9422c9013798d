"""From a decoded frame to the picture a viewer sees: orientation, pixel shape, size and colour. YUV stays YUV on the way into the store."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

PictureFormat = Literal["yuv420p", "yuvj420p", "rgb24"]

# FFmpeg's AVColorSpace of a frame -> swscale's table. 3 is reserved, 0 says RGB and 2 says nothing.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_UNTAGGED = (0, 2, 3)
BT601 = 6  # AVCOL_SPC_SMPTE170M, the tag of every stored frame
UNTAGGED_709_LINES = 720

# Bicubic is what `ffmpeg -vf scale` does, widened over all source pixels when shrinking. Without ACCURATE_RND luma comes out
# up to 2.7 levels too dark (measured over random colours), with it 1.3 at most.
_SHRINK = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


class UnsupportedColour(Exception):
    """A colour matrix that cannot be converted; the text is its name."""


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes upright: first transposed, then mirrored along each axis."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Turn an array (H, W, ...); a view where that is possible."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The display matrix of a frame, to the nearest quarter turn, mirrored or not."""
    try:
        side_data: Any = frame.side_data  # PyAV's type stub knows only one key
        data = side_data["DISPLAYMATRIX"]
    except (ValueError, LookupError):  # there is none, or there is side data of a kind that PyAV does not know
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirror_x=a < 0, mirror_y=d < 0)
    return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)


def display_size(width: int, height: int, pixel_aspect: Fraction | None, orientation: Orientation) -> tuple[int, int]:
    """(width, height) at which a player shows a decoded picture: square pixels (the width is stretched), upright."""
    if pixel_aspect is not None and pixel_aspect > 0:
        width = max(1, round(width * pixel_aspect))
    return (height, width) if orientation.transpose else (width, height)


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) with the shorter side brought down to `short_side`, never up, both even and at least 2."""
    short = min(width, height)
    if short <= short_side:
        return max(2, width // 2 * 2), max(2, height // 2 * 2)
    side = max(2, short_side // 2 * 2)
    longer = max(side, 2 * round(max(width, height) * side / short / 2))
    return (side, longer) if width <= height else (longer, side)


def colour_of(frame: av.VideoFrame) -> tuple[Colorspace, ColorRange]:
    """The matrix and range a frame is to be read with. Untagged: BT.601 below 720 lines, else BT.709; limited range.

    Transfer curves are left as they are (HDR is not tone-mapped). Raises UnsupportedColour.
    """
    components = frame.format.components
    if frame.format.is_rgb or frame.format.has_palette:
        return Colorspace.ITU601, ColorRange.JPEG
    if frame.colorspace in _UNTAGGED:
        matrix = Colorspace.ITU709 if frame.height >= UNTAGGED_709_LINES else Colorspace.ITU601
    elif frame.colorspace in _MATRICES:
        matrix = _MATRICES[frame.colorspace]
    else:
        raise UnsupportedColour({8: "YCgCo", 14: "ICtCp"}.get(frame.colorspace, f"number {frame.colorspace}"))
    grey = len(components) < 3  # untagged, swscale takes grey as full range
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or (grey and frame.color_range != ColorRange.MPEG)
    return matrix, ColorRange.JPEG if full else ColorRange.MPEG


_own = threading.local()


def reformatter() -> VideoReformatter:
    """This thread's converter. It keeps its tables while sizes and formats stay the same, and a new one for each video costs megabytes."""
    if not hasattr(_own, "reformatter"):
        _own.reformatter = VideoReformatter()
    converter: VideoReformatter = _own.reformatter
    return converter


def to_picture(frame: av.VideoFrame, size: tuple[int, int], orientation: Orientation, kind: PictureFormat) -> av.VideoFrame:
    """A decoded frame of any format, upright at `size` (width, height): BT.601 limited (yuv420p), BT.601 full (yuvj420p), or RGB.

    Raises UnsupportedColour.
    """
    matrix, colour_range = colour_of(frame)
    width, height = size[::-1] if orientation.transpose else size
    exact = Interpolation.FULL_CHR_H_INT if kind == "rgb24" else 0
    picture = reformatter().reformat(
        frame,
        width,
        height,
        kind,
        src_colorspace=matrix,
        dst_colorspace=Colorspace.ITU601,
        interpolation=_SHRINK | exact,
        src_color_range=colour_range,
        dst_color_range=ColorRange.MPEG if kind == "yuv420p" else ColorRange.JPEG,
        threads=1,
    )
    if orientation != Orientation():
        picture = _turned(picture, orientation, kind)
    if kind != "rgb24":
        picture.colorspace = BT601
        picture.color_range = ColorRange.MPEG if kind == "yuv420p" else ColorRange.JPEG
    return picture


def plane_of(frame: av.VideoFrame, index: int, width: int, height: int) -> np.ndarray:
    """A plane of a frame as an array (height, width) of bytes, without the padding of its lines; a view into the frame."""
    plane = frame.planes[index]
    lines: np.ndarray = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return lines[:height, :width]


def rgb_of(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8, a view into a frame of format rgb24."""
    return plane_of(frame, 0, frame.width * 3, frame.height).reshape(frame.height, frame.width, 3)


def _turned(picture: av.VideoFrame, orientation: Orientation, kind: PictureFormat) -> av.VideoFrame:
    width, height = picture.width, picture.height
    if kind == "rgb24":
        turned = orientation.apply(rgb_of(picture))
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format=kind)
    planes = [plane_of(picture, 0, width, height), *(plane_of(picture, i, width // 2, height // 2) for i in (1, 2))]
    upright = [orientation.apply(plane) for plane in planes]
    packed = np.concatenate([plane.ravel() for plane in upright]).reshape(-1, upright[0].shape[1])  # (1.5 H, W)
    return av.VideoFrame.from_ndarray(packed, format=kind)
