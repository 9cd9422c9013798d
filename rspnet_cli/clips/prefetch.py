"""Batches travel to a GPU while it computes with the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import torch

from rspnet_cli.errors import RspnetError
from rspnet_cli.timing import timed

Batch = TypeVar("Batch")


def prefetched(
    batches: Generator[Batch], ready: Callable[[Batch], Batch], device: torch.device, *, ahead: bool | None = None
) -> Generator[Batch]:
    """The batches on their device, in order; the loader's end with this generator (close it).

    ready: brings a batch there, waiting for nothing. ahead: the next batch is asked for and sent on its way, on a stream of its own, before
    the current one is handed out (default: on a GPU alone). Elsewhere nothing is sent, and nothing is read earlier.
    """
    with closing(batches):
        moved = _moved(batches, ready, device)
        for batch, here in _one_ahead(moved) if (device.type == "cuda" if ahead is None else ahead) else moved:
            with timed("transfer"):
                here()
            yield batch


def _moved(batches: Iterator[Batch], ready: Callable[[Batch], Batch], device: torch.device) -> Generator[tuple[Batch, Callable[[], None]]]:
    """Batches on their way, and what makes the current stream wait until one is there."""
    # A CPU's streams, which do nothing, are those of all devices that have none.
    streams: Any = torch.cuda if device.type == "cuda" else torch.cpu
    beside = streams.Stream(device)
    for batch in batches:
        with timed("transfer"):
            # Steps that are launched already may still use memory that was given back: a batch that takes it over comes after them. It
            # needs no more care than that, since every step is launched before the next batch is asked for.
            beside.wait_stream(streams.current_stream(device))
            with streams.stream(beside):
                on_its_way = ready(batch)
            arrival = beside.record_event()
        del batch  # page-locked memory is the loader's again
        yield on_its_way, partial(_await, streams, device, arrival)


def _await(streams: Any, device: torch.device, arrival: Any) -> None:
    streams.current_stream(device).wait_event(arrival)


def _one_ahead(items: Iterator[Any]) -> Generator[Any]:
    """The items, each handed out when the next one is there. What is wrong with that one is raised in its turn."""
    held: list[Any] = []
    wrong: RspnetError | None = None
    while wrong is None:
        try:
            held.append(next(items))
        except StopIteration:
            break
        except RspnetError as error:
            wrong = error
        if len(held) > 1:
            yield held.pop(0)
    yield from held
    if wrong is not None:
        raise wrong
