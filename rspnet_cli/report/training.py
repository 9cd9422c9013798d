"""The section of training curves: of a finished pretraining, and of one that runs or was stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rspnet_cli.lineage import flatten
from rspnet_cli.manifest import checked_artifact
from rspnet_cli.report.charts import Line, line_chart
from rspnet_cli.report.commands import command_line, command_of
from rspnet_cli.report.figure import LeftOut, Section, Table, command_html, figure, legend, numbers
from rspnet_cli.report.found import Found, read_log
from rspnet_cli.report.html import Html, element, join, number
from rspnet_cli.tables import METRICS, TIMINGS

KEY, TITLE = "training", "Training"
# So many points to a line: more cannot be told apart, and the tables stay readable.
MAX_POINTS = 300
Row = dict[str, float | None]


@dataclass(frozen=True)
class Panel:
    """A chart: its columns of a log with their names. x: the column to draw them over.

    avid: figures that mean nothing until the queue holds real keys.
    """

    key: str
    title: str
    columns: tuple[tuple[str, str], ...]
    note: str
    share_axis: bool = False
    avid: bool = False
    x: str = "step"


_PANELS = (
    Panel("loss", "Loss", (("loss", "loss"), ("loss_avid", "A-VID (L_A)"), ("loss_rsp", "RSP (L_M)")), "loss is the weighted sum of both."),
    Panel(
        "rsp",
        "RSP accuracy",
        (("rsp_accuracy", "RSP accuracy"),),
        "The share of queries nearer to the key at their own speed than to the same key at another; chance is 0.5.",
        share_axis=True,
    ),
    Panel(
        "avid",
        "A-VID accuracy",
        (
            ("avid_top1", "top-1"),
            ("avid_top5", "top-5"),
            ("avid_other_top1", "top-1, other speed"),
            ("avid_other_top5", "top-5, other speed"),
        ),
        "The share of queries that find the key of their own video among all keys of the queue.",
        share_axis=True,
        avid=True,
    ),
    Panel("lr", "Learning rate", (("lr", "learning rate"),), ""),
    Panel("grad", "Gradient norm", (("grad_norm", "gradient norm"),), ""),
)
SPEED = (
    Panel("speed", "Speed", (("videos_per_s", "videos a second"),), ""),
    Panel(
        "wait", "Waiting for data", (("data_wait_share", "share of the time"),), "Near 1 the decoding is the bottleneck.", share_axis=True
    ),
)


def training(found: Found) -> Section | LeftOut:
    """Curves of the pretraining behind the results, and of an unfinished one in the work directory."""
    parts: list[Html] = []
    finished, unfinished = found.stages.get("pretrain"), found.unfinished.get("pretrain")
    if unfinished is not None:
        rows = read_log(unfinished.work / METRICS.file)
        title = f"Unfinished: {progress(rows, unfinished.config)}"
        command = command_line(unfinished.begun, found.path)
        parts.append(run_charts("live", title, [(rows, _PANELS), (read_log(unfinished.work / TIMINGS.file), SPEED)], command))
    if finished is not None and finished.is_imported:
        if not parts:
            return LeftOut(KEY, TITLE, "The encoder is imported: how its training went is not known here.")
    elif finished is not None:
        rows = read_log(checked_artifact(finished, METRICS.file))
        title = f"Finished: {number(finished.results.get('epochs'))} epochs, {number(finished.results.get('steps'))} steps"
        logs = [(rows, _PANELS), (read_log(finished.folder / TIMINGS.file), SPEED)]
        parts.append(run_charts("done", title, logs, command_of(finished, found.path)))
    if not parts:
        return LeftOut(KEY, TITLE, found.missing("pretrain"))
    return Section(KEY, TITLE, join(parts))


def progress(rows: Sequence[Row], config: Mapping[str, Any]) -> str:
    """How far an unfinished run is, in words."""
    epochs = flatten(dict(config)).get("optim.epochs")
    if not rows:
        return "no figures yet"
    last = rows[-1]
    return (
        f"epoch {number(_whole(last['epoch']))} of {number(epochs)}, {number(_whole(last['step']))} steps done, loss {number(last['loss'])}"
    )


def run_charts(
    prefix: str, title: str, logs: Sequence[tuple[Sequence[Row], Sequence[Panel]]], command: str, *, folded: bool = False
) -> Html:
    """The charts of a run: of each log its panels, as far as it has their columns. One command for all of these figures.

    folded: only the title is seen until it is opened.
    """
    charts = [_chart(f"{prefix}-{panel.key}", panel, rows) for rows, panels in logs for panel in panels]
    shown = [chart for chart in charts if chart is not None]
    drawn = element("div", *shown, class_="charts") if shown else element("p", "No figures yet.")
    if folded:
        return element("details", element("summary", title), command_html(command), drawn)
    return element("div", element("h3", title), command_html(command), drawn)


def _chart(key: str, panel: Panel, rows: Sequence[Row]) -> Html | None:
    columns = [(column, label) for column, label in panel.columns if any(row.get(column) is not None for row in rows)]
    if not columns:
        return None
    points, per_point = binned(rows, MAX_POINTS)
    steps = [point[panel.x] or 0.0 for point in points]
    lines = [Line(label, [point.get(column) for point in points], f"s{number}") for number, (column, label) in enumerate(columns, start=1)]
    note, shaded_until = panel.note, None
    if panel.avid:
        filling = [row["step"] or 0.0 for row in rows if (row.get("queue_filled") or 0.0) < 1]
        if filling:
            shaded_until = filling[-1]
            note += " Shaded: the queue still holds random keys, and these figures mean nothing."
    drawing = line_chart(key, panel.title, steps, lines, x_label=f"{panel.x}s", share_axis=panel.share_axis, shaded_until=shaded_until)
    header = [panel.x, *(label for _, label in columns)]
    cells = [[(number(_whole(value)), "" if value is None else value) for value in values] for values in _columns(points, panel.x, columns)]
    table = Table(header, cells, numbers(header), f"Each row is the mean of {per_point} rows of the log." if per_point > 1 else "")
    marks = legend((line.label, line.style) for line in lines)
    return figure(key, panel.title, join((marks, drawing)), table=table, commands=[], note=note)


def _columns(points: Sequence[Row], x: str, columns: Sequence[tuple[str, str]]) -> list[list[float | None]]:
    return [[point[x], *(point.get(column) for column, _ in columns)] for point in points]


def binned(rows: Sequence[Row], limit: int) -> tuple[list[Row], int]:
    """At most `limit` rows, each the mean of so many consecutive ones (their last step and epoch), and how many that is.

    A mean leaves out what is missing.
    """
    size = -(-len(rows) // limit) if rows else 1
    points: list[Row] = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        point: Row = {}
        for column in some[-1]:
            values = [value for row in some if (value := row.get(column)) is not None]
            mean = sum(values) / len(values) if values else None
            point[column] = some[-1][column] if column in ("step", "epoch") else mean
        points.append(point)
    return points, size


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value.is_integer() and abs(value) < 1e15 else value
