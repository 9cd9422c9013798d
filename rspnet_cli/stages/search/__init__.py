"""search: videos like these ones, whether they are of the set or anywhere on the disk."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.open_features import open_features
from rspnet_cli.evaluation.search import Described, Hit, described, find
from rspnet_cli.manifest import MANIFEST, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.report.found import all_manifests
from rspnet_cli.stages.search.describe import describe_files, makers_of
from rspnet_cli.stages.search.queries import Query, read_query

if TYPE_CHECKING:
    from rspnet_cli.stages.search.page import SearchPage

__all__ = ["Answer", "Hit", "Search", "find_features", "search"]

DEFAULT_TOPK = 10
_EXPORT = "export-features"


@dataclass(frozen=True)
class Answer:
    """What was found for a query."""

    query: str
    """As it was typed."""
    hits: list[Hit]
    """Nearest first; none where the query failed."""
    failure: str | None
    """Why it failed, in words that follow the query."""


@dataclass(frozen=True)
class Search:
    """The answers, in the order of the queries."""

    features: Path
    """The manifest of the export that was searched."""
    videos: int
    """How many videos it has."""
    answers: list[Answer]
    page: Path | None
    """The HTML page that shows them, where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        """JSON values: what `rspnet search --json` prints."""
        return {
            "features": str(self.features),
            "videos": self.videos,
            "queries": [asdict(answer) for answer in self.answers],
            "page": None if self.page is None else str(self.page),
        }


def search(
    queries: Sequence[str],
    *,
    features: Path,
    topk: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    page: Path | None = None,
    force: bool = False,
    report: Reporter | None = None,
) -> Search:
    """Find the videos of an export that are nearest to each query, by the cosine of their features.

    queries: `id:NAME` of the set, a video file, or a part of one, `file@00:12-00:20`. Files go through extract's and export-features' own
    settings, the former in parallel; those that fail are answered with the reason. features: folder or manifest of the export. topk: None:
    10, or all where there are fewer. device, workers: of files. page: an HTML file to write, in place of an earlier page, of any other file
    only with force. Raises InputError for features that are not what they should be, or whose encoder or extraction is gone where it is
    needed; DiskFullError.
    """
    report = report or Reporter.silent()
    export = read_manifest(features, stage=_EXPORT, verify=False)
    with open_features(export) as stored:
        k = _choose_topk(topk, len(stored.ids), export)
        rows = {video_id: row for row, video_id in enumerate(stored.ids)}
        asked = [read_query(text, rows.keys()) for text in queries]
        shown = _page(page, export, force) if page is not None else None
        results: list[Described | str] = [
            query.failure or "" if query.video is None else described(stored, rows[query.video]) for query in asked
        ]
        files = {place: query for place, query in enumerate(asked) if query.source is not None}
        if files:
            with closing(_describe_files(files, export, device, workers, report)) as outcomes:
                for place, result, store in outcomes:
                    results[place] = result
                    if shown is not None and isinstance(result, Described):
                        shown.add_query(place, store)
        found = iter(find([result for result in results if isinstance(result, Described)], stored, k=k))
        answers = [
            Answer(query.text, next(found), None) if isinstance(result, Described) else Answer(query.text, [], result)
            for query, result in zip(asked, results, strict=True)
        ]
    if shown is not None:
        shown.write(asked, answers, topk=k, videos=len(rows), report=report)
    return Search(export.path, len(rows), answers, page)


def find_features(work_dir: Path, report: Reporter) -> Path:
    """The export of a work directory: `<work-dir>/export-features`, or else the newest other one in it, saying which."""
    usual = work_dir / _EXPORT
    if (usual / MANIFEST).exists():
        return usual
    others: list[Manifest] = []
    for folder in all_manifests(work_dir):
        try:
            others.append(read_manifest(folder, stage=_EXPORT, verify=False))
        except InputError:  # of another stage, or damaged
            continue
    if not others:
        return usual  # whoever reads it says what to do
    newest = max(others, key=lambda manifest: manifest.created)
    untrained = " (of the untrained encoder)" if newest.config.get("random_init") is True else ""
    report.info(f"search: there is no {usual}: searching {newest.folder}{untrained}, the newest of {len(others)} (or name --features).")
    return newest.folder


def _choose_topk(typed: int | None, videos: int, export: Manifest) -> int:
    if typed is None:
        return min(DEFAULT_TOPK, videos)
    if not 1 <= typed <= videos:
        raise InputError(f"--topk {typed} is not from 1 to {videos}, the number of videos of {export.path}: use at most that.")
    return typed


def _page(page: Path, export: Manifest, force: bool) -> SearchPage:
    from rspnet_cli.stages.search.page import SearchPage  # loads a decoder

    return SearchPage.at(page, export, force=force)


def _describe_files(
    files: Mapping[int, Query], export: Manifest, device: str, workers: int | None, report: Reporter
) -> Generator[tuple[int, Described | str, Path]]:
    makers = makers_of(export)
    if makers.config.gallery_augment == "reference":
        report.info(
            f"search: train videos of split {makers.config.split} were described by random crops (--gallery-augment reference), files "
            "are by centre squares: a train video's own file is not at similarity 1."
        )
    return describe_files(files, makers, device=device, workers=workers, report=report)
