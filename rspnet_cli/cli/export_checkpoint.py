"""`rspnet export-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Quiet, WorkDir, reporter, show_figures, show_json


def export_checkpoint(
    pretrain: Annotated[
        Path | None, typer.Argument(metavar="[PRETRAIN]", help="Manifest or folder of a pretraining.", show_default="<work-dir>/pretrain")
    ] = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="last, best or epoch_N.")] = "last",
    work_dir: WorkDir = WORK_DIR,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write.", show_default="<work-dir>/pretrain.pth.tar", rich_help_panel="Where"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.", rich_help_panel="Where")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a pretraining as a checkpoint of RSPNet's released code, which can fine-tune from it (--mc) or continue it.

    --json prints {"file", "bytes", "sha256", "arch", "epoch", "tensors": how many, "optimizer": whether its state is there}.
    """
    from rspnet_cli.stages.export_checkpoint import export_checkpoint as stage

    target = out or work_dir / "pretrain.pth.tar"
    results = stage(pretrain or work_dir / "pretrain", out=target, checkpoint=checkpoint, force=force, report=reporter(quiet))
    (show_json if as_json else show_figures)(results)
