"""What a classifier learns from, is chosen on, and is tested on: the rows of an extraction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rspnet_cli.config import FinetuneDataConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.folds import validation_part
from rspnet_cli.evaluation.parts import Part, fold_parts, split_part
from rspnet_cli.evaluation.protocol import choose_protocol
from rspnet_cli.evaluation.videos import LabelledVideos
from rspnet_cli.progress import Reporter


@dataclass(frozen=True)
class Task:
    """The rows of a fine-tuning, each ascending."""

    videos: LabelledVideos
    protocol: str
    """split, or folds: without split columns, one of five folds of whole groups is tested."""
    part: Part
    """All of train, and test."""
    selection: np.ndarray
    """(n,) int64: the videos that choose the best epoch; none where nothing does."""
    train: np.ndarray
    """(n,) int64: the videos that are learned from: train without `selection`; none where a network is tested as it is."""
    labels: np.ndarray
    """(K,) int64: every label of the extraction, ascending: what each row of the last layer stands for."""
    columns: np.ndarray
    """(V,) int64: the place of a video's label in `labels`; -1 without one."""

    def only_known(self, scores: np.ndarray) -> np.ndarray:
        """Scores (n, K) with -inf for the classes that train has no video of, which nobody could have learned.

        Where nothing is learned here, the network knows them all.
        """
        if not len(self.train):
            return scores
        known = np.isin(np.arange(len(self.labels)), self.columns[self.train])
        return np.where(known, scores, -np.inf)

    def parts(self) -> np.ndarray:
        """(V,) bytes: train, validation, test, or nothing for none of them."""
        names = np.zeros(len(self.columns), "S10")
        names[self.train] = b"train"
        names[self.selection] = b"validation"
        names[self.part.test] = b"test"  # also where these are the selection
        return names


def split_numbers(videos: LabelledVideos, *, seed: int) -> list[str]:
    """What `data.split` can be, beside "all": the splits there are, or the folds. Raises InputError where neither can be made."""
    _check_labels(videos)
    if videos.splits:
        return [str(split) for split in videos.splits]
    return [str(part.fold) for part in fold_parts(videos, seed, Reporter.silent())]


def make_task(videos: LabelledVideos, data: FinetuneDataConfig, *, seed: int, report: Reporter) -> Task:
    """Choose the rows. Raises InputError where there are no labels, no such split, fewer than two classes, or nothing to choose on."""
    _check_labels(videos)
    number = None
    if videos.splits:
        protocol, number = choose_protocol(videos, protocol="split", split=data.split, split_typed=True, without_splits="folds")
        assert number is not None
        (part,) = split_part(videos, number, report)
    else:
        protocol, part = "folds", _fold(videos, data.split, seed, report)
    selection, train = part.train[:0], part.train
    if data.select_on == "test":
        selection = part.test
    elif data.select_on == "validation":
        selection, train = _validation(videos, part, number, seed)
    labels = np.unique(videos.label[videos.label >= 0])
    columns = np.where(videos.label >= 0, np.searchsorted(labels, videos.label), -1)
    return Task(videos, protocol, part, selection, train, labels, columns)


def _check_labels(videos: LabelledVideos) -> None:
    if (videos.label < 0).all():
        raise InputError(
            "These videos have no labels, so there is nothing to learn: extract them with their classes (`rspnet extract --help` lists the "
            "layouts that --dataset knows)."
        )


def _fold(videos: LabelledVideos, split: str, seed: int, report: Reporter) -> Part:
    parts = {str(part.fold): part for part in fold_parts(videos, seed, report)}
    if split not in parts:
        raise InputError(
            f"There is no fold {split}; without splits, these videos are dealt into folds of whole groups: "
            f"name one of {', '.join(parts)} with --split, or all."
        )
    report.info(f"No splits: the videos are dealt into {len(parts)} folds of whole groups, of which fold {split} is tested.")
    return parts[split]


def _validation(videos: LabelledVideos, part: Part, split: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(validation, the rest of train). The split's own val videos, or a fifth of train in whole groups."""
    if split is not None:
        own = np.flatnonzero((videos.videos[f"split_{split}"] == "val").to_numpy() & (videos.label >= 0))
        if len(own):
            return own, part.train
    chosen = validation_part(videos.label[part.train], videos.group[part.train], seed=seed)
    if not chosen.any():
        raise InputError(
            "No train videos can be held out to choose the best epoch on, because no class has two groups: use --select-on test, as "
            "published, or --set data.select_on=last for the last epoch."
        )
    return part.train[chosen], part.train[~chosen]
