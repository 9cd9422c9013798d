"""Where the figures of a training go beside metrics.csv: TensorBoard, nowhere, or any tracker that an installed package offers.

A package offers one by an entry point of the group `rspnet.trackers`: a callable that is given a TrackedRun and returns a Tracker.

    [project.entry-points."rspnet.trackers"]
    mine = "my_package:start"           # then `rspnet pretrain --tracker mine`

A tracker is given the figures of every step once, in their order, over all resumptions of a run. One that raises is left out from there on
with a warning: no training is lost by it. Only where it cannot even start before the first step, nothing is lost by stopping.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.files import write_atomic
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import nearest

GROUP = "rspnet.trackers"
TENSORBOARD, NONE = "tensorboard", "none"
TRACKERS = "trackers"
"""In a stage's folder: what trackers write, a folder each."""
_STATE = "tracked.json"


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run when it starts, and when it goes on."""

    stage: str
    """pretrain or finetune."""
    name: str
    """For people: the last parts of its folder, such as rspnet-run/pretrain."""
    id: str
    """32 hex digits of its own, the same after every resumption."""
    settings: Mapping[str, Any]
    """Its resolved settings, in sections, as JSON values."""
    folder: Path
    """For files of the tracker; exists, and is kept with the result."""
    last_step: int | None
    """The last step whose figures it was given before; None: a new run."""


class Tracker(Protocol):
    """Takes the figures of one run."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures after `step` steps, of metrics.csv; those of a whole epoch (of epochs.csv) are called epoch/<name>."""

    def close(self) -> None:
        """The run ends or is interrupted; it may go on in another process."""


def resolved_tracker(name: str | None) -> str:
    """The tracker's name; None: TensorBoard where it is installed, else none. Raises InputError for one that is not installed."""
    has_tensorboard = find_spec("tensorboard") is not None
    if name is None:
        return TENSORBOARD if has_tensorboard else NONE
    if name == TENSORBOARD and not has_tensorboard:
        raise InputError("--tracker tensorboard: it is not installed; `pip install 'rspnet-cli[tensorboard]'`, or use --tracker none.")
    if name not in (TENSORBOARD, NONE):
        _offered(name)
    return name


def _offered(name: str) -> EntryPoint:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        names = [NONE, *([TENSORBOARD] if find_spec("tensorboard") else []), *sorted(found)]
        raise InputError(
            f"There is no tracker '{name}'{nearest(name, names)} Installed are {', '.join(names)}; packages offer others by an entry point "
            f"of the group {GROUP}."
        )
    return found[name]


class Tracking:
    """Hands figures to a run's tracker, each step's once, and keeps the run safe from it."""

    def __init__(self, name: str | None, *, stage: str, work: Path, settings: Mapping[str, Any], resumed: bool, report: Reporter) -> None:
        """name: as `resolved_tracker` gives it; None is none. work: the stage's folder of unfinished files.

        Raises RspnetError where the tracker of a new run cannot start.
        """
        self.name, self._report, self._path = name or NONE, report, work / _STATE
        self._tracker: Tracker | None = None
        if name is None or name == NONE:
            return
        self._state = self._read_state()
        # Before (step, 0: its figures; 1: those of the epoch that it ended) nothing is given again.
        self._done = tuple(self._state["done"].get(name, ()))
        folder = work / TRACKERS / name
        folder.mkdir(parents=True, exist_ok=True)
        where = "/".join(work.parent.absolute().parts[-2:])
        last_step = self._done[0] if self._done else None
        run = TrackedRun(stage=stage, name=where, id=self._state["id"], settings=settings, folder=folder, last_step=last_step)
        try:
            with redirect_stdout(sys.stderr):  # where results go, a tracker says nothing
                self._tracker = _start(name, run)
        except Exception as error:
            fault = f"The tracker {name} could not be started ({_words(error)})"
            if not resumed:
                raise RspnetError(f"{fault}: mend that, or use --tracker none.") from error
            report.warn(f"{fault}; {stage} goes on without it.")
            return
        report.info(f"{stage}: figures also go to the tracker {name} (--tracker names another, or none).")

    def log(self, step: int, figures: Mapping[str, float], *, of_epoch: bool = False) -> None:
        """Hand over figures, unless an earlier process did. Raises DiskFullError."""
        place = (step, int(of_epoch))
        if self._tracker is None or place <= self._done:
            return
        # Noted before: killed in between, a run loses these figures in the tracker, but never gives them twice.
        self._done = self._state["done"][self.name] = place
        write_atomic(self._path, json.dumps(self._state))
        try:
            with redirect_stdout(sys.stderr):
                self._tracker.log(step, {f"epoch/{name}" if of_epoch else name: value for name, value in figures.items()})
        except Exception as error:
            self._report.warn(f"The tracker {self.name} failed ({_words(error)}); the run goes on without it, with metrics.csv alone.")
            with suppress(Exception), redirect_stdout(sys.stderr):
                self._tracker.close()
            self._tracker = None

    def close(self) -> None:
        """Tell the tracker that this process ends the run, for now or for good."""
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        try:
            with redirect_stdout(sys.stderr):
                tracker.close()
        except Exception as error:
            self._report.warn(f"The tracker {self.name} could not be closed ({_words(error)}); the run is not affected.")

    def _read_state(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or not as it was written
            state: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(state["id"], str) and isinstance(state["done"], dict):
                return state
        return {"id": uuid.uuid4().hex, "done": {}}


def _start(name: str, run: TrackedRun) -> Tracker:
    if name == TENSORBOARD:
        return _TensorBoard(run)
    start: Callable[[TrackedRun], Tracker] = _offered(name).load()
    return start(run)


def _words(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


class _TensorBoard:
    """Event files; the figures of a resumed run follow in a file of their own."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.folder))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
