"""The figures of a training run: summed on the host, a row per log interval, and part of the checkpoint: a resumed run's are equal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rspnet_cli.files import write_atomic
from rspnet_cli.tables import csv_line


class Means:
    """Running sums of named figures (float64, in step order: equal for a resumed run)."""

    def __init__(self, names: Sequence[str], state: dict[str, Any] | None = None) -> None:
        self.names = list(names)
        self.count = int(state["count"]) if state else 0
        self.sums = [float(value) for value in state["sums"]] if state else [0.0] * len(self.names)

    def add(self, values: Sequence[float]) -> None:
        """Add one step's figures."""
        self.count += 1
        self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]

    def means(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / max(self.count, 1) for name, total in zip(self.names, self.sums, strict=True)}

    def clear(self) -> None:
        """Start anew."""
        self.count, self.sums = 0, [0.0] * len(self.names)

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = self.means()
        self.clear()
        return means

    def state(self) -> dict[str, Any]:
        """For the checkpoint (JSON values)."""
        return {"count": self.count, "sums": list(self.sums)}


class CsvLog:
    """A CSV file that grows by rows and can be cut back to where a checkpoint was taken."""

    def __init__(self, path: Path, columns: Sequence[str], *, rows: int = 0) -> None:
        self.path, self.columns, self.rows = path, list(columns), rows
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() and rows else []
        self.rows = min(rows, max(len(lines) - 1, 0))
        write_atomic(path, "".join(lines[: 1 + self.rows]) or csv_line(self.columns))

    def append(self, row: dict[str, Any]) -> None:
        """Write one row; missing values are empty."""
        with self.path.open("a", encoding="utf-8", newline="") as handle:
            handle.write(csv_line(row.get(column) for column in self.columns))
        self.rows += 1
