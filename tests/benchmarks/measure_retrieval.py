"""eval-retrieval's search against what is at hand for it: the 50 nearest by cosine of 512-d features, at UCF101's size and a large one.

All of them start from the same float32 features, as an export holds them, and use as many threads as torch does here (set
OMP_NUM_THREADS). Their neighbours are compared before anything is timed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from rspnet_cli.evaluation.retrieval import nearest
from tests.benchmarks.comparison import Row, cpu_seconds, peer, rates

K, CHANNELS = 50, 512
UCF101 = (3_783, 9_537)
"""Test videos of split 1 and its train videos."""
LARGE = (4_000, 200_000)
TARGETS = {"numpy argsort": "4", "faiss IndexFlatIP": "0.8", "faiss, search alone": "0.8"}

Search = Callable[[], np.ndarray]
"""The neighbours of all queries, (Q, 50), nearest first."""


def measure() -> list[Row]:
    """A row per size and peer. The clock is the CPU's where there is one thread."""
    threads = torch.get_num_threads()
    rows: list[Row] = []
    with threadpool_limits(threads, user_api="blas"):
        for sizes in (UCF101, LARGE):
            queries, gallery = (features(size, seed) for seed, size in enumerate(sizes))
            contenders = searches(queries, gallery, threads)
            check(queries, gallery, contenders)
            small = sizes == UCF101
            clock = cpu_seconds if threads == 1 else time.perf_counter
            found = rates(contenders, amount=len(queries), repeats=7 if small else 3, clock=clock)
            what = f"{sizes[0]:,} x {sizes[1]:,}, top {K}, {threads} thread{'s' if threads > 1 else ''}"
            unit = "queries/CPU-s" if threads == 1 else "queries/s"
            ours = found.pop("rspnet")
            rows += [Row("eval-retrieval", what, unit, ours, name, rate, TARGETS.get(name, "")) for name, rate in found.items()]
    print(f"eval-retrieval: {memory()}")
    return rows


def features(videos: int, seed: int) -> np.ndarray:
    """(videos, 512) float32 like those of a network that ends in ReLU and a mean: not negative, in 101 overlapping classes."""
    rng, classes = np.random.default_rng(seed), np.random.default_rng(101)
    centres = classes.standard_normal((101, CHANNELS), dtype=np.float32)
    values = rng.standard_normal((videos, CHANNELS), dtype=np.float32)
    for part in np.array_split(values, -(-videos // 10_000)):  # in place: what measures memory starts from here
        part += centres[rng.integers(0, len(centres), len(part))]
        np.maximum(part, 0, out=part)
    return values


def searches(queries: np.ndarray, gallery: np.ndarray, threads: int) -> dict[str, Search]:
    """Ours and its peers. Sorting and scikit-learn are left out of large galleries: sorted rows would take 6 GB, and minutes."""
    found: dict[str, Search] = {"rspnet": lambda: nearest(queries, gallery, k=K).index}
    if len(gallery) <= 20_000:
        found["numpy argsort"] = lambda: np.argsort(-(unit(queries) @ unit(gallery).T))[:, :K]
        found["scikit-learn"] = lambda: by_scikit_learn(queries, gallery)
    found["torch topk, in blocks"] = lambda: by_torch(queries, gallery)
    faiss = peer("faiss")
    if faiss is None:
        print("eval-retrieval: faiss is not installed and left out (pip install faiss-cpu)")
        return found
    faiss.omp_set_num_threads(threads)

    def index() -> object:
        made = faiss.IndexFlatIP(CHANNELS)
        made.add(unit(gallery))
        return made

    ready, normalised = index(), unit(queries)
    found["faiss IndexFlatIP"] = lambda: index().search(unit(queries), K)[1]  # type: ignore[attr-defined]
    found["faiss, search alone"] = lambda: ready.search(normalised, K)[1]  # type: ignore[attr-defined]
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def by_scikit_learn(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    # Of unit vectors the Euclidean order is that of cosines, and scikit-learn's compiled search is for the former.
    neighbours = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(unit(gallery))
    return np.asarray(neighbours.kneighbors(unit(queries), return_distance=False))


def by_torch(queries: np.ndarray, gallery: np.ndarray, block: int = 256) -> np.ndarray:
    ours, theirs = torch.from_numpy(unit(queries)), torch.from_numpy(unit(gallery))
    return torch.cat([(part @ theirs.T).topk(K, dim=1).indices for part in ours.split(block)]).numpy()


def check(queries: np.ndarray, gallery: np.ndarray, contenders: dict[str, Search]) -> None:
    """All find neighbours of the same cosines, rank by rank, up to what float32 rounds: the videos differ in near ties alone."""
    some = np.linspace(0, len(queries) - 1, 200).astype(int)
    ours, theirs = unit(queries[some].astype(np.float64)), unit(gallery.astype(np.float64))
    expected: np.ndarray | None = None
    for name, search in contenders.items():
        cosines = np.stack([theirs[found] @ query for found, query in zip(search()[some], ours, strict=True)])  # (200, 50)
        expected = cosines if expected is None else expected
        assert np.abs(cosines - expected).max() < 2e-6, f"{name} finds other neighbours"


_MEMORY = """
import resource
from rspnet_cli.evaluation.retrieval import nearest
from tests.benchmarks.measure_retrieval import K, features

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB; Linux counts in KiB
queries, gallery = features(1_024, 0), features(1_000_000, 1)
before = peak()
nearest(queries, gallery, k=K)
print(f"{before:.2f} GiB with 1,024 queries and a gallery of 1,000,000 in memory, at most {peak() - before:.2f} GiB more while searching")
"""


def memory() -> str:
    """What a search in a million videos takes beside the features, in a process of its own."""
    return subprocess.run([sys.executable, "-c", _MEMORY], check=True, capture_output=True, text=True).stdout.strip()
