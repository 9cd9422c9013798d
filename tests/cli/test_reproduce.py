"""`rspnet recipes` and `rspnet reproduce` as typed: tables, JSON, exit codes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from tests.pretrained import make_pretrain


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_recipes_are_listed_with_their_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "recipes")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for words in ("16 x 112 px", "256", "0.4", "200", "ucf101 74.3", "ucf101 retrieval@1 41.1", "140 h on 4 V100"):
        assert words in lines["r3d18"]
    assert lines["small-cpu"].rstrip().endswith("ours")
    assert lines["r3d50"].rstrip().endswith("no published number")
    assert "89.9 after s3dg (200 epochs); 93.7 after s3dg-1000 (1,000 epochs)" in lines["ucf101-s3dg"]
    code, out, _ = call(capsys, "recipes", "--json")
    assert code == 0
    assert {row["name"] for row in json.loads(out)} >= {"r3d18", "small-cpu", "ucf101-r3d18"}


def test_a_recipe_is_printed_as_toml_that_config_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "recipes", "c3d")
    assert code == 0
    assert tomllib.loads(out)["optim"]["batch_size"] == 128
    (tmp_path / "mine.toml").write_text(out.replace("batch_size = 128", "batch_sizes = 128"))
    code, _, err = call(capsys, "pretrain", tmp_path, "--config", tmp_path / "mine.toml")
    assert (code, "did you mean 'optim.batch_size'" in err) == (2, True)
    code, out, _ = call(capsys, "recipes", "c3d", "--json")
    assert tomllib.loads(json.loads(out)["toml"])["optim"]["batch_size"] == 128


def test_what_is_missing_is_said_with_the_published_figure_and_its_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, "reproduce", "ucf101-retrieval-c3d", "--work-dir", tmp_path / "none")
    assert (code, err) == (0, "")
    for words in (
        "recall@50",
        "87.7",
        "supplement of the paper, Table 1",
        "150 h on 4 V100",
        "rspnet import-checkpoint model_best_c3d_200epoch.pth.tar",
    ):
        assert words in out
    assert f"rspnet eval-retrieval {tmp_path}/none/features-ucf101-retrieval-c3d --topk 1 5 10 20 50 --out" in out
    assert out.rstrip().endswith("There is no figure of yours to compare.")
    assert not (tmp_path / "none").exists()


def test_differences_are_a_table_and_nothing_is_claimed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_pretrain(tmp_path / "pretrain")  # an eighth of the width, clips of 4 frames, one process of nobody knows what
    code, out, _ = call(capsys, "reproduce", "r3d18", "--work-dir", tmp_path)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["pretrain", "r3d18", "model.width", "0.125", "1.0"] in rows
    assert ["pretrain", "r3d18", "clip.frames", "4", "16"] in rows
    assert ["pretrain", "r3d18", "optim.batch_size", "64", "256"] in rows
    assert "Not comparable: " in out
    assert "No known setting differs" not in out
    code, out, _ = call(capsys, "reproduce", "r3d18", tmp_path / "pretrain", "--json")
    document = json.loads(out)
    assert (code, document["verdict"], document["published"]) == (0, "settings differ", None)
    assert {
        "stage": "pretrain",
        "of": "r3d18",
        "key": "clip.size",
        "own": 24,
        "published": 112,
        "note": None,
        "is_data": False,
    } in document["differences"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("recipes r3d19", "did you mean 'r3d18'?"),
        ("reproduce ucf101", "There is no recipe or published result 'ucf101'"),
        ("reproduce r3d18 nowhere", "nowhere"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    code, out, err = call(capsys, *arguments.split())
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
