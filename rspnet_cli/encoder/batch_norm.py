"""Batch-norm statistics estimated anew: for an untrained encoder, or one whose running averages lag behind."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rspnet_cli.encoder.encoder import Encoder


@torch.no_grad()
def estimate_statistics(encoder: Encoder, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of the backbone by their plain average over batches of clips (b, 3, T, H, W), b >= 2.

    Every batch weighs the same. The encoder is left in evaluation mode. The projection heads keep theirs.
    """
    norms = [(module, module.momentum) for module in encoder.backbone.modules() if isinstance(module, nn.BatchNorm3d)]
    try:
        for norm, _ in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's spelling of the cumulative average
        encoder.backbone.train()
        for clips in batches:
            encoder.feature_map(clips)
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum
        encoder.eval()
