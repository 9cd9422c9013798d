"""pretrain as a whole, on really encoded videos: what it writes, and that neither kills nor workers change a byte of it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import rspnet_cli
from rspnet_cli.cli.main import main
from rspnet_cli.config import PretrainConfig
from rspnet_cli.errors import BusyError, DiskFullError, InputError, RspnetError
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages.pretrain import pretrain
from rspnet_cli.training.loop import _Run
from rspnet_cli.training.pretraining import build_moco
from tests.extracted import NUM_FRAMES, make_extract
from tests.listener import Listener
from tests.processes import KILLED, ROOT, children_of, fork, fork_ranks, is_alive, kill, kill_at_change, wait, wait_until
from tests.sentences import one_sentence, refused

RESULT_KEYS = ["videos", "epochs", "steps", "loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "rsp_accuracy", "best_epoch"]
TINY: dict[str, dict[str, Any]] = {
    "model": {"width": 0.1, "head": "convbn", "embedding_dim": 8},
    "clip": {"frames": 4, "size": 16},
    "moco": {"queue_size": 8, "momentum": 0.9, "mask_same_video": True},
    "optim": {"batch_size": 4, "epochs": 3, "lr": 0.02},
    "run": {"log_interval": 1, "keep_every": 2, "workers": 0},
}


def settings(**sections: dict[str, Any]) -> PretrainConfig:
    return validated(PretrainConfig, {name: TINY.get(name, {}) | sections.get(name, {}) for name in TINY.keys() | sections.keys()})


def run(frames: Path | Manifest, out: Path, config: PretrainConfig | None = None, **how: Any) -> Manifest:
    folder = frames.folder if isinstance(frames, Manifest) else frames
    return pretrain(config or settings(), frames=folder, out=out, **how)


def refusal(*words: str, frames: Path | Manifest, out: Path, config: PretrainConfig) -> str:
    with pytest.raises(InputError) as caught:
        run(frames, out, config)
    assert not out.exists(), "a refused command leaves no folder behind"
    return refused(caught.value, *words)


def artifacts(manifest: Manifest) -> dict[str, str]:
    """Name -> hash, checked against the files themselves."""
    checked = read_manifest(manifest.folder, stage="pretrain", verify_all=True)
    return {artifact.path: artifact.sha256 for artifact in checked.artifacts}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(extracted: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """An uninterrupted run; not to be written to."""
    return run(extracted, tmp_path_factory.mktemp("whole") / "pretrain")


def test_a_run_writes_what_its_manifest_says(whole: Manifest, extracted: Manifest) -> None:
    assert list(whole.results) == RESULT_KEYS
    assert (whole.results["videos"], whole.results["epochs"], whole.results["steps"]) == (10, 3, 6)
    assert all(isinstance(whole.results[key], float) for key in RESULT_KEYS[3:9])
    names = {f"checkpoints/{name}.safetensors" for name in ("last", "last.optimizer", "best", "epoch_2")}
    assert artifacts(whole).keys() == names | {"encoder.safetensors", "initial.safetensors", "metrics.csv", "videos.csv"}
    assert whole.inputs[0].stage == "extract"
    assert whole.input("extract").digest == extracted.digest
    assert whole.config["run"] | {"workers": None} == {
        **{"seed": 0, "device": "cpu", "precision": "fp32", "compile": False, "checkpoint_activations": False, "log_interval": 1},
        **{"keep_every": 2, "processes": 1},
        "workers": None,
    }
    assert "workers" not in whole.config["run"]
    assert whole.environment["workers"] == 0
    assert whole.environment["device"] == "cpu"
    assert whole.environment["logs"][0] == "timings.csv"
    assert sorted(os.listdir(whole.folder)) == sorted(
        [
            ".lock",
            "checkpoints",
            "encoder.safetensors",
            "initial.safetensors",
            "manifest.json",
            "metrics.csv",
            "videos.csv",
            *whole.environment["logs"],
        ]
    )
    assert rows(whole.folder / "videos.csv")[3].keys() == {"id", "used", "sha256"}
    assert all(row["used"] == "True" for row in rows(whole.folder / "videos.csv"))


def test_the_metrics_table_has_a_row_per_interval_and_the_last_epoch_is_the_result(whole: Manifest) -> None:
    table = rows(whole.folder / "metrics.csv")
    assert list(table[0]) == [
        *("epoch", "step", "lr", "loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "avid_other_top1", "avid_other_top5"),
        *("rsp_accuracy", "grad_norm", "queue_filled"),
    ]
    assert [int(row["step"]) for row in table] == [1, 2, 3, 4, 5, 6]
    assert [int(row["epoch"]) for row in table] == [1, 1, 2, 2, 3, 3]
    assert [float(row["queue_filled"]) for row in table] == [0.5, 1, 1, 1, 1, 1]
    for key in ("loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "rsp_accuracy"):
        assert whole.results[key] == pytest.approx((float(table[4][key]) + float(table[5][key])) / 2, rel=1e-5)
    epochs = [sum(float(row["loss"]) for row in table[start : start + 2]) for start in (0, 2, 4)]
    assert whole.results["best_epoch"] == 2 + int(np.argmin(epochs[1:]))  # the first epoch began with random keys


def test_the_encoder_is_the_query_encoder_of_last_and_initial_is_that_before_the_first_step(whole: Manifest) -> None:
    encoder, last = load_file(whole.folder / "encoder.safetensors"), load_file(whole.folder / "checkpoints/last.safetensors")
    assert encoder.keys() == {name.removeprefix("query.") for name in last if name.startswith("query.")}
    assert all((value == last[f"query.{name}"]).all() for name, value in encoder.items())
    initial = load_file(whole.folder / "initial.safetensors")
    expected = build_moco(settings()).query.state_dict()
    assert initial.keys() == expected.keys() == encoder.keys()
    assert all((value == expected[name].numpy()).all() for name, value in initial.items())
    weights = [name for name in encoder if name.endswith("weight")]
    assert all((encoder[name] != initial[name]).any() for name in weights), "something was not trained"
    videos = last["queue_videos"]
    assert sorted(videos.tolist()) != [-1] * 8
    assert set(videos.tolist()) <= set(range(10))


def test_the_encoder_loads_and_describes_clips(whole: Manifest) -> None:
    encoder = rspnet_cli.load_encoder(whole.folder)
    clips = torch.randint(0, 256, (2, 3, 4, 20, 24), dtype=torch.uint8)
    assert encoder(clips).shape == (2, encoder.channels)
    assert torch.isfinite(encoder(clips)).all()


def test_a_finished_run_is_found_again_also_with_other_workers_and_touched_nowhere(whole: Manifest, extracted: Manifest) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [whole.folder, *whole.folder.rglob("*")]}
    for workers in (0, 3, None):
        assert run(extracted, whole.folder, settings(run={"workers": workers})) == whole
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [whole.folder, *whole.folder.rglob("*")]} == before


@pytest.mark.parametrize("workers", [1, 2])
def test_no_number_of_workers_changes_metrics_or_weights(whole: Manifest, extracted: Manifest, tmp_path: Path, workers: int) -> None:
    other = run(extracted, tmp_path / "pretrain", settings(run={"workers": workers}))
    assert artifacts(other) == artifacts(whole)
    assert other.digest == whole.digest
    assert other.results == whole.results


def test_the_callers_random_state_and_threads_are_left_alone(extracted: Manifest, tmp_path: Path) -> None:
    before = torch.get_rng_state(), torch.get_num_threads()
    threads = threading.enumerate()
    run(extracted, tmp_path / "pretrain", settings(optim={"epochs": 1}))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert threading.enumerate() == threads


def test_another_seed_is_another_run(whole: Manifest, extracted: Manifest, tmp_path: Path) -> None:
    other = run(extracted, tmp_path / "pretrain", settings(run={"seed": 1}))
    assert other.digest != whole.digest
    for name in ("encoder.safetensors", "initial.safetensors", "metrics.csv"):
        assert artifacts(other)[name] != artifacts(whole)[name]
    with pytest.raises(InputError) as caught:
        run(extracted, other.folder, settings(run={"seed": 2}))
    refused(caught.value, "run.seed was 1, now 2")


def test_killed_after_any_checkpoint_it_ends_with_the_same_bytes(whole: Manifest, extracted: Manifest, tmp_path: Path) -> None:
    for epoch in (1, 2):
        out = tmp_path / f"pretrain-{epoch}"
        index = out / "unfinished" / "checkpoints" / "index.json"

        def reached(index: Path = index, epoch: int = epoch) -> bool:
            return index.exists() and json.loads(index.read_text())["state"]["position"]["epoch"] >= epoch

        pid = fork(lambda out=out: run(extracted, out, settings(run={"workers": 1})))  # type: ignore[misc]
        wait_until(reached, "a checkpoint")
        kill(pid)
        wait(pid)
        again = run(extracted, out)
        assert again.environment["resumed"] is True
        assert artifacts(again) == artifacts(whole)
        assert again.digest == whole.digest


def test_killed_at_any_change_of_its_folder_it_ends_with_the_same_bytes(whole: Manifest, extracted: Manifest, tmp_path: Path) -> None:
    number = 4
    kills = 0
    while True:
        out = tmp_path / str(number) / "pretrain"
        killed = kill_at_change(lambda out=out: run(extracted, out), number)  # type: ignore[misc]
        again = run(extracted, out)
        assert artifacts(again) == artifacts(whole), f"killed before change {number}"
        assert not (out / "unfinished").exists()
        shutil.rmtree(out)
        if not killed:
            break
        kills += 1
        number += 29  # prime to whatever a checkpoint takes, so that every kind of moment comes up
    assert kills >= 4


def test_two_runs_at_once_are_refused_and_the_first_one_ends_well(whole: Manifest, extracted: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "pretrain"
    pid = fork(lambda: run(extracted, out))
    try:
        wait_until((out / "unfinished" / "state.json").exists, "the first run has begun")
        with pytest.raises(BusyError) as caught:
            run(extracted, out)
        one_sentence(caught.value, f"process {pid} ", str(out))
    finally:
        assert wait(pid) == 0
    assert artifacts(read_manifest(out)) == artifacts(whole)


@pytest.mark.parametrize("weights", [{"avid_weight": 0.0}, {"rsp_weight": 0.0}])
def test_with_one_loss_alone_it_runs_and_the_total_is_that_one(extracted: Manifest, tmp_path: Path, weights: dict[str, float]) -> None:
    results = run(extracted, tmp_path / "pretrain", settings(objective=weights)).results
    remaining = "loss_rsp" if "avid_weight" in weights else "loss_avid"
    assert results["loss"] == pytest.approx(results[remaining])


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "aug_plus, several speeds, AdamW": {
        "augment": {"order": "aug_plus"},
        "clip": {"speeds": (4, 2, 1)},
        "optim": {"name": "adamw", "lr": 0.001},
    },
    "split batch norm, no momentum": {"moco": {"bn_splits": 2, "momentum": 0.0}, "optim": {"sgd_momentum": 0.0, "warmup_epochs": 1}},
    "passes over parts": {"optim": {"accumulate": 2}, "run": {"checkpoint_activations": True}},
    "bf16": {"run": {"precision": "bf16"}, "model": {"head": "conv"}},
    "resampled": {"clip": {"frame_rate": 10.0, "frames": 3}, "model": {"head": "mlp"}},
    "r2plus1d": {"model": {"backbone": "r2plus1d", "width": 0.05}, "clip": {"size": 32}},
}


@pytest.mark.parametrize("sections", VARIANTS.values(), ids=VARIANTS.keys())
def test_other_settings_run_and_resume_with_the_same_bytes(extracted: Manifest, tmp_path: Path, sections: dict[str, Any]) -> None:
    sections = sections | {"optim": sections.get("optim", {}) | {"epochs": 2}}
    first = run(extracted, tmp_path / "first", settings(**sections))
    index = tmp_path / "second" / "unfinished" / "checkpoints" / "index.json"
    pid = fork(lambda: run(extracted, tmp_path / "second", settings(**sections)))
    wait_until(lambda: index.exists() or (tmp_path / "second" / "manifest.json").exists(), "a checkpoint")
    kill(pid)
    wait(pid)
    assert artifacts(run(extracted, tmp_path / "second", settings(**sections))) == artifacts(first)
    assert all(np.isfinite(value).all() for value in load_file(first.folder / "encoder.safetensors").values())


def test_bfloat16_without_instructions_for_it_is_warned_of_before_the_first_step(
    extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, slow = settings(run={"precision": "bf16"}, optim={"epochs": 1}), "30 times as long as in fp32, or more: use --precision fp32."
    for computes in (False, True):
        monkeypatch.setattr("rspnet_cli.devices.computes_bf16", lambda _, computes=computes: computes)
        listener = Listener()
        run(extracted, tmp_path / str(computes), config, report=listener)
        assert listener.heard(slow) is not computes
    again = Listener()
    run(extracted, tmp_path / "False", config, report=again)
    assert not again.heard("no instructions"), "a finished run does nothing slowly"


def test_a_batch_in_passes_trains_as_one_with_batch_norm_parts_and_that_is_said(
    extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_epoch = {"optim": {"epochs": 1}, "moco": {"bn_splits": 2}}
    parts = run(extracted, tmp_path / "parts", settings(**one_epoch), report=Reporter())
    assert "accumulate" not in capsys.readouterr().err
    passes = run(extracted, tmp_path / "passes", settings(optim={"epochs": 1, "accumulate": 2}), report=Reporter())
    told = [line for line in capsys.readouterr().err.splitlines() if "accumulate" in line]
    assert told == [
        "warning: with optim.accumulate 2 batch norm sees 2 of a process' 4 videos at a time: the result is that of 2 times as many "
        "processes, not that of one pass over the batch."
    ]
    assert (passes.config["moco"]["bn_splits"], passes.config["optim"]["accumulate"]) == (2, 2)
    for mine, other in zip(rows(passes.folder / "metrics.csv"), rows(parts.folder / "metrics.csv"), strict=True):
        for key in ("loss", "loss_avid", "loss_rsp", "avid_top1", "rsp_accuracy"):  # in float64 equal: tests/training/test_parts.py
            assert float(mine[key]) == pytest.approx(float(other[key]), rel=1e-3), (key, mine["step"])
    out = tmp_path / "no"
    refusal(
        "bn_splits 2 ",
        "accumulate 3 ",
        "multiple",
        frames=extracted,
        out=out,
        config=settings(optim={"accumulate": 3}, moco={"bn_splits": 2}),
    )
    refusal("optim.accumulate 4", "multiple of 4", frames=extracted, out=out, config=settings(optim={"accumulate": 4}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts, as dynamo imports them
def test_compiled_it_says_so_and_writes_the_same_names(
    whole: Manifest, extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # dynamo's part alone: inductor's would take a minute.
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    monkeypatch.setattr("rspnet_cli.training.fit.check_compiler", lambda device: None)
    compiled = run(extracted, tmp_path / "pretrain", settings(run={"compile": True}), report=Reporter())
    lines = [line for line in capsys.readouterr().err.splitlines() if "compil" in line]
    assert lines[0] == "pretrain: compiling, which makes the first pass last a minute or more."
    assert lines[1].startswith("pretrain: compiled, in a first step of ")
    assert len(lines) == 2
    assert artifacts(compiled).keys() == artifacts(whole).keys()
    for name in ("encoder.safetensors", "checkpoints/last.safetensors", "checkpoints/last.optimizer.safetensors"):
        mine, other = load_file(compiled.folder / name), load_file(whole.folder / name)
        assert mine.keys() == other.keys()
        for key, value in other.items():
            np.testing.assert_allclose(mine[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_a_full_gpu_is_one_sentence_that_says_what_to_do(extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **how: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation.")

    monkeypatch.setattr("rspnet_cli.training.pretraining.rspnet_step", full)
    with pytest.raises(RspnetError) as caught:
        run(extracted, tmp_path / "pretrain")
    one_sentence(caught.value, "step 1", "optim.accumulate=2", "run.checkpoint_activations=true", "--batch-size")


def test_jpeg_frames_train_too(tmp_path: Path) -> None:
    frames = make_extract(tmp_path / "extract", num_frames=(12, 9, 14, 10), codec="jpeg")
    config = settings(optim={"epochs": 1}, moco={"queue_size": 4})
    assert run(frames, tmp_path / "pretrain", config).results["steps"] == 1
    picture = frames.folder / "frames" / "v002" / "img_00003.jpg"
    picture.write_bytes(bytes(picture.stat().st_size))
    with pytest.raises(InputError) as caught:
        run(frames, tmp_path / "again", config)
    refused(caught.value, str(picture.parent), "--force")


def test_the_train_videos_of_the_split_are_used_or_all(tmp_path: Path) -> None:
    parts = ["train", "test", "train", "train", "test", "train", "val", "train"]
    frames = make_extract(tmp_path / "extract", num_frames=[10 + video for video in range(8)], parts=parts)
    manifest = run(frames, tmp_path / "split", settings(optim={"epochs": 1}))
    assert manifest.results["videos"] == 5
    used = [row["used"] for row in rows(manifest.folder / "videos.csv")]
    assert used == [str(part == "train") for part in parts]
    queue = load_file(manifest.folder / "checkpoints/last.safetensors")["queue_videos"]
    assert {parts[video] for video in queue if video >= 0} == {"train"}
    everything = run(frames, tmp_path / "all", settings(optim={"epochs": 1}, data={"split": "all"}))
    assert everything.results["videos"] == 8
    assert everything.config["data"]["split"] == "all"
    refusal("no split 2", "splits there: 1", "--split", frames=frames, out=tmp_path / "no", config=settings(data={"split": "2"}))


def test_a_split_of_a_set_without_splits_is_refused(extracted: Manifest, tmp_path: Path) -> None:
    refusal("split 2", "--split", frames=extracted, out=tmp_path / "no", config=settings(data={"split": "2"}))
    config = settings(data={"split": "all"}, optim={"epochs": 1})
    assert run(extracted, tmp_path / "all", config).results["videos"] == 10


def test_settings_that_do_not_fit_the_videos_are_refused(extracted: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "no"
    text = refusal(
        "10 videos", "batch of 12", frames=extracted, out=out, config=settings(optim={"batch_size": 12}, moco={"queue_size": 24})
    )
    assert "--batch-size 10 " in text
    works = settings(optim={"batch_size": 10, "epochs": 1}, moco={"queue_size": 10})
    assert run(extracted, tmp_path / "works", works).results["steps"] == 1
    refusal("moco.queue_size 3", "batch (4)", frames=extracted, out=out, config=settings(moco={"queue_size": 3}))
    refusal("clip.size 48", "32", "rspnet extract", "--short-side 48", frames=extracted, out=out, config=settings(clip={"size": 48}))
    refusal("optim.batch_size 4", "bn_splits 3", "multiple of 3", frames=extracted, out=out, config=settings(moco={"bn_splits": 3}))
    refusal("at least 2", frames=extracted, out=out, config=settings(moco={"bn_splits": 4}))
    refusal("optim.batch_size 1 ", frames=extracted, out=out, config=settings(optim={"batch_size": 1}))
    refusal("--device", "tpu", frames=extracted, out=out, config=settings(run={"device": "tpu"}))
    slowfast = settings(model={"backbone": "slowfast-r50"})
    refusal("slowfast-r50", "4 frames", "clip.frames must be a multiple of 8", frames=extracted, out=out, config=slowfast)
    refusal("backbone", "r3d81", "r3d18", frames=extracted, out=out, config=settings(model={"backbone": "r3d81"}))
    if not torch.cuda.is_available():
        refusal("--device cuda", "--device cpu", frames=extracted, out=out, config=settings(run={"device": "cuda"}))


def test_a_missing_unfinished_or_wrong_input_is_refused(whole: Manifest, tmp_path: Path) -> None:
    refusal("rspnet extract", frames=tmp_path / "nothing", out=tmp_path / "no", config=settings())
    refusal("'pretrain'", "'extract'", frames=whole.folder, out=tmp_path / "no", config=settings())


def test_a_queue_is_trimmed_to_whole_batches(extracted: Manifest, tmp_path: Path) -> None:
    manifest = run(extracted, tmp_path / "pretrain", settings(moco={"queue_size": 11}, optim={"epochs": 1}))
    assert manifest.config["moco"]["queue_size"] == 8
    assert load_file(manifest.folder / "checkpoints/last.safetensors")["queue"].shape == (8, 8)


def test_avid_figures_mean_nothing_before_the_queue_is_full_and_are_left_out(
    extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two steps an epoch: a queue of three steps is full within the second epoch, one of four at its end.
    for queue_size, epochs in ((12, 2), (16, 2), (16, 1)):
        config = settings(moco={"queue_size": queue_size}, optim={"epochs": epochs})
        results = run(extracted, tmp_path / f"{queue_size}-{epochs}", config, report=Reporter()).results
        assert f"do not fill the queue of {queue_size} keys before the last epoch begins" in (err := capsys.readouterr().err)
        assert "there will be no A-VID accuracy and no best epoch: " in err
        assert (results["avid_top1"], results["avid_top5"], results["best_epoch"]) == (None, None, None), (queue_size, epochs)
        assert isinstance(results["rsp_accuracy"], float)
    config = settings(moco={"queue_size": 16}, optim={"epochs": 1, "best_from": "start"})  # as released
    results = run(extracted, tmp_path / "start", config, report=Reporter()).results
    assert "there will be no A-VID accuracy: " in capsys.readouterr().err
    assert (results["avid_top1"], results["best_epoch"]) == (None, 1)
    config = settings(moco={"queue_size": 16}, optim={"epochs": 3})
    results = run(extracted, tmp_path / "full", config, report=Reporter()).results
    assert "do not fill" not in capsys.readouterr().err
    assert isinstance(results["avid_top1"], float)
    assert results["best_epoch"] == 3


def test_short_videos_and_a_large_queue_are_warned_of(extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(moco={"mask_same_video": False}, clip={"frames": 9}, optim={"epochs": 1})
    run(extracted, tmp_path / "pretrain", config, report=Reporter())
    err = capsys.readouterr().err
    warnings = [line for line in err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 3
    assert "the queue holds 8 keys and there are 10 videos" in warnings[0]
    assert "2 steps of 4 videos do not fill the queue" in warnings[1]
    assert f"{sum(length < 18 for length in NUM_FRAMES)} of 10 videos have fewer than the 18 frames" in warnings[2]


def test_a_damaged_frame_file_stops_it_and_a_restored_one_lets_it_go_on(extracted: Manifest, tmp_path: Path) -> None:
    shutil.copytree(extracted.folder, tmp_path / "extract")
    path = tmp_path / "extract" / "frames" / "v005.mp4"
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    for workers in (0, 1):
        with pytest.raises(InputError) as caught:
            run(tmp_path / "extract", tmp_path / "pretrain", settings(run={"workers": workers}))
        refused(caught.value, str(path), "restore it", "--force")
    path.write_bytes(good)
    assert run(tmp_path / "extract", tmp_path / "pretrain").results["steps"] == 6


def test_a_diverging_run_names_the_step_and_keeps_a_checkpoint_that_is_whole(extracted: Manifest, tmp_path: Path) -> None:
    # Weight decay 10 at rate 100 multiplies the weights by -999 a step: beyond float32 after a dozen.
    config = settings(optim={"lr": 100.0, "weight_decay": 10.0, "epochs": 40})
    with pytest.raises(RspnetError) as caught:
        run(extracted, tmp_path / "pretrain", config)
    assert caught.value.exit_code == 1
    text = one_sentence(caught.value, "at step ", "optim.lr", str(tmp_path / "pretrain" / "unfinished" / "checkpoints"))
    step = int(text.partition("at step ")[2].split()[0])
    assert 2 < step < 40
    with pytest.raises(InputError) as unfinished:
        read_manifest(tmp_path / "pretrain", stage="pretrain")
    refused(unfinished.value, "unfinished")
    (last,) = (tmp_path / "pretrain" / "unfinished" / "checkpoints").glob(f"last-{(step - 1) // 2 * 2}.safetensors")
    assert all(np.isfinite(value).all() for value in load_file(last).values())


def test_a_damaged_checkpoint_is_refused_and_what_is_advised_helps(whole: Manifest, extracted: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "pretrain"
    pid = fork(lambda: run(extracted, out))
    wait_until((out / "unfinished" / "checkpoints" / "index.json").exists, "a checkpoint")
    kill(pid)
    wait(pid)
    for path in (out / "unfinished" / "checkpoints").glob("last-*"):
        path.write_bytes(path.read_bytes()[:1000])
    for force in (False, True):
        with pytest.raises(InputError) as caught:
            run(extracted, out, force=force)
        refused(caught.value, "damaged", f"remove {out / 'unfinished'}")
    shutil.rmtree(out / "unfinished")
    assert artifacts(run(extracted, out)) == artifacts(whole)


def test_on_a_full_disk_it_stops_and_goes_on_once_there_is_room(
    whole: Manifest, extracted: Manifest, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(40 * 1024)
    filler = disk / "filler"
    filler.write_bytes(bytes(26 * 2**20))  # the first checkpoint of 7 MiB fits, the second beside it does not
    with pytest.raises(DiskFullError) as caught:
        run(extracted, disk / "pretrain")
    one_sentence(caught.value, "The disk is full", str(disk / "pretrain"), "bytes")
    assert caught.value.exit_code == 1
    assert (disk / "pretrain" / "unfinished" / "checkpoints" / "index.json").exists()
    filler.unlink()
    again = run(extracted, disk / "pretrain")
    assert again.environment["resumed"] is True
    assert artifacts(again) == artifacts(whole)


def test_a_moved_work_directory_goes_on_where_it_stopped(whole: Manifest, extracted: Manifest, tmp_path: Path) -> None:
    shutil.copytree(extracted.folder, tmp_path / "a" / "extract")
    pid = fork(lambda: run(tmp_path / "a" / "extract", tmp_path / "a" / "pretrain"))
    wait_until((tmp_path / "a" / "pretrain" / "unfinished" / "checkpoints" / "index.json").exists, "a checkpoint")
    kill(pid)
    wait(pid)
    (tmp_path / "a").rename(tmp_path / "b")
    again = run(tmp_path / "b" / "extract", tmp_path / "b" / "pretrain")
    assert again.environment["resumed"] is True
    assert artifacts(again) == artifacts(whole)


def torchrun(processes: int, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
    return subprocess.run([*command, "-m", "rspnet_cli", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def flags(config: PretrainConfig) -> list[str]:
    """The settings that differ from the recipe's, as they are typed."""
    typed = []
    for section, values in config.model_dump(mode="json", exclude_unset=True).items():
        for key, value in values.items():
            typed += ["--set", f"{section}.{key}={json.dumps(value)}"]
    return typed


