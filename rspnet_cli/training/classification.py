"""One fine-tuning step up to the gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.training.gradients import add_gradients


class ClassificationFigures(NamedTuple):
    """What is logged of a step: scalars on the training device, without gradient."""

    loss: Tensor
    top1: Tensor
    """Share of clips whose class has the highest logit."""
    top5: Tensor


def classification_step(
    classifier: nn.Module, clips: Tensor, classes: Tensor, *, passes: int = 1, precision: str = "fp32"
) -> ClassificationFigures:
    """Add the gradients of a batch's cross entropy to the classifier's, and return the batch's figures.

    classifier: clips -> logits (b, K) float32, as `distributed.data_parallel` gave it. clips: (b, 3, T, S, S) float, normalised. classes:
    (b,) int64 in [0, K). passes: how many parts of the batch pass one after the other (`add_gradients`).
    """

    def loss_of(rows: slice) -> tuple[Tensor, ClassificationFigures]:
        with torch.autocast(clips.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = classifier(clips[rows])
        loss = F.cross_entropy(logits, classes[rows])
        with torch.no_grad():
            # Of equal logits none counts as the higher one.
            rank = (logits >= logits.gather(1, classes[rows, None])).sum(1)  # (b,), 1 the best
            return loss, ClassificationFigures(loss.detach(), (rank <= 1).float().mean(), (rank <= 5).float().mean())

    return ClassificationFigures(*add_gradients(classifier, loss_of, batch_size=len(clips), passes=passes))
