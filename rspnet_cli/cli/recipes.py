"""`rspnet recipes`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rspnet_cli.cli.options import AsJson, show_json


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this recipe's TOML.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the packaged recipes of pretrain and finetune with their published figures, or print one as TOML.

    What it prints of one can be edited and given to --config (without its part [linear.optim]). --json prints the list: [{"stage",
    "name", "backbone", "width", "frames", "size", "batch_size", "lr", "epochs", "origin", "cost", "published": [{"name", "dataset",
    "pretraining", "epochs", "figures", "source"}]}]; with NAME its one entry with the text as "toml".
    """
    from rspnet_cli.stages.recipes import list_recipes, recipe_toml

    if name is None:
        rows = list_recipes()
        if as_json:
            show_json(rows)
        else:
            _show(rows)
    elif as_json:
        text = recipe_toml(name)
        show_json(next(row for row in list_recipes() if row["name"] == name) | {"toml": text})
    else:
        typer.echo(recipe_toml(name), nl=False)


def _show(rows: list[dict[str, Any]]) -> None:
    from rspnet_cli.cli.tables import show_table

    for stage in dict.fromkeys(row["stage"] for row in rows):
        header = ["recipe", "backbone", "clip", "batch", "lr", "epochs", "published"]
        lines = [_line(row) for row in rows if row["stage"] == stage]
        show_table(f"Recipes of {stage}", header, lines, [], figures=False)
    typer.echo("Batches are global. `rspnet recipes NAME` prints one, `rspnet reproduce NAME` compares a published result with yours.")


def _line(row: dict[str, Any]) -> list[str]:
    width = "" if row["width"] in (None, 1) else f", width {row['width']:g}"
    backbone = "that of the encoder" if row["backbone"] is None else row["backbone"] + width
    clip = "as pretrained" if row["frames"] is None else f"{row['frames']} x {row['size']} px"
    figures = [row["name"], backbone, clip, str(row["batch_size"]), f"{row['lr']:g}", str(row["epochs"])]
    return [*figures, "; ".join(_published(row)) or ("ours" if row["origin"] == "ours" else "no published number")]


def _published(row: dict[str, Any]) -> list[str]:
    """What was published with a recipe, in percent; what it cost."""
    words = []
    for result in row["published"]:
        key, share = next(iter(result["figures"].items()))
        figure = f"{100 * share:.4g}"
        if row["stage"] == "pretrain":
            words.append(f"{result['dataset']} {figure if key == 'top1' else f'retrieval@{key} {figure}'}")
        else:
            words.append(f"{figure} after {result['pretraining']} ({result['epochs']:,} epochs)")
    if row["cost"]:
        words.append(f"{row['cost']['hours']:g} h on {row['cost']['gpus']} V100")
    return words
