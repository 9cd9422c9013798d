"""Retrieval against plain loops: order, ties, groups left out, pieces, chance."""

from __future__ import annotations

import itertools
import math
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from rspnet_cli.evaluation import retrieval
from rspnet_cli.evaluation.retrieval import chance_recall, nearest, recall_hits


def plain_nearest(
    queries: np.ndarray, gallery: np.ndarray, k: int, query_groups: list[int] | None = None, gallery_groups: list[int] | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """The definition in loops: exact sums (fsum), sorted by the cosine to 12 decimals, then by index."""
    q, g = (side.astype(np.float32).tolist() for side in (queries, gallery))
    indices, similarities = [], []
    for i, query in enumerate(q):
        row = []
        for j, other in enumerate(g):
            if query_groups is not None and gallery_groups is not None and query_groups[i] == gallery_groups[j]:
                continue
            product = math.fsum(a * b for a, b in zip(query, other, strict=True))
            lengths = [math.sqrt(math.fsum(a * a for a in side)) or 1.0 for side in (query, other)]
            row.append((-round(product / (lengths[0] * lengths[1]), 12), j))
        row.sort()
        indices.append([j for _, j in row[:k]])
        similarities.append([-s for s, _ in row[:k]])
    return indices, similarities


def assert_same(found: retrieval.Neighbours, expected: tuple[list[list[int]], list[list[float]]]) -> None:
    np.testing.assert_array_equal(found.index, expected[0])
    np.testing.assert_allclose(found.similarity, expected[1], rtol=0, atol=1.1e-12)


# Few values in few dimensions: ties, opposite vectors, zero vectors and multiples of each other all occur.
small = st.integers(-2, 2)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(1, 6), st.integers(1, 40), st.sampled_from(["cpu", "cpu:0"]))
def test_neighbours_are_those_of_plain_loops_ties_included(data: st.DataObject, channels: int, q: int, n: int, device: str) -> None:
    def vectors(count: int) -> np.ndarray:
        rows = st.lists(small, min_size=channels, max_size=channels)
        return np.array(data.draw(st.lists(rows, min_size=count, max_size=count)), np.float32)

    queries, gallery = vectors(q), vectors(n)
    k = data.draw(st.integers(1, n))
    assert_same(nearest(queries, gallery, k=k, device=device), plain_nearest(queries, gallery, k))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 30), st.integers(2, 6), st.sampled_from(["cpu", "cpu:0"]))
def test_the_own_group_is_left_out_whole(seed: int, videos: int, num_groups: int, device: str) -> None:
    rng = np.random.default_rng(seed)
    features = rng.integers(-2, 3, (videos, 3)).astype(np.float32)
    groups = rng.integers(0, num_groups, videos)
    k = videos - int(np.bincount(groups).max())
    if k == 0:
        return
    found = nearest(features, features, k=k, query_groups=groups, gallery_groups=groups, device=device)
    assert (groups[found.index] != groups[:, None]).all()
    assert_same(found, plain_nearest(features, features, k, groups.tolist(), groups.tolist()))


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-3, 1e-4, 1e-6, 0.0])
def test_nearly_equal_vectors_are_ranked_exactly(spread: float, device: str) -> None:
    # An untrained encoder gives nearly the same vector for every video; float32 products alone would rank by rounding.
    rng = np.random.default_rng(0)
    queries, gallery = (1 + spread * rng.normal(size=(count, 24)) for count in (5, 300))
    gallery = np.concatenate([gallery, gallery[:100]])  # and copies, to be found behind their originals
    found = nearest(queries, gallery, k=20, device=device)
    assert_same(found, plain_nearest(queries, gallery, 20))


@pytest.mark.parametrize(("query_block", "piece"), [(1, 7), (3, 64), (256, 50), (1000, 1000)])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_blocks_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch, query_block: int, piece: int, device: str) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(20, 16)), rng.normal(size=(333, 16))
    gallery[200:] = gallery[:133]
    groups = rng.integers(0, 5, 353)
    whole = nearest(queries, gallery, k=9, query_groups=groups[:20], gallery_groups=groups[20:])
    monkeypatch.setattr(retrieval, "QUERY_BLOCK", query_block)
    monkeypatch.setattr(retrieval, "GALLERY_PIECE", piece)
    found = nearest(queries, gallery, k=9, query_groups=groups[:20], gallery_groups=groups[20:], device=device)
    np.testing.assert_array_equal(found.index, whole.index)
    np.testing.assert_array_equal(found.similarity, whole.similarity)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_does_not_matter(threads: int) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(700, 13)).astype(np.float32), rng.normal(size=(20_000, 13)).astype(np.float32)
    gallery[15_000:] = gallery[:5_000]  # ties, also between pieces
    some = rng.choice(700, 30, replace=False)
    steps: list[int] = []
    with threadpool_limits(threads, user_api="blas"):
        found = nearest(queries, gallery, k=20, track=lambda all_steps: (steps.append(step) or step for step in all_steps))
    assert steps == list(range(len(steps)))
    blocks = {1: 3, 2: 4, 5: 5}[threads]  # of at most 256 queries, and as many for each thread
    assert len(steps) == 2 * blocks  # 2 pieces, each for every block
    unit = [side / np.linalg.norm(side.astype(np.float64), axis=1, keepdims=True) for side in (queries[some], gallery)]
    cosines = np.stack([(unit[1] * query).sum(axis=1) for query in unit[0]]).round(12)
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(found.index[some], expected)
    # Alone, a query is searched in the calling thread; to the last bit the figures are the same.
    for row in some[:3]:
        alone = nearest(queries[row : row + 1], gallery, k=20)
        np.testing.assert_array_equal(alone.index[0], found.index[row])
        np.testing.assert_array_equal(alone.similarity[0], found.similarity[row])


