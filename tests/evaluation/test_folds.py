"""Folds and validation parts: whole groups, every class its share."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rspnet_cli.evaluation.folds import group_folds, groups_per_class, validation_part

videos_of = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(videos_of, st.booleans(), st.integers(2, 6), st.integers(0, 50))
def test_a_group_is_never_torn_apart(videos: list[tuple[int, int]], own: bool, num_folds: int, seed: int) -> None:
    classes = np.array([label for label, _ in videos])
    groups = np.array([group + (10 * label if own else 0) for label, group in videos])
    folds = group_folds(classes, groups, num_folds=num_folds, seed=seed)
    part = validation_part(classes, groups, seed=seed)
    assert set(folds.tolist()) <= set(range(num_folds))
    for group in set(groups.tolist()):
        assert len(set(folds[groups == group].tolist())) == 1
        assert len(set(part[groups == group].tolist())) == 1


@settings(max_examples=100, deadline=None)
@given(videos_of, st.integers(2, 6), st.integers(0, 50))
def test_a_class_is_in_as_many_folds_as_it_has_groups(videos: list[tuple[int, int]], num_folds: int, seed: int) -> None:
    classes = np.array([label for label, _ in videos])
    groups = np.array([group + 10 * label for label, group in videos])
    folds = group_folds(classes, groups, num_folds=num_folds, seed=seed)
    for label, count in groups_per_class(classes, groups).items():
        assert len(set(folds[classes == label].tolist())) == min(count, num_folds)


@settings(max_examples=100, deadline=None)
@given(videos_of, st.booleans(), st.integers(0, 50))
def test_no_class_loses_its_last_training_video_to_validation(videos: list[tuple[int, int]], own: bool, seed: int) -> None:
    classes = np.array([label for label, _ in videos])
    groups = np.array([group + (10 * label if own else 0) for label, group in videos])
    part = validation_part(classes, groups, seed=seed)
    alone = [label for label, count in groups_per_class(classes, groups).items() if count == 1]
    assert not np.isin(classes[part], alone).any()
    if own:
        assert set(classes[~part].tolist()) == set(classes.tolist())


def plain_folds(classes: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """The same by a matrix of all groups and classes."""
    labels, names = np.unique(classes), np.unique(groups)
    members = np.array([[np.sum((groups == name) & (classes == label)) for label in labels] for name in names])
    shares = members / members.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(names))
    held, sizes, folds = np.zeros((num_folds, len(labels))), np.zeros(num_folds), np.zeros(len(groups), np.int64)
    for group in sorted(order, key=lambda group: -members[group].sum()):
        crowding = [(round(float(held[fold] @ shares[group]), 9), sizes[fold], fold) for fold in range(num_folds)]
        fold = min(crowding)[2]
        folds[groups == names[group]] = fold
        held[fold] += shares[group]
        sizes[fold] += members[group].sum()
    return folds


@given(videos_of, st.booleans(), st.integers(2, 6), st.integers(0, 50))
def test_folds_are_those_of_a_plain_deal(videos: list[tuple[int, int]], own: bool, num_folds: int, seed: int) -> None:
    classes = np.array([label for label, _ in videos])
    groups = np.array([group + (10 * label if own else 0) for label, group in videos])
    np.testing.assert_array_equal(
        group_folds(classes, groups, num_folds=num_folds, seed=seed), plain_folds(classes, groups, num_folds, seed)
    )


def test_memory_does_not_grow_with_groups_times_classes() -> None:
    videos = np.arange(4_000)
    tracemalloc.start()
    try:
        group_folds(videos % 1_000, videos // 2, num_folds=5, seed=0)
        assert tracemalloc.get_traced_memory()[1] < 2_000 * 1_000 * 8 / 4  # a matrix of 2,000 groups and 1,000 classes has 16 MB
    finally:
        tracemalloc.stop()


def test_equal_classes_are_dealt_equally() -> None:
    classes, groups = np.repeat(np.arange(4), 50), np.repeat(np.arange(40), 5)
    folds = group_folds(classes, groups, num_folds=5, seed=3)
    for label in range(4):
        assert np.bincount(folds[classes == label]).tolist() == [10] * 5
    part = validation_part(classes, groups, seed=3)
    assert part.sum() == 40


def test_the_seed_decides_which_groups_and_nothing_else_does() -> None:
    classes, groups = np.repeat(np.arange(4), 50), np.repeat(np.arange(40), 5)
    folds = [group_folds(classes, groups, num_folds=5, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(folds[0], folds[1])
    assert (folds[0] != folds[2]).any()


@pytest.mark.parametrize(("classes", "groups"), [([0, 0, 1, 1], [0, 0, 1, 1]), ([0], [0]), ([0, 1], [0, 0])])
def test_without_a_second_group_there_is_no_validation_part(classes: list[int], groups: list[int]) -> None:
    assert not validation_part(np.array(classes), np.array(groups), seed=0).any()
