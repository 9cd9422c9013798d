"""95 % intervals of means over videos: the percentile bootstrap, resampling whole groups.

Videos of one group are cut from one recording and stand or fall together, so the group is what gets drawn: G groups with
replacement, 2,000 times, and the figure is computed anew from all videos of the drawn groups. The seed is fixed: equal
figures have equal intervals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

DRAWS = 2000
LEVEL = 0.95
_SEED = 20210202
_CHUNK_VALUES = 4_000_000  # drawn group numbers held at once: 32 MB


def mean_interval(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Intervals of the mean of each column.

    values: (Q, M), any real numbers; groups: (Q,) int. Returns (M, 2) float64, low and high. With a single group there is nothing to
    resample, and nothing is known of how another one would do: the interval is then [0, 1], all that a share can be.
    """
    number, counts = _numbered(groups)
    if len(counts) < 2:
        return np.tile([0.0, 1.0], (values.shape[1], 1))
    sums = np.zeros((len(counts), values.shape[1]))  # (G, M)
    np.add.at(sums, number, values)
    means = [(times @ sums) / (times @ counts)[:, None] for times in _draws(len(counts))]
    return _percentiles(np.concatenate(means))


def class_mean_interval(values: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Interval of the mean over classes of the class means; a draw that misses a class averages over the others.

    values: (Q,) real numbers; classes, groups: (Q,) int. Returns (2,) float64, low and high; [0, 1] with a single group.
    """
    number, counts = _numbered(groups)
    if len(counts) < 2:
        return np.array([0.0, 1.0])
    names, column = np.unique(classes, return_inverse=True)
    sums, sizes = np.zeros((2, len(counts), len(names)))  # (G, classes) each
    np.add.at(sums, (number, column), values)
    np.add.at(sizes, (number, column), 1)
    figures = []
    for times in _draws(len(counts)):
        drawn = times @ sizes  # (draws, classes)
        means = np.divide(times @ sums, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        figures.append(means.sum(axis=1) / (drawn > 0).sum(axis=1))
    low, high = _percentiles(np.concatenate(figures)[:, None])[0]
    return np.array([low, high])


def _numbered(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups numbered from 0, (Q,), and the videos in each, (G,) float64."""
    _, number = np.unique(groups, return_inverse=True)
    return number, np.bincount(number).astype(np.float64)


def _draws(num_groups: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, (some draws, G) float64; DRAWS rows in all."""
    rng = np.random.default_rng(_SEED)
    step = max(1, _CHUNK_VALUES // num_groups)
    for start in range(0, DRAWS, step):
        rows = min(step, DRAWS - start)
        drawn = rng.integers(num_groups, size=(rows, num_groups))
        drawn += np.arange(rows)[:, None] * num_groups
        yield np.bincount(drawn.ravel(), minlength=rows * num_groups).reshape(rows, num_groups).astype(np.float64)


def _percentiles(figures: np.ndarray) -> np.ndarray:
    """(draws, M) -> (M, 2)."""
    tail = (1 - LEVEL) / 2
    return np.asarray(np.quantile(figures, [tail, 1 - tail], axis=0).T)
