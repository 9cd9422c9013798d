"""Exact nearest neighbours by cosine, recall@k and its chance level.

The search never holds queries x gallery. For a block of queries and a piece of the gallery, a float32 matrix product and the maxima of
small blocks of columns give a bound that the k-th best similarity cannot lie below; the few pairs that reach it are computed again in
float64, in a fixed order of summation. That makes the result the same for every block size, thread count and device, and of equal
similarities the gallery video with the lower index comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from rspnet_cli.timing import timed

QUERY_BLOCK = 256
GALLERY_PIECE = 16384  # with QUERY_BLOCK: 16 MiB of similarities, which a CPU's cache still holds
_COLUMN_BLOCK = 16
_DECIMALS = 12  # float64 rounds near 1e-15: cosines that differ by less than 1e-12 count as equal
_ROUNDING = 2.0**-24  # of float32, relative

# (queries, gallery, excluded, threshold, k) -> (rows, columns) of the pairs that may belong to the top k
_Candidates = Callable[[np.ndarray, np.ndarray, "np.ndarray | None", "_Threshold", int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Neighbours:
    """The k nearest gallery videos of every query, nearest first.

    index: (Q, k) int64, rows of the gallery. similarity: (Q, k) float64, cosines in [-1, 1].
    """

    index: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class _Vectors:
    """What a search needs of a set of features: exact (values / length) and fast (float32, centred).

    values: (V, C) float32 as given; length: (V,) float64, 1 for zero vectors; fast: (V, C + 1) float32.
    """

    values: np.ndarray
    length: np.ndarray
    fast: np.ndarray


@dataclass(frozen=True)
class _Threshold:
    """What a fast similarity must reach: floor, the k-th best so far, (B,) float32; slack, what float32 may be off by, (B,) float32."""

    floor: np.ndarray
    slack: np.ndarray


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    *,
    k: int,
    query_groups: np.ndarray | None = None,
    gallery_groups: np.ndarray | None = None,
    device: str = "cpu",
    track: Callable[[range], Iterable[int]] = lambda starts: starts,
) -> Neighbours:
    """The k gallery videos with the highest cosine for every query; of equal ones those with the lower index.

    queries: (Q, C), gallery: (N, C) float32, finite. A zero vector is at similarity 0 to everything. query_groups (Q,) and
    gallery_groups (N,) int: a gallery video of the query's own group is left out; at least k others must remain. device: "cpu", or where
    torch multiplies. track: wraps the loop over query blocks (progress).
    """
    assert (query_groups is None) == (gallery_groups is None)
    with timed("prepare"):
        ours, theirs, shift, slack = _prepared(queries, gallery)
    candidates = _candidates if device == "cpu" else _candidates_on(device)
    index = np.zeros((len(queries), k), np.int64)
    similarity = np.zeros((len(queries), k), np.float64)
    for start in track(range(0, len(queries), QUERY_BLOCK)):
        rows = slice(start, start + QUERY_BLOCK)
        block = _Vectors(ours.values[rows], ours.length[rows], ours.fast[rows])
        own = None if query_groups is None else query_groups[rows]
        with timed("search"):
            index[rows], similarity[rows] = _search_block(block, theirs, own, gallery_groups, k, shift[rows], slack[rows], candidates)
    return Neighbours(index, similarity)


def _prepared(queries: np.ndarray, gallery: np.ndarray) -> tuple[_Vectors, _Vectors, np.ndarray, np.ndarray]:
    """Both sides ready to search, and per query (Q,): cosine minus fast similarity, and what the latter may be off by (twice).

    With the gallery's mean unit vector m, q.g = (q - m).(g - m) + m.g + (q.m - m.m). The last term orders nothing, m.g rides along as one
    more channel. An untrained encoder gives nearly the same vector to every video: without m, float32 could not tell them apart.
    """
    queries, gallery = (np.ascontiguousarray(side, np.float32) for side in (queries, gallery))
    ours, theirs = _lengths(queries), _lengths(gallery)
    units = gallery / theirs[:, None]  # (N, C) float64
    middle = units.mean(axis=0)
    along = units @ middle  # m.g, (N,)
    bias = along - along.mean()
    units -= middle
    gallery_fast = np.concatenate([units, bias[:, None]], axis=1).astype(np.float32)
    reach = np.sqrt((units * units).sum(axis=1).max())
    units = queries / ours[:, None]
    shift = units @ middle - middle @ middle + along.mean()
    units -= middle
    query_fast = np.concatenate([units, np.ones((len(queries), 1))], axis=1).astype(np.float32)
    # Each side of a comparison is off by at most C + 1 roundings of its terms' sizes; 15 more for inputs and thresholds.
    sizes = np.sqrt((units * units).sum(axis=1)) * reach + np.abs(bias).max()
    slack = 2 * (queries.shape[1] + 16) * _ROUNDING * sizes + 10.0**-_DECIMALS
    return _Vectors(queries, ours, query_fast), _Vectors(gallery, theirs, gallery_fast), shift, slack.astype(np.float32)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """(V,) float64 Euclidean lengths; 1 where it is 0, so that dividing by it is harmless."""
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))
    return np.where(length > 0, length, 1.0)


def _search_block(
    queries: _Vectors,
    gallery: _Vectors,
    query_groups: np.ndarray | None,
    gallery_groups: np.ndarray | None,
    k: int,
    shift: np.ndarray,
    slack: np.ndarray,
    candidates: _Candidates,
) -> tuple[np.ndarray, np.ndarray]:
    """The running top k of a block of queries over the pieces of the gallery: (B, k) index and similarity."""
    num_queries = len(queries.values)
    best_index = [np.zeros(0, np.int64) for _ in range(num_queries)]
    best_similarity = [np.zeros(0, np.float64) for _ in range(num_queries)]
    wide = queries.values.astype(np.float64)
    for start in range(0, len(gallery.values), GALLERY_PIECE):
        piece = slice(start, start + GALLERY_PIECE)
        excluded = None
        if query_groups is not None and gallery_groups is not None:
            excluded = query_groups[:, None] == gallery_groups[piece]  # (B, n)
        # -8 lies below every fast similarity, and above the -inf of those excluded.
        worst = [found[-1] - off if len(found) == k else -8.0 for found, off in zip(best_similarity, shift, strict=True)]
        threshold = _Threshold(np.array(worst, np.float32), slack)
        rows, columns = candidates(queries.fast, gallery.fast[piece], excluded, threshold, k)
        ends = np.searchsorted(rows, np.arange(num_queries + 1))
        for row in np.flatnonzero(np.diff(ends)):
            column = columns[ends[row] : ends[row + 1]] + start
            # A sum along each row, not a matrix product: its order depends on C alone, so equal videos get equal values.
            products = (gallery.values[column].astype(np.float64) * wide[row]).sum(axis=1)
            exact = np.round(products / (gallery.length[column] * queries.length[row]), _DECIMALS)
            index = np.concatenate([best_index[row], column])
            similarity = np.concatenate([best_similarity[row], exact])
            order = np.lexsort((index, -similarity))[:k]
            best_index[row], best_similarity[row] = index[order], similarity[order]
    assert all(len(found) == k for found in best_index), "every query needs at least k gallery videos"
    return np.stack(best_index), np.stack(best_similarity)


def _candidates(
    queries: np.ndarray, gallery: np.ndarray, excluded: np.ndarray | None, threshold: _Threshold, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that may belong to the top k, in row order: every one that does, and a few more.

    queries: (B, C + 1), gallery: (n, C + 1) float32; excluded: (B, n) bool.
    """
    similarity = queries @ gallery.T  # (B, n)
    if excluded is not None:
        similarity[excluded] = -np.inf
    floor = threshold.floor
    width = min(_COLUMN_BLOCK, len(gallery) // (2 * k))
    if width > 0:
        # The k largest of the blocks' maxima belong to k different columns: the k-th best cannot lie below the k-th largest.
        blocks = len(gallery) // width
        maxima = similarity[:, : blocks * width].reshape(len(queries), width, blocks).max(axis=1)  # (B, blocks)
        floor = np.maximum(floor, np.partition(maxima, blocks - k, axis=1)[:, blocks - k])
    found = np.flatnonzero(similarity >= (floor - threshold.slack)[:, None])
    return found // len(gallery), found % len(gallery)


def _candidates_on(device: str) -> _Candidates:
    """The same as `_candidates`, with the matrix product and the bound on a torch device."""
    import torch

    kept: dict[int, torch.Tensor] = {}  # pieces of the gallery already there, by address

    def candidates(
        queries: np.ndarray, gallery: np.ndarray, excluded: np.ndarray | None, threshold: _Threshold, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        place = gallery.ctypes.data
        if place not in kept:
            kept[place] = torch.tensor(gallery, device=device)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # TF32 is off by far more than the slack
        try:
            similarity = torch.tensor(queries, device=device) @ kept[place].T
        finally:
            torch.set_float32_matmul_precision(before)
        if excluded is not None:
            similarity.masked_fill_(torch.tensor(excluded, device=device), -torch.inf)
        floor = torch.tensor(threshold.floor, device=device)
        width = min(_COLUMN_BLOCK, len(gallery) // (2 * k))
        if width > 0:
            blocks = len(gallery) // width
            maxima = similarity[:, : blocks * width].view(len(queries), width, blocks).amax(1)
            floor = torch.maximum(floor, maxima.topk(k, dim=1).values[:, -1])
        found = (similarity >= (floor - torch.tensor(threshold.slack, device=device))[:, None]).nonzero().cpu().numpy()
        return found[:, 0], found[:, 1]

    return candidates


def recall_hits(correct: np.ndarray, ks: Iterable[int]) -> np.ndarray:
    """(Q, len(ks)) float64 of 0 and 1: whether any of the k nearest is right. correct: (Q, K) bool, nearest first."""
    return np.stack([correct[:, :k].any(axis=1) for k in ks], axis=1).astype(np.float64)


def chance_recall(same_class: np.ndarray, gallery_sizes: np.ndarray, k: int) -> float:
    """Recall@k of a random ranking: the mean over queries of 1 - C(N - n, k) / C(N, k).

    same_class: (Q,) int, gallery videos of the query's class (n); gallery_sizes: (Q,) int, those searched (N), each at least k.
    """
    pairs, times = np.unique(np.stack([gallery_sizes, same_class], axis=1), axis=0, return_counts=True)
    # Whole numbers: the binomials exceed a float64 long before N = 10,000.
    chances = [1 - math.comb(size - right, k) / math.comb(size, k) for size, right in pairs.tolist()]
    return float(np.dot(chances, times) / times.sum())
