"""`rspnet export-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Quiet, WorkDir, reporter, show_figures, show_json


def export_checkpoint(
    pretrain: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PRETRAIN]", help="Manifest or folder of a pretraining, or of a fine-tuning.", show_default="<work-dir>/pretrain"
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="last, best or epoch_N.", show_default="last; of a fine-tuning best")
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write.", show_default="<work-dir>/<stage>.pth.tar", rich_help_panel="Where"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.", rich_help_panel="Where")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a pretraining as a checkpoint of RSPNet's released code, which can fine-tune from it (--mc) or continue it; or a fine-tuning.

    --json prints {"file", "bytes", "sha256", "arch", "epoch", "tensors": how many, "optimizer": whether its state is there}.
    """
    from rspnet_cli.manifest import ENCODER_STAGES, read_manifest

    trained = pretrain or work_dir / "pretrain"
    target = out or work_dir / f"{read_manifest(trained, stage=ENCODER_STAGES, verify=False).stage}.pth.tar"
    from rspnet_cli.stages.export_checkpoint import export_checkpoint as stage  # torch waits until the arguments are known to be good

    results = stage(trained, out=target, checkpoint=checkpoint, force=force, report=reporter(quiet))
    (show_json if as_json else show_figures)(results)
