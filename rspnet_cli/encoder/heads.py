"""Projection heads g_a and g_m: feature map (B, C, t, h, w) -> (B, D), not normalised (the encoder does that).

Parameter names below `head_a.` and `head_m.` are those below `fc1.` and `fc2.` of the released RSPNet checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Conv3d
from rspnet_cli.errors import InputError

HEADS = ("linear", "mlp", "conv", "convbn")


def build_head(kind: str, channels: int, embedding_dim: int) -> nn.Module:
    """Build a freshly initialised projection head for feature maps of `channels` channels. Raises InputError."""
    if kind == "linear":
        return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(channels, embedding_dim))
    if kind == "mlp":
        return nn.Sequential(
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, embedding_dim),
        )
    if kind == "conv":
        return ConvHead(channels, embedding_dim)
    if kind == "convbn":
        return ConvBNHead(channels, embedding_dim)
    raise InputError(f"projection head '{kind}' is unknown: choose one of {', '.join(HEADS)}.")


class ConvHead(nn.Module):
    """Conv3d 3x3x3 -> ReLU -> Conv3d 3x3x3 -> global average -> Linear."""

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = Conv3d(channels, channels, kernel_size=3, padding=1)
        self.linear = nn.Linear(channels, embedding_dim)

    def hidden(self, feature_map: Tensor) -> Tensor:
        """What is averaged: (B, C, t, h, w) -> (B, C, t, h, w)."""
        hidden: Tensor = self.conv2(F.relu(self.conv1(feature_map), inplace=True))
        return hidden

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, C, t, h, w) -> (B, D)."""
        embedding: Tensor = self.linear(self.hidden(feature_map).mean((2, 3, 4)))
        return embedding


class ConvBNHead(nn.Module):
    """Conv3d 3x3x3 -> BN -> ReLU -> global average -> Linear."""

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels, channels, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm3d(channels)
        self.linear = nn.Linear(channels, embedding_dim)

    def hidden(self, feature_map: Tensor) -> Tensor:
        """What is averaged: (B, C, t, h, w) -> (B, C, t, h, w)."""
        return F.relu(self.bn(self.conv1(feature_map)), inplace=True)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, C, t, h, w) -> (B, D)."""
        embedding: Tensor = self.linear(self.hidden(feature_map).mean((2, 3, 4)))
        return embedding
