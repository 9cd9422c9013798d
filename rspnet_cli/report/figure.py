"""The parts that every section is made of: a figure with its table and its command, sortable tables, sections and what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rspnet_cli.report.html import Child, Html, element, join, text

Cell = Child | tuple[Child, float | int | str]
"""What a table's cell shows, or (what it shows, what it is sorted by)."""


@dataclass(frozen=True)
class Section:
    """A part of the report. clips: ids of the videos whose clips it shows, the most wanted first."""

    key: str
    title: str
    body: Html
    clips: Sequence[str] = ()


@dataclass(frozen=True)
class LeftOut:
    """A part that cannot be shown: why, and what to do for it."""

    key: str
    title: str
    reason: str


@dataclass(frozen=True)
class Table:
    """Rows behind a figure. numeric: columns to the right, sorted by value; note: what the rows are, if not evident."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = field(default_factory=frozenset)
    note: str = ""


def numbers(header: Sequence[str], *text_columns: int) -> frozenset[int]:
    """The columns that hold numbers: all but those given."""
    return frozenset(range(len(header))) - set(text_columns)


def table_html(table: Table, caption: str) -> Html:
    """An HTML table that the page's script makes sortable."""
    head = element("tr", *(element("th", title, scope="col", class_=_align(table, i)) for i, title in enumerate(table.header)))
    rows = (element("tr", *(_cell(cell, _align(table, i)) for i, cell in enumerate(row))) for row in table.rows)
    # One line per row: a difference of two reports can be read.
    body = join(join((Html("\n"), row)) for row in rows)
    return element(
        "div",
        element("table", element("caption", caption), element("thead", head), element("tbody", body), class_="sortable"),
        class_="scroll",
        tabindex=0,
    )


def _align(table: Table, column: int) -> str | None:
    return "n" if column in table.numeric else None


def _cell(cell: Cell, align: str | None) -> Html:
    shown, key = cell if isinstance(cell, tuple) else (cell, None)
    return element("td", shown, class_=align, data_v=key)


def command_html(*commands: str) -> Html | None:
    """Command lines, each with a button (made by the script) that copies it; nothing for empty ones."""
    lines = [element("code", command, class_="command") for command in commands if command]
    return element("div", *lines, class_="commands") if lines else None


def figure(key: str, title: str, drawing: Html, *, table: Table, commands: Sequence[str], note: Child = None) -> Html:
    """A drawing with its title, a sentence on how to read it, its table to open and copy, and the commands behind it."""
    return element(
        "figure",
        element("figcaption", element("h3", title, id=f"{key}-title"), element("p", note) if note else None),
        drawing,
        element(
            "details", element("summary", f"Table: {title}"), element("p", table.note) if table.note else None, table_html(table, title)
        ),
        command_html(*commands),
        id=key,
    )


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """(name, class of the mark) in a row below a title."""
    marks = (element("span", element("i", class_=f"mark {style}"), f" {label}") for label, style in entries)
    return element("p", join(marks, "  "), class_="legend")


def svg(drawing: Iterable[Child], *, width: float, height: float, title: str, key: str, class_: str = "") -> Html:
    """A drawing that scales with the page; screen readers get its title and, beside it, the table."""
    return element(
        "svg",
        element("title", title, id=f"{key}-svg"),
        *drawing,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{key}-svg",
        class_=class_ or None,
        style=f"max-width: {width * 1.3:g}px",
    )


def shortened(words: str, length: int) -> Html:
    """Words cut to so many characters, for a drawing where the full ones are in the tip and the table."""
    return text(words if len(words) <= length else words[: length - 1] + "…")
