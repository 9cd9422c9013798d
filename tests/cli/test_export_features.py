"""`rspnet export-features` as typed: flags, places, output, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import read_manifest
from tests.extracted import make_extract
from tests.pretrained import make_pretrain


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with two videos extracted and a pretraining of them."""
    folder = tmp_path_factory.mktemp("work") / "rspnet-run"
    extract = make_extract(folder / "extract", num_frames=(9, 12), parts=["train", "test"], labelled=True)
    make_pretrain(folder / "pretrain", inputs={"extract": extract.folder}, used={"v000": str(extract.digest)})
    return folder


def run(*args: object) -> int:
    return main(["export-features", "--device", "cpu", "--workers", "0", "--clips", "2", *map(str, args)])


def test_it_finds_its_input_in_the_work_directory_and_prints_results_alone_on_stdout(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("--work-dir", work_dir, "--out", out, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == read_manifest(out).results == {"videos": 2, "channels": 64, "clips": 2}
    assert "export-features: 2/2 videos" in printed.err
    assert run("--work-dir", work_dir, "--out", out) == 0
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()] == [["videos", "2"], ["channels", "64"], ["clips", "2"]]
    assert "finished already" in printed.err


def test_the_default_folders_of_the_trained_and_the_untrained_encoder(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work_dir.parent)  # the default work directory is ./rspnet-run
    assert run("--quiet") == 0
    assert run("--quiet", "--random-init") == 0
    assert read_manifest(work_dir / "export-features", stage="export-features").config["random_init"] is False
    assert read_manifest(work_dir / "random-init" / "export-features", stage="export-features").config["random_init"] is True


def test_every_flag_reaches_the_stage(work_dir: Path, tmp_path: Path) -> None:
    flags = "--pool max --checkpoint best --batch-size 3 --precision bf16 --also npy --set reestimate_bn=true --set clips=7 --quiet"
    assert run(work_dir / "pretrain", "--frames", work_dir / "extract", "--out", tmp_path / "out", *flags.split()) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.config == {
        "clips": 2,  # the flag is stronger than --set
        "pool": "max",
        **{"gallery_augment": "none", "split": None, "gallery_batch": None, "seed": None},
        "random_init": False,
        "checkpoint": "best",
        "reestimate_bn": True,
        "device": "cpu",
        "precision": "bf16",
        "batch_size": 3,
        "also": ["npy"],
    }
    assert manifest.environment["workers"] == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--clips 0", "clips (--clips) is 0: it should be greater than or equal to 1."),
        ("--pool mean", "pool (--pool) is 'mean': it should be 'avg' or 'max'."),
        ("--checkpoint newest", "checkpoint"),
        ("--checkpoint last --random-init", "checkpoint has no effect with random_init"),
        ("--set clip=5", "There is no setting 'clip'; did you mean 'clips'?"),
        ("--set clips", "--set clips: write it as key=value, for example --set clips=5."),
        ("--also hdf5", "also (--also) is 'hdf5': it should be 'npy' or 'parquet'."),
        ("--set batch_size=0", "batch_size is 0: it should be"),
        ("--device tpu", "--device tpu: use auto, cpu, cuda or mps."),
        ("--checkpoint epoch_40", "has no checkpoint 'epoch_40' (kept: best, epoch_2)"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_no_folder(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, sentence: str
) -> None:
    assert main(["export-features", "--work-dir", str(work_dir), "--out", str(tmp_path / "out"), *flags.split()]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_without_a_pretraining_it_says_what_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-features", "--work-dir", str(tmp_path / "none")]) == 2
    assert "rspnet pretrain" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_wrong_stage_is_named(work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work_dir / "extract", "--out", tmp_path / "out") == 2
    assert "is of stage 'extract', not 'pretrain'" in capsys.readouterr().err


def test_a_wrong_setting_is_refused_without_importing_torch() -> None:
    code = (
        "import sys; from rspnet_cli.cli.main import main; code = main(['export-features', '--pool', 'mean']);"
        "sys.exit(0 if code == 2 and not {'torch', 'av', 'pandas', 'sklearn'} & set(sys.modules) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_the_gallery_of_the_released_code_and_its_seed_are_flags(work_dir: Path, tmp_path: Path) -> None:
    flags = "--gallery-augment reference --split 1 --seed 4 --set gallery_batch=1 --quiet"
    assert run("--work-dir", work_dir, "--out", tmp_path / "out", *flags.split()) == 0
    config = read_manifest(tmp_path / "out").config
    expected = {"gallery_augment": "reference", "split": "1", "seed": 4, "gallery_batch": 1}
    assert {name: config[name] for name in expected} == expected
