"""Frame store + sampling -> uint8 clips: what the loader's worker processes do, and the order they do it in.

A worker reads two clips per video, cuts each clip's crop box and hands over bytes; floats are made on the training device.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from rspnet_cli.clips.draws import ClipDraw, clip_rng, draw_clip, epoch_order
from rspnet_cli.clips.loader import read_ahead
from rspnet_cli.clips.sampling import frames_at_rate, random_clip
from rspnet_cli.config import AugmentConfig, ClipConfig
from rspnet_cli.errors import RspnetError
from rspnet_cli.videos.frames import FramesTable
from rspnet_cli.videos.store import open_store

CLIPS_PER_VIDEO = 2  # query and key


@dataclass(frozen=True)
class ClipBatch:
    """N crops of L frames, of different sizes, packed one after the other. Queries first, then keys: N = 2 B."""

    pixels: Tensor
    """(bytes,) uint8: the crops (L, h, w, 3) flattened."""
    draws: tuple[ClipDraw, ...]
    """Their augmentation; the crop boxes give h and w."""
    num_frames: int
    """L: frames of each crop."""
    videos: Tensor
    """(B,) int64: rows of the extraction's table."""

    def crops(self) -> list[Tensor]:
        """The crops, each (L, h, w, 3) uint8, as views."""
        return self._unpacked(self.pixels)

    def padded(self, device: torch.device) -> Tensor:
        """All crops on a device, padded with zeros at the bottom and right: (N, L, Hmax, Wmax, 3) uint8."""
        height, width = (max(draw.box[side] for draw in self.draws) for side in (2, 3))
        out = torch.zeros((len(self.draws), self.num_frames, height, width, 3), dtype=torch.uint8, device=device)
        for target, crop in zip(out, self._unpacked(self.pixels.to(device, non_blocking=True)), strict=True):
            target[:, : crop.shape[1], : crop.shape[2]] = crop
        return out

    def _unpacked(self, pixels: Tensor) -> list[Tensor]:
        shapes = [(self.num_frames, draw.box[2], draw.box[3], 3) for draw in self.draws]
        return [part.view(shape) for part, shape in zip(torch.split(pixels, [math.prod(shape) for shape in shapes]), shapes, strict=True)]

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory, from where it is copied to a GPU without waiting (called by the DataLoader)."""
        return ClipBatch(self.pixels.pin_memory(), self.draws, self.num_frames, self.videos)


Key = tuple[int, int]
"""(epoch, row of the extraction's table)"""
Sample = tuple[Key, list[tuple[np.ndarray, ClipDraw]]]
"""A video's crops (L, h, w, 3) uint8 and their draws, query first."""


class ClipPairs(Dataset[Sample | RspnetError]):
    """Two independently cut and cropped clips per (epoch, video): [(crop (L, h, w, 3) uint8, draw), ...], query first.

    L = max(speeds) * T frames at stride 1. What is wrong with a video is returned, not raised: a worker's traceback is no sentence.
    """

    def __init__(self, table: FramesTable, clip: ClipConfig, augment: AugmentConfig, *, seed: int) -> None:
        self.table, self.clip, self.augment, self.seed = table, clip, augment, seed
        self.num_frames = max(clip.speeds) * clip.frames
        self._checked = np.zeros(len(table), dtype=bool)

    def __getitem__(self, key: Key) -> Sample | RspnetError:
        epoch, row = key
        try:
            # Every frame file is hashed when this process first uses it: in the first epoch, or later when that epoch's last batch,
            # which is dropped, held it, or the run was resumed.
            if not self._checked[row]:
                self.table.check_file(row)
                self._checked[row] = True
            with open_store(self.table.path(row)) as video:
                at_rate = frames_at_rate(video.num_frames, fps=float(self.table.fps[row]), frame_rate=self.clip.frame_rate)
                clips = []
                for number in range(CLIPS_PER_VIDEO):
                    rng = clip_rng(self.seed, epoch, row, number)
                    indices = at_rate[random_clip(len(at_rate), frames=self.num_frames, rng=rng)]
                    draw = draw_clip(video.height, video.width, self.augment, rng)
                    top, left, height, width = draw.box
                    frames = video.read(indices)  # (L, H, W, 3)
                    clips.append((frames[:, top : top + height, left : left + width], draw))
                return key, clips
        except RspnetError as error:
            return error


def collate(items: Sequence[Sample | RspnetError]) -> ClipBatch | RspnetError:
    """Pack the clips of a batch's videos, all queries before all keys."""
    good = []
    for item in items:
        if isinstance(item, RspnetError):
            return item
        good.append(item)
    clips = [clips[number] for number in range(CLIPS_PER_VIDEO) for _, clips in good]
    pixels = torch.empty(sum(frames.size for frames, _ in clips), dtype=torch.uint8)
    flat, start = pixels.numpy(), 0
    for frames, _ in clips:
        flat[start : start + frames.size].reshape(frames.shape)[...] = frames
        start += frames.size
    return ClipBatch(
        pixels=pixels,
        draws=tuple(draw for _, draw in clips),
        num_frames=clips[0][0].shape[0],
        videos=torch.tensor([row for (_, row), _ in good]),
    )


class BatchOrder(Sampler["list[Key]"]):
    """The batches of all epochs from a position on: lists of (epoch, row), this rank's slice of each global batch.

    The last incomplete batch of an epoch is dropped. One order for the whole run lets the workers read ahead over an epoch's end.
    """

    def __init__(
        self, rows: np.ndarray, *, batch_size: int, epochs: int, seed: int, start: tuple[int, int], rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows, self.batch_size, self.epochs, self.seed, self.start = rows, batch_size, epochs, seed, start
        self.rank, self.world_size = rank, world_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        share = self.batch_size // self.world_size
        first_epoch, first_step = self.start
        for epoch in range(first_epoch, self.epochs):
            order = self.rows[epoch_order(len(self.rows), seed=self.seed, epoch=epoch)]
            for step in range(first_step if epoch == first_epoch else 0, self.steps_per_epoch):
                begin = step * self.batch_size + self.rank * share
                yield [(epoch, int(row)) for row in order[begin : begin + share]]


def batches(dataset: ClipPairs, order: BatchOrder, *, workers: int, pin_memory: bool = False) -> Generator[ClipBatch]:
    """Load the batches in order. Raises the RspnetError of a video that cannot be read."""
    return read_ahead(dataset, workers=workers, prefetch=4, collate=collate, pin_memory=pin_memory, batch_sampler=order)
