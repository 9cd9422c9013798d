"""Worker processes that read ahead: the one way in which clips reach an encoder."""

from __future__ import annotations

import gc
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rspnet_cli.errors import RspnetError
from rspnet_cli.stopping import STOP_SIGNALS
from rspnet_cli.timing import timed

_SIGNALS = {*STOP_SIGNALS, signal.SIGCHLD}


def read_ahead(
    dataset: Dataset[Any], *, workers: int, prefetch: int, collate: Callable[[Any], Any], pin_memory: bool, **order: Any
) -> Generator[Any]:
    """Items (or batches) in order, `prefetch` of them ahead per worker; the workers end with the generator (close it).

    order: how DataLoader is told what comes when (`batch_sampler`, or `sampler` and `batch_size`). An RspnetError among the items is
    raised: datasets return what is wrong with a video, because a worker's traceback is no sentence.
    """
    loader = {
        "num_workers": workers,
        "collate_fn": collate,
        "worker_init_fn": _begin_worker,
        "pin_memory": pin_memory,
        "prefetch_factor": prefetch if workers else None,
        "generator": torch.Generator(),  # else the loader draws a seed, which nothing here uses, from the caller's random state
    }
    with _workers(dataset, **loader, **order) as items:
        yield from _checked(items)


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
    """The items. Raises an RspnetError among them, and one for a worker that was killed."""
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
        if isinstance(item, RspnetError):
            raise item
        yield item


def _begin_worker(_: int) -> None:
    """Ctrl-C and a scheduler's warning reach all processes and are the parent's business; SIGTERM ends a worker without a word."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also how torch ends a worker that is stuck
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # What the parent had is never garbage here; looking through it would write to, and so copy, every page of it.
    gc.freeze()
    torch.set_num_threads(1)
