"""The clips of a pretraining: which videos, in which order, cut, augmented and played how. What pretrain learns from and preview shows."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace

import numpy as np
import torch

from rspnet_cli import distributed
from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.clips.crops import Crops, planes_on
from rspnet_cli.clips.dataset import PREFETCH_BATCHES, BatchOrder, ClipBatch, ClipPairs, Request, batches
from rspnet_cli.clips.draws import StepDraw, draw_step
from rspnet_cli.clips.prefetch import prefetched
from rspnet_cli.config import DataConfig, PretrainConfig
from rspnet_cli.devices import clip_dtype, to_device
from rspnet_cli.errors import InputError
from rspnet_cli.timing import timed
from rspnet_cli.training.step import LoadedClips
from rspnet_cli.videos.frames import FramesTable


class PairedClips:
    """Query and key clips of an extraction's rows, as the resolved settings draw them: a function of seed, epoch and step alone."""

    def __init__(self, config: PretrainConfig, table: FramesTable, rows: np.ndarray, device: torch.device) -> None:
        self.config, self.rows, self.device = config, rows, device
        clip = config.clip
        dtype = clip_dtype(config.run.precision, device)
        self.augmentation = Augmentation(clip.size, clip.antialias, config.augment.order, device, dtype=dtype)
        self._dataset = ClipPairs(table.files, config.clip, config.augment, seed=config.run.seed, planes=planes_on(device))

    def compile(self) -> None:
        """Augment in few kernels from now on (see `compiles_augmentation`)."""
        self.augmentation = replace(self.augmentation, fused=True)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return self.config.optim.steps_per_epoch(len(self.rows), distributed.world_size())

    def draw(self, epoch: int, step: int) -> StepDraw:
        """Who plays fast, how fast, and the shuffles, for the global batch of a step of an epoch; both count from 0."""
        config, parts = self.config, distributed.world_size() * self.config.moco.bn_splits
        return draw_step(
            config.optim.batch_size, speeds=config.clip.speeds, sub_batches=parts, seed=config.run.seed, epoch=epoch, step=step
        )

    def order(self, start: tuple[int, int]) -> BatchOrder:
        """What is asked of the loader from (epoch, step) on: this rank's videos of each batch, to the end of the training."""
        return BatchOrder(
            self.rows,
            self.config.optim,
            seed=self.config.run.seed,
            start=start,
            draw=self.draw,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )

    def batches(self, start: tuple[int, int]) -> Generator[ClipBatch]:
        """The batches from (epoch, step) on, on the device: one travels there while the one before is trained on."""
        return prefetched(self.load(self.order(start)), self.augmentation.ready_batch, self.device)

    def load(self, requests: Iterable[list[Request]]) -> Generator[ClipBatch]:
        """Batches of requested clips, each there until the next one is asked for, read ahead by the loader's processes, which end with the
        generator (close it).
        """
        share = self.config.optim.batch_size // distributed.world_size()
        workers, pin_memory = self.config.run.workers or 0, self.device.type == "cuda"
        return batches(self._dataset, requests, batch_size=share, workers=workers, pin_memory=pin_memory)

    @property
    def read_ahead(self) -> int:
        """Batches that the loader's processes have ready while the training takes its time."""
        return PREFETCH_BATCHES * (self.config.run.workers or 0)

    def skip_checks(self) -> None:
        """Read frame files without hashing them first, as a training does from its second epoch on."""
        self._dataset.skip_checks()

    def augmented(self, crops: Crops) -> LoadedClips:
        """The query or the key clips of a batch on the device, augmented and normalised, ready to be played."""
        with timed("augmentation"):
            return LoadedClips(self.augmentation(crops), to_device(crops.offsets, self.device))


def training_rows(table: FramesTable, config: PretrainConfig) -> np.ndarray:
    """(n,) int64: rows of the videos to train on: the train videos of data.split, or all of them (no split columns, or "all")."""
    if not table.split_columns and config.data.split not in ("all", DataConfig().split):
        raise InputError(
            f"{table.manifest.path} has no splits, so no split {config.data.split}: leave --split out to train on every video."
        )
    if config.data.split == "all" or not table.split_columns:
        return np.arange(len(table))
    return table.rows_of_split(config.data.split, "train")
