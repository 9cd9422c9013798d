"""The dry run of extract: what it would do, where, and what that would cost. Nothing stays of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import RspnetError
from rspnet_cli.files import free_bytes, temporary_folder
from rspnet_cli.manifest import MANIFEST, UNFINISHED, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settling import STATE
from rspnet_cli.stage import describe_differences
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import VideoTable
from rspnet_cli.videos.probe import Estimate, probe
from rspnet_cli.videos.survey import Survey, survey

NAME = "extract"


@dataclass(frozen=True)
class ClassCounts:
    """The videos of a class; name and label are "" and None for those without one. splits: split -> part -> videos."""

    name: str
    label: int | None
    videos: int
    failed: int
    """Named or found, and known to be no video before any is opened."""
    splits: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Plan:
    """What extract would do. JSON values but for `estimate`; paths as the tables spell them."""

    dataset: str
    out: str
    out_holds: str
    """In words: what is in the folder of the result and what the command would make of it."""
    videos: int
    failed: int
    splits: dict[str, dict[str, int]]
    classes: list[ClassCounts]
    missing: list[str]
    """Videos that a list names and that are not there."""
    extra: list[str] | None
    """Video files that no list names; None of folders of frames, where nobody looks for more."""
    repeated: list[str]
    """Videos that a list names again."""
    failures: dict[str, str]
    """Reasons by source: missing videos and all else that cannot be a video, known before any is opened."""
    notes: list[str]
    warnings: list[str]
    estimate: Estimate | None
    """None where there is no video to probe."""
    free_bytes: int | None


def plan_extract(
    config: ExtractConfig, *, videos: Path, annotations: Path | None = None, out: Path, report: Reporter | None = None
) -> Plan:
    """Look at the videos and their lists as extract does, and extract a few of them into a temporary folder.

    videos, annotations, out: as of extract. Raises InputError as extract does, DiskFullError where the temporary folder is full.
    """
    report = report or Reporter.silent()
    found = survey(config, videos=videos, annotations=annotations, out=out, find_extra=True)
    table = found.table
    for note in table.notes:
        report.info(f"{NAME}: {note}")
    for warning in table.warnings:
        report.warn(warning)
    estimate = None
    if table.videos:
        with temporary_folder("rspnet-probe-") as folder:
            estimate = probe(table, found.config, root=videos, folder=folder, report=report)
    return Plan(
        dataset=table.dataset,
        out=plain_text(str(out)),
        out_holds=_out_holds(out, found),
        videos=len(table.videos),
        failed=len(table.failures),
        splits=split_counts(table),
        classes=class_counts(table),
        missing=[plain_text(path) for path in table.missing],
        extra=None if table.extra is None else [plain_text(path) for path in table.extra],
        repeated=[plain_text(path) for path in table.repeated],
        failures={plain_text(failure.path): failure.reason for failure in table.failures},
        notes=list(table.notes),
        warnings=list(table.warnings),
        estimate=estimate,
        free_bytes=free_bytes(out),
    )


def split_counts(table: VideoTable) -> dict[str, dict[str, int]]:
    """Split -> part -> videos."""
    return {name: dict(Counter(video.splits[index] for video in table.videos)) for index, name in enumerate(table.split_names)}


def class_counts(table: VideoTable) -> list[ClassCounts]:
    """Every class in the order of the labels, then what has none."""
    videos = Counter(video.label_name for video in table.videos)
    failed = Counter(failure.label_name for failure in table.failures)
    parts = Counter(
        (video.label_name, split, part) for video in table.videos for split, part in zip(table.split_names, video.splits, strict=True)
    )
    by_class: dict[str, dict[str, dict[str, int]]] = {}
    for (name, split, part), number in parts.items():
        by_class.setdefault(name, {}).setdefault(split, {})[part] = number
    labels: list[tuple[int | None, str]] = list(enumerate(table.classes))
    if videos[""] or failed[""]:
        labels.append((None, ""))
    return [ClassCounts(name, label, videos[name], failed[name], by_class.get(name, {})) for label, name in labels]


def _out_holds(out: Path, found: Survey) -> str:
    """What lies in the folder of the result, and what the same command without a dry run would make of it."""
    state = out / UNFINISHED / STATE
    try:
        if (out / MANIFEST).exists():
            what, config = f"a finished {NAME}", read_manifest(out, stage=NAME, verify=False).config
        elif state.exists():
            what, config = f"an unfinished {NAME}", json.loads(state.read_text(encoding="utf-8"))["config"]
        else:
            return "no result yet"
        differences = describe_differences(config, json.loads(json.dumps(found.identity)), {}, {})
    except (RspnetError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return "something that cannot be read: another --out, or --force, is needed"
    if differences:
        return f"{what} with other settings ({differences}): --force would replace it, --out DIR keep both"
    if what.startswith("a finished"):
        return f"{what} with these settings: there is nothing to do if the videos are the same"
    return f"{what} with these settings: it would be continued (the estimate counts from its beginning)"
