"""Worker processes for work that may kill them: decoding foreign videos can crash, hang or run out of memory.

Each worker has one task at a time, so a worker that dies or hangs costs exactly that task: its outcome says why in words, and a new
worker takes the place. A worker is a fresh interpreter (never a fork; the caller's `__main__` is not run again). It holds the reading
end of a pipe that nobody writes to: when the parent is gone, however that happened, the pipe ends and the worker exits.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from pickle import PicklingError
from types import TracebackType
from typing import Any, Generic, TypeVar

from rspnet_cli.errors import DiskFullError, RspnetError
from rspnet_cli.files import disk_full, is_disk_full
from rspnet_cli.stopping import STOP_SIGNALS

Task = TypeVar("Task")
Result = TypeVar("Result")

# Decoders leak a little; a fresh interpreter every so often (0.3 s) keeps the memory of a run over 240,000 videos flat.
TASKS_PER_WORKER = 500
# A worker that cannot even start (no memory, a broken installation) is no task's fault: so many in a row end the run.
MAX_FAILED_STARTS = 3
START_TIMEOUT_S = 120.0
# The kernel ends a worker that is stuck so long beyond its task's limit, for the case that no parent is left to do it.
ALARM_GRACE_S = 30.0

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[4]); from rspnet_cli.videos.pool import serve; serve()"
_DEATHS = {
    signal.SIGKILL: "was killed from outside, as the system does when memory runs out",
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGBUS: "crashed (bus error)",
    signal.SIGABRT: "aborted",
    signal.SIGFPE: "crashed (arithmetic error)",
    signal.SIGILL: "crashed (illegal instruction)",
    signal.SIGALRM: "was stuck beyond its time limit",
}


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What became of a task: its result, or the reason why there is none, in words that follow its name ("took longer than 600 s")."""

    task: Task
    result: Result | None
    failure: str | None = None
    timed_out: bool = False


