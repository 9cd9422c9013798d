"""Result tables on stdout: shares with three digits, intervals beside them."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from rspnet_cli.distributed import is_main


def share_text(share: float | None) -> str:
    """A share from 0 to 1 with three digits; a dash for none."""
    return "-" if share is None else f"{share:.3f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """low - high, as shares; a dash for none."""
    return "-" if interval is None else f"{interval[0]:.3f} - {interval[1]:.3f}"


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """A title, a table (none without a header), and notes below; the first column to the left, figures to the right."""
    if not is_main():
        return
    typer.echo(title)
    if header:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for position, name in enumerate(header):
            table.add_column(escape(name), justify="left" if position == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        # Off a terminal rich assumes 80 columns and would cut what does not fit.
        console = Console(highlight=False)
        console.print(table, width=None if console.is_terminal else 200)
    for note in notes:
        typer.echo(note)
