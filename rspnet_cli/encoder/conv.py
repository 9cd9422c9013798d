"""What backbones are made of: blocks that need not keep activations, a 3D convolution right in bfloat16 on CPUs, the multiplied width."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rspnet_cli.encoder.batch_norm import frozen_statistics


class Backbone(nn.Module):
    """A network before pooling: (B, 3, T, H, W) float, normalised -> feature map (B, channels, t, h, w)."""

    channels: int
    """Channels of the feature map."""
    checkpoint_activations = False
    """Whether the backward pass computes what lies within a block again, so that only the inputs of the blocks are kept till then."""

    def run(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """block(*inputs): how a backbone runs its stem and every block. The result, gradients included, is the same either way."""
        if not (self.checkpoint_activations and torch.is_grad_enabled()):
            return block(*inputs)
        if torch.compiler.is_compiling():  # statistics are written once, at the end of a compiled pass
            computed: Tensor = checkpoint(block, *inputs, use_reentrant=False)
            return computed
        times = count()

        def once_more(*inputs: Tensor) -> Tensor:
            # The second time is the backward pass's, which batch norm has no new batch to learn from.
            with frozen_statistics(self, frozen=next(times) > 0):
                return block(*inputs)

        computed = checkpoint(once_more, *inputs, use_reentrant=False)
        return computed


def scale_channels(channels: int, width: float, multiple: int = 8) -> int:
    """`channels` times `width`, as the nearest multiple of `multiple` (at least that); at width 1 exactly `channels`."""
    if width == 1.0:
        return channels
    return max(multiple, multiple * round(channels * width / multiple))


def init_convolutions(network: nn.Module) -> None:
    """Draw the weights of all convolutions anew: normal, variance 2 / (outputs * kernel positions) (He et al., ICCV 2015, fan-out)."""
    for module in network.modules():
        # A meta tensor has no values to draw, and its normal_ imports torch's compiler: 0.75 s for nothing.
        if isinstance(module, nn.Conv3d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Conv3d(nn.Conv3d):
    """nn.Conv3d with the same parameters and the same maths, whose bfloat16 gradients are right on CPUs too.

    oneDNN 3.12 (torch 2.13, CPUs with avx512_bf16) silently returns garbage weight gradients in bfloat16, or writes past its memory, where
    an axis is at most twice its padding: depth 2 in r3d18's third stage at 16 frames, height 1 before a stride of 2. Training then goes
    NaN. There the axis is padded by hand (about 3 % slower) and convolved without padding. Padding of more than one pixel (a stem, of a
    clip shorter than 7 frames) is wrong by hand too, so that such a convolution runs in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        if not _is_cpu_bfloat16(input):
            return super().forward(input)
        sizes, paddings = input.shape[2:], [int(padding) for padding in self.padding]
        short = [padding > 0 and size <= 2 * padding for size, padding in zip(sizes, paddings, strict=True)]
        if any(short) and max(paddings) > 1:
            with torch.autocast("cpu", enabled=False):
                bias = None if self.bias is None else self.bias.float()
                wide = F.conv3d(input.float(), self.weight.float(), bias, self.stride, self.padding, self.dilation, self.groups)
                return wide.bfloat16()
        # One pixel under stride 1 is right as it is; padded it would cost three times as much.
        by_hand = [
            padding if is_short and (size > 1 or stride > 1) else 0
            for padding, is_short, size, stride in zip(paddings, short, sizes, self.stride, strict=True)
        ]
        if not any(by_hand):
            return super().forward(input)
        padded = F.pad(input, [by_hand[axis] for axis in (2, 2, 1, 1, 0, 0)])
        left = [padding - done for padding, done in zip(paddings, by_hand, strict=True)]
        return F.conv3d(padded, self.weight, self.bias, self.stride, left, self.dilation, self.groups)


class MaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d that stays in bfloat16 under autocast, which on CPUs widens its input to float32 though a maximum is exact in either.

    Kept narrow, and with the ReLU after it (on an eighth of the values, to the same result), a bfloat16 step of c3d takes 0.85 of the time.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, t, h, w)."""
        with torch.autocast("cpu", enabled=False) if _is_cpu_bfloat16(input) else nullcontext():
            pooled: Tensor = super().forward(input)
        return pooled


def _is_cpu_bfloat16(input: Tensor) -> bool:
    if input.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") is torch.bfloat16
    return input.dtype is torch.bfloat16
