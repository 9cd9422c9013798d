"""What a reader of the frame store offers, whatever the codec."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from rspnet_cli.errors import InputError
from rspnet_cli.timing import timed


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

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Frames by index, in any order and with repeats: (len(indices), H, W, 3) uint8 RGB.

        Raises IndexError for an index outside the video, InputError where the file is damaged.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self.num_frames:
            raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, not {wanted.min()} to {wanted.max()}")
        frames = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        order = np.argsort(wanted, kind="stable")
        previous = None
        for place in order.tolist():  # forwards through the video, whatever the order asked for
            index = int(wanted[place])
            if previous is not None and wanted[previous] == index:
                frames[place] = frames[previous]
            else:
                with timed("decode"):
                    self._read_into(index, frames[place])
            previous = place
        return frames

    @abstractmethod
    def _read_into(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        """Read one frame into (H, W, 3) uint8."""

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def damaged(self, what: str) -> InputError:
        """The error for a store that is not as it was written."""
        return InputError(
            f"{self.path} is damaged ({what}): restore it from a copy, or extract the videos again with `rspnet extract --force`."
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
