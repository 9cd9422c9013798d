"""finetune as a whole, on really encoded videos: what it learns, chooses, tests and writes; kills and workers change no byte of it."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

import rspnet_cli
from rspnet_cli.cli.main import main
from rspnet_cli.config import ExportConfig, ExtractConfig, FinetuneClipConfig, FinetuneConfig
from rspnet_cli.encoder.load import preprocess
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.recipes import recipe_names
from rspnet_cli.settings import finetune_settings, validated
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.extract import extract as run_extract
from rspnet_cli.stages.finetune import finetune, one_split
from rspnet_cli.stages.finetune.resolved import resolve
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stopping import stoppable
from rspnet_cli.tables import CLASSES, EPOCHS, FINETUNE_METRICS, FINETUNE_PER_CLASS, FINETUNE_PREDICTIONS, FINETUNE_VIDEOS, read_table
from rspnet_cli.training.loop import _Run
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.seen import num_seen, seen_videos
from rspnet_cli.videos.store import open_store
from tests.encode import encode, make_video
from tests.extracted import make_extract
from tests.finetuned import LENGTHS, PARTS, make_encoder_of, make_labelled, settings
from tests.listener import Listener
from tests.pretrained import SMALL as SMALL_ENCODER
from tests.pretrained import make_pretrain
from tests.processes import KILLED, fork, fork_ranks, kill, kill_at_change, wait, wait_until
from tests.sentences import refused

RESULT_KEYS = [
    *("protocol", "split", "videos", "classes", "epochs", "selected_on", "selection_videos", "selection_top1", "best_epoch"),
    *("queries", "queries_seen", "clips", "top1", "top5", "mean_class", "interval", "chance"),
]
TRAIN = [row for row, part in enumerate(PARTS) if part == "train"]
TEST = [row for row, part in enumerate(PARTS) if part == "test"]


def run(encoder: Manifest | None, out: Path, config: Any = None, **how: Any) -> Manifest:
    return finetune(config or settings(), pretrain=None if encoder is None else encoder.folder, out=out, **how)


def refusal(encoder: Manifest | None, out: Path, config: Any, *words: str, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(encoder, out, config, **how)
    assert not out.exists(), "a refused command leaves no folder behind"
    return refused(caught.value, *words)


def artifacts(manifest: Manifest) -> dict[str, str]:
    """Name -> hash, checked against the files themselves."""
    checked = read_manifest(manifest.folder, stage="finetune", verify_all=True)
    return {artifact.path: artifact.sha256 for artifact in checked.artifacts}


def weights_of(manifest: Manifest, name: str = "classifier.safetensors") -> dict[str, np.ndarray]:
    return load_file(manifest.folder / name)


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Ten train and four test videos; not to be written to."""
    return make_labelled(tmp_path_factory.mktemp("labelled") / "extract")


