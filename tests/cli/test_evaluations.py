"""`rspnet eval-retrieval` and `rspnet eval-classification` as typed: spellings, places, output, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import read_manifest
from tests.evaluation.tables import make_export, make_table

COMMANDS = ("eval-retrieval", "eval-classification")


@pytest.fixture
def work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work directory with features of a trained and of an untrained encoder, in the default place."""
    folder = tmp_path / "rspnet-run"
    make_export(folder / "export-features", make_table(classes=7, spread=2.0))
    make_export(folder / "random-init" / "export-features", make_table(classes=7, spread=9.0), config={"random_init": True})
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    "typed", ["--topk 1 5 10", "--topk 1 --topk 5 --topk 10", "--topk 1,5,10", "--topk=1,5 --topk 10", "--topk 10 5,1"]
)
def test_every_spelling_of_topk_means_the_same(work_dir: Path, capsys: pytest.CaptureFixture[str], typed: str) -> None:
    assert main(["eval-retrieval", *typed.split(), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["recall"]) == ["1", "5", "10"]


def test_topk_may_stand_before_the_features(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval-retrieval", str(work_dir / "export-features"), "--topk", "1", "5", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["recall"]) == ["1", "5"]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_the_manifests_results_alone(work_dir: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == read_manifest(work_dir / command, stage=command).results
    assert printed.err != ""  # warnings and progress are not lost
    assert main([command, "--json", "--quiet"]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (printed.out, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_untrained_encoders_results_have_a_place_of_their_own_and_stand_beside(
    work_dir: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command]) == 0
    printed = capsys.readouterr()
    assert "untrained (" not in printed.out
    assert f"rspnet export-features --random-init, rspnet {command} rspnet-run/random-init/export-features," in printed.err
    assert main([command, "rspnet-run/random-init/export-features"]) == 0
    printed = capsys.readouterr()
    assert "untrained (" not in printed.out
    assert "--random-init" not in printed.err
    theirs = read_manifest(work_dir / "random-init" / command, stage=command).results
    assert main([command]) == 0
    printed = capsys.readouterr()
    assert "finished already" in printed.err
    assert "--random-init" not in printed.err
    figure = theirs["recall"]["1"] if command == "eval-retrieval" else theirs["linear"]["top1"]
    row = next(line for line in printed.out.splitlines() if line.split()[:1] == ["1"] or "linear top-1" in line)
    assert "untrained (" in printed.out
    assert f"{figure:.3f}" in row.split(")")[1]
    ours = read_manifest(work_dir / command).results
    assert f"{ours['recall']['1'] if command == 'eval-retrieval' else ours['linear']['top1']:.3f}" in row.split(")")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_baseline_that_does_not_fit_is_not_shown_and_the_reason_is_said(
    work_dir: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    protocol = "leave-one-out" if command == "eval-retrieval" else "folds"
    assert main([command, "rspnet-run/random-init/export-features", "--protocol", protocol]) == 0
    capsys.readouterr()
    assert main([command]) == 0
    printed = capsys.readouterr()
    assert "untrained (" not in printed.out
    assert f"is not shown beside: its protocol is {protocol}, not split." in printed.err


def test_the_retrieval_table_names_clips_pooling_distance_and_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, words in (("none", "gallery of centre squares, complete."), ("reference", "gallery randomly cropped and flipped")):
        export = tmp_path / kind / "export-features"
        make_export(export, make_table(), config={"clips": 10, "pool": "max", "gallery_augment": kind, "split": "1"})
        assert main(["eval-retrieval", "--work-dir", str(tmp_path / kind)]) == 0
        assert f"Clips: 10, pooling: max, cosine; {words}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_baseline_with_another_gallery_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    settings = {"clips": 10, "pool": "avg", "split": "1"}
    make_export(tmp_path / "export-features", make_table(), config=settings | {"gallery_augment": "reference"})
    untrained = settings | {"gallery_augment": "none", "random_init": True}
    make_export(tmp_path / "random-init/export-features", make_table(), config=untrained)
    place = ["--work-dir", str(tmp_path)]
    assert main([command, str(tmp_path / "random-init/export-features"), *place]) == 0
    assert main([command, *place]) == 0
    printed = capsys.readouterr()
    assert "its gallery is centre, not reference." in printed.err
    assert "untrained (" not in printed.out


def test_features_of_another_kind_stand_beside_no_encoders_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_export(tmp_path / "export-features", make_table(), config={"split": "1"})  # of no encoder: neither clips nor pooling
    untrained = {"clips": 10, "pool": "avg", "split": "1", "random_init": True}
    make_export(tmp_path / "random-init/export-features", make_table(), config=untrained)
    place = ["--work-dir", str(tmp_path)]
    assert main(["eval-retrieval", str(tmp_path / "random-init/export-features"), *place]) == 0
    assert main(["eval-retrieval", *place]) == 0
    assert "is not shown beside: it is " in (told := capsys.readouterr().err)
    assert "None" not in told


def test_a_baseline_of_another_pretraining_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.pretrained import make_pretrain

    for name in ("one", "two"):
        make_pretrain(tmp_path / name, files={"name.txt": name.encode()})
    table = make_table()
    make_export(tmp_path / "w/export-features", table, inputs={"pretrain": tmp_path / "one"})
    make_export(tmp_path / "w/random-init/export-features", table, config={"random_init": True}, inputs={"pretrain": tmp_path / "two"})
    place = ["--work-dir", str(tmp_path / "w")]
    assert main(["eval-retrieval", str(tmp_path / "w/random-init/export-features"), *place]) == 0
    assert main(["eval-retrieval", *place]) == 0
    printed = capsys.readouterr()
    assert "it belongs to another pretrain." in printed.err
    assert "untrained (" not in printed.out


def test_tables_fit_eighty_columns_and_nothing_is_cut(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([command, "rspnet-run/random-init/export-features", "--quiet"]) == 0
        assert main([command, "--quiet"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if "/" not in line]  # a path may be as long as it is
    assert sum("(" in line and line.count("(") == 2 for line in lines) > 10  # rows with both intervals
    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)


def test_without_labels_retrieval_gives_neighbours_and_classification_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_export(tmp_path / "rspnet-run/export-features", make_table(labelled=False, split=False))
    monkeypatch.chdir(tmp_path)
    assert main(["eval-retrieval"]) == 0
    printed = capsys.readouterr()
    assert "No labels, so no recall." in printed.out
    assert (tmp_path / "rspnet-run/eval-retrieval/neighbours.csv").exists()
    assert main(["eval-classification"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "`rspnet eval-retrieval` still gives the neighbours" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "rspnet-run/eval-classification").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("eval-retrieval --topk 1 99", "--topk 99 is more than the 63 videos"),
        ("eval-retrieval --split 2", "There is no split 2: these videos have only split 1"),
        ("eval-retrieval --protocol folds", "protocol"),
        ("eval-retrieval --device tpu", "--device tpu"),
        ("eval-retrieval nowhere", "nowhere"),
        ("eval-retrieval rspnet-run/export-features/videos.csv", "videos.csv"),
        ("eval-classification --split 7", "There is no split 7"),
        ("eval-classification --probe svm", "probe"),
        ("eval-classification --seed -1", "seed"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(work_dir: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1
    assert sorted(path.name for path in work_dir.iterdir()) == ["export-features", "random-init"]


def test_an_edited_features_file_is_refused(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = work_dir / "export-features" / "features.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for command in COMMANDS:
        assert main([command]) == 2
        assert "its sha256 differs" in capsys.readouterr().err
