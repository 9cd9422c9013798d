"""`rspnet bench` as typed."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import Manifest
from rspnet_cli.stages.bench import convolutions, retrieval, step

TINY = ["--set", "clip.frames=4", "--set", "clip.size=16", "--set", "model.width=0.1", "--set", "moco.queue_size=8"]
TINY += ["--batch-size", "4", "--workers", "0", "--steps", "2"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small problems where the size is ours to choose."""
    monkeypatch.setattr(convolutions, "_SHAPES", ((8, 2, 8),))
    monkeypatch.setattr(convolutions, "_TIMED_S", 0.01)
    monkeypatch.setattr(retrieval, "_UCF101_GALLERY", 70)


def test_it_shows_parts_figures_and_a_verdict(extracted: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--work-dir", str(extracted.folder.parent), *TINY]) == 0
    out, err = capsys.readouterr()
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].startswith("step: ")
    assert "videos/s" in lines[0]
    assert "backbone r3d18" in lines[1]
    shares = [line for line in lines if line.endswith("%") and line.split()[0] in ("augmentation", "backward", "optimizer")]
    assert len(shares) == 3
    for name in ("data wait", "share of best in passes", "memory, host", "best flop per s"):
        assert any(line.startswith(name) for line in lines), name
    assert lines[-2].endswith(".")
    assert "step: 2/2 steps" in err


def test_json_is_the_object_of_the_help(extracted: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loader", "--work-dir", str(extracted.folder.parent), "--json", "--quiet", *TINY]) == 0
    out, err = capsys.readouterr()
    assert not [line for line in err.splitlines() if "waited for a core" not in line]
    found = json.loads(out)
    assert list(found) == ["machine", "measured", "left_out", "trace"]
    one = found["measured"]["loader"]
    assert list(one) == ["setup", "rate", "parts", "figures", "memory", "verdict"]
    assert list(one["rate"]) == ["unit", "median", "low", "high", "repeats"]
    assert one["setup"]["batch_size"] == 4


def test_of_export_the_batch_is_of_clips(extracted: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "export", "--work-dir", str(extracted.folder.parent), "--json", "--quiet", *TINY]) == 0
    assert json.loads(capsys.readouterr().out)["measured"]["export"]["setup"]["batch_size"] == 4


def test_interrupted_it_ends_its_workers_and_says_that_nothing_is_kept(
    extracted: Manifest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "take_step", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    options = [*TINY, "--workers", "1"]
    assert main(["bench", "step", "--work-dir", str(extracted.folder.parent), "--quiet", *options]) == 130
    assert capsys.readouterr() == ("", "rspnet: interrupted; nothing is kept to go on from, the same command begins anew.\n")
    assert not multiprocessing.active_children()


def test_nothing_to_measure_is_one_line_and_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--work-dir", str(tmp_path / "none")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rspnet: There is nothing to measure")
    assert err.count("\n") == 1
    assert not (tmp_path / "none").exists()
    for wrong in (["--steps", "0"], ["nonsense"], ["--set", "optim.batchsize=3"], ["--precision", "fp8"]):
        assert main(["bench", *wrong, "--work-dir", str(tmp_path / "none")]) == 2
        assert "Traceback" not in capsys.readouterr().err
