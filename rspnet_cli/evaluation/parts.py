"""Train and test rows of an evaluation, by a split or by folds of whole groups; what guessing gives on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.folds import group_folds, groups_per_class
from rspnet_cli.evaluation.protocol import listed, split_rows
from rspnet_cli.evaluation.videos import LabelledVideos
from rspnet_cli.progress import Reporter

NUM_FOLDS = 5


@dataclass(frozen=True)
class Part:
    """Train and test rows of the table; fold: from 1, None with a split."""

    fold: int | None
    train: np.ndarray
    test: np.ndarray


def split_part(table: LabelledVideos, split: int, report: Reporter) -> list[Part]:
    """The labelled train and test videos of a split. Raises InputError where there is nothing to test, or nothing to tell apart."""
    sides = split_rows(table, split, report)
    train, test = (rows[table.label[rows] >= 0] for rows in sides)
    without = sum(len(rows) for rows in sides) - len(train) - len(test)
    if without:
        report.info(f"{without} videos of split {split} have no label: left out.")
    if not len(test):
        raise InputError(
            f"No test video of split {split} has a label: choose another --split; `rspnet eval-retrieval` gives the neighbours."
        )
    if len(np.unique(table.label[train])) < 2:
        raise InputError(
            f"The train videos of split {split} are not of two classes or more, so there is nothing to tell apart: choose another --split."
        )
    return [Part(None, train, test)]


def fold_parts(table: LabelledVideos, seed: int, report: Reporter) -> list[Part]:
    """Cross-validation over whole groups; a class with a single group cannot be in train and in test, and is left out.

    Raises InputError where fewer than two classes remain.
    """
    labels, groups = table.label, table.group
    without = int((labels < 0).sum())
    if without:
        report.info(f"{without} of {len(labels)} videos have no label: left out.")
    counts = groups_per_class(labels[labels >= 0], groups[labels >= 0])
    small = [label for label, count in counts.items() if count < 2]
    if small:
        names = listed((table.class_names[label] for label in small), limit=20)
        report.warn(f"{len(small)} of {len(counts)} classes have fewer than 2 groups, one to train and one to test on: left out ({names}).")
    rows = np.flatnonzero((labels >= 0) & ~np.isin(labels, small))
    if len(counts) - len(small) < 2:
        raise InputError(
            "Fewer than two classes have videos of two groups or more, so they cannot be trained and tested apart: "
            "`rspnet eval-retrieval` still gives the neighbours."
        )
    folds = group_folds(labels[rows], groups[rows], num_folds=NUM_FOLDS, seed=seed)
    return [Part(int(fold) + 1, rows[folds != fold], rows[folds == fold]) for fold in np.unique(folds)]


def warn_of_unseen_classes(table: LabelledVideos, parts: Sequence[Part], report: Reporter) -> None:
    """Say which classes test videos have and train videos do not."""
    unseen = [part.test[~np.isin(table.label[part.test], table.label[part.train])] for part in parts]
    rows = np.concatenate(unseen)
    if len(rows):
        names = listed(table.class_names[label] for label in np.unique(table.label[rows]).tolist())
        report.warn(f"{len(rows)} test videos are of classes that train has no video of ({names}): they count as wrong, and by chance too.")


def chance(table: LabelledVideos, parts: Sequence[Part]) -> dict[str, float]:
    """What guessing gives: top1 and top5 any of train's classes alike, majority always the class that train has most videos of."""
    top1, top5, majority = [], [], []
    for part in parts:
        names, counts = np.unique(table.label[part.train], return_counts=True)
        possible = np.isin(table.label[part.test], names)
        top1.append(possible / len(names))
        top5.append(possible * min(5, len(names)) / len(names))
        majority.append(table.label[part.test] == names[counts.argmax()])
    return {name: float(np.concatenate(shares).mean()) for name, shares in (("top1", top1), ("top5", top5), ("majority", majority))}
