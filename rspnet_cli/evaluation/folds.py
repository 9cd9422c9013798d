"""Parts of a labelled set that never tear a group apart and give every class its share."""

from __future__ import annotations

import numpy as np


def group_folds(classes: np.ndarray, groups: np.ndarray, *, num_folds: int, seed: int) -> np.ndarray:
    """Deal whole groups into folds, evenly per class. Returns (V,) int64 in [0, num_folds).

    classes, groups: (V,) int. Large groups first, those of equal size in an order drawn from the seed; each goes where its classes are
    rarest so far, then where there are fewest videos. So a class whose videos lie in g groups of its own is in min(g, num_folds) folds,
    and folds can stay empty when there are fewer groups than folds.
    """
    _, column, of_class = np.unique(classes, return_inverse=True, return_counts=True)
    names, number, members = np.unique(groups, return_inverse=True, return_counts=True)
    # The classes of each group with their videos, group by group: mostly one, where a matrix of all would be gigabytes.
    pairs, videos = np.unique(number * len(of_class) + column, return_counts=True)
    owner, label = np.divmod(pairs, len(of_class))
    shares = videos / of_class[label]  # of each class
    starts = np.searchsorted(owner, np.arange(len(names) + 1))
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-members[order], kind="stable")]
    held = np.zeros((num_folds, len(of_class)))
    sizes = np.zeros(num_folds)
    fold_of_group = np.zeros(len(names), np.int64)
    for group in order:
        own = slice(starts[group], starts[group + 1])
        crowding = np.round(held[:, label[own]] @ shares[own], 9)  # rounded: equal crowding must compare equal
        fold = int(np.lexsort((sizes, crowding))[0])
        fold_of_group[group] = fold
        held[fold, label[own]] += shares[own]
        sizes[fold] += members[group]
    return fold_of_group[number]


def groups_per_class(classes: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    """Class -> number of different groups among its videos."""
    pairs = np.unique(np.stack([classes, groups], axis=1), axis=0)
    names, counts = np.unique(pairs[:, 0], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def validation_part(classes: np.ndarray, groups: np.ndarray, *, seed: int) -> np.ndarray:
    """A fifth of a training set to choose settings on: (V,) bool, whole groups, classes in proportion.

    A class with a single group stays in training, where it is needed. May be empty (no class has two groups).
    """
    enough = groups_per_class(classes, groups)
    usable = np.array([enough[label] >= 2 for label in classes.tolist()])
    part = np.zeros(len(classes), bool)
    if usable.any():
        # A group that also holds a class without a second group must stay whole, so it stays in training.
        usable &= ~np.isin(groups, groups[~usable])
    if usable.any():
        part[usable] = group_folds(classes[usable], groups[usable], num_folds=5, seed=seed) == 0
    return part
