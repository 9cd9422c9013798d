"""One video, from source to store, as a worker process does it."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rspnet_cli.files import is_disk_full


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """What a worker needs to extract one video."""

    id: str
    source: str
    target: str
    bytes: int
    mtime_ns: int
    """Size and time of the source as it was found."""
    short_side: int
    codec: Literal["h264", "jpeg"]
    crf: int | None
    keep_partial: bool
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """A video in the store. Fields as in the columns of videos.csv, and the store's hash."""

    frames: int
    fps: float
    width: int
    height: int
    bytes: int
    sha256: str
    repaired_timestamps: int
    corrupt_frames: int
    partial: bool
    source_sha256: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no such video in the store: columns of failures.csv."""

    reason: str
    decoded: int | None = None
    declared: int | None = None


Outcome = Extracted | Failed


def extract_video(task: ExtractionTask) -> Outcome:
    """Hash and decode a source, write its frames. Raises DiskFullError when there is no room for them; all else is an outcome."""
    from rspnet_cli.videos.store import BrokenVideo, write_video

    try:
        source_sha256 = _hash_source(task)
        info = write_video(
            Path(task.source),
            Path(task.target),
            short_side=task.short_side,
            codec=task.codec,
            crf=task.crf,
            keep_partial=task.keep_partial,
            max_pixels=task.max_pixels,
        )
    except BrokenVideo as broken:
        return Failed(broken.reason, broken.decoded, broken.declared)
    except SourceChanged as changed:
        return Failed(str(changed))
    return Extracted(**asdict(info), source_sha256=source_sha256)


class SourceChanged(Exception):
    """A source that is not, or no longer, the file that was found, in words."""


def _hash_source(task: ExtractionTask) -> str:
    """The source's sha256, if it is still the file that was found. Raises SourceChanged."""
    try:
        # Not blocking: a pipe may have taken the file's place.
        handle = os.open(task.source, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:  # noqa: PTH123
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (task.bytes, task.mtime_ns):
                raise SourceChanged("changed after the run had begun")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if is_disk_full(error):
            raise
        raise SourceChanged(f"cannot be read ({error.strerror})") from error
