"""`rspnet pretrain` as it is typed: in processes of its own where kills matter, otherwise through `main`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import Manifest, read_manifest
from tests.extracted import make_extract
from tests.processes import ROOT, children_of, is_alive, wait_until

RESULT_KEYS = ["videos", "epochs", "steps", "loss", "loss_avid", "loss_rsp", "avid_top1", "avid_top5", "rsp_accuracy", "best_epoch"]
TINY = [
    *("--set", "model.width=0.1", "--set", "model.embedding_dim=8", "--set", "clip.size=16", "--set", "clip.frames=4"),
    *("--set", "moco.queue_size=8", "--set", "moco.mask_same_video=true", "--set", "run.log_interval=1"),
    *("--batch-size", "4", "--epochs", "3", "--workers", "0"),
]


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with a finished extract."""
    folder = tmp_path_factory.mktemp("work") / "rspnet-run"
    make_extract(folder / "extract")
    return folder


def hashes(manifest: Manifest) -> dict[str, str]:
    return {artifact.path: artifact.sha256 for artifact in read_manifest(manifest.folder, verify_all=True).artifacts}


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def start(*args: object, cwd: Path, stderr: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rspnet_cli", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with stderr.open("w") as file:
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=file, text=True)


def test_it_works_as_typed_and_is_found_finished(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work_dir.parent)  # the default work directory is ./rspnet-run
    code, out, err = call(capsys, "pretrain", *TINY)
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()] == RESULT_KEYS
    assert "pretrain: 6/6 steps" in err
    assert "--recipe small-cpu" not in err  # it is a matter of seconds
    manifest = read_manifest(work_dir / "pretrain", stage="pretrain", verify_all=True)
    code, out, err = call(capsys, "pretrain", *TINY, "--json")
    assert (code, json.loads(out)) == (0, manifest.results)
    assert list(json.loads(out)) == RESULT_KEYS
    code, _, err = call(capsys, "pretrain", *TINY)
    assert (code, err.count("finished already")) == (0, 1)
    code, quiet, err = call(capsys, "pretrain", *TINY, "--quiet")
    assert (code, err) == (0, "")
    assert len(quiet.splitlines()) == len(RESULT_KEYS)
    # Another place by the environment, and the inputs by position.
    monkeypatch.setenv("RSPNET_WORK_DIR", str(tmp_path / "elsewhere"))
    code, _, err = call(capsys, "pretrain", work_dir / "extract" / "manifest.json", *TINY)
    assert code == 0, err
    assert hashes(read_manifest(tmp_path / "elsewhere" / "pretrain")) == hashes(manifest)


def test_a_changed_setting_is_refused_until_force_or_another_place(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--work-dir", work_dir, "--out", tmp_path / "pretrain", "--quiet")
    assert call(capsys, "pretrain", *place, *TINY, "--epochs", "1")[0] == 0
    before = hashes(read_manifest(tmp_path / "pretrain"))
    code, out, err = call(capsys, "pretrain", *place, *TINY, "--epochs", "2", "--lr", "0.01")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for words in ("optim.epochs was 1, now 2", "optim.lr was 0.00625, now 0.01", "--force", "--out"):
        assert words in err
    assert hashes(read_manifest(tmp_path / "pretrain")) == before
    assert call(capsys, "pretrain", *place, *TINY, "--epochs", "2", "--lr", "0.01", "--force")[0] == 0
    assert read_manifest(tmp_path / "pretrain").results["epochs"] == 2


def test_sources_of_settings_win_in_their_order(work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.toml").write_text("[optim]\nlr = 0.11\nweight_decay = 0.01\nsgd_momentum = 0.5\n[run]\nseed = 3\n")
    code, _, err = call(
        *(capsys, "pretrain", "--work-dir", work_dir, "--out", tmp_path / "pretrain", "--quiet", *TINY, "--epochs", "1"),
        *("--config", tmp_path / "my.toml", "--set", "optim.lr=0.12", "--set", "optim.weight_decay=0.02", "--lr", "0.13"),
    )
    assert code == 0, err
    config = read_manifest(tmp_path / "pretrain").config
    assert (config["optim"]["lr"], config["optim"]["weight_decay"], config["optim"]["sgd_momentum"]) == (0.13, 0.02, 0.5)
    assert (config["run"]["seed"], config["optim"]["batch_size"], config["model"]["backbone"]) == (3, 4, "r3d18")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--batch-size", "12", "--set", "moco.queue_size=12"], "10 videos to train on, fewer than a batch of 12"),
        (["--set", "clip.size=64"], "rspnet extract"),
        (["--set", "moco.queue_size=2"], "moco.queue_size 2"),
        (["--device", "tpu"], "--device tpu"),
        (["--split", "3"], "split 3"),
        (["--set", "objective.avid_weight=0"], "moco.queue_size has no effect"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_no_folder(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    code, out, err = call(capsys, "pretrain", "--work-dir", work_dir, "--out", tmp_path / "a" / "b", *TINY, *args)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err
    assert os.listdir(tmp_path) == []


def test_killed_with_its_workers_the_same_command_ends_with_the_same_bytes(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of a process of its own, in the middle of a long run; a second one meanwhile is told who is there."""
    arguments = ("pretrain", work_dir / "extract", *TINY, "--epochs", "12", "--quiet")
    running = start(*arguments, "--out", tmp_path / "killed", "--workers", "1", cwd=tmp_path, stderr=tmp_path / "stderr")
    index = tmp_path / "killed" / "unfinished" / "checkpoints" / "index.json"
    wait_until(lambda: index.exists() or running.poll() is not None, "a checkpoint", seconds=120)
    code, out, err = call(capsys, *arguments, "--out", tmp_path / "killed")
    assert (code, out) == (1, "")
    assert f"process {running.pid} on" in err
    assert len(err.splitlines()) == 1
    children = children_of(running.pid)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    epochs_before = json.loads(index.read_text())["state"]["position"]["epoch"]
    assert 1 <= epochs_before < 12
    code, out, err = call(capsys, *arguments, "--out", tmp_path / "killed", "--json")
    assert code == 0, err
    assert read_manifest(tmp_path / "killed").environment["resumed"] is True
    assert call(capsys, *arguments, "--out", tmp_path / "whole")[0] == 0
    killed, whole = (read_manifest(tmp_path / name, verify_all=True) for name in ("killed", "whole"))
    assert hashes(killed) == hashes(whole)
    assert killed.digest == whole.digest
    assert json.loads(out) == whole.results
    wait_until(lambda: not any(is_alive(child) for child in children), "the killed run's workers end", seconds=30)


def test_the_next_stage_names_an_unfinished_pretrain(work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pretrain"
    (out / "unfinished").mkdir(parents=True)
    code, _, err = call(capsys, "export-features", out, "--out", tmp_path / "export")
    assert code == 2
    assert "unfinished" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "export").exists()
