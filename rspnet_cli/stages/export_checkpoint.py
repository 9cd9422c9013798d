"""export-checkpoint: a pretraining or a fine-tuning -> a checkpoint file in the released code's layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rspnet_cli.config import FinetuneOptimConfig, ModelConfig, OptimConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.foreign import QUERY as RELEASED_QUERY
from rspnet_cli.encoder.foreign import PublishedClassifier, PublishedEncoder, finetuned_state, pretrained_state
from rspnet_cli.encoder.load import KEY, QUERY, TrainedAs, checkpoint_file, default_checkpoint, load_classifier, read_state
from rspnet_cli.encoder.published import PUBLISHED
from rspnet_cli.encoder.torch_file import write_torch_file
from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, checked_artifact, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.tables import CLASSES, read_rows
from rspnet_cli.tensors import check_shape, open_tensors
from rspnet_cli.training.checkpoint import FOLDER
from rspnet_cli.training.foreign_run import BEST_ACC1, BEST_LOSS, SOURCE, cosine_state, optimizer_state, read_facts, sgd_group


class _Network(NamedTuple):
    """What is exported."""

    backbone: str
    width: float
    state: dict[str, Tensor]
    """Under the released code's names."""
    trained: dict[str, Tensor]
    """What the optimiser trains, under ours."""
    prefix: str
    """Before the released names of `trained`."""


def export_checkpoint(
    trained: Path, *, out: Path, checkpoint: str | None = None, force: bool = False, report: Reporter | None = None
) -> dict[str, Any]:
    """Write a pretraining or a fine-tuning as the released code saves its own.

    Of a pretraining both encoders, queue, epoch, and SGD's state at the last epoch; of a fine-tuning backbone and classifier, and SGD's
    state where that checkpoint has it. trained: folder or manifest, also an imported one. out: the file. checkpoint: last, best or epoch_N
    (None: last; of a fine-tuning best). Returns the file's path, bytes and sha256, its arch and epoch, how many tensors its model has, and
    whether it has an optimiser. Raises InputError when the file is there and `force` is not set or cannot be written, or the checkpoint is
    not there.
    """
    report = report or Reporter.silent()
    if os.path.lexists(out) and not (force and out.is_file()):
        advice = "add --force to replace it, or name" if out.is_file() else "name"
        raise InputError(f"{out} is there already: {advice} another file with --out.")
    manifest = read_manifest(trained, stage=ENCODER_STAGES, verify=False)
    checkpoint = checkpoint or default_checkpoint(manifest)
    network = _read_classifier(manifest, checkpoint) if manifest.stage == "finetune" else _read_encoder(manifest, checkpoint)
    facts = _facts(manifest, checkpoint)
    best = BEST_ACC1 if manifest.stage == "finetune" else BEST_LOSS
    content = {
        "epoch": facts["epoch"],
        "arch": facts["arch"] or PUBLISHED[network.backbone].arch,
        "model": network.state,
        best: facts[best],
    }
    optimizer = f"{FOLDER}/{checkpoint}.optimizer.safetensors"
    if facts["optimizer"] and any(artifact.path == optimizer for artifact in manifest.artifacts):
        with open_tensors(checked_artifact(manifest, optimizer), advice=manifest.advice) as view:
            arrays = {name: view.get_tensor(name) for name in view.keys()}  # noqa: SIM118 (the view is no mapping)
        content["optimizer"] = optimizer_state(
            arrays, network.state, network.trained, network.backbone, facts["optimizer"], prefix=network.prefix
        )
        content["scheduler"] = facts["scheduler"]
    if network.width != 1:
        report.warn(f"the released code builds networks of width 1 only, and this one has width {network.width:g}.")
    try:
        write_torch_file(out, content)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): name another file with --out.") from error
    return {
        "file": str(out),
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
        "arch": content["arch"],
        "epoch": content["epoch"],
        "tensors": len(network.state),
        "optimizer": "optimizer" in content,
    }


def _read_classifier(manifest: Manifest, checkpoint: str) -> _Network:
    """Backbone and classifier of a fine-tuning."""
    trained = TrainedAs.read(manifest)
    num_classes = len(read_rows(checked_artifact(manifest, CLASSES.file)))
    tensors = load_classifier(manifest, checkpoint, num_classes=num_classes).state_dict()
    state = finetuned_state(PublishedClassifier(trained.backbone, trained.width, tensors))
    return _Network(trained.backbone, trained.width, state, tensors, prefix="")


def _read_encoder(manifest: Manifest, checkpoint: str) -> _Network:
    """Both encoders and the queue; of an imported pretraining what its file had."""
    name, _ = checkpoint_file(manifest, checkpoint, whole=True)
    checked_artifact(manifest, name)
    model = validated(ModelConfig, manifest.config["model"])
    there = manifest.config.get("import", {"heads": "file", "key_encoder": True, "queue": True})
    with torch.device("meta"):
        encoder = Encoder(model.backbone, width=model.width, head=model.head, embedding_dim=model.embedding_dim)
    expected = {key: value for key, value in encoder.state_dict().items() if there["heads"] == "file" or key.startswith("backbone.")}
    found = PublishedEncoder(
        model=model,
        query=read_state(manifest, name, expected, QUERY),
        key=read_state(manifest, name, expected, KEY) if there["key_encoder"] else None,
        queue=_read_queue(manifest, name, model) if there["queue"] else None,
    )
    return _Network(model.backbone, model.width, pretrained_state(found), found.query, prefix=RELEASED_QUERY)


def _facts(manifest: Manifest, checkpoint: str) -> dict[str, Any]:
    """What the file says of the run: what an imported one said, or the same of a run here."""
    if manifest.is_imported:
        return read_facts(checked_artifact(manifest, SOURCE))
    results, is_tuned = manifest.results, manifest.stage == "finetune"
    if is_tuned and not results["epochs"]:  # tested as it was: it is still what the fine-tuning before it came to
        return _facts(manifest.input("finetune", verify=False), manifest.config["model"]["checkpoint"])
    said = manifest.config["optim"]
    optim: OptimConfig | FinetuneOptimConfig = validated(FinetuneOptimConfig, said) if is_tuned else validated(OptimConfig, said)
    # The released code's optimiser has all parameters, also where it trains the last layer alone.
    is_whole = not (is_tuned and manifest.config["model"]["linear"])
    epoch = {"last": results["epochs"], "best": results["best_epoch"]}.get(checkpoint) or int(checkpoint.removeprefix("epoch_"))
    is_cosine = optim.schedule == "cosine" and optim.warmup_epochs == 0
    return {
        "epoch": epoch,
        "arch": None,
        BEST_LOSS: None,
        BEST_ACC1: None,
        "optimizer": sgd_group(optim, epoch) if optim.name == "sgd" and is_whole else None,
        "scheduler": cosine_state(optim, epoch) if is_cosine else None,
    }


def _read_queue(manifest: Manifest, name: str, model: ModelConfig) -> dict[str, Tensor]:
    path, advice = manifest.folder / name, manifest.advice
    with open_tensors(path, advice=advice) as view:
        check_shape(path, view, "queue", dtype="F32", shape=(model.embedding_dim, None), advice=advice)
        check_shape(path, view, "queue_ptr", dtype="I64", shape=(1,), advice=advice)
        return {key: torch.from_numpy(view.get_tensor(key)) for key in ("queue", "queue_ptr")}
