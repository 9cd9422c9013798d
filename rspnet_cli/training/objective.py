"""RSPNet's two losses and the accuracies that are logged: pure functions of embeddings.

Embeddings are (B, D) float32, L2-normalised. Names: query q, key k (same speed), key_other k' (the same clip at the other speed).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def instance_loss(
    query: Tensor, key: Tensor, key_other: Tensor, queue: Tensor, *, temperature: float, own: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A-VID, L_A of the paper: clips of a video belong together at whatever speed; the queue's keys are other videos.

    queue: (D, K). own: (B, K) bool, queue entries of the query's own video, left out of the negatives. Returns the loss, shape (), and the
    logits against key and key_other, (B, 1 + K) each, the positive in column 0.
    """
    negatives = query @ queue  # (B, K)
    if own is not None:
        negatives = negatives.masked_fill(own, float("-inf"))
    logits, logits_other = (
        torch.cat([(query * positive).sum(1, keepdim=True), negatives], 1) / temperature for positive in (key, key_other)
    )
    first = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    # L_A = CE([q.k, q.Q] / tau, 0) + CE([q.k', q.Q] / tau, 0)
    return F.cross_entropy(logits, first) + F.cross_entropy(logits_other, first), logits, logits_other


def ranking_loss(query: Tensor, key: Tensor, key_other: Tensor, *, temperature: float, margin: float) -> Tensor:
    """RSP, L_M of the paper: the key at the query's speed must be nearer than the same clip at the other speed.

    margin > 0, in similarity / temperature. Returns the batch mean, shape ().
    """
    gap = ((query * key).sum(1) - (query * key_other).sum(1)) / temperature  # (B,)
    # The margin (2.0) applies after the division by the temperature, as in the released code.
    return F.relu(margin - gap).mean()


class Figures(NamedTuple):
    """What is logged of a step: scalars on the training device, without gradient."""

    loss: Tensor
    loss_avid: Tensor
    loss_rsp: Tensor
    avid_top1: Tensor
    """Share of queries whose key is nearer than every queue entry."""
    avid_top5: Tensor
    avid_other_top1: Tensor
    """The same for the key at the other speed."""
    avid_other_top5: Tensor
    rsp_accuracy: Tensor
    """Share of queries nearer to the key at their own speed than to the one at the other."""


def top_k_accuracy(logits: Tensor, k: int) -> Tensor:
    """Share of rows of (B, 1 + K) whose column 0 is among the k largest: shape ()."""
    return ((logits[:, 1:] >= logits[:, :1]).sum(1) < k).float().mean()


def rsp_accuracy(query: Tensor, key: Tensor, key_other: Tensor) -> Tensor:
    """Share of queries with q.k > q.k': shape ()."""
    return ((query * key).sum(1) > (query * key_other).sum(1)).float().mean()
