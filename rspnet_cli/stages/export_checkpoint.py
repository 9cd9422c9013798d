"""export-checkpoint: a pretraining -> a checkpoint file in the released code's layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rspnet_cli.config import ModelConfig, OptimConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.foreign import PublishedEncoder, pretrained_state
from rspnet_cli.encoder.load import KEY, QUERY, checkpoint_file, read_state
from rspnet_cli.encoder.published import PUBLISHED
from rspnet_cli.encoder.torch_file import write_torch_file
from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest, checked_artifact, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.tensors import check_shape, open_tensors
from rspnet_cli.training.foreign_run import SOURCE, cosine_state, optimizer_state, read_facts, sgd_group

_OPTIMIZER = "checkpoints/last.optimizer.safetensors"


def export_checkpoint(
    pretrain: Path, *, out: Path, checkpoint: str = "last", force: bool = False, report: Reporter | None = None
) -> dict[str, Any]:
    """Write a pretraining as the released code saves its own: both encoders, queue, epoch, and SGD's state at the last epoch.

    pretrain: folder or manifest of a pretraining, also an imported one. out: the file. checkpoint: last, best or epoch_N. Returns the
    file's path, bytes and sha256, its arch and epoch, how many tensors its model has, and whether it has an optimiser. Raises InputError
    when the file is there and `force` is not set or cannot be written, or
    the checkpoint is not there.
    """
    report = report or Reporter.silent()
    if os.path.lexists(out) and not (force and out.is_file()):
        advice = "add --force to replace it, or name" if out.is_file() else "name"
        raise InputError(f"{out} is there already: {advice} another file with --out.")
    manifest = read_manifest(pretrain, stage="pretrain", verify=False)
    encoder = _read_encoder(manifest, checkpoint)
    facts = _facts(manifest, checkpoint)
    state = pretrained_state(encoder)
    content = {
        "epoch": facts["epoch"],
        "arch": facts["arch"] or PUBLISHED[encoder.model.backbone].arch,
        "model": state,
        "best_loss": facts["best_loss"],
    }
    if checkpoint == "last" and facts["optimizer"] and any(artifact.path == _OPTIMIZER for artifact in manifest.artifacts):
        with open_tensors(checked_artifact(manifest, _OPTIMIZER), advice=manifest.advice) as view:
            arrays = {name: view.get_tensor(name) for name in view.keys()}  # noqa: SIM118 (the view is no mapping)
        content["optimizer"] = optimizer_state(arrays, state, encoder.query, encoder.model.backbone, facts["optimizer"])
        content["scheduler"] = facts["scheduler"]
    if encoder.model.width != 1:
        report.warn(f"the released code builds networks of width 1 only, and this one has width {encoder.model.width:g}.")
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
        "tensors": len(state),
        "optimizer": "optimizer" in content,
    }


def _read_encoder(manifest: Manifest, checkpoint: str) -> PublishedEncoder:
    """Both encoders and the queue; of an imported pretraining what its file had."""
    name, _ = checkpoint_file(manifest, checkpoint, whole=True)
    checked_artifact(manifest, name)
    model = validated(ModelConfig, manifest.config["model"])
    there = manifest.config.get("import", {"heads": "file", "key_encoder": True, "queue": True})
    with torch.device("meta"):
        encoder = Encoder(model.backbone, width=model.width, head=model.head, embedding_dim=model.embedding_dim)
    expected = {key: value for key, value in encoder.state_dict().items() if there["heads"] == "file" or key.startswith("backbone.")}
    return PublishedEncoder(
        model=model,
        query=read_state(manifest, name, expected, QUERY),
        key=read_state(manifest, name, expected, KEY) if there["key_encoder"] else None,
        queue=_read_queue(manifest, name, model) if there["queue"] else None,
    )


def _facts(manifest: Manifest, checkpoint: str) -> dict[str, Any]:
    """What the file says of the run: what an imported one said, or the same of a run here."""
    if manifest.is_imported:
        return read_facts(checked_artifact(manifest, SOURCE))
    results, optim = manifest.results, validated(OptimConfig, manifest.config["optim"])
    epoch = {"last": results["epochs"], "best": results["best_epoch"]}.get(checkpoint) or int(checkpoint.removeprefix("epoch_"))
    is_cosine = optim.schedule == "cosine" and optim.warmup_epochs == 0
    return {
        "epoch": epoch,
        "arch": None,
        "best_loss": None,
        "optimizer": sgd_group(optim, epoch) if optim.name == "sgd" else None,
        "scheduler": cosine_state(optim, epoch) if is_cosine else None,
    }


def _read_queue(manifest: Manifest, name: str, model: ModelConfig) -> dict[str, Tensor]:
    path, advice = manifest.folder / name, manifest.advice
    with open_tensors(path, advice=advice) as view:
        check_shape(path, view, "queue", dtype="F32", shape=(model.embedding_dim, None), advice=advice)
        check_shape(path, view, "queue_ptr", dtype="I64", shape=(1,), advice=advice)
        return {key: torch.from_numpy(view.get_tensor(key)) for key in ("queue", "queue_ptr")}
