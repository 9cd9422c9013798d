"""Exact nearest neighbours by cosine, recall@k and its chance level.

The search never holds queries x gallery, nor a second copy of the gallery. For a block of queries and a piece of the gallery a float32
matrix product finds the few pairs that may belong to the k nearest (`rspnet_cli.evaluation.candidates`); those are computed again in
float64, in a fixed order of summation. That makes the result the same for every block size, thread count and device, and of equal
similarities the gallery video with the lower index comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from rspnet_cli.evaluation.candidates import candidates_on
from rspnet_cli.timing import timed

QUERY_BLOCK = 256
GALLERY_PIECE = 16384  # with QUERY_BLOCK: 16 MiB of similarities per thread, which a CPU's cache still holds
_DECIMALS = 12  # float64 rounds near 1e-15: cosines that differ by less than 1e-12 count as equal
_ROUNDING = 2.0**-24  # of float32, relative
_ROWS = 256  # vectors that are worked on at once in float64: 1 MiB of 512 channels, which a core keeps at hand
_PAIRS = 512  # whose gallery videos are gathered at once: with fewer, threads wait for the interpreter more than they work
_SAMPLE = 1024  # gallery videos whose mean is the middle
_SMALL_BLOCK = 64  # queries: with fewer at once a product reads the gallery more than it multiplies

# (function of a block, blocks) -> their results, in order
_Map = Callable[[Callable[[slice], None], Iterable[slice]], Iterable[None]]


@dataclass(frozen=True)
class Neighbours:
    """The k nearest gallery videos of every query, nearest first.

    index: (Q, k) int64, rows of the gallery. similarity: (Q, k) float64, cosines in [-1, 1].
    """

    index: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class _Vectors:
    """What a search needs of V features around a middle m (C,): to multiply fast, and to say what that may be off by.

    values: (V, C) float32, as given. length: (V,) float64, 1 for zero vectors. fast: (V, C + 1) float32, the unit vectors minus m, and one
    channel for the other side's needs. along, distance: (V,) float64, of each unit vector u the product u.m and |u - m|.
    """

    values: np.ndarray
    length: np.ndarray
    fast: np.ndarray
    along: np.ndarray
    distance: np.ndarray


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    *,
    k: int,
    query_groups: np.ndarray | None = None,
    gallery_groups: np.ndarray | None = None,
    device: str = "cpu",
    track: Callable[[range], Iterable[int]] = lambda steps: steps,
) -> Neighbours:
    """The k gallery videos with the highest cosine for every query; of equal ones those with the lower index.

    queries: (Q, C), gallery: (N, C) float32, finite. A zero vector is at similarity 0 to everything. query_groups (Q,) and
    gallery_groups (N,) int: a gallery video of the query's own group is left out; at least k others must remain. device: "cpu" (as many
    threads as NumPy's matrix product would take), or where torch multiplies. track: wraps the loop over blocks of queries and
    pieces of the gallery (progress). Memory: a copy of the queries, the result, a piece of the gallery and 20 MiB for each thread.
    """
    assert (query_groups is None) == (gallery_groups is None)
    queries, gallery = (np.asarray(side, np.float32) for side in (queries, gallery))
    # With any m, q.g = (q - m).(g - m) + (g.m - m.m) + q.m. The last term orders nothing, the one before it rides along as one more
    # channel. An untrained encoder gives nearly the same vector to every video: without m, float32 could not tell them apart.
    middle = _mean_unit(gallery[:: -(-len(gallery) // _SAMPLE)])
    index = np.zeros((len(queries), k), np.int64)
    similarity = np.full((len(queries), k), -np.inf)

    def search(ours: _Vectors, theirs: _Vectors, slack: np.ndarray, piece: slice, rows: slice) -> None:
        """Put what a piece of the gallery has among the k best of a block of queries."""
        excluded = None
        if query_groups is not None and gallery_groups is not None:
            excluded = query_groups[rows, None] == gallery_groups[piece]  # (B, n)
        # The k-th best so far; -8 lies below every fast similarity, and above the -inf of those excluded.
        floor = np.maximum(similarity[rows, -1] - ours.along[rows], -8)
        found, columns = candidates(ours.fast[rows], theirs.fast, excluded, floor, slack[rows], k)
        if len(found):
            exact = _cosines(ours, theirs, rows.start + found, columns)
            _keep_best(index[rows], similarity[rows], found, piece.start + columns, exact)

    def searched() -> Iterator[None]:
        """Every block in every piece; the pieces one after the other, so that ties come in the gallery's order."""
        with timed("prepare"):
            ours = _around(queries, middle, in_threads)
            ours.fast[:, -1] = 1
        for piece in pieces:
            with timed("prepare"):
                theirs = _around(gallery[piece], middle, in_threads)
            bias = theirs.along - middle @ middle
            theirs.fast[:, -1] = bias
            # Each side of a comparison is off by at most C + 1 roundings of its terms' sizes; 15 more are for the inputs'.
            sizes = ours.distance * theirs.distance.max() + np.abs(bias).max()
            slack = 2 * (queries.shape[1] + 16) * _ROUNDING * sizes + 2 * 10.0**-_DECIMALS
            yield from in_threads(partial(search, ours, theirs, slack, piece), blocks)

    with candidates_on(device) as candidates, _threads(device, len(queries)) as (threads, in_threads):
        rounds = max(1, -(-len(queries) // (threads * QUERY_BLOCK)))  # of as many blocks as threads, all of a size
        blocks = _slices(len(queries), max(_SMALL_BLOCK, -(-len(queries) // (threads * rounds))))
        pieces = _slices(len(gallery), GALLERY_PIECE)
        with timed("search"):
            for _ in zip(track(range(len(pieces) * len(blocks))), searched(), strict=True):
                pass
    assert np.isfinite(similarity).all(), "every query needs at least k gallery videos"
    return Neighbours(index, similarity)


@contextmanager
def _threads(device: str, num_queries: int) -> Iterator[tuple[int, _Map]]:
    """How many threads, and a `map` over them: as many as NumPy's matrix product would use, each of which multiplies by itself.

    A product on all cores would leave the steps around it on one.
    """
    threads = 1
    if device == "cpu" and num_queries > _SMALL_BLOCK:
        from threadpoolctl import ThreadpoolController

        blas = ThreadpoolController().select(user_api="blas")
        threads = max((library.num_threads for library in blas.lib_controllers), default=1)
    if threads == 1:
        yield 1, map
        return
    with blas.limit(limits=1), ThreadPoolExecutor(threads) as pool:
        try:
            yield threads, pool.map
        finally:
            pool.shutdown(cancel_futures=True)  # after an interrupt


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _mean_unit(vectors: np.ndarray) -> np.ndarray:
    """The mean (C,) float64 of the unit vectors of (V, C)."""
    wide = vectors.astype(np.float64)
    return np.asarray((wide / _lengths(wide)[:, None]).mean(axis=0))


def _around(vectors: np.ndarray, middle: np.ndarray, in_threads: _Map) -> _Vectors:
    """Vectors (V, C) float32 ready to search; the last channel of `fast` is the caller's to fill."""
    count, channels = vectors.shape
    fast = np.empty((count, channels + 1), np.float32)
    length, along, distance = (np.empty(count) for _ in range(3))

    def fill(part: slice) -> None:
        for start in range(part.start, part.stop, _ROWS):
            rows = slice(start, min(start + _ROWS, part.stop))
            units = vectors[rows].astype(np.float64)
            length[rows] = _lengths(units)
            units /= length[rows, None]
            along[rows] = units @ middle
            units -= middle
            distance[rows] = np.sqrt(np.einsum("ij,ij->i", units, units))
            fast[rows, :-1] = units

    for _ in in_threads(fill, _slices(count, 4 * _ROWS)):
        pass
    return _Vectors(vectors, length, fast, along, distance)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """(V,) float64 Euclidean lengths of (V, C) float64; 1 where it is 0, so that dividing by it is harmless."""
    length = np.sqrt(np.square(vectors).sum(axis=1))  # not einsum: that sums in another order for other rows, from 8,192 channels on
    return np.where(length > 0, length, 1.0)


def _cosines(queries: _Vectors, gallery: _Vectors, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The cosines (P,) float64 of pairs of a query and a gallery video; rows ascend."""
    products, channels = np.empty(len(rows)), gallery.values.shape[1]
    first, last = rows[0], rows[-1] + 1
    query = _aligned(last - first, channels)
    query[:] = queries.values[first:last]
    ends = np.searchsorted(rows, np.arange(first, last + 1))
    given, wide = np.empty((_PAIRS, channels), np.float32), _aligned(_PAIRS, channels)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, min(start + _PAIRS, len(rows)))
        count = part.stop - start
        # mode: by default take fills memory of its own first
        wide[:count] = np.take(gallery.values, columns[part], axis=0, out=given[:count], mode="clip")
        for row in range(rows[start], rows[part.stop - 1] + 1):
            own = slice(max(ends[row - first], start), min(ends[row - first + 1], part.stop))
            # One inner product for each pair (a stack of 1 x C times C x 1), not a matrix product: the order of its sum depends on C alone,
            # so equal videos get equal values.
            ours = wide[own.start - start : own.stop - start, None]
            np.matmul(ours, query[row - first, :, None], out=products[own, None, None])
    return np.asarray(np.round(products / (gallery.length[columns] * queries.length[rows]), _DECIMALS))


def _aligned(rows: int, channels: int) -> np.ndarray:
    """(rows, channels) float64, not yet set, each row at a multiple of 64 bytes: where one begins can decide the order of its sum."""
    width = -(-channels // 8) * 8
    memory = np.empty(rows * width + 7)
    first = -memory.ctypes.data % 64 // 8
    return memory[first : first + rows * width].reshape(rows, width)[:, :channels]


def _keep_best(index: np.ndarray, similarity: np.ndarray, rows: np.ndarray, found: np.ndarray, exact: np.ndarray) -> None:
    """Put gallery videos behind those so far, in the order of rows and videos, among the k best of every row, (B, k), in place."""
    num_rows, k = index.shape
    counts = np.bincount(rows, minlength=num_rows)  # (B,)
    place = k + np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    of_all = np.full((num_rows, k + counts.max()), -np.inf)  # those so far, then the new ones
    of_all[:, :k] = similarity
    of_all[rows, place] = exact
    videos = np.zeros(of_all.shape, np.int64)
    videos[:, :k] = index
    videos[rows, place] = found
    order = np.argsort(-of_all, axis=1, kind="stable")[:, :k]  # of equal ones the first: the lower index
    index[:] = np.take_along_axis(videos, order, axis=1)
    similarity[:] = np.take_along_axis(of_all, order, axis=1)


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
