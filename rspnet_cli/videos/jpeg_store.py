"""The other store: a folder of JPEG frames, img_00001.jpg and so on, as other toolkits read them; beside them times.json."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from rspnet_cli.errors import InputError
from rspnet_cli.files import canonical_json, disk_full, fsync_folder, is_disk_full, temporary_beside
from rspnet_cli.timing import timed
from rspnet_cli.videos.picture import BT601, reformatter, rgb_of
from rspnet_cli.videos.planes import Cut, Pixels
from rspnet_cli.videos.stored import StoredVideo
from rspnet_cli.videos.timestamps import average_rate

# FFmpeg's quantiser scale, 2 (best) to 31. 2 measures 44 to 45 dB luma PSNR, like the h264 store at its default, in 5 to 6 times the bytes.
QUANTISER = 2
TIMES = "times.json"
MAX_TIMES_BYTES = 2**30
_FSYNC_THREADS = 8
_OURS = re.compile(r"img_\d{5,}\.jpg|times\.json")


def frame_name(index: int) -> str:
    """The file of a frame; the first one is 1, as other toolkits count."""
    return f"img_{index + 1:05d}.jpg"


def write_jpeg(
    pictures: Iterable[tuple[int, VideoFrame]], target: Path, *, size: tuple[int, int], time_base: Fraction, rate: Fraction
) -> list[int]:
    """Write (ticks of time_base, yuvj420p picture of `size`) as JPEG files into a folder; the ticks written. Raises DiskFullError.

    A folder that an earlier call wrote is replaced, anything else in the way is refused with InputError.
    """
    encoder = _encoder(size)
    times: list[int] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    temporary.mkdir()
    try:
        for ticks, picture in pictures:
            picture.pts, picture.time_base, picture.pict_type = len(times), Fraction(1, 25), PictureType.NONE
            with timed("encode"):
                (temporary / frame_name(len(times))).write_bytes(b"".join(bytes(packet) for packet in encoder.encode(picture)))
            times.append(ticks)
        fps = average_rate(times[0], times[-1], len(times), time_base) or float(rate)
        content = {"fps": fps, "height": size[1], "times_s": [float(ticks * time_base) for ticks in times], "width": size[0]}
        (temporary / TIMES).write_bytes(canonical_json(content).encode())
        with timed("write"):
            _fsync_all(temporary)
        _replace(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            raise disk_full(target) from error
        raise
    return times


def _encoder(size: tuple[int, int]) -> VideoCodecContext:
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.colorspace, encoder.color_range = BT601, ColorRange.JPEG
    # Not by "qscale": that is read from each frame, where PyAV cannot set it.
    encoder.options = {"flags": "+bitexact", "qmin": str(QUANTISER), "qmax": str(QUANTISER)}
    return encoder


def _fsync_all(folder: Path) -> None:
    """Make a new folder durable with all its files. Side by side: a disk answers many requests as fast as one (180 files: 1.6 s in turn,
    0.1 to 0.7 s so).
    """

    def fsync(path: Path) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())

    with ThreadPoolExecutor(_FSYNC_THREADS) as pool:
        list(pool.map(fsync, folder.iterdir()))  # raises what a thread did
    fsync_folder(folder)


def _replace(temporary: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        if not all(_OURS.fullmatch(item.name) for item in target.iterdir()):
            raise InputError(f"{target} holds files that are no frames: move them away.")
        old = temporary.with_name(temporary.name + "-old")
        target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old)
    else:
        temporary.rename(target)
    fsync_folder(target.parent)


class JpegVideo(StoredVideo):
    """Random access is opening a file; every frame stands alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with (path / TIMES).open("rb") as file:
                content = json.loads(file.read(MAX_TIMES_BYTES))
            self.times_s = np.array(content["times_s"], np.float64).reshape(-1)
            self.fps = float(content["fps"])
            self.width, self.height = int(content["width"]), int(content["height"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.damaged(f"its {TIMES} cannot be read") from error
        # `not (x > 0)` also refuses NaN.
        if not len(self.times_s) or not np.isfinite(self.times_s).all() or (np.diff(self.times_s) <= 0).any() or not self.fps > 0:
            raise self.damaged(f"the times in its {TIMES} do not increase")
        self._decoder = av.CodecContext.create("mjpeg", "r")
        self._decoder.thread_count = 1

    def read_cuts(self, cuts: Sequence[Cut], into: Sequence[Pixels]) -> None:
        """See StoredVideo."""
        self._read_each(cuts, into, self._read_frame)

    def _read_frame(self, index: int) -> Pixels:
        name = frame_name(index)
        try:
            content = (self.path / name).read_bytes()
            frames = self._decoder.decode(av.Packet(content)) if content else []
        except OSError as error:
            raise self.damaged(f"{name} cannot be read") from error
        except av.FFmpegError as error:
            raise self.damaged(f"{name} does not decode") from error
        frame = frames[0] if len(frames) == 1 else None
        if not isinstance(frame, VideoFrame) or frame.is_corrupt or (frame.width, frame.height) != (self.width, self.height):
            raise self.damaged(f"{name} does not decode")
        with timed("convert"):
            picture = reformatter().reformat(
                frame,
                format="rgb24",
                src_colorspace=Colorspace.ITU601,
                dst_colorspace=Colorspace.ITU601,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        return rgb_of(picture)

    def close(self) -> None:
        """Nothing stays open between reads."""
