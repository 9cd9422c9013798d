"""What the authors of RSPNet published: figures, costs, data sets, checkpoints. Numbers live in `published.toml` alone."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sides(_Entry):
    """Videos of a split."""

    train: int
    test: int


class Dataset(_Entry):
    """A data set as its makers listed it."""

    title: str
    classes: int
    videos: str
    """Name of its folder, as it is unpacked."""
    annotations: str | None = None
    """Folder of its lists; None: they need no naming."""
    note: str | None = None
    splits: dict[str, Sides]


class Pretraining(_Entry):
    """A published pretraining; its settings are the recipe of its name."""

    dataset: str
    gpus: int | None = None
    hours: float | None = None
    """On `gpus` V100."""
    checkpoint: str
    """Name of the released file."""


class Result(_Entry):
    """A published figure and what it was measured on."""

    task: Literal["finetune", "retrieval"]
    dataset: str
    pretraining: str
    """Recipe of the pretraining."""
    recipe: str | None = None
    """Recipe of the fine-tuning."""
    percent: dict[str, float]
    """top1, or recall by k."""
    videos_per_gpu: int | None = None
    gpus: int | None = None
    hours: float | None = None
    """On `gpus` TITAN Xp."""
    source: str
    note: str | None = None

    def shares(self) -> dict[str, float]:
        """The figures as shares from 0 to 1."""
        return {name: round(value / 100, 6) for name, value in self.percent.items()}


class Configurations(_Entry):
    """Released configurations without a published result."""

    without_result: tuple[str, ...]


class Published(_Entry):
    """Everything of the file."""

    sources: dict[str, str]
    configurations: Configurations
    datasets: dict[str, Dataset]
    pretrainings: dict[str, Pretraining]
    results: dict[str, Result]

    def results_with(self, recipe: str) -> dict[str, Result]:
        """The results that a recipe, of a pretraining or of a fine-tuning, has a part in."""
        return {name: result for name, result in self.results.items() if recipe in (result.pretraining, result.recipe)}


@cache
def published() -> Published:
    """Read `published.toml`."""
    text = (resources.files("rspnet_cli") / "published.toml").read_text(encoding="utf-8")
    return Published.model_validate(tomllib.loads(text))
