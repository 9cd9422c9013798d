"""C3D with batch norm (Tran et al., ICCV 2015); parameter names as in the released RSPNet checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, MaxPool3d, scale_channels

# Units between two pools, and the pool after them. The first one keeps time.
GROUPS = (
    (("1",), (1, 2, 2)),  # (B, C, T, H/2, W/2)
    (("2",), (2, 2, 2)),  # (B, C, T/2, H/4, W/4)
    (("3a", "3b"), (2, 2, 2)),  # (B, C, T/4, H/8, W/8)
    (("4a", "4b"), (2, 2, 2)),  # (B, C, T/8, H/16, W/16)
    (("5a", "5b"), None),
)


def c3d(*, width: float = 1.0) -> C3D:
    """C3D without its fifth pool: (B, 3, T, H, W) -> (B, 512 * width, T/8, H/16, W/16), sizes rounded down."""
    return C3D(width=width)


class C3D(Backbone):
    """Eight 3x3x3 convolutions with bias, each followed by BN and ReLU; max-pools after 1, 2, 3b and 4b."""

    def __init__(self, *, width: float) -> None:
        super().__init__()
        # Between two letters lies no pool: conv3a and conv3b see the same size.
        plan = {"1": 64, "2": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}
        self.channels = 3
        for name, channels in plan.items():
            out_channels = scale_channels(channels, width)
            self.add_module(f"conv{name}", Conv3d(self.channels, out_channels, kernel_size=3, padding=1))
            self.add_module(f"bn{name}", nn.BatchNorm3d(out_channels))
            self.channels = out_channels
        for number, (_, pool) in enumerate(GROUPS, 1):
            self.add_module(f"pool{number}", nn.Identity() if pool is None else MaxPool3d(pool))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, t, h, w)."""
        x = clips
        for number, (names, _) in enumerate(GROUPS, 1):
            x = self.run(partial(self._group, number, names), x)
        return x

    def _group(self, number: int, names: Sequence[str], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x))
            if name == names[-1]:
                x = getattr(self, f"pool{number}")(x)
            x = F.relu(x, inplace=True)
        return x
