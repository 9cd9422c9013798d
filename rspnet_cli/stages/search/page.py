"""The HTML page of a search: clips of the queries while their frames are there, then those of what was found, and the file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rspnet_cli.errors import InputError
from rspnet_cli.files import write_atomic
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.report.clips import Clips, Moment, clip_strip, css_rule, rule_bytes
from rspnet_cli.report.figure import LeftOut, Section
from rspnet_cli.report.html import number
from rspnet_cli.report.page import check_target, page, tiles
from rspnet_cli.report.search_page import failed_query, moments_of, query_section
from rspnet_cli.stages.search.queries import Query
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.store import open_store

if TYPE_CHECKING:
    from rspnet_cli.stages.search import Answer

MAX_BYTES = 15_000_000
_TITLE = "search"


@dataclass
class SearchPage:
    """A page in the making. room_bytes: for clips of queries that are files; at most half of the page."""

    target: Path
    export: Manifest
    clips: Clips
    room_bytes: int = MAX_BYTES // 2

    @classmethod
    def at(cls, target: Path, export: Manifest, *, force: bool) -> SearchPage:
        """A page to be written there. Raises InputError where something else is, unless with force."""
        check_target(target, force=force)
        try:
            return cls(target, export, Clips(read_frames(export.input("extract", verify=False))))
        except InputError as error:  # the page then shows names alone
            return cls(target, export, Clips(None, faults=[str(error)]))

    def add_query(self, place: int, store: Path) -> None:
        """Take the clip of a query that is a file, whose frames are there for the moment."""
        name = _clip_name(place)
        with open_store(store) as video:
            rule = css_rule(name, *clip_strip(video))
        self.room_bytes -= rule_bytes(name, rule)
        if self.room_bytes >= 0:
            self.clips.styles[name] = rule

    def write(self, asked: Sequence[Query], answers: Sequence[Answer], *, topk: int, videos: int, report: Reporter) -> None:
        """Make the other clips, while they fit, and the file. Raises DiskFullError."""
        sections: list[Section] = []
        failed: list[LeftOut] = []
        for place, (query, answer) in enumerate(zip(asked, answers, strict=True)):
            if answer.failure is not None:
                failed.append(failed_query(place, answer.query, answer.failure))
                continue
            clip = query.video or _clip_name(place)
            command = shlex.join(["rspnet", "search", answer.query, "--features", str(self.export.folder), "--topk", str(topk)])
            sections.append(query_section(place, answer.query, answer.hits, clip=clip, command=command))
        summary = tiles(
            [
                ("queries", number(len(answers)), f"{len(failed)} failed"),
                ("videos searched", number(videos), f"{topk} shown of each"),
            ]
        )
        title = f"{_TITLE}: {answers[0].query}" + (f" and {len(answers) - 1} more" if len(answers) > 1 else "")
        bare = page(title, summary, sections, failed, clip_rules=self.clips.rules(), command="search")
        wanted: list[str | Moment] = [query.video for query in asked if query.video is not None]
        wanted += moments_of(hit for answer in answers for hit in answer.hits)
        self.clips.make(wanted, MAX_BYTES - len(bare.encode()), report, name="search")
        for fault in self.clips.faults[:3]:
            report.warn(f"A clip is left out: {fault}")
        write_atomic(self.target, page(title, summary, sections, failed, clip_rules=self.clips.rules(), command="search"))


def _clip_name(place: int) -> str:
    return f"query {place}"  # ids have no spaces
