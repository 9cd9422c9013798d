"""Times of frames: what can be believed is kept to the tick, the rest is repaired and counted."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.videos.timestamps import MAX_GAP, Timeline, average_rate, store_timescale


def repaired(pts: list[int | None], nominal: int = 10) -> tuple[list[int], int]:
    timeline = Timeline(nominal=nominal)
    times = [timeline.next(own, following) for own, following in zip(pts, [*pts[1:], None], strict=True)]
    return times, timeline.repaired


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True))
def test_increasing_times_are_kept_to_the_tick(pts: list[int]) -> None:
    assert repaired(sorted(pts)) == (sorted(pts), 0)


@given(st.lists(st.one_of(st.none(), st.integers(-50, 500)), min_size=1, max_size=60), st.integers(1, 40))
def test_whatever_the_source_says_times_increase_from_zero_or_later(pts: list[int | None], nominal: int) -> None:
    times, count = repaired(pts, nominal)
    assert times[0] >= 0
    assert all(a < b for a, b in pairwise(times))
    shift = max(0, -(pts[0] or 0))
    assert count == sum(own is None or own + shift != time for own, time in zip(pts, times, strict=True))


@given(st.lists(st.integers(1, 100), min_size=2, max_size=40), st.integers(-1000, -1))
def test_a_start_below_zero_moves_the_whole_video_and_is_no_repair(steps: list[int], start: int) -> None:
    pts: list[int | None] = [start + sum(steps[:i]) for i in range(len(steps))]
    times, count = repaired(pts)
    assert times == [pts_i - start for pts_i in pts if pts_i is not None]
    assert count == 0


@pytest.mark.parametrize(
    ("pts", "expected", "count"),
    [
        ([0, 10, 10, 30, 40], [0, 10, 20, 30, 40], 1),  # repeated
        ([0, 10, None, 30], [0, 10, 20, 30], 1),  # missing
        ([None, 10, 20], [0, 10, 20], 1),  # the first is missing
        ([0, 10, 20, 0, 10, 20], [0, 10, 20, 30, 40, 50], 3),  # starts over: goes on at the nominal rate
        ([0, 10, 20, 9000, 40, 50], [0, 10, 20, 30, 40, 50], 1),  # one that runs ahead is the odd one, not all after it
        ([0, 10, 20, 30, 15, 50], [0, 10, 20, 30, 40, 50], 1),  # one that runs back
        ([0, 10, 11, 11, 12], [0, 10, 11, 21, 31], 2),  # no room in between
    ],
)
def test_repairs(pts: list[int | None], expected: list[int], count: int) -> None:
    assert repaired(pts) == (expected, count)


def test_a_gap_that_an_mp4_cannot_state_is_not_believed() -> None:
    assert repaired([0, 10, 10 + MAX_GAP], nominal=10) == ([0, 10, 20], 1)
    assert repaired([0, 10, 9 + MAX_GAP], nominal=10) == ([0, 10, 9 + MAX_GAP], 0)


@given(st.integers(1, 1001), st.integers(1, 10**9))
def test_the_store_keeps_every_tick_of_up_to_a_million_per_second(numerator: int, denominator: int) -> None:
    base = Fraction(numerator, denominator)
    scale = store_timescale(base)
    assert 10_000 <= scale <= 1_000_000
    if base.denominator <= 1_000_000:
        assert (base * scale).denominator == 1
    assert store_timescale(Fraction(1, scale)) == scale


def test_average_rate_is_exact_for_a_constant_rate() -> None:
    assert average_rate(100, 100 + 39 * 512, 40, Fraction(1, 12800)) == 25.0
    assert average_rate(5, 5 + 299 * 1001, 300, Fraction(1, 30_000)) == float(Fraction(30_000, 1001))
    assert average_rate(0, 0, 1, Fraction(1, 25)) is None
