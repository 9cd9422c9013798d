"""The sections on retrieval: recall@k beside the untrained encoder and chance, and per class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.report.charts import Line, line_chart
from rspnet_cli.report.commands import command_of
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, command_html, figure, legend, numbers, table_html
from rspnet_cli.report.found import Found
from rspnet_cli.report.html import element, join, name, number, share
from rspnet_cli.tables import NEIGHBOURS, PER_CLASS, read_table

KEY, TITLE = "retrieval", "Retrieval"
PER_CLASS_KEY, PER_CLASS_TITLE = "per-class", "Per class"
NO_LABELS = "The videos have no labels, so right and wrong are not known."
UNTRAINED = "untrained encoder"


def read_neighbours(found: Found) -> pd.DataFrame | None:
    """neighbours.csv of the evaluation, a row per query and rank; None without one. Raises InputError for a damaged one."""
    manifest = found.stages.get("eval-retrieval")
    return None if manifest is None else read_table(checked_artifact(manifest, NEIGHBOURS.file), NEIGHBOURS)


def retrieval(found: Found, baseline: Manifest | None) -> Section | LeftOut:
    """Recall@k with its interval, the untrained encoder's, and chance."""
    manifest = found.stages.get("eval-retrieval")
    if manifest is None:
        return LeftOut(KEY, TITLE, found.missing("eval-retrieval"))
    results = manifest.results
    if not results.get("recall"):
        return LeftOut(KEY, TITLE, NO_LABELS)
    ks = list(results["recall"])
    lines = [
        Line("this encoder", _of(results["recall"], ks), "s1", [results["interval"][k] for k in ks]),
        Line("chance", _of(results["chance"], ks), "s3"),
    ]
    header = ["k", "recall@k", "95 % interval", "chance"]
    rows: list[list[Cell]] = [
        [k, _sorted(results["recall"][k]), interval_words(results["interval"][k]), _sorted(results["chance"][k])] for k in ks
    ]
    commands = [command_of(manifest, found.path)]
    untrained = baseline.results if baseline is not None and baseline.results.get("recall") else None
    if untrained is not None and baseline is not None:
        intervals = [untrained["interval"].get(k) for k in ks]
        lines.insert(1, Line(UNTRAINED, _of(untrained["recall"], ks), "s2", intervals))
        header += [UNTRAINED, "its 95 % interval"]
        for row, k, interval in zip(rows, ks, intervals, strict=True):
            row += [_sorted(untrained["recall"].get(k)), interval_words(interval)]
        commands.append(command_of(baseline, found.path))
    drawing = line_chart(KEY, "Recall at k", list(range(len(ks))), lines, x_label="k nearest", x_names=ks, share_axis=True)
    how = "leave-one-out, its own group left out" if results["protocol"] != "split" else f"split {manifest.config.get('split')}"
    searched = f"{number(results['queries'])} queries search {number(results['gallery'])} videos ({how})"
    note = (
        f"{searched}; a query is right at k if any of its k nearest videos has its class. {_seen(results['queries_seen'])} "
        "Whiskers: 95 % intervals."
    )
    if not untrained:
        note += " The untrained encoder has no result here to stand beside: `rspnet export-features --random-init`, then evaluate that."
    marks = legend((line.label, line.style) for line in lines)
    table = Table(header, rows, numbers(header))
    return Section(KEY, TITLE, figure("recall", "Recall at k", join((marks, drawing)), table=table, commands=commands, note=note))


def _seen(queries: int | None) -> str:
    if queries is None:
        return "Whether the encoder saw the queries in pretraining is not known: it is imported."
    return f"{number(queries)} of the queries were seen in pretraining."


def per_class(found: Found, neighbours: pd.DataFrame | None) -> Section | LeftOut:
    """Recall@k of every class, and what the probes make of it, as bars in one sortable table."""
    recalls = class_recalls(neighbours, _ks(found)) if neighbours is not None else {}
    probes = _probe_rows(found)
    classes = list(dict.fromkeys([*recalls, *probes]))
    if not classes:
        reason = NO_LABELS if neighbours is not None else found.missing("eval-retrieval")
        return LeftOut(PER_CLASS_KEY, PER_CLASS_TITLE, reason)
    ks = _ks(found) if recalls else []
    columns = [*(f"recall@{k}" for k in ks), *(["linear top-1", "kNN top-1"] if probes else [])]
    header = ["class", "queries", *columns]
    rows: list[list[Cell]] = []
    for label in classes:
        queries, shares = recalls.get(label, (probes[label][0] if label in probes else 0, [None] * len(ks)))
        values = [*shares, *(probes.get(label, (0, [None, None]))[1] if probes else [])]
        rows.append([(name(label), label), (number(queries), queries), *(_bar(value) for value in values)])
    table = Table(header, rows, numbers(header, 0))
    commands = [command_of(found.stages[stage], found.path) for stage in ("eval-retrieval", "eval-classification") if stage in found.stages]
    note = element("p", "The share of the test videos of each class that are right. Click a heading to sort.")
    body = element("figure", note, table_html(table, PER_CLASS_TITLE), command_html(*commands), id="classes", class_="bars")
    return Section(PER_CLASS_KEY, PER_CLASS_TITLE, body)


def class_recalls(neighbours: pd.DataFrame, ks: Sequence[int]) -> dict[str, tuple[int, list[float | None]]]:
    """Class -> (its queries, recall at every k), of queries that have a label, by name."""
    labelled = neighbours[neighbours["correct"] != ""]
    if labelled.empty:
        return {}
    # The rank of the first right neighbour; beyond every k where none is right.
    rank = labelled["rank"].to_numpy(dtype=np.int64)
    first = np.where(labelled["correct"].to_numpy(dtype=object) == "True", rank, np.iinfo(np.int64).max)
    best = pd.DataFrame({"query": labelled["query_id"], "class": labelled["query_label_name"], "first": first})
    per_query = best.groupby(["query", "class"], sort=False)["first"].min().reset_index()
    found: dict[str, tuple[int, list[float | None]]] = {}
    for label, own in per_query.groupby("class", sort=True):
        firsts = own["first"].to_numpy()
        found[str(label)] = (len(firsts), [float((firsts <= k).mean()) for k in ks])
    return found


def _ks(found: Found) -> list[int]:
    manifest = found.stages.get("eval-retrieval")
    return [int(k) for k in (manifest.results.get("recall") or {})] if manifest is not None else []


def _probe_rows(found: Found) -> dict[str, tuple[int, list[float | None]]]:
    manifest = found.stages.get("eval-classification")
    if manifest is None:
        return {}
    frame = read_table(checked_artifact(manifest, PER_CLASS.file), PER_CLASS)
    columns = [frame[column].tolist() for column in ("label_name", "queries", "linear_top1", "knn_top1")]
    return {
        label: (int(queries), [None if value != value else float(value) for value in (linear, knn)])
        for label, queries, linear, knn in zip(*columns, strict=True)
    }


def _bar(value: float | None) -> Cell:
    if value is None:
        return ("–", -1)
    filled = element("span", element("i", style=f"width: {value * 100:.1f}%"), class_="bar")
    return (join((filled, share(value))), value)


def _of(figures: dict[str, float], ks: Iterable[str]) -> list[float | None]:
    return [figures.get(k) for k in ks]


def _sorted(value: float | None) -> Cell:
    return (share(value), -1 if value is None else value)


def interval_words(interval: Sequence[float] | None) -> str:
    """An interval of shares, a dash for none."""
    return "–" if interval is None else f"{interval[0]:.3f} – {interval[1]:.3f}"