def test_two_processes_train_as_one_with_two_batch_norm_parts(extracted: Manifest, tmp_path: Path) -> None:
    """Rank 0 alone prints and writes; the draws are those of the global batch, so the losses are those of one process."""
    common: dict[str, Any] = {"model": {"head": "linear"}, "optim": {"epochs": 2}}
    alone = run(extracted, tmp_path / "one", settings(**common, moco={"bn_splits": 2}))
    done = torchrun(2, "pretrain", str(extracted.folder), "--out", str(tmp_path / "two"), "--json", *flags(settings(**common)))
    assert done.returncode == 0, done.stderr
    two = read_manifest(tmp_path / "two", stage="pretrain", verify_all=True)
    assert json.loads(done.stdout) == two.results  # one document, not two
    assert two.config["run"]["processes"] == 2
    assert artifacts(two).keys() == artifacts(alone).keys()
    assert artifacts(two)["initial.safetensors"] == artifacts(alone)["initial.safetensors"]
    # The sums of two gradients are rounded in another order, and batch norm over two clips blows that up.
    for mine, other in zip(rows(two.folder / "metrics.csv"), rows(alone.folder / "metrics.csv"), strict=True):
        assert (mine["epoch"], mine["step"], mine["lr"]) == (other["epoch"], other["step"], other["lr"])
        for key in ("loss", "loss_avid", "loss_rsp"):
            assert float(mine[key]) == pytest.approx(float(other[key]), rel=0.02), (key, mine["step"])
    last, one = (load_file(manifest.folder / "checkpoints/last.safetensors") for manifest in (two, alone))
    assert last["queue_videos"].tolist() == one["queue_videos"].tolist()
    assert last["queue_ptr"].tolist() == one["queue_ptr"].tolist()


