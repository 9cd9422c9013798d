"""bench loader: batches as the training gets them and nothing done with them, and what reading a video's clips consists of."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from dataclasses import dataclass

from rspnet_cli.devices import num_cpus
from rspnet_cli.stages.bench.clock import HostClock, write_trace
from rspnet_cli.stages.bench.measured import Measured, Rate, Request, percent, repeats, shares
from rspnet_cli.stages.bench.training_clips import TrainingClips, codec_of, more_clips, open_training_clips
from rspnet_cli.timing import Part, listening, timed
from rspnet_cli.usage import Usage, forget_peak, peak_bytes

# Batches read in this process are cut to so many videos: reading one does not depend on the others.
_OWN_BATCH, _OWN_REPEATS, _OWN_S = 16, 3, 5.0
_WAITS = 0.5


@dataclass(frozen=True)
class _InProcess:
    """What was measured of reading in this process."""

    rate: Rate
    parts: dict[Part, float]
    videos: int
    usage: Usage


def bench_loader(request: Request) -> Measured:
    """Measure the loader alone, with its workers and within this process. Raises InputError."""
    training = open_training_clips(request)
    forget_peak()
    own = _in_process(training, request)
    workers = training.config.run.workers or 0
    rate, workers_bytes = _by_workers(training, workers, request) if workers else (own.rate, None)
    return Measured(
        setup=training.setup,
        rate=rate,
        parts=own.parts,
        figures={
            "clips_per_s": 2 * rate.median,
            "videos_per_s_in_process": own.rate.median,
            "workers_worth": rate.median / own.rate.median,
            "disk_share": own.usage.disk_share,
            "read_bytes_per_s": None if own.usage.read_bytes is None else own.usage.read_bytes / own.videos * rate.median,
            "disk_bytes_per_s": None if own.usage.disk_bytes is None else own.usage.disk_bytes / own.videos * rate.median,
        },
        memory={"host": peak_bytes(), "largest_worker": workers_bytes},
        verdict=_verdict(training, own),
    )


def _in_process(training: TrainingClips, request: Request) -> _InProcess:
    """Read batches without workers. First of all, so that what is not in the system's memory comes from the disk."""
    clips, clock = training.with_workers(0), HostClock()
    sizes: list[int] = []
    with closing(clips.load(batch[:_OWN_BATCH] for batch in clips.order((0, 0)))) as source:

        def read() -> None:
            with timed("other"):
                sizes.append(len(next(source).videos))

        read()  # loads libraries
        sizes.clear()
        before = Usage.now()
        with listening(clock):
            clock.mark()
            often = repeats(request.steps, at_least=_OWN_REPEATS, target_s=_OWN_S)
            for _ in request.report.track(often, total=request.steps, unit="batches", name="loader, in process"):
                read()
                clock.mark()
        usage = Usage.now().since(before)
        videos, rate = sum(sizes), Rate.of([size / lap for size, lap in zip(sizes, clock.laps_s(), strict=True)], "videos/s")
        if request.trace is not None:
            write_trace(request.trace, training.device, read)
    seconds = clock.parts_s()
    # Without workers the wait for a batch is the reading of it.
    seconds["other"] += seconds.pop("loader wait")
    return _InProcess(rate, shares(seconds), videos, usage)


def _by_workers(training: TrainingClips, workers: int, request: Request) -> tuple[Rate, int | None]:
    """Rate with the workers, and the memory of the largest one. Batches come in bursts of one from each, so bursts are timed."""
    batch_size, clock = training.config.optim.batch_size, HostClock()
    with closing(training.clips.load(training.clips.order((0, 0)))) as source:
        for _ in range(workers):  # all have begun
            next(source)
        clock.mark()
        for _ in request.report.track(repeats(request.steps), total=request.steps, unit=f"bursts of {workers} batches", name="loader"):
            for _ in range(workers):
                next(source)
            clock.mark()
        peaks = [peak_bytes(process.pid) for process in multiprocessing.active_children() if process.pid is not None]
    known = [peak for peak in peaks if peak is not None]
    return Rate.of([workers * batch_size / lap for lap in clock.laps_s()], "videos/s"), max(known, default=None)


def _verdict(training: TrainingClips, own: _InProcess) -> str:
    if own.usage.disk_share >= _WAITS:
        return (
            f"The disk limits: reading waits {percent(own.usage.disk_share)} of its time; copy the extraction to a faster one (--work-dir)."
        )
    largest = max((part for part in own.parts if part != "other"), key=lambda part: own.parts[part])
    what = {"decode": "Decoding", "convert": "Converting colours", "open": "Opening files", "crop": "Copying crops"}[largest]
    codec = codec_of(training.table)
    if codec == "raw" and largest == "decode":
        what = "Reading frames"
    advice = more_clips(codec, training.config.run.workers or 0, num_cpus())
    return f"{what} limits ({percent(own.parts[largest])} of a worker's time); {advice}."
