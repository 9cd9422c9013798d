"""What makes a pretraining of videos and settings, for pretrain and bench: whether they fit, the initial encoders, the step."""

from __future__ import annotations

import numpy as np
import torch

from rspnet_cli import distributed
from rspnet_cli.clips.dataset import ClipBatch
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import tune_convolutions
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.moco import MoCo, key_momentum, query_projection
from rspnet_cli.encoder.registry import check_clip_size
from rspnet_cli.progress import Reporter
from rspnet_cli.training.fit import check_num_videos, warn_of_looped
from rspnet_cli.training.objective import Figures
from rspnet_cli.training.paired_clips import PairedClips
from rspnet_cli.training.plan import StepFunction
from rspnet_cli.training.step import rspnet_step
from rspnet_cli.videos.frames import FramesTable


def check_clips(config: PretrainConfig, table: FramesTable, rows: np.ndarray) -> None:
    """Whether the clips and batches asked for can be cut from these videos. Raises InputError."""
    check_clip_size(config.model.backbone, frames=config.clip.frames, side=config.clip.size)
    table.refuse_larger(config.clip.size)
    check_num_videos(len(rows), config.optim, parts=config.moco.bn_splits)


def check_fit(config: PretrainConfig, table: FramesTable, rows: np.ndarray, report: Reporter) -> None:
    """Whether the settings fit these videos. Raises InputError where they cannot work; warns where they will work badly."""
    check_clips(config, table, rows)
    if config.moco.queue_size > len(rows) / 2 and not config.moco.mask_same_video and config.objective.avid_weight > 0:
        report.warn(
            f"the queue holds {config.moco.queue_size} keys and there are {len(rows)} videos, so a query meets older keys of its own video "
            "as negatives: a moco.queue_size of at most half the videos or moco.mask_same_video=true avoids that."
        )
    steps = config.optim.epochs * config.optim.steps_per_epoch(len(rows), distributed.world_size())
    if epochs_to_fill(config, len(rows)) >= config.optim.epochs and config.objective.avid_weight > 0:
        best = " and no best epoch" if config.optim.best_from == "full_queue" else ""
        report.warn(
            f"{steps:,} steps of {config.optim.batch_size} videos do not fill the queue of {config.moco.queue_size:,} keys before the last "
            f"epoch begins, so there will be no A-VID accuracy{best}: more epochs or a smaller moco.queue_size would help."
        )
    if config.clip.frame_rate is None:
        warn_of_looped(table, rows, max(config.clip.speeds) * config.clip.frames, report)


def epochs_to_fill(config: PretrainConfig, num_videos: int) -> int:
    """Epochs before the first that begins with a queue of real keys: random ones make L_A small and A-VID figures meaningless."""
    steps_to_fill = config.moco.queue_size // config.optim.batch_size
    return -(-steps_to_fill // config.optim.steps_per_epoch(num_videos, distributed.world_size()))


def build_moco(config: PretrainConfig) -> MoCo:
    """The initial encoders and queue, a function of the seed alone. The caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = config.model
        query = Encoder(model.backbone, width=model.width, head=model.head, embedding_dim=model.embedding_dim)
        moco = config.moco
        return MoCo(query, embedding_dim=model.embedding_dim, queue_size=moco.queue_size, bn_splits=moco.bn_splits)


def ready_to_train(moco: MoCo, config: PretrainConfig, device: torch.device) -> MoCo:
    """The encoders on their device, in the memory layout, compiled and keeping activations as the resolved settings have it."""
    # Measured on CPUs too: r3d18 at a quarter of its width takes 0.64 s instead of 1.15 s forward and backward (batch 32, 48 px, AVX2).
    moco = moco.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    tune_convolutions(device)
    moco.query.backbone.checkpoint_activations = config.run.checkpoint_activations
    if config.run.compile:  # in place: the names in checkpoints stay
        moco.query.backbone.compile()
        moco.key.backbone.compile()
    return moco


def pretraining_step(moco: MoCo, clips: PairedClips) -> StepFunction[ClipBatch]:
    """The step of encoders that are ready to train: (batch of `clips.batches`, epoch, step of the epoch) -> `Figures`."""
    config, steps_per_epoch = clips.config, clips.steps_per_epoch
    project = query_projection(moco, clips.device, passes=config.optim.accumulate)

    def step(batch: ClipBatch, epoch: int, number: int) -> Figures:
        done = (epoch * steps_per_epoch + number) / (config.optim.epochs * steps_per_epoch)
        momentum = key_momentum(config.moco.momentum, config.moco.momentum_end, done)
        query, key = (clips.augmented(crops) for crops in batch.clips)
        return rspnet_step(moco, project, query, key, batch.videos, clips.draw(epoch, number), config, momentum=momentum)

    return step
