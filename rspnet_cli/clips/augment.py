"""Augmentation on the training device: one draw per clip, the whole batch at once on a GPU, clip by clip on a CPU; the same result.

Reference order: crop and resize (in [0, 1], not rounded) -> grayscale -> brightness, contrast, saturation, hue in random order,
clamped after each -> flip -> ImageNet mean and deviation. `aug_plus`: jitter before grayscale, then blur.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rspnet_cli.clips.dataset import Crops
from rspnet_cli.clips.draws import BRIGHTNESS, CONTRAST, HUE, ClipDraw
from rspnet_cli.config import MEAN, STD
from rspnet_cli.timing import timed

_GREY = (0.2989, 0.587, 0.114)


def augment(crops: Crops, *, size: int, antialias: bool, order: str, device: torch.device) -> Tensor:
    """uint8 crops and their draws -> clips (B, 3, F, size, size) float32, normalised, channels_last_3d.

    On a CPU clip by clip: a clip stays in the cache, twice as fast as the whole batch (measured at 112 px). On other devices in one go.
    """
    draws = crops.draws
    out = torch.empty((len(draws), crops.num_frames, size, size, 3), device=device).permute(0, 4, 1, 2, 3)  # (B, 3, F, S, S)
    if device.type == "cpu":
        for target, crop, draw in zip(out, crops.unpacked(), draws, strict=True):
            resized = _resize_crop(crop, size, antialias)[None]  # (1, 3, F, S, S)
            target.copy_(_colour(resized, [draw], order)[0])
    else:
        out.copy_(_colour(_resize_crops(crops, size, antialias, device), draws, order))
    return out


def pixels_of(clips: Tensor) -> Tensor:
    """Clips (..., 3, F, S, S), normalised -> (..., F, S, S, 3) uint8 RGB, as they look: the last step of augmentation taken back."""
    mean, std = (clips.new_tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return ((clips * std + mean) * 255).round_().clamp_(0, 255).to(torch.uint8).movedim(-4, -1)


def _colour(clips: Tensor, draws: Sequence[ClipDraw], order: str) -> Tensor:
    """Everything after the crop, for clips (n, 3, F, S, S) in [0, 1], which are overwritten."""
    if order == "reference":
        clips = _jitter(_grayscale(clips, draws), draws)
    else:
        clips = _blur(_grayscale(_jitter(clips, draws), draws), draws)
    clips = _where(clips, [draw.flip for draw in draws], lambda chosen: chosen.flip(-1))
    mean, std = (clips.new_tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (clips - mean) / std


def _where(clips: Tensor, chosen: Sequence[bool], change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the chosen clips alone. The choice is known on the host, so no device is waited for."""
    rows = np.flatnonzero(chosen)
    if len(rows) == len(clips):
        return change(clips)
    if len(rows):
        index = torch.from_numpy(rows).to(clips.device, non_blocking=True)
        clips.index_copy_(0, index, change(clips.index_select(0, index)))
    return clips


def _grey(clips: Tensor) -> Tensor:
    """Luma of (n, 3, F, S, S): (n, 1, F, S, S)."""
    red, green, blue = clips.unbind(1)
    return (_GREY[0] * red + _GREY[1] * green).add_(blue, alpha=_GREY[2])[:, None]


def _grayscale(clips: Tensor, draws: Sequence[ClipDraw]) -> Tensor:
    return _where(clips, [draw.grayscale for draw in draws], lambda chosen: _grey(chosen).expand_as(chosen).contiguous())


def _jitter(clips: Tensor, draws: Sequence[ClipDraw]) -> Tensor:
    for position in range(4):
        ops = [draw.ops[position] if position < len(draw.ops) else None for draw in draws]
        for op in sorted({op for op in ops if op is not None}):
            rows = [index for index, value in enumerate(ops) if value == op]
            factor = torch.tensor([draws[index].factors[op] for index in rows]).to(clips.device, non_blocking=True).view(-1, 1, 1, 1, 1)
            clips = _where(clips, [value == op for value in ops], partial(_colour_op, op=op, factor=factor))
    return clips


