"""MF-Net: sparse 3D convolutions in 16 fibers, mixed by multiplexers (Chen et al., ECCV 2018).

Parameter names as in the authors' checkpoints and in the released RSPNet tree.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, MaxPool3d, scale_channels

FIBERS = 16  # groups of the 3x3x3 and 1x3x3 convolutions, at every width

# Stage: units, channels, stride (time, space) of the first unit.
STAGES = {
    "conv2": (3, 96, (2, 1)),
    "conv3": (4, 192, (1, 2)),
    "conv4": (6, 384, (1, 2)),
    "conv5": (3, 768, (1, 2)),
}


def mfnet(*, width: float = 1.0) -> MFNet:
    """MF-Net: (B, 3, T, H, W) -> (B, 768 * width, T/2, H/32, W/32), sizes rounded up."""
    return MFNet(width=width)


class MFNet(Backbone):
    """Stem 3x5x5 without time stride, spatial max-pool, four stages of pre-activated units, and the last BN and ReLU."""

    def __init__(self, *, width: float) -> None:
        super().__init__()
        self.channels = scale_channels(16, width, FIBERS)
        conv = Conv3d(3, self.channels, kernel_size=(3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2), bias=False)
        self.conv1 = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm3d(self.channels), relu=nn.ReLU(inplace=True)))
        self.maxpool = MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        for name, (units, channels, stride) in STAGES.items():
            stage = nn.Sequential()
            for index in range(units):
                out_channels = scale_channels(channels, width, FIBERS)
                # The multiplexer squeezes to a quarter of the unit's channels.
                squeezed = scale_channels(channels // 4, width)
                stage.add_module(f"B{index + 1:02d}", Unit(self.channels, out_channels, squeezed, stride=stride if index == 0 else None))
                self.channels = out_channels
            self.add_module(name, stage)
        self.tail = nn.Sequential(OrderedDict(bn=nn.BatchNorm3d(self.channels), relu=nn.ReLU(inplace=True)))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T/2, h, w)."""
        x = self.run(self._stem, clips)
        for name in STAGES:
            for unit in getattr(self, name):
                x = self.run(unit, x)
        return self.run(self.tail, x)

    def _stem(self, clips: Tensor) -> Tensor:
        pooled: Tensor = self.maxpool(self.conv1(clips))  # (B, 16, T, H/4, W/4)
        return pooled


class Unit(nn.Module):
    """Multiplexer (two 1x1x1 convolutions, added to their input), 3x3x3 in fibers, then 1x3x3 in fibers, and the shortcut.

    A stage's first unit (stride: time and space, None in the others) strides its 3x3x3, ends in a plain 1x1x1 convolution, which
    connects all fibers, and has a convolution as its shortcut. The shortcut begins before the multiplexer. No ReLU after the sum.
    """

    conv_w1: PreActivatedConv | None

    def __init__(self, in_channels: int, out_channels: int, squeezed: int, *, stride: tuple[int, int] | None) -> None:
        super().__init__()
        self.conv_i1 = PreActivatedConv(in_channels, squeezed, kernel_size=(1, 1, 1))
        self.conv_i2 = PreActivatedConv(squeezed, in_channels, kernel_size=(1, 1, 1))
        time, space = stride or (1, 1)
        strides = (time, space, space)
        self.conv_m1 = PreActivatedConv(in_channels, out_channels, kernel_size=(3, 3, 3), stride=strides, fibers=FIBERS)
        if stride is None:
            self.conv_m2 = PreActivatedConv(out_channels, out_channels, kernel_size=(1, 3, 3), fibers=FIBERS)
            self.conv_w1 = None
        else:
            self.conv_m2 = PreActivatedConv(out_channels, out_channels, kernel_size=(1, 1, 1))
            self.conv_w1 = PreActivatedConv(in_channels, out_channels, kernel_size=(1, 1, 1), stride=strides)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        mixed = x + self.conv_i2(self.conv_i1(x))
        out: Tensor = self.conv_m2(self.conv_m1(mixed))
        return out + (x if self.conv_w1 is None else self.conv_w1(x))


class PreActivatedConv(nn.Module):
    """BN, ReLU, then a convolution without bias, padded to keep its size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        fibers: int = 1,
    ) -> None:
        super().__init__()
        time, height, width = kernel_size
        padding = (time // 2, height // 2, width // 2)
        self.bn = nn.BatchNorm3d(in_channels)
        self.conv = Conv3d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=fibers, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        out: Tensor = self.conv(F.relu(self.bn(x), inplace=True))
        return out
