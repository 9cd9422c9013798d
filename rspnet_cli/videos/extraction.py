"""What is to be extracted of one video, and what comes of it: the messages between a run and its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
class StoredInfo:
    """What was stored of a video."""

    frames: int
    """Frames that the reader returns."""
    fps: float
    """Frames per second on average."""
    width: int
    height: int
    bytes: int
    sha256: str
    """Of the file; of a folder over its sorted lines `sha256 name`."""
    repaired_timestamps: int
    corrupt_frames: int
    """Frames that the decoder of the source flagged as damaged."""
    partial: bool
    """The source is cut short or damaged; this is what decoded before."""


@dataclass(frozen=True, slots=True)
class Extracted(StoredInfo):
    """A video in the store: fields as in the columns of videos.csv but for `sha256`, which there is the source's."""

    source_sha256: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no such video in the store: columns of failures.csv."""

    reason: str
    decoded: int | None = None
    declared: int | None = None


Outcome = Extracted | Failed
