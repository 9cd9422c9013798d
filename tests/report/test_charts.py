"""Lines lie where their values are, and a scale has round numbers around them."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.report.charts import Line, _ticks, line_chart
from rspnet_cli.report.training import binned


@given(low=st.floats(-1e6, 1e6), size=st.floats(1e-6, 1e6))
def test_ticks_are_round_and_span_the_values(low: float, size: float) -> None:
    ticks = _ticks(low, low + size)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * step + 1e-9
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + size - slack
    assert 2 <= len(ticks) <= 9
    leading = step / 10 ** math.floor(math.log10(step * 1.001))
    assert any(leading == pytest.approx(factor, rel=1e-3) for factor in (1, 2, 5, 10))


def test_a_line_has_a_gap_where_there_is_no_value() -> None:
    chart = line_chart("key", "title", [1, 2, 3, 4, 5], [Line("a", [0.0, 1.0, None, 1.0, 0.0], "s1")], x_label="x")
    pieces = re.findall(r'<polyline points="([^"]+)"', chart)
    assert [len(piece.split()) for piece in pieces] == [2, 2]
    heights = [[float(point.split(",")[1]) for point in piece.split()] for piece in pieces]
    assert heights[0] == heights[1][::-1]
    assert heights[0][0] > heights[0][1], "larger is higher"


@pytest.mark.parametrize("values", [[2.0], [3.0, 3.0], [-1.0, -5.0], [0.0, 0.0], [1e-8, 2e-8], [1e12, 1e12 + 1]])
def test_few_equal_and_extreme_values_have_a_place_on_the_chart(values: list[float]) -> None:
    chart = line_chart("key", "title", [float(step) for step in range(len(values))], [Line("a", values, "s1")], x_label="x")
    points = [float(number) for piece in re.findall(r'points="([^"]+)"', chart) for number in re.findall(r"[-\d.]+", piece)]
    assert len(points) == 2 * len(values)
    assert all(0 <= point <= 400 for point in points)


def test_the_tip_has_the_values_as_they_are_read() -> None:
    chart = line_chart("key", "title", [10, 20], [Line("a & b", [0.123456, None], "s1")], x_label="steps")
    data = json.loads(re.search(r'class="chart-data">(.*?)</script>', chart)[1])  # type: ignore[index]
    assert data["names"] == ["10", "20"]
    assert data["lines"] == [{"label": "a & b", "values": ["0.1235", "–"]}]


@given(rows=st.lists(st.floats(-100, 100) | st.none(), max_size=40), limit=st.integers(1, 12))
def test_binned_rows_are_means_and_end_where_the_log_ends(rows: list[float | None], limit: int) -> None:
    log = [{"step": float(step), "loss": value} for step, value in enumerate(rows)]
    points, size = binned(log, limit)
    assert len(points) <= limit
    assert len(points) == math.ceil(len(rows) / size)
    if rows:
        assert points[-1]["step"] == len(rows) - 1
    for place, point in enumerate(points):
        some = [value for value in rows[place * size : (place + 1) * size] if value is not None]
        assert point["loss"] == (pytest.approx(sum(some) / len(some)) if some else None)
