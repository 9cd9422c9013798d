"""A finished pretrain stage with an encoder of random but telling weights, written as the real stage writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rspnet_cli.config import PretrainConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stage import begin_stage
from rspnet_cli.tensors import write_tensors

SMALL = {"model": {"backbone": "r3d18", "width": 0.125, "embedding_dim": 12}, "clip": {"frames": 4, "size": 24}}


def make_encoder(config: PretrainConfig, seed: int) -> Encoder:
    """An encoder with batch-norm statistics and parameters away from their initial values, where mistakes would hide."""
    model = config.model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(model.backbone, width=model.width, head=model.head, embedding_dim=model.embedding_dim)
        for name, value in encoder.state_dict().items():
            if name.endswith(("running_mean", "running_var")) or ("bn" in name and name.endswith(("weight", "bias"))):
                value.uniform_(0.5, 1.5)
    return encoder


def arrays(encoder: Encoder, prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + name: value.detach().numpy() for name, value in encoder.state_dict().items()}


def make_pretrain(
    out: Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    settings: Mapping[str, Any] = SMALL,
    tensors: Mapping[str, np.ndarray] | None = None,
    files: Mapping[str, bytes] | None = None,
    used: Mapping[str, str] | None = None,
) -> Manifest:
    """Write a pretrain stage: encoder, initial, checkpoints best and epoch_2, all different (seeds 1 to 4).

    tensors: what encoder.safetensors holds instead. files: further files, or other contents of these. used: id -> sha256 of the videos
    trained on.
    """
    config = validated(PretrainConfig, settings)
    with begin_stage("pretrain", config.identity(), inputs=inputs or {}, out=out) as stage:
        write_tensors(stage.work / "encoder.safetensors", tensors if tensors is not None else arrays(make_encoder(config, 1)), {})
        write_tensors(stage.work / "initial.safetensors", arrays(make_encoder(config, 2)), {})
        for seed, name in ((3, "best"), (4, "epoch_2")):
            both = arrays(make_encoder(config, seed), "query.") | arrays(make_encoder(config, 9), "key.")
            write_tensors(stage.work / "checkpoints" / f"{name}.safetensors", both | {"queue": np.zeros((12, 8), np.float32)}, {})
        names = {"encoder.safetensors", "initial.safetensors", "checkpoints/best.safetensors", "checkpoints/epoch_2.safetensors"}
        rows = [{"id": name, "used": True, "sha256": digest} for name, digest in (used or {}).items()]
        rows.append({"id": "not-used", "used": False, "sha256": "f" * 64})
        pd.DataFrame(rows).to_csv(stage.work / "videos.csv", index=False)
        names.add("videos.csv")
        for name, content in (files or {}).items():
            (stage.work / name).write_bytes(content)
            names.add(name)
        classes = stage.inputs["extract"].classes_sha256 if "extract" in stage.inputs else None
        return stage.finish(results={"epochs": 3}, artifacts=sorted(names), classes_sha256=classes)
