"""TSM (Lin et al., ICCV 2019): a 2D ResNet over all frames, whose blocks first shift some channels to the neighbouring frames.

Parameter names are those of torchvision's 2D ResNets, of which TSM is made; every kernel has a time axis of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, MaxPool3d, init_convolutions, scale_channels

SHIFTED_SHARE = 8  # one channel in 8 comes from the next frame, one in 8 from the previous one


def tsm_r18(*, width: float = 1.0) -> TSM:
    """TSM on ResNet-18: (B, 3, T, H, W) -> (B, 512 * width, T, H/32, W/32), sizes rounded up."""
    return TSM(BasicBlock, blocks=(2, 2, 2, 2), width=width)


def tsm_r50(*, width: float = 1.0) -> TSM:
    """TSM on ResNet-50: (B, 3, T, H, W) -> (B, 2048 * width, T, H/32, W/32), sizes rounded up."""
    return TSM(Bottleneck, blocks=(3, 4, 6, 3), width=width)


class TSM(Backbone):
    """Stem 7x7, max-pool and four stages of residual blocks, frame by frame; only the shift in every block crosses frames."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], *, blocks: Sequence[int], width: float) -> None:
        super().__init__()
        self.channels = scale_channels(64, width)
        self.conv1 = _frame_conv(3, self.channels, kernel_size=7, stride=2)
        self.bn1 = nn.BatchNorm3d(self.channels)
        self.maxpool = MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
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
        """(B, 3, T, H, W) -> (B, C, T, h, w)."""
        x = self.run(self._stem, clips)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = self.run(block, x)
        return x

    def _stem(self, clips: Tensor) -> Tensor:
        x = self.bn1(self.conv1(clips))  # (B, C, T, H/2, W/2)
        return F.relu(self.maxpool(x), inplace=True)  # (B, C, T, H/4, W/4)


class BasicBlock(nn.Module):
    """The shift, two 3x3 convolutions, the first with the stride, and the shortcut, not shifted; ReLU after the sum."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _frame_conv(in_channels, planes, kernel_size=3, stride=stride)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = _frame_conv(planes, planes, kernel_size=3)
        self.bn2 = nn.BatchNorm3d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, planes, T, h, w)."""
        out = F.relu(self.bn1(self.conv1(shift(x))), inplace=True)
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """The shift, 1x1, 3x3 (this one with the stride), 1x1 to four times the planes, and the shortcut; ReLU after the sum."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, *, stride: int) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = _frame_conv(in_channels, planes, kernel_size=1)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = _frame_conv(planes, planes, kernel_size=3, stride=stride)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = _frame_conv(planes, out_channels, kernel_size=1)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, 4 * planes, T, h, w)."""
        out = F.relu(self.bn1(self.conv1(shift(x))), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


def shift(x: Tensor) -> Tensor:
    """The first eighth of the channels from frame t+1, the second from t-1, the others as they are: (B, C, T, H, W) -> the same.

    Beyond the ends of a clip lie zeros (section 3.2, the bi-directional shift).
    """
    part = x.shape[1] // SHIFTED_SHARE
    out = torch.zeros_like(x)
    out[:, :part, :-1] = x[:, :part, 1:]
    out[:, part : 2 * part, 1:] = x[:, part : 2 * part, :-1]
    out[:, 2 * part :] = x[:, 2 * part :]
    return out


def _frame_conv(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> Conv3d:
    """A 2D convolution of every frame, without bias, padded to keep its size at stride 1."""
    padding = kernel_size // 2
    return Conv3d(
        in_channels,
        out_channels,
        kernel_size=(1, kernel_size, kernel_size),
        stride=(1, stride, stride),
        padding=(0, padding, padding),
        bias=False,
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A strided 1x1 convolution and BN where the shape changes, otherwise the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_frame_conv(in_channels, out_channels, kernel_size=1, stride=stride), nn.BatchNorm3d(out_channels))
