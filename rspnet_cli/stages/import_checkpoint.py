"""import-checkpoint: a checkpoint of the released code, or a state dict of one of its backbones -> a training like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rspnet_cli import distributed
from rspnet_cli.config import FinetuneClipConfig, FinetuneConfig, FinetuneOptimConfig, OptimConfig, PretrainConfig
from rspnet_cli.config.training import ADDED
from rspnet_cli.encoder.classifier import CLASSIFIER
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.foreign import QUERY, PublishedClassifier, PublishedEncoder, is_finetuned, read_classifier, read_encoder, state_of
from rspnet_cli.encoder.registry import BACKBONES, check_clip_size
from rspnet_cli.encoder.torch_file import read_torch_file
from rspnet_cli.errors import InputError
from rspnet_cli.files import link_or_copy_file, sha256_of, sha256_of_json, write_atomic
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.recipes import recipe_names
from rspnet_cli.settings import checked_settings, read_recipe, validated
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.tables import CLASSES, csv_bytes
from rspnet_cli.tensors import write_tensors
from rspnet_cli.training.checkpoint import FOLDER, state_arrays, to_array
from rspnet_cli.training.foreign_run import BEST_ACC1, BEST_LOSS, SOURCE, known_optim, read_optimizer, run_facts
from rspnet_cli.videos.class_names import ClassNames, read_class_names

_RESULTS = ("videos", "epochs", "steps", "loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "rsp_accuracy", "best_epoch")
_FINETUNE_RESULTS = (
    *("protocol", "split", "videos", "classes", "epochs", "selected_on", "selection_videos", "selection_top1", "best_epoch"),
    *("queries", "queries_seen", "clips", "top1", "top5", "mean_class", "interval", "chance"),
)
# What the published fine-tunings learned, by the number of its classes.
_DATA_SETS = {101: "ucf101", 51: "hmdb51", 174: "ssv2"}
_OPTIMIZER_LEFT_OUT = "the optimiser's state was left out, as it is not that of an RSPNet {} with these parameters"


class _Source(NamedTuple):
    """The file that is imported."""

    path: Path
    content: dict[str, Any]
    state: dict[str, Tensor]
    sha256: str

    def environment(self, notes: list[str]) -> dict[str, Any]:
        """What the manifest says of it, no digest depending on that."""
        facts = {"source": str(self.path.absolute()), "source_sha256": self.sha256, "source_bytes": self.path.stat().st_size}
        return {**facts, "notes": notes}

    def write_facts(self, best: str, work: Path) -> tuple[int | None, float | None]:
        """Write SOURCE; the epoch and the best figure in it, None for what is no number. best: as of `run_facts`."""
        facts = run_facts(self.content, best)
        write_atomic(work / SOURCE, json.dumps(facts, indent=1, allow_nan=False) + "\n")
        epoch, figure = facts["epoch"], facts[best]
        return epoch if type(epoch) is int else None, figure if type(figure) in (int, float) else None


def import_checkpoint(
    source: Path,
    *,
    out: Path | None = None,
    work_dir: Path = Path(),
    classes: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    report: Reporter | None = None,
) -> Manifest:
    """Turn a checkpoint file into a finished pretrain or finetune stage, whose encoder every other stage takes.

    source: a `.pth.tar` of the released code's pretraining or fine-tuning, or a state dict of one of its backbones. out: the stage's folder
    (None: `pretrain` or `finetune` below work_dir). classes: of a fine-tuning, what its classes are called: an extraction, a fine-tuning,
    or a list (None: by their numbers). settings: "section.key" -> value, what is known of the training that the file does not say (and
    model.width, which its shapes tell). Raises InputError for a file that is no such checkpoint, naming the tensor.
    """
    report = report or Reporter.silent()
    if distributed.world_size() > 1:
        raise InputError("import-checkpoint runs in one process: start it without torchrun.")
    content = read_torch_file(source)
    found = _Source(source, content, state_of(content, source), sha256_of(source))
    if is_finetuned(found.state):
        told = checked_settings(FinetuneConfig, settings or {})
        return _import_finetuning(found, classes, told, out or work_dir / "finetune", force=force, report=report)
    if classes is not None:
        raise InputError(f"{source} is no fine-tuned network, so it has no classes to name: leave --classes out.")
    told = checked_settings(PretrainConfig, settings or {})
    return _import_pretraining(found, told, out or work_dir / "pretrain", force=force, report=report)


def _import_pretraining(source: _Source, told: Mapping[str, Any], out: Path, *, force: bool, report: Reporter) -> Manifest:
    encoder = read_encoder(source.state, source.path, told.get("model.width"))
    notes = list(encoder.notes)
    saved = source.content.get("optimizer")
    optimizer = read_optimizer(saved, source.state, encoder.query, encoder.model.backbone, prefix=QUERY)
    if optimizer is None and saved:
        notes.append(_OPTIMIZER_LEFT_OUT.format("pretraining"))
    config = _resolve(encoder, source, told, has_optimizer=optimizer is not None)
    check_clip_size(encoder.model.backbone, frames=config["clip"]["frames"], side=config["clip"]["size"])
    with begin_stage("pretrain", config, inputs={}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        _say(encoder, config, notes, source.path, report)
        _write_weights(stage, encoder)
        artifacts = ["encoder.safetensors", "initial.safetensors", f"{FOLDER}/last.safetensors", SOURCE]
        artifacts += _write_optimizer(stage, optimizer, "last")
        epoch, loss = source.write_facts(BEST_LOSS, stage.work)
        results = dict.fromkeys(_RESULTS) | {"epochs": epoch, "best_loss": loss}
        return stage.finish(results=results, artifacts=artifacts, environment=source.environment(notes))


def _import_finetuning(
    source: _Source, classes: Path | None, told: Mapping[str, Any], out: Path, *, force: bool, report: Reporter
) -> Manifest:
    network = read_classifier(source.state, source.path, told.get("model.width"))
    num_classes = len(network.tensors["fc.bias"])
    names = ClassNames.numbers(num_classes) if classes is None else read_class_names(classes, num_classes)
    notes = list(network.notes)
    saved = source.content.get("optimizer")
    optimizer = read_optimizer(saved, source.state, network.tensors, network.backbone, prefix="")
    if optimizer is None and saved:
        notes.append(_OPTIMIZER_LEFT_OUT.format("fine-tuning"))
    config = _resolve_finetuning(network, source, told, names, has_optimizer=optimizer is not None)
    check_clip_size(network.backbone, frames=config["clip"]["frames"], side=config["clip"]["size"])
    with begin_stage("finetune", config, inputs={}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        _say_finetuning(network, config, notes, source.path, report)
        # Whichever epoch it is of, it is all there is: the best.
        best = f"{FOLDER}/best.safetensors"
        write_tensors(stage.work / best, {name: to_array(value) for name, value in network.tensors.items()}, {})
        (stage.work / CLASSIFIER).unlink(missing_ok=True)  # of a run that was killed here
        link_or_copy_file(stage.work / best, stage.work / CLASSIFIER)
        rows = ({"label": label, "label_name": name} for label, name in zip(names.labels, names.names, strict=True))
        write_atomic(stage.work / CLASSES.file, csv_bytes(CLASSES.header(), rows))
        artifacts = [CLASSIFIER, best, CLASSES.file, SOURCE, *_write_optimizer(stage, optimizer, "best")]
        epoch, accuracy = source.write_facts(BEST_ACC1, stage.work)
        return stage.finish(
            results=dict.fromkeys(_FINETUNE_RESULTS) | {"classes": num_classes, "epochs": epoch, "best_acc1": accuracy},
            artifacts=artifacts,
            classes_sha256=names.sha256,
            environment=source.environment(notes) | {"classes": None if classes is None else str(classes.absolute())},
        )


def _resolve(encoder: PublishedEncoder, source: _Source, told: Mapping[str, Any], *, has_optimizer: bool) -> dict[str, Any]:
    """The manifest's config: as pretrain's, with None for what nobody knows, and a section `import` for what is the file's.

    A clip's settings are needed to use the encoder: those that the user did not tell are the published ones, named in `import.assumed`.
    """
    clip = BACKBONES[encoder.model.backbone].clip
    assumed = (
        PretrainConfig()
        .clip.model_copy(update={"frames": clip.frames, "size": clip.side})
        .model_dump(mode="json", exclude={"rate_tolerance"})
    )
    known: dict[str, dict[str, Any]] = {"model": encoder.model.model_dump(mode="json"), "optim": _known_optim(source.content, OptimConfig)}
    if encoder.queue is not None:
        known["moco"] = {"queue_size": encoder.queue["queue"].shape[1]}
    free = () if encoder.has_heads else ("model.head", "model.embedding_dim")
    config = _config(PretrainConfig().identity(), {"clip": assumed, "run": {"seed": 0}}, known, told, free=free)
    config["import"] = {
        "sha256": source.sha256,
        "layout": "pretraining" if encoder.key is not None or encoder.has_heads else "backbone",
        "heads": "file" if encoder.has_heads else "initial",
        "key_encoder": encoder.key is not None,
        "queue": encoder.queue is not None,
        "optimizer": has_optimizer,
        "assumed": sorted(f"clip.{name}" for name in assumed if f"clip.{name}" not in told),
    }
    return config


def _resolve_finetuning(
    network: PublishedClassifier, source: _Source, told: Mapping[str, Any], names: ClassNames, *, has_optimizer: bool
) -> dict[str, Any]:
    """The same as finetune's. The clips are those of the published recipe for a data set of so many classes, where there is one."""
    recipe = f"{_DATA_SETS.get(len(names.labels))}-{network.backbone}"
    recipe_clip = read_recipe("finetune", recipe).get("clip", {}) if recipe in recipe_names("finetune") else {}
    clip = BACKBONES[network.backbone].clip
    told_clip = {key.removeprefix("clip."): value for key, value in told.items() if key.startswith("clip.")}
    values = {"frames": clip.frames, "size": clip.side, "antialias": False, "frame_rate": 0.0} | recipe_clip | told_clip
    if values.get("sampling") == "cover" and "frame_rate" not in told_clip:
        values["frame_rate"] = 0.0  # its frames come from the whole video, whatever the rate
    assumed = validated(FinetuneClipConfig, values).model_dump(mode="json", exclude={"rate_tolerance"})
    known = {
        "model": {"backbone": network.backbone, "width": network.width},
        "optim": _known_optim(source.content, FinetuneOptimConfig),
    }
    config = _config(FinetuneConfig().identity(), {"clip": assumed}, known, told)
    config["import"] = {
        "sha256": source.sha256,
        "layout": "fine-tuning",
        "recipe": recipe if recipe_clip else None,
        "optimizer": has_optimizer,
        "classes_sha256": None if names.sha256 is None else sha256_of_json([names.labels, names.names]),
        "assumed": sorted(f"clip.{name}" for name in assumed if name not in told_clip),
    }
    return config


