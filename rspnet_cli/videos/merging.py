"""The extractions of all shards -> one: tables are put together line by line, frames are moved, folder by folder where they lie in such."""

from __future__ import annotations

import csv
import errno
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import Entry, compare_with_folder
from rspnet_cli.files import atomic_path, read_lines
from rspnet_cli.manifest import Manifest
from rspnet_cli.settling import move_listed
from rspnet_cli.tables import FAILURES, SOURCES, VIDEOS, csv_line, from_plain_text
from rspnet_cli.videos.source_list import Stamp, hash_of_sources
from rspnet_cli.videos.walk import sort_key

Row = list[str]


def merge_tables(shards: Sequence[Manifest], work: Path) -> dict[str, Any]:
    """Write videos.csv, failures.csv and sources.csv of all shards into `work`, as one run would; what the results say of them together.

    Memory stays that of a few lines of each shard. Raises InputError where a video is in two shards, or a shard has lost its sources.csv.
    """
    labels: set[str] = set()
    column = _header(shards[0].folder / VIDEOS.file).index("label")

    def noting(rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            labels.add(row[column])
            yield row

    _write_rows(work / VIDEOS.file, shards, noting(_merged(shards, VIDEOS.file, _by_id)))
    _write_rows(work / FAILURES.file, shards, _merged(shards, FAILURES.file, _by_id))
    _write_rows(work / SOURCES.file, shards, _merged(shards, SOURCES.file, _by_path))
    summed = {key: sum(int(manifest.results[key]) for manifest in shards) for key in ("videos", "failed", "frames", "bytes")}
    return summed | {"classes": len(labels - {""}), "splits": shards[0].results["splits"]}


def hash_of_merged_sources(work: Path) -> str:
    """As of one run, of the sources.csv in `work`."""
    return hash_of_sources((source, Stamp(int(size), int(mtime_ns))) for source, size, mtime_ns in _rows(work / SOURCES.file))


def merged_index(shards: Iterable[Manifest]) -> Iterator[Entry]:
    """The lines of the indexes of all shards, sorted by path."""
    return heapq.merge(*(manifest.indexed() for manifest in shards))


def check_frames(shards: Iterable[Manifest], work: Path) -> None:
    """Check that every frame file is in its shard's folder, or in `work`, where a stopped merge has moved it, and nothing else is.

    Raises InputError.
    """
    for manifest in shards:
        assert manifest.listed is not None, "an extraction has an index"
        for path, is_listed in compare_with_folder(manifest.folder, manifest.listed.folder, manifest.indexed()):
            if not is_listed:
                raise InputError(f"{manifest.folder / path} is no file of this shard: move it away, then merge again.")
            if not os.path.lexists(work / path):
                raise InputError(f"{manifest.folder / path} is missing: {manifest.advice}, then merge again.")


def move_frames(shards: Iterable[Manifest], work: Path) -> None:
    """Move the frames of all shards to `work`. Raises InputError where they lie on another file system."""
    for manifest in shards:
        try:
            move_listed(manifest.folder, work, manifest)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise InputError(
                f"{manifest.folder} lies on another file system than {work.parent}, and merge moves frames without copying them: move the "
                "shard beside the others first, or merge there with --out."
            ) from error


def _merged(shards: Sequence[Manifest], name: str, key: Callable[[Row], Any]) -> Iterator[Row]:
    before = None
    for row in heapq.merge(*(_rows(manifest.folder / name) for manifest in shards), key=key):
        if before is not None and before[0] == row[0]:
            raise InputError(f"{row[0]} is in {name} of two shards: extract the shards again from one listing, with --force.")
        before = row
        yield row


def _write_rows(path: Path, shards: Sequence[Manifest], rows: Iterable[Row]) -> None:
    header = _header(shards[0].folder / path.name)
    for manifest in shards:
        if _header(manifest.folder / path.name) != header:
            raise InputError(f"{manifest.folder / path.name} has other columns than that of {shards[0].folder}: {manifest.advice}.")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(header))
        for row in rows:
            file.write(csv_line(row))


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a table without its header."""
    rows = _lines(path)
    next(rows, None)
    return rows


def _header(path: Path) -> Row:
    return next(_lines(path), [])


def _lines(path: Path) -> Iterator[Row]:
    try:
        yield from csv.reader(line.decode("utf-8") for line in read_lines(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it, or extract this shard again with --force.") from error


def _by_id(row: Row) -> str:
    return row[0]


def _by_path(row: Row) -> bytes:
    return sort_key(from_plain_text(row[0]))
