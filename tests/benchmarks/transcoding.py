"""Others that make the stores of `rspnet extract` at its settings, the bare parts of that work, and whether all made the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from rspnet_cli.codecs import DEFAULT_CRF
from rspnet_cli.videos.picture import plane_of
from tests.benchmarks.comparison import Rate, peer

SHORT_SIDE = 128
SIZE = (170, 128)  # of a stored picture: 340 x 256 with the shorter side at 128
# The settings of the store, the same for everybody.
X264_PARAMS = (
    "keyint=16:min-keyint=16:scenecut=0:open-gop=0:bframes=0:mbtree=0:rc-lookahead=0:sync-lookahead=0:threads=1:lookahead-threads=1"
)
ENCODER = {"preset": "veryfast", "tune": "fastdecode", "crf": str(DEFAULT_CRF), "x264-params": X264_PARAMS, "a53cc": "0"}
SCALER = Interpolation.BICUBIC | Interpolation.ACCURATE_RND

Run = Callable[[Path, Path], object]
"""Make the store of a source at a target."""


# Commands and loops


def commands(arguments: Callable[[Path, Path], list[str]]) -> dict[str, Run]:
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


def jpeg_command(source: Path, folder: Path) -> list[str]:
    """The same for a folder of JPEG files."""
    return [*_read_and_scale(source), "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "2", "-threads", "1", str(folder / "img_%05d.jpg")]


def raw_command(source: Path, folder: Path) -> list[str]:
    """The same for a file of RGB pictures."""
    return [*_read_and_scale(source), "-c:v", "rawvideo", "-pix_fmt", "rgb24", "-f", "rawvideo", str(folder / "frames.rgb")]


class Parts:
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


def compare_outputs(source: Path, targets: dict[str, Path]) -> None:
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


def _say(words: str) -> None:
    print(f"extract: {words}", file=sys.stderr)
