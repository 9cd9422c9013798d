"""Whether the settings of a training fit the machine and the videos: checks that pretraining and fine-tuning share."""

from __future__ import annotations

import numpy as np
import torch

from rspnet_cli import distributed
from rspnet_cli.clips.augment import Augmentation, fault_of_fusing
from rspnet_cli.config import PretrainConfig, RunConfig
from rspnet_cli.config.training import OptimSection
from rspnet_cli.devices import check_compiler, compiler_fault, default_workers, resolve_precision
from rspnet_cli.errors import InputError
from rspnet_cli.progress import Reporter
from rspnet_cli.training.trackers import resolved_tracker
from rspnet_cli.videos.frames import FramesTable


def resolved_run(run: RunConfig, device: torch.device) -> RunConfig:
    """Every `auto` and None replaced by what it comes to here. Raises InputError for a tracker that is not installed."""
    workers = default_workers(device) if run.workers is None else run.workers
    precision, tracker = resolve_precision(run.precision, device), resolved_tracker(run.tracker)
    return run.model_copy(update={"device": device.type, "precision": precision, "workers": workers, "tracker": tracker})


def resolve(config: PretrainConfig, device: torch.device) -> PretrainConfig:
    """Replace every `auto` by what it comes to, and trim the queue to whole global batches. Raises InputError.

    Passes over parts of a batch (optim.accumulate) have batch-norm statistics of their own, so moco.bn_splits is at least their number:
    with it they give the result of one pass.
    """
    optim, moco = config.optim, config.moco
    bn_splits, fewer = max(moco.bn_splits, optim.accumulate), min(moco.bn_splits, optim.accumulate)
    if bn_splits % fewer:
        raise InputError(
            f"moco.bn_splits {moco.bn_splits} and optim.accumulate {optim.accumulate} cut a batch in different places: "
            "make one a multiple of the other."
        )
    because = "moco.bn_splits" if moco.bn_splits >= optim.accumulate else "optim.accumulate"
    check_batch(optim.batch_size, parts=bn_splits, because=because)
    queue_size = moco.queue_size - moco.queue_size % optim.batch_size
    if queue_size == 0:
        raise InputError(
            f"moco.queue_size {moco.queue_size} is smaller than the batch ({optim.batch_size}): raise it to a multiple of the batch, "
            "or lower optim.batch_size."
        )
    moco = moco.model_copy(update={"queue_size": queue_size, "bn_splits": bn_splits})
    return config.model_copy(update={"moco": moco, "run": resolved_run(config.run, device)})


def check_batch(batch_size: int, *, parts: int = 1, because: str = "", smallest: int = 2) -> None:
    """Raise InputError for a batch of which each process cannot make `parts` equal parts of at least `smallest` videos.

    because: the setting that asks for the parts.
    """
    total = distributed.world_size() * parts
    if batch_size % total or batch_size // total < smallest:
        with_parts = f" with {because} {parts}" if parts > 1 else ""
        raise InputError(
            f"optim.batch_size {batch_size} cannot be shared by {distributed.world_size()} process(es){with_parts}: "
            f"use a multiple of {total} that gives each part at least {smallest} video{'s' if smallest > 1 else ''}."
        )


def check_num_videos(num_videos: int, optim: OptimSection, *, parts: int = 1, smallest: int = 2) -> None:
    """Raise InputError where the videos do not fill one batch, naming the largest that they fill (parts: see `check_batch`)."""
    total = distributed.world_size() * parts
    if not optim.steps_per_epoch(num_videos, distributed.world_size()):
        in_order = optim.videos_per_epoch(num_videos, distributed.world_size())
        largest = in_order - in_order % total
        advice = f"use --batch-size {largest} or smaller" if largest // total >= smallest else "extract more videos"
        raise InputError(f"There are {num_videos} videos to train on, fewer than a batch of {optim.batch_size}: {advice}.")


def warn_of_accumulation(optim: OptimSection, report: Reporter) -> None:
    """Say that batch norm makes passes over parts of a batch differ from one pass over it."""
    share = optim.batch_size // distributed.world_size()
    report.warn(
        f"with optim.accumulate {optim.accumulate} batch norm sees {share // optim.accumulate} of a process' {share} videos at a time: the "
        f"result is that of {optim.accumulate} times as many processes, not that of one pass over the batch."
    )


def prepare_compiling(stage: str, device: torch.device, report: Reporter) -> None:
    """Announce what torch.compile takes, and check that it works here. Raises InputError."""
    report.info(f"{stage}: compiling, which makes the first pass last a minute or more.")
    check_compiler(device)


def compiles_augmentation(stage: str, augmentation: Augmentation, report: Reporter) -> bool:
    """Whether a training's clips are augmented in few kernels: on a GPU where torch.compile makes them right. Says so, or what is wrong."""
    if augmentation.device.type != "cuda":
        return False
    report.info(f"{stage}: compiling the augmentation, which takes a while.")
    fault = compiler_fault(augmentation.device)
    if not fault and (wrong := fault_of_fusing(augmentation)):
        fault = f"compiled for this GPU the augmentation does not work ({wrong}): install another version of torch"
    if fault:
        report.warn(f"{fault}; till then augmentation needs more of the GPU's time.")
    return not fault


def warn_of_looped(table: FramesTable, rows: np.ndarray, needed: int, report: Reporter) -> None:
    """Say how many of the videos `rows` are shorter than a clip of `needed` frames."""
    looped = int((table.frames[rows] < needed).sum())
    if looped:
        report.warn(f"{looped} of {len(rows)} videos have fewer than the {needed} frames that a clip needs: they are looped.")
