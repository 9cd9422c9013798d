"""What is tested on what: train and test videos of a split, or everything with groups kept apart; and where results belong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.gallery import gallery_kind
from rspnet_cli.evaluation.videos import LabelledVideos
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter

RANDOM_INIT = "random-init"


def choose_protocol(
    table: LabelledVideos, *, protocol: str | None, split: str, split_typed: bool, without_splits: str
) -> tuple[str, int | None]:
    """The protocol and the number of its split (None: it needs none).

    protocol: as asked for (None: split where there are split columns). without_splits: the name of the other protocol. split_typed: whether
    the user asked for this split. Raises InputError for a split that is not there, or one typed where it has no effect.
    """
    there = table.splits
    if protocol is None:
        protocol = "split" if there or split_typed else without_splits
    if protocol != "split":
        if split_typed:
            raise InputError(f"--split {split} has no effect with --protocol {protocol}: leave one of the two out.")
        return protocol, None
    if not there:
        raise InputError(f"These videos have no splits, so there is no split {split}: use --protocol {without_splits}, or leave it out.")
    if split not in {str(number) for number in there}:
        names = ", ".join(str(number) for number in there)
        raise InputError(
            f"There is no split {split}: these videos have {'the splits' if len(there) > 1 else 'only split'} {names} (--split)."
        )
    return protocol, int(split)


def split_rows(table: LabelledVideos, split: int, report: Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the train and of the test videos of a split, (V_train,) and (V_test,) int64. Raises InputError if either is empty.

    Says how many videos are neither, and warns when a group lies on both sides (then test is easier than it looks).
    """
    part = table.videos[f"split_{split}"].to_numpy(dtype=object)
    train, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
    for rows, name in ((train, "train"), (test, "test")):
        if not len(rows):
            raise InputError(f"Split {split} has no {name} videos here: choose another --split, or extract more of its videos.")
    left_out = len(part) - len(train) - len(test)
    if left_out:
        report.info(f"{left_out} of {len(part)} videos are neither train nor test in split {split}: left out.")
    torn = np.intersect1d(table.group[train], table.group[test])
    if len(torn):
        report.warn(
            f"{len(torn)} groups have videos in train and in test of split {split}: cut from one recording, "
            "they make test easier than it looks."
        )
    return train, test


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    known = list(names)
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")


def default_out(work_dir: Path, stage: str, features: Path) -> Path:
    """Where the evaluation of an export goes: beside the others, those of an untrained encoder into a folder of their own."""
    config = read_manifest(features, stage="export-features", verify=False).config
    return work_dir / RANDOM_INIT / stage if config.get("random_init") is True else work_dir / stage


def find_baseline(work_dir: Path, result: Manifest, report: Reporter) -> Manifest | None:
    """The same stage for untrained weights, if `<work-dir>/random-init/<stage>` has it and it can stand beside the result.

    It can when both describe the same extraction in the same way (protocol, split, epochs), and the same pretraining where both have one.
    Otherwise says why it is not shown.
    """
    folder = work_dir / RANDOM_INIT / result.stage
    if not (folder / "manifest.json").exists() or folder.resolve() == result.folder.resolve():
        return None
    try:
        baseline = read_manifest(folder, stage=result.stage)
        difference = _difference(result, baseline)
    except InputError as error:
        difference = str(error)
    if difference:
        report.info(f"The untrained encoder's result in {folder} is not shown beside: {difference}")
        return None
    return baseline


def baseline_hint(work_dir: Path, result: Manifest) -> str:
    """How to have the untrained encoder's figures beside a result; empty where they are there, or are the result."""
    folder = work_dir / RANDOM_INIT
    if (folder / result.stage / "manifest.json").exists() or result.folder.parent.name == RANDOM_INIT:
        return ""
    return (
        "For the untrained encoder beside it: rspnet export-features --random-init, "
        f"rspnet {result.stage} {folder / 'export-features'}, and this command again."
    )


def _difference(result: Manifest, baseline: Manifest) -> str:
    ours, theirs = _conditions(result), _conditions(baseline)
    for name, value in ours.items():
        if theirs[name] != value:
            told = [f"of unknown {name}" if side is None else f"{name} {side}" for side in (theirs[name], value)]
            return f"it is {told[0]}, not {told[1]}." if None in (value, theirs[name]) else f"its {name} is {theirs[name]}, not {value}."
    sources, others = _sources(result), _sources(baseline)
    for stage, digest in sources.items():
        if others.get(stage, digest) != digest:
            return f"it belongs to another {stage}."
    return ""


def _conditions(manifest: Manifest) -> dict[str, Any]:
    """What two results must share to stand beside each other."""
    export = None if manifest.stage == "finetune" else manifest.input("export-features", verify=False)
    features = {} if export is None else export.config
    of_training = {name: manifest.config.get(name, {}) for name in ("data", "model")}
    return {
        "protocol": manifest.results.get("protocol"),
        "split": manifest.config.get("split", of_training["data"].get("split")),
        "number of epochs": manifest.results.get("epochs"),
        "number of clips": features.get("clips"),
        "pooling": features.get("pool"),
        "gallery": None if export is None else gallery_kind(export),
        "model.linear": of_training["model"].get("linear"),
        "data.select_on": of_training["data"].get("select_on"),
    }


def _sources(manifest: Manifest) -> dict[str, str]:
    """Digests of the extraction and the pretraining behind a result."""
    described = manifest if manifest.stage == "finetune" else manifest.input("export-features", verify=False)
    return {ref.stage: ref.digest for ref in described.inputs if ref.stage in ("extract", "pretrain")}