@pytest.fixture(scope="module")
def encoder(extract: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A pretraining of them; not to be written to."""
    return make_encoder_of(extract, tmp_path_factory.mktemp("encoder") / "pretrain")


@pytest.fixture(scope="module")
def whole(encoder: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """An uninterrupted run; not to be written to."""
    return run(encoder, tmp_path_factory.mktemp("whole") / "finetune")


def logits_by_hand(manifest: Manifest, rows: Sequence[int], count: int) -> np.ndarray:
    """Mean logits of videos over evenly spaced clips, one clip at a time; clips of 4 frames, every video longer than that."""
    weights = weights_of(manifest)
    encoder = rspnet_cli.load_encoder(manifest.folder)
    table = read_frames(manifest.input("extract"))
    result = []
    for row in rows:
        of_clips = []
        with open_store(table.path(row)) as video:
            last = video.num_frames - 4
            for clip in range(count):
                start = last // 2 if count == 1 else round(clip * last / (count - 1))
                frames = torch.from_numpy(video.read(np.arange(start, start + 4)))[None].permute(0, 4, 1, 2, 3)  # (1, 3, 4, H, W)
                feature = encoder(preprocess(frames, 24, antialias=False))[0].numpy()
                of_clips.append(weights["fc.weight"] @ feature + weights["fc.bias"])
        result.append(np.mean(of_clips, axis=0))
    return np.array(result)


def test_a_run_writes_what_its_manifest_says(whole: Manifest, extract: Manifest, encoder: Manifest) -> None:
    assert list(whole.results) == RESULT_KEYS
    facts = {"protocol": "split", "split": "1", "classes": 2, "epochs": 3, "selected_on": "validation", "queries": 4, "clips": 3}
    assert whole.results.items() >= facts.items()
    assert whole.results["videos"] + whole.results["selection_videos"] == len(TRAIN)
    assert whole.results["queries_seen"] == 1  # v011, in pretraining
    assert whole.results["chance"] == {"top1": 0.5, "top5": 1.0, "majority": 0.5}
    assert artifacts(whole).keys() == {
        *("classifier.safetensors", "classes.csv", "videos.csv", "metrics.csv", "epochs.csv"),
        *("predictions.csv", "per_class.csv", "confusion_finetune.csv"),
        *(f"checkpoints/{name}.safetensors" for name in ("last", "last.optimizer", "best", "epoch_2")),
    }
    assert [(ref.stage, ref.digest) for ref in whole.inputs] == [("extract", extract.digest), ("pretrain", encoder.digest)]
    assert whole.classes_sha256 == extract.classes_sha256
    # What the settings left open, and the encoder or the machine decided.
    assert whole.config["model"] == {"backbone": "r3d18", "width": 0.125, "checkpoint": "last", "random_init": False, "linear": False}
    clip = {"frames": 4, "size": 24, "antialias": False, "sampling": "consecutive", "frame_rate": 0.0}
    assert whole.config["clip"] == clip
    assert (whole.config["run"]["precision"], whole.config["run"]["processes"]) == ("fp32", 1)
    assert "workers" not in whole.config["run"]
    kept = {".lock", "manifest.json", "checkpoints", *whole.environment["logs"]}
    assert set(os.listdir(whole.folder)) == kept | {path.split("/")[0] for path in artifacts(whole)}
    assert whole.environment["logs"][0] == "timings.csv"


def test_predictions_and_figures_follow_from_the_weights_and_the_clips(whole: Manifest) -> None:
    logits = logits_by_hand(whole, TEST, count=3)
    guess = logits.argmax(axis=1)
    true = np.array(TEST) % 2
    assert np.abs(logits[:, 0] - logits[:, 1]).min() > 1e-3, "the tolerance could hide a wrong order"
    table = read_table(whole.folder / "predictions.csv", FINETUNE_PREDICTIONS)
    assert table["id"].tolist() == [f"v{row:03d}" for row in TEST]
    assert table["label"].tolist() == true.tolist()
    assert table["label_name"].tolist() == [("even", "odd")[label] for label in true]
    assert table["finetune_label"].tolist() == guess.tolist()
    assert table["finetune_label_name"].tolist() == [("even", "odd")[label] for label in guess]
    assert table["finetune_rank"].tolist() == [1 if right else 2 for right in guess == true]
    assert table["fold"].isna().all()
    assert whole.results["top1"] == (guess == true).mean()
    assert whole.results["top5"] == 1.0
    by_class = [(guess[true == label] == label).mean() for label in (0, 1)]
    assert whole.results["mean_class"] == np.mean(by_class)
    assert read_table(whole.folder / "per_class.csv", FINETUNE_PER_CLASS)["finetune_top1"].tolist() == by_class
    confusion = pd.read_csv(whole.folder / "confusion_finetune.csv").set_index("label_name")
    for name, label in (("even", 0), ("odd", 1)):
        if name in confusion.columns:
            assert confusion[name].to_list() == [int(((true == t) & (guess == label)).sum()) for t in range(len(confusion))]
    assert confusion.to_numpy().sum() == len(TEST)
    classes = read_table(whole.folder / "classes.csv", CLASSES)
    assert list(zip(classes["label"], classes["label_name"], strict=True)) == [(0, "even"), (1, "odd")]
    assert weights_of(whole)["fc.weight"].shape == (2, 64)


def test_whole_groups_choose_the_epoch_by_one_centre_clip(whole: Manifest) -> None:
    videos = read_table(whole.folder / "videos.csv", FINETUNE_VIDEOS)
    chosen, learned = ({row for row in range(len(PARTS)) if videos["part"][row] == part} for part in ("validation", "train"))
    assert sorted(chosen | learned) == TRAIN
    assert chosen
    assert not {row // 2 for row in chosen} & {row // 2 for row in learned}, "a group is on both sides"
    assert videos["part"].tolist()[10:] == ["test"] * 4
    assert videos["used"].tolist() == [row in learned for row in range(len(PARTS))]
    assert videos["seen"].tolist() == [str(row in (0, 11)) for row in range(len(PARTS))]
    assert (whole.results["videos"], whole.results["selection_videos"]) == (len(learned), len(chosen))
    epochs = read_table(whole.folder / "epochs.csv", EPOCHS)
    assert epochs["epoch"].tolist() == [1, 2, 3]
    scores = list(zip(-epochs["selection_top1"], epochs["selection_loss"], strict=True))
    best = min(range(3), key=lambda epoch: scores[epoch])
    assert whole.results["best_epoch"] == best + 1
    assert epochs["best"].tolist() == [all(scores[epoch] < other for other in scores[:epoch]) for epoch in range(3)]
    logits = logits_by_hand(whole, sorted(chosen), count=1).astype(np.float64)
    labels = np.array(sorted(chosen)) % 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert epochs["selection_loss"][best] == pytest.approx(-np.log(shares[np.arange(len(labels)), labels]).mean(), rel=1e-4)
    assert epochs["selection_top1"][best] == whole.results["selection_top1"] == (logits.argmax(axis=1) == labels).mean()
    assert artifacts(whole)["classifier.safetensors"] == artifacts(whole)["checkpoints/best.safetensors"]
    metrics = read_table(whole.folder / "metrics.csv", FINETUNE_METRICS)
    steps = whole.results["videos"] // 2
    assert metrics["step"].tolist() == list(range(1, 3 * steps + 1))
    np.testing.assert_allclose(epochs["loss"], metrics["loss"].to_numpy().reshape(3, steps).mean(axis=1), rtol=1e-12)


def test_classes_that_can_be_seen_are_learned(encoder: Manifest, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        colour = np.array([[200, 60, 60], [60, 60, 200]][number % 2])
        frames = [(colour + rng.integers(-50, 50, (32, 40, 3))).astype(np.uint8) for _ in range(6)]
        encode(tmp_path / "videos" / ("red", "blue")[number % 2] / f"{number}.mp4", frames)
    config = validated(ExtractConfig, {"dataset": "folder", "workers": 1, "short_side": 32})
    frames_of = run_extract(config, videos=tmp_path / "videos", out=tmp_path / "extract").folder
    optim = {"name": "adamw", "lr": 0.002, "epochs": 6, "batch_size": 4}
    manifest = run(encoder, tmp_path / "finetune", settings(optim=optim, model={"random_init": True}), frames=frames_of)
    epochs = read_table(manifest.folder / "epochs.csv", EPOCHS)
    assert manifest.results["top1"] == manifest.results["mean_class"] == manifest.results["selection_top1"] == 1.0
    assert epochs["loss"].iloc[-1] < 0.3 < epochs["loss"].iloc[0]


def test_the_whole_network_is_trained_or_with_linear_the_last_layer_alone(whole: Manifest, encoder: Manifest, tmp_path: Path) -> None:
    before = {name: value for name, value in load_file(encoder.folder / "encoder.safetensors").items() if name.startswith("backbone.")}
    after = weights_of(whole)
    assert after.keys() == before.keys() | {"fc.weight", "fc.bias"}
    assert all((after[name] != value).any() for name, value in before.items()), "something was not trained"
    linear = run(encoder, tmp_path / "linear", settings(model={"linear": True}, optim={"batch_size": 1}))
    after = weights_of(linear)
    assert all((after[name] == value).all() for name, value in before.items()), "the frozen backbone has changed"
    assert (after["fc.weight"] != weights_of(linear, "checkpoints/epoch_2.safetensors")["fc.weight"]).any() or (
        linear.results["best_epoch"] == 2
    )
    np.testing.assert_array_equal(
        read_table(linear.folder / "predictions.csv", FINETUNE_PREDICTIONS)["finetune_label"],
        logits_by_hand(linear, TEST, count=3).argmax(axis=1),
    )


def test_what_chooses_the_epoch_is_named(encoder: Manifest, tmp_path: Path) -> None:
    test = run(encoder, tmp_path / "test", settings(data={"select_on": "test"}))
    assert (test.results["selected_on"], test.results["videos"], test.results["selection_videos"]) == ("test", 10, 4)
    right = logits_by_hand(test, TEST, count=1).argmax(axis=1) == np.array(TEST) % 2
    assert test.results["selection_top1"] == right.mean()
    assert "validation" not in read_table(test.folder / "videos.csv", FINETUNE_VIDEOS)["part"].tolist()
    last = run(encoder, tmp_path / "last", settings(data={"select_on": "last"}))
    assert (last.results["best_epoch"], last.results["selection_top1"], last.results["selection_videos"]) == (3, None, 0)
    assert read_table(last.folder / "epochs.csv", EPOCHS)["selection_top1"].isna().all()
    assert artifacts(last)["classifier.safetensors"] == artifacts(last)["checkpoints/last.safetensors"]


def test_a_splits_own_validation_videos_choose_the_epoch(tmp_path: Path) -> None:
    parts = ("train",) * 6 + ("val",) * 4 + ("test",) * 4
    extract = make_labelled(tmp_path / "extract", parts=parts)
    manifest = run(make_encoder_of(extract, tmp_path / "pretrain"), tmp_path / "finetune", settings(optim={"epochs": 1}))
    assert (manifest.results["videos"], manifest.results["selection_videos"]) == (6, 4)
    assert read_table(manifest.folder / "videos.csv", FINETUNE_VIDEOS)["part"].tolist()[6:10] == ["validation"] * 4


def test_a_finished_run_is_found_again_and_touched_nowhere(whole: Manifest, encoder: Manifest) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [whole.folder, *whole.folder.rglob("*")]}
    assert run(encoder, whole.folder, settings(run={"workers": 2})) == whole
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [whole.folder, *whole.folder.rglob("*")]} == before
    with pytest.raises(InputError) as caught:
        run(encoder, whole.folder, settings(test={"clips": 2}))
    refused(caught.value, "test.clips was 3, now 2", "--force", "--out")


def test_no_number_of_workers_changes_a_byte_and_the_callers_random_state_is_left_alone(
    whole: Manifest, encoder: Manifest, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    other = run(encoder, tmp_path / "finetune", settings(run={"workers": 2}))
    assert torch.equal(torch.get_rng_state(), before)
    assert artifacts(other) == artifacts(whole)
    assert other.digest == whole.digest


def test_killed_at_any_change_of_its_folder_it_ends_with_the_same_bytes(whole: Manifest, encoder: Manifest, tmp_path: Path) -> None:
    number, kills = 5, 0
    while True:
        out = tmp_path / f"finetune-{number}"  # as deep as `whole`: relative paths are part of the digest
        killed = kill_at_change(lambda out=out: run(encoder, out), number)  # type: ignore[misc]
        again = run(encoder, out)
        assert artifacts(again) == artifacts(whole), f"killed before change {number}"
        assert again.digest == whole.digest
        assert not (out / "unfinished").exists()
        if not killed:
            break
        kills += 1
        number += 17  # prime to whatever a checkpoint takes, so that every kind of moment comes up
    assert kills >= 4


def test_a_rates_tolerance_is_that_of_the_pretraining_where_none_is_typed(tmp_path: Path) -> None:
    def resolved(clip: dict[str, Any], **typed: Any) -> FinetuneClipConfig:
        encoder = make_pretrain(tmp_path / str(len(os.listdir(tmp_path))), settings=SMALL_ENCODER | {"clip": SMALL_ENCODER["clip"] | clip})
        return resolve(validated(FinetuneConfig, {"clip": typed}), encoder, torch.device("cpu")).clip

    as_released = {"frame_rate": 25.0, "rate_tolerance": 0.0}
    assert resolved(as_released).model_dump().items() >= as_released.items()
    assert resolved(as_released, rate_tolerance=1e-3).rate_tolerance == 1e-3
    assert resolved({}, frame_rate=25.0, rate_tolerance=0.0).model_dump().items() >= as_released.items()
    assert resolved({}, frame_rate=25.0).rate_tolerance == 2e-4
    for clip, typed in (({}, {}), (as_released, {"sampling": "cover"})):
        with pytest.raises(InputError) as caught:
            resolved(clip, **typed, rate_tolerance=0.0)
        refused(caught.value, "clip.rate_tolerance has no effect", "clip.frame_rate")


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "bf16": {"run": {"precision": "bf16"}},
    "linear, AdamW, cover": {"model": {"linear": True}, "optim": {"name": "adamw"}, "clip": {"sampling": "cover"}},
    "multistep, resampled, colours": {
        "optim": {"schedule": "multistep", "milestones": (1,)},
        "clip": {"frame_rate": 10.0, "frames": 3},
        "augment": {"order": "aug_plus"},
    },
}


def test_stopped_in_a_step_and_while_an_epoch_is_measured_it_ends_with_the_same_bytes(
    whole: Manifest, encoder: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ("classification_step", "video_logits"):
        inner = getattr(one_split, where)

        def stopped(*args: Any, inner: Any = inner, **how: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return inner(*args, **how)

        with monkeypatch.context() as patch:
            patch.setattr(one_split, where, stopped)
            assert stoppable(lambda: bool(run(encoder, tmp_path / "finetune"))) == 143
    again = run(encoder, tmp_path / "finetune")
    assert again.environment["resumed"] is True
    assert artifacts(again) == artifacts(whole)


@pytest.mark.parametrize("sections", VARIANTS.values(), ids=VARIANTS.keys())
def test_other_settings_run_and_resume_with_the_same_bytes(encoder: Manifest, tmp_path: Path, sections: dict[str, Any]) -> None:
    sections = sections | {"optim": sections.get("optim", {}) | {"epochs": 2}}
    first = run(encoder, tmp_path / "first", settings(**sections))
    index = tmp_path / "second" / "unfinished" / "checkpoints" / "index.json"
    pid = fork(lambda: run(encoder, tmp_path / "second", settings(**sections)))
    wait_until(lambda: index.exists() or (tmp_path / "second" / "manifest.json").exists(), "a checkpoint")
    kill(pid)
    wait(pid)
    assert artifacts(run(encoder, tmp_path / "second", settings(**sections))) == artifacts(first)
    assert all(np.isfinite(value).all() for value in weights_of(first).values())
    assert rspnet_cli.load_encoder(first.folder).sampling == sections.get("clip", {}).get("sampling", "consecutive")
    if "multistep" in sections["optim"].values():
        rates = read_table(first.folder / "epochs.csv", EPOCHS)["lr"].tolist()
        assert rates == pytest.approx([0.02, 0.002], rel=1e-12)


def test_a_fine_tuned_encoder_describes_clips_and_videos_and_can_be_tuned_again(whole: Manifest, extract: Manifest, tmp_path: Path) -> None:
    encoder = rspnet_cli.load_encoder(whole.folder)
    assert (encoder.backbone_name, encoder.channels, encoder.frames, encoder.size, encoder.has_heads) == ("r3d18", 64, 4, 24, False)
    best = weights_of(whole)
    assert all((value.numpy() == best[name]).all() for name, value in encoder.state_dict().items())
    last = rspnet_cli.load_encoder(whole.folder, checkpoint="last").state_dict()
    assert (last["backbone.conv1.weight"].numpy() == weights_of(whole, "checkpoints/last.safetensors")["backbone.conv1.weight"]).all()
    with pytest.raises(InputError) as caught:
        encoder.project(torch.zeros(1, 3, 4, 24, 24))
    refused(caught.value, "without projection heads")
    with pytest.raises(InputError) as caught:
        rspnet_cli.load_encoder(whole.folder, checkpoint="initial")
    refused(caught.value, "no checkpoint 'initial'")

    config = validated(ExportConfig, {"clips": 2, "workers": 0, "device": "cpu"})
    export = export_features(config, pretrain=whole.folder, out=tmp_path / "export-features")
    assert export.config["checkpoint"] == "best"
    assert [ref.stage for ref in export.inputs] == ["finetune", "extract"]
    features = load_file(export.folder / "features.safetensors")["features"]
    assert features.shape == (14, 64)
    table = read_frames(extract)
    with open_store(table.path(3)) as video:
        clips = torch.stack([torch.from_numpy(video.read(np.arange(start, start + 4))) for start in (0, LENGTHS[3] - 4)])
    expected = encoder(clips.permute(0, 4, 1, 2, 3)).mean(dim=0).numpy()
    np.testing.assert_allclose(features[3], expected, rtol=1e-4, atol=1e-5)
    # Seen by its own training, or by the pretraining that it began with.
    used = set(read_table(whole.folder / "videos.csv", FINETUNE_VIDEOS).query("used")["id"]) | {"v000", "v011"}
    seen = pd.read_csv(export.folder / "videos.csv").query("seen")["id"]
    assert set(seen) == used
    random_init = validated(ExportConfig, {"random_init": True, "workers": 0})
    with pytest.raises(InputError) as caught:
        export_features(random_init, pretrain=whole.folder, out=tmp_path / "no")
    refused(caught.value, "'finetune'", "no untrained encoder")

    again = run(whole, tmp_path / "again", settings(optim={"epochs": 1}))
    assert again.config["model"]["checkpoint"] == "best"
    assert [ref.stage for ref in again.inputs] == ["extract", "finetune"]
    own = set(read_table(again.folder / "videos.csv", FINETUNE_VIDEOS).query("used")["id"])
    table = read_frames(extract)
    seen_by = seen_videos(again, [table.array("sha256")])
    assert set(table.read("id")["id"][seen_by]) == used | own
    assert num_seen(seen_by) == len(used | own)


def test_an_imported_encoder_is_tuned_on_the_videos_that_are_named_and_what_it_saw_is_not_known(
    encoder: Manifest, extract: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(rspnet_cli.load_encoder(encoder.folder).backbone.state_dict(), tmp_path / "file.pth.tar")
    told = {"clip.frames": 4, "clip.size": 24}
    imported = import_checkpoint(tmp_path / "file.pth.tar", out=tmp_path / "imported", settings=told)
    refusal(imported, tmp_path / "no", settings(), "names no extraction", "--frames")
    one = settings(optim={"epochs": 1}, model={"linear": True})
    manifest = run(imported, tmp_path / "finetune", one, default_frames=extract.folder)
    before, after = load_file(encoder.folder / "encoder.safetensors"), weights_of(manifest)
    assert all((after[name] == before[name]).all() for name in after if name.startswith("backbone."))
    assert manifest.results["queries_seen"] is None
    assert set(read_table(manifest.folder / "videos.csv", FINETUNE_VIDEOS)["seen"]) == {""}
    # A training here on top: what it used is known to be seen, of the others nobody knows.
    seen = seen_videos(manifest, [read_frames(extract).array("sha256")])
    used = read_table(manifest.folder / "videos.csv", FINETUNE_VIDEOS)["used"]
    assert seen[used].tolist() == [True] * int(used.sum())
    assert seen[~used].isna().all()
    assert num_seen(seen[used]) == int(used.sum())
    place = ["--work-dir", str(extract.folder.parent), "--out", str(tmp_path / "typed"), "--linear", "--epochs", "1", "--batch-size", "2"]
    assert main(["finetune", str(imported.folder), *place, "--workers", "0"]) == 0
    assert "Whether the encoder saw the test videos in pretraining is not known" in capsys.readouterr().out


def make_ucf101(folder: Path) -> Manifest:
    """Twelve extracted videos in UCF101's layout: two classes of six groups, groups 1 and 2 (split 1) or 3 and 4 (split 2) for test."""
    names = [(label, f"v_{label}_g{group:02d}_c01.mp4") for label in ("Even", "Odd") for group in range(1, 7)]
    for number, (label, name) in enumerate(names):
        make_video(folder / "UCF-101" / label / name, LENGTHS[number], size=(40, 32), start=100 * number)
    lists = folder / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Even\n2 Odd\n")
    for split, tested in ((1, ("g01", "g02")), (2, ("g03", "g04"))):
        test = [f"{label}/{name}" for label, name in names if name.split("_")[2] in tested]
        train = [f"{label}/{name} {1 + (label == 'Odd')}" for label, name in names if name.split("_")[2] not in tested]
        (lists / f"testlist0{split}.txt").write_text("\n".join(test) + "\n")
        (lists / f"trainlist0{split}.txt").write_text("\n".join(train) + "\n")
    config = validated(ExtractConfig, {"dataset": "ucf101", "workers": 1, "short_side": 32})
    return run_extract(config, videos=folder / "UCF-101", annotations=lists, out=folder / "extract")


def test_all_splits_in_turn_and_their_mean(tmp_path: Path) -> None:
    extract = make_ucf101(tmp_path)
    pretrain = make_pretrain(tmp_path / "pretrain", inputs={"extract": extract.folder})
    first = run(pretrain, tmp_path / "first", settings(optim={"epochs": 1}))
    config = settings(data={"split": "all"}, optim={"epochs": 2})
    whole = run(first, tmp_path / "whole", config)  # an encoder of stage finetune, like the splits themselves
    results = whole.results
    assert list(results) == [*RESULT_KEYS, "splits"]
    assert (results["split"], results["queries"], results["best_epoch"]) == ("all", 8, None)
    splits = [read_manifest(tmp_path / "whole" / f"split-{number}", stage="finetune", verify_all=True) for number in (1, 2)]
    assert [split.config["data"]["split"] for split in splits] == ["1", "2"]
    assert [ref.digest for ref in whole.inputs] == [extract.digest, first.digest, *(split.digest for split in splits)]
    for key in ("top1", "top5", "mean_class"):
        assert results[key] == np.mean([split.results[key] for split in splits])
        assert results["interval"][key][0] <= results[key] <= results["interval"][key][1]
    assert results["splits"]["2"]["best_epoch"] == splits[1].results["best_epoch"]
    assert run(first, tmp_path / "whole", config) == whole  # found finished
    # A split alone gives what it gives in the series, and a stopped series goes on with the split it was in.
    alone = run(first, tmp_path / "alone", settings(data={"split": "2"}, optim={"epochs": 2}))
    assert artifacts(alone) == artifacts(splits[1])
    index = tmp_path / "again" / "split-2" / "unfinished" / "checkpoints" / "index.json"
    pid = fork(lambda: run(first, tmp_path / "again", config))
    wait_until(lambda: index.exists() or (tmp_path / "again" / "manifest.json").exists(), "the second split")
    kill(pid)
    wait(pid)
    stamp = (tmp_path / "again" / "split-1" / "manifest.json").stat().st_mtime_ns
    assert run(first, tmp_path / "again", config).digest == whole.digest
    assert (tmp_path / "again" / "split-1" / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(InputError) as caught:
        rspnet_cli.load_encoder(whole.folder)
    refused(caught.value, "mean over several splits", str(tmp_path / "whole" / "split-2" / "manifest.json"))
    (tmp_path / "again").rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved" / "manifest.json").read_input(whole.inputs[2]).digest == splits[0].digest
    forced = run(first, tmp_path / "moved", config, force=True)
    assert forced.digest == whole.digest
    assert (tmp_path / "moved" / "split-1" / "manifest.json").stat().st_mtime_ns > stamp


def test_bfloat16_without_instructions_for_it_is_warned_of_once_for_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain = make_pretrain(tmp_path / "pretrain", inputs={"extract": make_ucf101(tmp_path).folder})
    monkeypatch.setattr("rspnet_cli.devices.computes_bf16", lambda _: False)
    listener = Listener()
    config = settings(data={"split": "all"}, optim={"epochs": 1}, run={"precision": "bf16"})
    run(pretrain, tmp_path / "finetune", config, report=listener)
    assert len([said for said in listener.said if "no instructions for bfloat16" in said]) == 1


def test_without_splits_folds_of_whole_groups_are_tested(tmp_path: Path) -> None:
    extract = make_labelled(tmp_path / "extract", parts=None)
    encoder = make_encoder_of(extract, tmp_path / "pretrain")
    config = {"optim": {"epochs": 1}, "model": {"linear": True}, "test": {"clips": 1}}
    whole = run(encoder, tmp_path / "all", settings(**config, data={"split": "all"}))
    assert (whole.results["protocol"], whole.results["queries"]) == ("folds", len(LENGTHS))
    assert list(whole.results["splits"]) == ["1", "2", "3", "4", "5"]
    tested = []
    for fold in range(1, 6):
        table = read_table(tmp_path / "all" / f"split-{fold}" / "predictions.csv", FINETUNE_PREDICTIONS)
        assert table["fold"].tolist() == [fold] * len(table)
        tested += [int(name[1:]) for name in table["id"]]
    assert sorted(tested) == list(range(len(LENGTHS)))
    refusal(encoder, tmp_path / "no", settings(**config, data={"split": "6"}), "no fold 6", "1, 2, 3, 4, 5")
    # Fewer groups than folds: the folds that there are.
    few = make_extract(tmp_path / "few", num_frames=(9, 8, 9, 8, 9, 8), labelled=True)
    three = run(encoder, tmp_path / "three", settings(**config, data={"split": "all", "select_on": "last"}), frames=few.folder)
    assert list(three.results["splits"]) == ["1", "2", "3"]


def test_from_random_weights_with_the_network_of_an_encoder_or_without_one(encoder: Manifest, extract: Manifest, tmp_path: Path) -> None:
    config = settings(model={"random_init": True}, optim={"epochs": 1})
    manifest = run(encoder, tmp_path / "random", config)
    assert [ref.stage for ref in manifest.inputs] == ["extract"]
    assert (manifest.config["model"]["width"], manifest.config["clip"]["frames"]) == (0.125, 4)
    assert manifest.results["queries_seen"] == 0
    alone = settings(model={"random_init": True, "backbone": "r3d18", "width": 0.125}, clip={"frames": 4, "size": 24}, optim={"epochs": 1})
    assert artifacts(run(None, tmp_path / "alone", alone, frames=extract.folder)) == artifacts(manifest)
    # A random backbone that stays as it is needs batch-norm statistics.
    frozen = run(encoder, tmp_path / "frozen", settings(model={"random_init": True, "linear": True}, optim={"epochs": 1}))
    mean, variance = (weights_of(frozen)[f"backbone.bn1.running_{name}"] for name in ("mean", "var"))
    assert np.abs(mean).max() > 1e-3
    assert np.abs(variance - 1).max() > 1e-3
    refusal(None, tmp_path / "no", settings(), "no encoder", "--random-init", frames=extract.folder)
    refusal(None, tmp_path / "no", settings(model={"random_init": True}), "--frames")
    refusal(None, tmp_path / "no", settings(model={"random_init": True}), "model.backbone", frames=extract.folder)


def test_settings_that_do_not_fit_are_refused(encoder: Manifest, extract: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "no"
    refusal(encoder, out, settings(model={"backbone": "c3d"}), "backbone r3d18", "c3d", "--random-init")
    refusal(encoder, out, settings(model={"width": 1.0}), "width 0.125", "1.0")
    refusal(encoder, out, settings(model={"backbone": "r3d81", "random_init": True}), "no backbone 'r3d81'", "r3d18")
    refusal(encoder, out, settings(model={"backbone": "c3d", "random_init": True}), "c3d", "clip.frames must be at least 8")
    refusal(encoder, out, settings(model={"checkpoint": "epoch_7"}), "epoch_7", "best, epoch_2")
    refusal(encoder, out, settings(data={"split": "3"}), "split 3")
    refusal(encoder, out, settings(clip={"size": 48}), "clip.size 48", "--short-side 48")
    text = refusal(encoder, out, settings(optim={"batch_size": 12}), "videos to train on")
    assert "--batch-size 8 " in text
    refusal(encoder, out, settings(optim={"batch_size": 1}), "optim.batch_size 1 ")
    refusal(encoder, out, settings(), "'extract'", "'pretrain'", frames=encoder.folder)
    refusal(extract, out, settings(), "'extract'", "'pretrain' or 'finetune'")
    unlabelled = make_extract(tmp_path / "unlabelled", num_frames=(9, 9, 9, 9), parts=("train", "train", "train", "test"))
    for split in ("1", "all"):
        refusal(encoder, out, settings(data={"split": split}), "no labels", "--dataset", frames=unlabelled.folder)
    one_group = make_extract(tmp_path / "one", num_frames=(9, 9, 9, 9), parts=("train", "train", "test", "test"), labelled=True)
    refusal(encoder, out, settings(), "--select-on test", "data.select_on=last", frames=one_group.folder)


def test_classes_without_a_train_video_are_never_guessed_and_said(encoder: Manifest, tmp_path: Path, capsys: Any) -> None:
    make_extract(tmp_path / "x", num_frames=LENGTHS[:8])
    labels = ["a", "b", "a", "b", "a", "b", "c", "a"]
    rows = [f"v{row:03d}.mp4,{label},{'test' if row > 5 else 'train'}" for row, label in enumerate(labels)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    config = validated(ExtractConfig, {"dataset": "csv", "workers": 1, "short_side": 32})
    extract = run_extract(config, videos=tmp_path / "x-sources", annotations=tmp_path / "list.csv", out=tmp_path / "extract")
    manifest = run(
        encoder, tmp_path / "finetune", settings(optim={"epochs": 1}, data={"select_on": "last"}), frames=extract.folder, report=Reporter()
    )
    assert "1 test videos are of classes that train has no video of (c)" in capsys.readouterr().err
    table = read_table(manifest.folder / "predictions.csv", FINETUNE_PREDICTIONS)
    assert table["finetune_rank"].isna().tolist() == [True, False]
    assert set(table["finetune_label_name"]) <= {"a", "b"}
    assert manifest.results["classes"] == 2
    assert weights_of(manifest)["fc.bias"].shape == (3,)


# What a recipe is made small by; everything else of it stays.
SMALL = ["model.width=0.1", "clip.frames=8", "clip.size=32", "optim.batch_size=2", "optim.epochs=1", "test.batch_size=4", "run.workers=0"]


@pytest.mark.parametrize("recipe", recipe_names("finetune"))
def test_every_recipe_runs_an_epoch(recipe: str, extract: Manifest, encoder: Manifest, tmp_path: Path) -> None:
    config = finetune_settings(recipe=recipe, sets=SMALL, flags={"model.random_init": True})
    schedule = config.optim.schedule
    manifest = run(encoder, tmp_path / "finetune", config, frames=extract.folder)
    assert manifest.config["optim"]["schedule"] == schedule
    assert manifest.results["clips"] == config.test.clips
    assert np.isfinite(read_table(manifest.folder / "epochs.csv", EPOCHS)["loss"]).all()


def test_on_a_gpu_it_trains_in_bfloat16_and_tests_what_it_trained(encoder: Manifest, tmp_path: Path, cuda: torch.device) -> None:
    for name, model in (("whole", {}), ("linear", {"linear": True})):
        manifest = run(encoder, tmp_path / name, settings(run={"device": "cuda", "workers": 1}, model=model))
        assert (manifest.config["run"]["device"], manifest.config["run"]["precision"]) == (cuda.type, "bf16")
        logits = logits_by_hand(manifest, TEST, count=3)
        sure = np.abs(logits[:, 0] - logits[:, 1]) > 0.05 * np.abs(logits).max()  # bfloat16 has 8 bits
        table = read_table(manifest.folder / "predictions.csv", FINETUNE_PREDICTIONS)
        assert (table["finetune_label"].to_numpy() == logits.argmax(axis=1))[sure].all()


def flags(config: Any) -> list[str]:
    """The settings that differ from the defaults, as they are typed."""
    typed = []
    for section, values in config.model_dump(mode="json", exclude_unset=True).items():
        for key, value in values.items():
            typed += ["--set", f"{section}.{key}={json.dumps(value)}"]
    return typed


def test_two_processes_train_as_one_and_killed_end_with_the_same_bytes(encoder: Manifest, tmp_path: Path) -> None:
    """With a frozen backbone no batch norm depends on the share of a process, so the figures are those of one process."""

    def both(out: Path, config: Any, *, die: bool = False) -> list[int]:
        def one() -> int:
            if die:
                save = _Run._save

                def save_and_die(self: Any, **how: Any) -> None:
                    save(self, **how)
                    os._exit(KILLED)

                _Run._save = save_and_die  # type: ignore[method-assign]
            return main(["finetune", str(encoder.folder), "--out", str(out), "--json", "--quiet", *flags(config)])

        return fork_ranks(one, [tmp_path / f"{out.name}-output-{rank}" for rank in range(2)])

    linear = settings(model={"linear": True}, optim={"name": "adamw", "lr": 0.01, "epochs": 2})
    alone = run(encoder, tmp_path / "one", linear)
    # The recipe for narrow encoders has settings that the defaults do not.
    assert both(tmp_path / "two", linear) == [0, 0], (tmp_path / "two-output-0").read_text()
    two = read_manifest(tmp_path / "two", stage="finetune", verify_all=True)
    assert json.loads((tmp_path / "two-output-0").read_text()) == two.results  # one document, by rank 0
    assert (tmp_path / "two-output-1").read_text() == ""
    assert two.config["run"]["processes"] == 2
    for mine, other in zip(*(read_table(m.folder / "metrics.csv", FINETUNE_METRICS).itertuples() for m in (two, alone)), strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=1e-4)
        assert mine.top1 == other.top1
    for name, value in weights_of(alone).items():
        np.testing.assert_allclose(weights_of(two)[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    for name in ("predictions.csv", "videos.csv", "confusion_finetune.csv"):
        assert artifacts(two)[name] == artifacts(alone)[name]

    full = settings(optim={"batch_size": 4, "epochs": 2})
    assert both(tmp_path / "whole", full) == [0, 0], (tmp_path / "whole-output-0").read_text()
    assert both(tmp_path / "killed", full, die=True) == [KILLED, KILLED]
    assert both(tmp_path / "killed", full) == [0, 0], (tmp_path / "killed-output-0").read_text()
    killed, whole = read_manifest(tmp_path / "killed"), read_manifest(tmp_path / "whole")
    assert killed.environment["resumed"] is True
    assert artifacts(killed) == artifacts(whole)
    # One process in two passes sees the same batch-norm parts (float32, so only the first steps can be held against each other).
    recipe = finetune_settings(recipe="small-cpu-finetune", sets=[text for text in flags(full) if text != "--set"])
    optim = recipe.optim.model_copy(update={"accumulate": 2})
    passes = run(encoder, tmp_path / "passes", recipe.model_copy(update={"optim": optim}))
    mine, other = (read_table(manifest.folder / "metrics.csv", FINETUNE_METRICS) for manifest in (passes, whole))
    assert mine["loss"][0] == pytest.approx(other["loss"][0], rel=1e-5)
    assert mine["grad_norm"][0] == pytest.approx(other["grad_norm"][0], rel=1e-3)
    assert mine["loss"][1] == pytest.approx(other["loss"][1], rel=1e-2)


def test_passes_over_parts_of_a_batch_are_warned_of_where_batch_norm_learns(
    encoder: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optim = {"batch_size": 4, "accumulate": 2, "epochs": 1}
    run(encoder, tmp_path / "full", settings(optim=optim), report=Reporter())
    assert "with optim.accumulate 2 batch norm sees 2 of a process' 4 videos at a time" in capsys.readouterr().err
    linear = run(encoder, tmp_path / "linear", settings(optim=optim, model={"linear": True}), report=Reporter())
    assert "accumulate" not in capsys.readouterr().err
    one = run(encoder, tmp_path / "one", settings(optim=optim | {"accumulate": 1}, model={"linear": True}))
    for name, value in weights_of(one).items():
        np.testing.assert_allclose(weights_of(linear)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    refusal(encoder, tmp_path / "no", settings(optim=optim | {"accumulate": 3}), "optim.accumulate 3", "multiple of 3")


def test_a_damaged_frame_file_of_a_test_video_stops_it_and_a_restored_one_lets_it_go_on(
    whole: Manifest, encoder: Manifest, extract: Manifest, tmp_path: Path
) -> None:
    shutil.copytree(extract.folder, tmp_path / "extract")
    path = tmp_path / "extract" / "frames" / "v012.mp4"
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(InputError) as caught:
        run(encoder, tmp_path / "finetune", frames=tmp_path / "extract")
    refused(caught.value, str(path), "restore it")
    path.write_bytes(good)
    again = run(encoder, tmp_path / "finetune", frames=tmp_path / "extract")
    assert again.environment["resumed"] is True
    assert artifacts(again) == artifacts(whole)
