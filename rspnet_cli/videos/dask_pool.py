"""The pool of worker processes on the machines of a dask cluster: the same outcomes, the same limits.

A dask worker does no decoding itself: each of its threads has a `WorkerPool` of one process beside it, so a video that crashes, hangs or
eats all memory costs that process and its own row, as on one machine; the time limit and the fresh process after so many videos
hold too. A dask worker that dies takes no video with it: dask gives its tasks to another, and after three deaths the run
ends and can be continued. At most twice as many tasks are under way as the cluster has threads.

All machines must see sources and result under the same paths, and have the same version of this program; each task checks both.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

import rspnet_cli
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.videos.pool import Outcome, Result, Task, WorkerPool

CONNECT_TIMEOUT_S = 30
# How long the number of threads is taken to stay what it was; clusters grow and shrink.
COUNT_S = 10.0
_pools: dict[tuple[int, str, float], WorkerPool[Any, Any]] = {}
"""In a dask worker: of each thread."""


class DaskPool(Generic[Task, Result]):
    """As `WorkerPool`, on the scheduler at `address` ("tcp://host:8786"). folder: one that every worker must see.

    Entering raises InputError where the package is missing or no scheduler answers.
    """

    def __init__(self, address: str, function: Callable[[Task], Result], *, timeout_s: float, folder: Path) -> None:
        self._address, self._function, self._timeout_s, self._folder = address, function, timeout_s, folder.absolute()
        self._counted_at = float("-inf")
        self.num_workers = 1

    def __enter__(self) -> DaskPool[Task, Result]:
        if find_spec("distributed") is None:
            raise InputError("--dask needs the package distributed: install it with `pip install 'rspnet-cli[dask]'`, or leave it out.")
        from distributed import Client

        try:
            self._client = Client(self._address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--dask {self._address}: no scheduler answers there ({reason}); name a running one.") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(Exception):  # a scheduler that is gone needs no goodbye
            self._client.run(_close_pools, on_error="ignore")
        self._client.close(timeout=5)

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        """Run the tasks and yield their outcomes as they come in, in no particular order.

        Raises DiskFullError, RspnetError where a worker lacks the folder or the version, or the cluster has lost a task for good.
        """
        from distributed import as_completed

        source = iter(tasks)
        running: dict[Any, Task] = {}
        done = as_completed(loop=self._client.loop)
        try:
            while True:
                for task in islice(source, 2 * self._count() - len(running)):
                    arguments = (self._function, task, self._timeout_s, str(self._folder), rspnet_cli.__version__)
                    future = self._client.submit(run_task, *arguments, pure=False)
                    running[future] = task
                    done.add(future)
                if not running:
                    return
                future = next(done)
                yield self._outcome(future, running.pop(future))
        finally:
            self._client.cancel(list(running))

    def _count(self) -> int:
        """Threads of the cluster, at least 1: one that is empty may start workers for the task that waits."""
        if time.monotonic() - self._counted_at > COUNT_S:
            self._counted_at = time.monotonic()
            self.num_workers = max(1, sum(self._client.nthreads().values()))
        return self.num_workers

    def _outcome(self, future: Any, task: Task) -> Outcome[Task, Result]:
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            outcome: Outcome[Task, Result] = future.result()
        except KilledWorker as error:
            raise RspnetError(
                f"Dask workers have died again and again ({error.last_worker.address} the last): look at their logs and memory; the same "
                "command continues the run."
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise RspnetError(f"The dask scheduler at {self._address} is gone: the same command continues the run.") from error
        except ImportError as error:
            version = rspnet_cli.__version__
            raise RspnetError(f"Dask workers cannot import rspnet_cli ({error}): install version {version} there.") from error
        return Outcome(task, outcome.result, outcome.failure, outcome.timed_out)


def run_task(function: Callable[[Task], Result], task: Task, timeout_s: float, folder: str, version: str) -> Outcome[None, Result]:
    """In a thread of a dask worker: run a task in the process beside it. Raises RspnetError, DiskFullError."""
    if version != rspnet_cli.__version__:
        raise RspnetError(
            f"The dask worker on {platform.node()} has rspnet {rspnet_cli.__version__}, and {version} is needed: install it there."
        )
    if not os.path.isdir(folder):  # noqa: PTH112
        raise RspnetError(f"The dask worker on {platform.node()} does not see {folder}: all machines need the same shared folders.")
    key = (threading.get_ident(), f"{function.__module__}:{function.__qualname__}", timeout_s)
    if key not in _pools:
        _pools[key] = WorkerPool(function, num_workers=1, timeout_s=timeout_s).__enter__()
    (outcome,) = _pools[key].outcomes([task])
    return Outcome(None, outcome.result, outcome.failure, outcome.timed_out)


def _close_pools() -> None:
    """In a dask worker, when the run is over: end the processes beside it."""
    while _pools:
        _pools.popitem()[1].__exit__(None, None, None)
