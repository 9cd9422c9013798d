"""What a large set will cost, from what `rspnet bench` printed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"

MEASURED: dict[str, Any] = {
    "extract": {"figures": {"frames_per_cpu_s": 2000.0}},
    "loader": {"figures": {"videos_per_s_in_process": 100.0}},
    "step": {"setup": {"backbone": "r3d18", "device": "cpu", "precision": "bf16"}, "rate": {"median": 8.0}},
    "export": {"setup": {"clips": 10, "device": "cpu", "precision": "fp32"}, "rate": {"median": 20.0}},
    "retrieval": {"setup": {"gallery": 10_000, "channels": 512, "device": "cpu"}, "rate": {"median": 1000.0}},
}


def printed(folder: Path, measured: dict[str, Any]) -> list[list[str]]:
    """The cells of the rows."""
    (folder / "extract").mkdir()
    (folder / "extract" / "manifest.json").write_text(json.dumps({"results": {"bytes": 150_000, "frames": 100}}))
    (folder / "bench.json").write_text(json.dumps({"measured": measured}))
    options = ["--extract", str(folder / "extract"), "--videos", "240000", "--frames", "300", "--epochs", "2", "--queries", "20000"]
    command = [sys.executable, str(EXAMPLES / "costs.py"), str(folder / "bench.json"), *options]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_every_stage_costs_its_size_divided_by_its_rate(tmp_path: Path) -> None:
    assert printed(tmp_path, MEASURED) == [
        ["extract", "10.0 hours of a core", "240,000 x 300 frames / 2,000 frames per CPU second"],
        ["its store", "108.0 GB", "240,000 x 300 frames x 1,500 bytes"],
        ["pretrain, reading, 2 epochs", "1.3 hours of a core", "2 x 240,000 / 100.0 videos/s"],
        ["pretrain, steps, 2 epochs (r3d18, cpu, bf16)", "16.7 hours of the machine", "2 x 240,000 / 8.0 videos/s"],
        ["export-features (cpu, fp32)", "33.3 hours of the machine", "240,000 x 10 clips / 20.0 clips/s"],
        ["eval-retrieval (cpu)", "7.3 minutes of the machine", "20,000 queries x 220,000 / 10,000,000 pairs/s"],
        ["its gallery in memory", "450.6 MB", "220,000 x 2,048 bytes"],
    ]


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    assert [row[0] for row in printed(tmp_path, {"extract": MEASURED["extract"]})] == ["extract", "its store"]
