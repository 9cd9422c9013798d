"""Augmentation on the training device: one draw per clip; a whole batch at once on a GPU, a few frames at a time on a CPU.

Reference order: crop and resize (in [0, 1], not rounded) -> grayscale -> brightness, contrast, saturation, hue in random order,
clamped after each -> flip -> ImageNet mean and deviation. `aug_plus`: jitter before grayscale, then blur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.clips.colour import colour, colour_batch, frames_per_chunk
from rspnet_cli.clips.crops import CropRows, Crops
from rspnet_cli.clips.dataset import ClipBatch
from rspnet_cli.clips.draws import draw_clip
from rspnet_cli.clips.fused import compiled_resized_batch, compiled_whole_batch, tables_of
from rspnet_cli.clips.resize import resized_chunks
from rspnet_cli.clips.slots import own_room
from rspnet_cli.config import MEAN, STD, AugmentConfig
from rspnet_cli.devices import exact_products, to_device

_FURTHEST = 0.04


@dataclass(frozen=True)
class Augmentation:
    """How the clips of a training become what its encoder gets: uint8 crops and their draws -> normalised clips.

    On a CPU a few frames at a time, which stay in the cache: 3.5 times as fast as the whole batch (measured at 112 px). On other devices
    in one go: compiled to few kernels where `fused`, else an operation at a time.
    """

    size: int
    antialias: bool
    order: str
    device: torch.device
    dtype: torch.dtype = torch.float32
    """Of the clips that come of a whole batch; the arithmetic is float32."""
    fused: bool = False

    def ready(self, crops: Crops) -> Crops:
        """The crops with all that augmenting them needs on the device: `__call__` then moves nothing any more, where fused."""
        if self.fused and not crops.tables:
            crops = replace(crops, tables=tables_of(crops, size=self.size, order=self.order))
        return crops.to(self.device)

    def ready_batch(self, batch: ClipBatch) -> ClipBatch:
        """The same of all crops of a batch, and the numbers of its videos."""
        return ClipBatch(tuple(self.ready(crops) for crops in batch.clips), to_device(batch.videos, self.device))

    def __call__(self, crops: Crops) -> Tensor:
        """Clips (B, 3, F, size, size), normalised, channels_last_3d: float32 on a CPU."""
        if self.fused:
            return self._fused(self.ready(crops))
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        shape = (len(crops.draws), crops.num_frames, self.size, self.size, 3)
        out = torch.empty(shape, device=self.device, dtype=dtype).permute(0, 4, 1, 2, 3)  # (B, 3, F, S, S)
        if self.device.type == "cpu":
            self._clip_by_clip(crops, out)
        else:
            colour_batch(resize_batch(crops, self.size, self.antialias, self.device), crops.draws, self.order, out=out)
        return out

    def _fused(self, crops: Crops) -> Tensor:
        if self.antialias:  # of more source pixels, the more the larger the crop
            resized = resize_batch(crops, self.size, self.antialias, self.device)
            return compiled_resized_batch(resized, crops.tables[-1], order=self.order, dtype=self.dtype)
        planes = crops.full_range is not None
        return compiled_whole_batch(crops.pixels, *crops.tables, planes=planes, order=self.order, dtype=self.dtype)

    def _clip_by_clip(self, crops: Crops, out: Tensor) -> None:
        # Memory for one clip, used again for the next one: new memory costs page faults.
        frames = torch.split(torch.arange(crops.num_frames), frames_per_chunk(self.size))
        chunks = [torch.empty(3, len(part), self.size, self.size) for part in frames]
        for target, crop, draw in zip(out, crops.unpacked(), crops.draws, strict=True):
            colour(resized_chunks(crop, self.size, antialias=self.antialias, into=chunks), draw, self.order, out=target)


def fault_of_fusing(augmentation: Augmentation) -> str:
    """What is wrong with the compiled augmentation on its device, in words; empty where its clips are those of one operation at a time.

    What a compiler makes of it is tried here, on noise, before a training depends on it.
    """
    config, rng = AugmentConfig.model_validate({"order": augmentation.order}), np.random.default_rng(0)
    num_frames, side = 2, 2 * augmentation.size
    draws = tuple(draw_clip(side, side, config, rng) for _ in range(8))
    rows = CropRows.of(draws, num_frames, planes=True, room=own_room).rows
    rows[:] = rng.integers(0, 256, rows.shape)
    offsets = torch.arange(num_frames).expand(len(draws), -1).contiguous()
    crops = Crops(torch.from_numpy(rows), draws, offsets, (False,) * len(draws))
    expected = replace(augmentation, fused=False)(crops).float()
    try:
        found = replace(augmentation, fused=True)(crops).float()
    except Exception as error:  # each of the compiler's parts has classes of its own
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    furthest = float((found - expected).abs().max())
    # Rounding to bfloat16 is 1/128 of values up to 2.6.
    return "" if furthest <= _FURTHEST else f"its clips are off by up to {furthest:.2g}"


def pixels_of(clips: Tensor) -> Tensor:
    """Clips (..., 3, F, S, S), normalised -> (..., F, S, S, 3) uint8 RGB, as they look: the last step of augmentation taken back."""
    clips = clips.float()
    mean, std = (clips.new_tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return ((clips * std + mean) * 255).round_().clamp_(0, 255).to(torch.uint8).movedim(-4, -1)


def resize_batch(crops: Crops, size: int, antialias: bool, device: torch.device) -> Tensor:
    """All crops at once, those to be flipped flipped: (B, 3, F, size, size) float32 in [0, 1].

    Two interpolation matrices per clip give exactly the bilinear resize of its crop; grid_sample would read past the crop's edge.
    """
    pixels = crops.padded(device)  # (B, 3, F, H, W), 0 to 255
    places = torch.tensor([(*start, *draw.box[2:], draw.flip) for start, draw in zip(crops.starts, crops.draws, strict=True)])
    top, left, height, width, flip = to_device(places, device).unbind(1)
    rows = _interpolation(height, top, pixels.shape[3], size, antialias)  # (B, S, H)
    columns = _interpolation(width, left, pixels.shape[4], size, antialias)  # (B, S, W)
    columns = torch.where(flip[:, None, None] > 0, columns.flip(1), columns)
    with exact_products():
        # Columns first, which needs no copy of the crops in another order; / 255 on the small matrix.
        across = torch.einsum("nclhw,ntw->nclht", pixels, columns)
        return torch.einsum("nsh,nclht->nclst", rows / 255, across)


def _interpolation(lengths: Tensor, starts: Tensor, longest: int, size: int, antialias: bool) -> Tensor:
    """Bilinear weights (align_corners=False) from `lengths` (B,) source pixels, of `longest` those from `starts` (B,) on, to `size`.

    (B, size, longest), rows summing to 1.

    A triangle around each output pixel's centre, one source pixel wide to either side; with antialias one output pixel if that is more.
    """
    device = lengths.device
    pixels = lengths[:, None, None] / size  # (B, 1, 1): source pixels of an output pixel
    source = (torch.arange(longest, device=device) - starts[:, None] + 0.5)[:, None]  # (B, 1, longest)
    centre = (torch.arange(size, device=device) + 0.5)[:, None] * pixels  # (B, S, 1)
    reach = pixels.clamp_min(1) if antialias else 1
    weights = (1 - (source - centre).abs() / reach).clamp_min(0) * ((source > 0) & (source < lengths[:, None, None]))
    return weights / weights.sum(2, keepdim=True)
