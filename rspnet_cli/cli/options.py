"""Options that several commands share, and how results are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rspnet_cli.distributed import is_main
from rspnet_cli.errors import RspnetError
from rspnet_cli.recipes import recipe_names

if TYPE_CHECKING:
    from rspnet_cli.progress import Reporter

WORK_DIR = Path("rspnet-run")
WorkDir = Annotated[
    Path, typer.Option("--work-dir", envvar="RSPNET_WORK_DIR", help="Folder that holds one folder per stage.", rich_help_panel="Where")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Write here instead of <work-dir>/<stage>.", show_default=False, rich_help_panel="Where")
]
Force = Annotated[
    bool, typer.Option("--force", help="Start anew; the old result stays until the new one is whole.", rich_help_panel="Where")
]
Replace = Annotated[bool, typer.Option("--force", help="Replace files even if this command did not write them.", rich_help_panel="Where")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as one JSON document.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results only.", rich_help_panel="Output")]

ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="i/N",
        help="Do part i of N alone, i from 1 to N, in <result>.shard-i-of-N; `rspnet merge` puts the parts together. In a Slurm script: "
        "--array=1-N and --shard $SLURM_ARRAY_TASK_ID/N.",
        show_default=False,
    ),
]

# Of trainings.
DEFAULT_RECIPE = "r3d18"
Frames = Annotated[
    Path | None, typer.Argument(metavar="[FRAMES]", help="Manifest or folder of an extraction.", show_default="<work-dir>/extract")
]
PretrainRecipe = Annotated[str, typer.Option("--recipe", help=f"Packaged settings: {', '.join(recipe_names('pretrain'))}.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings, over the recipe's.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting, over recipe and --config; repeatable.", show_default=False),
]
Split = Annotated[str | None, typer.Option("--split", help="Train on this split's train videos; all: on every video.", show_default="1")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Global batch, in videos.", show_default="the recipe's")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.", show_default="auto")]
Precision = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.", show_default="bf16 on a GPU, fp32 on a CPU")]
CompileEncoders = Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile the encoders.", show_default="no")]
TrackerName = Annotated[
    str | None,
    typer.Option(
        "--tracker",
        metavar="tensorboard|none|NAME",
        help="Where figures go beside metrics.csv; NAME: of a tracker that an installed package offers. Changes no result.",
        show_default="tensorboard where it is installed",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", help="Decoding processes; changes no result.", show_default="by the machine")]


def reporter(quiet: bool) -> Reporter:
    """The run's voice on stderr; ranks other than 0 have none."""
    from rspnet_cli.progress import Reporter

    return Reporter("silent" if quiet or not is_main() else "auto")


def show_json(results: dict[str, Any] | list[dict[str, Any]]) -> None:
    """One JSON document on stdout."""
    if is_main():
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))


def tell_failures(what: str, outcomes: Sequence[tuple[str, str | None]]) -> None:
    """Say on stderr which of several failed and why; raise RspnetError if any has. outcomes: name, reason that follows it or None."""
    failures = [f"{name} {reason}" for name, reason in outcomes if reason is not None]
    for failure in failures:
        typer.echo(failure if failure.endswith("?") else f"{failure.removesuffix('.')}.", err=True)
    if failures:
        raise RspnetError(f"{what}: {len(failures)} of {len(outcomes)}.")


def show_figures(results: dict[str, Any]) -> None:
    """The results as `name  value` lines on stdout, for stages that have no table of their own."""
    if not is_main():
        return
    width = max(len(key) for key in results)
    for key, value in results.items():
        text = f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else "-" if value is None else str(value)
        typer.echo(f"{key:<{width}}  {text}")
