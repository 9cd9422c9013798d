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
    """The TOML of a recipe of any stage. Raises InputError."""
    for stage in STAGES:
        if name in recipe_names(stage):
            return recipe_text(stage, name)
    names = [known for stage in STAGES for known in recipe_names(stage)]
    raise InputError(f"There is no recipe '{name}'{nearest(name, names)}: `rspnet recipes` lists them.")


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
