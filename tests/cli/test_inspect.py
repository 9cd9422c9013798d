"""`rspnet inspect` as typed: the tree, --verify, --diff, --json, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import read_manifest
from tests.evaluation.tables import make_export, make_table


@pytest.fixture
def work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features and an evaluation of them."""
    monkeypatch.chdir(tmp_path)
    make_export(
        tmp_path / "rspnet-run/export-features", make_table(spread=2.0), config={"name": "[bold]ünï[/bold]", "pool": {"kind": "avg"}}
    )
    assert main(["eval-retrieval", "--quiet"]) == 0
    return tmp_path / "rspnet-run"


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_the_tree_shows_stages_settings_hashes_and_figures(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["inspect", "rspnet-run/eval-retrieval"]) == 0
    printed = capsys.readouterr()
    evaluation, export = read_manifest(work_dir / "eval-retrieval"), read_manifest(work_dir / "export-features")
    for text in (
        evaluation.digest[:16],
        export.digest[:16],
        export.artifacts[0].sha256[:16],
        f"recall.1 {round(evaluation.results['recall']['1'], 6)}",
        'name "[bold]ünï[/bold]"',
        'config pool: kind "avg"',
        "features.safetensors",
    ):
        assert text in printed.out
    assert printed.out.index("eval-retrieval") < printed.out.index("export-features")
    assert printed.err == ""


def test_json_holds_the_nested_manifests(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["inspect", "rspnet-run/eval-retrieval/manifest.json", "--json", "--verify", "--diff", "rspnet-run/eval-retrieval"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["lineage"]["stage"] == "eval-retrieval"
    assert document["lineage"]["inputs"][0]["results"] == read_manifest(work_dir / "export-features").results
    assert document["verified"]["files"] == 3
    assert document["verified"]["faults"] == []
    assert document["differences"] == []


def test_verify_exits_2_and_names_each_fault(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "rspnet-run/eval-retrieval", "--verify", "--quiet"]) == 0
    assert "3 files" in capsys.readouterr().out
    spoil(work_dir / "export-features/features.safetensors")
    (work_dir / "eval-retrieval/neighbours.csv").unlink()
    assert main(["inspect", "rspnet-run/eval-retrieval", "--verify", "--quiet"]) == 2
    printed = capsys.readouterr()
    assert "neighbours.csv is missing" in printed.err
    assert "features.safetensors was changed" in printed.err
    assert "that are not what they were: 2" in printed.err
    assert main(["inspect", "rspnet-run/eval-retrieval", "--verify", "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["verified"]["faults"]) == 2


def test_without_verify_a_changed_file_does_not_hide_the_lineage(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(work_dir / "export-features/features.safetensors")
    assert main(["inspect", "rspnet-run/eval-retrieval"]) == 0
    assert "export-features" in capsys.readouterr().out


def test_diff_lists_what_differs(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval-retrieval", "--topk", "3", "--out", "other", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["inspect", "rspnet-run/eval-retrieval", "--diff", "other"]) == 0
    printed = capsys.readouterr().out
    assert "config.topk" in printed
    assert "[3]" in printed
    assert "export-features" not in printed
    assert main(["inspect", "other", "--diff", "other"]) == 0
    assert "No differences" in capsys.readouterr().out
    assert main(["inspect", "other", "--diff", "rspnet-run/export-features"]) == 2
    assert "name two of one stage" in capsys.readouterr().err


def test_diff_says_in_one_sentence_that_only_the_place_of_inputs_differs(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval-retrieval", "--out", "deep/down/eval", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["inspect", "rspnet-run/eval-retrieval", "--diff", "deep/down/eval"]) == 0
    assert capsys.readouterr().out == (
        "Equal but for where their inputs lie, which manifests name by relative paths and digests hold (eval-retrieval: "
        "../export-features/manifest.json here, ../../../rspnet-run/export-features/manifest.json there).\n"
    )
    named = replace(make_table(spread=2.0), metadata={"backbone": "none", "clips": "2", "extract_digest": "another"})
    make_export(work_dir / "deep/export-features", named, config={"name": "[bold]ünï[/bold]", "pool": {"kind": "avg"}})
    assert main(["inspect", "rspnet-run/export-features", "--diff", "rspnet-run/deep/export-features"]) == 0
    assert "1 difference\n" in (printed := capsys.readouterr().out)
    assert "lie" not in printed
    assert main(["eval-retrieval", "rspnet-run/deep/export-features", "--out", "other", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["inspect", "rspnet-run/eval-retrieval", "--diff", "other"]) == 0
    assert "features.safetensors holds digests" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 99}', "[" * 100_000])
def test_what_is_no_manifest_is_refused_in_one_line(work_dir: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (work_dir / "eval-retrieval/manifest.json").write_text(content)
    capsys.readouterr()
    assert main(["inspect", "rspnet-run/eval-retrieval"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
