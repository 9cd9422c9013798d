"""The figures of a training run: summed on the host, a row per log interval, and part of the checkpoint: a resumed run's are equal."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
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


class Board:
    """The same figures for TensorBoard, where it is installed; nothing elsewhere."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run wrote beyond its last checkpoint is written again.
            self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def add(self, step: int, figures: dict[str, Any]) -> None:
        """Write the numbers among the figures."""
        if self._writer is None:
            return
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """End the writer's thread."""
        if self._writer is not None:
            self._writer.close()
