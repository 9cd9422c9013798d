"""The page of a search: every query with the videos that were found for it, as clips of the seconds that match."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rspnet_cli.evaluation.search import Hit
from rspnet_cli.report.clips import Moment, captioned
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, figure, numbers
from rspnet_cli.report.html import Html, element, join, name, text
from rspnet_cli.videos.span import span_text


def query_section(place: int, query: str, hits: Sequence[Hit], *, clip: str, command: str) -> Section:
    """The part on one query, the `place`-th. clip: name of its own clip."""
    key = f"query-{place}"
    shots = [captioned(clip, element("b", "query"), name(query), label=query, class_="query"), *(_shot(hit) for hit in hits)]
    grid = element("div", element("div", *shots, class_="row"), class_="queries")
    note = (
        "The query on the left; to the right the videos nearest to it, each at the seconds that match best, with its similarity (cosine)."
    )
    title = f"{len(hits)} nearest videos"
    return Section(key, query, element("div", figure(f"{key}-hits", title, grid, table=_table(hits), commands=[command], note=note)))


def failed_query(place: int, query: str, failure: str) -> LeftOut:
    """A query that could not be answered."""
    return LeftOut(f"query-{place}", query, failure)


def moments_of(hits: Iterable[Hit]) -> list[Moment]:
    """The clips that the hits are to be shown by, those of low ranks first."""
    return [moment_of(hit) for hit in sorted(hits, key=lambda hit: hit.rank)]


def moment_of(hit: Hit) -> Moment:
    """The seconds that match best."""
    return Moment(hit.video, sum(hit.seconds) / 2)


def _shot(hit: Hit) -> Html:
    lines = [element("b", name(hit.label))] if hit.label is not None else []
    lines += [join((f"{hit.rank} · {hit.similarity:.3f} · ", name(hit.video))), text(span_text(*hit.seconds))]
    return captioned(moment_of(hit).name, *lines, label=hit.video)


def _table(hits: Sequence[Hit]) -> Table:
    header = ["rank", "similarity", "video", "label", "seconds", "query seconds"]
    rows: list[list[Cell]] = [
        [
            hit.rank,
            (f"{hit.similarity:.6f}", hit.similarity),
            name(hit.video),
            name(hit.label) if hit.label is not None else "–",
            (span_text(*hit.seconds), hit.seconds[0]),
            (span_text(*hit.query_seconds), hit.query_seconds[0]),
        ]
        for hit in hits
    ]
    return Table(header, rows, numbers(header, 2, 3))
