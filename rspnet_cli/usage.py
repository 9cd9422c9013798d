"""What a process has used of its machine, by the Linux kernel's books where there are any: memory, processor, disk."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

_FORGET_PEAK = "5"  # proc(5), clear_refs


def forget_peak() -> None:
    """Count this process' peak of memory anew from here, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_FORGET_PEAK)


def peak_bytes(process: int | str = "self") -> int | None:
    """The largest resident memory of a process (of this one since `forget_peak`); None where it cannot be known."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if process != "self":
        return None
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


@dataclass(frozen=True)
class Usage:
    """What this process has used so far, or between two moments. None where the system does not tell."""

    seconds: float
    cpu_s: float
    """Of all threads."""
    queued_s: float | None
    """In which the main thread could have run and others had the core."""
    read_bytes: int | None
    """From files and pipes, whether they came from a disk or from the system's memory of it."""
    disk_bytes: int | None
    """Those of them that came from a disk."""

    @classmethod
    def now(cls) -> Usage:
        """So far."""
        return cls(perf_counter(), process_time(), _queued_s(), *_read())

    def since(self, before: Usage) -> Usage:
        """From a moment before to this one."""
        return Usage(
            self.seconds - before.seconds,
            self.cpu_s - before.cpu_s,
            None if self.queued_s is None or before.queued_s is None else self.queued_s - before.queued_s,
            None if self.read_bytes is None or before.read_bytes is None else self.read_bytes - before.read_bytes,
            None if self.disk_bytes is None or before.disk_bytes is None else self.disk_bytes - before.disk_bytes,
        )

    @property
    def queued_share(self) -> float:
        """Share of the time in which the main thread waited for a core; 0 where that is not known."""
        return (self.queued_s or 0.0) / self.seconds

    @property
    def disk_share(self) -> float:
        """Share of the time in which one thread neither ran nor waited for a core, if what it read came from a disk; else 0."""
        if not self.read_bytes or not self.disk_bytes or self.disk_bytes < self.read_bytes / 2:
            return 0.0
        return max(1 - self.cpu_s / self.seconds - self.queued_share, 0.0)


def _queued_s() -> float | None:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    return None


def _read() -> tuple[int, int] | tuple[None, None]:
    with suppress(OSError, ValueError, KeyError):
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["rchar"]), int(counts["read_bytes"])
    return None, None
