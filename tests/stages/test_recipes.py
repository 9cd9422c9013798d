"""Every packaged recipe trains, made small: its own backbone, frames, speeds, augmentation and optimiser."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import rspnet_cli
from rspnet_cli.manifest import Manifest
from rspnet_cli.recipes import recipe_names
from rspnet_cli.settings import pretrain_settings, read_recipe
from rspnet_cli.stages.pretrain import pretrain

# The smallest that every backbone takes, and 10 videos of 32 pixels allow.
TINY = {
    "model.width": 0.05,
    "model.embedding_dim": 8,
    "clip.size": 24,
    "moco.queue_size": 4,
    "optim.batch_size": 4,
    "optim.epochs": 2,
    "run.workers": 0,
}


@pytest.mark.parametrize("name", recipe_names("pretrain"))
def test_every_recipe_trains(extracted: Manifest, tmp_path: Path, name: str) -> None:
    config = pretrain_settings(recipe=name, flags=TINY)
    manifest = pretrain(config, frames=extracted.folder, out=tmp_path / "pretrain")
    results = manifest.results
    assert (results["videos"], results["epochs"], results["steps"], results["best_epoch"]) == (10, 2, 4, 2)
    assert all(np.isfinite(results[key]) for key in ("loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "rsp_accuracy"))
    for section, settings in read_recipe("pretrain", name).items():
        for key, value in settings.items():
            if f"{section}.{key}" not in TINY and key not in ("lr", "lr_scale"):
                assert manifest.config[section][key] == value

    trained, initial = (load_file(manifest.folder / f"{file}.safetensors") for file in ("encoder", "initial"))
    assert trained.keys() == initial.keys()
    for key, value in trained.items():
        assert np.isfinite(value).all(), key
        assert not key.endswith("weight") or (value != initial[key]).any(), f"{key} was not trained"
    encoder = rspnet_cli.load_encoder(manifest.folder)
    clips = torch.randint(0, 256, (2, 3, config.clip.frames, 30, 40), dtype=torch.uint8)
    features = encoder(clips)
    assert features.shape == (2, encoder.channels)
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])
