"""eval-classification: features -> what a linear probe and nearest neighbours make of them, per video, per class and in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli import distributed
from rspnet_cli.config import ClassificationConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FeatureTable, read_features
from rspnet_cli.evaluation.folds import group_folds, groups_per_class
from rspnet_cli.evaluation.probes import PROBES, Figures, Fitted, figures_of, true_ranks
from rspnet_cli.evaluation.protocol import choose_protocol, listed, split_rows
from rspnet_cli.files import write_atomic
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.tables import PER_CLASS, PREDICTIONS, PROBE_SETTINGS

NUM_FOLDS = 5


@dataclass(frozen=True)
class Part:
    """Train and test rows of the feature table; fold: from 1, None with a split."""

    fold: int | None
    train: np.ndarray
    test: np.ndarray


@dataclass
class Outcome:
    """What a probe says of every test video, in the order of `rows`: guess (Q,) class number, rank (Q,) of the true class."""

    guess: np.ndarray
    rank: np.ndarray
    fitted: list[tuple[Part, Fitted]] = field(default_factory=list)


def eval_classification(
    config: ClassificationConfig, *, features: Path, out: Path, force: bool = False, report: Reporter | None = None
) -> Manifest:
    """Classify test videos by frozen features with a linear probe and weighted nearest neighbours.

    features: folder or manifest of an export. out: this stage's folder. Raises InputError for inputs that are not what they should be,
    features without labels, a split that is not there, or fewer than two classes to tell apart.
    """
    report = report or Reporter.silent()
    if distributed.world_size() > 1:
        raise InputError("eval-classification runs in one process: start it without torchrun.")
    export = read_manifest(features, stage="export-features")
    table = read_features(export.folder)
    if (table.label < 0).all():
        raise InputError(
            f"The videos of {export.path} have no labels, so there is nothing to classify: "
            "`rspnet eval-retrieval` still gives the neighbours."
        )
    protocol, split = choose_protocol(
        table, protocol=config.protocol, split=config.split, split_typed="split" in config.model_fields_set, without_splits="folds"
    )
    parts = _split_part(table, split, report) if split is not None else _fold_parts(table, config.seed, report)
    probes = ["linear", "knn"] if config.probe == "both" else [config.probe]
    resolved = {"protocol": protocol, "split": split, "probe": config.probe, "seed": config.seed}
    with begin_stage("eval-classification", resolved, inputs={"export-features": export}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        _warn_of_unseen_classes(table, parts, report)
        rows = np.sort(np.concatenate([part.test for part in parts]))
        outcomes = _classify(table, parts, rows, probes, config.seed, report)
        classes, groups = table.label[rows], table.group[rows]
        figures = {name: figures_of(outcome.rank, classes, groups) for name, outcome in outcomes.items()}
        results = {
            "protocol": protocol,
            "queries": len(rows),
            "queries_seen": table.num_seen(rows),
            "classes": len(np.unique(table.label[np.concatenate([part.train for part in parts])])),
            **{name: _summary(figures[name]) if name in figures else None for name in PROBES},
            "chance": _chance(table, parts),
        }
        artifacts = _write_tables(stage, table, parts, rows, outcomes)
        return stage.finish(results=results, artifacts=artifacts, classes_sha256=stage.inputs["export-features"].classes_sha256)


def _split_part(table: FeatureTable, split: int, report: Reporter) -> list[Part]:
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


def _fold_parts(table: FeatureTable, seed: int, report: Reporter) -> list[Part]:
    """Cross-validation over whole groups; a class with a single group cannot be in train and in test, and is left out."""
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


def _warn_of_unseen_classes(table: FeatureTable, parts: Sequence[Part], report: Reporter) -> None:
    unseen = [part.test[~np.isin(table.label[part.test], table.label[part.train])] for part in parts]
    rows = np.concatenate(unseen)
    if len(rows):
        names = listed(table.class_names[label] for label in np.unique(table.label[rows]).tolist())
        report.warn(f"{len(rows)} test videos are of classes that train has no video of ({names}): they count as wrong, and by chance too.")


def _classify(
    table: FeatureTable, parts: Sequence[Part], rows: np.ndarray, probes: Sequence[str], seed: int, report: Reporter
) -> dict[str, Outcome]:
    """Fit every probe to every part's train rows and apply it to its test rows."""
    class_labels, classes = np.unique(table.label, return_inverse=True)
    outcomes = {name: Outcome(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)) for name in probes}
    fits = list(product(probes, parts))
    for name, part in report.track(fits, total=len(fits), unit="fits", name="eval-classification"):
        fitted = PROBES[name](
            table.features[part.train],
            classes[part.train],
            table.group[part.train],
            table.features[part.test],
            num_classes=len(class_labels),
            seed=seed,
        )
        if not fitted.converged:
            report.warn(
                f"The linear probe had not converged{f' in fold {part.fold}' if part.fold else ''}: its figures may be a little low."
            )
        places = np.searchsorted(rows, part.test)
        outcomes[name].guess[places] = class_labels[fitted.scores.argmax(axis=1)]
        outcomes[name].rank[places] = true_ranks(fitted.scores, classes[part.test])
        outcomes[name].fitted.append((part, fitted))
    return outcomes


