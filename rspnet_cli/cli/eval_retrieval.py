"""`rspnet eval-retrieval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Force, Out, Quiet, WorkDir, reporter, show_json

if TYPE_CHECKING:
    from rspnet_cli.manifest import Manifest


def eval_retrieval(
    features: Annotated[
        Path | None,
        typer.Argument(metavar="[FEATURES]", help="Manifest or folder of an export.", show_default="<work-dir>/export-features"),
    ] = None,
    topk: Annotated[
        list[int] | None,
        typer.Option("--topk", min=1, metavar="K ...", help="Ranks to report recall at: --topk 1 5 10.", show_default="1 5 10 20 50"),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Test videos of this split query its train videos.", show_default="1")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="split, or leave-one-out: every video queries all others but those of its own group.",
            show_default="split where there are splits",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda or mps: the result is the same.", show_default="auto")
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Query the gallery with every test video and report recall@k.

    A query is right at k if any of its k nearest gallery videos by cosine has its class. neighbours.csv lists them for every query.
    """
    from rspnet_cli.config import RetrievalConfig
    from rspnet_cli.settings import flat_settings

    flags = {"topk": tuple(topk) if topk else None, "split": split, "protocol": protocol, "device": device}
    settings = flat_settings(RetrievalConfig, flags=flags)
    from rspnet_cli.evaluation.protocol import baseline_hint, default_out, find_baseline
    from rspnet_cli.stages.eval_retrieval import eval_retrieval as stage

    features, voice = features or work_dir / "export-features", reporter(quiet)
    manifest = stage(settings, features=features, out=out or default_out(work_dir, "eval-retrieval", features), force=force, report=voice)
    if as_json:
        show_json(manifest.results)
    else:
        _show(manifest, find_baseline(work_dir, manifest, voice))
        if hint := baseline_hint(work_dir, manifest):
            voice.info(hint)


def _show(manifest: Manifest, baseline: Manifest | None) -> None:
    """Recall at every k with its interval and chance level, and the untrained encoder's beside it."""
    from rspnet_cli.cli.tables import seen_text, share_text, show_table

    results = manifest.results
    where = f"split {manifest.config['split']}" if results["protocol"] == "split" else "leave-one-out, own group left out"
    title = f"Retrieval: {results['queries']:,} queries, {results['gallery']:,} gallery videos ({where})"
    notes = [
        *([_setup_words(results["setup"])] if "setup" in results else []),
        seen_text(results["queries_seen"], "queries"),
        f"Neighbours: {manifest.folder / 'neighbours.csv'}",
    ]
    if results["recall"] is None:
        show_table(title, [], [], [*notes, "No labels, so no recall."])
        return
    header, rows = ["k", "recall@k (95 % interval)", "chance"], []
    theirs = baseline.results if baseline is not None and baseline.results["recall"] else None
    if theirs:
        header.append("untrained (95 % interval)")
    for k, recall in results["recall"].items():
        row = [k, share_text(recall, results["interval"][k]), share_text(results["chance"][k])]
        if theirs:
            row.append(share_text(theirs["recall"].get(k), theirs["interval"].get(k)))
        rows.append(row)
    show_table(title, header, rows, notes)


def _setup_words(setup: dict[str, Any]) -> str:
    clips, pool = (setup[name] or "unknown" for name in ("clips", "pool"))
    gallery = {
        "centre": "gallery of centre squares, complete",
        "reference": "gallery randomly cropped and flipped, its last batch left out (as released)",
    }.get(setup["gallery"], "gallery unknown")
    return f"Clips: {clips}, pooling: {pool}, {setup['distance']}; {gallery}."
