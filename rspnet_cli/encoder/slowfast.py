"""SlowFast 4x16 on ResNet-50 (Feichtenhofer et al., ICCV 2019); parameter names as in PySlowFast's checkpoints.

The published network takes 32 frames, every second one of a video: all of them in the fast pathway, 4 of them in the slow one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, MaxPool3d, init_convolutions, scale_channels

ALPHA = 8  # frames of the fast pathway for one of the slow pathway
BETA = 8  # channels of the slow pathway for one of the fast pathway

# Stage: residual blocks, inner channels of the slow pathway, spatial stride, time kernel of its blocks (slow, fast).
STAGES = {
    "s2": (3, 64, 1, (1, 3)),
    "s3": (4, 128, 2, (1, 3)),
    "s4": (6, 256, 2, (3, 3)),
    "s5": (3, 512, 2, (3, 3)),
}


def slowfast_r50(*, width: float = 1.0) -> SlowFast:
    """SlowFast 4x16: (B, 3, T, H, W), T a multiple of 8 -> (B, 2304 * width, T/8, H/32, W/32), H and W rounded up."""
    return SlowFast(width=width)


class SlowFast(Backbone):
    """Two ResNet-50: a slow one on an eighth of the frames, a fast one on all with an eighth of the channels, joined before each stage.

    Its feature map is the slow pathway's 2048 channels, then the fast pathway's 256, averaged over the 8 frames of each slow step. So the
    map's average is what the published head reads: the averages of both pathways, one after the other.
    """

    def __init__(self, *, width: float) -> None:
        super().__init__()
        slow, fast = scale_channels(64, width), scale_channels(64 // BETA, width)
        self.s1 = Stems(slow, fast)
        for number, (name, (blocks, planes, stride, time_kernels)) in enumerate(STAGES.items(), start=1):
            lateral = Lateral(fast)
            self.add_module(f"s{number}_fuse", lateral)
            in_channels = slow + lateral.out_channels, fast
            inner = scale_channels(planes, width), scale_channels(planes // BETA, width)
            slow, fast = scale_channels(4 * planes, width), scale_channels(4 * planes // BETA, width)
            self.add_module(name, Stage(in_channels, inner, (slow, fast), blocks=blocks, stride=stride, time_kernels=time_kernels))
        self.channels = slow + fast
        init_convolutions(self)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T/8, h, w)."""
        slow = self.run(self.s1.pathway0_stem, slow_frames(clips))  # (B, C, T/8, H/4, W/4)
        fast = self.run(self.s1.pathway1_stem, clips)  # (B, C', T, H/4, W/4)
        for number, name in enumerate(STAGES, start=1):
            slow = self.run(getattr(self, f"s{number}_fuse"), slow, fast)
            for slow_block, fast_block in getattr(self, name).pairs():
                slow, fast = self.run(slow_block, slow), self.run(fast_block, fast)
        fast = F.avg_pool3d(fast, kernel_size=(ALPHA, 1, 1))  # (B, C', T/8, H/32, W/32)
        return torch.cat((slow, fast), dim=1)


def slow_frames(clips: Tensor) -> Tensor:
    """T/8 frames from the first to the last, evenly spaced, rounded down: (B, 3, T, H, W) -> (B, 3, T/8, H, W)."""
    frames = clips.shape[2]
    count = frames // ALPHA
    indices = torch.arange(count, device=clips.device) * (frames - 1) // max(count - 1, 1)  # 0, 10, 20, 31 of 32
    return clips.index_select(2, indices)


class Stems(nn.Module):
    """Both stems: convolution 1x7x7 (slow) and 5x7x7 (fast) with spatial stride 2, BN, ReLU, spatial max-pool."""

    def __init__(self, slow: int, fast: int) -> None:
        super().__init__()
        self.pathway0_stem = Stem(slow, time_kernel=1)
        self.pathway1_stem = Stem(fast, time_kernel=5)


