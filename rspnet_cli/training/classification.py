"""One fine-tuning step up to the loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassificationFigures(NamedTuple):
    """What is logged of a step: scalars on the training device, without gradient."""

    loss: Tensor
    top1: Tensor
    """Share of clips whose class has the highest logit."""
    top5: Tensor


def classification_step(classifier: nn.Module, clips: Tensor, classes: Tensor) -> tuple[Tensor, ClassificationFigures]:
    """The cross entropy of a batch, shape () with gradient, and its figures.

    classifier: clips -> logits (b, K) float32. clips: (b, 3, T, S, S) float, normalised. classes: (b,) int64 in [0, K).
    """
    logits = classifier(clips)
    loss = F.cross_entropy(logits, classes)
    with torch.no_grad():
        # Of equal logits none counts as the higher one.
        rank = (logits >= logits.gather(1, classes[:, None])).sum(1)  # (b,), 1 the best
        figures = ClassificationFigures(loss.detach(), (rank <= 1).float().mean(), (rank <= 5).float().mean())
    return loss, figures
