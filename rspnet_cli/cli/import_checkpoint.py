"""`rspnet import-checkpoint`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

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
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="LIST",
            help="What the classes of a fine-tuned network are called: a text file (a name a line, or classInd.txt), or an extraction.",
            show_default="their numbers",
        ),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take over a published checkpoint: the result is a pretraining (or a fine-tuning), for export-features and all that follows.

    FILE is a .pth.tar of RSPNet's released code, or a state dict of one of its backbones (3D-ResNets, PySlowFast and others with the same
    layers). Nothing in it is run: anything but dense tensors, numbers and text is refused. Goes to <work-dir>/pretrain, or for a fine-tuned
    network to <work-dir>/finetune.
    """
    settings = _settings(sets or [])
    from rspnet_cli.stages.import_checkpoint import import_checkpoint as stage

    manifest = stage(file, settings=settings, classes=classes, out=out, work_dir=work_dir, force=force, report=reporter(quiet))
    (show_json if as_json else show_figures)(manifest.results)


def _settings(sets: list[str]) -> dict[str, Any]:
    """What was typed, checked before the file is opened, which tells of which training they are. Raises InputError."""
    from rspnet_cli.config import FinetuneConfig, PretrainConfig
    from rspnet_cli.errors import InputError
    from rspnet_cli.settings import checked_settings, typed_settings

    try:
        return checked_settings(PretrainConfig, typed_settings(PretrainConfig, sets))
    except InputError:
        with suppress(InputError):
            return checked_settings(FinetuneConfig, typed_settings(FinetuneConfig, sets))
        raise
