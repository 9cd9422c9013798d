"""import-checkpoint and export-checkpoint of fine-tuned networks: bit-equal back and forth, their classes, and the stages upon them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rspnet_cli import load_encoder
from rspnet_cli.config import ClassificationConfig, ExportConfig
from rspnet_cli.encoder.classifier import Classifier
from rspnet_cli.encoder.registry import build_backbone
from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of_json
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages.eval_classification import eval_classification
from rspnet_cli.stages.export_checkpoint import export_checkpoint
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.finetune import finetune
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stages.reproduce import reproduce
from rspnet_cli.tables import CLASSES, read_table
from tests import finetuned, released
from tests.sentences import refused
from tests.stages.test_export_checkpoint import artifacts, assert_equal

SMALL = {"model.width": 0.125, "clip.frames": 4, "clip.size": 24}
EXPORT = {"clips": 1, "device": "cpu", "workers": 0}


def tuned_file(path: Path, backbone: str = "r3d18", classes: int = 2) -> Path:
    torch.save(released.checkpoint(released.finetuned(backbone, classes), released.ARCH[backbone]), path)
    return path


def classes_of(manifest: Manifest) -> list[tuple[int, str]]:
    return list(read_table(manifest.artifact_path(CLASSES.file), CLASSES).itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return finetuned.make_labelled(tmp_path_factory.mktemp("labelled") / "extract")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """An imported fine-tuning of two classes; not to be written to."""
    folder = tmp_path_factory.mktemp("imported")
    return import_checkpoint(tuned_file(folder / "a.pth.tar"), work_dir=folder, settings=SMALL)


@pytest.fixture(scope="module")
def ours(extract: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A fine-tuning of ours; not to be written to."""
    folder = tmp_path_factory.mktemp("ours")
    encoder = finetuned.make_encoder_of(extract, folder / "pretrain")
    return finetune(finetuned.settings(optim={"epochs": 2}), pretrain=encoder.folder, out=folder / "finetune")


def test_the_manifest_is_a_fine_tunings_and_says_no_more_than_the_file(imported: Manifest) -> None:
    manifest = read_manifest(imported.folder, stage="finetune", verify_all=True)
    assert manifest.folder.name == "finetune"
    config = manifest.config
    assert {key: value for key, value in config["model"].items() if value is not None} == {"backbone": "r3d18", "width": 0.125}
    assert config["clip"] == {"frames": 4, "size": 24, "antialias": False, "sampling": "consecutive", "frame_rate": 0.0}
    assert (config["optim"]["lr"], config["optim"]["epochs"], config["optim"]["batch_size"]) == (0.4, 200, None)
    assert config["import"]["assumed"] == ["clip.antialias", "clip.frame_rate", "clip.sampling"]
    known = {key: value for key, value in manifest.results.items() if value is not None}
    assert known == {"classes": 2, "epochs": 3, "best_acc1": 7.25}


