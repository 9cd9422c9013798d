"""The network that is fine-tuned: backbone -> global average pool -> one linear layer, no dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone
from rspnet_cli.encoder.encoder import pool_features

CLASSIFIER = "classifier.safetensors"
"""The artifact of a fine-tuning that holds its network."""


class Classifier(nn.Module):
    """Clips -> a logit per class; state dict keys `backbone.*`, `fc.weight` (classes, C), `fc.bias` (classes,).

    frozen: the backbone keeps its weights and, being in evaluation mode always, its batch-norm statistics; only `fc` is trained.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int, frozen: bool = False) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(not frozen)
        self.fc = nn.Linear(backbone.channels, num_classes)
        self.frozen = frozen

    def train(self, mode: bool = True) -> Classifier:
        """Training mode, in which a frozen backbone stays as in evaluation."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, clips: Tensor) -> Tensor:
        """Logits: clips (B, 3, T, S, S) float, ImageNet-normalised -> (B, classes) float32, also under autocast."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = pool_features(self.backbone(clips), "avg")  # (B, C)
        # bfloat16's 8 bits would make ties of the logits, and the averages over clips coarse.
        with torch.autocast(clips.device.type, enabled=False):
            logits: Tensor = self.fc(features)
        return logits
