"""The packaged recipes: a TOML file each, below the stage that it is for. Free of everything heavy, so that `--help` can list them."""

from __future__ import annotations

from importlib import resources

STAGES = ("pretrain", "finetune")


def recipe_names(stage: str) -> list[str]:
    """The packaged recipes of a stage."""
    folder = resources.files(__name__) / stage
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def recipe_text(stage: str, name: str) -> str:
    """The TOML of a packaged recipe."""
    return (resources.files(__name__) / stage / f"{name}.toml").read_text(encoding="utf-8")
