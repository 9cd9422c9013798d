"""Momentum contrast (He et al., CVPR 2020) as RSPNet uses it: query and key encoder, EMA update, queue, shuffled batch norm."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli import distributed
from rspnet_cli.devices import to_device
from rspnet_cli.encoder.batch_norm import frozen_statistics
from rspnet_cli.encoder.encoder import Encoder

Embeddings = tuple[Tensor, Tensor]
"""(A, M): appearance and motion, each (B, D), L2-normalised."""


def key_momentum(start: float, end: float | None, share: float) -> float:
    """The EMA rate when `share` of all steps is done, in [0, 1): from start to end along half a cosine (end None: start throughout).

    A key encoder that follows soon ends the plateau on which relative speed perception begins; one that follows slowly then keeps the
    queue's keys comparable: while they age, "fresh" tells the positive from the negatives, and instances need not be told apart.
    """
    return start if end is None else end - (end - start) * (1 + math.cos(math.pi * share)) / 2


class MoCo(nn.Module):
    """The trained query encoder, its exponential moving average (the key encoder), and the queue of appearance keys."""

    queue: Tensor
    """(D, K) float32: keys of earlier batches, L2-normalised columns; random at the start."""
    queue_videos: Tensor
    """(K,) int64: the video each column came from; -1 for the random ones."""
    queue_ptr: Tensor
    """(1,) int64: where the next keys go."""

    def __init__(self, query: Encoder, *, embedding_dim: int, queue_size: int, bn_splits: int = 1) -> None:
        super().__init__()
        self.query = query
        self.key = copy.deepcopy(query).requires_grad_(False)
        self.bn_splits = bn_splits
        self.register_buffer("queue", F.normalize(torch.randn(embedding_dim, queue_size), dim=0))
        self.register_buffer("queue_videos", torch.full((queue_size,), -1, dtype=torch.int64))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def update_key_encoder(self, momentum: float) -> None:
        """theta_k = momentum * theta_k + (1 - momentum) * theta_q, parameters only: batch norm keeps its own statistics."""
        torch._foreach_lerp_(list(self.key.parameters()), list(self.query.parameters()), 1 - momentum)

    @torch.no_grad()
    def embed_keys(self, clips: Tensor, shuffle: np.ndarray) -> Embeddings:
        """Key pass without gradient, shuffled over ranks and bn_splits and put back: (b, 3, T, S, S) -> (A, M).

        Shuffling keeps batch norm from telling the query which key is its own (MoCo, section 3.3). With one process and one split it
        would only reorder a batch, so it is left out. shuffle: (global batch,) permutation, equal on every rank.
        """
        ranks = distributed.world_size()
        if ranks * self.bn_splits == 1:
            return self.key.project(clips)
        order = to_device(torch.from_numpy(shuffle), clips.device)
        mine = slice(distributed.rank() * len(clips), (distributed.rank() + 1) * len(clips))
        shuffled = distributed.all_gather_rows(clips)[order[mine]]
        back = torch.argsort(order)[mine]
        appearance, motion = _in_splits(self.key, shuffled, self.bn_splits)
        return distributed.all_gather_rows(appearance)[back], distributed.all_gather_rows(motion)[back]

    @torch.no_grad()
    def enqueue(self, keys: Tensor, videos: Tensor) -> None:
        """Replace the oldest keys by this step's, of all ranks: keys (b, D), videos (b,)."""
        keys, videos = distributed.all_gather_rows(keys), distributed.all_gather_rows(videos)
        # The queue holds a whole number of global batches, so a batch never wraps around its end.
        places = self.queue_ptr + torch.arange(len(keys), device=keys.device)
        self.queue.index_copy_(1, places, keys.T.to(self.queue.dtype))
        self.queue_videos.index_copy_(0, places, videos)
        self.queue_ptr.copy_((self.queue_ptr + len(keys)) % self.queue.shape[1])


class _Projection(nn.Module):
    """An encoder whose forward is its projection, the form in which DDP can wrap it. Its state dict keys begin with `encoder.`."""

    def __init__(self, encoder: Encoder, splits: int) -> None:
        super().__init__()
        self.encoder, self.splits = encoder, splits

    def forward(self, clips: Tensor) -> Embeddings:
        return _in_splits(self.encoder, clips, self.splits)


def query_projection(moco: MoCo, device: torch.device, *, passes: int = 1) -> nn.Module:
    """The query pass as a module, gradients averaged over ranks: (b / passes, 3, T, S, S) -> (A, M), not shuffled.

    passes: how many of them make a step's batch; each takes its share of bn_splits, a multiple of passes.
    """
    return distributed.data_parallel(_Projection(moco.query, moco.bn_splits // passes), device)


def _in_splits(encoder: Encoder, clips: Tensor, splits: int) -> Embeddings:
    """Project sub-batch by sub-batch, each with batch-norm statistics of its own.

    The running statistics follow the first sub-batch, as those of rank 0 do under torchrun: so both give equal encoders.
    """
    parts = []
    for number, part in enumerate(clips.chunk(splits)):
        with frozen_statistics(encoder, frozen=number > 0):
            parts.append(encoder.project(part))
    if splits == 1:
        return parts[0]
    return torch.cat([appearance for appearance, _ in parts]), torch.cat([motion for _, motion in parts])
