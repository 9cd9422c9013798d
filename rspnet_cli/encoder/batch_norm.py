"""The running statistics of batch norm: estimated anew (for an untrained encoder, or one whose averages lag behind), or left alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
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


@contextmanager
def frozen_statistics(module: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """In the block batch norm normalises as ever, and leaves its running statistics alone; frozen false: nothing is different."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm3d)] if frozen else []
    before = [(layer.momentum, layer.num_batches_tracked) for layer in norms]
    try:
        for layer in norms:
            layer.momentum, layer.num_batches_tracked = 0.0, None
        yield
    finally:
        for layer, (momentum, count) in zip(norms, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
