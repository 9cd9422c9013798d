"""`rspnet import-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Force, Out, Quiet, WorkDir, reporter, show_figures, show_json


def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint that torch.save wrote.", show_default=False)],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="What the file does not say of its training, such as clip.frames=32; repeatable.",
            show_default=False,
        ),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take over a published checkpoint: the result is a pretraining, for export-features and all that follows.

    FILE is a .pth.tar of RSPNet's released code, or a state dict of one of its backbones (3D-ResNets, PySlowFast and others with the same
    layers). Nothing in it is run: anything but dense tensors, numbers and text is refused.
    """
    from rspnet_cli.config import PretrainConfig
    from rspnet_cli.settings import checked_settings, typed_settings

    settings = checked_settings(PretrainConfig, typed_settings(PretrainConfig, sets or ()))
    from rspnet_cli.stages.import_checkpoint import import_checkpoint as stage

    manifest = stage(file, settings=settings, out=out or work_dir / "pretrain", force=force, report=reporter(quiet))
    (show_json if as_json else show_figures)(manifest.results)
