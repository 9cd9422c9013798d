"""YUV 4:2:0 (BT.601) to RGB on the training device, with the whole numbers that FFmpeg's converter gives on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rspnet_cli.devices import to_device

# Kr, Kg, Kb of BT.601: luma = 0.299 R + 0.587 G + 0.114 B.
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
# swscale multiplies in 16 bits and rounds every product down: its coefficients are multiples of 2^-13. A product of one with a byte has
# at most 23 bits, so that float32 is exact, too.
_ONE = 2**13


def rgb_of_planes(luma: Tensor, chroma: Tensor, full_range: Sequence[bool]) -> Tensor:
    """luma (B, F, H/2, 2, W), chroma (B, F, H/2, 2, W/2) of U and V, both uint8 -> RGB (B, 3, F, H, W) float32, whole, 0 to 255.

    full_range: (B,). A chroma sample is that of its four pixels, as swscale has it: nothing is interpolated.
    """
    batch, frames, pairs, _, width = luma.shape
    weights = to_device(torch.tensor([coefficients(full) for full in full_range]), luma.device)  # (B, 6)
    black, gain, own, green = (part.view(batch, 1, 1, -1, 1) for part in torch.split(weights, [1, 1, 2, 2], 1))
    light = (luma - black).mul_(gain).floor_().view(batch, frames, pairs, 2, width // 2, 2)
    away = chroma - 128.0
    # What U adds to blue and V to red; what both take from green.
    blue_red = (away * own).floor_()  # (B, F, H/2, 2, W/2)
    greens = (away * green).floor_().sum(3)  # (B, F, H/2, W/2)
    rgb: Tensor = light.new_empty((batch, 3, *light.shape[1:]))
    for channel, shift in enumerate((blue_red[:, :, :, 1], greens, blue_red[:, :, :, 0])):
        torch.add(light, shift[:, :, :, None, :, None], out=rgb[:, channel])
    return rgb.clamp_(0, 255).view(batch, 3, frames, 2 * pairs, width)


def coefficients(full_range: bool) -> tuple[float, ...]:
    """Luma of black, gain of luma; per chroma level from 128: blue by U, red by V, green by U, green by V."""
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    blue, red = 2 * (1 - _BLUE) * chroma, 2 * (1 - _RED) * chroma
    exact = (luma, blue, red, -blue * _BLUE / _GREEN, -red * _RED / _GREEN)
    return (0.0 if full_range else 16.0, *(round(value * _ONE) / _ONE for value in exact))
