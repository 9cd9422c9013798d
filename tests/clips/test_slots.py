"""Slots: what a worker puts there arrives as it was, copied nowhere, and a slot is nobody's twice."""

import multiprocessing
import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch

from rspnet_cli.clips.slots import Parcel, Room, Slots, own_room


class Item(NamedTuple):
    large: torch.Tensor
    second: torch.Tensor
    small: torch.Tensor
    name: str


def item(room: Room, value: int = 1) -> Item:
    large, second = room((3, 50)), room((70,))
    large[:], second[:] = value, value + 1
    return Item(torch.from_numpy(large), torch.from_numpy(second), torch.arange(5), "item")


def same(one: Item, other: Item) -> bool:
    return one.name == other.name and all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def is_in(array: torch.Tensor, memory: np.ndarray) -> bool:
    return 0 <= array.data_ptr() - memory.ctypes.data < len(memory)


def test_an_item_is_unpacked_as_it_was_from_where_it_lies() -> None:
    slots = Slots(2, 1000)
    for slot in range(2):
        parcel = pickle.loads(pickle.dumps(slots.parcel(slot, lambda room: item(room, 5))))
        assert isinstance(parcel, Parcel)
        assert len(parcel.content) < 1000  # without the arrays
        opened = parcel.open()
        assert same(opened, item(own_room, 5))
        assert [is_in(array, slots.memory(slot)) for array in opened[:3]] == [True, True, False]
        assert opened.large.data_ptr() % 64 == opened.second.data_ptr() % 64 == 0


def test_what_does_not_fit_into_a_slot_travels_with_the_item() -> None:
    slots = Slots(1, 1)  # a page
    size = len(slots.memory(0))
    parcel = slots.parcel(0, lambda room: (torch.from_numpy(room((size - 10,))).fill_(3), torch.from_numpy(room((100,))).fill_(4)))
    first, second = parcel.open()
    assert [is_in(array, slots.memory(0)) for array in (first, second)] == [True, False]
    assert first.eq(3).all()
    assert second.eq(4).all()


def test_another_process_fills_a_slot_and_this_one_reads_it() -> None:
    slots = Slots(3, 1000)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(slots.parcel(1, lambda room: item(room, 7))))
    process.start()
    parcel = ours.recv()
    process.join()
    assert same(parcel.open(), item(own_room, 7))
    assert is_in(parcel.open().large, slots.memory(1))


def test_a_slot_is_given_to_one_at_a_time() -> None:
    slots = Slots(2, 1)
    taken = [slots.take() for _ in range(3)]
    assert sorted(taken[:2], key=str) == [0, 1]
    assert taken[2] is None
    slots.give_back(1)
    assert (slots.take(), slots.take()) == (1, None)


class Copied(NamedTuple):
    """An item that says how it is copied to page-locked memory."""

    value: torch.Tensor

    def pin_memory(self) -> int:
        return int(self.value.sum())


def test_a_slot_is_free_once_its_item_is_copied_to_page_locked_memory() -> None:
    slots = Slots(1, 100)
    slot = slots.take()
    assert slot == 0
    parcel = slots.parcel(slot, lambda room: Copied(torch.from_numpy(room((4,))).fill_(3)))
    assert slots.take() is None
    assert parcel.pin_memory() == 12
    assert slots.take() == 0


def test_memory_that_nobody_gives_is_an_error() -> None:
    with pytest.raises((OSError, OverflowError)):
        Slots(2, 2**61)
