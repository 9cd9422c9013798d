"""Worker processes that read ahead: the one way in which clips reach an encoder."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from rspnet_cli.clips.slots import Parcel, Room, Slots, own_room
from rspnet_cli.errors import RspnetError
from rspnet_cli.stopping import STOP_SIGNALS
from rspnet_cli.timing import timed

_SIGNALS = {*STOP_SIGNALS, signal.SIGCHLD}


class Source(Protocol):
    """What workers read items from."""

    def read(self, job: Any, room: Room) -> Any:
        """The item of a job, its large arrays in memory that `room` gives. What is wrong with a video is returned, not raised: a worker's
        traceback is no sentence.
        """


def read_ahead(source: Source, jobs: Iterable[Any], *, workers: int, prefetch: int, item_bytes: int, pin_memory: bool) -> Generator[Any]:
    """The items of the jobs, in order, `prefetch` of them ahead per worker; the workers end with the generator (close it).

    An item is there until the next one is asked for: then its memory is used again. item_bytes: at most so much room is asked for one.
    Raises an RspnetError that is an item.
    """
    slots = _slots(workers * prefetch + 1, item_bytes) if workers else None
    loader = {
        "batch_size": None,
        "num_workers": workers,
        "collate_fn": _unchanged,
        "worker_init_fn": _begin_worker,
        "pin_memory": pin_memory,
        "prefetch_factor": prefetch if workers else None,
        "multiprocessing_context": "fork" if slots is not None else None,
        "generator": torch.Generator(),  # else the loader draws a seed, which nothing here uses, from the caller's random state
    }
    with _workers(_InSlots(source, slots), sampler=_Jobs(jobs, slots), **loader) as items:
        yield from _checked(items)


def _slots(count: int, size: int) -> Slots | None:
    """Memory to share with workers; None where they are not forked (macOS), or where there is none: then every item brings its own."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return Slots(count, size)
    except (OSError, OverflowError):
        return None


@dataclass(frozen=True)
class _Jobs:
    """(job, slot to fill or None), drawn when a worker is free to read on."""

    jobs: Iterable[Any]
    slots: Slots | None

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        for job in self.jobs:
            yield job, None if self.slots is None else self.slots.take()


class _InSlots(Dataset[Any]):
    """What a worker does with a job."""

    def __init__(self, source: Source, slots: Slots | None) -> None:
        self.source, self.slots = source, slots

    def __getitem__(self, asked: tuple[Any, int | None]) -> Any:
        job, slot = asked
        if self.slots is None or slot is None:
            return self.source.read(job, own_room)
        return self.slots.parcel(slot, partial(self.source.read, job))


def _unchanged(item: Any) -> Any:
    return item


@contextmanager
def _workers(dataset: Dataset[Any], **how: Any) -> Iterator[Iterator[Any]]:
    """A DataLoader's items; its workers end with the block.

    torch's handler of SIGCHLD is off meanwhile: it raises for a dead worker wherever the program happens to stand, also while it ends its
    workers itself. Without it `next` finds out, within seconds.
    """
    # Only the main thread has handlers, and torch sets none elsewhere.
    signals = _SIGNALS if threading.current_thread() is threading.main_thread() else set()
    items, handler = None, None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # a signal waits until there is something to end
    try:
        try:
            with warnings.catch_warnings():
                # More workers than cores is the user's choice, and right where reading waits for a disk.
                warnings.filterwarnings("ignore", message="This DataLoader will create")
                # The workers neither use nor wait for the threads that there are.
                warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
                items = iter(DataLoader(dataset, **how))
            handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if signals else None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield items
    finally:
        # Now, and not when the last traceback that knows this frame is forgotten.
        getattr(items, "_shutdown_workers", lambda: None)()
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def _checked(items: Iterator[Any]) -> Generator[Any]:
    """The items, out of their slots. Raises an RspnetError among them, and one for a worker that was killed."""
    while True:
        try:
            with timed("loader wait"):
                item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # as torch finds a worker dead, or as its connection breaks off
            # A signal for the whole process group may have reached the workers first: then this sleep ends with ours.
            time.sleep(1)
            if all(worker.is_alive() for worker in getattr(items, "_workers", ())):
                raise
            raise RspnetError(
                "A worker process that reads clips was killed, by somebody or for want of memory: use fewer --workers, or a smaller "
                "--batch-size, if memory ran out. The same command continues."
            ) from error
        opened = item.open() if isinstance(item, Parcel) else item
        if isinstance(opened, RspnetError):
            raise opened
        yield opened
        if isinstance(item, Parcel):
            item.slots.give_back(item.slot)


def _begin_worker(_: int) -> None:
    """Ctrl-C and a scheduler's warning reach all processes and are the parent's business; SIGTERM ends a worker without a word."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also how torch ends a worker that is stuck
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # What the parent had is never garbage here; looking through it would write to, and so copy, every page of it.
    gc.freeze()
    torch.set_num_threads(1)
