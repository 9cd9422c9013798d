"""`rspnet search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Quiet, WorkDir, Workers, reporter, show_json, tell_failures
from rspnet_cli.errors import InputError

if TYPE_CHECKING:
    from rspnet_cli.stages.search import Answer, Search


def search(
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...",
            help="A video file, a part of one (FILE@00:12-00:20, FILE@1:02:03.5-), or a video of the set (id:NAME).",
            show_default=False,
        ),
    ],
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="MANIFEST",
            help="Manifest or folder of an export.",
            show_default="<work-dir>/export-features, or the newest other one",
        ),
    ] = None,
    topk: Annotated[
        list[int] | None, typer.Option("--topk", min=1, metavar="K", help="So many videos for each query.", show_default="10")
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write a page with clips of the seconds that match.", rich_help_panel="Output")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    workers: Workers = None,
    work_dir: WorkDir = WORK_DIR,
    out: Annotated[
        Path | None, typer.Option("--out", help="File that --html writes.", show_default="<work-dir>/search.html", rich_help_panel="Where")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace that file even where it is no page of rspnet.", rich_help_panel="Where")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the videos of a set that are most like a query, and the seconds of them that are most like which of the query.

    A file is decoded, resized and encoded exactly as the videos of the set were, so one of them finds itself at similarity 1. A query
    that fails is told with its reason, the others are answered, and the exit code is 1. A file that is called id:... is typed ./id:...

    --json prints {"features": manifest, "videos": how many it has, "queries": [{"query", "hits": [{"rank", "similarity": cosine, "video":
    id, "source": its file, "label": class name or null, "seconds": [start, end], "query_seconds": [start, end]}], "failure": reason or
    null}], "page": file or null}.
    """
    if topk is not None and len(topk) > 1:
        raise InputError(f"--topk {' '.join(map(str, topk))}: a search has one, the number of videos to show; put files behind --.")
    for name, typed in (("--out", out is not None), ("--force", force)):
        if typed and not html:
            raise InputError(f"{name} is about the page that --html writes: add --html, or leave it out.")
    from rspnet_cli.stages.search import find_features
    from rspnet_cli.stages.search import search as stage

    voice = reporter(quiet)
    found = stage(
        queries,
        features=features or find_features(work_dir, voice),
        topk=topk[0] if topk else None,
        device=device,
        workers=workers,
        page=(out or work_dir / "search.html") if html else None,
        force=force,
        report=voice,
    )
    if as_json:
        show_json(found.to_json())
    else:
        _show(found)
    tell_failures("Queries without an answer", [(answer.query, answer.failure) for answer in found.answers])


def _show(found: Search) -> None:
    for answer in found.answers:
        if answer.failure is None:
            _show_answer(answer, found.videos)
    if found.page is not None:
        typer.echo(f"Page: {found.page}")


def _show_answer(answer: Answer, videos: int) -> None:
    """The table of one query; the column of classes only where there are any."""
    from rspnet_cli.cli.tables import show_table
    from rspnet_cli.videos.span import span_text

    labelled = any(hit.label is not None for hit in answer.hits)
    header = ["rank", "similarity", "seconds", "query seconds", *(["label"] if labelled else []), "video"]
    rows = [
        [
            str(hit.rank),
            f"{hit.similarity:.4f}",
            span_text(*hit.seconds),
            span_text(*hit.query_seconds),
            *([hit.label or "-"] if labelled else []),
            hit.video,
        ]
        for hit in answer.hits
    ]
    show_table(f"{answer.query}: nearest of {videos:,} videos", header, rows, [], figures=False)
