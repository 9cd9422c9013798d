"""finetune with no epoch of training: a fine-tuned network, ours or an imported one, is tested as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from rspnet_cli import load_encoder
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.report.commands import command_of
from rspnet_cli.stages.export_checkpoint import export_checkpoint
from rspnet_cli.stages.finetune import finetune
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stages.reproduce import reproduce
from rspnet_cli.tables import FINETUNE_PREDICTIONS
from tests import finetuned, released
from tests.listener import Listener
from tests.sentences import refused

AS_IT_IS: dict[str, Any] = {"optim": {"epochs": 0}}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A fine-tuning of two epochs; not to be written to."""
    folder = tmp_path_factory.mktemp("ours")
    encoder = finetuned.make_encoder_of(finetuned.make_labelled(folder / "extract"), folder / "pretrain")
    return finetune(finetuned.settings(optim={"epochs": 2}), pretrain=encoder.folder, out=folder / "finetune")


def digests(manifest: Manifest) -> dict[str, str]:
    return {artifact.path: artifact.sha256 for artifact in manifest.artifacts}


def test_it_has_the_figures_that_it_had_after_training(ours: Manifest, tmp_path: Path) -> None:
    tested = finetune(finetuned.settings(**AS_IT_IS), pretrain=ours.folder, out=tmp_path / "test")
    same = {name for name in digests(ours) if name not in ("videos.csv", "metrics.csv", "epochs.csv") and "checkpoints" not in name}
    assert FINETUNE_PREDICTIONS.file in same
    assert {name: digests(tested)[name] for name in same} == {name: digests(ours)[name] for name in same}
    assert digests(tested).keys() - same == {"videos.csv"}
    figures = ("queries", "queries_seen", "clips", "top1", "top5", "mean_class", "interval", "chance", "classes")
    assert {key: tested.results[key] for key in figures} == {key: ours.results[key] for key in figures}
    trained = ("videos", "epochs", "selected_on", "selection_videos", "selection_top1", "best_epoch")
    assert [tested.results[key] for key in trained] == [0, 0, None, 0, None, None]
    assert not pd.read_csv(tested.folder / "videos.csv")["used"].any()
    assert finetune(finetuned.settings(**AS_IT_IS), pretrain=ours.folder, out=tmp_path / "test") == tested


def test_it_can_be_tested_otherwise_and_used_like_any_fine_tuning(ours: Manifest, tmp_path: Path) -> None:
    config = finetuned.settings(**AS_IT_IS, test={"clips": 1}, data={"split": "all"})
    mean = finetune(config, pretrain=ours.folder, out=tmp_path / "test")
    assert (mean.results["clips"], mean.results["epochs"], mean.results["selected_on"]) == (1, 0, None)
    (split,) = mean.results["splits"]
    tested = read_manifest(tmp_path / "test" / f"split-{split}", stage="finetune")
    clips = torch.rand(2, 3, 4, 24, 24)
    assert torch.equal(load_encoder(tested.folder)(clips), load_encoder(ours.folder)(clips))
    for source in (ours, tested):
        export_checkpoint(source.folder, out=tmp_path / f"{source.folder.name}.pth.tar")
    own, theirs = (torch.load(tmp_path / f"{source.folder.name}.pth.tar", weights_only=True) for source in (tested, ours))
    assert own["epoch"] == theirs["epoch"] == ours.results["best_epoch"]
    assert all(torch.equal(value, theirs["model"][name]) for name, value in own["model"].items())
    found = reproduce("ucf101-r3d18", work_dir=tmp_path, manifest=tested.folder)
    assert ("optim.epochs", 0, 30) in [(item.key, item.own, item.published) for item in found.comparison.differences]
    named = {item.key for item in found.comparison.differences if item.stage == "finetune"}
    assert "input pretrain" in named
    assert not named & {"optim.lr", "optim.batch_size", "data.select_on", "videos per batch-norm statistic"}, "nothing was trained"
    command = command_of(tested, tmp_path)
    assert " --epochs 0 " in command
    assert "optim." not in command


def test_an_imported_network_is_tested_by_its_own_clips(ours: Manifest, tmp_path: Path) -> None:
    extract = ours.input("extract")
    state = released.finetuned("r3d18", classes=2)
    torch.save(released.checkpoint(state, "resnet18"), tmp_path / "a.pth.tar")
    told = {"model.width": 0.125, "clip.frames": 4, "clip.size": 24, "clip.sampling": "cover"}
    imported = import_checkpoint(tmp_path / "a.pth.tar", out=tmp_path / "finetune", settings=told)
    listener = Listener()
    tested = finetune(
        finetuned.settings(**AS_IT_IS), pretrain=imported.folder, frames=extract.folder, out=tmp_path / "test", report=listener
    )
    assert listener.heard("does not name its classes: they are taken for those of these videos")
    assert (tested.config["clip"]["sampling"], tested.config["clip"]["frames"]) == ("cover", 4)
    assert tested.results["queries_seen"] is None
    assert digests(tested)["classifier.safetensors"] == digests(imported)["classifier.safetensors"]
    other = finetune(
        finetuned.settings(**AS_IT_IS, clip={"sampling": "consecutive"}),
        pretrain=imported.folder,
        frames=extract.folder,
        out=tmp_path / "other",
    )
    assert other.config["clip"]["sampling"] == "consecutive"


def test_what_is_no_network_for_these_videos_is_refused(ours: Manifest, tmp_path: Path) -> None:
    def refusal(pretrain: Path | None, *words: str, **sections: Any) -> None:
        with pytest.raises(InputError) as caught:
            finetune(
                finetuned.settings(**AS_IT_IS, **sections), pretrain=pretrain, frames=ours.input("extract").folder, out=tmp_path / "test"
            )
        refused(caught.value, *words)
        assert not (tmp_path / "test").exists()

    refusal(ours.input("pretrain").folder, "there must be a fine-tuned network to test", "--epochs 1 or more")
    refusal(ours.folder, "there must be a fine-tuned network to test", model={"random_init": True})
    for classes, names, words in (
        (3, None, ("tells 3 classes apart, and these videos are of 2", "--frames")),
        (2, "odd\neven\n", ("other classes than these videos (2, such as 'odd' in the place of 'even')", "--frames")),
    ):
        source, listed = tmp_path / "a.pth.tar", tmp_path / "classes.txt"
        torch.save(released.checkpoint(released.finetuned("r3d18", classes=classes), "resnet18"), source)
        listed.write_text(names or "")
        imported = import_checkpoint(
            source, out=tmp_path / f"imported-{classes}", classes=listed if names else None, settings={"clip.frames": 4, "clip.size": 24}
        )
        refusal(imported.folder, *words)


def test_a_fine_tuning_never_replaces_the_one_that_it_starts_from(ours: Manifest) -> None:
    before = digests(ours)
    for epochs in (0, 1):
        with pytest.raises(InputError) as caught:
            finetune(finetuned.settings(optim={"epochs": epochs}), pretrain=ours.folder, out=ours.folder, force=True)
        refused(caught.value, "holds what this finetune would start from", "--out")
    assert digests(read_manifest(ours.folder, stage="finetune", verify_all=True)) == before
