"""`rspnet preview`."""

from __future__ import annotations

from typing import Annotated

import typer

from rspnet_cli.cli.options import (
    DEFAULT_RECIPE,
    WORK_DIR,
    AsJson,
    BatchSize,
    ConfigFile,
    Device,
    Frames,
    Out,
    PretrainRecipe,
    Quiet,
    Replace,
    Sets,
    Split,
    WorkDir,
    Workers,
    reporter,
    show_json,
)
from rspnet_cli.encoder.registry import check_clip_size


def preview(
    frames: Frames = None,
    recipe: PretrainRecipe = DEFAULT_RECIPE,
    config: ConfigFile = None,
    sets: Sets = None,
    split: Split = None,
    batch_size: BatchSize = None,
    device: Device = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the draws.", show_default="0")] = None,
    step: Annotated[int, typer.Option("--step", min=1, help="Step of the training to begin with, from 1 as in metrics.csv.")] = 1,
    count: Annotated[int, typer.Option("--count", min=1, max=64, help="Videos to show.")] = 8,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Replace = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the clips that pretrain would give the encoder, as a contact sheet and a film. Nothing is trained.

    The settings are those of pretrain and mean the same: the clips come through its loader, its draws for the seed and the step, and its
    augmentation. Of each video: the query, the key at the query's speed, and the other key, which is the same clip at the other speed.
    The film plays 8 frames a second, three times over.

    Writes step-N.png, step-N.mp4 and step-N.json into <work-dir>/preview. --json prints {"sheet", "film", "extract_digest", "config",
    "seed", "batch_size", "step", "videos": [{"id", "step", "clips": [{"name", "speed", "fast", "crop", "flip", "grayscale", "blur",
    "jitter"}]}]}.
    """
    from rspnet_cli.settings import pretrain_settings

    settings = pretrain_settings(
        recipe=recipe,
        config_file=config,
        sets=sets or (),
        flags={
            "data.split": split,
            "optim.batch_size": batch_size,
            "run.device": device,
            "run.workers": workers,
            "run.seed": seed,
        },
    )
    # Before torch is imported, which takes seconds.
    check_clip_size(settings.model.backbone, frames=settings.clip.frames, side=settings.clip.size)
    from rspnet_cli.stages.preview import preview as stage

    shown = stage(
        settings,
        frames=frames or work_dir / "extract",
        out=out or work_dir / "preview",
        step=step,
        count=count,
        force=force,
        report=reporter(quiet),
    )
    if as_json:
        show_json(shown)
        return
    for video in shown["videos"]:
        words = ", ".join(f"{clip['name']} at speed {clip['speed']}" for clip in video["clips"])
        typer.echo(f"{video['id']}: {words}")
    typer.echo(f"Contact sheet: {shown['sheet']}\nFilm: {shown['film']}")
