"""The third store, for sets that fit on a fast disk or in its cache: frames as they are, uncompressed, in one safetensors file.

`frames` (N, H, W, 3) uint8 RGB, from byte 4096 on, and `times_s` (N,) float64: reading a frame is copying it. Any safetensors library
opens the file.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from rspnet_cli.errors import InputError
from rspnet_cli.files import atomic_path
from rspnet_cli.timing import timed
from rspnet_cli.videos.picture import rgb_of
from rspnet_cli.videos.planes import Cut
from rspnet_cli.videos.stored import StoredVideo
from rspnet_cli.videos.timestamps import average_rate

# The header's place, filled up with spaces: frames begin on a page, and the number of frames may be known at the end.
HEADER_BYTES = 4096
FPS = "frames_per_second"


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
        self.times_s = np.frombuffer(os.pread(self._file, 8 * num_frames, HEADER_BYTES + num_frames * frame_bytes), "<f8")
        if len(self.times_s) != num_frames or not np.isfinite(self.times_s).all() or (np.diff(self.times_s) <= 0).any():
            raise self.damaged("its times do not increase")

    def read_cuts(self, cuts: Sequence[Cut]) -> list[npt.NDArray[np.uint8]]:
        """See StoredVideo. Views into the lines of the boxes, which alone are read: who packs them copies them once."""
        self._check(cuts)
        return [self._read_cut(cut) for cut in cuts]

    def _read_cut(self, cut: Cut) -> npt.NDArray[np.uint8]:
        top, left, height, width = cut.box
        lines = np.empty((len(cut.indices), height, self.width, 3), np.uint8)
        start, wanted = HEADER_BYTES + top * self.width * 3, height * self.width * 3
        # Not through a memory map, whose errors kill the process.
        for index, frame in zip(cut.indices.tolist(), lines, strict=True):
            try:
                done = os.preadv(self._file, [frame.data], start + index * self._frame_bytes)
            except OSError as error:
                raise self.damaged(f"frame {index} cannot be read: {error.strerror}") from error
            if done != wanted:
                raise self.damaged(f"frame {index} is cut short")
        return lines[:, :, left : left + width]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