def test_with_videos_repeated_three_processes_fill_a_batch_that_the_videos_alone_do_not(extracted: Manifest, tmp_path: Path) -> None:
    """Ten videos are repeated to twelve: a step an epoch, of four videos each."""
    config = settings(optim={"batch_size": 12, "epochs": 2, "last_videos": "repeat"}, moco={"queue_size": 12})
    command = ["pretrain", str(extracted.folder), "--out", str(tmp_path / "three"), "--quiet", *flags(config)]
    outputs = [tmp_path / f"output-{rank}" for rank in range(3)]
    assert fork_ranks(lambda: main(command), outputs) == [0, 0, 0], outputs[0].read_text()
    three = read_manifest(tmp_path / "three", stage="pretrain", verify_all=True)
    assert (three.config["optim"]["last_videos"], three.results["steps"], three.results["best_epoch"]) == ("repeat", 2, 2)
    keys = load_file(three.folder / "checkpoints/last.safetensors")["queue_videos"].tolist()
    assert (len(keys), set(keys)) == (12, set(range(10)))
    # One process repeats none, and three that drop have no whole batch: see the refusal below.
    refusal("There are 10 videos", "fewer than a batch of 12", "--batch-size 10", frames=extracted, out=tmp_path / "one", config=config)


def test_two_processes_that_were_killed_end_with_the_same_bytes(extracted: Manifest, tmp_path: Path) -> None:
    def both(out: Path, *, die: bool = False) -> list[int]:
        def one() -> int:
            if die:
                save = _Run._save

                def save_and_die(self: _Run, **how: Any) -> None:
                    save(self, **how)
                    os._exit(KILLED)

                _Run._save = save_and_die  # type: ignore[method-assign]
            return main(["pretrain", str(extracted.folder), "--out", str(out), "--quiet", *flags(settings())])

        return fork_ranks(one, [tmp_path / "output"] * 2)

    assert both(tmp_path / "whole") == [0, 0]
    assert both(tmp_path / "killed", die=True) == [KILLED, KILLED]
    assert both(tmp_path / "killed") == [0, 0], (tmp_path / "output").read_text()
    killed, whole = read_manifest(tmp_path / "killed"), read_manifest(tmp_path / "whole")
    assert killed.environment["resumed"] is True
    assert artifacts(killed) == artifacts(whole)


