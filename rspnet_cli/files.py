"""Files that are whole or not there: atomic writes, hashes, and the canonical JSON that digests are taken over."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rspnet_cli.errors import DiskFullError, RspnetError
from rspnet_cli.timing import timed

_FULL = {errno.ENOSPC, errno.EDQUOT}
TEMPORARY = ".tmp-"
"""What the names of files and folders that are not whole yet begin with."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def disk_full(path: Path, needed_bytes: int | None = None) -> DiskFullError:
    """The error for a full disk at `path`, with what is free there as far as it can be known. needed_bytes: at least so many."""
    free = free_bytes(path)
    if needed_bytes is not None and free is not None and needed_bytes <= free:
        needed_bytes = None  # a quota, or a file that was to become larger
    return DiskFullError(path, needed_bytes, free)


def free_bytes(path: Path) -> int | None:
    """Room on the disk where `path` lies or would lie; None where that cannot be known."""
    folder = path.absolute()
    with suppress(OSError):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    return None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; when the block ends well its content is fsynced and becomes `path`.

    On any error the temporary file is removed. Raises DiskFullError when there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        with timed("write"):
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
            fsync_folder(path.parent)
    except BaseException as error:
        needed: int | None = None
        with suppress(OSError):
            needed = temporary.stat().st_size  # so much at least
        with suppress(OSError):
            temporary.unlink()
        if is_disk_full(error):
            raise disk_full(path, needed) from error
        raise


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder where the system keeps temporary files, gone with all that it holds when the block ends, however it ends.

    Raises DiskFullError, or RspnetError where no folder can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(Path(tempfile.gettempdir())) from error
        raise RspnetError(f"No temporary folder can be made ({error.strerror}): name one that can be written to in TMPDIR.") from error
    with folder as path:
        yield Path(path)


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of `path`: short, so that it fits where `path` fits, with its ending, by which libraries choose a format."""
    return path.parent / f"{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}{path.suffix}"


def link_or_copy_file(source: str | Path, target: str | Path) -> None:
    """Have a file at a second place too, as a hard link where that can be, whole or not at all. Raises DiskFullError."""
    try:
        os.link(source, target)
    except OSError:  # a disk without hard links, or too many of them
        with atomic_path(Path(target)) as temporary:
            shutil.copy2(source, temporary)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a small file whole or not at all. Text is UTF-8 with `\\n` line ends on every system."""
    data = content.encode("utf-8", errors="surrogateescape") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(path, len(data)) from error
            raise


def read_lines(path: Path, block_bytes: int = 2**17) -> Iterator[bytes]:
    """The lines of a file, a block at a time, closed in between: more files can be read side by side than may be open."""
    place = 0
    while True:
        with path.open("rb") as file:
            file.seek(place)
            lines = file.readlines(block_bytes)
            place = file.tell()
        if not lines:
            return
        yield from lines


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> tuple[int, str]:
    """(bytes, sha256) of a folder that counts as one artifact: the hash is over its sorted lines `sha256 name`."""
    files = sorted(item for item in folder.iterdir() if item.is_file())
    lines = "".join(f"{sha256_of(item)} {item.name}\n" for item in files)
    return sum(item.stat().st_size for item in files), hashlib.sha256(lines.encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII, no NaN. What digests are computed over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of_json(value: Any) -> str:
    """Hex sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
