"""What classifiers say of test videos, as figures and as tables: per video, per class, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli.evaluation.parts import Part
from rspnet_cli.evaluation.probes import figures_of, true_ranks
from rspnet_cli.evaluation.videos import LabelledVideos
from rspnet_cli.files import write_atomic
from rspnet_cli.tables import Table


@dataclass(frozen=True)
class Outcome:
    """What a classifier says of every test video: guess (Q,) its label, rank (Q,) of the true class, 1 for right, 0 never guessed."""

    guess: np.ndarray
    rank: np.ndarray

    @classmethod
    def nothing(cls, num_videos: int) -> Outcome:
        """To be filled in."""
        return cls(np.zeros(num_videos, np.int64), np.zeros(num_videos, np.int64))

    def fill(self, places: np.ndarray, scores: np.ndarray, classes: np.ndarray, class_labels: np.ndarray) -> None:
        """Note what the scores (q, classes) say of the videos at `places` (q,), which are of `classes` (q,), columns of the scores.

        class_labels: (classes,) the label of each column. A score of -inf: never guessed.
        """
        self.guess[places] = class_labels[scores.argmax(axis=1)]
        self.rank[places] = true_ranks(scores, classes)


def summary(outcome: Outcome, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """top1, top5, mean_class (the mean over classes of their top-1) and their 95 % intervals. labels, groups: (Q,) int."""
    figures = figures_of(outcome.rank, labels, groups)
    return {"top1": figures.top1, "top5": figures.top5, "mean_class": figures.mean_class, "interval": figures.interval}


def write_outcomes(
    folder: Path,
    videos: LabelledVideos,
    parts: Sequence[Part],
    rows: np.ndarray,
    outcomes: Mapping[str, Outcome],
    *,
    predictions: Table,
    per_class: Table,
) -> list[str]:
    """Write the tables of the outcomes, by classifier, of the videos `rows` (Q,), ascending. Returns their names."""
    frames = {
        predictions.file: _predictions(videos, parts, rows, outcomes).reindex(columns=predictions.header()),
        per_class.file: _per_class(videos, rows, outcomes).reindex(columns=per_class.header()),
        **{f"confusion_{name}.csv": _confusion(videos, rows, outcome.guess) for name, outcome in outcomes.items()},
    }
    for name, frame in frames.items():
        write_atomic(folder / name, frame.to_csv(index=False, lineterminator="\n"))
    return list(frames)


def _predictions(videos: LabelledVideos, parts: Sequence[Part], rows: np.ndarray, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    frame = videos.videos.loc[rows, ["id", "label", "label_name"]].reset_index(drop=True)
    fold = pd.array([pd.NA] * len(rows), dtype="Int64")
    for part in parts:
        if part.fold is not None:
            fold[np.searchsorted(rows, part.test)] = part.fold
    frame["fold"] = fold
    names = videos.class_names
    for name, outcome in outcomes.items():
        frame[f"{name}_label"] = outcome.guess
        frame[f"{name}_label_name"] = [names[label] for label in outcome.guess.tolist()]
        frame[f"{name}_rank"] = pd.array(outcome.rank, dtype="Int64")
        frame.loc[outcome.rank == 0, f"{name}_rank"] = pd.NA
    return frame


def _per_class(videos: LabelledVideos, rows: np.ndarray, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    labels = videos.label[rows]
    of_class = [(label, labels == label) for label in np.unique(labels).tolist()]
    frame = pd.DataFrame({"label": [label for label, _ in of_class]})
    frame["label_name"] = [videos.class_names[label] for label, _ in of_class]
    frame["queries"] = [int(own.sum()) for _, own in of_class]
    for name, outcome in outcomes.items():
        frame[f"{name}_top1"] = [float((outcome.rank[own] == 1).mean()) for _, own in of_class]
    return frame


def _confusion(videos: LabelledVideos, rows: np.ndarray, guess: np.ndarray) -> pd.DataFrame:
    """Test videos counted by true class (rows, named in the first column) and guessed class (further columns, one per class)."""
    labels, places = np.unique(np.concatenate([videos.label[rows], guess]), return_inverse=True)
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (places[: len(rows)], places[len(rows) :]), 1)
    names = [videos.class_names[label] for label in labels.tolist()]
    return pd.DataFrame(np.concatenate([np.array(names, object)[:, None], counts], axis=1), columns=["label_name", *names])
