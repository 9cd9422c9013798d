"""The encoder: a backbone f with its two projection heads, g_a for A-VID and g_m for RSP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.heads import build_head
from rspnet_cli.encoder.registry import build_backbone, check_clip_size


class Encoder(nn.Module):
    """Backbone and projection heads; state dict keys `backbone.*`, `head_a.*`, `head_m.*`. head None: the backbone alone.

    All methods take clips (B, 3, T, H, W), float, ImageNet-normalised, and raise InputError for sizes that the backbone cannot take.
    """

    def __init__(self, backbone: str, *, width: float = 1.0, head: str | None = "linear", embedding_dim: int = 128) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.backbone = build_backbone(backbone, width)
        if head is not None:
            self.head_a = build_head(head, self.backbone.channels, embedding_dim)
            self.head_m = build_head(head, self.backbone.channels, embedding_dim)

    @property
    def channels(self) -> int:
        """Channels C of the feature map and of the features."""
        return self.backbone.channels

    def forward(self, clips: Tensor) -> Tensor:
        """Features: clips (B, 3, T, H, W) -> (B, C) float32, average-pooled, not normalised."""
        return pool_features(self.feature_map(clips), "avg")

    def feature_map(self, clips: Tensor) -> Tensor:
        """The last feature map: clips (B, 3, T, H, W) -> (B, C, t, h, w)."""
        check_clip_size(self.backbone_name, frames=clips.shape[2], side=min(clips.shape[3:]))
        feature_map: Tensor = self.backbone(clips)
        return feature_map

    def project(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (A, M): clips (B, 3, T, H, W) -> two (B, D) float32, L2-normalised."""
        feature_map = self.feature_map(clips)
        # Under autocast the heads answer in bfloat16, whose 8 bits are too few for similarities divided by 0.07.
        appearance = F.normalize(self.head_a(feature_map).float(), dim=1, eps=1e-12)
        motion = F.normalize(self.head_m(feature_map).float(), dim=1, eps=1e-12)
        return appearance, motion


def pool_features(feature_map: Tensor, pool: str) -> Tensor:
    """Pool a feature map (B, C, t, h, w) over time and space, "avg" or "max" -> (B, C) float32."""
    if pool == "avg":
        return feature_map.mean((2, 3, 4), dtype=torch.float32)
    if pool == "max":
        return feature_map.amax((2, 3, 4)).float()
    raise ValueError(f"pool is 'avg' or 'max', not '{pool}'")
