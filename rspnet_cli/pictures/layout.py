"""Pictures put together from pictures: lines of text, rows and columns. A picture is (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
import numpy.typing as npt

from rspnet_cli.pictures.font import ADVANCE, text_mask
from rspnet_cli.videos.picture import Orientation, rgb_of, to_picture

Picture = npt.NDArray[np.uint8]

PAPER = 255
INK = (24, 24, 27)
FAINT = (96, 96, 104)


def text(line: str, *, colour: tuple[int, int, int] = INK, scale: int = 2, width: int | None = None) -> Picture:
    """A line of text. width: at most so many pixels; what goes beyond them ends in two dots."""
    if width is not None and len(line) * ADVANCE * scale > width:
        line = line[: max(0, width // (ADVANCE * scale) - 2)] + ".."
    mask = text_mask(line, scale)
    return np.where(mask[..., None], np.array(colour, np.uint8), np.uint8(PAPER))


def beside(pictures: Sequence[Picture], gap: int = 0) -> Picture:
    """Pictures from left to right, their upper edges in line."""
    canvas = _paper(max(len(picture) for picture in pictures), sum(picture.shape[1] + gap for picture in pictures) - gap)
    left = 0
    for picture in pictures:
        canvas[: len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return canvas


def below(pictures: Sequence[Picture], gap: int = 0) -> Picture:
    """Pictures one below the other, their left edges in line."""
    canvas = _paper(sum(len(picture) + gap for picture in pictures) - gap, max(picture.shape[1] for picture in pictures))
    top = 0
    for picture in pictures:
        canvas[top : top + len(picture), : picture.shape[1]] = picture
        top += len(picture) + gap
    return canvas


def framed(picture: Picture, margin: int) -> Picture:
    """The picture with a margin of paper, and so much more that both sides are even, as H.264 wants them."""
    height, width = picture.shape[:2]
    canvas = _paper((height + 2 * margin + 1) // 2 * 2, (width + 2 * margin + 1) // 2 * 2)
    canvas[margin : margin + height, margin : margin + width] = picture
    return canvas


def fitted(picture: Picture, side: int) -> Picture:
    """A square picture at about `side` pixels: every pixel repeated as often as fits, or shrunk to `side`, never blurred larger."""
    own = len(picture)
    if own > side:
        return resized(picture, side)
    return picture.repeat(side // own, axis=0).repeat(side // own, axis=1)


def resized(picture: Picture, side: int) -> Picture:
    """A square picture at exactly `side` pixels, smoothly."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return rgb_of(to_picture(frame, (side, side), Orientation(), "rgb24"))


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)