def test_its_network_computes_what_the_files_tensors_say(imported: Manifest) -> None:
    state = torch.load(imported.environment["source"], weights_only=False)["model"]
    network = Classifier(build_backbone("r3d18", 0.125), num_classes=2)
    network.load_state_dict(load_file(imported.folder / "classifier.safetensors"))
    clips = torch.randn(2, 3, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    encoder = load_encoder(imported.folder)
    with torch.no_grad():
        features = encoder(clips)
        assert features.abs().max() > 0
        by_hand = features @ state["fc.weight"].T + state["fc.bias"]
        torch.testing.assert_close(network.eval()(clips), by_hand, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="was fine-tuned without projection heads"):
        encoder.project(clips)


@pytest.mark.parametrize("backbone", ["c3d", "r3d18", "r2plus1d", "s3dg", "tsm-r18"])
def test_import_and_export_are_bit_equal_back_and_forth(tmp_path: Path, backbone: str) -> None:
    source = tuned_file(tmp_path / "a.pth.tar", backbone, classes=5)
    content = torch.load(source, weights_only=False)
    first = import_checkpoint(source, out=tmp_path / "first", settings={"model.width": 0.125})
    results = export_checkpoint(first.folder, out=tmp_path / "b.pth.tar")
    assert (results["arch"], results["epoch"], results["optimizer"]) == (released.ARCH[backbone], 3, True)
    expected = content | {"best_acc1": 7.25}
    expected["model"] = {name: torch.zeros_like(value) if released.is_unused(name) else value for name, value in content["model"].items()}
    assert_equal(torch.load(tmp_path / "b.pth.tar", weights_only=True), expected)
    second = import_checkpoint(tmp_path / "b.pth.tar", out=tmp_path / "second", settings={"model.width": 0.125})
    assert artifacts(second) == artifacts(first)
    assert export_checkpoint(second.folder, out=tmp_path / "c.pth.tar")["sha256"] == results["sha256"]


def test_a_fine_tuning_of_ours_comes_back_bit_by_bit(ours: Manifest, tmp_path: Path) -> None:
    for checkpoint, epoch in ((None, ours.results["best_epoch"]), ("last", 2)):
        out = tmp_path / f"{checkpoint}.pth.tar"
        results = export_checkpoint(ours.folder, out=out, checkpoint=checkpoint)
        assert (results["arch"], results["epoch"]) == ("resnet18", epoch)
        state = torch.load(out, weights_only=True)["model"]
        assert {name: value.shape for name, value in state.items()} == {
            name: value.shape for name, value in released.finetuned("r3d18", classes=2).items()
        }
        imported = import_checkpoint(out, out=tmp_path / f"{checkpoint}", classes=ours.folder)
        name = f"checkpoints/{checkpoint or 'best'}.safetensors"
        assert artifacts(imported)["classifier.safetensors"] == artifacts(ours)[name]
        assert artifacts(imported)["classes.csv"] == artifacts(ours)["classes.csv"]
        assert imported.classes_sha256 == ours.classes_sha256


def test_the_state_of_our_optimiser_is_that_of_the_released_one(ours: Manifest, tmp_path: Path) -> None:
    assert export_checkpoint(ours.folder, out=tmp_path / "a.pth.tar", checkpoint="last")["optimizer"]
    content = torch.load(tmp_path / "a.pth.tar", weights_only=True)
    names = [name for name in content["model"] if released.is_parameter(name)]
    parameters = [torch.nn.Parameter(content["model"][name]) for name in names]
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=1e-4)
    optimizer.load_state_dict(content["optimizer"])
    used = [name for name, parameter in zip(names, parameters, strict=True) if parameter in optimizer.state]
    assert used == [name for name in names if not released.is_unused(name)]
    assert all(state["momentum_buffer"].abs().max() > 0 for state in optimizer.state.values())
    imported = import_checkpoint(tmp_path / "a.pth.tar", out=tmp_path / "imported")
    there, back = (
        load_file(folder / "checkpoints" / name)
        for folder, name in ((ours.folder, "last.optimizer.safetensors"), (imported.folder, "best.optimizer.safetensors"))
    )
    assert_equal(dict(sorted(back.items())), dict(sorted(there.items())))


def test_a_linear_probe_of_ours_is_exported_without_its_optimiser(extract: Manifest, tmp_path: Path) -> None:
    encoder = finetuned.make_encoder_of(extract, tmp_path / "pretrain")
    config = finetuned.settings(model={"linear": True}, optim={"epochs": 1})
    probe = finetune(config, pretrain=encoder.folder, out=tmp_path / "finetune")
    assert export_checkpoint(probe.folder, out=tmp_path / "a.pth.tar", checkpoint="last")["optimizer"] is False


