"""`rspnet reproduce`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, WorkDir, show_json

if TYPE_CHECKING:
    from rspnet_cli.stages.reproduce import Reproduction


def reproduce(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A published result (ucf101-r3d18, ucf101-retrieval-r3d18, ...) or a recipe.")
    ],
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MANIFEST]", help="Manifest or folder of your result.", show_default="the nearest one in the work directory"
        ),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    as_json: AsJson = False,
) -> None:
    """Show a published result beside yours, every setting in which they differ, and the commands for what is not there yet.

    Nothing is run. Figures count as comparable only when no setting of the whole lineage differs. --json prints {"name", "title",
    "published" (shares), "source", "note", "pretraining", "own": {"manifest", "stage", "figures", "interval"}, "differences": [{"stage",
    "of", "key", "own", "published", "note", "is_data"}], "open": [{"stage", "of", "key", "own", "note"}], "others", "missing": [{"stage",
    "of", "command"}], "verdict"}.
    """
    from rspnet_cli.stages.reproduce import reproduce as stage

    found = stage(name, work_dir=work_dir, manifest=manifest)
    if as_json:
        show_json(found.to_json())
    else:
        _show(found)


def _show(found: Reproduction) -> None:
    from rspnet_cli.cli.tables import show_table

    document = found.to_json()
    figures = [*(document["published"] or found.own_figures or {})]
    rows = [_figure_row(name, found) for name in figures]
    header = ["", "published", "yours (95 % interval)", "points"] if rows else []
    show_table(f"{found.target.name}: {found.target.title}", header, rows, _sources(document))
    _section(
        "Settings that differ",
        ["stage", "of", "what", "yours", "published"],
        [[item["stage"], item["of"], item["key"], _text(item["own"]), _text(item["published"])] for item in document["differences"]],
        dict.fromkeys(f"{item['key']}: {item['note']}." for item in document["differences"] if item["note"]),
    )
    _section(
        "Not published, or contradictory",
        ["stage", "of", "what", "yours", "known"],
        [[item["stage"], item["of"], item["key"], _text(item["own"]), item["note"]] for item in document["open"]],
        {},
    )
    if document["missing"]:
        typer.echo("\nNot there yet with the published settings; these commands make it:")
        for item in document["missing"]:
            typer.echo(f"  {item['command']}")
    typer.echo(f"\n{_verdict(found)}")


def _section(title: str, header: list[str], rows: list[list[str]], notes: dict[str, None]) -> None:
    from rspnet_cli.cli.tables import show_table

    if rows:
        typer.echo("")
        show_table(f"{title} ({len(rows)})", header, rows, list(notes), figures=False)


def _figure_row(name: str, found: Reproduction) -> list[str]:
    label = f"recall@{name}" if name.isdigit() else {"top1": "top-1"}.get(name, name)
    published = (found.published_figures or {}).get(name)
    own, interval = (found.own_figures or {}).get(name), (found.intervals or {}).get(name)
    text = "-" if own is None else f"{_figure(name, own)}" + (f" ({100 * interval[0]:.1f} - {100 * interval[1]:.1f})" if interval else "")
    points = "-" if own is None or published is None else f"{100 * (own - published):+.1f}"
    return [label, "-" if published is None else f"{100 * published:.4g}", text, points]


def _figure(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "loss" else f"{100 * value:.1f}"


def _sources(document: dict[str, Any]) -> list[str]:
    notes = [f"Percent. Published: {document['source']}." if document["source"] else "No figure is published for it."]
    notes += [f"Note: {document['note']}."] if document["note"] else []
    pretraining = document["pretraining"]
    if pretraining:
        cost = f"{pretraining['hours']:g} h on {pretraining['gpus']} V100" if pretraining["hours"] else "not published"
        notes.append(
            f"Cost of the pretraining {pretraining['recipe']}: {cost}. In its place: rspnet import-checkpoint {pretraining['checkpoint']}"
        )
    if document["own"]:
        notes.append(f"Yours: {document['own']['manifest']}")
    notes += [f"Further, with {item['differences']} differences: {item['manifest']}" for item in document["others"]]
    return notes


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _verdict(found: Reproduction) -> str:
    """What may be said of the two figures."""
    differing, is_open = len(found.comparison.differences), len(found.comparison.open)
    points = f" ({is_open} cannot be compared, see above)" if is_open else ""
    same = f"No known setting differs{points}"
    return {
        "missing": "There is no figure of yours to compare.",
        "settings differ": f"Not comparable: {differing} setting{'s differ' if differing > 1 else ' differs'}, so this repeats another "
        "experiment than the published one, whatever the figures.",
        "no published figure": f"{same}; there is no published figure to compare with.",
        "agrees": f"{same}, and the published figures lie within your 95 % intervals.",
        "below": f"{same}, and yours is below the published figures by more than your 95 % intervals.",
        "above": f"{same}, and yours is above the published figures by more than your 95 % intervals.",
    }[found.verdict]
