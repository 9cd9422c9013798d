"""What a large set will cost, from what `rspnet bench` printed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import Manifest
from rspnet_cli.stages.bench import convolutions, retrieval

EXAMPLES = Path(__file__).parents[2] / "examples"

STORED = {"sample": 64, "frames_per_video": 100, "codec": "h264", "short_side": 128}
MEASURED: dict[str, Any] = {
    "extract": {"setup": STORED, "figures": {"frames_per_cpu_s": 2000.0, "bytes_per_frame": 1500.0}},
    "loader": {"figures": {"videos_per_s_in_process": 100.0}},
    "step": {"setup": {"backbone": "r3d18", "clip": "16x112x112", "device": "cpu", "precision": "bf16"}, "rate": {"median": 8.0}},
    "export": {
        "setup": {"backbone": "r3d18", "clip": "16x112x112", "clips": 10, "device": "cpu", "precision": "fp32"},
        "rate": {"median": 20.0},
    },
    "retrieval": {"setup": {"gallery": 10_000, "channels": 512, "device": "cpu"}, "rate": {"median": 1000.0}},
}
MACHINE = {"host": "here", "rspnet": "0.1.0", "cores": 2, "gpus": []}
SIZES = ["--videos", "240000", "--frames", "300", "--epochs", "2", "--queries", "20000"]


def run(bench: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EXAMPLES / "costs.py"), str(bench), *options], capture_output=True, text=True)


def printed(folder: Path, measured: dict[str, Any], *options: str, **left_out: str) -> tuple[list[list[str]], list[str]]:
    """The cells of the rows, and the lines below the table."""
    path = folder / "bench.json"
    path.write_text(json.dumps({"machine": MACHINE, "measured": measured, "left_out": left_out}))
    done = run(path, *(options or SIZES))
    assert done.returncode == 0, done.stderr
    table, below = done.stdout.split("\n\n")
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]], below.splitlines()


def test_every_stage_costs_its_size_divided_by_its_rate(tmp_path: Path) -> None:
    rows, below = printed(tmp_path, MEASURED)
    assert rows == [
        ["extract", "10.0 hours of a core", "240,000 x 300 frames / 2,000 frames per CPU second"],
        ["its store", "108.0 GB", "240,000 x 300 frames x 1,500 bytes"],
        ["pretrain, reading, 2 epochs", "1.3 hours of a core", "2 x 240,000 / 100.0 videos/s"],
        ["pretrain, steps, 2 epochs (r3d18, cpu, bf16)", "16.7 hours of the machine", "2 x 240,000 / 8.0 videos/s"],
        ["export-features (r3d18, cpu, fp32)", "33.3 hours of the machine", "240,000 x 10 clips / 20.0 clips/s"],
        ["eval-retrieval (cpu)", "7.3 minutes of the machine", "20,000 queries x 220,000 / 10,000,000 pairs/s"],
        ["its gallery in memory", "450.6 MB", "220,000 x 2,048 bytes"],
    ]
    (assumed,) = below
    assert "64 of them, 100 frames on average, stored as h264 with a short side of 128 pixels" in assumed
    assert "rspnet 0.1.0 on here (2 cores)" in assumed


def test_videos_are_as_long_as_the_measured_ones_unless_it_is_said(tmp_path: Path) -> None:
    rows, _ = printed(tmp_path, MEASURED, "--videos", "1200")
    assert rows[0][2] == "1,200 x 100 frames / 2,000 frames per CPU second"
    assert rows[5][2].startswith("100 queries x 1,100")


def test_what_was_not_measured_is_left_out_and_named_with_the_reason(tmp_path: Path) -> None:
    rows, below = printed(tmp_path, {"extract": MEASURED["extract"]}, loader="Too few videos.")
    assert [row[0] for row in rows] == ["extract", "its store"]
    assert below[1] == "Not measured: loader. Too few videos."
    assert below[2].startswith("Not measured: step. Run")
    assert len(below) == 5


def test_two_encoders_in_one_chain_are_told(tmp_path: Path) -> None:
    other = MEASURED["export"] | {"setup": MEASURED["export"]["setup"] | {"clip": "16x48x48"}}
    _, below = printed(tmp_path, MEASURED | {"export": other})
    assert "r3d18 16x112x112 in pretrain, r3d18 16x48x48 in export-features" in below[-1]


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    for content, options, words in (
        (None, SIZES, "cannot be read"),
        ("step: 30 videos/s", SIZES, "is not what `rspnet bench --json` of this version prints"),
        ('{"measured": {}, "machine": {"cores": 2}}', SIZES, "is not what `rspnet bench --json` of this version prints"),
        (json.dumps({"machine": MACHINE, "measured": MEASURED}), ["--videos", "9", "--queries", "9"], "leave no gallery"),
        ("{}", ["--videos", "0"], "0 is no whole number from 1 on"),
    ):
        if content is not None:
            path.write_text(content)
        done = run(path, *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr.splitlines()[-1]


def test_it_reads_what_bench_prints(
    extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(convolutions, "_SHAPES", ((8, 2, 8),))
    monkeypatch.setattr(retrieval, "_UCF101_GALLERY", 70)
    tiny = ("clip.frames=4", "clip.size=16", "model.width=0.1", "moco.queue_size=8")
    command = ["bench", "--batch-size", "4", "--workers", "0", "--steps", "1", "--json", "--quiet", "--work-dir"]
    assert main([*command, str(extracted.folder.parent), *(word for setting in tiny for word in ("--set", setting))]) == 0
    path = tmp_path / "bench.json"
    path.write_text(capsys.readouterr().out)
    done = run(path, "--videos", "1000")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2 + 7 + 2, "seven rows, and no complaint below what is assumed"
