"""Choices are seeded and fair to every class."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.report.choose import balanced, worst_and_best


@given(labels=st.lists(st.integers(-1, 5), max_size=60), count=st.integers(0, 70), seed=st.integers(0, 5))
def test_a_sample_and_every_beginning_of_it_is_balanced(labels: list[int], count: int, seed: int) -> None:
    rows = balanced(np.array(labels, np.int64), count, seed)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(labels))
    for size in range(len(rows) + 1):
        taken = {label: [labels[row] for row in rows[:size]].count(label) for label in set(labels)}
        # A class has fewer than another only when all of it is taken.
        assert all(taken[a] >= taken[b] - 1 or taken[a] == labels.count(a) for a in taken for b in taken)
    assert np.array_equal(rows, balanced(np.array(labels, np.int64), count, seed))


def test_another_seed_takes_others() -> None:
    labels = np.repeat(np.arange(4), 50)
    assert set(balanced(labels, 8, 0).tolist()) != set(balanced(labels, 8, 1).tolist())


@given(shares=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=12), count=st.integers(1, 4), seed=st.integers(0, 5))
def test_worst_and_best_are_the_extremes_and_never_the_same(shares: list[float], count: int, seed: int) -> None:
    worst, best = worst_and_best(shares, count, seed)
    assert not set(worst) & set(best)
    assert len(worst) == min(count, (len(shares) + 1) // 2)
    assert sorted(shares)[: len(worst)] == [shares[place] for place in worst]
    assert sorted(shares, reverse=True)[: len(best)] == [shares[place] for place in best]
