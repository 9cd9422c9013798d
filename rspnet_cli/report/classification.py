"""The sections on classification of frozen features: accuracies with intervals, and what is taken for what."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.report.charts import Line, line_chart
from rspnet_cli.report.commands import command_of
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, figure, legend, numbers, shortened, svg
from rspnet_cli.report.found import Found, checked
from rspnet_cli.report.html import Html, data_block, element, join, name, number, share
from rspnet_cli.report.retrieval import UNTRAINED

KEY, TITLE = "classification", "Classification"
CONFUSION_KEY, CONFUSION_TITLE = "confusion", "Confusion"
_PROBES = {"linear": "linear probe", "knn": "kNN"}
_FIGURES = {"top1": "top-1", "top5": "top-5", "mean_class": "mean class"}
# More names than this cannot be read beside a matrix: the tip and the table say them.
MAX_NAMES = 40


def classification(found: Found, baseline: Manifest | None) -> Section | LeftOut:
    """Accuracies of both probes with their intervals, the untrained encoder's, and chance."""
    manifest = found.stages.get("eval-classification")
    if manifest is None:
        return LeftOut(KEY, TITLE, found.missing("eval-classification"))
    results = manifest.results
    columns = [(probe, figure) for probe in _PROBES if results.get(probe) for figure in _FIGURES]
    labels = [f"{_PROBES[probe]} {_FIGURES[figure]}" for probe, figure in columns]
    lines = [_line("this encoder", results, columns, "s1")]
    if baseline is not None:
        lines.append(_line(UNTRAINED, baseline.results, columns, "s2"))
    lines.append(Line("chance", [results["chance"].get(figure) for _, figure in columns], "s3"))
    places, names = list(range(len(columns))), [_short(*column) for column in columns]
    drawing = line_chart(KEY, "Accuracy", places, lines, x_label="", x_names=names, share_axis=True, connected=False)
    header = ["figure", *(word for line in lines for word in ([line.label, "95 % interval"] if line.interval else [line.label]))]
    rows: list[list[Cell]] = []
    for place, label in enumerate(labels):
        row: list[Cell] = [label]
        for line in lines:
            row.append((share(line.y[place]), -1 if line.y[place] is None else line.y[place] or 0.0))
            if line.interval:
                interval = line.interval[place]
                row.append("–" if interval is None else f"{interval[0]:.3f} – {interval[1]:.3f}")
        rows.append(row)
    how = f"split {manifest.config.get('split')}" if results["protocol"] == "split" else "5 folds of whole groups"
    note = (
        f"{number(results['queries'])} test videos of {number(results['classes'])} classes ({how}); the encoder is frozen. Always guessing "
        f"the largest class gives {share(results['chance']['majority'])}. Whiskers: 95 % intervals."
    )
    commands = [command_of(each, found.path) for each in (manifest, baseline) if each is not None]
    marks = legend((line.label, line.style) for line in lines)
    body = figure(
        "accuracy", "Accuracy", join((marks, drawing)), table=Table(header, rows, numbers(header, 0)), commands=commands, note=note
    )
    return Section(KEY, TITLE, body)


def _line(label: str, results: dict[str, Any], columns: Sequence[tuple[str, str]], style: str) -> Line:
    probes = [(results.get(probe) or {}, figure) for probe, figure in columns]
    values = [figures.get(figure) for figures, figure in probes]
    return Line(label, values, style, [(figures.get("interval") or {}).get(figure) for figures, figure in probes])


def _short(probe: str, figure: str) -> str:
    return {"linear": "linear", "knn": "kNN"}[probe] + " " + {"top1": "top-1", "top5": "top-5", "mean_class": "per class"}[figure]


def confusion(found: Found) -> Section | LeftOut:
    """A matrix for each probe: true classes down, guessed classes across."""
    manifest = found.stages.get("eval-classification")
    if manifest is None:
        return LeftOut(CONFUSION_KEY, CONFUSION_TITLE, found.missing("eval-classification"))
    command = command_of(manifest, found.path)
    bodies = []
    for probe, words in _PROBES.items():
        if manifest.results.get(probe):
            names, counts = read_confusion(checked(manifest, f"confusion_{probe}.csv"))
            bodies.append(_matrix(f"confusion-{probe}", f"Confusion of the {words}", names, counts, command))
    return Section(CONFUSION_KEY, CONFUSION_TITLE, element("div", *bodies, class_="wide"))


