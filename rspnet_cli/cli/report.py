"""`rspnet report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Quiet, WorkDir, reporter, show_json
from rspnet_cli.errors import InputError


def report(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[WORK_DIR]", help="Folder that holds one folder per stage.", show_default="--work-dir")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of classes, queries and samples that are shown.")] = 0,
    max_mb: Annotated[float, typer.Option("--max-mb", min=0.1, help="Clips are shown while the file stays below so many MB.")] = 15.0,
    work_dir: WorkDir = WORK_DIR,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write.", show_default="<work-dir>/report.html", rich_help_panel="Where")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file even where it is no report of rspnet.", rich_help_panel="Where")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file that shows what a work directory holds: lineage, curves, figures, a map, and clips to look at.

    It opens from disk in any browser and loads nothing from elsewhere. It can be made at any time, also while pretrain runs: what is not
    there yet is left out, saying so. --json prints {"path", "bytes", "sections": [keys], "left_out": {title: reason}, "clips"}.
    """
    typed = context.get_parameter_source("work_dir")
    if folder is not None and typed is not None and typed.name == "COMMANDLINE":
        raise InputError(f"{folder} and --work-dir {work_dir} are both typed: leave one of the two out.")
    from rspnet_cli.stages.report import report as stage

    written = stage(folder or work_dir, out=out, seed=seed, max_bytes=int(max_mb * 1e6), force=force, report=reporter(quiet))
    if as_json:
        show_json(written.results())
        return
    typer.echo(f"Report: {written.path} ({written.bytes / 1e6:.1f} MB, {written.clips} clips)")
    for title, reason in written.left_out.items():
        typer.echo(f"Left out: {title}: {reason}")
