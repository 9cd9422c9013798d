"""Parts of the work: unheard they are nothing, heard they add up, whatever happens in them."""

import multiprocessing
import threading
import time

import pytest

from rspnet_cli.timing import Part, Stopwatch, add_part, listening, timed


class Notes:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, part: Part) -> None:
        self.told.append(part)

    def end(self) -> None:
        self.told.append("end")


def test_a_listener_hears_parts_within_parts_and_nothing_before_or_after() -> None:
    notes = Notes()
    with timed("decode"):
        pass
    with listening(notes), timed("other"):
        with timed("decode"), timed("convert"):
            pass
        with pytest.raises(KeyError), timed("crop"):
            raise KeyError
    with timed("decode"):
        pass
    assert notes.told == ["other", "decode", "convert", "end", "end", "crop", "end", "end"]


def test_the_last_listener_alone_hears() -> None:
    outer, inner = Notes(), Notes()
    with listening(outer):
        with listening(inner), timed("open"):
            pass
        with timed("hash"):
            pass
    assert (outer.told, inner.told) == (["hash", "end"], ["open", "end"])


def test_parts_add_up_to_the_time_that_has_passed() -> None:
    watch, began = Stopwatch(), time.perf_counter()
    with listening(watch), timed("other"):
        with timed("decode"):
            time.sleep(0.02)
            for _ in range(2):
                with timed("convert"):
                    time.sleep(0.02)
        time.sleep(0.01)
    passed = time.perf_counter() - began
    assert sum(watch.seconds.values()) == pytest.approx(passed, abs=0.005)
    assert watch.seconds["convert"] >= 0.04
    assert watch.seconds["decode"] >= 0.02
    assert watch.seconds["other"] >= 0.01
    assert watch.seconds["decode"] <= passed - 0.05


def test_a_part_takes_its_time_off_the_one_around_it() -> None:
    seconds: dict[Part, float] = {}
    add_part(seconds, "convert", "decode", 2.0)
    add_part(seconds, "decode", "other", 5.0)
    add_part(seconds, "convert", "other", 1.0)
    add_part(seconds, "other", None, 10.0)
    assert seconds == {"convert": 3.0, "decode": 3.0, "other": 4.0}


def test_other_threads_are_not_listened_to() -> None:
    notes = Notes()

    def elsewhere() -> None:
        with timed("decode"):
            pass

    with listening(notes), timed("other"):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert notes.told == ["other", "end"]


def test_a_forked_process_is_not_listened_to() -> None:
    notes = Notes()
    context = multiprocessing.get_context("fork")
    with listening(notes):
        ours, theirs = context.Pipe()
        process = context.Process(target=_in_child, args=(notes, theirs))
        process.start()
        assert ours.recv() == []
        process.join()
        with timed("open"):
            pass
    assert notes.told == ["open", "end"]


def _in_child(notes: Notes, pipe: "multiprocessing.connection.Connection") -> None:
    with timed("decode"):
        pass
    pipe.send(notes.told)
