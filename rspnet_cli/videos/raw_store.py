"""The third store, for sets that fit on a fast disk or in its cache: frames as they are, uncompressed, in one safetensors file.

`frames` (N, H, W, 3) uint8 RGB, from byte 4096 on, and `times_s` (N,) float64: reading a frame is copying it. Any safetensors library
opens the file.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from rspnet_cli.errors import InputError
from rspnet_cli.files import atomic_path
from rspnet_cli.timing import timed
from rspnet_cli.videos.picture import rgb_of
from rspnet_cli.videos.planes import Cut, Pixels
from rspnet_cli.videos.stored import StoredVideo
from rspnet_cli.videos.timestamps import average_rate

# The header's place, filled up with spaces: frames begin on a page, and the number of frames may be known at the end.
HEADER_BYTES = 4096
FPS = "frames_per_second"
# So much is read at once, and copied from there: few calls, and what a core keeps in its cache.
_READ_BYTES = 262144


def write_raw(
    pictures: Iterable[tuple[int, VideoFrame]], target: Path, *, size: tuple[int, int], time_base: Fraction, rate: Fraction
) -> list[int]:
    """Write (ticks of time_base, rgb24 picture of `size`) into a safetensors file; the ticks written. Raises DiskFullError."""
    times: list[int] = []
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for ticks, picture in pictures:
            with timed("encode"):
                file.write(np.ascontiguousarray(rgb_of(picture)).data)
            times.append(ticks)
        file.write(np.array([float(ticks * time_base) for ticks in times], "<f8").data)
        file.seek(0)
        file.write(_header(len(times), size, average_rate(times[0], times[-1], len(times), time_base) or float(rate)))
        file.flush()
    return times


def _header(num_frames: int, size: tuple[int, int], fps: float) -> bytes:
    width, height = size
    end = num_frames * height * width * 3
    entries = {
        "__metadata__": {FPS: repr(fps)},
        "frames": {"dtype": "U8", "shape": [num_frames, height, width, 3], "data_offsets": [0, end]},
        "times_s": {"dtype": "F64", "shape": [num_frames], "data_offsets": [end, end + 8 * num_frames]},
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    return struct.pack("<Q", HEADER_BYTES - 8) + text.ljust(HEADER_BYTES - 8)


class RawVideo(StoredVideo):
    """Random access is reading at an offset; neighbours in time are neighbours on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self.damaged(f"it cannot be read: {error.strerror}") from error
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        head = os.pread(self._file, HEADER_BYTES, 0)
        if head[:8] != struct.pack("<Q", HEADER_BYTES - 8):
            raise InputError(f"{self.path} is no frame file of `rspnet extract`: name a folder that it wrote.")
        try:
            entries: dict[str, Any] = json.loads(head[8:])
            num_frames, height, width, _ = (int(value) for value in entries["frames"]["shape"])
            self.fps = float(entries["__metadata__"][FPS])
            expected = _header(num_frames, (width, height), self.fps)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.damaged("its header cannot be read") from error
        frame_bytes = height * width * 3
        # `not (x > 0)` also refuses NaN.
        if head != expected or min(num_frames, height, width) < 1 or not self.fps > 0:
            raise self.damaged("its header is not as it was written")
        if os.fstat(self._file).st_size != HEADER_BYTES + num_frames * (frame_bytes + 8):
            raise self.damaged("its length is not that of its frames")
        self.width, self.height, self._frame_bytes = width, height, frame_bytes
        self._frames = np.empty((max(1, _READ_BYTES // frame_bytes), height, width, 3), np.uint8)
        self.times_s = np.frombuffer(os.pread(self._file, 8 * num_frames, HEADER_BYTES + num_frames * frame_bytes), "<f8")
        if len(self.times_s) != num_frames or not np.isfinite(self.times_s).all() or (np.diff(self.times_s) <= 0).any():
            raise self.damaged("its times do not increase")

    def read_cuts(self, cuts: Sequence[Cut], into: Sequence[Pixels]) -> None:
        """See StoredVideo."""
        self._check(cuts)
        for (indices, (top, left, height, width)), frames in zip(cuts, into, strict=True):
            first = top * self.width * 3  # byte of a frame
            for start, stop in self._runs(indices):
                count = stop - start
                last = (count - 1) * self._frame_bytes + (top + height) * self.width * 3  # of those read
                self._read_bytes(int(indices[start]), self._frames.reshape(-1)[first:last], first)
                frames[start:stop] = self._frames[:count, top : top + height, left : left + width]

    def _runs(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Places of frames that follow each other in the file, from and to, no more at a time than are kept."""
        ends = np.flatnonzero(np.diff(indices) != 1) + 1
        for start, stop in pairwise([0, *ends.tolist(), len(indices)]):
            for begin in range(start, stop, len(self._frames)):
                yield begin, min(begin + len(self._frames), stop)

    def _read_bytes(self, index: int, target: Pixels, offset: int) -> None:
        """Fill the target from a byte of a frame on."""
        # Not through a memory map, whose errors kill the process.
        try:
            done = os.preadv(self._file, [target.data], HEADER_BYTES + index * self._frame_bytes + offset)
        except OSError as error:
            raise self.damaged(f"frame {index} cannot be read: {error.strerror}") from error
        if done != len(target):
            raise self.damaged(f"frame {index} is cut short")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
