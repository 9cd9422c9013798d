"""`rspnet report` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from tests.evaluation.tables import make_export, make_table


@pytest.fixture
def work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work directory in the default place, with features that have no videos at hand."""
    make_export(tmp_path / "rspnet-run" / "export-features", make_table(spread=2.0))
    monkeypatch.chdir(tmp_path)
    assert main(["eval-retrieval", "--quiet"]) == 0
    return tmp_path / "rspnet-run"


def test_it_writes_into_the_work_directory_and_says_where_and_what_is_left_out(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["report"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Report: rspnet-run/report.html (0.1 MB, 0 clips)\n")
    assert "Left out: Training: There is no result of pretrain yet: run `rspnet pretrain`.\n" in printed
    page = (work_dir / "report.html").read_text(encoding="utf-8")
    assert "--work-dir" not in page
    assert "rspnet eval-retrieval --topk 1 5 10 20 --protocol split --split 1" in page


@pytest.mark.parametrize("typed", ["rspnet-run", "--work-dir rspnet-run", "rspnet-run --out page.html --seed 3 --max-mb 2"])
def test_json_is_the_object_of_the_help(work_dir: Path, capsys: pytest.CaptureFixture[str], typed: str) -> None:
    capsys.readouterr()
    assert main(["report", *typed.split(), "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    written = json.loads(printed.out)
    assert printed.err == ""
    assert list(written) == ["path", "bytes", "sections", "left_out", "clips"]
    assert Path(written["path"]).stat().st_size == written["bytes"]
    assert written["sections"] == ["retrieval", "per-class", "neighbours", "map", "lineage"]
    assert list(written["left_out"]) == ["Classification", "Confusion", "Fine-tuning", "Training"]


def test_the_environment_names_the_work_directory(work_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RSPNET_WORK_DIR", str(work_dir.rename(tmp_path / "elsewhere")))
    assert main(["report", "--quiet"]) == 0
    assert (tmp_path / "elsewhere" / "report.html").exists()


def test_two_work_directories_and_none_are_refused(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "rspnet-run", "--work-dir", "other"]) == 2
    assert "rspnet-run and --work-dir other" in capsys.readouterr().err
    assert main(["report", "nowhere"]) == 2
    assert "nowhere holds no stage" in capsys.readouterr().err
    assert not Path("nowhere").exists()