class Stem(nn.Module):
    """The stem of one pathway."""

    def __init__(self, out_channels: int, *, time_kernel: int) -> None:
        super().__init__()
        self.conv = _conv(3, out_channels, (time_kernel, 7, 7), stride=(1, 2, 2))
        self.bn = nn.BatchNorm3d(out_channels)
        self.pool = MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T, H/4, W/4)."""
        return F.relu(self.pool(self.bn(self.conv(clips))), inplace=True)


class Lateral(nn.Module):
    """The fast pathway seen from the slow one: a 5x1x1 convolution with time stride 8 to twice the channels, BN, ReLU, appended."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = 2 * channels
        self.conv_f2s = _conv(channels, self.out_channels, (5, 1, 1), stride=(ALPHA, 1, 1))
        self.bn = nn.BatchNorm3d(self.out_channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """(B, C, T/8, h, w), (B, C', T, h, w) -> (B, C + 2 * C', T/8, h, w)."""
        return torch.cat((slow, F.relu(self.bn(self.conv_f2s(fast)), inplace=True)), dim=1)


class Stage(nn.Module):
    """Residual blocks of both pathways, side by side."""

    def __init__(
        self,
        in_channels: tuple[int, int],
        inner: tuple[int, int],
        out_channels: tuple[int, int],
        *,
        blocks: int,
        stride: int,
        time_kernels: tuple[int, int],
    ) -> None:
        super().__init__()
        self.blocks = blocks
        for pathway in (0, 1):
            channels = in_channels[pathway]
            for index in range(blocks):
                block = Block(
                    channels,
                    inner[pathway],
                    out_channels[pathway],
                    stride=stride if index == 0 else None,
                    time_kernel=time_kernels[pathway],
                )
                self.add_module(f"pathway{pathway}_res{index}", block)
                channels = out_channels[pathway]

    def pairs(self) -> Iterator[tuple[Block, Block]]:
        """The blocks of the slow and the fast pathway, in order."""
        for index in range(self.blocks):
            yield getattr(self, f"pathway0_res{index}"), getattr(self, f"pathway1_res{index}")


class Block(nn.Module):
    """Shortcut plus bottleneck; ReLU after the sum. The shortcut of a stage's first block (stride: None in the others) is a strided
    1x1x1 convolution and BN, also in a narrow network whose channels happen to be equal: its parameters have the same names then.
    """

    branch1: Conv3d | None

    def __init__(self, in_channels: int, inner: int, out_channels: int, *, stride: int | None, time_kernel: int) -> None:
        super().__init__()
        self.branch1 = None
        if stride is not None:
            self.branch1 = _conv(in_channels, out_channels, (1, 1, 1), stride=(1, stride, stride))
            self.branch1_bn = nn.BatchNorm3d(out_channels)
        self.branch2 = Bottleneck(in_channels, inner, out_channels, stride=stride or 1, time_kernel=time_kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, h, w)."""
        shortcut = x if self.branch1 is None else self.branch1_bn(self.branch1(x))
        return F.relu(shortcut + self.branch2(x), inplace=True)


class Bottleneck(nn.Module):
    """Convolutions tx1x1, 1x3x3 (this one with the stride) and 1x1x1, each with BN, ReLU between them.

    The last BN begins with weight 0, so a block begins as its shortcut (as published).
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int, *, stride: int, time_kernel: int) -> None:
        super().__init__()
        self.a = _conv(in_channels, inner, (time_kernel, 1, 1))
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = _conv(inner, inner, (1, 3, 3), stride=(1, stride, stride))
        self.b_bn = nn.BatchNorm3d(inner)
        self.c = _conv(inner, out_channels, (1, 1, 1))
        self.c_bn = nn.BatchNorm3d(out_channels)
        nn.init.zeros_(self.c_bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, h, w)."""
        x = F.relu(self.a_bn(self.a(x)), inplace=True)
        x = F.relu(self.b_bn(self.b(x)), inplace=True)
        out: Tensor = self.c_bn(self.c(x))
        return out


def _conv(in_channels: int, out_channels: int, kernel_size: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)) -> Conv3d:
    """A convolution without bias, padded to keep its size at stride 1."""
    time, height, width = kernel_size
    return Conv3d(in_channels, out_channels, kernel_size, stride=stride, padding=(time // 2, height // 2, width // 2), bias=False)
