"""The settings of a fine-tuning, with everything in place that comes from its encoder and the machine."""

from __future__ import annotations

from typing import Any

import torch

from rspnet_cli.config import FinetuneClipConfig, FinetuneConfig, FinetuneModelConfig
from rspnet_cli.config.base import RATE_TOLERANCE
from rspnet_cli.encoder.load import TrainedAs, default_checkpoint
from rspnet_cli.encoder.registry import check_clip_size, published_clip
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.training.fit import check_batch, resolved_run


def resolve(config: FinetuneConfig, encoder: Manifest | None, device: torch.device) -> FinetuneConfig:
    """Replace every None and `auto` by what it comes to.

    encoder: the pretraining or fine-tuning to go on from, or whose network and clips to take; None: random weights. Raises InputError
    where the settings and the encoder do not belong together, or a batch cannot be shared.
    """
    if not config.optim.epochs:
        return _resolve_test(config, encoder, device)
    optim = config.optim
    check_batch(optim.batch_size, parts=optim.accumulate, because="optim.accumulate", smallest=1 if config.model.linear else 2)
    trained = None if encoder is None else TrainedAs.read(encoder)
    model = _model(config.model, encoder, trained)
    return config.model_copy(update={"model": model, "clip": _clip(config.clip, model, trained), "run": resolved_run(config.run, device)})


def _resolve_test(config: FinetuneConfig, tuned: Manifest | None, device: torch.device) -> FinetuneConfig:
    """Of a test without training: nothing chooses an epoch, and the clips are those of the network but for what is asked for."""
    if tuned is None or tuned.stage != "finetune" or config.model.random_init:
        raise InputError(
            "Without an epoch of training there must be a fine-tuned network to test: name the folder of a finetune, or train with "
            "--epochs 1 or more."
        )
    trained = TrainedAs.read(tuned)
    clip = config.clip if "sampling" in config.clip.model_fields_set else config.clip.model_copy(update={"sampling": trained.sampling})
    model = _model(config.model, tuned, trained)
    data = config.data.model_copy(update={"select_on": "last"})
    update = {"data": data, "model": model, "clip": _clip(clip, model, trained), "run": resolved_run(config.run, device)}
    return config.model_copy(update=update)


def _model(model: FinetuneModelConfig, encoder: Manifest | None, trained: TrainedAs | None) -> FinetuneModelConfig:
    if encoder is None or trained is None:
        if model.backbone is None:
            raise InputError("There is no network to start from random weights: name one with --set model.backbone=r3d18, or a --recipe.")
        update: dict[str, Any] = {"width": 1.0 if model.width is None else model.width}
    else:
        for key, asked, is_ in (("backbone", model.backbone, trained.backbone), ("width", model.width, trained.width)):
            if asked is not None and asked != is_ and not model.random_init:
                raise InputError(
                    f"{encoder.path} is an encoder of {key} {is_}, and the settings (or the recipe) ask for {asked}: name another encoder, "
                    f"another --recipe, or use --random-init to train that network from random weights."
                )
        update = {"backbone": model.backbone or trained.backbone, "width": trained.width if model.width is None else model.width}
        if not model.random_init:
            update["checkpoint"] = model.checkpoint or default_checkpoint(encoder)
    return model.model_copy(update=update)


def _clip(clip: FinetuneClipConfig, model: FinetuneModelConfig, trained: TrainedAs | None) -> FinetuneClipConfig:
    """The encoder's clips where nothing else is asked for; without an encoder those that the backbone was published with."""
    assert model.backbone is not None
    published = published_clip(model.backbone)
    known = {
        "frames": trained.frames if trained else published.frames,
        "size": trained.size if trained else published.side,
        "antialias": trained.antialias if trained else False,
        "frame_rate": (trained.frame_rate if trained else None) or 0.0,
        "rate_tolerance": trained.rate_tolerance if trained else RATE_TOLERANCE,
    }
    if clip.sampling == "cover":
        known["frame_rate"] = 0.0  # its frames come from the whole video, whatever the rate
    if clip.rate_tolerance is not None and not (known["frame_rate"] if clip.frame_rate is None else clip.frame_rate):
        raise InputError(
            "clip.rate_tolerance has no effect, because these clips are cut at the videos' own rate: leave it out, or set clip.frame_rate."
        )
    clip = clip.model_copy(update={key: value for key, value in known.items() if getattr(clip, key) is None})
    check_clip_size(model.backbone, frames=clip.frames or 0, side=clip.size or 0)
    return clip
