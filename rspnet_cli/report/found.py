"""What lies in a work directory at this moment: finished stages, unfinished ones, faults, and which result belongs to which features."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.locks import is_held
from rspnet_cli.manifest import MANIFEST, SHARD_MARK, UNFINISHED, Manifest, read_manifest
from rspnet_cli.report.commands import Run
from rspnet_cli.settling import STATE

STAGES = ("extract", "pretrain", "export-features", "eval-retrieval", "eval-classification", "finetune")
_EVALUATIONS = ("eval-retrieval", "eval-classification")
# A row of metrics.csv takes 150 bytes: a million rows. A larger file is not read into a page.
_MAX_LOG_BYTES = 150 * 2**20


@dataclass(frozen=True)
class Unfinished:
    """A stage that runs or was stopped. work: the folder of its files so far; begun: what it began with; running: whether it runs now."""

    work: Path
    begun: Run
    running: bool

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings it began with; none where they are not written down yet."""
        return self.begun.config

    @property
    def words(self) -> str:
        """How it stands, as a sentence."""
        return "It runs at this moment." if self.running else "It was stopped; its command continues it."


@dataclass
class Found:
    """A work directory. stages: the finished result of each stage that the report is about; notes: what a reader should know."""

    path: Path
    stages: dict[str, Manifest] = field(default_factory=dict)
    unfinished: dict[str, Unfinished] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def missing(self, stage: str) -> str:
        """Why there is nothing of a stage and what to do, as a sentence."""
        if stage in self.unfinished:
            return f"{stage} is unfinished. {self.unfinished[stage].words}"
        argument = " VIDEOS" if stage == "extract" else ""
        return f"There is no result of {stage} yet: run `rspnet {stage}{argument}`."


def find_stages(work_dir: Path) -> Found:
    """Look at a work directory. A damaged stage becomes a note. Raises InputError where there is no stage at all.

    The features shown are those that the evaluations read, the encoder and the frames those behind the features: from wherever they lie.
    """
    found = Found(work_dir)
    for stage in STAGES:
        folder = work_dir / stage
        if (folder / MANIFEST).exists():
            try:
                found.stages[stage] = read_manifest(folder, stage=stage, verify=False)
            except InputError as error:
                found.notes.append(f"{stage} is left out: {error}")
        unfinished = find_unfinished(folder, stage)
        if unfinished is not None:
            found.unfinished[stage] = unfinished
    if not found.stages and not found.unfinished:
        raise InputError(
            f"{work_dir} holds no stage that can be shown{': ' + found.notes[0].rstrip('.') if found.notes else ''}: "
            "run `rspnet extract VIDEOS` first, or name another work directory."
        )
    behind = {
        "export-features": _EVALUATIONS,
        "pretrain": ("export-features", "finetune"),
        "extract": ("export-features", "pretrain", "finetune"),
    }
    for stage, above in behind.items():
        _follow(found, stage, [found.stages[name] for name in above if name in found.stages])
    return found


def find_unfinished(folder: Path, stage: str) -> Unfinished | None:
    """What runs or was stopped in a stage's folder."""
    work = folder / UNFINISHED
    return Unfinished(work, _begun(folder, stage), is_held(folder)) if work.is_dir() else None


def _follow(found: Found, stage: str, results: list[Manifest]) -> None:
    """Take the stage that the results were made from; say so where that is another one than lies in the work directory."""
    results = [result for result in results if any(ref.stage == stage for ref in result.inputs)]
    here = found.stages.get(stage)
    digests = {result.stage: ref.digest for result in results for ref in result.inputs if ref.stage == stage}
    for result in results:
        if here is not None and here.digest == digests[result.stage]:
            break
        try:
            found.stages[stage] = result.input(stage, verify=False)
            if here is not None:
                found.notes.append(
                    f"{result.stage} was made from {found.stages[stage].folder}, not from {here.folder}: the former is shown."
                )
            break
        except InputError as error:
            found.notes.append(f"{result.stage} cannot be traced to its {stage}: {error}")
    shown = found.stages.get(stage)
    for name, digest in digests.items():
        if shown is not None and digest != shown.digest and not any(note.startswith(f"{name} ") for note in found.notes):
            found.notes.append(f"{name} was made from another {stage} than the other results: run `rspnet {name}` again with --force.")


def _begun(folder: Path, stage: str) -> Run:
    """What the unfinished run in a folder has noted when it began; nothing where it has only just begun, or just finished."""
    try:
        state = json.loads((folder / UNFINISHED / STATE).read_text(encoding="utf-8"))
        config, places, command = dict(state["config"]), dict(state.get("places", {})), str(state.get("command", stage))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Run(stage, stage, folder, {}, ())
    inputs = [(name, Path(os.path.normpath(folder / str(place)))) for name, place in places.items()]
    return Run(stage, "import-checkpoint" if "import" in config else command, folder, config, inputs)


def all_manifests(work_dir: Path) -> Iterator[Path]:
    """Every stage folder of a work directory that has a manifest, also those in folders of a second level (random-init).

    Shards are no results yet.
    """
    for pattern in (f"*/{MANIFEST}", f"*/*/{MANIFEST}"):
        for path in sorted(work_dir.glob(pattern)):
            if path.parent.name != UNFINISHED and SHARD_MARK not in path.parent.name:
                yield path.parent


def read_log(path: Path) -> list[dict[str, float | None]]:
    """The rows of a table of numbers, also of one that is being written: a line without its end does not count.

    Empty cells are None. Nothing where there is no such file. Raises InputError where it is no such table.
    """
    try:
        if path.stat().st_size > _MAX_LOG_BYTES:
            raise InputError(f"{path} is too large for a table of figures: name a work directory that rspnet wrote.")
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): restore it, or run its stage again.") from error
    try:
        header, *rows = list(csv.reader(io.StringIO(whole))) or [[]]
        return [{key: _figure(cell) for key, cell in zip(header, row, strict=True)} for row in rows]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a table of numbers ({error}): restore it, or run its stage again.") from error


def _figure(cell: str) -> float | None:
    return None if not cell else float(cell == "True") if cell in ("True", "False") else float(cell)