def _summary(figures: Figures) -> dict[str, Any]:
    return {"top1": figures.top1, "top5": figures.top5, "mean_class": figures.mean_class, "interval": figures.interval}


def _chance(table: FeatureTable, parts: Sequence[Part]) -> dict[str, float]:
    """What guessing gives: top1 and top5 any of train's classes alike, majority always the class that train has most videos of."""
    top1, top5, majority = [], [], []
    for part in parts:
        names, counts = np.unique(table.label[part.train], return_counts=True)
        possible = np.isin(table.label[part.test], names)
        top1.append(possible / len(names))
        top5.append(possible * min(5, len(names)) / len(names))
        majority.append(table.label[part.test] == names[counts.argmax()])
    return {name: float(np.concatenate(shares).mean()) for name, shares in (("top1", top1), ("top5", top5), ("majority", majority))}


def _write_tables(stage: Stage, table: FeatureTable, parts: Sequence[Part], rows: np.ndarray, outcomes: dict[str, Outcome]) -> list[str]:
    tables = {
        PREDICTIONS.file: _predictions(table, parts, rows, outcomes),
        PER_CLASS.file: _per_class(table, rows, outcomes),
        PROBE_SETTINGS.file: pd.DataFrame(_settings(outcomes), columns=PROBE_SETTINGS.header()),
        **{f"confusion_{name}.csv": confusion(table, rows, outcome.guess) for name, outcome in outcomes.items()},
    }
    for name, frame in tables.items():
        write_atomic(stage.work / name, frame.to_csv(index=False, lineterminator="\n"))
    return sorted(tables)


def _predictions(table: FeatureTable, parts: Sequence[Part], rows: np.ndarray, outcomes: dict[str, Outcome]) -> pd.DataFrame:
    frame = table.videos.loc[rows, ["id", "label", "label_name"]].reset_index(drop=True)
    fold = pd.array([pd.NA] * len(rows), dtype="Int64")
    for part in parts:
        if part.fold is not None:
            fold[np.searchsorted(rows, part.test)] = part.fold
    frame["fold"] = fold
    names = table.class_names
    for name, outcome in outcomes.items():
        frame[f"{name}_label"] = outcome.guess
        frame[f"{name}_label_name"] = [names[label] for label in outcome.guess.tolist()]
        frame[f"{name}_rank"] = pd.array(outcome.rank, dtype="Int64")
        frame.loc[outcome.rank == 0, f"{name}_rank"] = pd.NA
    return frame.reindex(columns=PREDICTIONS.header())


def _per_class(table: FeatureTable, rows: np.ndarray, outcomes: dict[str, Outcome]) -> pd.DataFrame:
    labels = table.label[rows]
    of_class = [(label, labels == label) for label in np.unique(labels).tolist()]
    frame = pd.DataFrame({"label": [label for label, _ in of_class]})
    frame["label_name"] = [table.class_names[label] for label, _ in of_class]
    frame["queries"] = [int(own.sum()) for _, own in of_class]
    for name, outcome in outcomes.items():
        frame[f"{name}_top1"] = [float((outcome.rank[own] == 1).mean()) for _, own in of_class]
    return frame.reindex(columns=PER_CLASS.header())


def _settings(outcomes: dict[str, Outcome]) -> Iterator[dict[str, Any]]:
    """The rows of PROBE_SETTINGS."""
    for name, outcome in outcomes.items():
        for part, fitted in outcome.fitted:
            fold = "" if part.fold is None else part.fold
            row = {"fold": fold, "probe": name, "validation_videos": fitted.num_validation}
            if not fitted.tried:
                yield row | {"setting": fitted.setting, "validation_top1": None, "chosen": True}
            for setting, share in fitted.tried.items():
                yield row | {"setting": setting, "validation_top1": share, "chosen": setting == fitted.setting}


def confusion(table: FeatureTable, rows: np.ndarray, guess: np.ndarray) -> pd.DataFrame:
    """Test videos counted by true class (rows, named in the first column) and guessed class (further columns, one per class)."""
    labels, places = np.unique(np.concatenate([table.label[rows], guess]), return_inverse=True)
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (places[: len(rows)], places[len(rows) :]), 1)
    names = [table.class_names[label] for label in labels.tolist()]
    return pd.DataFrame(np.concatenate([np.array(names, object)[:, None], counts], axis=1), columns=["label_name", *names])
