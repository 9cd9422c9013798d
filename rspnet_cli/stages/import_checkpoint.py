"""import-checkpoint: a checkpoint of the released code, or a state dict of one of its backbones -> a pretraining like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rspnet_cli import distributed
from rspnet_cli.config import OptimConfig, PretrainConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.foreign import PublishedEncoder, is_finetuned, read_classifier, read_encoder, state_of
from rspnet_cli.encoder.registry import BACKBONES, check_clip_size
from rspnet_cli.encoder.torch_file import read_torch_file
from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of, write_atomic
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import checked_settings, validated
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.tensors import write_tensors
from rspnet_cli.training.checkpoint import FOLDER, state_arrays, to_array
from rspnet_cli.training.foreign_run import SOURCE, known_optim, read_optimizer, run_facts

_RESULTS = ("videos", "epochs", "steps", "loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "rsp_accuracy", "best_epoch")


def import_checkpoint(
    source: Path, *, out: Path, settings: Mapping[str, Any] | None = None, force: bool = False, report: Reporter | None = None
) -> Manifest:
    """Turn a checkpoint file into a finished pretrain stage, whose encoder every other stage takes.

    source: a `.pth.tar` of the released code's pretraining, or a state dict of one of its backbones. out: the stage's folder. settings:
    "section.key" -> value, what is known of the training that the file does not say (and model.width, which its shapes tell). Raises
    InputError for a file that is no such checkpoint, naming the tensor.
    """
    report = report or Reporter.silent()
    if distributed.world_size() > 1:
        raise InputError("import-checkpoint runs in one process: start it without torchrun.")
    told = checked_settings(PretrainConfig, settings or {})
    content = read_torch_file(source)
    state = state_of(content, source)
    if is_finetuned(state):
        network = read_classifier(state, source, told.get("model.width"))
        classes = len(network.tensors["fc.bias"])
        raise InputError(
            f"{source} is of a fine-tuned network ({network.backbone}, {classes} classes), which cannot be imported yet: "
            "name the pretraining that it came from."
        )
    encoder = read_encoder(state, source, told.get("model.width"))
    notes = list(encoder.notes)
    optimizer = read_optimizer(content.get("optimizer"), state, encoder.query, encoder.model.backbone)
    if optimizer is None and content.get("optimizer"):
        notes.append("the optimiser's state was left out, as it is not that of an RSPNet pretraining with these parameters")
    digest = sha256_of(source)
    config = _resolve(encoder, content, told, digest, has_optimizer=optimizer is not None)
    check_clip_size(encoder.model.backbone, frames=config["clip"]["frames"], side=config["clip"]["size"])
    with begin_stage("pretrain", config, inputs={}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        _say(encoder, config, notes, source, report)
        _write_weights(stage, encoder)
        artifacts = ["encoder.safetensors", "initial.safetensors", f"{FOLDER}/last.safetensors", SOURCE]
        if optimizer is not None:
            write_tensors(stage.work / FOLDER / "last.optimizer.safetensors", optimizer, {})
            artifacts.append(f"{FOLDER}/last.optimizer.safetensors")
        facts = run_facts(content)
        write_atomic(stage.work / SOURCE, json.dumps(facts, indent=1, allow_nan=False) + "\n")
        epoch, loss = facts["epoch"], facts["best_loss"]
        results = dict.fromkeys(_RESULTS) | {
            "epochs": epoch if type(epoch) is int else None,
            "best_loss": loss if type(loss) in (int, float) else None,
        }
        environment = {"source": str(source.absolute()), "source_sha256": digest, "source_bytes": source.stat().st_size, "notes": notes}
        return stage.finish(results=results, artifacts=artifacts, environment=environment)


def _resolve(
    encoder: PublishedEncoder, content: Mapping[str, Any], told: Mapping[str, Any], digest: str, *, has_optimizer: bool
) -> dict[str, Any]:
    """The manifest's config: as pretrain's, with None for what nobody knows, and a section `import` for what is the file's.

    A clip's settings are needed to use the encoder: those that the user did not tell are the published ones, named in `import.assumed`.
    """
    clip = BACKBONES[encoder.model.backbone].clip
    assumed = PretrainConfig().clip.model_copy(update={"frames": clip.frames, "size": clip.side}).model_dump(mode="json")
    known: dict[str, dict[str, Any]] = {"model": encoder.model.model_dump(mode="json"), "optim": _known_optim(content)}
    if encoder.queue is not None:
        known["moco"] = {"queue_size": encoder.queue["queue"].shape[1]}
    config: dict[str, Any] = {section: dict.fromkeys(keys) for section, keys in PretrainConfig().identity().items()}
    config["run"]["processes"] = None
    for section, values in ({"clip": assumed, "run": {"seed": 0}} | known).items():
        config[section] |= values
    initial_heads = ("model.head", "model.embedding_dim")
    for key, value in told.items():
        section, _, name = key.partition(".")
        is_free = key in initial_heads and not encoder.has_heads
        if name in known.get(section, {}) and not is_free and config[section][name] != value:
            raise InputError(f"--set {key}={value}: the file says {config[section][name]}; leave this setting out.")
        if name not in config[section]:
            raise InputError(f"--set {key} has no effect on an imported encoder: leave it out.")
        config[section][name] = value
    config["import"] = {
        "sha256": digest,
        "layout": "pretraining" if encoder.key is not None or encoder.has_heads else "backbone",
        "heads": "file" if encoder.has_heads else "initial",
        "key_encoder": encoder.key is not None,
        "queue": encoder.queue is not None,
        "optimizer": has_optimizer,
        "assumed": sorted(f"clip.{name}" for name in assumed if f"clip.{name}" not in told),
    }
    return config


def _known_optim(content: Mapping[str, Any]) -> dict[str, Any]:
    known = known_optim(content)
    try:
        return {name: getattr(validated(OptimConfig, known), name) for name in known}
    except InputError:  # numbers that no training has had
        return {}


def _say(encoder: PublishedEncoder, config: dict[str, Any], notes: list[str], source: Path, report: Reporter) -> None:
    model, facts = config["model"], config["import"]
    parts = [f"{model['backbone']} of width {model['width']:g}"]
    if encoder.has_heads:
        parts.append(f"{model['head']} heads of {model['embedding_dim']} dimensions")
    parts += ["key encoder"] if encoder.key is not None else []
    parts += [f"a queue of {encoder.queue['queue'].shape[1]:,} keys"] if encoder.queue is not None else []
    parts += ["the optimiser's state"] if facts["optimizer"] else []
    report.info(f"import-checkpoint: {source} holds {', '.join(parts)}.")
    for note in notes:
        report.info(f"import-checkpoint: {note}.")
    if not encoder.has_heads:
        report.warn("the file has no projection heads: the encoder's are untrained, drawn from run.seed, and its `project` is refused.")
    shown = [key for key in ("frames", "size", "frame_rate") if f"clip.{key}" in facts["assumed"]]
    if shown:
        values = ", ".join(f"clip.{key} {config['clip'][key] or 'none'}" for key in shown)
        report.info(f"import-checkpoint: the file does not say how its clips were made, so they are as published: {values} (else --set).")
    if facts["layout"] == "backbone":
        report.warn("pixels are normalised by ImageNet's mean and deviation, as RSPNet's; other projects' weights may expect others.")
    report.info(
        "import-checkpoint: the file has no untrained weights, so --random-init describes by those of "
        f"`rspnet pretrain --seed {config['run']['seed']}`."
    )


def _write_weights(stage: Stage, encoder: PublishedEncoder) -> None:
    """encoder.safetensors (the query encoder), initial.safetensors, and in the last checkpoint all tensors of the file."""
    model, seed = stage.config["model"], stage.config["run"]["seed"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # as pretrain draws its initial weights
        initial = Encoder(model["backbone"], width=model["width"], head=model["head"], embedding_dim=model["embedding_dim"])
    untrained = state_arrays(initial)
    query = {name: to_array(value) for name, value in encoder.query.items()}
    write_tensors(stage.work / "initial.safetensors", untrained, {})
    write_tensors(stage.work / "encoder.safetensors", untrained | query, {})
    last = {f"query.{name}": value for name, value in query.items()}
    if encoder.key is not None:
        last |= {f"key.{name}": to_array(value) for name, value in encoder.key.items()}
    if encoder.queue is not None:
        # Whose keys they are is not known: -1, as of the random keys at the start.
        last |= {name: to_array(value) for name, value in encoder.queue.items()}
        last["queue_videos"] = np.full(encoder.queue["queue"].shape[1], -1)
    write_tensors(stage.work / FOLDER / "last.safetensors", last, {})
