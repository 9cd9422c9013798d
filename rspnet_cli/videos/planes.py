"""What is cut from stored frames: a box of each, as RGB or as the planes of YUV 4:2:0 that the decoder gives, in half the bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

Pixels = npt.NDArray[np.uint8]


class Box(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def even(self) -> Box:
        """The smallest box around this one whose edges are even: of such a box the planes have whole samples."""
        top, left = self.top // 2 * 2, self.left // 2 * 2
        return Box(top, left, _even(self.top + self.height) - top, _even(self.left + self.width) - left)

    @property
    def in_even(self) -> Box:
        """This box, seen from `even`: at 0 or 1 from the top and from the left."""
        return Box(self.top % 2, self.left % 2, self.height, self.width)

    def of(self, frame: Pixels) -> Pixels:
        """The box of a frame (H, W, ...), a view."""
        return frame[self.top : self.top + self.height, self.left : self.left + self.width]


class Cut(NamedTuple):
    """What to read of a video."""

    indices: npt.NDArray[np.int64]
    """(F,): frames, in any order and with repeats."""
    box: Box
    """Of each of them."""


class Planes(NamedTuple):
    """F frames of an even box (h, w), BT.601. Where the box asked for begins in it says `Box.in_even`."""

    luma: Pixels
    """(F, h/2, 2, w): by pairs of lines, for which there is one line of each chroma plane."""
    chroma: Pixels
    """(F, h/2, 2, w/2): of every pair the line of U, then that of V."""

    @classmethod
    def empty(cls, num_frames: int, box: Box) -> Planes:
        """Room for the frames of an even box."""
        pairs, width = box.height // 2, box.width
        return cls(np.empty((num_frames, pairs, 2, width), np.uint8), np.empty((num_frames, pairs, 2, width // 2), np.uint8))


def copy_planes(frame: VideoFrame, boxes: list[tuple[Box, Planes, int]]) -> None:
    """Copy even boxes of a yuv420p frame to their places: (box, where to, as which of its frames)."""
    luma, *chroma = [(memoryview(plane), plane.line_size) for plane in frame.planes]
    for (top, left, height, width), planes, place in boxes:
        plane, line = luma
        planes.luma[place] = np.ndarray((height // 2, 2, width), np.uint8, plane, top * line + left, (2 * line, line, 1))
        half = (height // 2, width // 2)
        for number, (plane, line) in enumerate(chroma):
            planes.chroma[place, :, number] = np.ndarray(half, np.uint8, plane, (top * line + left) // 2, (line, 1))


def _even(edge: int) -> int:
    return (edge + 1) // 2 * 2
