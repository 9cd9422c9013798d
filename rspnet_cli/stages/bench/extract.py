"""bench extract: videos of the sources through the workers of extract, into a temporary folder, by one process and by all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from rspnet_cli.config import ExtractConfig
from rspnet_cli.devices import num_cpus
from rspnet_cli.errors import InputError
from rspnet_cli.files import temporary_folder
from rspnet_cli.stages.bench.measured import MIN_REPEATS, Measured, Rate, Request, has_extraction, open_extraction, percent, repeats, shares
from rspnet_cli.tables import plain_text
from rspnet_cli.timing import Part
from rspnet_cli.videos.extract_video import Effort, extract_measured
from rspnet_cli.videos.extraction import FRAMES_FOLDER, StoreLayout, extraction_task, settings_of
from rspnet_cli.videos.pool import Outcome, WorkerPool
from rspnet_cli.videos.probe import spread
from rspnet_cli.videos.survey import survey
from rspnet_cli.videos.tasks import Extracted, ExtractionTask, Failed

_SAMPLE = 64
_TARGET_S, _MOST_S = 10.0, 60.0
# The disk limits where a process waits so long; processes hold each other up where each does less than this of what it does alone.
_WAITS, _LINEAR = 0.5, 0.75


def bench_extract(request: Request) -> Measured:
    """Measure the extraction of a sample of the sources. Raises InputError where there are none."""
    root, config = _sources(request)
    with temporary_folder("rspnet-bench-") as folder:
        found = survey(config, videos=root, annotations=None, out=request.extract)
        (folder / FRAMES_FOLDER).mkdir()
        sample = spread(found.table.videos, _SAMPLE)
        layout = StoreLayout.of(found.config, len(sample))
        tasks = [extraction_task(video, found.config, layout, root=root, folder=folder) for video in sample]
        alone = _run(tasks, 1, found.config, request)
        workers = config.workers or num_cpus()
        together = _run(tasks, workers, found.config, request) if workers > 1 else alone
    parts = shares(alone.parts_s)
    worth = together.frames_per_s / alone.frames_per_s
    return Measured(
        setup={
            "videos": len(found.table.videos),
            "sample": len(sample),
            "frames_per_video": round(alone.frames / len(alone.efforts)),
            "short_side": found.config.short_side,
            "codec": found.config.codec,
            "crf": found.config.crf,
            "workers": workers,
        },
        rate=Rate.of(alone.rates, "frames/s of a process"),
        parts=parts,
        figures={
            "frames_per_cpu_s": alone.frames / alone.cpu_s,
            "frames_per_s": together.frames_per_s,
            "workers_worth": worth,
            "bytes_per_frame": alone.stored_bytes / alone.frames,
            "disk_share": alone.disk_share,
            "failed": len(alone.failed | together.failed),
        },
        memory={"largest_worker": max((peak for peak in (alone.peak_bytes, together.peak_bytes) if peak is not None), default=None)},
        verdict=_verdict(found.config, alone, parts, workers=workers, worth=worth),
    )


def _sources(request: Request) -> tuple[Path, ExtractConfig]:
    """The folder of the videos, and the settings to store them by: those of the extraction in the work directory, else the defaults.

    Labels and splits do not matter here, so every folder is one of videos and no lists are read.
    """
    config, root = ExtractConfig(), request.videos
    if has_extraction(request):
        extract = open_extraction(request)
        config = settings_of(extract)
        root = root or Path(str(extract.environment.get("videos", "")))
    elif root is None:
        raise InputError(f"{request.work_dir} holds no finished extraction that names its sources: name a folder with --videos.")
    if not root.is_dir():
        raise InputError(f"The videos are not in {plain_text(str(root))} any more: name their folder with --videos.")
    return root, config.model_copy(
        update={"dataset": "plain", "frames_fps": None, "limit": None, "workers": request.config.run.workers or None}
    )


class _Run:
    """Videos through so many processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.efforts: list[Effort] = []
        self.rates: list[float] = []
        """Frames per second of each video, by its process."""
        self.frames = self.stored_bytes = 0
        self.failed: set[str] = set()

    def add(self, outcome: Outcome[ExtractionTask, tuple[Extracted | Failed, Effort]]) -> None:
        """Count a video; one that failed by its name alone."""
        stored, effort = outcome.result or (None, None)
        if not isinstance(stored, Extracted) or effort is None:
            self.failed.add(outcome.task.source)
            return
        self.efforts.append(effort)
        self.rates.append(stored.frames / effort.usage.seconds)
        self.frames += stored.frames
        self.stored_bytes += stored.bytes

    @property
    def busy_s(self) -> float:
        """Seconds of all processes together."""
        return sum(effort.usage.seconds for effort in self.efforts)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes together."""
        return sum(effort.usage.cpu_s for effort in self.efforts)

    @property
    def disk_share(self) -> float:
        """Share of the time in which the processes waited for the disk to read from."""
        return sum(effort.usage.disk_share * effort.usage.seconds for effort in self.efforts) / self.busy_s

    @property
    def parts_s(self) -> dict[Part, float]:
        """Seconds of the parts."""
        return dict(sum((Counter(effort.parts_s) for effort in self.efforts), Counter()))

    @property
    def frames_per_s(self) -> float:
        """Of all processes, each at the speed it has beside the others; the sample's end, when some have nothing left, does not count."""
        return self.workers * self.frames / self.busy_s

    @property
    def peak_bytes(self) -> int | None:
        """Memory of the largest process."""
        return max((effort.peak_bytes for effort in self.efforts if effort.peak_bytes is not None), default=None)


