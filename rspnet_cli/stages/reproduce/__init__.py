"""reproduce: a published figure beside one's own, every setting that differs between them, and the commands for what is not there yet."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.lineage import Node, nodes_of, read_lineage
from rspnet_cli.manifest import MANIFEST
from rspnet_cli.published import published
from rspnet_cli.stages.reproduce.compare import Comparison, compare, is_import
from rspnet_cli.stages.reproduce.steps import Step, Target, find_target

__all__ = ["Reproduction", "reproduce"]


@dataclass(frozen=True)
class Reproduction:
    """What there is of a published result, and how it was made."""

    target: Target
    own: Node | None
    """The result, or the part of the way to it, that is nearest to the published one."""
    is_last: bool
    """Whether `own` has the figure."""
    comparison: Comparison
    others: list[tuple[Path, int]]
    """Further results of the same kind in the work directory, and how many settings of each differ."""
    missing: list[tuple[Step, str]]
    """What is not there with the published settings, in the order in which to run it: step and command."""

    @property
    def published_figures(self) -> dict[str, float] | None:
        """Shares from 0 to 1; None where none is published."""
        return None if self.target.result is None else self.target.result.shares()

    @property
    def own_figures(self) -> dict[str, float] | None:
        """The same of the own result, as far as it has them; None where there is none."""
        measured = self._measured()
        return None if measured is None else {name: measured[0][name] for name in self._names(measured[0])}

    @property
    def intervals(self) -> dict[str, list[float]] | None:
        """Their 95 % intervals."""
        measured = self._measured()
        return None if measured is None else {name: measured[1][name] for name in self._names(measured[0]) if name in measured[1]}

    @property
    def verdict(self) -> str:
        """missing, settings differ, no published figure, or with equal settings: agrees (within the own interval), below, above."""
        own, expected, intervals = self.own_figures, self.published_figures, self.intervals
        if own is None:
            return "missing"
        if self.comparison.differences:
            return "settings differ"
        if not expected or not intervals:
            return "no published figure"
        # All of a retrieval's figures, not the kindest of them.
        if any(name not in own or (own[name] < share and not _within(share, intervals[name])) for name, share in expected.items()):
            return "below"
        return "agrees" if all(_within(share, intervals[name]) for name, share in expected.items()) else "above"

    def to_json(self) -> dict[str, Any]:
        """JSON values: what `rspnet reproduce --json` prints."""
        target, known = self.target, published()
        result, pretraining = target.result, known.pretrainings.get(target.pretraining or "")
        own: dict[str, Any] | None = None
        if self.own is not None:
            own = {"manifest": str(self.own.path), "stage": self.own.stage, "figures": self.own_figures, "interval": self.intervals}
        return {
            "name": target.name,
            "title": target.title,
            "published": self.published_figures,
            "source": None if result is None else known.sources[result.source],
            "note": None if result is None else result.note,
            "pretraining": None if pretraining is None else {"recipe": target.pretraining, **pretraining.model_dump(mode="json")},
            "own": own,
            "differences": [asdict(item) for item in self.comparison.differences],
            "open": [asdict(item) for item in self.comparison.open],
            "others": [{"manifest": str(path), "differences": count} for path, count in self.others],
            "missing": [{"stage": step.stage, "of": step.title, "command": command} for step, command in self.missing],
            "verdict": self.verdict,
        }

    def _names(self, measured: dict[str, Any]) -> list[str]:
        expected = self.published_figures
        return [name for name in (expected if expected else measured) if name in measured]

    def _measured(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(figures, intervals) of the own result."""
        if not self.is_last or self.own is None or self.own.manifest is None:
            return None
        results = self.own.manifest.results
        if self.own.stage == "eval-retrieval":
            return results.get("recall") or {}, results.get("interval") or {}
        names = ("top1", "top5", "mean_class") if self.own.stage == "finetune" else ("loss", "avid_top1", "rsp_accuracy")
        return {name: results[name] for name in names if results.get(name) is not None}, results.get("interval") or {}


def reproduce(name: str, *, work_dir: Path, manifest: Path | None = None) -> Reproduction:
    """Compare a published result, or a recipe, with what a work directory holds of it.

    name: of a published result or a recipe. manifest: folder or manifest to compare, instead of the nearest in the work directory; it may
    also be of a step on the way. Nothing is written. Raises InputError for an unknown name, or a manifest that cannot be read or compared.
    """
    target = find_target(name)
    lineages = _lineages(work_dir)
    others: list[tuple[Path, int]] = []
    step: Step | None = None
    own: Node | None = None
    if manifest is not None:
        own = read_lineage(manifest)
        step = _nearest_step(target, own)
        lineages = [own, *lineages]
    else:
        results = sorted((node for node in lineages if _is_of(target.last, node)), key=lambda node: _distance(target.last, node))
        if results:
            step, own = target.last, results[0]
            others = [(node.path, _distance(target.last, node)) for node in results[1:]]
    comparison = Comparison([], []) if own is None or step is None else compare(step, own)
    is_last = step is target.last
    return Reproduction(target, own, is_last, comparison, others, _missing(target.last, lineages, work_dir))


def _lineages(work_dir: Path) -> list[Node]:
    """The lineage of every stage that has finished directly below the work directory; of broken ones nothing."""
    found = []
    for folder in sorted(work_dir.iterdir()) if os.path.isdir(work_dir) else ():  # noqa: PTH112 (a name may be too long)
        if (folder / MANIFEST).is_file():
            try:
                found.append(read_lineage(folder))
            except InputError:
                continue
    return found


def _steps(last: Step) -> list[Step]:
    """A step and all before it, in the order in which they run."""
    return [*(step for before in last.inputs for step in _steps(before)), last]


def _is_of(step: Step, node: Node) -> bool:
    """Whether a result is of a step's stage. An imported fine-tuning was not tested here: it has no figures to compare."""
    return node.stage == step.stage and not (step.stage == "finetune" and is_import(node))


def _distance(step: Step, node: Node) -> int:
    return len(compare(step, node).differences)


def _nearest_step(target: Target, own: Node) -> Step:
    steps = [step for step in _steps(target.last) if step.stage == own.stage]
    if not steps:
        stages = ", ".join(dict.fromkeys(step.stage for step in _steps(target.last)))
        raise InputError(f"{own.path} is of stage '{own.stage}', which is no part of {target.title}: name a result of {stages}.")
    return min(reversed(steps), key=lambda step: _distance(step, own))


def _missing(last: Step, lineages: list[Node], work_dir: Path) -> list[tuple[Step, str]]:
    """Steps without a result of the published settings (how many videos there were aside) that are needed, with the commands that make
    them, in the order in which they run."""
    there = list({node.path: node for lineage in lineages for node in nodes_of(lineage)}.values())
    needed: list[tuple[Step, str]] = []

    def place_of(step: Step) -> Path:
        fitting = next((node for node in there if _is_of(step, node) and compare(step, node).settings_agree), None)
        if fitting is not None:
            imported.update({step.stage} if is_import(fitting) else ())
            return _shown(fitting.path.parent)
        words = [word if isinstance(word, str) else str(place_of(word)) for word in step.words]
        if "pretrain" in imported and "--checkpoint" in words:  # the released files are of the best epoch, and hold no other
            words[words.index("--checkpoint") + 1] = "last"
        place = _shown(work_dir / step.folder)
        needed.append((step, shlex.join([*words, "--out", str(place)])))
        return place

    imported: set[str] = set()
    place_of(last)
    return needed


def _shown(path: Path) -> Path:
    """A path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def _within(share: float, interval: list[float]) -> bool:
    return interval[0] <= share <= interval[1]
