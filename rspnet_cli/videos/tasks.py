"""What a worker is to extract of one video, and what comes of it: the messages between a run and its workers.

Free of settings and of what reads them, for every worker loads this before its first video.
"""

from __future__ import annotations

from dataclasses import dataclass

from rspnet_cli.codecs import Codec
from rspnet_cli.videos.span import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTask:
    """What a worker needs to store the frames of one video."""

    id: str
    source: str
    target: str
    num_frames: int | None
    """The source is a folder of so many frames; None: a video file."""
    frames_fps: float | None
    """Frames per second of folders of frames."""
    short_side: int
    codec: Codec
    crf: int | None
    keep_partial: bool
    max_pixels: int
    span: Span | None = None
    """The part to store; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionTask(StoreTask):
    """What a worker needs to extract one video of a folder."""

    bytes: int
    mtime_ns: int
    """Size and time of the source as it was found."""


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