class WorkerPool(Generic[Task, Result]):
    """A pool, to be used as a context manager; leaving it, for whatever reason, ends all workers.

    function: a function of one task at the top level of an importable module. Tasks and results must pickle.
    timeout_s: the most one task may take. num_workers: the most processes alive at once; they start as they are needed.
    """

    def __init__(self, function: Callable[[Task], Result], *, num_workers: int, timeout_s: float) -> None:
        if num_workers < 1 or timeout_s <= 0:
            raise ValueError("num_workers and timeout_s must be positive")
        self._function = f"{function.__module__}:{function.__qualname__}"
        self.num_workers = num_workers
        self._timeout_s = timeout_s
        self._workers: list[_Worker[Task]] = []
        self._returned: deque[Task] = deque()  # tasks of workers that never started
        self._failed_starts = 0
        self._lifeline: tuple[int, int] | None = None

    def __enter__(self) -> WorkerPool[Task, Result]:
        self._lifeline = os.pipe()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.kill()
        while self._workers:
            self._workers.pop().end()
        if self._lifeline is not None:
            for handle in self._lifeline:
                os.close(handle)
            self._lifeline = None

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        """Run the tasks and yield their outcomes as they come in, in no particular order.

        A task is drawn from the iterable when a worker is free for it, so no more than one task and one result per worker are in
        memory. Raises DiskFullError if a worker met a full disk (no task is to blame), RspnetError if no worker can be started.
        """
        source = iter(tasks)
        while True:
            self._hand_out(source)
            if not any(worker.task is not None for worker in self._workers):
                return
            for worker in self._with_news():
                outcome = self._collect(worker)
                if outcome is not None:
                    yield outcome

    def _hand_out(self, source: Iterator[Task]) -> None:
        """Give a task to every worker that has none, starting workers while there are tasks for them."""
        while True:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) >= self.num_workers:
                return
            try:
                task = self._returned.popleft() if self._returned else next(source)
            except StopIteration:
                return
            if idle is None:
                assert self._lifeline is not None, "outcomes() works inside the with block"
                try:
                    idle = _Worker(self._function, self._timeout_s, self._lifeline[0])
                except OSError as error:  # no process or no memory to be had
                    self._returned.append(task)
                    self._start_failed(error.strerror or str(error))
                    continue
                self._workers.append(idle)
            if not idle.give(task):  # it died while it had nothing to do: no fault of this task
                self._returned.append(task)
                self._workers.remove(idle)
                idle.end()

    def _with_news(self) -> list[_Worker[Task]]:
        """The busy workers that have said something, have died or are out of time; waits for the first of them."""
        busy = [worker for worker in self._workers if worker.task is not None]
        nearest = min(worker.deadline for worker in busy)
        ready = set(wait([worker.connection for worker in busy], max(nearest - time.monotonic(), 0)))
        now = time.monotonic()
        return [worker for worker in busy if worker.connection in ready or worker.deadline <= now]

    def _collect(self, worker: _Worker[Task]) -> Outcome[Task, Result] | None:
        """What a worker with news has to say; None if that is no outcome. Replaces it if it is dead, late or old."""
        task = worker.task
        assert task is not None
        try:
            message = worker.connection.recv() if worker.connection.poll() else None
        except (EOFError, OSError):
            return self._bury(worker, None)
        if message is None:
            return self._bury(worker, f"took longer than {self._timeout_s:g} s")
        kind, value = message
        if kind == "started":
            self._failed_starts = 0
            if not worker.started():
                self._returned.append(task)
                self._workers.remove(worker)
                worker.end()
            return None
        if kind == "disk full":
            raise value
        worker.task = None
        worker.num_done += 1
        if worker.num_done >= TASKS_PER_WORKER:
            self._workers.remove(worker)
            worker.end()
        return Outcome(task, value) if kind == "result" else Outcome(task, None, value)

    def _bury(self, worker: _Worker[Task], failure: str | None) -> Outcome[Task, Result] | None:
        """Remove a worker that has died (failure None) or must; its task gets the blame only if it had reached the worker."""
        task = worker.task
        assert task is not None
        self._workers.remove(worker)
        if failure is not None:
            worker.kill()
        code = worker.end()
        words = failure or _death(code)
        if worker.has_started:
            return (
                Outcome(task, None, words, timed_out=True) if failure else Outcome(task, None, f"ended its worker process, which {words}")
            )
        self._returned.append(task)
        self._start_failed(words)
        return None

    def _start_failed(self, words: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise RspnetError(
                f"Worker processes cannot be started (the last one: {words}): check memory, process limits and the installation."
            )
        time.sleep(0.2 * self._failed_starts)


class _Worker(Generic[Task]):
    """The parent's side of one worker process. A task given before it has started waits here."""

    def __init__(self, function: str, timeout_s: float, lifeline: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    _command(function, timeout_s, (theirs.fileno(), lifeline)),
                    pass_fds=(theirs.fileno(), lifeline),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Ctrl-C on the terminal is the parent's to handle, also in the moment before the worker can ignore it.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self.connection = Connection(ours.detach())
        self.deadline = time.monotonic() + START_TIMEOUT_S
        self.task: Task | None = None
        self.has_started = False
        self.num_done = 0
        self._timeout_s = timeout_s

    def started(self) -> bool:
        """The process has said that it is ready: hand over the task that waits. False if it is dead already."""
        self.has_started = True
        return self.task is None or self.give(self.task)

    def give(self, task: Task) -> bool:
        """Hand over a task. False if the worker is dead and has not got it."""
        self.task = task
        if self.has_started:
            self.deadline = time.monotonic() + self._timeout_s
            try:
                self.connection.send(task)
            except (BrokenPipeError, ConnectionResetError):
                return False
        return True

    def kill(self) -> None:
        with suppress(OSError):
            self.process.kill()

    def end(self) -> int | None:
        """Hang up, wait until the process is gone, return its exit code (None if even SIGKILL cannot end it yet)."""
        self.connection.close()
        for _ in range(2):
            try:
                return self.process.wait(5)
            except subprocess.TimeoutExpired:  # stuck in the kernel (a dead network disk), or asked to end and does not
                self.kill()
        return None


def _command(function: str, timeout_s: float, handles: tuple[int, int]) -> list[str]:
    warnings = [f"-W{option}" for option in sys.warnoptions]
    arguments = [function, str(timeout_s), json.dumps(handles), json.dumps(sys.path)]
    # -P: no module is imported from the current folder before the parent's sys.path is in place.
    return [sys.executable, "-P", *warnings, "-c", _BOOT, *arguments]


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended unexpectedly (exit code {code})"
    with suppress(ValueError):
        number = signal.Signals(-code)
        return _DEATHS.get(number, f"was ended by {number.name}")
    return f"was ended by signal {-code}"


def serve() -> None:
    """The worker's side: take tasks until the parent hangs up. Its arguments are those of `_command`."""
    function_name, timeout_s = sys.argv[1], float(sys.argv[2])
    handle, lifeline = json.loads(sys.argv[3])
    # A stop sent to all processes of a job at once: the parent decides, so that no video is blamed for it.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()
    module, name = function_name.split(":")
    function = getattr(import_module(module), name)
    connection = Connection(handle)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(("started", None))
        # What libraries print about broken videos is no message of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while True:
            task = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, timeout_s + ALARM_GRACE_S)
            answer = _answer(function, task)
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                connection.send(answer)
            except (AttributeError, TypeError, PicklingError) as error:
                connection.send(("failure", f"gave a result that cannot be sent: {error}"))


def _exit_with_parent(lifeline: int) -> None:
    with suppress(OSError):
        os.read(lifeline, 1)  # returns when the writing end is closed, which the parent's death does
    os._exit(1)


def _answer(function: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    try:
        return "result", function(task)
    except DiskFullError as error:
        return "disk full", error
    except MemoryError:
        return "failure", "ran out of memory"
    except Exception as error:
        if is_disk_full(error):
            name = getattr(error, "filename", None)
            return "disk full", disk_full(Path(name if isinstance(name, str) else "."))
        return "failure", f"raised an unexpected {type(error).__name__}: {error}"[:500]
