"""The objective against loops over queries and keys, with gradients derived by hand (method.md, step 4)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rspnet_cli.training.objective import instance_loss, ranking_loss, rsp_accuracy, top_k_accuracy

# Sums of a few dozen float64 products, each of size up to 1 / 0.07: errors stay below 1e-12.
EXACT = {"rtol": 1e-11, "atol": 1e-12}


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def reference_instance_loss(
    query: np.ndarray, key: np.ndarray, other: np.ndarray, queue: np.ndarray, temperature: float, own: np.ndarray | None
) -> tuple[float, dict[str, np.ndarray]]:
    """L_A and its gradients, one query, one positive and one negative at a time."""
    size = len(query)
    loss = 0.0
    grads = {"query": np.zeros_like(query), "key": np.zeros_like(query), "other": np.zeros_like(query)}
    for i in range(size):
        negatives = [queue[:, column] for column in range(queue.shape[1]) if own is None or not own[i, column]]
        for name, positive in (("key", key[i]), ("other", other[i])):
            candidates = [positive, *negatives]
            logits = [dot(query[i], candidate) / temperature for candidate in candidates]
            top = max(logits)
            total = sum(math.exp(logit - top) for logit in logits)
            loss += (math.log(total) + top - logits[0]) / size
            for number, (logit, candidate) in enumerate(zip(logits, candidates, strict=True)):
                # d CE / d logit = probability - [it is the positive]
                slope = (math.exp(logit - top) / total - (number == 0)) / temperature / size
                grads["query"][i] += slope * candidate
                if number == 0:
                    grads[name][i] += slope * query[i]
    return loss, grads


def reference_ranking_loss(
    query: np.ndarray, key: np.ndarray, other: np.ndarray, temperature: float, margin: float
) -> tuple[float, dict[str, np.ndarray]]:
    size = len(query)
    loss = 0.0
    grads = {"query": np.zeros_like(query), "key": np.zeros_like(query), "other": np.zeros_like(query)}
    for i in range(size):
        hinge = margin - (dot(query[i], key[i]) - dot(query[i], other[i])) / temperature
        if hinge > 0:
            loss += hinge / size
            grads["query"][i] -= (key[i] - other[i]) / temperature / size
            grads["key"][i] -= query[i] / temperature / size
            grads["other"][i] += query[i] / temperature / size
    return loss, grads


def embeddings(seed: int, size: int, dim: int, columns: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)

    def unit(shape: tuple[int, int], axis: int) -> np.ndarray:
        values = rng.normal(size=shape)
        return values / np.linalg.norm(values, axis=axis, keepdims=True)

    return [unit((size, dim), 1) for _ in range(3)], unit((dim, columns), 0)


def tensors(arrays: list[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(array).requires_grad_() for array in arrays]


SHAPES = {"size": st.integers(1, 6), "dim": st.integers(2, 9), "columns": st.integers(1, 12), "seed": st.integers(0, 10_000)}
TEMPERATURES = st.sampled_from([0.07, 0.2, 1.0])


@given(**SHAPES, temperature=TEMPERATURES, masked=st.booleans())
def test_instance_loss_and_its_gradients_are_those_of_the_loops(
    size: int, dim: int, columns: int, seed: int, temperature: float, masked: bool
) -> None:
    arrays, queue = embeddings(seed, size, dim, columns)
    own = np.random.default_rng(seed).random((size, columns)) < 0.4 if masked else None
    query, key, other = tensors(arrays)
    loss, logits, logits_other = instance_loss(
        query, key, other, torch.from_numpy(queue), temperature=temperature, own=None if own is None else torch.from_numpy(own)
    )
    loss.backward()
    expected, grads = reference_instance_loss(*arrays, queue, temperature, own)
    np.testing.assert_allclose(loss.item(), expected, **EXACT)
    for tensor, name in ((query, "query"), (key, "key"), (other, "other")):
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), grads[name], **EXACT)
    assert logits.shape == logits_other.shape == (size, 1 + columns)
    for i in range(size):
        assert logits[i, 0].item() == pytest.approx(dot(arrays[0][i], arrays[1][i]) / temperature)
        assert logits_other[i, 0].item() == pytest.approx(dot(arrays[0][i], arrays[2][i]) / temperature)


@given(**SHAPES, temperature=TEMPERATURES, margin=st.sampled_from([0.5, 2.0, 20.0]))
def test_ranking_loss_and_its_gradients_are_those_of_the_loops(
    size: int, dim: int, columns: int, seed: int, temperature: float, margin: float
) -> None:
    arrays, _ = embeddings(seed, size, dim, columns)
    query, key, other = tensors(arrays)
    loss = ranking_loss(query, key, other, temperature=temperature, margin=margin)
    loss.backward()
    expected, grads = reference_ranking_loss(*arrays, temperature, margin)
    np.testing.assert_allclose(loss.item(), expected, **EXACT)
    for tensor, name in ((query, "query"), (key, "key"), (other, "other")):
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), grads[name], **EXACT)


def test_ranking_loss_is_zero_beyond_the_margin_and_the_margin_without_a_difference() -> None:
    query = torch.eye(4, dtype=torch.float64)
    assert ranking_loss(query, query, torch.roll(query, 1, 0), temperature=0.07, margin=2.0).item() == 0  # gap 1 / 0.07 = 14.3
    assert ranking_loss(query, query, query, temperature=0.07, margin=2.0).item() == 2.0  # speed 1 against speed 1
    assert ranking_loss(query, torch.roll(query, 1, 0), query, temperature=0.5, margin=2.0).item() == 4.0


def test_in_float32_the_losses_keep_six_digits_at_the_sizes_of_real_runs() -> None:
    arrays, queue = embeddings(0, 32, 128, 256)
    expected, _ = reference_instance_loss(*arrays, queue, 0.07, None)
    singles = [torch.from_numpy(array).float() for array in arrays]
    loss, _, _ = instance_loss(*singles, torch.from_numpy(queue).float(), temperature=0.07)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_query_whose_negatives_are_all_its_own_costs_nothing() -> None:
    arrays, queue = embeddings(0, 2, 4, 3)
    own = torch.tensor([[True] * 3, [False] * 3])
    loss, logits, _ = instance_loss(*tensors(arrays), torch.from_numpy(queue), temperature=0.07, own=own)
    alone, _ = reference_instance_loss(*[array[1:] for array in arrays], queue, 0.07, None)
    assert loss.item() == pytest.approx(alone / 2)
    assert torch.isinf(logits[0, 1:]).all()


@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 6), st.integers(0, 999))
def test_top_k_accuracy_counts_rows_whose_first_column_is_among_the_k_largest(rows: int, columns: int, k: int, seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, 1 + columns)))
    right = 0
    for row in logits.tolist():
        place = sorted(row, reverse=True).index(row[0])
        right += place < k
    assert top_k_accuracy(logits, k).item() == pytest.approx(right / rows)


def test_a_tie_is_no_success() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert top_k_accuracy(logits, 1).item() == 0.5
    assert top_k_accuracy(logits, 2).item() == 1.0
    same = torch.eye(3)
    assert rsp_accuracy(same, same, same).item() == 0.0


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 999))
def test_rsp_accuracy_is_the_share_nearer_to_the_key_at_their_own_speed(size: int, dim: int, seed: int) -> None:
    (query, key, other), _ = embeddings(seed, size, dim, 1)
    right = sum(dot(query[i], key[i]) > dot(query[i], other[i]) for i in range(size))
    got = rsp_accuracy(torch.from_numpy(query), torch.from_numpy(key), torch.from_numpy(other))
    assert got.item() == pytest.approx(right / size)
