"""Markdown tables of what the evaluations wrote, beside their baselines. Reads the manifests' JSON; needs nothing but Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_results(stage_folder: Path) -> dict[str, Any]:
    """The results of a finished stage, as its manifest holds them."""
    results: dict[str, Any] = json.loads((stage_folder / "manifest.json").read_text(encoding="utf-8"))["results"]
    return results


def with_interval(share: float, interval: Sequence[float] | None = None) -> str:
    """`0.431 [0.372, 0.489]`: a share and its 95 % interval."""
    return f"{share:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as plain text too: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (width + 2) if not column else "-" * (width + 1) + ":" for column, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def retrieval_table(folders: Mapping[str, Path]) -> str:
    """recall@k of every row: name -> folder of its eval-retrieval. The last row is chance."""
    results = {name: read_results(folder) for name, folder in folders.items()}
    first = next(iter(results.values()))
    ranks = list(first["recall"])
    rows = [
        [name, *(with_interval(each["recall"][rank], each["interval"][rank] if rank == ranks[0] else None) for rank in ranks)]
        for name, each in results.items()
    ]
    rows.append(["chance", *(with_interval(first["chance"][rank]) for rank in ranks)])
    return markdown(["features", *(f"recall@{rank}" for rank in ranks)], rows)


def classification_table(folders: Mapping[str, Path]) -> str:
    """Accuracies of every row: name -> folder of its eval-classification. The last row is chance."""
    results = {name: read_results(folder) for name, folder in folders.items()}
    rows = [
        [
            name,
            with_interval(each["linear"]["top1"], each["linear"]["interval"]["top1"]),
            with_interval(each["linear"]["top5"]),
            with_interval(each["linear"]["mean_class"]),
            with_interval(each["knn"]["top1"], each["knn"]["interval"]["top1"]),
        ]
        for name, each in results.items()
    ]
    chance = next(iter(results.values()))["chance"]
    rows.append(["chance", with_interval(chance["top1"]), with_interval(chance["top5"]), "", with_interval(chance["top1"])])
    return markdown(["features", "linear top-1", "linear top-5", "linear mean class", "kNN top-1"], rows)
