"""extract: frames per CPU second of one core, against commands and loops that make the same store; then whole runs with workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rspnet_cli.codecs import DEFAULT_CRF, ENDINGS, Codec
from rspnet_cli.videos.decode import MAX_PIXELS
from rspnet_cli.videos.extract_video import extract_video
from rspnet_cli.videos.tasks import Extracted, ExtractionTask
from tests.benchmarks.comparison import Rate, Row, cpu_seconds, rates
from tests.benchmarks.natural import natural_video
from tests.benchmarks.transcoding import (
    SHORT_SIDE,
    Parts,
    Run,
    commands,
    compare_outputs,
    h264_command,
    jpeg_command,
    pyav_loop,
    raw_command,
)

# UCF101's clips last 7.2 s on average.
CLIP_FRAMES, LONG_FRAMES = 180, 1500
SET_VIDEOS, LARGE_SET_VIDEOS = 40, 240
# Both beyond the first hundred videos, in which a worker's heap takes its shape (10 MiB).
MEMORY_VIDEOS, MEMORY_FRAMES = (160, 480), 32
UNIT = "frames/CPU-s"


def measure() -> list[Row]:
    """The rows of extract."""
    with TemporaryDirectory(prefix="rspnet-bench-") as temporary:
        folder = Path(temporary)
        rows = _one_core(folder, CLIP_FRAMES, repeats=15, targets=True)
        rows += _one_core(folder, LONG_FRAMES, repeats=5, targets=False)
        rows += _other_codecs(folder)
        rows += _whole_runs(folder)
        rows += _memory(folder)
    return rows


# One video on one core


def _one_core(folder: Path, num_frames: int, *, repeats: int, targets: bool) -> list[Row]:
    """Our worker's own function, from the source's hash to the store's, against its peers and the bare parts."""
    source = natural_video(folder / f"source-{num_frames}.mp4", num_frames)
    runs: dict[str, Run] = {"rspnet": _ours, **commands(h264_command), "a PyAV loop": pyav_loop}
    contenders: dict[str, Callable[[], object]] = {
        name: partial(run, source, folder / f"{index}.mp4") for index, (name, run) in enumerate(runs.items())
    }
    parts = Parts(source)
    measured = rates(contenders | parts.contenders(), amount=num_frames, repeats=repeats, clock=cpu_seconds)
    compare_outputs(source, {name: folder / f"{index}.mp4" for index, name in enumerate(runs)})
    what = f"340x256 H.264, {num_frames:,} frames, to the {SHORT_SIDE} px H.264 store, one core"
    bound = "decode + scale + encode alone"
    theirs = {name: measured[name] for name in runs if name != "rspnet"} | {bound: parts.bound(measured)}
    wanted = {bound: "0.9", "ffmpeg 5.1": "1.25", "ffmpeg 9": "1.0"} if targets else {bound: "0.9"}
    return [_row(what, UNIT, measured["rspnet"], name, rate, wanted) for name, rate in theirs.items()]


def _row(what: str, unit: str, ours: Rate, name: str, theirs: Rate, wanted: dict[str, str]) -> Row:
    target = next((f"at least {ratio}" for start, ratio in wanted.items() if name.startswith(start)), "")
    return Row("extract", what, unit, ours, name, theirs, target)


