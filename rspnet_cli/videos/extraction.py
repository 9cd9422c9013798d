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
