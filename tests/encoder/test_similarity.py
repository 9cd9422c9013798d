"""Similarity maps against the paper's formula in plain loops, and against what they must add up to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.heads import HEADS
from rspnet_cli.encoder.registry import BACKBONES
from rspnet_cli.encoder.similarity import SimilarityMap, similarity_maps


def make_encoder(backbone: str = "r3d18", head: str = "linear", width: float = 0.125) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = Encoder(backbone, width=width, head=head, embedding_dim=6)
        for name, value in encoder.named_parameters():
            if name.startswith("head") and name.endswith("bias"):
                value.data.uniform_(-0.5, 0.5)
    return encoder.eval().requires_grad_(False)


def clips(seed: int, frames: int = 8, size: int = 48) -> Tensor:
    return torch.randn(2, 3, frames, size, size, generator=torch.Generator().manual_seed(seed))


def maps_of(encoder: Encoder, queries: Tensor, keys: Tensor) -> tuple[SimilarityMap, SimilarityMap]:
    return similarity_maps(encoder, encoder.feature_map(queries), encoder.feature_map(keys))


def plain_map(feature_map: np.ndarray, pooled_other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Equation 2 for one clip, a number at a time: feature_map (C, t, h, w), pooled_other (C,), weight (D, C) -> (t, h, w)."""
    dims, channels = weight.shape
    other = [sum(weight[d, c] * pooled_other[c] for c in range(channels)) for d in range(dims)]
    per_channel = [sum(other[d] * weight[d, c] for d in range(dims)) for c in range(channels)]
    out = np.zeros(feature_map.shape[1:])
    for place in np.ndindex(*out.shape):
        out[place] = sum(per_channel[c] * feature_map[(c, *place)] for c in range(channels))
    return out


def test_without_biases_they_are_the_papers_but_for_the_lengths_of_the_embeddings() -> None:
    encoder = make_encoder()
    for head in (encoder.head_a, encoder.head_m):
        head[2].bias.data.zero_()
    queries, keys = clips(0), clips(1)
    found = maps_of(encoder, queries, keys)
    query_maps, key_maps = (encoder.feature_map(each).double().numpy() for each in (queries, keys))
    for result, head in zip(found, (encoder.head_a, encoder.head_m), strict=True):
        weight = head[2].weight.double().numpy()
        for row in range(2):
            expected = plain_map(query_maps[row], key_maps[row].mean((1, 2, 3)), weight)
            lengths = [math.hypot(*(weight @ maps[row].mean((1, 2, 3)))) for maps in (query_maps, key_maps)]
            np.testing.assert_allclose(result.values[row].numpy(), expected / math.prod(lengths), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_a_map_adds_up_to_the_similarity_without_the_biases(head: str) -> None:
    encoder = make_encoder(head=head)
    queries, keys = clips(0), clips(1)
    embeddings = zip(encoder.project(queries), encoder.project(keys), strict=True)
    for result, (query, key) in zip(maps_of(encoder, queries, keys), embeddings, strict=True):
        torch.testing.assert_close(result.similarity, (query * key).sum(1), rtol=1e-4, atol=1e-5)
        assert result.values.mean((1, 2, 3)).sub(result.similarity).abs().min() > 1e-3, "there are biases"
    for name, value in encoder.named_parameters():
        if name.startswith("head") and name.endswith("bias"):
            value.data.zero_()
    for result in maps_of(encoder, queries, keys):
        assert result.values.std((1, 2, 3)).min() > 1e-4
        torch.testing.assert_close(result.values.mean((1, 2, 3)), result.similarity, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_moving_a_place_of_what_is_averaged_moves_the_similarity_by_its_weight(head: str) -> None:
    """The definition of a channel's weight, by finite differences of the similarity times the query's length."""
    encoder = make_encoder(head=head).double()
    feature_map = encoder.feature_map(clips(0).double())[:1]
    other = encoder.project(clips(1).double())[1][:1].double()
    head_m = encoder.head_m
    averaged = head_m.hidden(feature_map) if hasattr(head_m, "hidden") else feature_map
    behind = head_m.linear if hasattr(head_m, "linear") else head_m[2:]

    def score(values: Tensor) -> float:
        return float((behind(values.mean((2, 3, 4))) * other).sum())

    step = 1e-6
    weights = []
    for channel in range(averaged.shape[1]):
        moved = averaged.clone()
        moved[:, channel, 0, 0, 0] += step * averaged[0, 0].numel()
        weights.append((score(moved) - score(averaged)) / step)
    expected = (
        torch.einsum("c,cthw->thw", torch.tensor(weights, dtype=torch.float64), averaged[0]) / behind(averaged.mean((2, 3, 4))).norm()
    )
    result = maps_of(encoder, clips(0).double(), clips(1).double())[1]
    torch.testing.assert_close(result.values[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_maps(backbone: str) -> None:
    encoder = make_encoder(backbone, width=0.125)
    queries = clips(0, frames=8, size=64)
    for result in maps_of(encoder, queries, queries):
        assert result.values.shape == (2, *encoder.feature_map(queries).shape[2:])
        assert result.values.isfinite().all()
        torch.testing.assert_close(result.similarity, torch.ones(2))  # a clip is as similar as can be to itself


def test_the_two_tasks_differ_and_swapping_the_clips_gives_the_other_ones_map() -> None:
    encoder = make_encoder()
    one, two = clips(0), clips(1)
    a, m = maps_of(encoder, one, two)
    assert not torch.allclose(a.values, m.values)
    swapped = maps_of(encoder, two, one)
    torch.testing.assert_close(swapped[0].similarity, a.similarity)
    assert not torch.allclose(swapped[0].values, a.values)
    assert not a.values.requires_grad
    assert all(parameter.grad is None for parameter in encoder.parameters())
