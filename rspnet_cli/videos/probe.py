"""What an extraction will cost, from a few of its videos that are really extracted: bytes of frames, and seconds.

Both grow with a video's size (bytes of a file, frames of a folder), so each is estimated by a ratio: the probed videos' sum over their
sizes' sum, times the size of all. The videos lie evenly over the sizes: small and large ones take part as they do in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rspnet_cli.config import ExtractConfig
from rspnet_cli.devices import num_cpus
from rspnet_cli.progress import Reporter
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.extraction import FRAMES_FOLDER, StoreLayout, extraction_task
from rspnet_cli.videos.listing import VideoSource, VideoTable
from rspnet_cli.videos.pool import WorkerPool
from rspnet_cli.videos.tasks import Extracted, Failed

PROBED_VIDEOS = 16
# No video is begun after so long; every worker has had one by then.
PROBE_S = 60.0
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Total:
    """An estimated sum over all videos, and about two standard errors on both sides of it; no range from fewer than three videos."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimate:
    """What the probe found. bytes, seconds: of all videos, with `workers` processes; None where no probed video could be extracted."""

    probed: int
    failures: dict[str, str]
    """Reasons by source, of the probed videos."""
    workers: int
    bytes: Total | None
    seconds: Total | None


def probe(table: VideoTable, config: ExtractConfig, *, root: Path, folder: Path, report: Reporter) -> Estimate:
    """Extract a few videos of the table into `folder` by the resolved settings and estimate all. Raises DiskFullError."""
    from rspnet_cli.videos.extract_video import extract_timed  # loads the decoder

    (folder / FRAMES_FOLDER).mkdir()
    workers = min(config.workers or num_cpus(), len(table.videos))
    # Two for each worker: all of them are busy while they are timed, as they will be.
    chosen = spread(table.videos, max(PROBED_VIDEOS, 2 * workers))
    by_id = {video.id: video for video in chosen}
    end = monotonic() + PROBE_S
    num_begun = 0

    def begun() -> Iterator[VideoSource]:
        nonlocal num_begun
        for video in chosen:
            if num_begun >= workers and monotonic() > end:
                return
            num_begun += 1
            yield video

    measured: list[tuple[int, int, float]] = []  # size, stored bytes, seconds
    failures: dict[str, str] = {}
    with WorkerPool(extract_timed, num_workers=workers, timeout_s=config.video_timeout_s) as pool:
        layout = StoreLayout.of(config, len(chosen))
        outcomes = pool.outcomes(extraction_task(video, config, layout, root=root, folder=folder) for video in begun())
        for outcome in report.track(outcomes, total=len(chosen), unit="videos", name="probe"):
            video = by_id[outcome.task.id]
            result, seconds = outcome.result or (Failed(str(outcome.failure)), config.video_timeout_s if outcome.timed_out else 0.0)
            if isinstance(result, Failed):
                failures[plain_text(video.path)] = result.reason
            measured.append((size_of(video), result.bytes if isinstance(result, Extracted) else 0, seconds))
    totals: list[Total | None] = [None, None]
    if len(failures) < len(measured):
        sizes = [size for size, _, _ in measured]
        whole = sum(size_of(video) for video in table.videos)
        totals = [
            total_of(sizes, values, whole, len(table.videos))
            for values in ([stored for _, stored, _ in measured], [seconds / workers for _, _, seconds in measured])
        ]
    return Estimate(len(measured), failures, workers, bytes=totals[0], seconds=totals[1])


def size_of(video: VideoSource) -> int:
    """What bytes and seconds are taken to grow with; at least 1."""
    return max(video.bytes if video.num_frames is None else video.num_frames, 1)


def spread(videos: Sequence[VideoSource], number: int) -> list[VideoSource]:
    """At most `number` videos that lie evenly over the sizes; so do the first few of them, should there be no time for all."""
    by_size = sorted(videos, key=size_of)
    if len(by_size) <= number:
        places = dict.fromkeys(sorted(range(len(by_size)), key=lambda index: (index * _GOLDEN) % 1))
    else:
        places = dict.fromkeys(int((0.5 + index * _GOLDEN) % 1 * len(by_size)) for index in range(number))
    return [by_size[place] for place in places]


def total_of(sizes: Sequence[float], values: Sequence[float], whole: float, count: int) -> Total:
    """The sum of a value over `count` videos of the summed size `whole`, from those that were measured (Cochran's ratio estimator)."""
    number = len(sizes)
    ratio = sum(values) / sum(sizes)
    if number == count:
        return Total(sum(values), sum(values), sum(values))
    if number < 3:
        return Total(ratio * whole, None, None)
    variance = sum((value - ratio * size) ** 2 for size, value in zip(sizes, values, strict=True)) / (number - 1)
    error = count * math.sqrt((1 - number / count) * variance / number)
    return Total(ratio * whole, max(ratio * whole - 2 * error, sum(values)), ratio * whole + 2 * error)