def read_confusion(path: Path) -> tuple[list[str], np.ndarray]:
    """Class names and (N, N) int64 counts, true classes in rows. Raises InputError for a table that is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is no confusion matrix ({error}): make it anew with `rspnet eval-classification --force`.") from error
    if counts.shape != (len(header) - 1,) * 2 or [row[0] for row in rows] != header[1:]:
        raise InputError(f"{path} is no square matrix of classes: make it anew with `rspnet eval-classification --force`.")
    return header[1:], counts


def orders(names: Sequence[str], counts: np.ndarray) -> dict[str, list[int]]:
    """The orders to sort a matrix by: title -> class at each place."""
    totals = counts.sum(axis=1)
    shares = np.diag(counts) / np.maximum(totals, 1)
    numbered = np.arange(len(names))
    return {
        "class number": numbered.tolist(),
        "name": sorted(range(len(names)), key=lambda label: names[label].casefold()),
        "best first": np.lexsort((numbered, -shares)).tolist(),
        "worst first": np.lexsort((numbered, shares)).tolist(),
        "confused with each other": _by_likeness(counts),
    }


def _by_likeness(counts: np.ndarray) -> list[int]:
    """Classes that are taken for each other side by side: the order of the graph's second eigenvector (spectral seriation)."""
    weights = (counts + counts.T) * (1.0 - np.eye(len(counts)))
    degree = np.maximum(weights.sum(axis=1), 1e-9)
    scaled = weights / np.sqrt(degree[:, None] * degree[None, :])
    vector = np.linalg.eigh(scaled)[1][:, -2] / np.sqrt(degree) if len(counts) > 1 else np.zeros(1)
    # Either sign is an eigenvector: the class numbered lowest comes into the first half.
    return [int(label) for label in np.argsort(vector if vector[0] <= 0 else -vector, kind="stable")]


def _matrix(key: str, title: str, names: Sequence[str], counts: np.ndarray, command: str) -> Html:
    size = len(names)
    totals = counts.sum(axis=1)
    named = size <= MAX_NAMES
    margin = 96.0 if named else 4.0
    cell = 320.0 / size
    # In the order by name of the class numbers; the script moves rows and columns.
    parts = [element("rect", x=margin, y=4.0, width=cell * size, height=cell * size, class_="frame")]
    for true, guess in np.argwhere(counts > 0).tolist():
        count = int(counts[true, guess])
        strength = 0.15 + 0.85 * count / int(totals[true])
        parts.append(
            element(
                "rect",
                x=margin + guess * cell,
                y=4 + true * cell,
                width=cell,
                height=cell,
                fill_opacity=strength,
                class_="right" if true == guess else "wrong",
                data_t=true,
                data_g=guess,
                data_n=count,
            )
        )
    if named:
        parts += [
            element("text", shortened(label, 16), x=margin - 5, y=4 + (place + 0.5) * cell + 3, class_="end", data_row=place)
            for place, label in enumerate(names)
        ]
    drawing = svg(parts, width=margin + 324, height=328, title=title, key=key, class_="matrix")
    sortings = orders(names, counts)
    data = {"names": list(names), "totals": totals.tolist(), "orders": sortings, "cell": cell, "left": margin, "top": 4.0}
    choice = element(
        "label", "Sort by ", element("select", *(element("option", title) for title in sortings), class_="order"), class_="script"
    )
    rows: list[list[Cell]] = [
        [
            (name(names[true]), names[true]),
            (name(names[guess]), names[guess]),
            int(counts[true, guess]),
            share(counts[true, guess] / totals[true]),
        ]
        for true, guess in sorted(np.argwhere(counts > 0).tolist(), key=lambda pair: (-counts[pair[0], pair[1]], pair))
    ]
    header = ["class", "taken for", "videos", "share of the class"]
    right = int(np.trace(counts))
    note = (
        f"Rows: true classes; columns: guesses. {number(right)} of {number(int(counts.sum()))} test videos lie on the diagonal. "
        "The stronger the colour, the larger the share of the class."
    )
    table = Table(header, rows, numbers(header, 0, 1), "Every pair that occurs, the most frequent first.")
    return figure(key, title, join((choice, drawing, data_block(data, class_="matrix-data"))), table=table, commands=[command], note=note)
