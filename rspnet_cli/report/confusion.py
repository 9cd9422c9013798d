"""Confusion matrices: what is taken for what, in several orders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.manifest import checked_artifact
from rspnet_cli.report.classification import PROBES
from rspnet_cli.report.commands import command_of
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, figure, numbers, shortened, svg
from rspnet_cli.report.found import Found
from rspnet_cli.report.html import Html, data_block, element, join, name, number, share

KEY, TITLE = "confusion", "Confusion"
# More names than this cannot be read beside a matrix: the tip and the table say them.
MAX_NAMES = 40
_MARGIN, _SIDE, _FONT = 112.0, 320.0, 11.0


def confusion(found: Found) -> Section | LeftOut:
    """A matrix for each probe: true classes down, guessed classes across."""
    manifest = found.stages.get("eval-classification")
    if manifest is None:
        return LeftOut(KEY, TITLE, found.missing("eval-classification"))
    command = command_of(manifest, found.path)
    bodies = []
    for probe, words in PROBES.items():
        if manifest.results.get(probe):
            names, counts = read_confusion(checked_artifact(manifest, f"confusion_{probe}.csv"), manifest.advice)
            bodies.append(confusion_figure(f"confusion-{probe}", f"Confusion of the {words}", names, counts, command))
    return Section(KEY, TITLE, element("div", *bodies, class_="wide"))


def read_confusion(path: Path, advice: str) -> tuple[list[str], np.ndarray]:
    """Class names and (N, N) int64 counts, true classes in rows. Raises InputError for a table that is none.

    advice: what to do then.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is no confusion matrix ({error}): {advice}.") from error
    if counts.shape != (len(header) - 1,) * 2 or [row[0] for row in rows] != header[1:]:
        raise InputError(f"{path} is no square matrix of classes: {advice}.")
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


def _names(place: int, words: str, cell: float) -> tuple[Html, Html]:
    """A class's name beside its row and below its column, upwards; the script moves both."""
    shown, size = shortened(words, 15), f"font-size: {min(_FONT, 0.95 * cell):.1f}px"
    middle = (place + 0.5) * cell + 3
    row = element("text", shown, x=_MARGIN - 5, y=4 + middle, class_="end", style=size, data_row=place)
    upwards = f"translate({_MARGIN + middle:.2f} {4 + _SIDE + 5:g}) rotate(-90)"
    return row, element("text", shown, transform=upwards, class_="end", style=size, data_column=place)


def confusion_figure(key: str, title: str, names: Sequence[str], counts: np.ndarray, command: str) -> Html:
    """A matrix whose rows and columns the page's script sorts, with every pair that occurs in its table. counts: (N, N) int64."""
    size = len(names)
    totals = counts.sum(axis=1)
    named = size <= MAX_NAMES
    margin = _MARGIN if named else 4.0
    cell = _SIDE / size
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
        parts += [label for place, words in enumerate(names) for label in _names(place, words, cell)]
    height = 4 + _SIDE + (_MARGIN if named else 4)
    drawing = svg(parts, width=margin + _SIDE + 4, height=height, title=title, key=key, class_="matrix")
    sortings = orders(names, counts)
    data = {"names": list(names), "totals": totals.tolist(), "orders": sortings, "cell": cell, "left": margin, "top": 4.0, "side": _SIDE}
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
