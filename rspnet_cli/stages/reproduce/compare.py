"""How a result came about against how the published one did: every setting that differs, through the whole lineage."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rspnet_cli.config.training import ADDED
from rspnet_cli.errors import InputError
from rspnet_cli.lineage import Node, flatten
from rspnet_cli.manifest import Manifest
from rspnet_cli.stages.reproduce.steps import BATCH_NORM, Step
from rspnet_cli.tables import VIDEOS


@dataclass(frozen=True)
class Difference:
    """A setting that is not as published. is_data: of how many videos there were, which no setting can change."""

    stage: str
    of: str
    """Which of several steps of a stage: a data set, a recipe or a result."""
    key: str
    own: Any
    published: Any
    note: str | None = None
    is_data: bool = False


@dataclass(frozen=True)
class OpenPoint:
    """A setting that can be neither right nor wrong: nobody published it, or sources contradict each other, or a file does not tell."""

    stage: str
    of: str
    key: str
    own: Any
    note: str


@dataclass(frozen=True)
class Comparison:
    """What was found, earliest step first."""

    differences: list[Difference]
    open: list[OpenPoint]

    @property
    def settings_agree(self) -> bool:
        """Whether nothing but the number of videos differs."""
        return all(item.is_data for item in self.differences)


def compare(step: Step, node: Node) -> Comparison:
    """Compare a result, and all it was made from, with the steps of a published one."""
    found = Comparison([], [])
    _compare(step, node, found)
    return found


def _compare(step: Step, node: Node, found: Comparison) -> None:
    if node.manifest is None:
        found.differences.append(Difference(step.stage, step.title, "manifest", node.fault, "one that can be read"))
        return
    for before in step.inputs:
        below = next((item for item in node.inputs if item.stage == before.stage), None)
        if below is not None:
            _compare(before, below, found)
        elif is_import(node):
            note = "the imported file does not tell what it was trained on"
            found.open.append(OpenPoint(before.stage, before.title, "videos", None, note))
        else:
            found.differences.append(Difference(step.stage, step.title, f"input {before.stage}", None, before.title))
    own = _values(node.manifest)
    is_test = own.get("optim.epochs") == 0  # of a fine-tuned network: the settings of its training have no part in it
    for key, published in step.expected.items():
        if is_test and key != "optim.epochs" and (key.startswith(("optim.", "augment.")) or key in ("data.select_on", BATCH_NORM)):
            continue
        _compare_value(step, node, key, own.get(key), published, found)
    found.open.extend(OpenPoint(step.stage, step.title, key, own.get(key), note) for key, note in step.open.items())
    if step.counts:
        found.differences.extend(_counts(step, node.manifest))


def _compare_value(step: Step, node: Node, key: str, own: Any, published: Any, found: Comparison) -> None:
    manifest = node.manifest
    assert manifest is not None
    if is_import(node) and own is None and published is not None:
        found.open.append(OpenPoint(step.stage, step.title, key, None, f"the imported file does not tell; published: {published}"))
        return
    if _same(own, published) or _as_good(node, key, own, published):
        return
    note = step.note if key == "videos" else _lr_note(step, manifest, own, published) if key == "optim.lr" else None
    shown = " or ".join(published) if isinstance(published, tuple) else published
    found.differences.append(Difference(step.stage, step.title, key, own, shown, note, is_data=key == "videos"))


def _same(own: Any, published: Any) -> bool:
    if isinstance(published, tuple):
        return own in published
    if isinstance(own, list) and isinstance(published, list):
        return len(own) == len(published) and all(map(_same, own, published))
    if isinstance(own, bool) or isinstance(published, bool) or not isinstance(own, int | float) or not isinstance(published, int | float):
        return bool(own == published)
    return math.isclose(own, published, rel_tol=1e-9)


def _as_good(node: Node, key: str, own: Any, published: Any) -> bool:
    """Values that are written otherwise and mean the same."""
    if key == "short_side":  # the sources' own size was as good to the released code
        return isinstance(own, int) and own >= published
    if key.endswith("frame_rate"):  # none and 0 both leave the videos' own
        return not own and not published
    if key == "optim.last_videos":  # one process has nobody to get as many videos as
        return node.manifest is not None and node.manifest.config["run"].get("processes") == 1
    if key in ("gallery_batch", "split") and node.stage == "export-features":
        return own is None  # without such a gallery, which is a difference by itself
    # The released files are those of the best epoch, and an imported one holds no other.
    return key.endswith("checkpoint") and published == "best" and own == "last" and any(map(is_import, node.inputs))


def is_import(node: Node) -> bool:
    """Whether a pretraining was imported: its manifest then says only what the file told."""
    return node.manifest is not None and "import" in node.manifest.config


def _lr_note(step: Step, manifest: Manifest, own: Any, published: float) -> str | None:
    batch, published_batch = _values(manifest).get("optim.batch_size"), step.expected.get("optim.batch_size")
    if own and batch and published_batch and _same(own, published * batch / published_batch):
        return "the published rate, scaled to the batch"
    return None


def _values(manifest: Manifest) -> dict[str, Any]:
    """The settings of a result, flat, and what follows from them."""
    values = ({} if manifest.is_imported else ADDED) | flatten(manifest.config)
    optim, run, moco = (manifest.config.get(name, {}) for name in ("optim", "run", "moco"))
    passes = max(moco.get("bn_splits") or 1, optim.get("accumulate") or 1)
    batch, parts = optim.get("batch_size"), (run.get("processes") or 0) * passes
    return values | {
        BATCH_NORM: batch // parts if batch and parts else None,
        "store": f"{manifest.config.get('codec')}, short side {manifest.config.get('short_side')}",
        "classes": manifest.results.get("classes"),
        "videos": manifest.results.get("videos"),
    }


def _counts(step: Step, manifest: Manifest) -> list[Difference]:
    """Videos of each split and part that are not as many as listed, and those that could not be read."""
    own = _parts(manifest.folder / VIDEOS.file, manifest.digest)
    found = [
        Difference(step.stage, step.title, f"{part} videos of split {split}", own[split, part], count, step.note, is_data=True)
        for (split, part), count in step.counts.items()
        if own[split, part] != count
    ]
    if manifest.results.get("failed"):
        found.append(Difference(step.stage, step.title, "videos that failed", manifest.results["failed"], 0, is_data=True))
    return found


@cache
def _parts(path: Path, digest: str) -> Counter[tuple[str, str]]:
    """(split, part) -> videos of the extraction `digest`. Of Kinetics a quarter of a million rows: read once, and never held."""
    parts: Counter[tuple[str, str]] = Counter()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            splits = [(column, name.removeprefix("split_")) for column, name in enumerate(next(rows, [])) if name.startswith("split_")]
            for row in rows:
                parts.update((split, row[column]) for column, split in splits)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): restore it, or run its stage again with --force.") from error
    return parts
