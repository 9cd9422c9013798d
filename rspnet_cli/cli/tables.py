"""Result tables on stdout: shares with three digits, intervals beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from rspnet_cli.distributed import is_main

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_ELSEWHERE = 500


def share_text(share: float | None, interval: Sequence[float] | None = None) -> str:
    """A share from 0 to 1 with three digits, and its interval; a dash for none."""
    if share is None:
        return "-"
    return f"{share:.3f}" + (f" ({interval[0]:.3f} - {interval[1]:.3f})" if interval else "")


def seen_text(seen: int | None, what: str) -> str:
    """How many of `what` (such as "queries") the encoder saw in pretraining, as a sentence."""
    if seen is None:
        return f"Whether the encoder saw the {what} in pretraining is not known: it was imported."
    return f"{seen:,} of the {what} were seen in pretraining."


def bytes_text(number: float) -> str:
    """A size in words: 812 bytes, 3.4 MB, 1.2 TB (powers of 1000)."""
    if number < 1000:
        return f"{number:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} TB"


def stdout_console() -> Console:
    """rich on stdout. Off a terminal it would assume 80 columns and cut what does not fit."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_ELSEWHERE)


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], *, figures: bool = True) -> None:
    """A title, a table (none without a header), and notes below. figures: every column but the first is to the right."""
    if not is_main():
        return
    typer.echo(title)
    if header:
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for position, name in enumerate(header):
            table.add_column(escape(name), justify="right" if figures and position > 0 else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        stdout_console().print(table)
    for note in notes:
        typer.echo(note)
