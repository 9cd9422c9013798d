"""Frame store + sampling -> uint8 clips: what the loader's worker processes do, and the order they do it in.

A worker reads the crop boxes of the clips of a video (two to pretrain, one to fine-tune) and hands over bytes; floats are made
on the training device, and there RGB of YUV planes. Pretraining draws the step's speed before, so that only frames which reach the
encoder are read, moved and augmented: at T 16 and speed 3, 42 of 96.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.clips.crops import CropRows, Crops
from rspnet_cli.clips.draws import ClipDraw, StepDraw, clip_rng, draw_clip, epoch_order
from rspnet_cli.clips.loader import read_ahead
from rspnet_cli.clips.sampling import FrameRate, cover_clip, frames_at_rate, played_frames, random_clip
from rspnet_cli.clips.slots import Room, own_room
from rspnet_cli.config import AugmentConfig, ClipConfig
from rspnet_cli.config.training import OptimSection
from rspnet_cli.errors import RspnetError
from rspnet_cli.timing import timed
from rspnet_cli.videos.frames import FrameFiles
from rspnet_cli.videos.h264_store import H264Video
from rspnet_cli.videos.planes import Box, Cut
from rspnet_cli.videos.store import has_planes, open_store

PREFETCH_BATCHES = 4
"""Batches that a worker reads ahead."""


@dataclass(frozen=True)
class ClipBatch:
    """The clips of B videos."""

    clips: tuple[Crops, ...]
    """The first clips of all videos, then the second ones: query and key of pretraining, the only one of fine-tuning."""
    videos: Tensor
    """(B,) int64: rows of the extraction's table."""

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory (called by the DataLoader)."""
        return ClipBatch(tuple(crops.pin_memory() for crops in self.clips), self.videos.pin_memory())


class Request(NamedTuple):
    """The clips of a video: what the order asks the loader for."""

    epoch: int
    row: int
    """Of the extraction's table."""
    fast: bool = False
    """In pretraining: the query plays at `speed`, not at 1 (the key plays at both)."""
    speed: int = 1


class Clip(NamedTuple):
    """What is read for a clip and how it is augmented."""

    cut: Cut
    offsets: np.ndarray
    """(F,) int64: which frames of the clip's span are read."""
    draw: ClipDraw


class TrainingClips:
    """Independently cut and cropped clips of the requested videos: what `read_ahead` reads its batches from.

    planes: read YUV planes where the store has them (see `planes_on`).
    """

    frames_read: int
    """Of a video, at most."""

    def __init__(self, files: FrameFiles, augment: AugmentConfig, *, frame_rate: FrameRate | None, seed: int, planes: bool = False) -> None:
        self.files, self.augment, self.frame_rate, self.seed, self.planes = files, augment, frame_rate, seed, planes
        self._checked = np.zeros(len(files.frames), dtype=bool)

    def skip_checks(self) -> None:
        """Take every frame file for checked, as it is after the first epoch."""
        self._checked[:] = True

    def read(self, requests: Sequence[Request], room: Room = own_room) -> ClipBatch | RspnetError:
        """The clips of some videos. What is wrong with one is returned, not raised (see `Source`)."""
        try:
            planned = [tuple(self._planned(request)) for request in requests]
            planes = self.planes and has_planes(self.files.path(requests[0].row))
            by_number = list(zip(*planned, strict=True))  # the first clips of all videos, then the second ones
            packed = [CropRows.of([clip.draw for clip in clips], len(clips[0].offsets), planes=planes, room=room) for clips in by_number]
            places = zip(*(crops.places for crops in packed), strict=True)  # by video
            ranges = [
                self._read(request.row, [clip.cut for clip in clips], into, planes=planes)
                for request, clips, into in zip(requests, planned, places, strict=True)
            ]
        except RspnetError as error:
            return error
        crops = (
            Crops(
                pixels=torch.from_numpy(own.rows),
                draws=tuple(clip.draw for clip in clips),
                offsets=torch.from_numpy(np.stack([clip.offsets for clip in clips])),
                full_range=tuple(ranges) if planes else None,
            )
            for own, clips in zip(packed, by_number, strict=True)
        )
        return ClipBatch(tuple(crops), torch.tensor([request.row for request in requests]))

    def batch_bytes(self, batch_size: int) -> int:
        """The room that so many videos take at most: whole frames, padded to the widest."""
        height, width = (int(sides.max()) + 1 for sides in (self.files.height, self.files.width))
        return batch_size * self.frames_read * height * width * 3

    def _read(self, row: int, cuts: Sequence[Cut], into: Sequence[Any], *, planes: bool) -> bool:
        """Read the clips of a video to their places; whether its planes have full range."""
        # Every frame file is hashed when this process first uses it: in the first epoch, or later when that epoch's last batch,
        # which is dropped, held it, or the run was resumed.
        if not self._checked[row]:
            self.files.check_file(row)
            self._checked[row] = True
        with timed("open"):
            store = open_store(self.files.path(row))
        with store as video:
            video.check_listed(int(self.files.frames[row]), (int(self.files.height[row]), int(self.files.width[row])))
            # All clips at once: they overlap, and every frame is decoded once.
            with timed("decode"):
                if planes:
                    assert isinstance(video, H264Video)
                    video.read_planes(cuts, into)
                    return video.full_range
                video.read_cuts(cuts, into)
                return False

    def _planned(self, request: Request) -> Iterator[Clip]:
        """Which clips of a video to read."""
        frames, fps = int(self.files.frames[request.row]), float(self.files.fps[request.row])
        return self._clips(frames_at_rate(frames, fps=fps, frame_rate=self.frame_rate), request)

    def _clips(self, at_rate: np.ndarray, request: Request) -> Iterator[Clip]:
        """The clips of a video. at_rate: (n,) its frames at the wanted rate."""
        raise NotImplementedError

    def _clip(self, row: int, span: np.ndarray, offsets: np.ndarray, rng: np.random.Generator) -> Clip:
        """Draw the augmentation of a clip, of which the frames `offsets` are read. span: (n,) the clip's frames in the video."""
        draw = draw_clip(int(self.files.height[row]), int(self.files.width[row]), self.augment, rng)
        return Clip(Cut(span[offsets], Box(*draw.box)), offsets, draw)


