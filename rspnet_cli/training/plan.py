"""What the epoch loop is told of a training, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rspnet_cli.config import FinetuneOptimConfig, OptimConfig
from rspnet_cli.tables import Table

Batch = TypeVar("Batch")
StepFunction = Callable[[Batch, int, int], tuple[Tensor, ...]]
"""(batch, epoch, step of the epoch) -> the figures (the loss first); adds the loss's gradients to the parameters' own."""


def lowest_loss(figures: dict[str, float]) -> list[float]:
    """The score of an epoch by its training loss."""
    return [figures["loss"]]


@dataclass
class Plan(Generic[Batch]):
    """What to train and how to record it."""

    name: str
    """Of the stage, for progress."""
    model: nn.Module
    """Everything a checkpoint holds."""
    optimizer: torch.optim.Optimizer
    config: OptimConfig | FinetuneOptimConfig
    step: StepFunction[Batch]
    figures: Sequence[str]
    """Names of the step's figures."""
    metrics: Table
    """Where they go: epoch, step, lr, the figures, grad_norm, and what `extra` adds."""
    steps_per_epoch: int
    batches: Callable[[tuple[int, int]], Generator[Batch]]
    """From a position (epoch, step) on, over all remaining epochs."""
    work: Path
    device: torch.device
    log_interval: int
    keep_every: int
    best_from_epoch: int
    """Epochs before this one cannot be the best."""
    shown: Sequence[str]
    """Figures beside the progress bar."""
    extra: Callable[[int], dict[str, float]] = lambda steps: {}
    """Further columns of a metrics row, a function of the number of steps done."""
    score: Callable[[dict[str, float]], list[float]] = lowest_loss
    """Of an epoch's figures (means over its steps, and what `evaluate` found): the lowest list is the best, of equal ones the first."""
    evaluate: Callable[[], dict[str, float]] | None = None
    """Measures the model at the end of an epoch, on every rank alike; a row of epochs.csv then tells of it."""
    compiled: bool = False
    """Whether the first step compiles something; its time is then told."""
    hint: str = ""
    """Said with the time estimate when that is long."""
    tracker: str | None = None
    """Where the figures go, too (see trackers.py)."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The run's settings as JSON values, for the tracker."""


@dataclass
class Position:
    """Where training stands: what a checkpoint records beside weights."""

    epoch: int = 0
    step: int = 0
    best_epoch: int | None = None
    best_score: list[float] | None = None
    last: dict[str, float] = field(default_factory=dict)
    """The figures of the last whole epoch: means over its steps, and what was measured at its end."""
