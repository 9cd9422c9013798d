"""The sheet and the film of a video: its frames, and beside them the maps A and M in colours over the frames in grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from rspnet_cli.pictures.colours import colour_bar, overlaid
from rspnet_cli.pictures.layout import FAINT, Picture, below, beside, framed, resized, text

RATE = Fraction(8)
"""Frames of the film a second."""
TASKS = ("A: appearance (A-VID)", "M: motion (RSP)")
_SHEET_SIDE, _FILM_SIDE = 112, 288
_SHEET_FRAMES = 8
_TITLE_WIDTH = 1400  # a file may have any name


@dataclass(frozen=True)
class ShownClip:
    """A clip of a video with its maps. number, key: its own place among the video's clips and that of its key, from 1."""

    number: int
    key: int
    frames: npt.NDArray[np.uint8]
    """(T, h, w, 3): the centre squares, as stored."""
    times_s: tuple[float, float]
    maps: Tensor
    """(2, t, h, w): A and M."""
    similarity: tuple[float, float]
    """Cosine similarity to the key: of A, of M."""

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        start_s, end_s = self.times_s
        return {"start_s": start_s, "end_s": end_s, "key": self.key, "similarity": dict(zip("AM", self.similarity, strict=True))}

    def words(self) -> str:
        """Which clip it is, and how similar to its key."""
        appearance, motion = self.similarity
        key = "itself" if self.key == self.number else f"clip {self.key}"
        start_s, end_s = self.times_s
        return f"clip {self.number}, {start_s:.2f}-{end_s:.2f} s; similarity to {key}: A {appearance:.4f}, M {motion:.4f}"

    def panels(self, frame: int, side: int, scale: tuple[float, float]) -> list[Picture]:
        """A frame, and the maps A and M over it, each `side` pixels wide. scale: the lowest and the highest value of the colours."""
        picture = resized(self.frames[frame], side)
        low, high = scale
        return [picture, *(overlaid(picture, (values - low) / max(high - low, 1e-12)) for values in self._values(frame, side))]

    def _values(self, frame: int, side: int) -> npt.NDArray[np.float32]:
        """Both maps at a frame, up-sampled over the whole picture: (2, side, side). Linear, so that no value leaves the scale."""
        num_frames = len(self.frames)
        places = self.maps.shape[2:]
        in_time = F.interpolate(self.maps[None], (num_frames, *places), mode="trilinear", align_corners=False)[0, :, frame]  # (2, h, w)
        large = F.interpolate(in_time[None], (side, side), mode="bilinear", align_corners=False)[0]
        values: npt.NDArray[np.float32] = large.numpy()
        return values


def draw_sheet(name: str, clips: Sequence[ShownClip], scale: tuple[float, float], size: int) -> Picture:
    """Three strips a clip: frames, A, M."""
    parts = [text(f"rspnet visualize: {name}", scale=3, width=_TITLE_WIDTH), *_legend(clips, scale, size)]
    for clip in clips:
        shown = np.unique(np.linspace(0, len(clip.frames) - 1, _SHEET_FRAMES).round().astype(np.int64)).tolist()
        columns = [below(clip.panels(frame, _SHEET_SIDE, scale), gap=2) for frame in shown]
        labels = below([_beside_tile(label, _SHEET_SIDE) for label in ("frames", "A", "M")], gap=2)
        parts += [text(clip.words()), beside([labels, *columns], gap=2)]
    return framed(below(parts, gap=10), margin=16)


def draw_film(name: str, clips: Sequence[ShownClip], scale: tuple[float, float]) -> Iterator[Picture]:
    """The clips one after the other: frames, A and M side by side."""
    for clip in clips:
        for frame in range(len(clip.frames)):
            panels = [
                below([text(label, width=_FILM_SIDE), panel], gap=4)
                for label, panel in zip(("frames", *TASKS), clip.panels(frame, _FILM_SIDE, scale), strict=True)
            ]
            row = beside(panels, gap=6)
            width = row.shape[1]
            words = text(f"{clip.words()}; frame {frame + 1} of {len(clip.frames)}", colour=FAINT, width=width)
            yield framed(below([text(name, width=width), words, row, colour_bar(*scale, width=width)], gap=8), margin=16)


def _legend(clips: Sequence[ShownClip], scale: tuple[float, float], size: int) -> list[Picture]:
    time, height, width = clips[0].maps.shape[1:]
    lines = [
        f"{TASKS[0]}, {TASKS[1]}: where a clip's similarity to its key, another clip of the video, comes from.",
        f"At similarity 1 a place's even share is 1. Maps of {time} x {height} x {width} places, of {size}-pixel clips. One scale:",
    ]
    return [*(text(line, colour=FAINT) for line in lines), colour_bar(*scale, width=_SHEET_SIDE * _SHEET_FRAMES)]


def _beside_tile(label: str, side: int) -> Picture:
    """A label as high as a tile, so that the next one stands beside the next tile."""
    line = text(f"{label:<7}")
    return np.pad(line, ((0, side - len(line)), (0, 0), (0, 0)), constant_values=255)
