"""What was asked for: `id:NAME` of the set, a video file, or a part of one, `file@00:12-00:20`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from rspnet_cli.settings import nearest
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import counted
from rspnet_cli.videos.span import Span, split_span

OF_THE_SET = "id:"


@dataclass(frozen=True)
class Query:
    """A query: a video of the set, or a source; neither where `failure` says why, in words that follow the text."""

    text: str
    """As it was typed, as text that every terminal and JSON can hold."""
    video: str | None = None
    """Its id."""
    source: Path | None = None
    span: Span | None = None
    failure: str | None = None


def read_query(typed: str, ids: Collection[str]) -> Query:
    """What a query means. ids: of the videos of the set. Nothing is opened here."""
    text = plain_text(typed) or '""'
    if typed.startswith(OF_THE_SET):
        name = typed.removeprefix(OF_THE_SET)
        if name in ids:
            return Query(text, video=name)
        hint = nearest(name, ids).removesuffix(".")
        return Query(text, failure=f"is none of the {counted(len(ids), 'video')} of the set{hint}")
    file, span = split_span(typed)
    if not file:  # as a path it would be the folder one stands in
        return Query(text, failure="names no file: type a video file, a part of one (FILE@00:12-00:20), or a video of the set (id:NAME)")
    if span is not None and span.end is not None and span.end <= span.start:
        return Query(text, failure="is no part of a video: it ends before it begins")
    return Query(text, source=Path(file), span=span)
