"""finetune: an encoder and labelled videos -> a classifier, and how well it does on test videos."""

from __future__ import annotations

from pathlib import Path

from rspnet_cli import distributed
from rspnet_cli.config import FinetuneConfig
from rspnet_cli.devices import resolve_device
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stages.finetune.all_splits import finetune_all_splits
from rspnet_cli.stages.finetune.one_split import finetune_one_split
from rspnet_cli.stages.finetune.resolved import resolve
from rspnet_cli.videos.frames import frames_of

__all__ = ["finetune"]


def finetune(
    config: FinetuneConfig,
    *,
    pretrain: Path | None,
    out: Path,
    frames: Path | None = None,
    default_frames: Path | None = None,
    force: bool = False,
    report: Reporter | None = None,
) -> Manifest:
    """Train a linear layer on an encoder, and the encoder with it, to tell the classes of labelled videos; test the best epoch.

    pretrain: folder or manifest of a pretraining (or of an earlier fine-tuning, whose last layer is left behind). With model.random_init
    it gives its network and its clips alone, and can be None. frames: of the extraction (None: the one that `pretrain` read, or
    default_frames where that is None or imported). out: this stage's folder. Under torchrun every rank calls it. Raises InputError for
    settings that do not fit the encoder or the videos, RspnetError when the loss is no number.
    """
    report = report or Reporter.silent()
    device = resolve_device(config.run.device)
    encoder = read_manifest(pretrain, stage=ENCODER_STAGES, verify=False) if pretrain is not None else None
    if encoder is None and not config.model.random_init:
        raise InputError("There is no encoder to go on from: name a pretraining, or use --random-init to start from random weights.")
    frames = frames or (default_frames if encoder is None else frames_of(encoder, default_frames))
    if frames is None:
        raise InputError("There are no videos to learn from: name an extraction with --frames.")
    with distributed.process_group(device.type):
        config = resolve(config, encoder, device)
        inputs = {"extract": frames}
        if encoder is not None and not config.model.random_init:
            inputs[encoder.stage] = encoder.path
        run = finetune_all_splits if config.data.split == "all" else finetune_one_split
        return run(config, inputs=inputs, out=out, device=device, force=force, report=report)
