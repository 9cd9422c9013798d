"""`rspnet pretrain`."""

from __future__ import annotations

from typing import Annotated

import typer

from rspnet_cli.cli.options import (
    DEFAULT_RECIPE,
    WORK_DIR,
    AsJson,
    BatchSize,
    CompileEncoders,
    ConfigFile,
    Device,
    Force,
    Frames,
    Out,
    Precision,
    PretrainRecipe,
    Quiet,
    Sets,
    Split,
    TrackerName,
    WorkDir,
    Workers,
    reporter,
    show_figures,
    show_json,
)
from rspnet_cli.encoder.registry import BACKBONES, check_clip_size


def pretrain(
    frames: Frames = None,
    recipe: PretrainRecipe = DEFAULT_RECIPE,
    config: ConfigFile = None,
    sets: Sets = None,
    split: Split = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the videos.", show_default="the recipe's")] = None,
    batch_size: BatchSize = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.", show_default="the recipe's")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help=f"Network before pooling: {', '.join(BACKBONES)}.", show_default="the recipe's")
    ] = None,
    device: Device = None,
    precision: Precision = None,
    compile_: CompileEncoders = None,
    workers: Workers = None,
    tracker: TrackerName = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights and draws.", show_default="0")] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Learn an encoder from the extracted videos, without labels.

    Settings: the recipe's, then --config, then --set, then the other flags. Under torchrun the same command trains on several GPUs.
    """
    from rspnet_cli.settings import pretrain_settings
    from rspnet_cli.training.trackers import resolved_tracker

    settings = pretrain_settings(
        recipe=recipe,
        config_file=config,
        sets=sets or (),
        flags={
            "data.split": split,
            "optim.epochs": epochs,
            "optim.batch_size": batch_size,
            "optim.lr": lr,
            "model.backbone": backbone,
            "run.device": device,
            "run.precision": precision,
            "run.compile": compile_,
            "run.workers": workers,
            "run.tracker": tracker,
            "run.seed": seed,
        },
    )
    # Before torch is imported, which takes seconds.
    check_clip_size(settings.model.backbone, frames=settings.clip.frames, side=settings.clip.size)
    resolved_tracker(settings.run.tracker)
    from rspnet_cli.stages.pretrain import pretrain as stage

    manifest = stage(settings, frames=frames or work_dir / "extract", out=out or work_dir / "pretrain", force=force, report=reporter(quiet))
    (show_json if as_json else show_figures)(manifest.results)
