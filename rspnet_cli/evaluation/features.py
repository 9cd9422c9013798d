"""Videos -> what a network says of N evenly spaced clips of each: features of an encoder, logits of a classifier.

Loader workers read and crop (uint8); resizing, normalising and the network run where the network is. Videos are done in fixed
pieces, and no batch spans two of them: the batches, and on a CPU the bytes, are the same however often a run was interrupted, and whoever
does which piece.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.clips.loader import read_ahead
from rspnet_cli.clips.sampling import FrameRate, cover_clips, frames_at_rate, uniform_clips
from rspnet_cli.clips.slots import Room, own_room
from rspnet_cli.encoder.load import resize_and_normalise
from rspnet_cli.errors import RspnetError
from rspnet_cli.evaluation.gallery import Gallery
from rspnet_cli.timing import timed
from rspnet_cli.videos.planes import Box, Cut
from rspnet_cli.videos.store import StoredVideo, open_store

# Batch norm is estimated on so many train videos, evenly spaced over the table, one centre clip each; of fewer videos more clips are taken.
STATISTICS_VIDEOS = 256
STATISTICS_CLIPS = 64
STATISTICS_BATCH = 32
# Pieces of a large set: so many videos, or more where batches are large.
PIECE_VIDEOS, PIECE_BATCHES = 32, 4
# No set is cut into fewer pieces, unless it has fewer videos: shards are whole pieces.
MIN_PIECES = 64
RESIZED_AT_ONCE = 8  # frames, on a CPU: what a resize takes and gives of so many stays in its cache


class VideoClips(NamedTuple):
    """The clips of one video: each frame once, however many clips it is in."""

    frames: Tensor
    """(U, h, w, 3) uint8: of the frames that any clip has the largest centre square, or the crop of an augmented gallery."""
    clips: Tensor
    """(N, T) int64: which of them make each clip."""
    times_s: Tensor
    """(N, 2) float64: where each clip begins and ends in the source, in seconds."""


class ClipInput(NamedTuple):
    """How a network takes its clips."""

    size: int
    """Pixels of height and width (S)."""
    antialias: bool
    device: torch.device


class StoredVideos(Protocol):
    """Videos in a frame store: the table of an extraction, or files stored for a search or for pictures. Rows run from 0."""

    @property
    def frames(self) -> np.ndarray:
        """(V,) int64: frames per video."""

    @property
    def fps(self) -> np.ndarray:
        """(V,) float64: average frames per second."""

    @property
    def height(self) -> np.ndarray:
        """(V,) int32: pixels of the stored frames."""

    @property
    def width(self) -> np.ndarray:
        """(V,) int32: pixels of the stored frames."""

    def path(self, row: int) -> Path:
        """The frame file of a row."""

    def check_file(self, row: int) -> None:
        """Raise InputError when a frame file is not what was written."""


class UniformClips:
    """Row of a table -> `count` evenly spaced clips of the network's length, frame rate and sampling (see the settings).

    gallery: its videos are cropped and flipped as it says; all others are centre squares.
    """

    def __init__(
        self,
        files: StoredVideos,
        *,
        frames: int,
        count: int,
        frame_rate: FrameRate | None,
        sampling: str = "consecutive",
        gallery: Gallery | None = None,
    ) -> None:
        self.files, self.frames, self.count, self.frame_rate, self.gallery = files, frames, count, frame_rate, gallery
        self.choose = cover_clips if sampling == "cover" else uniform_clips

    def read(self, row: int, room: Room = own_room) -> VideoClips | RspnetError:
        """The clips of a video. What is wrong with it is returned, not raised (see `Source`)."""
        try:
            self.files.check_file(row)
            with open_store(self.files.path(row)) as video:
                video.check_listed(int(self.files.frames[row]), (int(self.files.height[row]), int(self.files.width[row])))
                return self._clips(video, row, room)
        except RspnetError as error:
            return error

    def video_bytes(self) -> int:
        """The room that a video takes at most: every clip's frames, whole where an augmented gallery may take all of them."""
        height, width = (sides.astype(np.int64) for sides in (self.files.height, self.files.width))
        areas = np.minimum(height, width) ** 2 if self.gallery is None else height * width
        return self.count * self.frames * int(areas.max()) * 3

    def _clips(self, video: StoredVideo, row: int, room: Room) -> VideoClips:
        at_rate = frames_at_rate(video.num_frames, fps=float(self.files.fps[row]), frame_rate=self.frame_rate)
        indices = at_rate[self.choose(len(at_rate), frames=self.frames, count=self.count)]  # (N, T)
        wanted, clips = np.unique(indices, return_inverse=True)
        box, flip = self._view(video, row)
        frames = room((len(wanted), box.height, box.width, 3))
        video.read_cuts([Cut(wanted, box)], [frames])
        if flip:
            frames[:] = frames[:, :, ::-1].copy()
        # A clip lasts until the frame after its last one, or for one mean frame more at the video's end.
        ends = np.append(video.times_s[1:], video.times_s[-1] + 1 / video.fps)
        times_s = np.stack([video.times_s[indices.min(axis=1)], ends[indices.max(axis=1)]], axis=1)  # (N, 2); short videos are looped
        return VideoClips(torch.from_numpy(frames), torch.from_numpy(clips.reshape(indices.shape)), torch.from_numpy(times_s))

    def _view(self, video: StoredVideo, row: int) -> tuple[Box, bool]:
        """What the network sees of a video's frames, and whether mirrored."""
        draw = self.gallery.draw(row, video.height, video.width) if self.gallery is not None else None
        if draw is not None:
            return Box(*draw.box), draw.flip
        side = min(video.height, video.width)
        return Box((video.height - side) // 2, (video.width - side) // 2, side, side), False


def load_clips(clips: UniformClips, rows: Sequence[int], *, workers: int, pin_memory: bool) -> Generator[VideoClips]:
    """The clips of the rows, in order, each there until the next one is asked for, read ahead by worker processes, which end with the
    generator (close it).

    Raises the RspnetError of a video that cannot be read.
    """
    return read_ahead(clips, rows, workers=workers, prefetch=2, item_bytes=clips.video_bytes(), pin_memory=pin_memory)


def split_pieces(num_videos: int, *, clips: int, batch_size: int) -> list[range]:
    """Rows 0 to num_videos - 1 in pieces that a killed run loses at most one of, and that fill some batches where the set is large.

    They follow from the size of the set, never from the number of shards or processes that share them.
    """
    large = max(PIECE_VIDEOS, PIECE_BATCHES * batch_size // clips)
    size = min(large, max(1, num_videos // MIN_PIECES))
    return [range(start, min(start + size, num_videos)) for start in range(0, num_videos, size)]


@torch.inference_mode()
def describe_videos(
    describe: Callable[[Tensor], Tensor],
    videos: Iterable[VideoClips],
    piece_sizes: Iterable[int],
    *,
    batch_size: int,
    clip_input: ClipInput,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the network says of the videos, piece by piece: of their clips (n, N, C) float32, and clip times (n, N, 2) float64 in seconds.

    describe: clips (b, 3, T, S, S) float32, normalised -> (b, C) float32.
    """
    source = iter(videos)
    for size in piece_sizes:
        times_s: list[np.ndarray] = []
        clips = clip_batches(_noting(islice(source, size), times_s), batch_size, clip_input)
        described = torch.cat([describe(batch) for batch in clips]).cpu().numpy()  # (n * N, C)
        yield described.reshape(size, -1, described.shape[1]), np.stack(times_s)


def _noting(videos: Iterable[VideoClips], times_s: list[np.ndarray]) -> Iterator[VideoClips]:
    for video in videos:
        times_s.append(video.times_s.numpy())
        yield video


def clip_batches(videos: Iterable[VideoClips], batch_size: int, clip_input: ClipInput) -> Iterator[Tensor]:
    """Preprocessed clips of one video after the other, (b, 3, T, S, S) float32 on the network's device; only the last batch is smaller.

    A batch is there until the next one is asked for: its memory is used again, for new memory costs a CPU as much as filling it.
    """
    ready, batch, filled = torch.empty(0), torch.empty(0, 1, 1, 1, 1), 0  # frames of a video; clips
    for video in videos:
        with timed("transfer"):
            frames, clips = (part.to(clip_input.device, non_blocking=True) for part in (video.frames, video.clips))
        with timed("preprocess"):
            ready = _resized(frames, clip_input, ready)
        for clip in clips:
            with timed("preprocess"):
                if filled == len(batch):  # room for this video's clips, then for twice as many: there may be fewer than a batch holds
                    larger = ready.new_empty((min(batch_size, max(len(clips), 2 * filled)), len(clip), *ready.shape[1:]))
                    larger[:filled] = batch[:filled]
                    batch = larger  # (b, T, S, S, 3): channels last, the faster layout
                torch.index_select(ready, 0, clip, out=batch[filled])
            filled += 1
            if filled == batch_size:
                yield batch.permute(0, 4, 1, 2, 3)
                filled = 0
    if filled:
        yield batch[:filled].permute(0, 4, 1, 2, 3)


def _resized(frames: Tensor, clip_input: ClipInput, kept: Tensor) -> Tensor:
    """Frames (U, h, w, 3) uint8 -> (U or more, S, S, 3) float32, normalised, in `kept` where that is long enough.

    Every frame is resized once; clips of a short video share most of theirs.
    """
    size = clip_input.size
    if len(kept) < len(frames):
        kept = torch.empty((len(frames), size, size, 3), device=clip_input.device)
    step = RESIZED_AT_ONCE if clip_input.device.type == "cpu" else len(frames)
    for start in range(0, len(frames), step):
        part = frames[start : start + step].permute(3, 0, 1, 2)[None]  # (1, 3, u, h, w)
        resized = resize_and_normalise(part, size, antialias=clip_input.antialias)  # (1, 3, u, S, S)
        kept[start : start + part.shape[2]] = resized[0].permute(1, 2, 3, 0)
    return kept


def statistics_clips(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Which of the train videos `rows` (n,) batch norm is estimated on, and how many clips of each."""
    chosen = rows[np.unique(np.round(np.linspace(0, len(rows) - 1, min(len(rows), STATISTICS_VIDEOS))).astype(np.int64))]
    return chosen, max(1, -(-STATISTICS_CLIPS // len(chosen)))


def statistics_batches(
    videos: Iterable[VideoClips], *, num_clips: int, clip_input: ClipInput, batch_size: int = STATISTICS_BATCH
) -> Iterator[Tensor]:
    """`num_clips` clips in batches as equal as can be, of about `batch_size`: batch norm averages over batches, not clips."""
    sizes = [len(part) for part in np.array_split(np.arange(num_clips), max(1, round(num_clips / batch_size)))]
    clips = (batch[0].clone() for batch in clip_batches(videos, 1, clip_input))
    for size in sizes:
        yield torch.stack(list(islice(clips, size))).contiguous(memory_format=torch.channels_last_3d)
