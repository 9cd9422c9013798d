"""R(2+1)D with one block per stage, as in VCOP (Xu et al., CVPR 2019): not torchvision's 18-layer network.

Parameter names as in the released RSPNet checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, scale_channels


def r2plus1d(*, width: float = 1.0) -> R2Plus1D:
    """R(2+1)D: (B, 3, T, H, W) -> (B, 512 * width, T/8, H/16, W/16), sizes rounded up."""
    return R2Plus1D(width=width)


class R2Plus1D(Backbone):
    """A (2+1)D stem without max-pool and four residual blocks; time and space halve from the second block on."""

    def __init__(self, *, width: float) -> None:
        super().__init__()
        stem, second, third, fourth = (scale_channels(channels, width) for channels in (64, 128, 256, 512))
        self.channels = fourth
        self.conv1 = Conv2Plus1D(3, stem, kernel_size=(3, 7, 7), stride=(1, 2, 2))  # 83 planes between the factors
        self.bn1 = nn.BatchNorm3d(stem)
        self.conv2 = Stage(stem, stem, downsample=False)
        self.conv3 = Stage(stem, second, downsample=True)
        self.conv4 = Stage(second, third, downsample=True)
        self.conv5 = Stage(third, fourth, downsample=True)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, t, h, w)."""
        x = self.run(self._stem, clips)
        for stage in (self.conv2, self.conv3, self.conv4, self.conv5):
            x = self.run(stage, x)
        return x

    def _stem(self, clips: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(clips)), inplace=True)  # (B, C, T, H/2, W/2)


class Stage(nn.Module):
    """One residual block; it exists for the `block1` of the published parameter names."""

    def __init__(self, in_channels: int, out_channels: int, *, downsample: bool) -> None:
        super().__init__()
        self.block1 = Block(in_channels, out_channels, downsample=downsample)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        out: Tensor = self.block1(x)
        return out


class Block(nn.Module):
    """Two (2+1)D 3x3x3 convolutions, the first with the stride, and the shortcut; ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, *, downsample: bool) -> None:
        super().__init__()
        stride = (2, 2, 2) if downsample else (1, 1, 1)
        self.downsample = downsample
        if downsample:  # the shortcut is (2+1)D too: BN and ReLU between two 1x1x1 convolutions
            self.downsampleconv = Conv2Plus1D(in_channels, out_channels, kernel_size=(1, 1, 1), stride=stride)
            self.downsamplebn = nn.BatchNorm3d(out_channels)
        self.conv1 = Conv2Plus1D(in_channels, out_channels, kernel_size=(3, 3, 3), stride=stride)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = Conv2Plus1D(out_channels, out_channels, kernel_size=(3, 3, 3))
        self.bn2 = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        shortcut = self.downsamplebn(self.downsampleconv(x)) if self.downsample else x
        return F.relu(out + shortcut, inplace=True)


class Conv2Plus1D(nn.Module):
    """A t x d x d convolution as a spatial and a temporal factor, BN and ReLU between them; each strides its own axes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        time, height, width = kernel_size
        # As many parameters as the full convolution has, rounded down (Tran et al., CVPR 2018, section 3.5).
        middle = (time * height * width * in_channels * out_channels) // (height * width * in_channels + time * out_channels)
        self.spatial_conv = Conv3d(
            in_channels,
            middle,
            kernel_size=(1, height, width),
            stride=(1, stride[1], stride[2]),
            padding=(0, height // 2, width // 2),
            bias=False,
        )
        self.bn = nn.BatchNorm3d(middle)
        self.temporal_conv = Conv3d(
            middle,
            out_channels,
            kernel_size=(time, 1, 1),
            stride=(stride[0], 1, 1),
            padding=(time // 2, 0, 0),
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, t, h, w)."""
        x = F.relu(self.bn(self.spatial_conv(x)), inplace=True)
        out: Tensor = self.temporal_conv(x)
        return out
