"""eval-classification: features -> what a linear probe and nearest neighbours make of them, per video, per class and in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rspnet_cli import distributed
from rspnet_cli.config import ClassificationConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FeatureTable, read_features
from rspnet_cli.evaluation.gallery import gallery_kind, refuse_other_split
from rspnet_cli.evaluation.outcomes import Outcome, summary, write_outcomes
from rspnet_cli.evaluation.parts import Part, chance, fold_parts, split_part, warn_of_unseen_classes
from rspnet_cli.evaluation.probes import PROBES, Fitted
from rspnet_cli.evaluation.protocol import choose_protocol
from rspnet_cli.files import write_atomic
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import begin_stage
from rspnet_cli.tables import PER_CLASS, PREDICTIONS, PROBE_SETTINGS, csv_bytes


class Fit(NamedTuple):
    """A probe fitted to a part's train videos."""

    probe: str
    part: Part
    fitted: Fitted


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
    refuse_other_split(export, split)
    if gallery_kind(export) == "reference":
        report.warn(
            f"The train videos of {export.path} are randomly cropped and flipped, and their last batch is left out (--gallery-augment "
            "reference), as released for retrieval alone: export without that option for figures to compare with those of other features."
        )
    parts = split_part(table, split, report) if split is not None else fold_parts(table, config.seed, report)
    probes = ["linear", "knn"] if config.probe == "both" else [config.probe]
    resolved = {"protocol": protocol, "split": split, "probe": config.probe, "seed": config.seed}
    with begin_stage("eval-classification", resolved, inputs={"export-features": export}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        warn_of_unseen_classes(table, parts, report)
        rows = np.sort(np.concatenate([part.test for part in parts]))
        outcomes, fits = _classify(table, parts, rows, probes, config.seed, report)
        labels, groups = table.label[rows], table.group[rows]
        results = {
            "protocol": protocol,
            "queries": len(rows),
            "queries_seen": table.num_seen(rows),
            "classes": len(np.unique(table.label[np.concatenate([part.train for part in parts])])),
            **{name: summary(outcomes[name], labels, groups) if name in outcomes else None for name in PROBES},
            "chance": chance(table, parts),
        }
        artifacts = write_outcomes(stage.work, table, parts, rows, outcomes, predictions=PREDICTIONS, per_class=PER_CLASS)
        write_atomic(stage.work / PROBE_SETTINGS.file, csv_bytes(PROBE_SETTINGS.header(), _settings(fits)))
        return stage.finish(
            results=results, artifacts=[*artifacts, PROBE_SETTINGS.file], classes_sha256=stage.inputs["export-features"].classes_sha256
        )


def _classify(
    table: FeatureTable, parts: Sequence[Part], rows: np.ndarray, probes: Sequence[str], seed: int, report: Reporter
) -> tuple[dict[str, Outcome], list[Fit]]:
    """Fit every probe to every part's train rows and apply it to its test rows."""
    class_labels, classes = np.unique(table.label, return_inverse=True)
    outcomes = {name: Outcome.nothing(len(rows)) for name in probes}
    fits: list[Fit] = []
    pairs = list(product(probes, parts))
    for name, part in report.track(pairs, total=len(pairs), unit="fits", name="eval-classification"):
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
        outcomes[name].fill(np.searchsorted(rows, part.test), fitted.scores, classes[part.test], class_labels)
        fits.append(Fit(name, part, fitted))
    return outcomes, fits


def _settings(fits: Sequence[Fit]) -> Iterator[dict[str, Any]]:
    """The rows of PROBE_SETTINGS."""
    for name, part, fitted in fits:
        row = {"fold": part.fold, "probe": name, "validation_videos": fitted.num_validation}
        if not fitted.tried:
            yield row | {"setting": fitted.setting, "validation_top1": None, "chosen": True}
        for setting, share in fitted.tried.items():
            yield row | {"setting": setting, "validation_top1": share, "chosen": setting == fitted.setting}
