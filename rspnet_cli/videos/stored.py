"""What a reader of the frame store offers, whatever the codec."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from rspnet_cli.errors import InputError
from rspnet_cli.timing import timed
from rspnet_cli.videos.planes import Box, Cut, Pixels


class StoredVideo(AbstractContextManager["StoredVideo"]):
    """An open frame store of one video. Not to be shared between threads; close it (or use a `with` block).

    path; times_s: (N,) float64, strictly increasing, in seconds of the source; fps: frames per second on average; width, height.
    """

    path: Path
    times_s: npt.NDArray[np.float64]
    fps: float
    width: int
    height: int

    @property
    def num_frames(self) -> int:
        """How many frames there are; indices run from 0 to num_frames - 1."""
        return len(self.times_s)

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Pixels:
        """Frames by index, in any order and with repeats: (len(indices), H, W, 3) uint8 RGB.

        Raises IndexError for an index outside the video, InputError where the file is damaged.
        """
        cut = Cut(np.asarray(indices, np.int64).reshape(-1), Box(0, 0, self.height, self.width))
        frames = np.empty((len(cut.indices), self.height, self.width, 3), np.uint8)
        with timed("decode"):
            self.read_cuts([cut], [frames])
        return frames

    @abstractmethod
    def read_cuts(self, cuts: Sequence[Cut], into: Sequence[Pixels]) -> None:
        """Boxes of frames, of each cut (F, h, w, 3) uint8 RGB, in one pass: a frame of several cuts is decoded once. Raises as `read`."""

    def _read_each(self, cuts: Sequence[Cut], into: Sequence[Pixels], read: Callable[[int], Pixels]) -> None:
        """`read_cuts` of a codec that decodes whole frames. read: of an index (H, W, 3), good until it is called again."""
        for index, places in self._in_order(cuts):
            frame = read(index)
            with timed("crop"):
                for number, place in places:
                    into[number][place] = cuts[number].box.of(frame)

    def _in_order(self, cuts: Sequence[Cut]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Forwards through the video, whatever the order asked for: (frame, [(number of a cut, place in it), ...])."""
        self._check(cuts)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for number, cut in enumerate(cuts):
            for place, index in enumerate(cut.indices.tolist()):
                wanted.setdefault(index, []).append((number, place))
        return iter(sorted(wanted.items()))

    def _check(self, cuts: Sequence[Cut]) -> None:
        for indices, _ in cuts:
            if len(indices) and not 0 <= indices.min() <= indices.max() < self.num_frames:
                raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, not {indices.min()} to {indices.max()}")

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def check_listed(self, num_frames: int, size: tuple[int, int]) -> None:
        """Raise InputError where the video is not what videos.csv says of it. size: height and width."""
        if self.num_frames != num_frames:
            raise self.damaged(f"it has {self.num_frames} frames and videos.csv says {num_frames}")
        if (self.height, self.width) != size:
            raise self.damaged(f"its pictures are {self.width} x {self.height} and videos.csv says {size[1]} x {size[0]}")

    def damaged(self, what: str) -> InputError:
        """The error for a store that is not as it was written."""
        return InputError(
            f"{self.path} is damaged ({what}): restore it from a copy, or extract the videos again with `rspnet extract --force`."
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
