"""The packaged recipes: a TOML file each. Free of everything heavy, so that `--help` can list them."""

from __future__ import annotations

from importlib import resources


def recipe_names() -> list[str]:
    """The packaged recipes."""
    return sorted(item.name.removesuffix(".toml") for item in resources.files(__name__).iterdir() if item.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """The TOML of a packaged recipe."""
    return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
