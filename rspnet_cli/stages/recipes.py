"""recipes: the packaged settings, and what was published with them."""

from __future__ import annotations

from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.published import published
from rspnet_cli.recipes import STAGES, recipe_names, recipe_text
from rspnet_cli.settings import finetune_settings, nearest, pretrain_settings


def list_recipes() -> list[dict[str, Any]]:
    """Every packaged recipe, pretrainings first: JSON values.

    Keys: stage, name, backbone, width, frames, size, batch_size (global), lr, epochs (None: taken from the pretraining); origin (published,
    released: a released configuration without a result, or ours); cost {gpus, hours} of a pretraining on V100 GPUs, or None; published: the
    results that it has a part in, each {name, dataset, pretraining, epochs (of the pretraining), figures (shares), source}.
    """
    return [_row(stage, name) for stage in STAGES for name in recipe_names(stage)]


def recipe_toml(name: str) -> str:
    """The TOML of a recipe of any stage, what was published with it in a comment above. Raises InputError."""
    for stage in STAGES:
        if name in recipe_names(stage):
            return "".join(f"# {line}\n" for line in _published(_row(stage, name))) + recipe_text(stage, name)
    names = [known for stage in STAGES for known in recipe_names(stage)]
    raise InputError(f"There is no recipe '{name}'{nearest(name, names)} `rspnet recipes` lists them.")


def published_table() -> str:
    """Every published result in Markdown, for the guide: its figures, the pretraining behind it, and what the authors' runs cost."""
    known = published()
    lines = ["| result | published, % | pretraining | its cost | cost of fine-tuning |", "|---|---|---|---|---|"]
    for name, result in known.results.items():
        pretraining = known.pretrainings[result.pretraining]
        epochs = pretrain_settings(recipe=result.pretraining).optim.epochs
        cells = [
            f"`{name}`",
            " / ".join(f"{value:g}" if result.recipe else f"{value:.1f}" for value in result.percent.values()),
            f"`{result.pretraining}`, {known.datasets[pretraining.dataset].title}, {epochs:,} epochs",
            _cost(pretraining.hours, pretraining.gpus, "V100"),
            "" if result.recipe is None else _cost(result.hours, result.gpus, "TITAN Xp"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost(hours: float | None, gpus: int | None, kind: str) -> str:
    return "not published" if hours is None else f"{hours:g} h on {gpus} {kind}"


def _published(row: dict[str, Any]) -> list[str]:
    """A line for each result, figures in percent."""
    if not row["published"]:
        origin = "ours" if row["origin"] == "ours" else "a released configuration"
        return [f"{row['name']}: {origin}, no published number."]
    return [
        f"{result['name']}: {', '.join(f'{name} {100 * share:.4g}' for name, share in result['figures'].items())}, published after "
        f"{result['epochs']:,} epochs of {result['pretraining']}."
        for result in row["published"]
    ]


def _row(stage: str, name: str) -> dict[str, Any]:
    config = pretrain_settings(recipe=name) if stage == "pretrain" else finetune_settings(recipe=name)
    known = published()
    results = known.results_with(name) if stage == "finetune" or name in known.pretrainings else {}
    pretraining = known.pretrainings.get(name) if stage == "pretrain" else None
    return {
        "stage": stage,
        "name": name,
        "backbone": config.model.backbone,
        "width": config.model.width,
        "frames": config.clip.frames,
        "size": config.clip.size,
        "batch_size": config.optim.batch_size,
        "lr": config.optim.lr,
        "epochs": config.optim.epochs,
        "origin": "published" if results else "released" if name in known.configurations.without_result else "ours",
        "cost": None if pretraining is None or pretraining.hours is None else {"gpus": pretraining.gpus, "hours": pretraining.hours},
        "published": [
            {
                "name": result_name,
                "dataset": result.dataset,
                "pretraining": result.pretraining,
                "epochs": pretrain_settings(recipe=result.pretraining).optim.epochs,
                "figures": result.shares(),
                "source": known.sources[result.source],
            }
            for result_name, result in results.items()
        ],
    }
