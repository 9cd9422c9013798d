"""`rspnet slurm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rspnet_cli.cli.options import WORK_DIR


def slurm(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="extract, export-features, pretrain or finetune.", show_default=False)],
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="Tasks of the array (extract, export-features).", show_default=False)
    ] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="At most so many tasks at the same time.", show_default="no limit")
    ] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="Slurm's partition.", show_default="the cluster's")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Whom to charge.", show_default="yours")] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="Limit of one job (24:00:00); a run takes as many jobs as it needs.", show_default="the partition's"),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", help="Machines of a training.")] = 1,
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs per node.", show_default="1, of extract 0")] = None,
    cpus: Annotated[int, typer.Option("--cpus", help="CPU cores per node, or task of an array.")] = 8,
    mem: Annotated[str | None, typer.Option("--mem", help="Memory per node (64G).", show_default="the cluster's")] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            "--setup", metavar="LINE", help="Line of shell to run first, such as 'module load cuda'; repeatable.", show_default=False
        ),
    ] = None,
) -> None:
    """Print a script for a Slurm cluster. All after STAGE goes to that command, and is checked.

    extract and export-features become a job array of --shards tasks and a merge that waits for them: `rspnet slurm extract VIDEOS
    --shards 64 | bash`. pretrain and finetune become a job for torchrun: `rspnet slurm pretrain --gpus 4 > job.sh && sbatch job.sh`.
    A job that is out of time keeps what is done, puts itself back into the queue and goes on.
    """
    from rspnet_cli.errors import InputError
    from rspnet_cli.settings import validated
    from rspnet_cli.slurm import SHARDED, TRAININGS, Resources, array_script, training_script

    if stage not in SHARDED + TRAININGS:
        raise InputError(f"There are no scripts for '{stage}', only for {', '.join((*SHARDED, *TRAININGS))}.")
    args = list(context.args)
    params = _parsed(stage, args)
    asked = {
        "partition": partition,
        "account": account,
        "time": time,
        "nodes": nodes,
        "cpus": cpus,
        "mem": mem,
        "setup": tuple(setup or ()),
    }
    resources = validated(Resources, asked | {"gpus": (0 if stage == "extract" else 1) if gpus is None else gpus})
    if stage in TRAININGS:
        if shards is not None or at_once is not None:
            raise InputError(f"{stage} is one job, not an array: leave out --shards and --at-once; --nodes and --gpus make it larger.")
        typer.echo(training_script(stage, args, resources), nl=False)
        return
    if shards is None:
        raise InputError(f"Say into how many tasks {stage} is to be divided: --shards N.")
    if params["shard"] is not None:
        raise InputError("The script gives each task its --shard: leave it out.")
    typer.echo(array_script(stage, args, resources, shards=shards, at_once=at_once, merge_args=_merge_args(stage, params)), nl=False)


def _parsed(stage: str, args: list[str]) -> dict[str, Any]:
    """What the stage's own command makes of its arguments. A wrong flag, recipe or setting ends here and not in the queue."""
    from rspnet_cli.cli.main import group_of
    from rspnet_cli.slurm import TRAININGS

    command = group_of(stage).commands[stage]
    params: dict[str, Any] = command.make_context(f"rspnet {stage}", list(args)).params
    if stage in TRAININGS:
        from rspnet_cli.settings import finetune_settings, pretrain_settings

        settings = pretrain_settings if stage == "pretrain" else finetune_settings
        settings(recipe=params["recipe"], config_file=params["config"], sets=params["sets"] or ())
    return params


def _merge_args(stage: str, params: dict[str, Any]) -> list[str]:
    """Where the shards of that command lie, and whether their result replaces another."""
    out: Path | None = params["out"]
    if out is None and params.get("random_init"):
        out = params["work_dir"] / "random-init" / stage
    place = ["--out", str(out)] if out is not None else []
    if out is None and params["work_dir"] != WORK_DIR:
        place = ["--work-dir", str(params["work_dir"])]
    return [*place, *(["--force"] if params["force"] else [])]