class ClipPairs(TrainingClips):
    """Query and key for pretraining. Each spans max(speeds) * T frames, of which those played are read."""

    def __init__(self, files: FrameFiles, clip: ClipConfig, augment: AugmentConfig, *, seed: int, planes: bool = False) -> None:
        frame_rate = FrameRate.of(clip.frame_rate, clip.rate_tolerance)
        super().__init__(files, augment, frame_rate=frame_rate, seed=seed, planes=planes)
        self.clip = clip
        self.span = max(clip.speeds) * clip.frames
        # Played are the query at one speed and the key at both.
        self.frames_read = 2 * self.span if clip.load == "all" else min(3 * clip.frames, 2 * self.span)

    def _clips(self, at_rate: np.ndarray, request: Request) -> Iterator[Clip]:
        for number in range(2):
            rng = clip_rng(self.seed, request.epoch, request.row, number)
            span = at_rate[random_clip(len(at_rate), frames=self.span, rng=rng)]  # (span,)
            yield self._clip(request.row, span, self._offsets(request, is_query=number == 0), rng)

    def _offsets(self, request: Request, *, is_query: bool) -> np.ndarray:
        if self.clip.load == "all":
            return np.arange(self.span, dtype=np.int64)
        own, other = (played_frames(self.clip.frames, fast=fast, speed=request.speed) for fast in (request.fast, not request.fast))
        return own if is_query else np.union1d(own, other)


class SingleClips(TrainingClips):
    """One clip of T frames for fine-tuning: consecutive ones, or ones spread over the whole video (sampling "cover")."""

    def __init__(
        self,
        files: FrameFiles,
        augment: AugmentConfig,
        *,
        frames: int,
        sampling: str,
        frame_rate: FrameRate | None,
        seed: int,
        planes: bool = False,
    ) -> None:
        super().__init__(files, augment, frame_rate=frame_rate, seed=seed, planes=planes)
        self.frames = self.frames_read = frames
        self.draw = cover_clip if sampling == "cover" else random_clip

    def _clips(self, at_rate: np.ndarray, request: Request) -> Iterator[Clip]:
        rng = clip_rng(self.seed, request.epoch, request.row, 0)
        span = at_rate[self.draw(len(at_rate), frames=self.frames, rng=rng)]  # (T,)
        yield self._clip(request.row, span, np.arange(self.frames, dtype=np.int64), rng)


class BatchOrder:
    """The batches of all epochs from a position on: lists of requests, this rank's slice of each global batch.

    draw: of a pretraining's (epoch, step). The last incomplete batch of an epoch is dropped. With optim.last_videos "repeat" the order
    first goes on with its own beginning up to a multiple of world_size, as torch's DistributedSampler has it: the same videos meet in a
    global batch as there, whose ranks take every world_size-th of them and not a slice. One order for the whole run lets the workers read
    ahead over an epoch's end.
    """

    def __init__(
        self,
        rows: np.ndarray,
        optim: OptimSection,
        *,
        seed: int,
        draw: Callable[[int, int], StepDraw] | None = None,
        start: tuple[int, int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows, self.optim, self.seed, self.draw, self.start = rows, optim, seed, draw, start
        self.rank, self.world_size = rank, world_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return self.optim.steps_per_epoch(len(self.rows), self.world_size)

    def __iter__(self) -> Iterator[list[Request]]:
        batch_size = self.optim.batch_size
        share = batch_size // self.world_size
        first_epoch, first_step = self.start
        for epoch in range(first_epoch, self.optim.epochs):
            once = self.rows[epoch_order(len(self.rows), seed=self.seed, epoch=epoch)]
            order = np.resize(once, self.optim.videos_per_epoch(len(once), self.world_size))  # goes on with its beginning
            for step in range(first_step if epoch == first_epoch else 0, self.steps_per_epoch):
                own = slice(self.rank * share, (self.rank + 1) * share)
                rows = order[step * batch_size :][own].tolist()
                if self.draw is None:
                    yield [Request(epoch, row) for row in rows]
                else:
                    draw = self.draw(epoch, step)
                    yield [Request(epoch, row, fast, draw.speed) for row, fast in zip(rows, draw.fast[own].tolist(), strict=True)]


def batches(
    clips: TrainingClips, order: Iterable[list[Request]], *, batch_size: int, workers: int, pin_memory: bool = False
) -> Generator[ClipBatch]:
    """Load the batches of the requests (a BatchOrder) in order, each there until the next one is asked for.

    batch_size: the most videos of one. Raises the RspnetError of a video that cannot be read.
    """
    return read_ahead(
        clips, order, workers=workers, prefetch=PREFETCH_BATCHES, item_bytes=clips.batch_bytes(batch_size), pin_memory=pin_memory
    )
