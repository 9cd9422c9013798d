"""The section of queries with their nearest videos as short clips, right and wrong marked."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rspnet_cli.report.choose import worst_and_best
from rspnet_cli.report.clips import captioned
from rspnet_cli.report.commands import command_of
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, figure, numbers
from rspnet_cli.report.found import Found
from rspnet_cli.report.html import Html, element, join, name
from rspnet_cli.report.retrieval import class_recalls

KEY, TITLE = "neighbours", "Queries and their nearest videos"
NUM_CLASSES = 3
QUERIES_PER_CLASS = 2
NUM_UNLABELLED = 8
NUM_NEIGHBOURS = 5


def neighbours(found: Found, frame: pd.DataFrame | None, *, seed: int) -> Section | LeftOut:
    """Queries of the classes with the lowest and the highest recall@1, or any queries where there are no labels."""
    manifest = found.stages.get("eval-retrieval")
    if manifest is None or frame is None:
        return LeftOut(KEY, TITLE, found.missing("eval-retrieval"))
    chosen = choose_queries(frame, seed)
    command = command_of(manifest, found.path)
    shown, parts = [], []
    for place, (title, queries) in enumerate(chosen.items()):
        rows = frame[frame["query_id"].isin(queries) & (frame["rank"] <= NUM_NEIGHBOURS)].sort_values(["query_id", "rank"], kind="stable")
        shown += [*queries, *rows["neighbour_id"].tolist()]
        grid = element("div", *(_query(rows[rows["query_id"] == query]) for query in queries), class_="queries")
        parts.append(figure(f"queries-{place}", title, grid, table=_table(rows), commands=[command]))
    note = element(
        "p", "The query on the left, its nearest videos to the right, nearest first, with their similarity (cosine). ",
        element("span", "✓", class_="good"), " same class, ", element("span", "✗", class_="bad"), " another class.",
    )  # fmt: skip
    return Section(KEY, TITLE, join((note, element("div", *parts, class_="wide"))), shown)


def choose_queries(frame: pd.DataFrame, seed: int) -> dict[str, list[str]]:
    """Title -> ids of queries: of the worst and the best classes by recall@1, seeded; any where no query has a label."""
    rng = np.random.default_rng(seed)
    first = frame[frame["rank"] == 1]
    recalls = class_recalls(frame, [1])
    if not recalls:
        some = rng.permutation(first["query_id"].to_numpy(dtype=object))[:NUM_UNLABELLED]
        return {"Some queries": sorted(some.tolist())}
    names = list(recalls)
    shares = [recalls[label][1][0] or 0.0 for label in names]
    chosen: dict[str, list[str]] = {}
    for title, labels in zip(("Worst", "Best"), worst_and_best(shares, NUM_CLASSES, seed), strict=True):
        for label in labels:
            own = first.loc[first["query_label_name"] == names[label], "query_id"].to_numpy(dtype=object)
            queries = sorted(rng.permutation(own)[:QUERIES_PER_CLASS].tolist())
            chosen.setdefault(f"{title} classes by recall@1: {{}}", []).extend(queries)
        if labels:
            words = ", ".join(f"{names[label]} ({shares[label]:.2f})" for label in labels)
            key = f"{title} classes by recall@1: {{}}"
            chosen[key.replace("{}", words)] = chosen.pop(key)
    return chosen


def _query(rows: pd.DataFrame) -> Html:
    """A query and its neighbours in a row."""
    first = rows.iloc[0]
    shots = [
        captioned(str(first["query_id"]), element("b", name(str(first["query_label_name"]))), name(str(first["query_id"])), class_="query")
    ]
    for row in rows.to_dict("records"):
        mark = {"True": ("good", "✓ "), "False": ("bad", "✗ ")}.get(row["correct"], ("", ""))
        label = element("b", element("span", mark[1], class_=mark[0] or None), name(row["neighbour_label_name"]))
        words = f"{row['rank']} · {row['similarity']:.3f} · "
        shots.append(captioned(row["neighbour_id"], label, join((words, name(row["neighbour_id"]))), class_=mark[0]))
    return element("div", *shots, class_="row")


def _table(rows: pd.DataFrame) -> Table:
    header = ["query", "class", "rank", "video", "its class", "similarity", "right"]
    cells: list[list[Cell]] = []
    for row in rows.to_dict("records"):
        right = {"True": "yes", "False": "no"}.get(row["correct"], "–")
        words = [name(str(row[key])) for key in ("query_id", "query_label_name", "neighbour_id", "neighbour_label_name")]
        cells.append([words[0], words[1], int(row["rank"]), words[2], words[3], f"{row['similarity']:.6g}", right])
    return Table(header, cells, numbers(header, 0, 1, 3, 4, 6))
