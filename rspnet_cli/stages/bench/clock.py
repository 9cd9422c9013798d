"""Who listens to the parts of the work here: a clock of the host, a clock of the GPU, or torch's profiler."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import torch

from rspnet_cli.files import atomic_path
from rspnet_cli.timing import Part, Stopwatch, add_part, listening

TRACED_REPEATS = 3


class HostClock(Stopwatch):
    """Seconds of the parts and of laps by the host's clock."""

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        super().__init__(wait)
        self._marks: list[float] = []

    def mark(self) -> None:
        """A lap ends and the next one begins."""
        self._wait()
        self._marks.append(perf_counter())

    def parts_s(self) -> dict[Part, float]:
        """Seconds of each part."""
        return self.seconds

    def laps_s(self) -> list[float]:
        """Seconds between the marks."""
        return [after - before for before, after in pairwise(self._marks)]


class GpuClock:
    """The same by events on the GPU's stream: nothing is waited for until the results are asked for.

    A part lasts from where the GPU reaches its beginning to where it reaches its end. While the host waits for a batch and the GPU still
    computes, no time passes here: "loader wait" is the time in which the GPU had nothing to do.
    """

    def __init__(self) -> None:
        self._open: list[tuple[Part, torch.cuda.Event]] = []
        self._ended: list[tuple[Part, Part | None, torch.cuda.Event, torch.cuda.Event]] = []
        self._marks: list[torch.cuda.Event] = []

    def begin(self, part: Part) -> None:
        """A part begins."""
        self._open.append((part, _event()))

    def end(self) -> None:
        """The part that was begun last ends."""
        part, began = self._open.pop()
        self._ended.append((part, self._open[-1][0] if self._open else None, began, _event()))

    def mark(self) -> None:
        """A lap ends and the next one begins."""
        self._marks.append(_event())

    def parts_s(self) -> dict[Part, float]:
        """Seconds of each part."""
        torch.cuda.synchronize()
        seconds: dict[Part, float] = {}
        for part, within, began, ended in self._ended:
            add_part(seconds, part, within, began.elapsed_time(ended) / 1000)
        return seconds

    def laps_s(self) -> list[float]:
        """Seconds between the marks."""
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1000 for before, after in pairwise(self._marks)]


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def clock_of(device: torch.device) -> HostClock | GpuClock:
    """The clock for work on a device; on Apple's, which has none, every part is waited for."""
    if device.type == "cuda":
        return GpuClock()
    return HostClock(torch.mps.synchronize) if device.type == "mps" else HostClock()


def device_name(device: torch.device) -> str:
    """What to call a device: the GPU's own name, else its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def kind_of(device: torch.device) -> str:
    """CPU or GPU."""
    return "CPU" if device.type == "cpu" else "GPU"


class _Recorder:
    """Gives the parts to torch's profiler."""

    def __init__(self) -> None:
        self._open: list[torch.profiler.record_function] = []

    def begin(self, part: Part) -> None:
        self._open.append(torch.profiler.record_function(part))
        self._open[-1].__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        self._open.pop().__exit__(None, None, None)


def write_trace(path: Path, device: torch.device, run: Callable[[], object], *, repeats: int = TRACED_REPEATS) -> None:
    """Run a few times under torch's profiler and write a trace that chrome://tracing and ui.perfetto.dev open. Raises DiskFullError."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell of itself on stderr
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler, listening(_Recorder()):
        for _ in range(repeats):
            run()
    with atomic_path(path) as temporary:
        profiler.export_chrome_trace(str(temporary))
