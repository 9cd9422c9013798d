"""Batches on their way to a GPU: the same ones in the same order, one ahead, and on a CPU nothing but the loader's own."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.clips.dataset import ClipBatch
from rspnet_cli.clips.prefetch import prefetched
from rspnet_cli.errors import RspnetError, Stopped
from tests.clips.test_augment import CPU, SIZE, batch_of_planes

DONE: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


def numbers(count: int, error: BaseException | None = None) -> Generator[int]:
    """The loader: says what is read, what is wrong after the last one, and that it ends."""
    try:
        for number in range(count):
            DONE.append(f"read {number}")
            yield number
        if error is not None:
            raise error
    finally:
        DONE.append("ended")


def sent(number: int) -> int:
    DONE.append(f"sent {number}")
    return number


def taken(source: Generator[int]) -> list[int]:
    result = []
    for number in source:
        DONE.append(f"step {number}")
        result.append(number)
    return result


def test_on_a_cpu_nothing_is_read_before_it_is_asked_for() -> None:
    assert taken(prefetched(numbers(3), sent, CPU)) == [0, 1, 2]
    each = [[f"read {number}", f"sent {number}", f"step {number}"] for number in range(3)]
    assert [*each[0], *each[1], *each[2], "ended"] == DONE


def test_one_ahead_every_batch_is_on_its_way_before_the_step_with_the_one_before() -> None:
    assert taken(prefetched(numbers(3), sent, CPU, ahead=True)) == [0, 1, 2]
    assert DONE == ["read 0", "sent 0", "read 1", "sent 1", "step 0", "read 2", "sent 2", "step 1", "ended", "step 2"]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_wrong_with_a_batch_is_raised_when_the_steps_before_it_are_done(ahead: bool, count: int) -> None:
    with pytest.raises(RspnetError, match="broken"):
        taken(prefetched(numbers(count, RspnetError("broken")), sent, CPU, ahead=ahead))
    assert [what for what in DONE if what.startswith("step")] == [f"step {number}" for number in range(count)]


def test_a_signal_while_the_next_batch_is_waited_for_does_not_wait_for_a_step() -> None:
    source = prefetched(numbers(1, Stopped(15)), sent, CPU, ahead=True)
    with pytest.raises(Stopped):
        next(source)
    assert DONE == ["read 0", "sent 0", "ended"]


@pytest.mark.parametrize("ahead", [False, True])
def test_the_loader_ends_with_it(ahead: bool) -> None:
    source = prefetched(numbers(9), sent, CPU, ahead=ahead)
    next(source)
    assert DONE[-1] != "ended"
    source.close()
    assert DONE[-1] == "ended"


def test_a_copy_begins_after_the_steps_that_are_launched_and_a_step_waits_for_its_own_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = name if isinstance(name, str) else "side"

        def wait_stream(self, other: "Stream") -> None:
            DONE.append(f"{self.name} waits for {other.name}")

        def record_event(self) -> str:
            return DONE[-1]

        def wait_event(self, event: str) -> None:
            DONE.append(f"{self.name} waits for '{event}'")

    @contextmanager
    def on(stream: Stream) -> Generator[None]:
        DONE.append(f"on {stream.name}")
        yield

    main = Stream("main")
    monkeypatch.setattr(torch.cpu, "Stream", Stream)
    monkeypatch.setattr(torch.cpu, "stream", on)
    monkeypatch.setattr(torch.cpu, "current_stream", lambda device: main)
    taken(prefetched(numbers(2), sent, CPU, ahead=True))
    copies = [["side waits for main", "on side", f"sent {number}"] for number in range(2)]
    steps = [[f"main waits for 'sent {number}'", f"step {number}"] for number in range(2)]
    assert ["read 0", *copies[0], "read 1", *copies[1], *steps[0], "ended", *steps[1]] == DONE


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [False, True])
def test_a_gpu_gets_every_batch_whole_however_busy_it_is(fused: bool, cuda: torch.device) -> None:
    kept = [
        ClipBatch((batch_of_planes("reference", frames=2 + number % 3, size=(18 + number, 22)),), torch.tensor([number]))
        for number in range(12)
    ]
    augmentation = Augmentation(SIZE, False, "reference", cuda, fused=fused)
    work, seen = torch.randn(4096, 4096, device=cuda), []
    for batch in prefetched((batch.pin_memory() for batch in kept), augmentation.ready_batch, cuda):
        for _ in range(5):  # some milliseconds, in which the next batches arrive
            work = (work @ work).clamp(-1, 1)
        (crops,) = batch.clips
        assert crops.pixels.is_cuda
        seen.append((crops.pixels.clone(), [table.clone() for table in crops.tables], batch.videos.clone()))
    assert len(seen) == len(kept)
    for batch, (pixels, tables, videos) in zip(kept, seen, strict=True):
        expected = Augmentation(SIZE, False, "reference", CPU, fused=fused).ready(batch.clips[0])
        assert torch.equal(pixels.cpu(), expected.pixels)
        assert all(torch.equal(one.cpu(), other) for one, other in zip(tables, expected.tables, strict=True))
        assert torch.equal(videos.cpu(), batch.videos)
