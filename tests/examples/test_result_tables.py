"""The tables that the demo and the three seeds end with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))  # the examples are scripts: they import what lies beside them

from result_tables import classification_table, markdown, retrieval_table  # noqa: E402
from three_seeds import figures, seeds_table  # noqa: E402


def write_manifest(folder: Path, results: dict[str, Any], **environment: Any) -> Path:
    """A manifest as far as the tables read it."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"results": results, "environment": environment}))
    return folder


def retrieval(recall: float) -> dict[str, Any]:
    return {
        "recall": {"1": recall, "5": 0.75},
        "chance": {"1": 0.0667, "5": 0.29},
        "interval": {"1": [recall - 0.05, recall + 0.05], "5": [0.7, 0.8]},
    }


def classification(top1: float) -> dict[str, Any]:
    accuracies = {"top1": top1, "top5": 0.9, "mean_class": 0.55, "interval": {"top1": [top1 - 0.1, top1 + 0.1]}}
    return {
        "linear": accuracies,
        "knn": accuracies | {"top1": 0.5, "interval": {"top1": [0.4, 0.6]}},
        "chance": {"top1": 0.067, "top5": 0.333},
    }


def test_a_table_is_aligned_with_the_first_column_to_the_left() -> None:
    assert markdown(["name", "x"], [["a", "1.5"], ["longer", "2"]]).splitlines() == [
        "| name   |   x |",
        "|--------|----:|",
        "| a      | 1.5 |",
        "| longer |   2 |",
    ]


def test_the_retrieval_table_has_a_row_for_each_and_chance(tmp_path: Path) -> None:
    folders = {name: write_manifest(tmp_path / name, retrieval(recall)) for name, recall in (("trained", 0.5), ("untrained", 0.2))}
    lines = retrieval_table(folders).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["trained", "0.500 [0.450, 0.550]", "0.750"]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["untrained", "0.200 [0.150, 0.250]", "0.750"]
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["chance", "0.067", "0.290"]


def test_the_classification_table_has_a_row_for_each_and_chance(tmp_path: Path) -> None:
    lines = classification_table({"trained": write_manifest(tmp_path / "trained", classification(0.6))}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[2] == ["trained", "0.600 [0.500, 0.700]", "0.900", "0.550", "0.500 [0.400, 0.600]"]
    assert cells[3] == ["chance", "0.067", "0.333", "", "0.067"]


def test_the_table_of_seeds_ends_with_the_means(tmp_path: Path) -> None:
    for seed, recall in ((0, 0.4), (1, 0.6)):
        folder = tmp_path / f"seed-{seed}"
        write_manifest(folder / "pretrain", {"rsp_accuracy": 0.9, "avid_top1": 0.3 + recall}, seconds=600 * (seed + 1), resumed=seed == 1)
        for place, lower in ((folder, 0.0), (folder / "random-init", 0.2)):
            write_manifest(place / "eval-retrieval", retrieval(recall - lower))
            write_manifest(place / "eval-classification", classification(recall - lower))
    lines = seeds_table({seed: figures(tmp_path / f"seed-{seed}") for seed in (0, 1)}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    names = ["recall@1", "recall@1, untrained", "linear top-1", "linear top-1, untrained"]
    assert cells[0] == ["seed", *names, "RSP accuracy", "A-VID top-1", "minutes"]
    recalls, linears = ["0.400 [0.350, 0.450]", "0.200 [0.150, 0.250]"], ["0.400 [0.300, 0.500]", "0.200 [0.100, 0.300]"]
    assert cells[2] == ["0", *recalls, *linears, "0.900", "0.700", "10.0"]
    assert cells[3][-3:] == ["0.900", "0.900", "20.0*"]  # the second run had been stopped and went on
    assert cells[4] == ["mean", "0.500", "0.300", "0.500", "0.300", "0.900", "0.800", "15.0"]


@pytest.mark.parametrize("script", ["demo.py", "make_videos.py", "three_seeds.py"])
def test_every_example_says_what_it_is_for(script: str) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "usage:" in done.stdout


def test_a_failing_command_ends_the_demo_with_its_exit_code(tmp_path: Path) -> None:
    flags = ["--work-dir", str(tmp_path / "run"), "--videos-per-class", "3"]  # too few for a train and a test group
    done = subprocess.run([sys.executable, str(EXAMPLES / "demo.py"), *flags], capture_output=True, text=True)
    assert done.returncode == 2
    assert "make_videos.py" in done.stdout
    assert "at least 5" in done.stderr
    assert not (tmp_path / "run").exists()
