"""One video, from source to store, as a worker process does it.

Apart from `extraction.py`, so that a worker has loaded the decoder before its first video's time begins, and the parent needs none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from rspnet_cli.files import is_disk_full
from rspnet_cli.timing import Part, Stopwatch, listening, timed
from rspnet_cli.usage import Usage, peak_bytes
from rspnet_cli.videos.broken import BrokenVideo
from rspnet_cli.videos.frame_files import NoFrames, sha256_of_frames
from rspnet_cli.videos.store import write_video
from rspnet_cli.videos.tasks import Extracted, ExtractionTask, Failed, Outcome, StoredInfo, StoreTask


def extract_video(task: ExtractionTask) -> Outcome:
    """Hash and decode a source, write its frames. Raises DiskFullError when there is no room for them; all else is an outcome."""
    try:
        with timed("hash"):
            source_sha256 = _hash_source(task)
    except SourceChanged as changed:
        return Failed(str(changed))
    info = store_video(task)
    return info if isinstance(info, Failed) else Extracted(**asdict(info), source_sha256=source_sha256)


def store_video(task: StoreTask) -> StoredInfo | Failed:
    """Decode a source and write its frames, or say why not. Raises DiskFullError."""
    try:
        return write_video(
            Path(task.source),
            Path(task.target),
            short_side=task.short_side,
            codec=task.codec,
            crf=task.crf,
            keep_partial=task.keep_partial,
            max_pixels=task.max_pixels,
            num_frames=task.num_frames,
            frames_fps=task.frames_fps,
            span=task.span,
        )
    except BrokenVideo as broken:
        return Failed(broken.reason, broken.decoded, broken.declared)


def extract_timed(task: ExtractionTask) -> tuple[Outcome, float]:
    """The same, with the seconds that it took."""
    began = perf_counter()
    return extract_video(task), perf_counter() - began


@dataclass(frozen=True)
class Effort:
    """What a video took in its worker."""

    usage: Usage
    parts_s: dict[Part, float]
    peak_bytes: int | None
    """The most memory that the worker has had so far; None: not known here."""


def extract_measured(task: ExtractionTask) -> tuple[Outcome, Effort]:
    """The same, with what it took; the stored frames are removed again."""
    stopwatch, before = Stopwatch(), Usage.now()
    with listening(stopwatch), timed("other"):
        outcome = extract_video(task)
    effort = Effort(Usage.now().since(before), stopwatch.seconds, peak_bytes())
    target = Path(task.target)
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return outcome, effort


class SourceChanged(Exception):
    """A source that is not, or no longer, what was found, in words."""


def _hash_source(task: ExtractionTask) -> str:
    """The source's sha256, if it is still the file or folder of frames that was found. Raises SourceChanged."""
    try:
        if task.num_frames is not None:
            if os.stat(task.source).st_mtime_ns != task.mtime_ns:  # noqa: PTH116
                raise SourceChanged("changed after the run had begun")
            return sha256_of_frames(Path(task.source))
        # Not blocking: a pipe may have taken the file's place.
        handle = os.open(task.source, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:  # noqa: PTH123
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (task.bytes, task.mtime_ns):
                raise SourceChanged("changed after the run had begun")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except NoFrames as fault:
        raise SourceChanged(str(fault)) from fault
    except OSError as error:
        if is_disk_full(error):
            raise
        raise SourceChanged(f"cannot be read ({error.strerror})") from error
