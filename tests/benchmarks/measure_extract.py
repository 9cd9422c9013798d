"""extract: frames per CPU second of one core, against commands and loops that make the same store; then whole runs with workers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from rspnet_cli.config import DEFAULT_CRF, Codec, ExtractConfig
from rspnet_cli.stages.extract import extract
from rspnet_cli.videos.decode import MAX_PIXELS
from rspnet_cli.videos.extract_video import extract_video
from rspnet_cli.videos.extraction import ENDINGS, Extracted, ExtractionTask
from rspnet_cli.videos.picture import plane_of
from tests.benchmarks.comparison import Rate, Row, cpu_seconds, peer, rates
from tests.benchmarks.natural import natural_video

SHORT_SIDE = 128
SIZE = (170, 128)  # of a stored picture: 340 x 256 with the shorter side at 128
# The settings of the store, the same for everybody.
X264_PARAMS = (
    "keyint=16:min-keyint=16:scenecut=0:open-gop=0:bframes=0:mbtree=0:rc-lookahead=0:sync-lookahead=0:threads=1:lookahead-threads=1"
)
ENCODER = {"preset": "veryfast", "tune": "fastdecode", "crf": str(DEFAULT_CRF), "x264-params": X264_PARAMS, "a53cc": "0"}
SCALER = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
# A clip of UCF101 has 186 frames on average.
CLIP_FRAMES, LONG_FRAMES = 180, 1500
SET_VIDEOS = 40
# Both beyond the first hundred videos, in which a worker's heap takes its shape (10 MiB).
MEMORY_VIDEOS, MEMORY_FRAMES = (160, 480), 32
UNIT = "frames/CPU-s"

Run = Callable[[Path, Path], object]
"""Make the store of a source at a target."""


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
    runs: dict[str, Run] = {"rspnet": _ours, **_commands(h264_command), "a PyAV loop": pyav_loop}
    contenders: dict[str, Callable[[], object]] = {
        name: partial(run, source, folder / f"{index}.mp4") for index, (name, run) in enumerate(runs.items())
    }
    parts = _Parts(source)
    measured = rates(contenders | parts.contenders(), amount=num_frames, repeats=repeats, clock=cpu_seconds)
    _compare_outputs(source, {name: folder / f"{index}.mp4" for index, name in enumerate(runs)})
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


def _commands(arguments: Callable[[Path, Path], list[str]]) -> dict[str, Run]:
    """The ffmpeg of the path and that of imageio-ffmpeg, by name and version, as far as they are there."""
    programs = [shutil.which("ffmpeg")]
    if (imageio := peer("imageio_ffmpeg")) is not None:
        programs.append(imageio.get_ffmpeg_exe())
    return {_version(program): partial(_run_command, program, arguments) for program in programs if program}


def _version(program: str) -> str:
    found = re.match(r"ffmpeg version n?(\d+\.\d+)", subprocess.check_output([program, "-version"], text=True))
    return f"ffmpeg {found[1] if found else 'of unknown version'} command"


def _run_command(program: str, arguments: Callable[[Path, Path], list[str]], source: Path, target: Path) -> None:
    subprocess.run([program, *arguments(source, target)], check=True)


def h264_command(source: Path, target: Path) -> list[str]:
    """Arguments of ffmpeg for the same store, one thread for each of its parts."""
    settings = [word for name, value in ENCODER.items() for word in (f"-{name}", value)]
    return [*_read_and_scale(source), *("-c:v", "libx264", "-pix_fmt", "yuv420p"), *settings, "-threads", "1", str(target)]


def _read_and_scale(source: Path) -> list[str]:
    quiet = ["-v", "error", "-nostdin", "-y"]
    one_thread = ["-threads", "1", "-filter_threads", "1"]
    return [*quiet, *one_thread, "-i", str(source), "-an", "-sn", "-dn", "-vf", f"scale=-2:{SHORT_SIDE}:flags=bicubic+accurate_rnd"]


def pyav_loop(source: Path, target: Path) -> None:
    """What one writes who knows PyAV: one converter for all frames, no threads, the same settings."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        video = reading.streams.video[0]
        video.thread_type = "NONE"
        video.codec_context.thread_count = 1
        stored = writing.add_stream("libx264", rate=video.average_rate, options=ENCODER)
        stored.width, stored.height = SIZE
        stored.pix_fmt = "yuv420p"
        stored.codec_context.thread_count = 1
        converter = VideoReformatter()
        for frame in reading.decode(video):
            picture = converter.reformat(frame, *SIZE, "yuv420p", interpolation=SCALER, threads=1)
            picture.pict_type = PictureType.NONE
            writing.mux(stored.encode(picture))
        writing.mux(stored.encode(None))


