"""`rspnet export-features`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Force, Out, Quiet, ShardOf, WorkDir, reporter, show_figures, show_json


def export_features(
    pretrain: Annotated[
        Path | None, typer.Argument(metavar="[PRETRAIN]", help="Manifest or folder of a pretraining.", show_default="<work-dir>/pretrain")
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames",
            help="Manifest or folder of the extraction to describe.",
            show_default="the one that the pretraining read; of an imported encoder <work-dir>/extract",
        ),
    ] = None,
    clips: Annotated[int | None, typer.Option("--clips", help="Clips per video, evenly spaced.", show_default="10")] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="avg (as released) or max, over the last feature map.", show_default="avg")
    ] = None,
    gallery_augment: Annotated[
        str | None,
        typer.Option(
            "--gallery-augment",
            help="none, or reference: train videos randomly cropped and flipped, the last batch left out, as the released code does it.",
            show_default="none",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Whose train videos --gallery-augment is for.", show_default="1")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of --gallery-augment's draws.", show_default="0")] = None,
    random_init: Annotated[
        bool | None,
        typer.Option(
            "--random-init",
            help="The untrained encoder, the baseline of every figure; its batch norm is estimated on train clips. "
            "Goes to <work-dir>/random-init/export-features.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", help="last, best or epoch_N.", show_default="last")] = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", metavar="npy,parquet", help="Write the features in these forms too.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.", show_default="auto")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.", show_default="fp32")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Clips per forward pass.", show_default="32")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Decoding processes; changes no result.", show_default="by the machine")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, under the other flags; repeatable.", show_default=False),
    ] = None,
    shard: ShardOf = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Describe every video by one vector: the mean over its clips of pooled last-layer features.

    Writes features.safetensors and videos.csv, which pandas and safetensors read without this program.
    """
    from rspnet_cli.config import ExportConfig
    from rspnet_cli.settings import flat_settings
    from rspnet_cli.shards import Shard

    part = None if shard is None else Shard.parse(shard)
    settings = flat_settings(
        ExportConfig,
        sets=sets or (),
        flags={
            "clips": clips,
            "pool": pool,
            "gallery_augment": gallery_augment,
            "split": split,
            "seed": seed,
            "random_init": random_init,
            "checkpoint": checkpoint,
            "also": tuple(also) if also else None,
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "workers": workers,
        },
    )
    if out is None:
        out = work_dir / "random-init" / "export-features" if settings.random_init else work_dir / "export-features"
    from rspnet_cli.stages.export_features import export_features as stage  # torch waits until the arguments are known to be good

    manifest = stage(
        settings,
        pretrain=pretrain or work_dir / "pretrain",
        frames=frames,
        default_frames=work_dir / "extract",
        out=out,
        shard=part,
        force=force,
        report=reporter(quiet),
    )
    (show_json if as_json else show_figures)(manifest.results)
