"""Whether the settings of a training fit the machine and the videos: checks that pretraining and fine-tuning share."""

from __future__ import annotations

import numpy as np
import torch

from rspnet_cli import distributed
from rspnet_cli.config import RunConfig
from rspnet_cli.devices import default_workers, resolve_precision
from rspnet_cli.errors import InputError
from rspnet_cli.progress import Reporter
from rspnet_cli.training.trackers import resolved_tracker
from rspnet_cli.videos.frames import FramesTable


def resolved_run(run: RunConfig, device: torch.device) -> RunConfig:
    """Every `auto` and None replaced by what it comes to here. Raises InputError for a tracker that is not installed."""
    workers = default_workers(device) if run.workers is None else run.workers
    precision, tracker = resolve_precision(run.precision, device), resolved_tracker(run.tracker)
    return run.model_copy(update={"device": device.type, "precision": precision, "workers": workers, "tracker": tracker})


def check_batch(batch_size: int, *, bn_splits: int = 1, smallest: int = 2) -> None:
    """Raise InputError for a batch that processes and batch-norm parts cannot share evenly, each getting at least `smallest` videos."""
    parts = distributed.world_size() * bn_splits
    if batch_size % parts or batch_size // parts < smallest:
        splits = f" with moco.bn_splits {bn_splits}" if bn_splits > 1 else ""
        raise InputError(
            f"optim.batch_size {batch_size} cannot be shared by {distributed.world_size()} process(es){splits}: "
            f"use a multiple of {parts} that gives each part at least {smallest} video{'s' if smallest > 1 else ''}."
        )


def check_num_videos(num_videos: int, batch_size: int, *, bn_splits: int = 1, smallest: int = 2) -> None:
    """Raise InputError where the videos do not fill one batch, naming the largest that they fill."""
    parts = distributed.world_size() * bn_splits
    if num_videos < batch_size:
        largest = num_videos - num_videos % parts
        advice = f"use --batch-size {largest} or smaller" if largest // parts >= smallest else "extract more videos"
        raise InputError(f"There are {num_videos} videos to train on, fewer than a batch of {batch_size}: {advice}.")


def warn_of_looped(table: FramesTable, rows: np.ndarray, needed: int, report: Reporter) -> None:
    """Say how many of the videos `rows` are shorter than a clip of `needed` frames."""
    looped = int((table.frames[rows] < needed).sum())
    if looped:
        report.warn(f"{looped} of {len(rows)} videos have fewer than the {needed} frames that a clip needs: they are looped.")
