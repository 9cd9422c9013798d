"""S3D-G: separable 3D Inception with feature gating (Xie et al., ECCV 2018).

Parameter names as in the released RSPNet checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, MaxPool3d, scale_channels

# Channels of an Inception block: the 1x1x1 branch; reduction and output of two separable branches; the pool branch.
INCEPTION = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def s3dg(*, width: float = 1.0) -> S3DG:
    """S3D-G: (B, 3, T, H, W) -> (B, 1024 * width, T/8, H/32, W/32).

    The stem and the third pool round sizes up, the fourth pool rounds them down.
    """
    return S3DG(width=width)


class S3DG(Backbone):
    """A gated separable stem, nine Inception blocks and four max-pools; time halves in the stem and in pools 3 and 4."""

    def __init__(self, *, width: float) -> None:
        super().__init__()
        stem, reduced, wide = (scale_channels(channels, width) for channels in (64, 64, 192))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        # (B, 64, T/2, H/2, W/2). The time stride sits in the 1x7x7 factor: odd frames are never read.
        layers["sepConv1"] = SeparableConv(3, stem, kernel_size=7, stride=2)
        layers["maxPool1"] = MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        layers["basicConv3d"] = ConvUnit(stem, reduced, kernel_size=(1, 1, 1))
        layers["sep_conv2"] = SeparableConv(reduced, wide, kernel_size=3)
        layers["maxPool2"] = MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.channels = wide  # (B, 192, T/2, H/8, W/8)
        self._append_inceptions(layers, ("3b", "3c"), width)
        layers["maxPool3"] = MaxPool3d(kernel_size=3, stride=2, padding=1)  # (B, 480, T/4, H/16, W/16)
        self._append_inceptions(layers, ("4b", "4c", "4d", "4e", "4f"), width)
        layers["maxPool4"] = MaxPool3d(kernel_size=2, stride=2)  # (B, 832, T/8, H/32, W/32)
        self._append_inceptions(layers, ("5b", "5c"), width)
        self.feature = nn.Sequential(layers)

    def _append_inceptions(self, layers: OrderedDict[str, nn.Module], names: tuple[str, ...], width: float) -> None:
        for name in names:
            block = Inception(self.channels, tuple(scale_channels(channels, width) for channels in INCEPTION[name]))
            layers[f"sepInc_{name}"] = block
            self.channels = block.out_channels

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, t, h, w)."""
        x = clips
        for layer in self.feature:
            x = self.run(layer, x)
        return x


class Inception(nn.Module):
    """Four branches over the same input, concatenated: 1x1x1; twice 1x1x1 then separable 3x3x3; max-pool then 1x1x1."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        direct, reduced1, out1, reduced2, out2, pooled = channels
        self.out_channels = direct + out1 + out2 + pooled
        self.branch0 = ConvUnit(in_channels, direct, kernel_size=(1, 1, 1))
        self.branch1 = nn.Sequential(ConvUnit(in_channels, reduced1, kernel_size=(1, 1, 1)), SeparableConv(reduced1, out1, kernel_size=3))
        self.branch2 = nn.Sequential(ConvUnit(in_channels, reduced2, kernel_size=(1, 1, 1)), SeparableConv(reduced2, out2, kernel_size=3))
        self.branch3 = nn.Sequential(MaxPool3d(kernel_size=3, stride=1, padding=1), ConvUnit(in_channels, pooled, kernel_size=(1, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, out_channels, T, H, W)."""
        return torch.cat((self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)), dim=1)


class SeparableConv(nn.Module):
    """A spatial 1xdxd and a temporal dx1x1 unit, then the gate: x * sigmoid(W mean(x) + b), one weight per channel."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        # The stride is that of the released code: all three axes in the first factor, none in the second.
        self.sep_conv = nn.Sequential(
            ConvUnit(in_channels, out_channels, kernel_size=(1, kernel_size, kernel_size), stride=stride),
            ConvUnit(out_channels, out_channels, kernel_size=(kernel_size, 1, 1)),
        )
        self.excitation = Conv3d(out_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        x = self.sep_conv(x)
        gate = torch.sigmoid(self.excitation(x.mean((2, 3, 4), keepdim=True)))  # (B, C_out, 1, 1, 1)
        return x * gate


class ConvUnit(nn.Module):
    """Convolution without bias, padded to keep its size at stride 1; BN with eps 1e-3 and momentum 0.001; ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: tuple[int, int, int], stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size[0] // 2, kernel_size[1] // 2, kernel_size[2] // 2)
        self.conv3d = Conv3d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        return F.relu(self.bn(self.conv3d(x)), inplace=True)
