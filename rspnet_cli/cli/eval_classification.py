"""`rspnet eval-classification`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Force, Out, Quiet, WorkDir, reporter, show_json

if TYPE_CHECKING:
    from rspnet_cli.manifest import Manifest


def eval_classification(
    features: Annotated[
        Path | None,
        typer.Argument(metavar="[FEATURES]", help="Manifest or folder of an export.", show_default="<work-dir>/export-features"),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Train and test videos of this split.", show_default="1")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="split, or folds: 5-fold cross-validation that keeps groups together.",
            show_default="split where there are splits",
        ),
    ] = None,
    probe: Annotated[
        str | None, typer.Option("--probe", help="linear, knn or both: the classifier on frozen features.", show_default="both")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of folds and validation parts.", show_default="0")] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Classify test videos by their features: a linear probe and nearest neighbours, both fitted to train.

    Their settings are chosen on a part of train. Per-video predictions, per-class figures and confusion matrices go to CSV files.
    """
    from rspnet_cli.config import ClassificationConfig
    from rspnet_cli.settings import flat_settings

    settings = flat_settings(ClassificationConfig, flags={"split": split, "protocol": protocol, "probe": probe, "seed": seed})
    from rspnet_cli.evaluation.protocol import baseline_hint, default_out, find_baseline
    from rspnet_cli.stages.eval_classification import eval_classification as stage

    features, voice = features or work_dir / "export-features", reporter(quiet)
    manifest = stage(
        settings, features=features, out=out or default_out(work_dir, "eval-classification", features), force=force, report=voice
    )
    if as_json:
        show_json(manifest.results)
    else:
        _show(manifest, find_baseline(work_dir, manifest, voice))
        if hint := baseline_hint(work_dir, manifest):
            voice.info(hint)


def _show(manifest: Manifest, baseline: Manifest | None) -> None:
    """Every probe's figures with their intervals and chance levels, and the untrained encoder's beside them."""
    from rspnet_cli.cli.tables import seen_text, share_text, show_table

    results = manifest.results
    where = f"split {manifest.config['split']}" if results["protocol"] == "split" else "5-fold cross-validation, groups kept together"
    title = f"Classification: {results['queries']:,} test videos, {results['classes']:,} classes ({where})"
    header, rows = ["", "share (95 % interval)", "chance"], []
    if baseline is not None:
        header.append("untrained (95 % interval)")
    for probe in ("linear", "knn"):
        ours, theirs = results[probe], baseline.results[probe] if baseline is not None else None
        for key, name in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "per class")) if ours else ():
            chance = results["chance"]["top1" if key == "mean_class" else key]
            row = [f"{probe} {name}", share_text(ours[key], ours["interval"][key]), share_text(chance)]
            if baseline is not None:
                row.append(share_text(theirs[key], theirs["interval"][key]) if theirs else "-")
            rows.append(row)
    notes = [
        seen_text(results["queries_seen"], "test videos"),
        f"Always guessing the largest class gives {share_text(results['chance']['majority'])}.",
        f"Predictions, per-class figures and confusion matrices: {manifest.folder}",
    ]
    if results["classes"] <= 5:
        notes.insert(0, "With five classes or fewer, top-5 says nothing.")
    show_table(title, header, rows, notes)