def _run(tasks: list[ExtractionTask], workers: int, config: ExtractConfig, request: Request) -> _Run:
    """Extract the sample, over and over while there is time. Raises RspnetError where no video can be extracted."""
    run = _Run(workers)
    steps = None if request.steps is None else request.steps * workers

    def handed_out() -> Iterator[ExtractionTask]:
        # Each under a name of its own: two workers may have the same video.
        numbers = repeats(steps, at_least=MIN_REPEATS * workers, target_s=_TARGET_S, most_s=_MOST_S)
        for number, task in zip(numbers, cycle(tasks), strict=False):
            target = Path(task.target)
            yield replace(task, target=str(target.with_name(f"{number}-{target.name}")))

    with WorkerPool(extract_measured, num_workers=workers, timeout_s=config.video_timeout_s) as pool:
        for outcome in request.report.track(pool.outcomes(handed_out()), total=steps, unit="videos", name=f"extract by {workers}"):
            run.add(outcome)
    if not run.frames:
        raise InputError(f"None of {len(tasks)} videos can be extracted: `rspnet extract` tells why; name others with --videos.")
    return run


def _verdict(config: ExtractConfig, run: _Run, parts: dict[Part, float], *, workers: int, worth: float) -> str:
    """What limits extract, and what to type. run: that of one process."""
    cores = num_cpus()
    if run.disk_share >= _WAITS:
        return f"The disk limits: a process waits {percent(run.disk_share)} of its time for the videos; copy VIDEOS to a faster one."
    largest = max((part for part in parts if part != "other"), key=lambda part: parts[part])
    what = {"decode": "Decoding the sources", "scale": "Scaling", "encode": "Encoding", "hash": "Hashing", "write": "The disk"}[largest]
    limits = f"{what} limits ({percent(parts[largest])} of a process' time)"
    if largest == "write":
        return f"{limits}, until what is written is safe on it; use --out or --work-dir on a faster one."
    if workers < cores:
        return f"{limits}; use --workers {cores} (now {workers})."
    if worth < _LINEAR * workers:
        return f"{limits}; {workers} processes do the work of {worth:.1f} and hold each other up: fewer --workers may do as much."
    if largest == "encode" and config.codec != "raw":
        return f"{limits}; --codec raw does without, if there is room for it."
    return f"{limits}, and all {cores} cores do it; other machines can share the work (--shard i/N)."
