"""Worker processes that read ahead: the one way in which clips reach an encoder."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rspnet_cli.errors import RspnetError


def read_ahead(
    dataset: Dataset[Any], *, workers: int, prefetch: int, collate: Callable[[Any], Any], pin_memory: bool, **order: Any
) -> Generator[Any]:
    """Items (or batches) in order, `prefetch` of them ahead per worker; the workers end with the generator (close it).

    order: how DataLoader is told what comes when (`batch_sampler`, or `sampler` and `batch_size`). An RspnetError among the items is
    raised: datasets return what is wrong with a video, because a worker's traceback is no sentence.
    """
    with warnings.catch_warnings():
        # More workers than cores is the user's choice, and right where reading waits for a disk.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Any] = DataLoader(
            dataset,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_ignore_interrupts,
            pin_memory=pin_memory,
            prefetch_factor=prefetch if workers else None,
            generator=torch.Generator(),  # else the loader draws a seed, which nothing here uses, from the caller's random state
            **order,
        )
        items = iter(loader)
    try:
        for item in items:
            if isinstance(item, RspnetError):
                raise item
            yield item
    finally:
        del items  # ends the workers now, and not when the last traceback that knows this frame is forgotten


def _ignore_interrupts(_: int) -> None:
    """In a worker: Ctrl-C is the parent's business (the terminal sends it to all), and SIGTERM ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