LISTS = {
    "a name a line": "even\nodd\n",
    "numbered": "2 odd\n1 even\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
def test_classes_are_called_as_a_list_says(tmp_path: Path, text: str) -> None:
    (tmp_path / "classInd.txt").write_text(text)
    manifest = import_checkpoint(
        tuned_file(tmp_path / "a.pth.tar"), out=tmp_path / "out", classes=tmp_path / "classInd.txt", settings=SMALL
    )
    assert classes_of(manifest) == [(0, "even"), (1, "odd")]
    assert manifest.classes_sha256 == sha256_of_json(["even", "odd"])


def test_classes_are_called_as_in_an_extraction_or_by_their_numbers_and_others_need_force(
    extract: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tuned_file(tmp_path / "a.pth.tar"), tmp_path / "out"
    numbered = import_checkpoint(source, out=out, settings=SMALL, report=Reporter())
    assert "called by their numbers (else --classes)" in capsys.readouterr().err
    assert classes_of(numbered) == [(0, "0"), (1, "1")]
    assert numbered.classes_sha256 is None
    with pytest.raises(InputError) as caught:
        import_checkpoint(source, out=out, settings=SMALL, classes=extract.folder)
    refused(caught.value, "import.classes added", "--force")
    named = import_checkpoint(source, out=out, settings=SMALL, classes=extract.folder, force=True)
    assert classes_of(named) == [(0, "even"), (1, "odd")]
    assert named.classes_sha256 == extract.classes_sha256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("even\nodd\nthird\n", "has 3 classes, and the network 2"),
        ("even\neven\n", "has the class even twice"),
        ("1 even\n1 odd\n", "has the class 1 twice"),
        ("1 even\n3 odd\n", "numbers 2 classes from 1 to 3"),
        (b"\xff\xfe", "it is no UTF-8 text"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    names = tmp_path / "names.txt"
    if text is not None:
        names.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        import_checkpoint(tuned_file(tmp_path / "a.pth.tar"), out=tmp_path / "out", classes=names, settings=SMALL)
    refused(caught.value, "names.txt", words)
    assert not (tmp_path / "out").exists()


def test_classes_of_a_pretraining_are_refused(tmp_path: Path) -> None:
    torch.save(released.checkpoint(released.pretrained("r3d18", "linear"), "resnet18"), tmp_path / "a.pth.tar")
    with pytest.raises(InputError) as caught:
        import_checkpoint(tmp_path / "a.pth.tar", out=tmp_path / "out", classes=tmp_path, settings=SMALL)
    refused(caught.value, "has no classes to name", "--classes")


CLIPS: dict[str, tuple[int, dict[str, Any], tuple[Any, ...]]] = {
    "UCF101": (101, {}, (64, 224, "consecutive", 25.0)),
    "Something-Something v2": (174, {}, (16, 224, "cover", 0.0)),
    "another data set": (7, {}, (16, 224, "consecutive", 0.0)),
    "UCF101, told otherwise": (101, {"clip.sampling": "cover", "clip.frames": 16}, (16, 224, "cover", 0.0)),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_those_of_the_recipe_with_so_many_classes(tmp_path: Path, name: str) -> None:
    classes, told, expected = CLIPS[name]
    source = tuned_file(tmp_path / "a.pth.tar", "s3dg", classes)
    clip = import_checkpoint(source, out=tmp_path / "out", settings={"model.width": 0.125} | told).config["clip"]
    assert (clip["frames"], clip["size"], clip["sampling"], clip["frame_rate"]) == expected


def test_later_stages_go_on_from_it(imported: Manifest, extract: Manifest, tmp_path: Path) -> None:
    config = validated(ExportConfig, EXPORT)
    with pytest.raises(InputError) as caught:
        export_features(config, pretrain=imported.folder, out=tmp_path / "features")
    refused(caught.value, "was imported and names no extraction", "--frames")
    features = export_features(config, pretrain=imported.folder, frames=extract.folder, out=tmp_path / "features")
    assert pd.read_csv(features.folder / "videos.csv")["seen"].isna().all()
    estimated = export_features(
        validated(ExportConfig, EXPORT | {"reestimate_bn": True}), pretrain=imported.folder, frames=extract.folder, out=tmp_path / "again"
    )
    assert estimated.results == features.results
    knn = eval_classification(validated(ClassificationConfig, {"probe": "knn"}), features=features.folder, out=tmp_path / "classification")
    assert knn.results["queries_seen"] is None
    with pytest.raises(InputError, match="has no untrained encoder"):
        export_features(validated(ExportConfig, EXPORT | {"random_init": True}), pretrain=imported.folder, out=tmp_path / "random")
    tuned = finetune(finetuned.settings(optim={"epochs": 1}), pretrain=imported.folder, frames=extract.folder, out=tmp_path / "finetune")
    assert tuned.results["queries_seen"] is None
    assert (tuned.config["clip"]["frames"], tuned.config["model"]["checkpoint"]) == (4, "best")


def test_it_has_no_figures_to_compare_with_published_ones(imported: Manifest) -> None:
    found = reproduce("ucf101-r3d18", work_dir=imported.folder.parent)
    assert (found.own, found.verdict) == (None, "missing")
    assert "finetune" in [step.stage for step, _ in found.missing]


def test_a_checkpoint_that_is_not_there_is_named(imported: Manifest, tmp_path: Path) -> None:
    for call in (lambda: load_encoder(imported.folder, checkpoint="last"), lambda: exported(imported, tmp_path)):
        with pytest.raises(InputError) as caught:
            call()
        refused(caught.value, "has no checkpoint 'last' (kept: best)")


def exported(manifest: Manifest, folder: Path) -> dict[str, Any]:
    return export_checkpoint(manifest.folder, out=folder / "a.pth.tar", checkpoint="last")
