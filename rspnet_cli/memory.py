"""The most memory that a process has had: by the Linux kernel's books, which can be opened anew, else by getrusage's, which cannot."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = "/proc/{}/status", Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # proc(5)


def forget_peak() -> None:
    """Count this process' peak anew from here, where the system can."""
    with suppress(OSError):
        _CLEAR.write_text(_FORGET_PEAK)


def peak_bytes(process: int | str = "self") -> int | None:
    """The largest resident memory of a process (of this one since `forget_peak`); None where it cannot be known."""
    with suppress(OSError, ValueError):
        for line in Path(_STATUS.format(process)).read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if process != "self":
        return None
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