def test_what_all_processes_meet_is_said_once_and_what_one_meets_by_that_one(extracted: Manifest, tmp_path: Path) -> None:
    shutil.copytree(extracted.folder, tmp_path / "extract")

    def both(name: str, *arguments: str) -> tuple[list[int], list[list[str]]]:
        outputs = [tmp_path / f"{name}-{rank}" for rank in range(2)]
        command = ["pretrain", str(tmp_path / "extract"), "--out", str(tmp_path / name), *flags(settings()), *arguments]
        codes = fork_ranks(lambda: main(command), outputs)
        return codes, [output.read_text().splitlines() for output in outputs]

    codes, (lines, silence) = both("too-large", "--batch-size", "12", "--set", "moco.queue_size=12")
    assert codes == [2, 2]
    assert (len(lines), silence) == (1, [])
    assert "There are 10 videos to train on" in lines[0]
    codes, (lines, silence) = both("unknown", "--set", "optim.lrr=1")
    assert (codes, len(lines), silence) == ([2, 2], 1, [])
    assert not (tmp_path / "too-large").exists()
    run(extracted, tmp_path / "finished")
    codes, (lines, silence) = both("finished", "--quiet")
    assert (codes, len(lines), silence) == ([2, 2], 1, [])
    assert "run.processes was 1, now 2" in lines[0]
    # A damaged video is in the share of one of the two in the first epoch.
    damage = tmp_path / "extract" / "frames" / "v005.mp4"
    damage.write_bytes(bytes(damage.stat().st_size))
    codes, (first, second) = both("damaged", "--quiet")
    assert sorted(codes) == [1, 2]
    assert (len(first), len(second)) == (1, 1 if codes[1] == 2 else 0)
    assert str(damage) in (first + second)[-1 if codes[1] == 2 else 0]
    if codes[0] == 1:
        assert "Another process" in first[0]


