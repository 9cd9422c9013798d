"""`rspnet finetune` as typed: recipes, flags, places, output, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import read_manifest
from tests.finetuned import make_encoder_of, make_labelled

TINY = [*("--epochs", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu"), *("--set", "test.clips=2")]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with an extraction and a pretraining; not to be written to."""
    folder = tmp_path_factory.mktemp("work") / "rspnet-run"
    make_encoder_of(make_labelled(folder / "extract"), folder / "pretrain")
    return folder


@pytest.fixture
def work_dir(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for each test, in the default place."""
    folder = tmp_path / "rspnet-run"
    folder.mkdir()
    for name in ("extract", "pretrain"):
        (folder / name).symlink_to(inputs / name)
    monkeypatch.chdir(tmp_path)
    return folder


def row_of(out: str, name: str) -> str:
    """The row of the printed table that begins with a name."""
    return next(line.strip() for line in out.splitlines() if line.split()[:1] == [name])


def test_it_works_as_typed_with_the_recipe_that_goes_with_the_encoder(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", *TINY]) == 0
    printed = capsys.readouterr()
    manifest = read_manifest(work_dir / "finetune", stage="finetune", verify_all=True)
    assert "settings of the recipe small-cpu-finetune, which goes with the encoder" in printed.err
    assert (manifest.config["optim"]["name"], manifest.config["optim"]["epochs"], manifest.config["test"]["clips"]) == ("adamw", 1, 2)
    results = manifest.results
    lines = printed.out.splitlines()
    assert lines[0] == "Fine-tuning: 4 test videos, 2 classes (split 1)"
    low, high = results["interval"]["top1"]
    row = row_of(printed.out, "top-1")
    assert row.split() == ["top-1", f"{results['top1']:.3f}", f"({low:.3f}", "-", f"{high:.3f})", "0.500"]
    assert "Epoch 1 of 1: chosen on 2 videos held out of train." in lines
    assert "Tested with 2 clips per video, logits averaged." in lines
    assert "1 of the test videos were seen in pretraining." in lines
    assert "finetune: epoch 1/1:" in printed.err
    assert "test: 4/4 videos" in printed.err
    assert main(["finetune", *TINY, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == results
    assert "finished already" in printed.err
    assert main(["finetune", *TINY, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_random_start_has_a_place_of_its_own_and_stands_beside(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", *TINY, "--random-init", "--quiet"]) == 0
    assert "random start" not in capsys.readouterr().out
    theirs = read_manifest(work_dir / "random-init" / "finetune", stage="finetune").results
    assert main(["finetune", *TINY, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "random start (95 % interval)" in out
    row = row_of(out, "top-1")
    low, high = theirs["interval"]["top1"]
    assert row.endswith(f"{theirs['top1']:.3f} ({low:.3f} - {high:.3f})")
    assert max(len(line.rstrip()) for line in out.splitlines() if "/" not in line) <= 80
    # One that is not comparable is not shown, and the reason is said.
    assert main(["finetune", *TINY, "--linear", "--out", str(work_dir / "linear")]) == 0
    printed = capsys.readouterr()
    assert "random start" not in printed.out
    assert "is not shown beside: its model.linear is False, not True." in printed.err


def test_every_flag_reaches_the_stage(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work_dir / "my.toml").write_text("[optim]\nlr = 0.5\nweight_decay = 0.25\n[model]\nbackbone = 'r3d18'\nwidth = 0.125\n")
    flags = "--recipe hmdb51-r3d18 --split 1 --select-on last --linear --checkpoint best --lr 0.125 --precision bf16 --seed 4"
    more = [*("--set", "clip.frames=3"), *("--set", "clip.size=16"), *("--set", "optim.lr=0.25"), *("--config", str(work_dir / "my.toml"))]
    place = ["--out", str(work_dir / "other"), "--quiet", "--frames", str(work_dir / "extract")]
    assert main(["finetune", str(work_dir / "pretrain"), *TINY, *flags.split(), *more, *place]) == 0, capsys.readouterr().err
    config = read_manifest(work_dir / "other").config
    assert config["data"] == {"split": "1", "select_on": "last"}
    assert config["model"] == {"backbone": "r3d18", "width": 0.125, "checkpoint": "best", "random_init": False, "linear": True}
    optim = config["optim"]
    assert (optim["lr"], optim["weight_decay"], optim["schedule"], optim["batch_size"]) == (0.125, 0.25, "constant", 2)
    assert (config["run"]["precision"], config["run"]["seed"], config["clip"]["frames"]) == ("bf16", 4, 3)


def test_all_folds_have_a_column_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract = make_labelled(tmp_path / "extract", parts=None)
    make_encoder_of(extract, tmp_path / "pretrain")
    flags = ["--work-dir", str(tmp_path), *TINY, "--split", "all", "--linear"]
    assert main(["finetune", *flags]) == 0
    printed = capsys.readouterr()
    results = read_manifest(tmp_path / "finetune").results
    assert "Fine-tuning: 14 test videos, 2 classes (mean of 5 folds)" in printed.out
    row = row_of(printed.out, "top-1")
    assert row.split()[-5:] == [f"{results['splits'][str(fold)]['top1']:.3f}" for fold in range(1, 6)]
    assert "finetune: split 5." in printed.err


def test_a_tuned_network_is_tested_as_it_is(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", *TINY]) == 0
    capsys.readouterr()
    typed = ["finetune", "rspnet-run/finetune", "--epochs", "0", "--workers", "0", "--device", "cpu"]
    assert main(typed) == 2
    assert "holds what this finetune would start from: name another folder with --out" in capsys.readouterr().err
    assert main([*typed, "--out", "rspnet-run/test"]) == 0
    printed = capsys.readouterr()
    assert "recipe" not in printed.err
    assert "Tested as it was, without training." in printed.out.splitlines()
    assert read_manifest(work_dir / "test").results["clips"] == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--split 7", "split 7"),
        ("--select-on train", "data.select_on"),
        ("--recipe small-cpu", "'small-cpu' is a recipe of pretrain, not of finetune"),
        ("--recipe ucf101-c3d", "backbone r3d18"),
        ("--checkpoint epoch_9 --batch-size 2", "has no checkpoint 'epoch_9' (kept: best, epoch_2)"),
        ("--checkpoint last --random-init", "model.checkpoint has no effect"),
        ("--set optim.lrr=1", "did you mean 'optim.lr'"),
        ("--lr 0", "optim.lr"),
        ("--batch-size 20", "videos to train on, fewer than a batch of 20"),
        ("--device tpu", "--device tpu"),
        ("--epochs 0", "there must be a fine-tuned network to test"),
        ("--epochs 0 --lr 0.1", "optim.lr has no effect, because optim.epochs is 0"),
        ("--epochs 0 --select-on test", "data.select_on has no effect"),
        ("nowhere", "nowhere"),
        ("rspnet-run/extract", "is of stage 'extract', not 'pretrain' or 'finetune'"),
        ("--frames rspnet-run/pretrain", "is of stage 'pretrain', not 'extract'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(work_dir: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    assert main(["finetune", "--quiet", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1
    assert sorted(path.name for path in work_dir.iterdir()) == ["extract", "pretrain"]


def test_without_a_pretraining_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--work-dir", str(tmp_path / "none")]
    assert main(["finetune", *place]) == 2
    assert "rspnet pretrain" in capsys.readouterr().err
    assert main(["finetune", *place, "--random-init"]) == 2
    assert "name one with --set model.backbone=r3d18" in capsys.readouterr().err
    assert main(["finetune", *place, "--random-init", "--recipe", "ucf101-r3d18"]) == 2
    assert "rspnet extract" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_wrong_setting_is_refused_without_importing_torch() -> None:
    code = (
        "import sys; from rspnet_cli.cli.main import main; code = main(['finetune', '--select-on', 'train']);"
        "sys.exit(0 if code == 2 and not {'torch', 'av', 'pandas', 'sklearn'} & set(sys.modules) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
