"""`--tracker` as typed: a tracker of another package in processes of their own, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import Manifest, read_manifest
from tests.cli.test_pretrain import TINY
from tests.fake_tracker import events, install
from tests.finetuned import make_encoder_of, make_labelled
from tests.processes import ROOT, wait_until

EPOCHS = 10
STEPS = 2 * EPOCHS  # ten videos in batches of four


def start(args: list[str], installed: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{installed}"}
    command = [sys.executable, "-m", "rspnet_cli", *args]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_typed_again_a_foreign_tracker_has_every_step_once(extracted: Manifest, tmp_path: Path) -> None:
    installed, out = install(tmp_path / "installed"), tmp_path / "pretrain"
    args = ["pretrain", str(extracted.folder), "--out", str(out), *TINY, "--epochs", str(EPOCHS), "--tracker", "fake", "--json"]
    running = start(args, installed)
    log = out / "unfinished" / "trackers" / "fake" / "log.jsonl"
    wait_until(lambda: running.poll() is not None or (log.exists() and len(events(out / "unfinished", "log")) > 4), "figures", seconds=120)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    given = len(events(out / "unfinished", "log"))
    again = start(args, installed)
    printed, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert printed.startswith("{"), "what the tracker prints is no result"
    assert "figures also go to the tracker fake" in said
    steps = [event["step"] for event in events(out, "log")]
    assert steps == sorted(set(steps))
    # The one that the kill fell on may be missing.
    assert len(steps) >= STEPS - 1
    assert set(range(1, STEPS + 1)) - set(steps) <= {given + 1}
    first, second = events(out, "start")
    assert (first["stage"], first["id"], second["last_step"]) == ("pretrain", second["id"], pytest.approx(given, abs=1))
    manifest = read_manifest(out, stage="pretrain", verify_all=True)
    assert manifest.environment["tracker"] == "fake"
    assert first["settings"] == manifest.config


def test_it_changes_no_result_and_no_identity(
    extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "installed")))
    args = ["pretrain", str(extracted.folder), *TINY, "--epochs", "1", "--quiet"]
    for name in ("fake", "none"):
        assert main([*args, "--out", str(tmp_path / name), "--tracker", name]) == 0
    one, other = (read_manifest(tmp_path / name) for name in ("fake", "none"))
    assert (one.digest, one.artifacts) == (other.digest, other.artifacts)
    assert not (tmp_path / "none" / "trackers").exists()
    capsys.readouterr()
    # The same run for another tracker is finished already; --force leaves nothing of the former one.
    assert main([*args[:-1], "--out", str(tmp_path / "fake"), "--tracker", "none"]) == 0
    assert "finished already" in capsys.readouterr().err
    assert events(tmp_path / "fake", "log")
    assert main([*args, "--out", str(tmp_path / "fake"), "--tracker", "none", "--force"]) == 0
    assert not (tmp_path / "fake" / "trackers").exists()


def test_each_split_of_a_fine_tuning_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "installed")))
    encoder = make_encoder_of(make_labelled(tmp_path / "extract", parts=None), tmp_path / "pretrain")
    typed = [
        "--split",
        "all",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--workers",
        "0",
        "--set",
        "test.clips=1",
        "--set",
        "run.log_interval=1",
    ]
    out = tmp_path / "finetune"
    assert main(["finetune", str(encoder.folder), "--out", str(out), *typed, "--tracker", "fake", "--quiet"]) == 0
    starts = [events(folder, "start")[0] for folder in sorted(out.glob("split-*"))]
    assert [start["name"] for start in starts] == [f"finetune/split-{number}" for number in range(1, 6)]
    assert len({start["id"] for start in starts}) == 5
    assert any("epoch/selection_top1" in event["figures"] for event in events(out / "split-1", "log"))


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_an_unknown_name_is_refused_with_those_that_are_there(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "installed")))
    monkeypatch.chdir(tmp_path)
    assert main([command, "--tracker", "fkae"]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    for words in ("'fkae'", "did you mean 'fake'", "none", "rspnet.trackers"):
        assert words in err
    assert {path.name for path in tmp_path.iterdir()} == {"installed"}
