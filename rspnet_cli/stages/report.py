"""report: one HTML file that shows everything a work directory holds: how it came about, curves, figures, a map, and clips to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.protocol import find_baseline
from rspnet_cli.files import write_atomic
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.report import classification, confusion, feature_map, finetuning, lineage, neighbours, retrieval, training
from rspnet_cli.report.clips import Clips
from rspnet_cli.report.figure import LeftOut, Section
from rspnet_cli.report.found import Found, find_stages
from rspnet_cli.report.html import Html, join, share
from rspnet_cli.report.page import check_target, page, tiles
from rspnet_cli.videos.frames import read_frames

REPORT = "report.html"
MAX_BYTES = 15_000_000


@dataclass(frozen=True)
class Written:
    """The report. left_out: title of a part -> why it is not there."""

    path: Path
    bytes: int
    sections: list[str]
    left_out: dict[str, str]
    clips: int

    def results(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "path": str(self.path)}


def report(
    work_dir: Path,
    *,
    out: Path | None = None,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    force: bool = False,
    report: Reporter | None = None,
) -> Written:
    """Write `report.html` (or `out`) about whatever is finished or under way in a work directory; it can be made at any time.

    seed: of the choice of classes, queries and samples. max_bytes: clips are made while they fit. An earlier report is replaced, another
    file only with force. Equal results give equal pages. Raises InputError where there is nothing to show.
    """
    voice = report or Reporter.silent()
    target = out or work_dir / REPORT
    found = find_stages(work_dir)
    check_target(target, force=force)
    parts = _parts(found, seed, voice)
    sections = [part for part in parts if isinstance(part, Section)]
    left_out = [part for part in parts if isinstance(part, LeftOut)]
    clips = _clips(found)
    head = join((_summary(found), lineage.notes(found)))
    title = lineage.title_of(found)
    bare = page(title, head, sections, left_out, clip_rules=(), command="report")
    clips.make([video_id for section in sections for video_id in section.clips], max_bytes - len(bare.encode()), voice)
    for fault in clips.faults[:3]:
        voice.warn(f"A clip is left out: {fault}")
    whole = page(title, head, sections, left_out, clip_rules=clips.rules(), command="report")
    write_atomic(target, whole)
    size = len(whole.encode())
    if size > max_bytes:
        voice.warn(f"The report has {size:,} bytes without any clip, more than the {max_bytes:,} it should have at most.")
    return Written(target, size, [part.key for part in sections], {part.title: part.reason for part in left_out}, len(clips.styles))


def _parts(found: Found, seed: int, voice: Reporter) -> list[Section | LeftOut]:
    """Every section, results first; one whose files are damaged is left out with the reason."""
    frame: pd.DataFrame | None = None
    damaged: str | None = None
    try:
        frame = retrieval.read_neighbours(found)
    except InputError as error:
        damaged = str(error)
    beside = {stage: _baseline(found, stage, voice) for stage in ("eval-retrieval", "eval-classification", "finetune")}
    makers: list[tuple[str, str, Callable[[], Section | LeftOut]]] = [
        (retrieval.KEY, retrieval.TITLE, lambda: retrieval.retrieval(found, beside["eval-retrieval"])),
        (classification.KEY, classification.TITLE, lambda: classification.classification(found, beside["eval-classification"])),
        (retrieval.PER_CLASS_KEY, retrieval.PER_CLASS_TITLE, lambda: retrieval.per_class(found, frame)),
        (neighbours.KEY, neighbours.TITLE, lambda: neighbours.neighbours(found, frame, seed=seed)),
        (confusion.KEY, confusion.TITLE, lambda: confusion.confusion(found)),
        (feature_map.KEY, feature_map.TITLE, lambda: feature_map.feature_map(found, frame, seed=seed)),
        (finetuning.KEY, finetuning.TITLE, lambda: finetuning.finetuning(found, beside["finetune"])),
        (training.KEY, training.TITLE, lambda: training.training(found)),
        (lineage.KEY, lineage.TITLE, lambda: lineage.lineage(found)),
    ]
    parts: list[Section | LeftOut] = []
    for key, title, make in makers:
        try:
            parts.append(LeftOut(key, title, damaged) if damaged and key == neighbours.KEY else make())
        except InputError as error:
            parts.append(LeftOut(key, title, str(error)))
    return parts


def _baseline(found: Found, stage: str, voice: Reporter) -> Manifest | None:
    return find_baseline(found.path, found.stages[stage], voice) if stage in found.stages else None


def _clips(found: Found) -> Clips:
    if "extract" not in found.stages:
        return Clips(None)
    try:
        return Clips(read_frames(found.stages["extract"]))
    except InputError as error:
        return Clips(None, faults=[str(error)])


def _summary(found: Found) -> Html | None:
    """The few figures that one looks for first."""
    figures: list[tuple[str, str, str]] = []
    for stage, results in ((stage, manifest.results) for stage, manifest in found.stages.items()):
        if stage == "extract":
            figures.append(("videos", f"{results['videos']:,}", f"{results['classes'] or 'no'} classes, {results['failed']} failed"))
        elif stage == "eval-retrieval" and results.get("recall"):
            k = next(iter(results["recall"]))
            figures.append((f"recall@{k}", share(results["recall"][k]), f"chance {share(results['chance'][k])}"))
        elif stage == "eval-classification":
            for probe, words in (("linear", "linear top-1"), ("knn", "kNN top-1")):
                if results.get(probe):
                    figures.append((words, share(results[probe]["top1"]), f"chance {share(results['chance']['top1'])}"))
        elif stage == "finetune" and results.get("top1") is not None:
            figures.append(("fine-tuned top-1", share(results["top1"]), f"chance {share(results['chance']['top1'])}"))
        elif stage == "pretrain" and results.get("rsp_accuracy") is not None:
            figures.append(("RSP accuracy", share(results["rsp_accuracy"]), f"chance 0.5; {results['epochs']} epochs"))
    return tiles(figures) if figures else None
