"""Batch-norm statistics estimated anew: for an untrained encoder, or one whose running averages lag behind."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone


@torch.no_grad()
def estimate_statistics(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of a backbone by their plain average over batches of clips (b, 3, T, S, S), normalised, b >= 2.

    Every batch weighs the same. The backbone is left in evaluation mode.
    """
    norms = [(module, module.momentum) for module in backbone.modules() if isinstance(module, nn.BatchNorm3d)]
    try:
        for norm, _ in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's spelling of the cumulative average
        backbone.train()
        for clips in batches:
            backbone(clips)
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum
        backbone.eval()
