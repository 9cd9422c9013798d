"""One clip of each video of a batch as bytes: crops of different sizes, side by side, unpacked on the training device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.clips.draws import ClipDraw
from rspnet_cli.clips.slots import Room
from rspnet_cli.clips.yuv import rgb_of_planes
from rspnet_cli.devices import to_device
from rspnet_cli.videos.planes import Box, Pixels, Planes


def planes_on(device: torch.device) -> bool:
    """Whether clips for training on a device are read as YUV planes, which become RGB there, or as RGB.

    Planes are half the bytes to make and to move. But on a CPU torch's conversion costs more than FFmpeg's costs a worker: to read
    2 x 32 crops of 170 x 128 frames takes 11.4 ms of CPU as planes (5.6) with their conversion (5.8), 6.3 ms as RGB.
    """
    return device.type != "cpu"


@dataclass(frozen=True)
class Crops:
    """One clip of each of B videos: F frames of a crop. Of RGB a row of `pixels` is a line, of planes a pair of lines with their chroma."""

    pixels: Tensor
    """(R, 3 W) uint8, W the widest crop's width: lines of RGB, or two lines of luma, one of U and one of V;
    to the right of narrower crops lies anything."""
    draws: tuple[ClipDraw, ...]
    """Their augmentation; the crop boxes give h and w."""
    offsets: Tensor
    """(B, F) int64, ascending: which frames of the clip's span these are."""
    full_range: tuple[bool, ...] | None = None
    """(B,) of planes: their range. None: RGB."""
    tables: tuple[Tensor, ...] = ()
    """What `fused.whole_batch` is told of the clips; empty until that is known to be wanted."""

    @property
    def num_frames(self) -> int:
        """F: frames of each crop."""
        return self.offsets.shape[1]

    @property
    def starts(self) -> tuple[tuple[int, int], ...]:
        """Where each crop begins in what `padded` makes of it: 0 or 1 lines from the top, pixels from the left."""
        return tuple((0, 0) if self.full_range is None else _box(draw).in_even[:2] for draw in self.draws)

    @property
    def first_rows(self) -> np.ndarray:
        """(B, F): the row of `pixels` with which each frame begins."""
        heights = np.array(self._heights())[:, None]
        return np.cumsum(heights * self.num_frames, 0) - heights * np.arange(self.num_frames, 0, -1)

    def unpacked(self) -> list[Tensor]:
        """The crops, each (F, h, w, 3) uint8 RGB; views, unless they are made of planes."""
        heights = self._heights()
        parts = torch.split(self.pixels, [self.num_frames * height for height in heights])
        crops = []
        for number, (rows, height, draw) in enumerate(zip(parts, heights, self.draws, strict=True)):
            top, left = self.starts[number]
            frames = rows.view(1, self.num_frames, height, -1)
            if self.full_range is None:
                rgb = frames[0].view(self.num_frames, height, -1, 3)
            else:
                rgb = self._rgb(frames, [self.full_range[number]])[0].permute(1, 2, 3, 0).to(torch.uint8)
            crops.append(rgb[:, top : top + draw.box[2], left : left + draw.box[3]])
        return crops

    def padded(self, device: torch.device) -> Tensor:
        """All crops on a device, (B, 3, F, H, W) float32 RGB, whole, 0 to 255: each begins at `starts`, and around it lies anything."""
        heights = self._heights()
        first, last = to_device(torch.from_numpy(self.first_rows), device), to_device(torch.tensor(heights) - 1, device)
        # Which row is line (or pair) y of frame f of crop b; below a crop its last one again.
        inside = torch.minimum(torch.arange(max(heights), device=device), last[:, None])  # (B, H)
        rows = first[:, :, None] + inside[:, None]  # (B, F, H)
        pixels = to_device(self.pixels, device).index_select(0, rows.flatten()).view(*rows.shape, -1)  # (B, F, H, 3 W)
        if self.full_range is None:
            return pixels.view(*rows.shape, -1, 3).permute(0, 4, 1, 2, 3).float()
        return self._rgb(pixels, self.full_range)

    def pin_memory(self) -> Crops:
        """The same in page-locked memory, from where it is copied to a GPU without waiting."""
        return self._with(Tensor.pin_memory)

    def to(self, device: torch.device) -> Crops:
        """The same with its tensors on a device."""
        return self._with(lambda tensor: to_device(tensor, device))

    def _with(self, made: Callable[[Tensor], Tensor]) -> Crops:
        """The same with every tensor replaced by what is made of it."""
        tables = tuple(made(table) for table in self.tables)
        return replace(self, pixels=made(self.pixels), offsets=made(self.offsets), tables=tables)

    def _heights(self) -> list[int]:
        """Rows of a frame of each crop."""
        if self.full_range is None:
            return [draw.box[2] for draw in self.draws]
        return [_box(draw).even.height // 2 for draw in self.draws]

    @staticmethod
    def _rgb(pairs: Tensor, full_range: Sequence[bool]) -> Tensor:
        """(B, F, H/2, 3 W) uint8 -> (B, 3, F, H, W) float32."""
        *shape, row_bytes = pairs.shape
        luma, chroma = torch.split(pairs, [row_bytes * 2 // 3, row_bytes // 3], 3)
        return rgb_of_planes(luma.view(*shape, 2, -1), chroma.view(*shape, 2, -1), full_range)


class CropRows(NamedTuple):
    """Memory for one clip of each of B videos, to be filled."""

    rows: Pixels
    """(R, 3 W): see `Crops.pixels`."""
    places: list[Pixels] | list[Planes]
    """Of each crop where its F frames belong, views: (F, h, w, 3), or the planes of the even box around."""

    @classmethod
    def of(cls, draws: Sequence[ClipDraw], num_frames: int, *, planes: bool, room: Room) -> CropRows:
        """Room for crops of the boxes drawn: RGB, or planes."""
        boxes = [_box(draw).even if planes else _box(draw) for draw in draws]
        heights, width = [box.height // 2 if planes else box.height for box in boxes], max(box.width for box in boxes)
        rows = room((num_frames * sum(heights), 3 * width))
        parts = np.split(rows, np.cumsum([num_frames * height for height in heights])[:-1])
        shaped = [(part.reshape(num_frames, height, 3 * width), box.width) for part, height, box in zip(parts, heights, boxes, strict=True)]
        return cls(rows, [_planes(*one) for one in shaped] if planes else [_rgb(*one) for one in shaped])


def _rgb(lines: Pixels, width: int) -> Pixels:
    """The left `width` pixels of lines (F, h, 3 W), as (F, h, width, 3)."""
    return lines[:, :, : 3 * width].reshape(*lines.shape[:2], width, 3)


def _planes(pairs: Pixels, width: int) -> Planes:
    """The left `width` pixels of pairs of lines (F, h/2, 3 W), with their chroma."""
    luma, chroma = (part.reshape(*pairs.shape[:2], 2, -1) for part in np.split(pairs, [pairs.shape[2] // 3 * 2], axis=2))
    return Planes(luma[..., :width], chroma[..., : width // 2])


def _box(draw: ClipDraw) -> Box:
    return Box(*draw.box)