def _ours(source: Path, target: Path, codec: Codec = "h264") -> None:
    status = source.stat()
    task = ExtractionTask(
        id=source.stem,
        source=str(source),
        target=str(target),
        num_frames=None,
        frames_fps=None,
        short_side=SHORT_SIDE,
        codec=codec,
        crf=DEFAULT_CRF if codec == "h264" else None,
        keep_partial=False,
        max_pixels=MAX_PIXELS,
        bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
    outcome = extract_video(task)
    assert isinstance(outcome, Extracted), outcome


# The other stores


def _other_codecs(folder: Path) -> list[Row]:
    """jpeg and raw, for information."""
    source = folder / f"source-{CLIP_FRAMES}.mp4"
    rows = []
    makers: dict[Codec, Callable[[Path, Path], list[str]]] = {"jpeg": jpeg_command, "raw": raw_command}
    for codec, command in makers.items():
        ours = partial(_ours, source, folder / f"ours-{codec}{ENDINGS[codec]}", codec)
        (folder / codec).mkdir()
        runs = {name: partial(run, source, folder / codec) for name, run in commands(command).items()}
        measured = rates({"rspnet": ours, **runs}, amount=CLIP_FRAMES, repeats=7, clock=cpu_seconds)
        what = f"the same, {CLIP_FRAMES} frames, --codec {codec}"
        rows += [_row(what, UNIT, measured["rspnet"], name, measured[name], {}) for name in runs]
    return rows


# Whole runs


def _whole_runs(folder: Path) -> list[Row]:
    """The command for sets of clips with all that it costs, its start and its workers' included, with one worker and with two."""
    videos = _make_set(folder, SET_VIDEOS, CLIP_FRAMES)
    amount = SET_VIDEOS * CLIP_FRAMES
    what = f"whole run, {SET_VIDEOS} videos of {CLIP_FRAMES} frames"
    sources = sorted(videos.iterdir())

    def one_by_one(run: Run) -> None:
        for source in sources:
            run(source, folder / "one.mp4")

    peers = {name: partial(one_by_one, run) for name, run in commands(h264_command).items()}
    in_process = "its workers' function alone"
    measured = rates(
        {"rspnet": partial(_extract, videos, folder / "run-1", 1), in_process: partial(one_by_one, _ours), **peers},
        amount=amount,
        repeats=3,
        clock=cpu_seconds,
    )
    rows = [_row(what, UNIT, measured["rspnet"], name, measured[name], {}) for name in (in_process, *peers)]
    return [*rows, *_more_workers(folder, SET_VIDEOS, {}), *_more_workers(folder, LARGE_SET_VIDEOS, {"1 worker": "1.9 on 2 idle cores"})]


def _more_workers(folder: Path, num_videos: int, wanted: dict[str, str]) -> list[Row]:
    """Two workers against one, by the clock on the wall: starting takes its second whatever the number of videos."""
    videos = _make_set(folder, num_videos, CLIP_FRAMES)
    runs = {str(workers): partial(_extract, videos, folder / f"run-{workers}", workers) for workers in (1, 2)}
    by_wall = rates(runs, amount=num_videos * CLIP_FRAMES, repeats=3, clock=time.perf_counter)
    what = f"whole run, {num_videos} videos of {CLIP_FRAMES} frames, 2 workers"
    return [_row(what, "frames/s", by_wall["2"], "1 worker", by_wall["1"], wanted)]


def _extract(videos: Path, out: Path, workers: int) -> None:
    settings = ["--dataset", "plain", "--short-side", str(SHORT_SIDE), "--workers", str(workers), "--out", str(out), "--force", "--quiet"]
    subprocess.run([sys.executable, "-m", "rspnet_cli", "extract", str(videos), *settings], check=True, stdout=subprocess.DEVNULL)


def _make_set(folder: Path, num_videos: int, num_frames: int) -> Path:
    """A folder of so many videos, four of them different."""
    videos = folder / f"set-{num_videos}-{num_frames}"
    if videos.exists():
        return videos
    made = [natural_video(folder / f"{num_frames}-{seed}.mp4", num_frames, seed=seed) for seed in range(4)]
    videos.mkdir()
    for index in range(num_videos):
        os.link(made[index % len(made)], videos / f"v{index:04d}.mp4")
    return videos


def _memory(folder: Path) -> list[Row]:
    """Peak memory of parent and worker over few videos and many: flat where the ratio is 1. Linux alone tells it."""
    if not Path("/proc/self/status").exists():
        return []
    few, many = [_peaks(_make_set(folder, number, MEMORY_FRAMES), folder) for number in MEMORY_VIDEOS]
    return [
        Row("extract", f"peak memory of the {who}, {MEMORY_VIDEOS[0]} videos", "MiB", a, f"{MEMORY_VIDEOS[1]} videos", b, "at least 0.95")
        for who, a, b in zip(("parent", "worker"), few, many, strict=True)
    ]


_PEAKS = """
import resource, sys
from pathlib import Path
from rspnet_cli.config import ExtractConfig
from rspnet_cli.stages.extract import extract
extract(ExtractConfig(dataset="plain", workers=1), videos=Path(sys.argv[1]), out=Path(sys.argv[2]))
# Not its own ru_maxrss: that is at least what the process had that started it.
own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]
print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _peaks(videos: Path, folder: Path) -> tuple[Rate, Rate]:
    """MiB of parent and worker, in a process of their own."""
    words = subprocess.check_output([sys.executable, "-c", _PEAKS, str(videos), str(folder / f"out-{videos.name}")], text=True)
    parent, worker = (int(word) / 1024 for word in words.split())  # KiB
    return Rate(parent, parent, parent), Rate(worker, worker, worker)