class _Parts:
    """Decoding, scaling and encoding, each alone: no loop over files, no container to write, nothing between them."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.num_frames = sum(1 for _ in _decoded(source))
        # Few, so that they stay in the cache as a picture does that was decoded a moment ago.
        self.some = list(islice(_decoded(source), 8))
        converter = VideoReformatter()
        self.small = [_scaled(converter, frame) for frame in _decoded(source)]

    def contenders(self) -> dict[str, Callable[[], object]]:
        """What is to be timed for `bound`."""
        return {"decode alone": self._decode, "scale alone": self._scale, "encode alone": self._encode}

    def bound(self, measured: dict[str, Rate]) -> Rate:
        """The rate of all three one after the other."""
        each = [measured[name] for name in self.contenders()]
        low, median, high = (1 / sum(1 / getattr(rate, part) for rate in each) for part in ("low", "median", "high"))
        shares = ", ".join(f"{name} {median / measured[name].median:.0%}" for name in self.contenders())
        _say(f"{self.num_frames:,} frames: {shares} of their sum")
        return Rate(median, low, high)

    def _decode(self) -> None:
        for _ in _decoded(self.source):
            pass

    def _scale(self) -> None:
        converter = VideoReformatter()
        for index in range(self.num_frames):
            _scaled(converter, self.some[index % len(self.some)])

    def _encode(self) -> None:
        encoder = av.CodecContext.create("libx264", "w")
        assert isinstance(encoder, VideoCodecContext)
        encoder.width, encoder.height = SIZE
        encoder.pix_fmt, encoder.thread_count, encoder.options = "yuv420p", 1, dict(ENCODER)
        encoder.time_base = Fraction(1, 25)
        for index, picture in enumerate(self.small):
            picture.pts, picture.time_base, picture.pict_type = index, encoder.time_base, PictureType.NONE
            encoder.encode(picture)
        encoder.encode(None)


def _decoded(path: Path) -> Iterator[VideoFrame]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.thread_type = "NONE"
        video.codec_context.thread_count = 1
        yield from container.decode(video)


def _scaled(converter: VideoReformatter, frame: VideoFrame) -> VideoFrame:
    return converter.reformat(frame, *SIZE, "yuv420p", interpolation=SCALER, threads=1)


# Are the outputs the same?


@dataclass(frozen=True)
class _Made:
    """What a contender wrote."""

    frames: int
    bytes: int
    psnr: float
    """dB, luma against the source at the stored size."""


def _compare_outputs(source: Path, targets: dict[str, Path]) -> None:
    """Say what everybody wrote; AssertionError where it is not the same work."""
    converter = VideoReformatter()
    wanted = [_luma(_scaled(converter, frame)) for frame in _decoded(source)]
    made = {name: _made(target, wanted) for name, target in targets.items()}
    for name, output in made.items():
        _say(f"{name}: {output.frames:,} frames of {SIZE[0]}x{SIZE[1]}, {output.bytes:,} bytes, luma PSNR {output.psnr:.2f} dB")
        assert abs(output.bytes / made["rspnet"].bytes - 1) < 0.03, "bytes differ by more than 3 %"
        assert abs(output.psnr - made["rspnet"].psnr) < 0.2, "quality differs by more than 0.2 dB"


def _made(target: Path, wanted: list[np.ndarray]) -> _Made:
    frames = list(_decoded(target))
    assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {(*SIZE, "yuv420p")}
    pictures = [_luma(frame) for frame in frames]
    errors = [np.square(picture - other).mean() for picture, other in zip(pictures, wanted, strict=True)]
    return _Made(len(pictures), target.stat().st_size, float(10 * np.log10(255**2 / np.mean(errors))))


def _luma(frame: VideoFrame) -> np.ndarray:
    """(H, W) float32, as stored."""
    return plane_of(frame, 0, *SIZE).astype(np.float32)


# The other stores


def _other_codecs(folder: Path) -> list[Row]:
    """jpeg and raw, for information."""
    source = folder / f"source-{CLIP_FRAMES}.mp4"
    rows = []
    makers: dict[Codec, Callable[[Path, Path], list[str]]] = {"jpeg": _jpeg_command, "raw": _raw_command}
    for codec, command in makers.items():
        ours = partial(_ours, source, folder / f"ours-{codec}{ENDINGS[codec]}", codec)
        (folder / codec).mkdir()
        runs = {name: partial(run, source, folder / codec) for name, run in _commands(command).items()}
        measured = rates({"rspnet": ours, **runs}, amount=CLIP_FRAMES, repeats=7, clock=cpu_seconds)
        what = f"the same, {CLIP_FRAMES} frames, --codec {codec}"
        rows += [_row(what, UNIT, measured["rspnet"], name, measured[name], {}) for name in runs]
    return rows


def _jpeg_command(source: Path, folder: Path) -> list[str]:
    return [*_read_and_scale(source), "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "2", "-threads", "1", str(folder / "img_%05d.jpg")]


def _raw_command(source: Path, folder: Path) -> list[str]:
    return [*_read_and_scale(source), "-c:v", "rawvideo", "-pix_fmt", "rgb24", "-f", "rawvideo", str(folder / "frames.rgb")]


# Whole runs


def _whole_runs(folder: Path) -> list[Row]:
    """`rspnet extract` of a set of clips, all that it costs included, with one and two workers."""
    videos = _make_set(folder, SET_VIDEOS, CLIP_FRAMES)
    amount = SET_VIDEOS * CLIP_FRAMES
    what = f"whole run, {SET_VIDEOS} videos of {CLIP_FRAMES} frames"
    sources = sorted(videos.iterdir())

    def whole(workers: int) -> Callable[[], object]:
        return partial(_extract, videos, folder / f"run-{workers}", workers)

    def one_by_one(run: Run) -> None:
        for source in sources:
            run(source, folder / "one.mp4")

    commands = {name: partial(one_by_one, run) for name, run in _commands(h264_command).items()}
    in_process = "its workers' function alone"
    measured = rates({"rspnet": whole(1), in_process: partial(one_by_one, _ours), **commands}, amount=amount, repeats=3, clock=cpu_seconds)
    rows = [_row(what, UNIT, measured["rspnet"], name, measured[name], {}) for name in (in_process, *commands)]
    by_wall = rates({"1": whole(1), "2": whole(2)}, amount=amount, repeats=3, clock=time.perf_counter)
    return [*rows, _row(f"{what}, 2 workers", "frames/s", by_wall["2"], "1 worker", by_wall["1"], {"1 worker": "1.9 on 2 idle cores"})]


def _extract(videos: Path, out: Path, workers: int) -> None:
    config = ExtractConfig(dataset="plain", short_side=SHORT_SIDE, workers=workers)
    extract(config, videos=videos, out=out, force=True)


def _make_set(folder: Path, num_videos: int, num_frames: int) -> Path:
    """A folder of so many videos, four of them different."""
    made = [natural_video(folder / f"{num_frames}-{seed}.mp4", num_frames, seed=seed) for seed in range(4)]
    videos = folder / f"set-{num_videos}-{num_frames}"
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
from tests.benchmarks.measure_extract import _extract
_extract(Path(sys.argv[1]), Path(sys.argv[2]), 1)
# Not its own ru_maxrss: that is at least what the process had that started it.
own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]
print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _peaks(videos: Path, folder: Path) -> tuple[Rate, Rate]:
    """MiB of parent and worker, in a process of their own."""
    words = subprocess.check_output([sys.executable, "-c", _PEAKS, str(videos), str(folder / f"out-{videos.name}")], text=True)
    parent, worker = (int(word) / 1024 for word in words.split())  # KiB
    return Rate(parent, parent, parent), Rate(worker, worker, worker)


def _say(words: str) -> None:
    print(f"extract: {words}", file=sys.stderr)
