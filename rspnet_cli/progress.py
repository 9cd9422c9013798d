"""How a run talks: a bar with rate, time left and figures on a terminal, a line every few seconds elsewhere, or silence.

Everything goes to stderr; results are the command line's business and go to stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")
LINE_INTERVAL_S = 5.0


class Reporter:
    """Progress, notes and warnings of a run. One track at a time; `figures` belong to the current one."""

    def __init__(self, mode: Literal["auto", "silent"] = "auto") -> None:
        self._silent = mode == "silent"
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._warned: set[str] = set()
        self._figures: dict[str, Any] = {}
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    @classmethod
    def silent(cls) -> Reporter:
        """A reporter that says nothing: the library's default."""
        return cls("silent")

    def info(self, text: str) -> None:
        """A note: one line."""
        self._say(text)

    def warn(self, text: str) -> None:
        """Something the user should know but that stops nothing."""
        self._say(f"warning: {text}", style="yellow")

    def warn_once(self, text: str) -> None:
        """The same, however many parts of a run find it."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def figures(self, **figures: Any) -> None:
        """Current figures shown beside the progress (floats with four digits)."""
        self._figures = figures
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, figures=escape(_words(figures)))

    def track(self, items: Iterable[Item], *, total: int | None = None, unit: str = "", name: str = "", start: int = 0) -> Iterator[Item]:
        """Yield the items and show how far it is. start: how many of `total` were done before (a resumed run)."""
        self._figures = {}
        if self._silent:
            yield from items
        elif self._console.is_terminal:
            yield from self._track_bar(items, total, unit, name, start)
        else:
            yield from self._track_lines(items, total, unit, name, start)

    def _track_bar(self, items: Iterable[Item], total: int | None, unit: str, name: str, start: int) -> Iterator[Item]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        began = time.perf_counter()
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(escape(name), total=total, completed=start, unit=escape(unit), rate="", figures="")
            self._progress, self._task = progress, task
            try:
                for count, item in enumerate(items, start=1):
                    yield item
                    progress.update(task, advance=1, rate=f"{count / max(time.perf_counter() - began, 1e-9):.1f}/s")
            finally:
                self._progress = self._task = None

    def _track_lines(self, items: Iterable[Item], total: int | None, unit: str, name: str, start: int) -> Iterator[Item]:
        began = last = time.perf_counter()
        count = told = 0
        for count, item in enumerate(items, start=1):
            yield item
            now = time.perf_counter()
            if now - last >= LINE_INTERVAL_S:
                last, told = now, count
                self._line(name, start + count, total, unit, count / (now - began))
        if count > told:
            self._line(name, start + count, total, unit, count / max(time.perf_counter() - began, 1e-9))

    def _line(self, name: str, done: int, total: int | None, unit: str, rate: float) -> None:
        of = f"/{total}" if total is not None else ""
        left = f", {duration((total - done) / rate)} left" if total is not None and 0 < done < total and rate > 0 else ""
        figures = f" | {_words(self._figures)}" if self._figures else ""
        self._say(f"{name}: {done}{of} {unit}, {rate:.1f}/s{left}{figures}")

    def _say(self, text: str, style: str | None = None) -> None:
        if self._silent:
            return
        if self._console.is_terminal:
            self._console.print(escape(text), style=style)
        else:
            print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def _words(figures: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items())


def duration(seconds: float) -> str:
    """In words: 40s, 1m05s, 2h03m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
