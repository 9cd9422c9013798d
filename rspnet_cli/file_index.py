"""Files of a stage by size and hash: whether one is still what it was, and the index of a stage with many.

The index has a line for each file, and its own hash stands in the manifest. A set of ten million videos has as many files of frames: in the
manifest they would be gigabytes of JSON, to be parsed by every later stage before its first line of work; an index is hashed in seconds
and read line by line, or at a few places.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from rspnet_cli.errors import InputError
from rspnet_cli.files import atomic_path, read_lines, sha256_of, sha256_of_folder

INDEX = "files.csv"
HEADER = "path,bytes,sha256\n"
_LINE = re.compile(rb'([^,"\n]+),([0-9]{1,18}),([0-9a-f]{64})\n')


class Entry(NamedTuple):
    """A file of a stage, or a folder that counts as one (`path` then ends with a slash)."""

    path: str
    """Relative to the stage's folder, with forward slashes; without commas, quotes and line ends, as ids are."""
    bytes: int
    sha256: str


class KnownFile(Protocol):
    """What is known of a file: an entry of an index, or an artifact of a manifest."""

    @property
    def path(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def artifact_fault(folder: Path, artifact: KnownFile, *, hashed: bool) -> str | None:
    """What is wrong with an artifact, in words that follow its path, or None."""
    pure = PurePosixPath(artifact.path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in artifact.path or "\0" in artifact.path:
        return "is no path inside its stage's folder, as an artifact's must be"
    path = folder / artifact.path
    try:
        status = path.lstat()
        # A link is not followed: one in a loop would end in a RuntimeError before Python 3.13.
        is_inside = not stat.S_ISLNK(status.st_mode) and path.resolve(strict=True).is_relative_to(folder.resolve())
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    if not is_inside:
        return "is a link that leads elsewhere, where a regular file of the stage must be"
    is_folder = artifact.path.endswith("/")
    if not (stat.S_ISDIR(status.st_mode) if is_folder else stat.S_ISREG(status.st_mode)):
        return f"is not a {'folder' if is_folder else 'regular file'}"
    try:
        if is_folder:
            if not hashed:
                return None
            size, digest = sha256_of_folder(path)
        else:
            size, digest = (
                status.st_size,
                sha256_of(path) if hashed and status.st_size == artifact.bytes else artifact.sha256,
            )
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if size != artifact.bytes:
        return f"has {size:,} bytes, not the {artifact.bytes:,} that the manifest records"
    if digest != artifact.sha256:
        return "was changed after it was written (its sha256 differs)"
    return None


def write_index(path: Path, entries: Iterable[Entry]) -> tuple[int, int]:
    """Write an index atomically; how many files it lists, and their bytes.

    entries: sorted by path, each path once. Raises DiskFullError.
    """
    files = size = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        before = ""
        for entry in entries:
            assert before < entry.path, f"{entry.path} comes twice or not in its order"
            assert not set(',"\n') & set(entry.path), f"{entry.path} cannot stand in an index"
            file.write(f"{entry.path},{entry.bytes},{entry.sha256}\n")
            before, files, size = entry.path, files + 1, size + entry.bytes
    return files, size


def read_index(path: Path) -> Iterator[Entry]:
    """The lines of an index, one by one. Raises InputError where it is none: lines of another kind, out of order, or twice."""
    try:
        lines = read_lines(path)
        if next(lines, b"") != HEADER.encode():
            raise _no_index(path, 1)
        before = ""
        for number, line in enumerate(lines, start=2):
            entry = _parsed(line)
            if entry is None or entry.path <= before:
                raise _no_index(path, number)
            before = entry.path
            yield entry
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): restore it, or run its stage again with --force.") from error


def sample_index(path: Path, count: int) -> Iterator[Entry]:
    """About `count` lines, evenly spaced over the file: what lies between them is not read. Raises InputError."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for number in range(count):
                file.seek(len(HEADER) - 1 + number * (size - len(HEADER)) // count)
                file.readline()  # the rest of the line that this place is in
                if line := file.readline():
                    entry = _parsed(line)
                    if entry is None:
                        raise _no_index(path)
                    yield entry
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): restore it, or run its stage again with --force.") from error


def compare_with_folder(root: Path, folder: str, entries: Iterable[Entry]) -> Iterator[tuple[str, bool]]:
    """What is in `root/folder` but not in its index, or in the index but not there: (path below root, whether it is in the index).

    folder: ends with a slash; all entries lie below it. Memory stays that of the names in one folder, whatever the number of files.
    Folders without files are passed over.
    """
    listed = iter(entries)
    entry = next(listed, None)
    pending = [iter(_names(root, folder))]
    while pending:
        path = next(pending[-1], None)
        if path is None:
            pending.pop()
            continue
        while entry is not None and entry.path < path:
            yield entry.path, True
            entry = next(listed, None)
        if entry is not None and entry.path == path:
            entry = next(listed, None)
        elif path.endswith("/"):  # no artifact itself: files may lie in it
            pending.append(iter(_names(root, path)))
        else:
            yield path, False
    while entry is not None:
        yield entry.path, True
        entry = next(listed, None)


def _names(root: Path, folder: str) -> list[str]:
    """What lies in a folder, in the order of an index: folders end with a slash, which counts in their order."""
    try:
        with os.scandir(root / folder) as found:
            return sorted(f"{folder}{item.name}/" if item.is_dir(follow_symlinks=False) else f"{folder}{item.name}" for item in found)
    except FileNotFoundError:
        return []


def _parsed(line: bytes) -> Entry | None:
    match = _LINE.fullmatch(line)
    try:
        return Entry(match[1].decode(), int(match[2]), match[3].decode()) if match else None
    except UnicodeDecodeError:
        return None


def _no_index(path: Path, line: int | None = None) -> InputError:
    where = "" if line is None else f", line {line:,}"
    return InputError(f"{path} is no index of files (path, bytes, sha256, sorted by path){where}: run its stage again with --force.")
