"""Contenders timed in turn, repeat by repeat: a busy minute of the machine hits all of them alike, and ratios stay meaningful."""

from __future__ import annotations

import importlib
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Rate:
    """How fast a contender is: units per second, the median and the quartiles over the repeats."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A line of the results table."""

    stage: str
    what: str
    """The task, its size included."""
    unit: str
    """Of the rates, such as "frames/CPU-s"."""
    ours: Rate
    peer: str
    theirs: Rate
    target: str = ""
    """What the ratio is wanted to be, in words; empty where nothing was promised."""

    @property
    def ratio(self) -> float:
        """How many times the peer's rate."""
        return self.ours.median / self.theirs.median


def cpu_seconds() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def rates(
    contenders: Mapping[str, Callable[[], object]],
    *,
    amount: float,
    repeats: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Rate]:
    """Time every contender, one after the other, `repeats` times after one round that warms up; each run does `amount` units.

    clock: `cpu_seconds` where one core is meant, which a shared machine disturbs less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            began = clock()
            run()
            if repeat:
                seconds[name].append(clock() - began)
    return {name: _rate(amount, values) for name, values in seconds.items()}


def _rate(amount: float, seconds: list[float]) -> Rate:
    low, median, high = statistics.quantiles([amount / value for value in seconds], n=4, method="inclusive")
    return Rate(median, low, high)


def peer(module: str) -> ModuleType | None:
    """An optional peer, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
