"""export-features as a whole: what the files say, and that nothing but config and inputs decides their bytes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from rspnet_cli import load_encoder
from rspnet_cli.cli.main import main
from rspnet_cli.clips.slots import Room
from rspnet_cli.config import ExportConfig, PretrainConfig
from rspnet_cli.errors import DiskFullError, InputError, RspnetError
from rspnet_cli.evaluation import features
from rspnet_cli.evaluation.features_file import read_features
from rspnet_cli.evaluation.gallery import reference_gallery
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stage import begin_stage
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.store import open_store
from tests.extracted import make_extract
from tests.pretrained import SMALL, arrays, make_encoder, make_pretrain
from tests.processes import fork_ranks, kill_at_change

NUM_FRAMES = (9, 12, 20, 6, 30)


@dataclass(frozen=True)
class Run:
    folder: Path
    extract: Manifest
    pretrain: Manifest


def make_run(folder: Path, *, labelled: bool = True) -> Run:
    parts = ["train"] * 4 + ["test"] if labelled else None
    extract = make_extract(folder / "extract", num_frames=NUM_FRAMES, parts=parts, labelled=labelled)
    table = pd.read_csv(extract.folder / "videos.csv")
    used = dict(table[["id", "sha256"]].to_numpy()[:4].tolist())
    return Run(folder, extract, make_pretrain(folder / "pretrain", inputs={"extract": extract.folder}, used=used))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MIN_PIECES", 2)


SETTINGS = {"clips": 3, "batch_size": 4, "workers": 0, "device": "cpu"}
FLAGS = ["--clips", "3", "--batch-size", "4", "--workers", "0", "--device", "cpu"]


def export(
    run: Run, out: Path, *, frames: Path | None = None, force: bool = False, report: Reporter | None = None, **settings: object
) -> Manifest:
    config = ExportConfig.model_validate(SETTINGS | settings)
    return export_features(config, pretrain=run.pretrain.folder, frames=frames, out=out, force=force, report=report)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


def test_the_features_are_the_mean_over_the_clips_of_each_video(run: Run, tmp_path: Path) -> None:
    manifest = export(run, tmp_path / "out")
    assert manifest.results == {"videos": 5, "channels": 64, "clips": 3}
    assert {ref.stage: ref.digest for ref in manifest.inputs} == {"pretrain": run.pretrain.digest, "extract": run.extract.digest}
    assert manifest.classes_sha256 == run.extract.classes_sha256
    table = read_features(manifest.folder, with_clips=True)
    encoder = load_encoder(run.pretrain.folder)
    for row, num_frames in enumerate(NUM_FRAMES):
        starts = np.round(np.linspace(0, num_frames - 4, 3)).astype(int)
        with open_store(run.extract.folder / "frames" / f"v{row:03d}.mp4") as video:
            clips = np.stack([video.read(start + np.arange(4)) for start in starts])  # (N, T, H, W, 3)
        expected = encoder(torch.from_numpy(clips).permute(0, 4, 1, 2, 3)).numpy()
        assert table.clip_features is not None
        np.testing.assert_allclose(table.clip_features[row], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(table.features[row], expected.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(table.clip_times_s[row], np.stack([starts, starts + 4], 1) / 25, atol=1e-9)
    assert table.features.std(axis=0).max() > 0.01, "different videos must have different features"


def test_the_files_can_be_used_with_pandas_and_safetensors_alone(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out", pool="max").folder
    videos = pd.read_csv(folder / "videos.csv")
    assert list(videos.columns) == ["id", "source", "label", "label_name", "group", "split_1", "frames", "fps", "seen"]
    assert videos["id"].tolist() == ["v000", "v001", "v002", "v003", "v004"]
    assert videos["source"].tolist() == ["v000.mp4", "v001.mp4", "v002.mp4", "v003.mp4", "v004.mp4"]
    assert videos["label_name"].tolist() == ["even", "odd", "even", "odd", "even"]
    assert videos["group"].tolist() == ["g0", "g0", "g1", "g1", "g2"]
    assert videos["split_1"].tolist() == ["train"] * 4 + ["test"]
    assert videos["frames"].tolist() == list(NUM_FRAMES)
    assert videos["seen"].tolist() == [True] * 4 + [False]
    with safe_open(folder / "features.safetensors", framework="numpy") as view:
        shapes = {name: (view.get_slice(name).get_dtype(), view.get_slice(name).get_shape()) for name in view.keys()}  # noqa: SIM118
        metadata = view.metadata()
        assert view.get_tensor("label").tolist() == [0, 1, 0, 1, 0]
        assert view.get_tensor("video_index").tolist() == [0, 1, 2, 3, 4]
    assert shapes == {
        "features": ("F32", [5, 64]),
        "clip_features": ("F32", [5, 3, 64]),
        "clip_times_s": ("F64", [5, 3, 2]),
        "label": ("I64", [5]),
        "group": ("I64", [5]),
        "video_index": ("I64", [5]),
    }
    expected = {
        "backbone": "r3d18",
        "width": "0.125",
        "checkpoint": "last",
        "batch_norm": "running averages of training",
        "pool": "max",
        "clips": "3",
        "clip_frames": "4",
        "clip_size": "24",
        "frame_rate": "that of the video",
        "pretrain_digest": run.pretrain.digest,
        "extract_digest": run.extract.digest,
        "class_names": '["even", "odd"]',
    }
    assert metadata.items() >= expected.items()


def test_the_worker_count_changes_no_byte(run: Run, tmp_path: Path) -> None:
    first = export(run, tmp_path / "first", workers=0)
    second = export(run, tmp_path / "second", workers=2)
    assert (second.digest, second.artifacts) == (first.digest, first.artifacts)
    assert contents(first.folder).keys() == {"manifest.json", "features.safetensors", "videos.csv"}
    for artifact in first.artifacts:
        assert (first.folder / artifact.path).read_bytes() == (second.folder / artifact.path).read_bytes()


def test_a_finished_export_is_left_alone_and_a_changed_one_refused(run: Run, tmp_path: Path) -> None:
    first = export(run, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert export(run, tmp_path / "out", workers=1) == first
    with pytest.raises(InputError, match=r'pool was "avg", now "max".*--force'):
        export(run, tmp_path / "out", pool="max")
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert export(run, tmp_path / "out", pool="max", force=True).config["pool"] == "max"


def bilinear(frame: np.ndarray, size: int) -> np.ndarray:
    """(h, w, 3) in [0, 255] -> (size, size, 3) in [0, 1], pixel by pixel: align_corners=False, no antialias."""
    height, width = frame.shape[:2]
    out = np.zeros((size, size, 3))
    for y in range(size):
        for x in range(size):
            v = min(max((y + 0.5) * height / size - 0.5, 0), height - 1)
            u = min(max((x + 0.5) * width / size - 0.5, 0), width - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = frame[top, left] * (1 - (u - left)) + frame[top, right] * (u - left)
            below = frame[bottom, left] * (1 - (u - left)) + frame[bottom, right] * (u - left)
            out[y, x] = (above * (1 - (v - top)) + below * (v - top)) / 255
    return out


def test_a_reference_gallery_is_cropped_and_flipped_and_its_queries_are_not(run: Run, tmp_path: Path) -> None:
    notes = Notes()
    manifest = export(run, tmp_path / "out", gallery_augment="reference", gallery_batch=3, seed=5, report=notes)
    assert {key: manifest.config[key] for key in ("gallery_augment", "split", "gallery_batch", "seed")} == {
        "gallery_augment": "reference",
        "split": "1",
        "gallery_batch": 3,
        "seed": 5,
    }
    assert any("3 train videos of split 1 are cropped and flipped at random, and 1 left out" in line for line in notes.lines)
    plain, augmented = read_features(export(run, tmp_path / "plain").folder), read_features(manifest.folder)
    assert plain.metadata["gallery"] == "preprocessed as all other videos, complete"
    assert augmented.metadata["gallery"].startswith("reference: ")
    assert "the 3 train videos of split 1 show a random crop" in augmented.metadata["gallery"]
    assert "seed 5; 1 of the last incomplete batch" in augmented.metadata["gallery"]
    parts = augmented.videos["split_1"].tolist()
    assert sorted(parts) == ["test", "train", "train", "train", "unused"]
    gallery = reference_gallery(ExportConfig.model_validate(manifest.config), read_frames(run.extract))
    assert gallery is not None
    encoder = load_encoder(run.pretrain.folder)
    flips = []
    for row, part in enumerate(parts):
        if part != "train":
            np.testing.assert_allclose(augmented.features[row], plain.features[row], rtol=1e-4, atol=1e-5)
            continue
        starts = np.round(np.linspace(0, NUM_FRAMES[row] - 4, 3)).astype(int)
        with open_store(run.extract.folder / "frames" / f"v{row:03d}.mp4") as video:
            frames = video.read(np.arange(NUM_FRAMES[row]))
            draw = gallery.draw(row, video.height, video.width)
        assert draw is not None
        top, left, height, width = draw.box
        flips.append(draw.flip)
        seen = np.stack([bilinear(frame[top : top + height, left : left + width].astype(float), 24) for frame in frames])
        seen = (seen[:, :, ::-1] if draw.flip else seen) - [0.485, 0.456, 0.406]
        clips = np.stack([(seen / [0.229, 0.224, 0.225])[start : start + 4] for start in starts])  # (N, T, S, S, 3)
        expected = encoder(torch.from_numpy(clips).float().permute(0, 4, 1, 2, 3)).numpy().mean(0)
        np.testing.assert_allclose(augmented.features[row], expected, rtol=1e-3, atol=1e-4)
        assert not np.allclose(augmented.features[row], plain.features[row], rtol=1e-2)
    assert len(set(flips)) == 2, "a seed at which only one kind is tested tests half"


def test_a_gallery_needs_splits_and_leaves_no_folder_without(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labelled=False)
    with pytest.raises(InputError, match="has no split 1"):
        export(run, tmp_path / "out", gallery_augment="reference")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{}, {"random_init": True}, {"gallery_augment": "reference", "gallery_batch": 3}])
def test_an_export_that_is_killed_again_and_again_ends_with_the_same_bytes(
    run: Run, tmp_path: Path, settings: Mapping[str, object]
) -> None:
    out = tmp_path / "out"
    kills = 0
    # A worker of a killed run may live on for a while; it must not hold the lock.
    while kill_at_change(partial(export, run, out, workers=kills % 2, **settings), kills):
        kills += 1
    assert kills > 10
    whole = export(run, tmp_path / "whole", **settings)
    assert read_manifest(out, stage="export-features").digest == whole.digest
    assert contents(out).keys() == contents(whole.folder).keys()
    for artifact in whole.artifacts:
        assert (out / artifact.path).read_bytes() == (whole.folder / artifact.path).read_bytes()


def test_a_resumed_export_does_only_what_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[int] = []
    original = features.UniformClips.read

    def noted(self: features.UniformClips, row: int, room: Room) -> features.VideoClips | RspnetError:
        described.append(row)
        return InputError("stopped here.") if len(described) == 4 else original(self, row, room)

    monkeypatch.setattr(features.UniformClips, "read", noted)
    with pytest.raises(InputError, match=r"stopped here\."):
        export(run, tmp_path / "out")
    export(run, tmp_path / "out")
    # Pieces are [0, 1], [2, 3], [4]: the second one was not complete.
    assert described == [0, 1, 2, 3, 2, 3, 4]


def test_an_export_stopped_by_a_scheduler_keeps_its_pieces_and_ends_with_the_same_bytes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export-features", str(run.pretrain.folder), "--out", str(tmp_path / "out"), "--quiet", *FLAGS]
    described: list[int] = []
    original = features.UniformClips.read

    def stopped(self: features.UniformClips, row: int, room: Room) -> features.VideoClips | RspnetError:
        described.append(row)
        if len(described) == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, row, room)

    monkeypatch.setattr(features.UniformClips, "read", stopped)
    assert main(command) == 143
    assert capsys.readouterr().err == "rspnet: interrupted; what a stage has done is kept, the same command goes on.\n"
    assert main(command) == 0
    assert described == [0, 1, 2, 3, 2, 3, 4]
    assert contents(tmp_path / "out").keys() == contents(export(run, tmp_path / "whole").folder).keys()
    assert read_manifest(tmp_path / "out").artifacts == read_manifest(tmp_path / "whole").artifacts


def stop_before_writing(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rspnet_cli.stages.export_features.write_features", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(run, out, **settings)


def test_an_unfinished_export_of_other_settings_is_not_continued(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before_writing(run, tmp_path / "out", monkeypatch)
    with pytest.raises(InputError, match="unfinished export-features with other settings"):
        export(run, tmp_path / "out", clips=2)


@pytest.mark.parametrize("name", ["pieces/00000002-00000004.safetensors", "batch_norm.safetensors"])
def test_a_damaged_file_of_an_unfinished_export_is_named_and_made_anew_when_it_is_deleted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / "out"
    stop_before_writing(run, out, monkeypatch, random_init=True)
    damaged = out / "unfinished" / name
    damaged.write_bytes(damaged.read_bytes()[:100])
    for force in (False, True):  # which continues a run of the same settings, too
        with pytest.raises(InputError, match=rf"{name} is not .*: delete it and type the same command again\.$"):
            export(run, out, random_init=True, force=force)
    damaged.unlink()
    assert export(run, out, random_init=True).artifacts == export(run, tmp_path / "whole", random_init=True).artifacts


def test_pieces_cut_otherwise_by_an_older_version_are_not_taken(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(features, "MIN_PIECES", 1)  # one piece of all five
        stop_before_writing(run, tmp_path / "out", monkeypatch)
    assert export(run, tmp_path / "out").artifacts == export(run, tmp_path / "whole").artifacts


class Notes(Reporter):
    def __init__(self) -> None:
        super().__init__("silent")
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def test_the_untrained_encoder_is_the_initial_one_with_its_own_batch_norm(run: Run, tmp_path: Path) -> None:
    notes = Notes()
    manifest = export(run, tmp_path / "out", random_init=True, report=notes)
    # 4 train videos, 16 clips of each: 64 clips in two batches.
    assert "untrained encoder (--random-init), batch-norm statistics estimated on 64 clips of 4 train videos" in "\n".join(notes.lines)
    assert manifest.config["random_init"] is manifest.config["reestimate_bn"] is True
    assert {artifact.path for artifact in manifest.artifacts} == {"batch_norm.safetensors", "features.safetensors", "videos.csv"}
    table = read_features(manifest.folder)
    assert table.metadata["checkpoint"] == "initial (untrained)"
    assert table.metadata["batch_norm"] == "estimated on 64 train clips"
    assert not table.videos["seen"].any(), "an untrained encoder has seen no video"

    # By hand: the same clips, in the same two batches, through the initial network with torch's own training mode.
    encoder = load_encoder(run.pretrain.folder, checkpoint="initial")
    clips = []
    for row in range(4):
        with open_store(run.extract.folder / "frames" / f"v{row:03d}.mp4") as video:
            starts = np.round(np.linspace(0, NUM_FRAMES[row] - 4, 16)).astype(int)
            clips += [torch.from_numpy(video.read(start + np.arange(4))).permute(3, 0, 1, 2) for start in starts]
    for module in encoder.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None
    encoder.train()
    with torch.no_grad():
        for batch in (clips[:32], clips[32:]):
            encoder(torch.stack(batch))
    encoder.eval()
    kept = load_file(manifest.folder / "batch_norm.safetensors")
    assert kept.keys() == {name for name, _ in encoder.named_buffers() if name.startswith("backbone.")}
    for name, value in kept.items():
        np.testing.assert_allclose(value, encoder.get_buffer(name).numpy(), rtol=1e-4, atol=1e-6)
    with open_store(run.extract.folder / "frames" / "v004.mp4") as video:
        ends = [torch.from_numpy(video.read(start + np.arange(4))).permute(3, 0, 1, 2) for start in (0, 13, 26)]
    with torch.no_grad():
        expected = encoder(torch.stack(ends)).mean(0).numpy()
    np.testing.assert_allclose(table.features[4], expected, rtol=1e-3, atol=1e-3)


def test_the_trained_encoder_can_have_its_batch_norm_estimated_too(run: Run, tmp_path: Path) -> None:
    plain, estimated = export(run, tmp_path / "plain"), export(run, tmp_path / "estimated", reestimate_bn=True)
    assert read_features(estimated.folder).metadata["batch_norm"] == "estimated on 64 train clips"
    assert not np.allclose(read_features(plain.folder).features, read_features(estimated.folder).features)


@pytest.mark.parametrize("checkpoint", ["best", "epoch_2"])
def test_another_checkpoint_gives_other_features(run: Run, tmp_path: Path, checkpoint: str) -> None:
    manifest = export(run, tmp_path / checkpoint, checkpoint=checkpoint)
    table = read_features(manifest.folder)
    assert table.metadata["checkpoint"] == checkpoint
    assert not np.allclose(table.features, read_features(export(run, tmp_path / "last").folder).features)


def test_a_checkpoint_that_is_not_there_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no checkpoint 'epoch_7'"):
        export(run, tmp_path / "out", checkpoint="epoch_7")
    assert not (tmp_path / "out").exists()


def test_another_extraction_is_described_and_known_videos_are_found_by_their_hash(run: Run, tmp_path: Path) -> None:
    # Its v003 and v004 are the same files as v003 (trained on) and v004 (not) of the first extraction; v005 and v006 are new.
    other = make_extract(tmp_path / "other", num_frames=(6, 30, 8, 5), first=3, codec="jpeg")
    manifest = export(run, tmp_path / "out", frames=other.folder)
    assert {ref.stage: ref.digest for ref in manifest.inputs} == {"pretrain": run.pretrain.digest, "extract": other.digest}
    table = read_features(manifest.folder)
    assert table.videos["id"].tolist() == ["v003", "v004", "v005", "v006"]
    assert table.videos["seen"].tolist() == [True, False, False, False]
    same = read_features(export(run, tmp_path / "same").folder)
    # Another codec, so nearly the same pixels of the same clips.
    similarity = [np.corrcoef(table.features[new], same.features[old])[0, 1] for new, old in ((0, 3), (1, 4))]
    assert min(similarity) > 0.98


def test_videos_of_other_classes_than_the_encoder_s_are_told(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "these videos have other classes than the encoder's"
    other = make_extract(tmp_path / "other", num_frames=(30,), first=3, labelled=True)  # odd alone, where the encoder's are even and odd
    export(run, tmp_path / "out", frames=other.folder, report=Reporter())
    assert words in capsys.readouterr().err
    assert read_features(tmp_path / "out").class_names == {0: "odd"}
    same = make_extract(tmp_path / "same", num_frames=(30, 8), first=3, labelled=True)
    export(run, tmp_path / "again", frames=same.folder, report=Reporter())
    assert words not in capsys.readouterr().err


def test_videos_without_labels_are_described_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labelled=False)
    table = read_features(export(run, tmp_path / "out").folder)
    assert table.label.tolist() == [-1] * 5
    assert table.splits == []
    assert table.group.tolist() == [0, 1, 2, 3, 4]
    assert (tmp_path / "out" / "videos.csv").read_text().splitlines()[0] == "id,source,label,label_name,group,frames,fps,seen"


def test_npy_and_parquet_hold_the_same_features(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    manifest = export(run, tmp_path / "out", also=("npy", "parquet"))
    assert {artifact.path for artifact in manifest.artifacts} == {"features.safetensors", "videos.csv", "features.npy", "features.parquet"}
    expected = read_features(manifest.folder).features
    np.testing.assert_array_equal(np.load(manifest.folder / "features.npy"), expected)
    frame = pd.read_parquet(manifest.folder / "features.parquet")
    assert frame["id"].tolist() == ["v000", "v001", "v002", "v003", "v004"]
    np.testing.assert_array_equal(np.stack(frame["features"].tolist()), expected)
    again = export(run, tmp_path / "again", also=("npy", "parquet"))
    assert again.artifacts == manifest.artifacts


def test_parquet_without_pyarrow_is_refused_before_any_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rspnet_cli.stages.export_features.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs the package pyarrow: install it with `pip install 'rspnet-cli\[parquet\]'`"):
        export(run, tmp_path / "out", also=("parquet",))
    assert not (tmp_path / "out").exists()


def test_a_broken_frame_file_stops_with_a_sentence_and_the_rest_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    file = run.extract.folder / "frames" / "v003.mp4"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"\xff" + content[len(content) // 2 + 1 :])
    with pytest.raises(InputError, match=r"v003\.mp4 .*rspnet extract --force"):
        export(run, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()
    file.write_bytes(content)
    assert export(run, tmp_path / "out").results["videos"] == 5


def test_features_that_are_not_finite_name_the_video(tmp_path: Path) -> None:
    extract = make_extract(tmp_path / "extract", num_frames=(6, 7))
    tensors = arrays(make_encoder(validated(PretrainConfig, SMALL), 1))
    tensors["backbone.bn1.weight"] = np.full(8, 3e38, np.float32)
    pretrain = make_pretrain(tmp_path / "pretrain", inputs={"extract": extract.folder}, tensors=tensors)
    with pytest.raises(RspnetError, match="features of video v000 are not finite"):
        export(Run(tmp_path, extract, pretrain), tmp_path / "out")


def test_frames_smaller_than_the_encoder_s_clips_are_enlarged_with_a_warning(tmp_path: Path) -> None:
    extract = make_extract(tmp_path / "extract", size=(20, 16), num_frames=(6, 7))
    pretrain = make_pretrain(tmp_path / "pretrain", inputs={"extract": extract.folder})
    notes = Notes()
    export(Run(tmp_path, extract, pretrain), tmp_path / "out", report=notes)
    assert any("2 of 2 videos are stored smaller than the 24 pixels of the encoder's clips" in line for line in notes.lines)


def test_an_extraction_that_has_changed_since_pretraining_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with begin_stage("extract", {}, inputs={}, out=run.extract.folder, force=True) as stage:
        stage.finish(results={})
    with pytest.raises(InputError, match=r"is not the extract that .* was made from"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [[], ["--random-init"]])
def test_several_processes_share_the_work_and_write_what_one_writes(run: Run, tmp_path: Path, settings: list[str]) -> None:
    def both(name: str) -> tuple[list[int], list[list[str]]]:
        command = ["export-features", str(run.pretrain.folder), "--out", str(tmp_path / name), "--json", "--quiet", *FLAGS, *settings]
        outputs = [tmp_path / f"{name}-{rank}" for rank in range(2)]
        codes = fork_ranks(lambda: main(command), outputs)
        return codes, [output.read_text().splitlines() for output in outputs]

    one = export(run, tmp_path / "one", random_init=bool(settings))
    codes, (document, silence) = both("two")
    assert codes == [0, 0], document
    two = read_manifest(tmp_path / "two", stage="export-features")
    assert (json.loads("".join(document)), silence) == (two.results, [])
    assert two.digest == one.digest
    assert two.artifacts == one.artifacts
    assert both("two")[0] == [0, 0]  # finished already


def test_what_fails_in_one_process_is_said_by_it_and_what_is_done_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, again = features.UniformClips.read, tmp_path / "again"

    def broken(self: features.UniformClips, row: int, room: Room) -> features.VideoClips | RspnetError:
        return InputError("v002 is damaged.") if row == 2 and not again.exists() else original(self, row, room)  # of rank 1

    monkeypatch.setattr(features.UniformClips, "read", broken)
    command = ["export-features", str(run.pretrain.folder), "--out", str(tmp_path / "out"), "--quiet", *FLAGS]
    outputs = [tmp_path / f"output-{rank}" for rank in range(2)]
    assert fork_ranks(lambda: main(command), outputs) == [1, 2]
    first, second = (output.read_text() for output in outputs)
    assert first.startswith("rspnet: Another process of this run has failed")
    assert second == "rspnet: v002 is damaged.\n"
    assert {path.name for path in (tmp_path / "out" / "unfinished" / "pieces").iterdir()} == {
        "00000000-00000002.safetensors",
        "00000004-00000005.safetensors",
    }
    again.touch()
    assert fork_ranks(lambda: main(command), outputs) == [0, 0]
    assert read_manifest(tmp_path / "out").artifacts == export(run, tmp_path / "one").artifacts


def test_a_moved_work_directory_still_works(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    export(run, run.folder / "export-features")
    moved = run.folder.rename(tmp_path / "moved")
    manifest = read_manifest(moved / "export-features", stage="export-features")
    assert manifest.input("pretrain").input("extract").digest == run.extract.digest
    again = export_features(ExportConfig.model_validate(SETTINGS), pretrain=moved / "pretrain", out=moved / "export-features")
    assert again.digest == manifest.digest


def test_bfloat16_features_are_close_to_float32_and_are_warned_of_where_they_are_slow(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rspnet_cli.devices.computes_bf16", lambda _: False)
    notes = Notes()
    exact = read_features(export(run, tmp_path / "fp32", report=notes).folder).features
    assert notes.lines == []
    rounded = read_features(export(run, tmp_path / "bf16", precision="bf16", report=notes).folder).features
    assert notes.lines[0].startswith("warning: this CPU has no instructions for bfloat16")
    assert not np.array_equal(exact, rounded)
    assert np.linalg.norm(exact - rounded) / np.linalg.norm(exact) < 0.03


def test_a_full_disk_is_said_and_the_export_continues_once_there_is_room(
    run: Run, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(96)
    filler = disk / "filler"
    filler.write_bytes(bytes(80 * 1024))  # 16 KiB left, of whole pages: room for the lock, the state and a piece or two
    with pytest.raises(DiskFullError, match=r"The disk is full: .* needs .* Make room and type the same command again"):
        export(run, disk / "out")
    assert not (disk / "out" / "manifest.json").exists()
    assert list((disk / "out" / "unfinished" / "pieces").glob("*.safetensors"))
    filler.unlink()
    assert export(run, disk / "out").artifacts == export(run, tmp_path / "whole").artifacts
