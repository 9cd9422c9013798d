"""The section on classification of frozen features: accuracies with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rspnet_cli.manifest import Manifest
from rspnet_cli.report.charts import Line, line_chart
from rspnet_cli.report.commands import command_of
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, figure, legend, numbers
from rspnet_cli.report.found import Found
from rspnet_cli.report.html import Html, join, number, share
from rspnet_cli.report.retrieval import UNTRAINED, interval_words

KEY, TITLE = "classification", "Classification"
PROBES = {"linear": "linear probe", "knn": "kNN"}
_FIGURES = {"top1": "top-1", "top5": "top-5", "mean_class": "mean class"}


def accuracy_figure(
    key: str, title: str, labels: Sequence[str], lines: Sequence[Line], *, short_labels: Sequence[str], commands: Sequence[str], note: str
) -> Html:
    """Accuracies side by side: a place for each label (short_labels: at the axis), a mark and a whisker for each line."""
    places = list(range(len(labels)))
    drawing = line_chart(key, title, places, lines, x_label="", x_names=short_labels, share_axis=True, connected=False)
    header = ["figure", *(word for line in lines for word in ([line.label, "95 % interval"] if line.interval else [line.label]))]
    rows: list[list[Cell]] = []
    for place, label in enumerate(labels):
        row: list[Cell] = [label]
        for line in lines:
            value = line.y[place]
            row.append((share(value), -1 if value is None else value))
            if line.interval:
                row.append(interval_words(line.interval[place]))
        rows.append(row)
    marks = legend((line.label, line.style) for line in lines)
    return figure(key, title, join((marks, drawing)), table=Table(header, rows, numbers(header, 0)), commands=commands, note=note)


def classification(found: Found, baseline: Manifest | None) -> Section | LeftOut:
    """Accuracies of both probes with their intervals, the untrained encoder's, and chance."""
    manifest = found.stages.get("eval-classification")
    if manifest is None:
        return LeftOut(KEY, TITLE, found.missing("eval-classification"))
    results = manifest.results
    columns = [(probe, figure) for probe in PROBES if results.get(probe) for figure in _FIGURES]
    labels = [f"{PROBES[probe]} {_FIGURES[figure]}" for probe, figure in columns]
    lines = [_line("this encoder", results, columns, "s1")]
    if baseline is not None:
        lines.append(_line(UNTRAINED, baseline.results, columns, "s2"))
    lines.append(Line("chance", [results["chance"].get(figure) for _, figure in columns], "s3"))
    how = f"split {manifest.config.get('split')}" if results["protocol"] == "split" else "5 folds of whole groups"
    note = (
        f"{number(results['queries'])} test videos of {number(results['classes'])} classes ({how}); the encoder is frozen. Always guessing "
        f"the largest class gives {share(results['chance']['majority'])}. Whiskers: 95 % intervals."
    )
    commands = [command_of(each, found.path) for each in (manifest, baseline) if each is not None]
    names = [_short(*column) for column in columns]
    body = accuracy_figure("accuracy", "Accuracy", labels, lines, short_labels=names, commands=commands, note=note)
    return Section(KEY, TITLE, body)


def _line(label: str, results: dict[str, Any], columns: Sequence[tuple[str, str]], style: str) -> Line:
    probes = [(results.get(probe) or {}, figure) for probe, figure in columns]
    values = [figures.get(figure) for figures, figure in probes]
    return Line(label, values, style, [(figures.get("interval") or {}).get(figure) for figures, figure in probes])


def _short(probe: str, figure: str) -> str:
    return {"linear": "linear", "knn": "kNN"}[probe] + " " + {"top1": "top-1", "top5": "top-5", "mean_class": "per class"}[figure]
