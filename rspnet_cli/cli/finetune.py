"""`rspnet finetune`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rspnet_cli.cli.options import (
    WORK_DIR,
    AsJson,
    BatchSize,
    ConfigFile,
    Device,
    Force,
    Out,
    Precision,
    Quiet,
    Sets,
    WorkDir,
    Workers,
    reporter,
    show_json,
)
from rspnet_cli.recipes import recipe_names

if TYPE_CHECKING:
    from rspnet_cli.manifest import Manifest


def finetune(
    pretrain: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PRETRAIN]", help="Manifest or folder of a pretraining, or of a fine-tuning.", show_default="<work-dir>/pretrain"
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames",
            help="Manifest or folder of the extraction to learn.",
            show_default="the one that the pretraining read; of an imported encoder <work-dir>/extract",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help=f"Packaged settings: {', '.join(recipe_names('finetune'))}.",
            show_default="ucf101-<backbone>; small-cpu-finetune for narrow encoders",
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Train and test on this split; all: on each in turn, and their mean.", show_default="1"),
    ] = None,
    select_on: Annotated[
        str | None,
        typer.Option(
            "--select-on",
            help="What chooses the best epoch: validation (a part of train), test (as published), or last (the last epoch).",
            show_default="validation",
        ),
    ] = None,
    linear: Annotated[
        bool | None, typer.Option("--linear", help="Train the last layer alone, on the frozen backbone.", show_default=False)
    ] = None,
    random_init: Annotated[
        bool | None,
        typer.Option(
            "--random-init",
            help="Start the same network from random weights: the baseline. Goes to <work-dir>/random-init/finetune.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Of the pretraining: last, best or epoch_N.", show_default="last")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", help="Passes over the train videos; 0: test a fine-tuned network as it is.", show_default="the recipe's"),
    ] = None,
    batch_size: BatchSize = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate; never scaled.", show_default="the recipe's")] = None,
    device: Device = None,
    precision: Precision = None,
    compile_: Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile the backbone.", show_default="no")] = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights, draws and parts.", show_default="0")] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on a pretrained encoder and test it, on videos with classes.

    The whole network is trained, or with --linear its last layer alone. Settings: the recipe's, then --config, then --set, then the
    other flags. Under torchrun the same command trains on several GPUs. Predictions per video, figures per class and the confusion
    matrix go to CSV files.
    """
    from rspnet_cli.manifest import ENCODER_STAGES, MANIFEST, read_manifest
    from rspnet_cli.settings import finetune_recipe_for, finetune_settings

    typed = {
        "data.split": split,
        "data.select_on": select_on,
        "model.linear": linear,
        "model.random_init": random_init,
        "model.checkpoint": checkpoint,
        "optim.epochs": epochs,
        "optim.batch_size": batch_size,
        "optim.lr": lr,
        "run.device": device,
        "run.precision": precision,
        "run.compile": compile_,
        "run.workers": workers,
        "run.seed": seed,
    }
    settings_with = partial(finetune_settings, config_file=config, sets=sets or (), flags=typed)
    settings, voice = settings_with(recipe=recipe), reporter(quiet)
    # A random start needs no pretraining, but takes its network and clips from one that is there.
    if pretrain is None and (not settings.model.random_init or os.path.exists(work_dir / "pretrain" / MANIFEST)):  # noqa: PTH110
        pretrain = work_dir / "pretrain"
    if recipe is None and pretrain is not None and settings.optim.epochs:
        chosen = finetune_recipe_for(read_manifest(pretrain, stage=ENCODER_STAGES, verify=False))
        if chosen is not None:
            settings = settings_with(recipe=chosen)
            voice.info(f"finetune: settings of the recipe {chosen}, which goes with the encoder (--recipe names another).")
        else:
            voice.info("finetune: no recipe goes with the encoder's backbone, so the default settings are taken (--recipe names one).")
    from rspnet_cli.evaluation.protocol import RANDOM_INIT, find_baseline
    from rspnet_cli.stages.finetune import finetune as stage  # torch waits until the arguments are known to be good

    if out is None:
        out = work_dir / RANDOM_INIT / "finetune" if settings.model.random_init else work_dir / "finetune"
    manifest = stage(settings, pretrain=pretrain, frames=frames, default_frames=work_dir / "extract", out=out, force=force, report=voice)
    if as_json:
        show_json(manifest.results)
    else:
        _show(manifest, find_baseline(work_dir, manifest, voice))


def _show(manifest: Manifest, baseline: Manifest | None) -> None:
    """The figures with their intervals and chance levels, those of every split, and those of a random start beside them."""
    from rspnet_cli.cli.tables import share_text, show_table

    results = manifest.results
    splits = results.get("splits", {})
    unit = "split" if results["protocol"] == "split" else "fold"
    where = f"mean of {len(splits)} {unit}{'s' if len(splits) > 1 else ''}" if splits else f"{unit} {results['split']}"
    title = f"Fine-tuning: {results['queries']:,} test videos, {results['classes']:,} classes ({where})"
    header = ["", "share (95 % interval)", "chance", *(f"{unit} {number}" for number in splits)]
    if baseline is not None:
        header.append("random start (95 % interval)")
    rows = []
    for key, name in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "per class")):
        row = [name, share_text(results[key], results["interval"][key])]
        row.append(share_text(results["chance"]["top1" if key == "mean_class" else key]))
        row += [share_text(split[key]) for split in splits.values()]
        if baseline is not None:
            row.append(share_text(baseline.results[key], baseline.results["interval"][key]))
        rows.append(row)
    show_table(title, header, rows, _notes(manifest))


def _notes(manifest: Manifest) -> list[str]:
    from rspnet_cli.cli.tables import seen_text

    results = manifest.results
    splits = results.get("splits", {})
    best = ", ".join(str(split["best_epoch"]) for split in splits.values()) or results["best_epoch"]
    which = f"Epoch{'s' if splits else ''} {best} of {results['epochs']}"
    where = manifest.folder / ("split-N" if splits else "")
    chosen = {
        "validation": f"chosen on {results['selection_videos']:,} videos held out of train",
        "test": "chosen on the test videos themselves, as published: the figures flatter",
        "last": "the last one, not chosen",
        None: "",
    }[results["selected_on"]]
    notes = [
        f"{which}: {chosen}." if results["epochs"] else "Tested as it was, without training.",
        f"Tested with {results['clips']} clips per video, logits averaged.",
        seen_text(results["queries_seen"], "test videos"),
        f"Always guessing the largest class gives {results['chance']['majority']:.3f}.",
        f"Predictions, per-class figures and confusion matrices: {where}",
    ]
    if results["classes"] <= 5:
        notes.insert(0, "With five classes or fewer, top-5 says nothing.")
    return notes
