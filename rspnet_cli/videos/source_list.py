"""sources.csv: the sources as a run found them, and in words what differs from what a later run finds."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rspnet_cli.errors import InputError
from rspnet_cli.files import canonical_json, sha256_of, write_atomic
from rspnet_cli.progress import Reporter
from rspnet_cli.tables import SOURCES, csv_bytes, from_plain_text, plain_text
from rspnet_cli.videos.frame_files import NoFrames, sha256_of_frames
from rspnet_cli.videos.listing import VideoSource, counted, some


class Stamp(NamedTuple):
    """By what a file is taken to be the same as before, without reading it."""

    bytes: int
    mtime_ns: int


SourceList = dict[str, Stamp]  # by source, as the tables spell it


def source_list(videos: Iterable[VideoSource]) -> SourceList:
    return {plain_text(video.path): Stamp(video.bytes, video.mtime_ns) for video in videos}


def hash_of_sources(sources: Iterable[tuple[str, Stamp]]) -> str:
    """sha256 of a list as canonical JSON, [[source, bytes, mtime_ns], ...], taken line by line."""
    digest = hashlib.sha256(b"[")
    for number, (source, stamp) in enumerate(sources):
        digest.update((("," if number else "") + canonical_json([source, *stamp])).encode())
    digest.update(b"]")
    return digest.hexdigest()


def write_source_list(path: Path, sources: SourceList) -> None:
    rows = ({"source": source, "bytes": stamp.bytes, "mtime_ns": stamp.mtime_ns} for source, stamp in sources.items())
    write_atomic(path, csv_bytes(SOURCES.header(), rows))


def read_source_list(path: Path) -> SourceList | None:
    """What an earlier run found; None if that is not known (no file, or none of ours)."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["source"]: Stamp(int(row["bytes"]), int(row["mtime_ns"])) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None


@dataclass(frozen=True)
class Known:
    """What is known of the sources from an earlier run."""

    what: str
    """That run, for a sentence: "the finished extract in DIR"."""
    sources: SourceList
    hashes: dict[str, str]
    """sha256 of those that were extracted, by source."""
    failed: frozenset[str]
    """Those that were not."""


def check_sources(root: Path, known: Known, now: SourceList, *, retry_failed: bool, verify: bool, report: Reporter) -> None:
    """Whether the sources are still those of an earlier run. Raises InputError naming what differs.

    retry_failed: sources that had failed may have been changed, added or removed: they may have been repaired. verify: the content of
    those that were extracted counts, read again, and not their time.
    """
    left_out = known.failed if retry_failed else frozenset()
    before = known.sources
    both = [source for source in before if source in now and source not in left_out]
    resized = [source for source in both if before[source].bytes != now[source].bytes]
    touched = [source for source in both if before[source].bytes == now[source].bytes and before[source] != now[source]]
    changed: list[str] = []
    if verify:
        hashes = [(source, sha256) for source, sha256 in known.hashes.items() if source in now and source not in resized]
        changed = list(_changed(root, report.track(hashes, total=len(hashes), unit="sources", name="verify")))
        touched = [source for source in touched if source not in known.hashes]
    kinds = (
        ([source for source in now if source not in before and source not in left_out], "added"),
        ([source for source in before if source not in now and source not in left_out], "removed"),
        (resized, "with another size"),
        (touched, "with another time of change"),
        (changed, "with other content"),
    )
    words = "; ".join(f"{counted(len(names), 'source')} {what} ({some(names)})" for names, what in kinds if names)
    if words:
        if before and now and not both and not left_out:
            words = f"they have no file in common with its {counted(len(before), 'source')}"
        hints = [
            "--verify-sources compares contents instead" if touched and not verify else "",
            "--retry-failed accepts changes of videos that had failed" if known.failed and not retry_failed else "",
        ]
        raise InputError(
            f"The videos in {root} are not those of {known.what}: {words}. Add --force to extract anew, or --out DIR to keep both"
            + "".join(f"; {hint}" for hint in hints if hint)
            + "."
        )


def _changed(root: Path, hashes: Iterable[tuple[str, str]]) -> Iterator[str]:
    for source, sha256 in hashes:
        path = root / from_plain_text(source)
        try:
            if (sha256_of_frames(path) if path.is_dir() else sha256_of(path)) == sha256:
                continue
        except (OSError, NoFrames):
            pass
        yield source
