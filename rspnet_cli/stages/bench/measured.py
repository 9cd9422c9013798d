"""What a measurement is asked for and what it finds; how often it repeats, and the arithmetic that all measurements share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rspnet_cli.config import ExportConfig, PretrainConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import MANIFEST, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.timing import Part

TARGET_S = 20.0
"""A measurement repeats at least so long."""
MOST_S = 120.0
"""No repeat is begun after so long, however few there were."""
MIN_REPEATS = 5
READING: tuple[Part, ...] = ("loader wait", "open", "decode", "convert", "crop")
"""What waiting for a batch is: with no workers, the reading itself."""


@dataclass(frozen=True)
class Request:
    """What to measure, and how. Nothing is written but `trace`."""

    work_dir: Path
    config: PretrainConfig
    """Of the training whose loader and step are measured."""
    export: ExportConfig
    videos: Path | None = None
    """Sources to extract; None: those of the extraction in the work directory."""
    device: str = "auto"
    """Of the retrieval; loader, step and export have it in their settings."""
    steps: int | None = None
    """Repeats; None: for about TARGET_S."""
    trace: Path | None = None
    report: Reporter = field(default_factory=Reporter.silent)

    @property
    def extract(self) -> Path:
        """Where the extraction would be."""
        return self.work_dir / "extract"


def has_extraction(request: Request) -> bool:
    """Whether the work directory holds a finished extraction."""
    return (request.extract / MANIFEST).exists()


def open_extraction(request: Request) -> Manifest:
    """The extraction of the work directory. Raises InputError where there is none."""
    if not has_extraction(request):
        raise InputError(f"{request.work_dir} holds no finished extraction: run `rspnet extract VIDEOS` first, or name another --work-dir.")
    return read_manifest(request.extract, stage="extract")


@dataclass(frozen=True)
class Rate:
    """Units per second: the median and the quartiles over the repeats."""

    unit: str
    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, rates: Sequence[float], unit: str) -> Rate:
        """rates: one of each repeat."""
        low, median, high = (float(value) for value in np.percentile(rates, (25, 50, 75)))
        return cls(unit, median, low, high, len(rates))

    @classmethod
    def of_laps(cls, amounts: Sequence[int], laps_s: Sequence[float], unit: str, *, bursts: int) -> Rate:
        """amounts: units of each lap. bursts: so many laps in a row count as one, where there are enough of them: of several workers the
        batches come all at once, and then none for a while."""
        size = max(1, min(bursts, len(laps_s) // MIN_REPEATS))
        starts = range(0, len(laps_s) - size + 1, size)
        return cls.of([sum(amounts[start : start + size]) / sum(laps_s[start : start + size]) for start in starts], unit)


@dataclass(frozen=True)
class Measured:
    """What was found. JSON values."""

    setup: dict[str, Any]
    """What was measured: settings as they came to be here."""
    rate: Rate
    parts: dict[Part, float]
    """Shares of the time, which sum to 1, in the order of the work."""
    figures: dict[str, Any]
    """Further figures, by name."""
    memory: dict[str, int | None]
    """Peaks in bytes; None where the system does not tell."""
    verdict: str
    """What limits, and the flag to change."""


def shares(seconds: Mapping[Part, float]) -> dict[Part, float]:
    """Seconds of parts as shares of their sum, in the order of `Part`, what lies in none of them last."""
    total = sum(seconds.values()) or 1.0
    order: list[Part] = [*get_args(Part)[1:], "other"]
    return {part: max(seconds[part] / total, 0.0) for part in order if part in seconds}


def share_of(parts: Mapping[Part, float], some: Sequence[Part]) -> float:
    """What some of the parts make together."""
    return sum(parts.get(part, 0.0) for part in some)


def repeats(steps: int | None, *, at_least: int = MIN_REPEATS, target_s: float = TARGET_S, most_s: float = MOST_S) -> Iterator[int]:
    """0, 1, 2, ...: as many as were asked for, or for a while."""
    began, count = time.perf_counter(), 0
    while True:
        passed = time.perf_counter() - began
        enough = count >= steps if steps is not None else (count >= at_least and passed >= target_s) or (count > 0 and passed >= most_s)
        if enough:
            return
        yield count
        count += 1


def percent(share: float) -> str:
    """A share in words: 43 %."""
    return f"{100 * share:.0f} %"
