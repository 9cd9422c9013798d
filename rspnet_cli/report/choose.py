"""Seeded choices: which classes and queries to show, and samples that give every class its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows, round by round one of every class, each class in random order: (n,) int64, in that order.

    labels: (V,) int; videos without a label (-1) are a class like any other. Any beginning of the result is balanced too.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.zeros(len(labels), np.int64)  # of a video among those of its class
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own))
    return order[np.argsort(place[order], kind="stable")][:count]


def worst_and_best(shares: Sequence[float], count: int, seed: int) -> tuple[list[int], list[int]]:
    """The `count` lowest and highest of the shares, as positions; ties in random order, none in both, the worst first."""
    order = np.random.default_rng(seed).permutation(len(shares))
    ranked = order[np.argsort(np.asarray(shares)[order], kind="stable")].tolist()
    worst = ranked[: min(count, (len(ranked) + 1) // 2)]
    best = [position for position in reversed(ranked) if position not in worst][:count]
    return worst, best
