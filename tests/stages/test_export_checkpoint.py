"""export-checkpoint: bit-equal back and forth, and a file that the released code's optimiser, schedule and loaders take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rspnet_cli.config import PretrainConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages.export_checkpoint import export_checkpoint
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stages.pretrain import pretrain
from rspnet_cli.training.checkpoint import load_state
from rspnet_cli.training.optimiser import learning_rate
from tests import released
from tests.sentences import refused

HEADS = {"c3d": "conv", "r3d18": "convbn", "r2plus1d": "mlp", "s3dg": "linear", "tsm-r18": "conv"}
SETTINGS = {"model.width": 0.125}


def artifacts(manifest: Manifest) -> dict[str, str]:
    return {artifact.path: artifact.sha256 for artifact in manifest.artifacts}


def assert_equal(first: Any, second: Any, where: str = "file") -> None:
    """Equal in structure, order, types and bits."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for index, (one, two) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, two, f"{where}.{index}")
    elif isinstance(first, Tensor):
        assert first.dtype == second.dtype, where
        assert first.shape == second.shape, where
        assert first.numpy().tobytes() == second.numpy().tobytes(), where
    else:
        assert first == second, where


@pytest.mark.parametrize("backbone", HEADS)
def test_import_and_export_are_bit_equal_back_and_forth(tmp_path: Path, backbone: str) -> None:
    content = released.checkpoint(released.pretrained(backbone, HEADS[backbone]), released.ARCH[backbone])
    torch.save(content, tmp_path / "a.pth.tar")
    first = import_checkpoint(tmp_path / "a.pth.tar", out=tmp_path / "first", settings=SETTINGS)
    results = export_checkpoint(first.folder, out=tmp_path / "b.pth.tar")
    assert results["arch"] == released.ARCH[backbone]
    assert (results["epoch"], results["tensors"], results["optimizer"]) == (3, len(content["model"]), True)
    # All of the file comes back, but for the unused layer (zeros) and types that a pickle needs not have.
    expected = content | {"best_loss": 7.25}
    expected["model"] = {name: torch.zeros_like(value) if released.is_unused(name) else value for name, value in content["model"].items()}
    assert_equal(torch.load(tmp_path / "b.pth.tar", weights_only=True), expected)
    second = import_checkpoint(tmp_path / "b.pth.tar", out=tmp_path / "second", settings=SETTINGS)
    assert artifacts(second) == artifacts(first)
    again = export_checkpoint(second.folder, out=tmp_path / "c.pth.tar")
    assert again["sha256"] == results["sha256"]


def test_a_backbone_alone_comes_back_as_the_query_encoders(tmp_path: Path) -> None:
    tensors = released.filled(released.BACKBONES["r3d18"](released.scaled(0.125)), torch.Generator().manual_seed(0))
    torch.save(tensors, tmp_path / "a.pth")
    first = import_checkpoint(tmp_path / "a.pth", out=tmp_path / "first", settings=SETTINGS)
    export_checkpoint(first.folder, out=tmp_path / "b.pth.tar")
    content = torch.load(tmp_path / "b.pth.tar", weights_only=True)
    assert content["arch"] == "resnet18"
    expected = {
        f"encoder_q.encoder.{name}": torch.zeros_like(value) if name.startswith("fc.") else value for name, value in tensors.items()
    }
    assert_equal(content["model"], expected)
    second = import_checkpoint(tmp_path / "b.pth.tar", out=tmp_path / "second", settings=SETTINGS)
    names = ("encoder.safetensors", "checkpoints/last.safetensors")
    assert [artifacts(second)[name] for name in names] == [artifacts(first)[name] for name in names]


TINY = {
    "model": {"width": 0.125, "head": "mlp", "embedding_dim": 8},
    "clip": {"frames": 4, "size": 16},
    "moco": {"queue_size": 8},
    "optim": {"batch_size": 4, "epochs": 2, "lr": 0.02},
    "run": {"workers": 0, "keep_every": 1},
}


