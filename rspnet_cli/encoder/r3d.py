"""3D ResNets (Hara et al., CVPR 2018) with shortcut B; parameter names as in the released RSPNet checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, MaxPool3d, init_convolutions, scale_channels


def r3d18(*, width: float = 1.0) -> R3D:
    """3D ResNet-18: (B, 3, T, H, W) -> (B, 512 * width, T/16, H/32, W/32), sizes rounded up."""
    return R3D(BasicBlock, blocks=(2, 2, 2, 2), width=width)


def r3d34(*, width: float = 1.0) -> R3D:
    """3D ResNet-34: (B, 3, T, H, W) -> (B, 512 * width, T/16, H/32, W/32), sizes rounded up."""
    return R3D(BasicBlock, blocks=(3, 4, 6, 3), width=width)


def r3d50(*, width: float = 1.0) -> R3D:
    """3D ResNet-50: (B, 3, T, H, W) -> (B, 2048 * width, T/16, H/32, W/32), sizes rounded up."""
    return R3D(Bottleneck, blocks=(3, 4, 6, 3), width=width)


class R3D(Backbone):
    """Stem 7x7x7 without time stride, max-pool, four stages of residual blocks; sizes halve from the second on."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], *, blocks: Sequence[int], width: float) -> None:
        super().__init__()
        stem = scale_channels(64, width)
        self.conv1 = Conv3d(3, stem, kernel_size=7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(stem)
        self.maxpool = MaxPool3d(kernel_size=3, stride=2, padding=1)
        self.channels = stem
        self.layer1 = self._stage(block, scale_channels(64, width), blocks[0], stride=1)
        self.layer2 = self._stage(block, scale_channels(128, width), blocks[1], stride=2)
        self.layer3 = self._stage(block, scale_channels(256, width), blocks[2], stride=2)
        self.layer4 = self._stage(block, scale_channels(512, width), blocks[3], stride=2)
        init_convolutions(self)

    def _stage(self, block: type[BasicBlock] | type[Bottleneck], planes: int, count: int, *, stride: int) -> nn.Sequential:
        stage = nn.Sequential()
        for index in range(count):
            stage.append(block(self.channels, planes, stride=stride if index == 0 else 1))
            self.channels = planes * block.expansion
        return stage

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, t, h, w)."""
        x = self.run(self._stem, clips)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = self.run(block, x)
        return x

    def _stem(self, clips: Tensor) -> Tensor:
        x = self.bn1(self.conv1(clips))  # (B, C, T, H/2, W/2)
        return F.relu(self.maxpool(x), inplace=True)  # (B, C, T/2, H/4, W/4)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions, the first with the stride, and the shortcut; ReLU after the sum."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(in_channels, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = Conv3d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, planes, t, h, w)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 (this one with the stride), 1x1x1 to four times the planes, and the shortcut; ReLU after the sum."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, *, stride: int) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = Conv3d(in_channels, planes, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = Conv3d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = Conv3d(planes, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, 4 * planes, t, h, w)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Shortcut B: a strided 1x1x1 convolution and BN where the shape changes, otherwise the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(Conv3d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm3d(out_channels))
