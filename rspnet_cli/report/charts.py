"""Line charts as SVG: axes with round ticks, lines told apart by colour, dashes and marks, whiskers for intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rspnet_cli.report.figure import svg
from rspnet_cli.report.html import Html, data_block, element, join, number

_Scale = Callable[[float], float]
WIDTH, HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34


@dataclass(frozen=True)
class Line:
    """A line of a chart: `style` (s1 to s6) sets colour and dashes; y has None where there is no value; low, high: its interval."""

    label: str
    y: Sequence[float | None]
    style: str
    interval: Sequence[Sequence[float] | None] | None = None


def line_chart(
    key: str,
    title: str,
    x: Sequence[float],
    lines: Sequence[Line],
    *,
    x_label: str,
    x_names: Sequence[str] | None = None,
    share_axis: bool = False,
    shaded_until: float | None = None,
    connected: bool = True,
) -> Html:
    """Lines over a common x. x_names: names of the places 0, 1, ... (a scale that is no number line). share_axis: y runs from 0 to 1.

    shaded_until: x up to which the background is shaded. connected: False for figures that have no order. The values are also there as
    JSON, for the script's tip.
    """
    low, high = (0.0, 1.0) if share_axis else _range([value for line in lines for value in _values(line)])
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = (x[0], x[-1]) if len(x) > 1 else (x[0] - 1, x[0] + 1)
    pad = 18 if x_names else 0

    def across(value: float) -> float:
        return _LEFT + pad + (WIDTH - _LEFT - _RIGHT - 2 * pad) * (value - first) / (last - first)

    def up(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts: list[Html] = []
    if shaded_until is not None and shaded_until > first:
        width = across(min(shaded_until, last)) - _LEFT
        parts.append(element("rect", x=_LEFT, y=_TOP, width=width, height=HEIGHT - _TOP - _BOTTOM, class_="shade"))
    for tick in ticks:
        parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=up(tick), y2=up(tick), class_="grid"))
        parts.append(element("text", f"{tick:g}", x=_LEFT - 6, y=up(tick) + 4, class_="end"))
    places = list(zip(x, x_names, strict=True)) if x_names else [(tick, number(_whole(tick))) for tick in _ticks(first, last, 4)]
    for place, label in places:
        if first <= place <= last:
            for row, word in enumerate(label.split(" ", 1)):
                parts.append(element("text", word, x=across(place), y=HEIGHT - _BOTTOM + 15 + 12 * row, class_="middle"))
    parts.append(element("text", x_label, x=(WIDTH + _LEFT) / 2, y=HEIGHT - 3, class_="middle axis"))
    for place, line in enumerate(lines):
        # Whiskers side by side: on top of each other they could not be told apart.
        aside = (5.0 if connected else 8.0) * (place - (len(lines) - 1) / 2) if x_names else 0.0
        marks = x_names is not None or len(x) == 1
        parts += _drawn(line, x, lambda value, aside=aside: across(value) + aside, up, marks=marks, connected=connected)  # type: ignore[misc]
    parts.append(element("line", x1=0, x2=0, y1=_TOP, y2=HEIGHT - _BOTTOM, class_="cross"))
    data = {
        "x": [across(value) for value in x],
        "names": list(x_names) if x_names else [number(_whole(value)) for value in x],
        "x_label": x_label,
        "lines": [{"label": line.label, "values": [number(value) for value in line.y]} for line in lines],
    }
    return join((svg(parts, width=WIDTH, height=HEIGHT, title=title, key=key, class_="chart"), data_block(data, class_="chart-data")))


def _drawn(line: Line, x: Sequence[float], across: _Scale, up: _Scale, *, marks: bool, connected: bool) -> Iterator[Html]:
    for piece in _pieces(x, line.y) if connected else ():
        points = " ".join(f"{across(place):.1f},{up(value):.1f}" for place, value in piece)
        yield element("polyline", points=points, class_=f"line {line.style}")
    for place, value, interval in zip(x, line.y, line.interval or [None] * len(x), strict=True):
        if interval is not None:
            yield element(
                "line", x1=across(place), x2=across(place), y1=up(interval[0]), y2=up(interval[1]), class_=f"whisker {line.style}"
            )
        if marks and value is not None:
            yield element("circle", cx=across(place), cy=up(value), r=3, class_=f"dot {line.style}")


def _pieces(x: Sequence[float], y: Sequence[float | None]) -> Iterator[list[tuple[float, float]]]:
    """The line without its gaps."""
    piece: list[tuple[float, float]] = []
    for place, value in zip(x, y, strict=True):
        if value is not None:
            piece.append((place, value))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _values(line: Line) -> list[float]:
    ends = [end for interval in line.interval or () if interval is not None for end in interval]
    return [value for value in line.y if value is not None] + ends


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest, from 0 where that is near enough not to flatten the lines."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if 0 <= low <= 0.6 * high:
        low = 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that span low to high, about so many."""
    rough = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.99)
    start = math.floor(low / step + 1e-9)
    end = math.ceil(high / step - 1e-9)
    return [round(count * step, 12) for count in range(start, end + 1)]


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
