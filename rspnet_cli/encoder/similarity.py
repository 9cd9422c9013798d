"""Similarity maps: where in a clip its similarity to another clip comes from, for each of the two tasks.

Supplement C of the paper, equation 2: M = ((W' x')^T W) F. F is the clip's last feature map, W the head's matrix, x' the other clip's
pooled features and W' the matrix of the other side's head: each channel is weighted by what it adds to the similarity, and the channels
are summed at every place of the map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.heads import ConvBNHead, ConvHead


class SimilarityMap(NamedTuple):
    """Of one task, for B pairs of clips."""

    values: Tensor
    """(B, t, h, w). The mean over a clip's places, plus what the head's biases add, is its similarity."""
    similarity: Tensor
    """(B,): the cosine similarity of the two embeddings, which the losses compare."""


def similarity_maps(encoder: Encoder, query_maps: Tensor, key_maps: Tensor) -> tuple[SimilarityMap, SimilarityMap]:
    """Maps (A, M) of query clips: A of appearance (A-VID), M of motion (RSP). For an encoder in evaluation mode.

    query_maps, key_maps: (B, C, t, h, w) last feature maps (`Encoder.feature_map`), row by row those of a pair of clips; swapped they give
    the maps of the keys. One encoder, the query encoder, is both sides (W' = W; the published figures take the key encoder, its moving
    average, for the other). The other clip's embedding is the one that is compared, with its biases and of length 1, so that a map is in
    shares of the cosine similarity. A head that is no single matrix is replaced by its derivative at the clip's averages: for mlp that is
    exact, as it is linear around them; conv and convbn are linear behind their last average, and their maps are of what is averaged there.
    """
    return _map_of(encoder.head_a, query_maps, key_maps), _map_of(encoder.head_m, query_maps, key_maps)


def _map_of(head: nn.Module, query_map: Tensor, key_map: Tensor) -> SimilarityMap:
    with torch.no_grad():
        key = F.normalize(head(key_map), dim=1, eps=1e-12)  # (B, D)
        averaged = head.hidden(query_map) if isinstance(head, ConvHead | ConvBNHead) else query_map  # (B, C, t, h, w)
    with torch.enable_grad():
        pooled = averaged.mean((2, 3, 4)).requires_grad_()  # (B, C)
        query = _behind_average(head, pooled)  # (B, D)
        weights = torch.autograd.grad((query * key).sum(), pooled)[0]  # (B, C): the other side's embedding through this head, W^T z'
    length = query.detach().norm(dim=1).clamp_min(1e-12)
    values = torch.einsum("bc,bcthw->bthw", weights, averaged) / length.view(-1, 1, 1, 1)
    return SimilarityMap(values, (query.detach() * key).sum(1) / length)


def _behind_average(head: nn.Module, pooled: Tensor) -> Tensor:
    """What a head makes of the averages (B, C) of its map: (B, D)."""
    if isinstance(head, ConvHead | ConvBNHead):
        embedding: Tensor = head.linear(pooled)
        return embedding
    assert isinstance(head, nn.Sequential)
    for layer in list(head)[2:]:  # linear and mlp begin with the average and its flattening
        pooled = layer(pooled)
    return pooled
