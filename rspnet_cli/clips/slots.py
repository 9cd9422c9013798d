"""Memory for what loader workers read, used again and again: a worker fills a slot, the training process reads it and gives it back.

Memory that is new for every batch costs a page fault per 4 KiB on either side. On a virtual machine 3 MB, two clips of 32 frames, took
2.7 ms of a worker and 1.3 ms of its parent, where decoding them took 5 to 6 and copying them 0.3.
"""

from __future__ import annotations

import io
import itertools
import math
import mmap
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

Pixels = npt.NDArray[np.uint8]
Room = Callable[[Sequence[int]], Pixels]
"""Gives memory for a uint8 array of a shape, not yet set."""

_ALIGNED = 64  # bytes
# How a parcel names the memory that it lies in: this process has it, and those that are forked from it.
_ALL: WeakValueDictionary[int, Slots] = WeakValueDictionary()
_numbers = itertools.count()


def own_room(shape: Sequence[int]) -> Pixels:
    """Room in this process' own memory."""
    return np.empty(shape, np.uint8)


class Slots:
    """`count` slots of `size` bytes each, shared with processes forked later; what nobody writes to takes no memory.

    Raises OSError or OverflowError where the system does not give as much.
    """

    def __init__(self, count: int, size: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = np.frombuffer(mmap.mmap(-1, count * self._size), np.uint8)
        self._free = deque(range(count))
        self._number = next(_numbers)
        _ALL[self._number] = self

    def __reduce__(self) -> tuple[Callable[[int], Slots], tuple[int]]:
        return _of_number, (self._number,)

    def take(self) -> int | None:
        """A slot that nobody uses, for a worker to fill; None where all are in use."""
        return self._free.popleft() if self._free else None

    def give_back(self, slot: int) -> None:
        """Nobody needs what is in a slot any more. Any thread may say so."""
        self._free.append(slot)

    def memory(self, slot: int) -> Pixels:
        """(size,) uint8."""
        return self._memory[slot * self._size : (slot + 1) * self._size]

    def parcel(self, slot: int, read: Callable[[Room], Any]) -> Parcel:
        """What `read` gives, with the arrays for which it asked room in a slot."""
        room = _SlotRoom(self.memory(slot))
        item = read(room)
        spans: list[tuple[int, int]] = []

        def lies_elsewhere(buffer: pickle.PickleBuffer) -> bool:
            span = room.span_of(np.frombuffer(buffer.raw(), np.uint8))
            if span is not None:
                spans.append(span)
            return span is None

        stream = io.BytesIO()
        _Pickler(stream, protocol=5, buffer_callback=lies_elsewhere).dump(item)
        return Parcel(self, slot, stream.getvalue(), tuple(spans))


def _of_number(number: int) -> Slots:
    return _ALL[number]


@dataclass(frozen=True)
class Parcel:
    """An item on its way from a worker, its arrays in a slot."""

    slots: Slots
    slot: int
    content: bytes
    """The item, pickled, without what lies in the slot."""
    spans: tuple[tuple[int, int], ...]
    """Where in the slot its arrays lie."""

    def open(self) -> Any:
        """The item; its large arrays are good until the slot is given back."""
        memory = self.slots.memory(self.slot)
        return pickle.loads(self.content, buffers=[memory[start:stop].data for start, stop in self.spans])

    def pin_memory(self) -> Any:
        """A copy of the item in page-locked memory (called by the DataLoader); the slot is free again."""
        item = pin_memory(self.open())  # type: ignore[no-untyped-call]
        self.slots.give_back(self.slot)
        return item


class _SlotRoom:
    """Room after room from the beginning of a slot; what does not fit any more lies elsewhere."""

    def __init__(self, memory: Pixels) -> None:
        self._memory, self._used = memory, 0

    def __call__(self, shape: Sequence[int]) -> Pixels:
        start, size = self._used, math.prod(shape)
        if start + size > len(self._memory):
            return own_room(shape)
        self._used = -(-(start + size) // _ALIGNED) * _ALIGNED
        return self._memory[start : start + size].reshape(shape)

    def span_of(self, array: Pixels) -> tuple[int, int] | None:
        """Where in the slot an array lies, from and to; None if it lies elsewhere."""
        start = array.ctypes.data - self._memory.ctypes.data
        return (start, start + array.size) if array.size and 0 <= start < len(self._memory) else None


class _Pickler(pickle.Pickler):
    """Tensors as the arrays that they are, which pickle can leave where they lie."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if type(value) is Tensor else NotImplemented
