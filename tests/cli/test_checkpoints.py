"""`rspnet import-checkpoint` and `rspnet export-checkpoint` as typed, and the commands after them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rspnet_cli.cli.main import main
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import read_manifest
from tests import released
from tests.extracted import make_extract


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A released checkpoint, in the directory where commands are typed."""
    torch.save(released.checkpoint(released.pretrained("r3d18", "linear"), "resnet18"), tmp_path / "model_best.pth.tar")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model_best.pth.tar"


SMALL = "--set model.width=0.125 --set clip.frames=4 --set clip.size=24"


def test_a_checkpoint_goes_in_is_used_and_comes_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = file.parent / "rspnet-run"
    make_extract(work / "extract", num_frames=(9, 12, 10, 11), parts=["train", "train", "test", "test"], labelled=True)
    capsys.readouterr()
    assert main(["import-checkpoint", str(file), *SMALL.split(), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == read_manifest(work / "pretrain", stage="pretrain").results
    assert "holds r3d18 of width 0.125, linear heads of 6 dimensions, key encoder, a queue of 12 keys, the optimiser's state" in printed.err
    assert "the file does not say how its clips were made" in printed.err
    # An imported encoder names no extraction: that of the work directory is described.
    assert main(["export-features", "--clips", "1", "--device", "cpu", "--workers", "0", "--quiet"]) == 0
    assert main(["eval-retrieval", "--topk", "1"]) == 0
    assert "Whether the encoder saw the queries in pretraining is not known: it was imported." in " ".join(capsys.readouterr().out.split())
    assert main(["inspect", "rspnet-run/eval-retrieval", "--verify"]) == 0
    assert "import" in capsys.readouterr().out
    assert main(["export-checkpoint", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    written = work / "pretrain.pth.tar"
    assert results == {
        "file": "rspnet-run/pretrain.pth.tar",
        "bytes": written.stat().st_size,
        "sha256": sha256_of(written),
        "arch": "resnet18",
        "epoch": 3,
        "tensors": len(released.pretrained("r3d18", "linear")),
        "optimizer": True,
    }


def test_a_fine_tuned_network_goes_in_with_its_classes_is_used_and_comes_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = file.parent / "rspnet-run"
    make_extract(work / "extract", num_frames=(9, 12, 10, 11), parts=["train", "train", "test", "test"], labelled=True)
    torch.save(released.checkpoint(released.finetuned("r3d18", 2), "resnet18"), file)
    capsys.readouterr()
    # A setting that pretraining has not.
    typed = ["import-checkpoint", str(file), *SMALL.split(), "--set", "clip.sampling=cover", "--classes", "rspnet-run/extract"]
    assert main([*typed, "--json"]) == 0
    printed = capsys.readouterr()
    manifest = read_manifest(work / "finetune", stage="finetune", verify_all=True)
    assert json.loads(printed.out) == manifest.results
    assert manifest.config["clip"]["sampling"] == "cover"
    assert "holds r3d18 of width 0.125, a classifier of 2 classes, the optimiser's state" in printed.err
    assert "called by their numbers" not in printed.err
    export = "export-features rspnet-run/finetune --clips 1 --device cpu --workers 0 --quiet"
    assert main(export.split()) == 0
    assert main(["inspect", "rspnet-run/export-features", "--verify"]) == 0
    capsys.readouterr()
    assert main(["export-checkpoint", "rspnet-run/finetune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == sha256_of(work / "finetune.pth.tar")


def test_an_imported_pretraining_is_not_continued_by_mistake(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_extract(file.parent / "rspnet-run" / "extract", num_frames=(9, 12))
    assert main(["import-checkpoint", str(file), *SMALL.split(), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["pretrain", "--batch-size", "2", "--device", "cpu"]) == 2
    assert "with other settings" in capsys.readouterr().err
    assert read_manifest(file.parent / "rspnet-run" / "pretrain", verify_all=True).is_imported


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("import-checkpoint", "FILE"),
        ("import-checkpoint nowhere.pth.tar", "nowhere.pth.tar cannot be read"),
        ("import-checkpoint model_best.pth.tar --set clip.frame=8", "did you mean 'clip.frames'?"),
        ("import-checkpoint model_best.pth.tar --set clip.frames=many", "clip.frames"),
        ("import-checkpoint model_best.pth.tar --classes model_best.pth.tar", "is no fine-tuned network"),
        ("export-checkpoint", "rspnet-run/pretrain"),
        ("export-checkpoint --checkpoint newest", "rspnet-run/pretrain"),
        ("export-checkpoint model_best.pth.tar --out a.pth.tar", "model_best.pth.tar"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(file: Path, capsys: pytest.CaptureFixture[str], typed: str, words: str) -> None:
    assert main(typed.split()) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""
    assert [path.name for path in file.parent.iterdir()] == ["model_best.pth.tar"]