def _config(
    identity: dict[str, Any],
    assumed: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, Any],
    *,
    free: Sequence[str] = (),
) -> dict[str, Any]:
    """A config like `identity`, of None but for what is assumed, known by the file or told by the user.

    free: what the file knows and the user may still tell. Raises InputError for what was told in vain.
    """
    config: dict[str, Any] = {
        section: dict.fromkeys(key for key in keys if f"{section}.{key}" not in ADDED) for section, keys in identity.items()
    }
    config["run"]["processes"] = None
    for values in (assumed, known):
        for section, items in values.items():
            config[section] |= items
    for key, value in told.items():
        section, _, name = key.partition(".")
        if name in known.get(section, {}) and key not in free and config[section][name] != value:
            raise InputError(f"--set {key}={value}: the file says {config[section][name]}; leave this setting out.")
        if key == "clip.rate_tolerance" and not told.get("clip.frame_rate", config["clip"]["frame_rate"]):
            raise InputError(f"--set {key} has no effect without clip.frame_rate: leave it out.")
        if name not in config[section] and key not in ADDED:
            raise InputError(f"--set {key} has no effect on an imported encoder: leave it out.")
        config[section][name] = value
    return config


def _known_optim(content: Mapping[str, Any], model: type[OptimConfig | FinetuneOptimConfig]) -> dict[str, Any]:
    known = known_optim(content)
    try:
        return {name: getattr(validated(model, known), name) for name in known}
    except InputError:  # numbers that no training has had
        return {}


