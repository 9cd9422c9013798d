"""What every backbone is made of: a 3D convolution that is right in bfloat16 on CPUs, and the width multiplier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Backbone(nn.Module):
    """A network before pooling: (B, 3, T, H, W) float, normalised -> feature map (B, channels, t, h, w)."""

    channels: int
    """Channels of the feature map."""


def scale_channels(channels: int, width: float, multiple: int = 8) -> int:
    """`channels` times `width`, as the nearest multiple of `multiple` (at least that); at width 1 exactly `channels`."""
    if width == 1.0:
        return channels
    return max(multiple, multiple * round(channels * width / multiple))


def init_convolutions(network: nn.Module) -> None:
    """Draw the weights of all convolutions anew: normal, variance 2 / (outputs * kernel positions) (He et al., ICCV 2015, fan-out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Conv3d(nn.Conv3d):
    """nn.Conv3d with the same parameters and the same maths, whose bfloat16 gradients are right on CPUs too.

    oneDNN 3.12 (torch 2.13, CPUs with avx512_bf16) silently returns garbage weight gradients in bfloat16 where the
    stride is 1 and 1 < input depth <= 2 * padding, as in r3d18's third stage at 16 frames; training then goes NaN.
    There the depth is padded by hand (about 3 % slower) and convolved without depth padding.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        pad_depth = int(self.padding[0])
        if self.stride[0] == 1 and 1 < input.shape[2] <= 2 * pad_depth and _is_cpu_bfloat16(input):
            padded = F.pad(input, (0, 0, 0, 0, pad_depth, pad_depth))  # (B, C_in, T + 2 * pad_depth, H, W)
            padding = (0, *self.padding[1:])
            return F.conv3d(padded, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return super().forward(input)


def _is_cpu_bfloat16(input: Tensor) -> bool:
    if input.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") is torch.bfloat16
    return input.dtype is torch.bfloat16