@pytest.fixture(scope="module")
def trained(extracted: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A pretraining of ours, two epochs of three planned: not to be written to."""
    return pretrain(validated(PretrainConfig, TINY), frames=extracted.folder, out=tmp_path_factory.mktemp("trained") / "pretrain")


def test_a_training_of_ours_can_be_continued_by_the_released_code(trained: Manifest, tmp_path: Path) -> None:
    results = export_checkpoint(trained.folder, out=tmp_path / "a.pth.tar")
    assert (results["arch"], results["epoch"], results["optimizer"]) == ("resnet18", 2, True)
    content = torch.load(tmp_path / "a.pth.tar", weights_only=True)
    layout = released.pretrained("r3d18", "mlp", dim=8, queue=8)
    assert {name: value.shape for name, value in content["model"].items()} == {name: value.shape for name, value in layout.items()}
    assert list(content["model"]) == list(layout)
    # That code's optimiser is over the parameters of both encoders, in the order of its modules; its schedule steps once an epoch.
    parameters = [torch.nn.Parameter(value) for name, value in content["model"].items() if released.is_parameter(name)]
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2, eta_min=0.02 / 1000)
    optimizer.load_state_dict(content["optimizer"])
    scheduler.load_state_dict(content["scheduler"])
    config = validated(PretrainConfig, TINY).optim
    assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(config, 2))
    assert scheduler.last_epoch == 2
    used = [place for place, parameter in enumerate(parameters) if parameter in optimizer.state]
    names = [name for name in content["model"] if released.is_parameter(name)]
    assert [names[place] for place in used] == [name for name in names if name.startswith("encoder_q.") and not released.is_unused(name)]
    for place in used:
        momentum = optimizer.state[parameters[place]]["momentum_buffer"]
        assert momentum.shape == parameters[place].shape
        assert momentum.abs().max() > 0
    # And a step of it there is a step of it here.
    before = {name: parameter.detach().clone() for name, parameter in zip(names, parameters, strict=True)}
    for place in used:
        parameters[place].grad = torch.ones_like(parameters[place])
    optimizer.step()
    imported = import_checkpoint(tmp_path / "a.pth.tar", out=tmp_path / "imported")

    encoder = Encoder("r3d18", width=0.125, head="mlp", embedding_dim=8)
    tensors = load_file(imported.folder / "encoder.safetensors")
    load_state(encoder, {name: value.numpy() for name, value in tensors.items()}, tmp_path, advice="")
    ours = torch.optim.SGD(encoder.parameters(), lr=learning_rate(config, 2), momentum=0.9, weight_decay=1e-4)
    momenta = load_file(imported.folder / "checkpoints/last.optimizer.safetensors")
    state = {number: {"momentum_buffer": momenta[f"{number}.momentum_buffer"]} for number in range(len(used))}
    ours.load_state_dict({"state": state, "param_groups": ours.state_dict()["param_groups"]})
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    ours.step()
    for place, parameter in zip(used, encoder.parameters(), strict=True):
        assert not torch.equal(before[names[place]], parameters[place])
        assert torch.equal(parameter, parameters[place]), names[place]


def test_a_training_of_ours_comes_back_bit_by_bit(trained: Manifest, tmp_path: Path) -> None:
    for checkpoint, epoch in (("last", 2), ("epoch_1", 1)):
        results = export_checkpoint(trained.folder, out=tmp_path / f"{checkpoint}.pth.tar", checkpoint=checkpoint)
        assert (results["epoch"], results["optimizer"]) == (epoch, checkpoint == "last")
        imported = import_checkpoint(tmp_path / f"{checkpoint}.pth.tar", out=tmp_path / checkpoint)
        assert imported.config["model"] == trained.config["model"]
        if checkpoint == "last":
            for name in ("encoder.safetensors", "initial.safetensors", "checkpoints/last.optimizer.safetensors"):
                assert artifacts(imported)[name] == artifacts(trained)[name], name
            known = ("name", "lr", "sgd_momentum", "weight_decay", "schedule", "epochs")
            assert [imported.config["optim"][key] for key in known] == [trained.config["optim"][key] for key in known]
        again = export_checkpoint(imported.folder, out=tmp_path / f"{checkpoint}-again.pth.tar")
        assert again["sha256"] == results["sha256"]


def test_a_file_that_is_there_stays_until_force(trained: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "a.pth.tar"
    out.write_bytes(b"precious")
    with pytest.raises(InputError) as caught:
        export_checkpoint(trained.folder, out=out)
    refused(caught.value, "a.pth.tar is there already", "--force")
    assert out.read_bytes() == b"precious"
    export_checkpoint(trained.folder, out=out, force=True)
    assert out.read_bytes() != b"precious"
    with pytest.raises(InputError) as caught:
        export_checkpoint(trained.folder, out=tmp_path, force=True)
    refused(caught.value, "is there already: name another file with --out")
    with pytest.raises(InputError) as caught:
        export_checkpoint(trained.folder, out=out / "b.pth.tar")
    refused(caught.value, "a.pth.tar/b.pth.tar cannot be written", "--out")


def test_a_checkpoint_that_was_not_kept_and_a_damaged_one_are_named(trained: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        export_checkpoint(trained.folder, out=tmp_path / "a.pth.tar", checkpoint="epoch_7")
    refused(caught.value, "has no checkpoint 'epoch_7' (kept: ", "last")

    shutil.copytree(trained.folder, tmp_path / "copy")
    damaged = tmp_path / "copy/checkpoints/last.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(InputError) as caught:
        export_checkpoint(tmp_path / "copy", out=tmp_path / "a.pth.tar")
    refused(caught.value, "checkpoints/last.safetensors", "rspnet pretrain --force")
    assert not (tmp_path / "a.pth.tar").exists()