def test_an_interrupt_keeps_the_state_and_ends_the_workers(extracted: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "pretrain"
    arguments = [
        "pretrain",
        str(extracted.folder),
        "--out",
        str(out),
        "--quiet",
        *flags(settings(optim={"epochs": 10_000}, run={"workers": 1})),
    ]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)):
        output = tmp_path / f"output-{number}"
        pid = fork(lambda: main(arguments), output=output)
        wait_until((out / "unfinished" / "checkpoints" / "index.json").exists, "a checkpoint")
        wait_until(lambda pid=pid: children_of(pid), "a worker has started")  # type: ignore[misc]
        children = children_of(pid)
        os.kill(pid, number)
        assert wait(pid) == code
        assert output.read_text().splitlines() == ["rspnet: interrupted; what a stage has done is kept, the same command goes on."]
        wait_until(lambda children=children: not any(is_alive(child) for child in children), "the workers end")  # type: ignore[misc]
        assert (out / "unfinished" / "checkpoints" / "index.json").exists()


def test_stopped_by_a_scheduler_no_step_is_lost_and_it_ends_with_the_same_bytes(
    whole: Manifest, extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", str(extracted.folder), "--out", str(tmp_path / "pretrain"), "--quiet", *flags(settings(run={"workers": 1}))]
    train_on, steps = _Run._train_on, []
    for number in (signal.SIGTERM, signal.SIGUSR1, None):

        def one(self: _Run[Any], batch: Any, number: int | None = number) -> None:
            steps.append(self.steps_done)
            if number is not None:  # in the first step of a run
                os.kill(os.getpid(), number)
            train_on(self, batch)

        monkeypatch.setattr(_Run, "_train_on", one)
        assert main(command) == (143 if number is not None else 0), capsys.readouterr().err
    assert steps == list(range(6))
    assert artifacts(read_manifest(tmp_path / "pretrain")) == artifacts(whole)


def test_two_processes_of_which_one_hears_a_signal_stop_together(extracted: Manifest, tmp_path: Path) -> None:
    def both(out: Path, stop_before: int | None = None) -> list[int]:
        def one() -> int:
            fetch = _Run._fetch

            def interrupted(self: _Run[Any], source: Any) -> Any:
                if self.steps_done == stop_before and os.environ["RANK"] == "1":
                    os.kill(os.getpid(), signal.SIGTERM)
                return fetch(self, source)

            _Run._fetch = interrupted  # type: ignore[method-assign]
            return main(["pretrain", str(extracted.folder), "--out", str(out), "--quiet", *flags(settings())])

        return fork_ranks(one, [tmp_path / f"{out.name}-{rank}" for rank in range(2)])

    assert both(tmp_path / "whole") == [0, 0]
    assert both(tmp_path / "stopped", stop_before=3) == [143, 143]
    lines, silence = ((tmp_path / f"stopped-{rank}").read_text().splitlines() for rank in range(2))
    assert (lines, silence) == (["rspnet: interrupted; what a stage has done is kept, the same command goes on."], [])
    index = json.loads((tmp_path / "stopped" / "unfinished" / "checkpoints" / "index.json").read_text())
    assert (index["state"]["position"]["epoch"], index["state"]["position"]["step"]) == (1, 1)
    assert both(tmp_path / "stopped") == [0, 0]
    stopped, whole = read_manifest(tmp_path / "stopped"), read_manifest(tmp_path / "whole")
    assert stopped.environment["resumed"] is True
    assert artifacts(stopped) == artifacts(whole)


def test_a_signal_to_the_whole_group_is_one_line(extracted: Manifest, tmp_path: Path) -> None:
    # As a terminal, `timeout` and a scheduler send it: the workers die of it while the run unwinds, or before it has heard of it.
    out = tmp_path / "pretrain"
    config = settings(optim={"epochs": 10_000}, run={"workers": 2})
    arguments = ["pretrain", str(extracted.folder), "--out", str(out), "--quiet", *flags(config)]

    def leads_a_group() -> int:
        os.setpgid(0, 0)
        return main(arguments)

    for workers_first in (False, True):
        output = tmp_path / f"output-{workers_first}"
        pid = fork(leads_a_group, output=output)
        wait_until(lambda pid=pid: len(children_of(pid)) == 2, "the workers have started")  # type: ignore[misc]
        wait_until((out / "unfinished" / "checkpoints" / "index.json").exists, "a checkpoint")
        if workers_first:
            for child in children_of(pid):
                os.kill(child, signal.SIGTERM)
            time.sleep(0.1)
        os.killpg(pid, signal.SIGTERM)
        assert wait(pid) == 143, output.read_text()
        assert output.read_text().splitlines() == ["rspnet: interrupted; what a stage has done is kept, the same command goes on."]


def test_a_killed_worker_is_one_sentence(extracted: Manifest, tmp_path: Path) -> None:
    # What the kernel does to the largest process when memory runs out.
    out = tmp_path / "pretrain"
    config = settings(optim={"epochs": 300}, run={"workers": 1})
    output = tmp_path / "output"
    pid = fork(lambda: main(["pretrain", str(extracted.folder), "--out", str(out), "--quiet", *flags(config)]), output=output)
    wait_until(lambda: children_of(pid), "a worker has started")
    wait_until((out / "unfinished" / "checkpoints" / "index.json").exists, "a checkpoint")
    kill(children_of(pid)[0])
    assert wait(pid) == 1
    (line,) = output.read_text().splitlines()
    assert "A worker process that reads clips was killed" in line
    assert "--workers" in line


def test_workers_of_a_killed_run_end_by_themselves_and_hold_nothing(extracted: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "pretrain"
    config = settings(optim={"epochs": 10_000}, run={"workers": 2})
    pid = fork(lambda: run(extracted, out, config))
    wait_until((out / "unfinished" / "checkpoints" / "index.json").exists, "a checkpoint")
    children = children_of(pid)
    assert len(children) == 2
    kill(pid)
    wait(pid)
    with pytest.raises(InputError) as caught:  # refused for its settings, not because the folder were in use
        run(extracted, out, settings())
    refused(caught.value, "optim.epochs was 10000, now 3")
    wait_until(lambda: not any(is_alive(child) for child in children), "the workers end", seconds=30)


def test_the_hash_of_a_file_is_that_in_the_manifest(whole: Manifest) -> None:
    for artifact in whole.artifacts:
        assert sha256_of(whole.folder / artifact.path) == artifact.sha256
