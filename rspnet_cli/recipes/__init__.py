"""The packaged recipes: a TOML file each, below the stage that it is for. Free of everything heavy, so that `--help` can list them."""

from __future__ import annotations

from pathlib import Path

STAGES = ("pretrain", "finetune")
# importlib.resources would find the files, too, and takes 5 % of the time of `rspnet pretrain --help` for being imported.
_FOLDER = Path(__file__).parent


def recipe_names(stage: str) -> list[str]:
    """The packaged recipes of a stage."""
    return sorted(file.stem for file in (_FOLDER / stage).glob("*.toml"))


def recipe_text(stage: str, name: str) -> str:
    """The TOML of a packaged recipe."""
    return (_FOLDER / stage / f"{name}.toml").read_text(encoding="utf-8")
