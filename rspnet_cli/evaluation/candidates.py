"""Which pairs of a block of queries and a piece of the gallery may belong to the nearest: a float32 product and a bound, here or on a GPU.

The bound: the maxima of k different blocks of columns belong to k different gallery videos, so the k-th best cannot lie below the
k-th largest maximum. Finding that takes one pass over the similarities, where a selection of the k largest takes several.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_COLUMN_BLOCK = 16

Candidates = Callable[[np.ndarray, np.ndarray, "np.ndarray | None", np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(queries (B, C) float32, gallery (n, C) float32, excluded (B, n) bool, floor (B,), slack (B,), k) -> (rows, columns), in row order.

floor: what similarities must reach for other reasons; slack: what each of them may be off by, twice; both float64. The pairs are all that
may belong to the top k of the piece and reach the floor, and a few more. The gallery array must stay as it is.
"""


def candidates_on(device: str) -> AbstractContextManager[Candidates]:
    """The search for candidates in NumPy ("cpu"; any thread may call it), or on a torch device (one thread)."""
    return nullcontext(_in_numpy()) if device == "cpu" else _in_torch(device)


def _in_numpy() -> Candidates:
    kept = threading.local()  # one array of similarities per thread: to get 16 MiB anew from the system costs a tenth of the product

    def candidates(
        queries: np.ndarray, gallery: np.ndarray, excluded: np.ndarray | None, floor: np.ndarray, slack: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        num_queries, num_videos = len(queries), len(gallery)
        if getattr(kept, "similarity", np.empty(0)).size < num_queries * num_videos:
            kept.similarity = np.empty(num_queries * num_videos, np.float32)
        similarity = kept.similarity[: num_queries * num_videos].reshape(num_queries, num_videos)
        np.matmul(queries, gallery.T, out=similarity)
        if excluded is not None:
            similarity[excluded] = -np.inf
        width, blocks = _column_blocks(num_videos, k)
        if width > 0:
            maxima = similarity[:, : width * blocks].reshape(num_queries, width, blocks).max(axis=1)  # (B, blocks)
            maxima.partition(blocks - k, axis=1)
            floor = np.maximum(floor, maxima[:, blocks - k])
        found = np.flatnonzero(similarity >= _limit(floor, slack)[:, None])
        return found // num_videos, found % num_videos

    return candidates


@contextmanager
def _in_torch(device: str) -> Iterator[Candidates]:
    import torch

    kept: list[tuple[np.ndarray, torch.Tensor]] = []  # the latest piece of the gallery, here and there

    def candidates(
        queries: np.ndarray, gallery: np.ndarray, excluded: np.ndarray | None, floor: np.ndarray, slack: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if not kept or kept[0][0] is not gallery:
            kept[:] = [(gallery, torch.tensor(gallery, device=device))]
        similarity = torch.tensor(queries, device=device) @ kept[0][1].T
        if excluded is not None:
            similarity.masked_fill_(torch.tensor(excluded, device=device), -torch.inf)
        width, blocks = _column_blocks(len(gallery), k)
        if width > 0:
            maxima = similarity[:, : width * blocks].view(len(queries), width, blocks).amax(1)
            floor = np.maximum(floor, maxima.topk(k, dim=1).values[:, -1].cpu().numpy())
        found = (similarity >= torch.tensor(_limit(floor, slack), device=device)[:, None]).nonzero().cpu().numpy()
        return found[:, 0], found[:, 1]

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 is off by far more than the slack
    try:
        yield candidates
    finally:
        torch.set_float32_matmul_precision(before)


def _column_blocks(num_videos: int, k: int) -> tuple[int, int]:
    """(width, number) of the blocks of columns whose maxima bound the k-th best: at least 2 k blocks, or none (width 0)."""
    width = min(_COLUMN_BLOCK, num_videos // (2 * k))
    return width, num_videos // width if width else 0


def _limit(floor: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """What a similarity must reach, (B,) float32, rounded down."""
    return np.asarray(np.nextafter((floor - slack).astype(np.float32), np.float32(-np.inf)))
