"""A signal ends a run in one line, a stage at a place from where the same command continues it.

SIGINT and SIGTERM, and SIGUSR1, which Slurm sends some time before it kills a job where `sbatch --signal=USR1@120` asks for it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rspnet_cli.distributed import is_main
from rspnet_cli.errors import Stopped

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_blocks = 0  # of `held` that are open
_waiting: list[Stopped] = []


def stoppable(run: Callable[[], int], *, kept: str = "what a stage has done is kept, the same command goes on") -> int:
    """Run a command: its exit code, or that of the signal that stopped it, which is told in one line with what is `kept` then."""
    before = {number: signal.signal(number, _stop) for number in STOP_SIGNALS}
    try:
        return run()
    except Stopped as stopped:
        if is_main():
            print(f"rspnet: interrupted; {kept}.", file=sys.stderr, flush=True)
        return stopped.exit_code
    finally:
        _waiting.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """A signal waits for the end of the block, where Stopped is raised."""
    global _blocks
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
    if _waiting and not _blocks:
        raise _waiting[0]


def requested() -> int:
    """The signal that waits, SIGINT or SIGTERM; 0: none does."""
    return _waiting[0].signal_number if _waiting else 0


def _stop(number: int, frame: FrameType | None) -> None:
    for every in STOP_SIGNALS:
        signal.signal(every, signal.SIG_IGN)  # once is enough; a second one would break the clean-up
    # A scheduler's warning ends a run as its SIGTERM does: a job script has one exit code to look for.
    stopped = Stopped(signal.SIGTERM if number == signal.SIGUSR1 else number)
    if not _blocks:
        raise stopped
    _waiting.append(stopped)
