"""Intervals against a plain-loop bootstrap, and what they must be for groups that stand and fall together."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rspnet_cli.evaluation.intervals import class_mean_interval, mean_interval


def plain_bootstrap(values: list[float], groups: list[int], classes: list[int] | None = None) -> tuple[float, float]:
    """The definition, one draw after the other."""
    rng = random.Random(1)
    members: dict[int, list[int]] = {}
    for video, group in enumerate(groups):
        members.setdefault(group, []).append(video)
    names = list(members)
    figures = []
    for _ in range(4000):
        videos = [video for _ in names for video in members[rng.choice(names)]]
        if classes is None:
            figures.append(sum(values[video] for video in videos) / len(videos))
        else:
            of_class: dict[int, list[float]] = {}
            for video in videos:
                of_class.setdefault(classes[video], []).append(values[video])
            figures.append(sum(sum(of) / len(of) for of in of_class.values()) / len(of_class))
    figures.sort()
    return figures[100], figures[-101]


def test_mean_interval_equals_a_plain_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 25, 150)
    values = (rng.random(150) < 0.3 + 0.4 * (groups % 2)).astype(float)
    low, high = mean_interval(values[:, None], groups)[0]
    # Both are estimates from thousands of draws: a percentile of theirs wobbles by about 0.004 here.
    assert (low, high) == pytest.approx(plain_bootstrap(values.tolist(), groups.tolist()), abs=0.015)


def test_class_mean_interval_equals_a_plain_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 30, 120)
    classes = groups % 4
    values = (rng.random(120) < 0.2 * (1 + classes)).astype(float)
    interval = class_mean_interval(values, classes, groups)
    assert tuple(interval) == pytest.approx(plain_bootstrap(values.tolist(), groups.tolist(), classes.tolist()), abs=0.02)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(1, 4))
def test_copies_of_a_video_within_its_group_add_no_certainty(right: list[bool], copies: int) -> None:
    values, groups = np.array(right, float), np.arange(len(right))
    once = mean_interval(values[:, None], groups)
    repeated = mean_interval(np.repeat(values, copies)[:, None], np.repeat(groups, copies))
    np.testing.assert_allclose(once, repeated, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=40))
def test_an_interval_lies_among_the_values_and_repeats(videos: list[tuple[bool, int, int]]) -> None:
    values, groups, classes = (np.array(column) for column in zip(*videos, strict=True))
    for interval in (mean_interval(values[:, None].astype(float), groups)[0], class_mean_interval(values.astype(float), classes, groups)):
        assert 0 <= interval[0] <= interval[1] <= 1
        if len(set(groups.tolist())) > 1:
            assert interval[0] >= values.min()
            assert interval[1] <= values.max()
    np.testing.assert_array_equal(
        mean_interval(values[:, None].astype(float), groups), mean_interval(values[:, None].astype(float), groups)
    )


def test_a_group_left_whole_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 10)
    values = np.repeat(rng.random(20) < 0.5, 10).astype(float)[:, None]
    by_group, by_video = mean_interval(values, groups)[0], mean_interval(values, np.arange(200))[0]
    # The spread of a mean of 20 is sqrt(10) times that of a mean of 200.
    assert np.ptp(by_group) / np.ptp(by_video) == pytest.approx(10**0.5, rel=0.15)


def test_one_group_tells_nothing() -> None:
    values, groups = np.ones((5, 2)), np.zeros(5, int)
    np.testing.assert_array_equal(mean_interval(values, groups), [[0, 1], [0, 1]])
    np.testing.assert_array_equal(class_mean_interval(values[:, 0], groups, groups), [0, 1])


def test_the_pieces_in_which_draws_are_made_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(0).random((60, 3)), np.arange(60) // 2
    whole = mean_interval(values, groups)
    monkeypatch.setattr("rspnet_cli.evaluation.intervals._CHUNK_VALUES", 1000)
    np.testing.assert_allclose(mean_interval(values, groups), whole, atol=1e-12)
