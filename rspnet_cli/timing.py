"""Named parts of the work: the code that does it says where a part begins and ends, and `rspnet bench` listens.

While nobody listens, a part costs 0.4 microseconds and changes nothing; it never waits for a device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import get_ident
from time import perf_counter
from types import TracebackType
from typing import Literal, Protocol

Part = Literal[
    "other",
    # training
    "loader wait",
    "transfer",
    "augmentation",
    "key forwards",
    "query forward",
    "objective",
    "backward",
    "optimizer",
    "EMA and queue",
    # reading clips
    "open",
    "decode",
    "convert",
    "crop",
    # extract
    "hash",
    "scale",
    "encode",
    "write",
    # export-features
    "preprocess",
    "forward",
    # eval-retrieval
    "prepare",
    "search",
]
"""Every part there is. A part's time is without that of the parts within it; "other" is what a measurement adds around all of them."""


class Listener(Protocol):
    """Who is told of parts; they are nested, so `end` is that of the one begun last."""

    def begin(self, part: Part) -> None:
        """A part begins."""

    def end(self) -> None:
        """The part that was begun last ends, also by an exception."""


_listener: Listener | None = None
_thread = 0
"""The one that is listened to."""
_UNHEARD = nullcontext()


def timed(part: Part) -> AbstractContextManager[None]:
    """The block is a part of the work. Not to be left open across the yield of a generator."""
    if _listener is None or get_ident() != _thread:  # parts of several threads are not within each other
        return _UNHEARD
    return _Timed(_listener, part)


class _Timed:
    __slots__ = ("listener", "part")

    def __init__(self, listener: Listener, part: Part) -> None:
        self.listener, self.part = listener, part

    def __enter__(self) -> None:
        self.listener.begin(self.part)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.listener.end()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of the parts of this thread, and none that listened before; processes forked meanwhile are not listened to."""
    global _listener, _thread
    before, _listener, _thread = _listener, listener, get_ident()
    try:
        yield
    finally:
        _listener = before


def _deafen() -> None:
    global _listener
    _listener = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_deafen)  # a loader's worker would fill a listener that nobody asks, and may not touch the GPU


class Stopwatch:
    """A listener that adds up seconds by the clock of this process."""

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        """wait: called at every border, for devices that compute behind the host's back and have no clock of their own."""
        self.seconds: dict[Part, float] = {}
        """Part -> seconds so far, without those of the parts within it; complete when the outermost part has ended."""
        self._wait = wait
        self._open: list[tuple[Part, float]] = []  # part, when it began

    def begin(self, part: Part) -> None:
        """A part begins."""
        self._wait()
        self._open.append((part, perf_counter()))

    def end(self) -> None:
        """The part that was begun last ends."""
        self._wait()
        part, began = self._open.pop()
        add_part(self.seconds, part, self._open[-1][0] if self._open else None, perf_counter() - began)


def add_part(seconds: dict[Part, float], part: Part, within: Part | None, lasted: float) -> None:
    """Add what a part lasted to its seconds, and take it off those of the part that it lies within."""
    seconds[part] = seconds.get(part, 0.0) + lasted
    if within is not None:
        seconds[within] = seconds.get(within, 0.0) - lasted
