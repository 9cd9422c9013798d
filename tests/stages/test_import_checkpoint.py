"""import-checkpoint as a whole: the file's tensors bit by bit, what is known and what is not, and every later stage upon it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from rspnet_cli import load_encoder
from rspnet_cli.config import ClassificationConfig, ExportConfig, PretrainConfig, RetrievalConfig
from rspnet_cli.encoder.registry import BACKBONES
from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages.eval_classification import eval_classification
from rspnet_cli.stages.eval_retrieval import eval_retrieval
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.training.pretraining import build_moco
from tests import released
from tests.extracted import make_extract
from tests.sentences import refused

Content = dict[str, Any]
SMALL = {"model.width": 0.125, "clip.frames": 4, "clip.size": 24}


def pretrained_file(folder: Path, change: Callable[[Content], object] = lambda content: None) -> Path:
    """A released checkpoint of a small R3D-18 with convbn heads."""
    content = released.checkpoint(released.pretrained("r3d18", "convbn"), "resnet18")
    change(content)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"


def backbone_file(folder: Path, backbone: str = "r3d18") -> Path:
    torch.save(
        {"state_dict": released.filled(released.BACKBONES[backbone](released.scaled(0.125)), torch.Generator().manual_seed(0))},
        folder / "backbone.pth",
    )
    return folder / "backbone.pth"


def run(file: Path, out: Path, settings: Mapping[str, Any] = SMALL, **how: Any) -> Manifest:
    return import_checkpoint(file, out=out, settings=settings, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """An imported pretraining; not to be written to."""
    folder = tmp_path_factory.mktemp("imported")
    return run(pretrained_file(folder), folder / "pretrain")


def test_the_manifest_says_what_the_file_says_and_no_more(whole: Manifest) -> None:
    config = read_manifest(whole.folder, stage="pretrain", verify_all=True).config
    assert config["model"] == {"backbone": "r3d18", "width": 0.125, "head": "convbn", "embedding_dim": 6}
    assert (config["clip"]["frames"], config["clip"]["size"], config["clip"]["speeds"]) == (4, 24, [2])
    assert (config["moco"]["queue_size"], config["moco"]["momentum"]) == (12, None)
    known = {"name": "sgd", "lr": 0.4, "sgd_momentum": 0.9, "weight_decay": 1e-4, "schedule": "cosine", "epochs": 200}
    assert config["optim"] == dict.fromkeys(PretrainConfig().identity()["optim"]) | known
    assert all(value is None for value in config["augment"].values())
    source = Path(whole.environment["source"])
    assert config["import"] == {
        "sha256": sha256_of(source),
        "layout": "pretraining",
        "heads": "file",
        "key_encoder": True,
        "queue": True,
        "optimizer": True,
        "assumed": ["clip.antialias", "clip.frame_rate", "clip.load", "clip.speeds"],
    }
    assert whole.results["epochs"] == 3
    assert whole.results["best_loss"] == 7.25
    assert whole.results["loss"] is None
    assert [note.partition(",")[0] for note in whole.environment["notes"]] == ["encoder_q.encoder.fc", "encoder_k.encoder.fc"]
    assert json.loads((whole.folder / "source.json").read_text())["arch"] == "resnet18"


def test_every_tensor_is_kept_bit_by_bit(whole: Manifest) -> None:
    state = torch.load(whole.environment["source"], weights_only=False)
    last = load_file(whole.folder / "checkpoints/last.safetensors")
    query = load_file(whole.folder / "encoder.safetensors")
    parts = {"query": "encoder_q", "key": "encoder_k", "backbone": "encoder", "head_a": "fc1", "head_m": "fc2"}
    spelled = {".".join(parts.get(part, part) for part in name.split(".")): value for name, value in last.items()}
    assert (spelled.pop("queue_videos") == -1).all()
    wanted = {name: value.numpy() for name, value in state["model"].items() if not released.is_unused(name)}
    assert spelled.keys() == wanted.keys()
    assert all(value.tobytes() == wanted[name].tobytes() for name, value in spelled.items())
    assert all(value.tobytes() == last[f"query.{name}"].tobytes() for name, value in query.items())
    # A momentum per parameter of the query encoder, under its number; the file's are 1, 2, 3, ... in that order.
    momenta = load_file(whole.folder / "checkpoints/last.optimizer.safetensors")
    parameters = [name for name in query if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert [float(momenta[f"{number}.momentum_buffer"].flat[0]) for number in range(len(parameters))] == [
        float(1 + number) for number in range(len(parameters))
    ]


def test_the_encoder_opens_in_one_line(whole: Manifest) -> None:
    encoder = load_encoder(whole.folder)
    assert (encoder.frames, encoder.size, encoder.has_heads) == (4, 24, True)
    clips = torch.randint(0, 256, (2, 3, 4, 30, 40), dtype=torch.uint8)
    assert encoder(clips).shape == (2, 64)
    appearance, motion = encoder.project(clips)
    assert appearance.shape == motion.shape == (2, 6)


def test_again_it_says_finished_and_another_file_or_setting_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "pretrain"
    first = run(pretrained_file(tmp_path), out)
    assert run(pretrained_file(tmp_path), out).created == first.created
    other = pretrained_file(tmp_path / "other", lambda content: content["model"]["queue"].neg_())
    for file, settings in ((other, SMALL), (pretrained_file(tmp_path), SMALL | {"clip.frames": 8})):
        with pytest.raises(InputError) as caught:
            run(file, out, settings)
        refused(caught.value, "--force", "--out")
    assert run(other, out, force=True).digest != first.digest


def test_a_backbone_alone_has_features_but_no_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run(backbone_file(tmp_path), tmp_path / "pretrain", SMALL | {"run.seed": 4}, report=Reporter())
    said = capsys.readouterr().err
    assert "the file has no projection heads" in said
    assert "pixels are normalised by ImageNet's mean and deviation" in said
    assert "fc, an unused layer, was left out" in said
    assert manifest.config["import"]["heads"] == "initial"
    assert manifest.config["model"]["head"] == "linear"
    assert manifest.results["epochs"] is None
    encoder = load_encoder(manifest.folder)
    clips = torch.zeros(1, 3, 4, 24, 24)
    assert encoder(clips).shape == (1, 64)
    with pytest.raises(InputError, match="imported from a file without projection heads"):
        encoder.project(clips)
    assert load_encoder(manifest.folder, checkpoint="initial").project(clips)[0].shape == (1, 128)


def test_untrained_weights_are_those_of_a_pretraining_with_this_seed(tmp_path: Path) -> None:
    manifest = run(backbone_file(tmp_path), tmp_path / "pretrain", SMALL | {"run.seed": 4, "model.head": "mlp", "model.embedding_dim": 5})
    model = {"width": 0.125, "head": "mlp", "embedding_dim": 5}
    expected = build_moco(validated(PretrainConfig, {"model": model, "run": {"seed": 4}})).query.state_dict()
    found = load_file(manifest.folder / "initial.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], value.numpy()) for name, value in expected.items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_gets_clips_of_its_own_size(tmp_path: Path, backbone: str) -> None:
    clip = import_checkpoint(backbone_file(tmp_path, backbone), out=tmp_path / "pretrain", settings={"model.width": 0.125}).config["clip"]
    assert (clip["frames"], clip["size"]) == BACKBONES[backbone].clip


def test_the_optimiser_of_another_training_is_left_out_and_said(tmp_path: Path) -> None:
    def shorten(content: Content) -> None:
        content["optimizer"]["param_groups"][0]["params"].pop()

    manifest = run(pretrained_file(tmp_path, shorten), tmp_path / "pretrain")
    assert "the optimiser's state was left out" in manifest.environment["notes"][-1]
    assert manifest.config["import"]["optimizer"] is False
    assert not (manifest.folder / "checkpoints/last.optimizer.safetensors").exists()


def test_facts_that_are_no_numbers_are_unknown(tmp_path: Path) -> None:
    odd = {"epoch": "three", "best_loss": float("nan"), "arch": "a\x1b[31m", "scheduler": {"T_max": -5, "eta_min": 0.1}}
    manifest = run(pretrained_file(tmp_path, lambda content: content.update(odd)), tmp_path / "pretrain")
    assert (manifest.results["epochs"], manifest.results["best_loss"]) == (None, None)
    assert manifest.config["optim"]["epochs"] is None
    assert json.loads((manifest.folder / "source.json").read_text())["arch"] is None


def rename_query(content: Content) -> None:
    content["model"]["encoder_q.gate.weight"] = torch.zeros(3)


REFUSED: dict[str, tuple[Callable[[Content], object], dict[str, Any], str]] = {
    "an unknown tensor": (rename_query, {}, "'encoder_q.gate.weight' beside its network"),
    "no state": (lambda content: content.pop("model"), {}, "'epoch' is no dense tensor"),
    "a setting of pretraining, of a fine-tuning": (
        lambda content: content.update(model=released.finetuned("r3d18", classes=5)),
        {"moco.queue_size": 12},
        "There is no setting 'moco.queue_size'",
    ),
    "another backbone, of a fine-tuning": (
        lambda content: content.update(model=released.finetuned("r3d18", classes=5)),
        {"model.backbone": "c3d"},
        "--set model.backbone=c3d: the file says r3d18",
    ),
    "another width": (lambda content: None, {"model.width": 0.25}, "leave model.width out"),
    "another head": (lambda content: None, {"model.head": "mlp"}, "--set model.head=mlp: the file says convbn"),
    "another queue": (lambda content: None, {"moco.queue_size": 24}, "--set moco.queue_size=24: the file says 12"),
    "workers": (lambda content: None, {"run.workers": 3}, "--set run.workers has no effect on an imported encoder"),
    "a tolerance of no rate": (
        lambda content: None,
        {"clip.rate_tolerance": 0.0},
        "--set clip.rate_tolerance has no effect without clip.frame_rate",
    ),
    "a size out of range": (lambda content: None, {"clip.frames": 0}, "clip.frames"),
    "a clip that the backbone cannot take": (
        lambda content: content.update(model=released.pretrained("c3d", "linear")),
        {"clip.frames": 4},
        "c3d cannot take clips of 4 frames",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_sentence_and_leaves_no_folder(tmp_path: Path, name: str) -> None:
    change, settings, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        run(pretrained_file(tmp_path, change), tmp_path / "pretrain", {"model.width": 0.125} | settings)
    refused(caught.value, words)
    assert not (tmp_path / "pretrain").exists()


def test_the_tolerance_of_a_rate_may_be_told(tmp_path: Path) -> None:
    known = {"model.width": 0.125, "clip.frame_rate": 25.0, "clip.rate_tolerance": 0.0}
    encoder = load_encoder(run(pretrained_file(tmp_path), tmp_path / "pretrain", known).folder)
    assert (encoder.frame_rate, encoder.rate_tolerance) == (25.0, 0.0)


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    lengths = (9, 12, 10, 11, 8, 12, 9, 10)
    return make_extract(tmp_path_factory.mktemp("work") / "extract", num_frames=lengths, parts=["train"] * 4 + ["test"] * 4, labelled=True)


def test_every_later_stage_goes_on_from_it(whole: Manifest, extract: Manifest, tmp_path: Path) -> None:
    config = validated(ExportConfig, {"clips": 2, "device": "cpu", "workers": 0})
    with pytest.raises(InputError) as caught:
        export_features(config, pretrain=whole.folder, out=tmp_path / "export-features")
    refused(caught.value, "was imported and names no extraction", "--frames")
    features = export_features(config, pretrain=whole.folder, frames=extract.folder, out=tmp_path / "export-features")
    assert features.results == {"videos": 8, "channels": 64, "clips": 2}
    # Whether it saw these videos is not known: neither yes nor no.
    assert pd.read_csv(features.folder / "videos.csv")["seen"].isna().all()
    retrieval = eval_retrieval(validated(RetrievalConfig, {"topk": [1]}), features=features.folder, out=tmp_path / "eval-retrieval")
    assert (retrieval.results["queries"], retrieval.results["queries_seen"]) == (4, None)
    knn = validated(ClassificationConfig, {"probe": "knn"})
    classified = eval_classification(knn, features=features.folder, out=tmp_path / "eval-classification")
    assert classified.results["queries_seen"] is None


@pytest.mark.parametrize("random_init", [False, True])
def test_batch_norm_is_estimated_on_train_videos_of_the_extraction(
    whole: Manifest, extract: Manifest, tmp_path: Path, random_init: bool
) -> None:
    config = validated(
        ExportConfig, {"clips": 1, "device": "cpu", "workers": 0, "random_init": random_init, "reestimate_bn": not random_init}
    )
    features = export_features(config, pretrain=whole.folder, default_frames=extract.folder, frames=None, out=tmp_path / "out")
    assert features.input("extract", verify=False).digest == extract.digest
    seen = pd.read_csv(features.folder / "videos.csv")["seen"]
    assert seen.isna().all() or (random_init and not seen.any())