def _say(encoder: PublishedEncoder, config: dict[str, Any], notes: list[str], source: Path, report: Reporter) -> None:
    model, facts = config["model"], config["import"]
    parts = [f"{model['head']} heads of {model['embedding_dim']} dimensions"] if encoder.has_heads else []
    parts += ["key encoder"] if encoder.key is not None else []
    parts += [f"a queue of {encoder.queue['queue'].shape[1]:,} keys"] if encoder.queue is not None else []
    _say_parts(config, parts, notes, source, report)
    if not encoder.has_heads:
        report.warn("the file has no projection heads: the encoder's are untrained, drawn from run.seed, and its `project` is refused.")
    _say_assumed(config, "as published", report)
    if facts["layout"] == "backbone":
        report.warn("pixels are normalised by ImageNet's mean and deviation, as RSPNet's; other projects' weights may expect others.")
    report.info(
        "import-checkpoint: the file has no untrained weights, so --random-init describes by those of "
        f"`rspnet pretrain --seed {config['run']['seed']}`."
    )


def _say_finetuning(network: PublishedClassifier, config: dict[str, Any], notes: list[str], source: Path, report: Reporter) -> None:
    facts = config["import"]
    _say_parts(config, [f"a classifier of {len(network.tensors['fc.bias']):,} classes"], notes, source, report)
    if facts["classes_sha256"] is None:
        report.info("import-checkpoint: the file does not name its classes, so they are called by their numbers (else --classes).")
    whose = "as published" if facts["recipe"] is None else f"those of the recipe {facts['recipe']}, which has as many classes"
    _say_assumed(config, whose, report)


def _say_parts(config: dict[str, Any], parts: list[str], notes: list[str], source: Path, report: Reporter) -> None:
    model = config["model"]
    parts = [f"{model['backbone']} of width {model['width']:g}", *parts]
    parts += ["the optimiser's state"] if config["import"]["optimizer"] else []
    report.info(f"import-checkpoint: {source} holds {', '.join(parts)}.")
    for note in notes:
        report.info(f"import-checkpoint: {note}.")


def _say_assumed(config: dict[str, Any], whose: str, report: Reporter) -> None:
    shown = [key for key in ("frames", "size", "frame_rate", "sampling") if f"clip.{key}" in config["import"]["assumed"]]
    if shown:
        values = ", ".join(f"clip.{key} {config['clip'][key] or 'none'}" for key in shown)
        report.info(f"import-checkpoint: the file does not say how its clips were made, so they are {whose}: {values} (else --set).")


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


def _write_optimizer(stage: Stage, optimizer: dict[str, np.ndarray] | None, checkpoint: str) -> list[str]:
    """The artifact with the optimiser's state, if there is one."""
    if optimizer is None:
        return []
    name = f"{FOLDER}/{checkpoint}.optimizer.safetensors"
    write_tensors(stage.work / name, optimizer, {})
    return [name]