def test_a_failure_in_a_thread_is_raised_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(retrieval, "_keep_best", fail)
    features = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    before = threading.active_count()
    with threadpool_limits(3, user_api="blas"), pytest.raises(MemoryError, match="no room"):
        nearest(features, features, k=5)
    assert threading.active_count() == before


def test_lengths_do_not_matter_even_extreme_ones() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(4, 8)), rng.normal(size=(50, 8))
    scales = 10.0 ** rng.integers(-30, 30, (50, 1))
    assert_same(nearest(queries, gallery * scales, k=50), plain_nearest(queries, gallery * scales, 50))


@pytest.mark.gpu
def test_a_gpu_finds_the_same() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    rng = np.random.default_rng(0)
    queries, gallery = 1 + 1e-3 * rng.normal(size=(300, 512)), 1 + 1e-3 * rng.normal(size=(5000, 512))
    here, there = nearest(queries, gallery, k=50), nearest(queries, gallery, k=50, device="cuda")
    np.testing.assert_array_equal(here.index, there.index)
    np.testing.assert_array_equal(here.similarity, there.similarity)


@pytest.mark.parametrize(
    ("num_queries", "num_videos", "channels", "most"),
    [
        (4000, 20_000, 8, 64_000_000),  # queries x gallery would be 320 MB; a block of 256 x 16,384 similarities is 17 MB, its mask 4 MB
        (100, 400_000, 32, 32_000_000),  # a second copy of the gallery would be 51 MB; 100 x 16,384 similarities and a piece are 9 MB
    ],
)
def test_a_block_of_queries_and_a_piece_are_all_that_is_ever_held(num_queries: int, num_videos: int, channels: int, most: int) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = (rng.standard_normal((count, channels), dtype=np.float32) for count in (num_queries, num_videos))
    with threadpool_limits(1, user_api="blas"):  # each thread has a block
        tracemalloc.start()
        nearest(queries, gallery, k=5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < most


def test_the_search_beats_sorting_every_row() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(512, 64)).astype(np.float32), rng.normal(size=(8000, 64)).astype(np.float32)

    def seconds(run: object) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            run()  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    def sorted_rows() -> np.ndarray:
        unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, gallery)]
        similarity = unit[0] @ unit[1].T
        return np.argsort(-similarity, axis=1, kind="stable")[:, :50]

    # Measured 15 times as fast; anything below that by a wide margin says that the search has become something else.
    assert seconds(lambda: nearest(queries, gallery, k=50)) < seconds(sorted_rows) / 3


def test_recall_is_any_right_among_the_first_k() -> None:
    correct = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
    np.testing.assert_array_equal(recall_hits(correct, [1, 2, 3, 4]), [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=4), st.data())
def test_chance_is_the_recall_of_every_order_of_the_gallery(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    sizes = [(size, min(right, size)) for size, right in sizes]
    k = data.draw(st.integers(1, min(size for size, _ in sizes)))
    expected = []
    for size, right in sizes:
        picks = list(itertools.combinations(range(size), k))
        expected.append(sum(any(video < right for video in pick) for pick in picks) / len(picks))
    chance = chance_recall(np.array([right for _, right in sizes]), np.array([size for size, _ in sizes]), k)
    assert chance == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_chance_holds_for_galleries_whose_binomials_overflow_a_float() -> None:
    # C(9537, 50) is above 1e130 and C(9537, 4000) above 1e2800; the product form is the independent way to the same number.
    for k in (1, 50, 4000):
        product = 1.0
        for i in range(k):
            product *= (9537 - 95 - i) / (9537 - i)
        assert chance_recall(np.array([95]), np.array([9537]), k) == pytest.approx(1 - product, rel=1e-9)
