"""What an unfinished extraction has done so far: a journal of outcomes, and the frames beside it.

The journal is a text file with one JSON line per video, appended to as videos are done. A kill can cost its last line, and then that
video is done again; nothing else depends on it.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rspnet_cli.files import canonical_json, link_or_copy_file, temporary_beside
from rspnet_cli.videos.tasks import Extracted, Failed, Outcome


class Journal:
    """The outcomes so far, by id. Use as a context manager; `add` appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}

    def __enter__(self) -> Journal:
        self._file = open(self.path, "ab+")  # noqa: PTH123
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break  # the line that a kill or a full disk cut off
            whole += len(line)
            with suppress(ValueError, TypeError, KeyError):  # a damaged line costs its video once more
                entry = json.loads(line)
                self._take(entry["id"], entry["outcome"])
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # what a full disk kept from being written was reported when it was added
            self._file.close()

    def add(self, video_id: str, outcome: Outcome) -> None:
        """Record an outcome; a later one of the same video replaces it."""
        self._append(video_id, asdict(outcome))

    def forget(self, video_ids: Iterable[str]) -> None:
        """Have these videos done again."""
        for video_id in video_ids:
            self._append(video_id, None)

    def _append(self, video_id: str, outcome: dict[str, Any] | None) -> None:
        self._file.write(canonical_json({"id": video_id, "outcome": outcome}).encode() + b"\n")
        self._file.flush()
        self._take(video_id, outcome)

    def _take(self, video_id: str, outcome: dict[str, Any] | None) -> None:
        if outcome is None:
            self.outcomes.pop(video_id, None)
        else:
            self.outcomes[video_id] = Failed(**outcome) if "reason" in outcome else Extracted(**outcome)


def is_stored(path: Path, outcome: Extracted) -> bool:
    """Whether the frames that the journal records are there. Their content is hashed by whoever uses them."""
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                return sum(entry.stat(follow_symlinks=False).st_size for entry in entries) == outcome.bytes
        return stat.S_ISREG(status.st_mode) and status.st_size == outcome.bytes
    except OSError:
        return False


def link_or_copy(source: Path, target: Path) -> None:
    """Have a stored video, file or folder, at a second place too, whole or not at all; what was at `target` is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    if source.is_dir():
        shutil.copytree(source, temporary, copy_function=link_or_copy_file)
        shutil.rmtree(target, ignore_errors=True)
    else:
        link_or_copy_file(source, temporary)
    temporary.replace(target)