def _colour_op(clips: Tensor, op: int, factor: Tensor) -> Tensor:
    """One colour operation on clips (n, 3, F, S, S), factor (n, 1, 1, 1, 1)."""
    if op == HUE:
        return _shift_hue(clips, factor)
    if op == BRIGHTNESS:
        return (clips * factor).clamp_(0, 1)
    # Contrast moves away from one mean grey over all frames of the clip, saturation from each pixel's own grey.
    grey = _grey(clips)
    pivot = grey.mean((1, 2, 3, 4), keepdim=True) if op == CONTRAST else grey
    return torch.lerp(pivot.expand_as(clips), clips, factor).clamp_(0, 1)


def _shift_hue(clips: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of (n, 3, F, S, S) in [0, 1] by `shift` turns, through HSV."""
    red, green, blue = clips.unbind(1)
    value, low = clips.amax(1), clips.amin(1)
    chroma = value - low
    safe = torch.where(chroma == 0, 1.0, chroma)
    # Hue in sixths of a turn, from whichever channel is largest.
    hue = torch.where(
        value == red, (green - blue) / safe, torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    ).add_(6 * shift[:, 0])
    # Back to RGB without branches: channel = value - chroma * max(0, min(k, 4 - k, 1)), k = (offset + hue) mod 6, offset 5, 3, 1.
    channels = []
    for offset in (5, 3, 1):
        k = torch.remainder(offset + hue, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 1).clamp_(0, 1)


def _blur(clips: Tensor, draws: Sequence[ClipDraw]) -> Tensor:
    return _where(clips, [draw.blur for draw in draws], _gaussian_blur)


def _gaussian_blur(clips: Tensor) -> Tensor:
    """3 x 3 Gaussian, sigma 1.5, zeros beyond the edge: (n, 3, F, S, S) -> same."""
    weights = torch.exp(-(torch.arange(-1.0, 2.0, device=clips.device) ** 2) / (2 * 1.5**2))
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    planes = clips.reshape(-1, 1, *clips.shape[-2:])
    return F.conv2d(planes, kernel[None, None], padding=1).view(clips.shape)


def _resize_crop(frames: Tensor, size: int, antialias: bool) -> Tensor:
    """One crop (F, h, w, 3) uint8 -> (3, F, size, size) float32 in [0, 1], bilinear."""
    planes = frames.float().div_(255).permute(0, 3, 1, 2)  # (F, 3, h, w), channels last in memory: the fast path
    resized = F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=antialias)
    return resized.permute(1, 0, 2, 3).contiguous()


def _resize_crops(crops: Crops, size: int, antialias: bool, device: torch.device) -> Tensor:
    """All crops at once: (N, 3, F, size, size) float32 in [0, 1].

    Two interpolation matrices per clip give exactly the bilinear resize of its crop; grid_sample would read past the crop's edge.
    """
    with timed("transfer"):
        padded = crops.padded(device)  # (N, F, Hmax, Wmax, 3) uint8
    heights, widths = (torch.tensor([draw.box[side] for draw in crops.draws]) for side in (2, 3))
    rows = _interpolation(heights, padded.shape[2], size, antialias).to(device, non_blocking=True)  # (N, S, Hmax)
    columns = _interpolation(widths, padded.shape[3], size, antialias).to(device, non_blocking=True)  # (N, S, Wmax)
    pixels = padded.permute(0, 4, 1, 2, 3).float().div_(255)  # (N, 3, F, Hmax, Wmax)
    return torch.einsum("nsh,nclhw,ntw->nclst", rows, pixels, columns)


def _interpolation(lengths: Tensor, longest: int, size: int, antialias: bool) -> Tensor:
    """Bilinear weights (align_corners=False) from `lengths` (N,) source pixels to `size`: (N, size, longest), rows summing to 1.

    A triangle around each output pixel's centre, one source pixel wide to either side; with antialias one output pixel if that is more.
    """
    pixels = lengths[:, None, None] / size  # (N, 1, 1): source pixels of an output pixel
    source = torch.arange(longest) + 0.5
    centre = (torch.arange(size) + 0.5)[:, None] * pixels  # (N, S, 1)
    reach = pixels.clamp_min(1) if antialias else 1
    weights = (1 - (source - centre).abs() / reach).clamp_min(0) * (source < lengths[:, None, None])
    return weights / weights.sum(2, keepdim=True)
