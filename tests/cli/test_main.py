"""The command line's frame: exit codes, one line per error, lists as typed, and nothing heavy before it is needed."""

import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rspnet_cli
from rspnet_cli.cli import main as main_module
from rspnet_cli.cli.main import COMMANDS, group_of, main, repeat_list_options
from rspnet_cli.encoder.registry import BACKBONES
from rspnet_cli.errors import BusyError, InputError, RspnetError
from rspnet_cli.recipes import recipe_names
from tests.evaluation.tables import make_export, make_table
from tests.extracted import make_videos
from tests.processes import ROOT

# design.md: the flags that scripts rely on.
SHARED = "--work-dir --out --force --json --quiet"
FLAGS = {
    "extract": "--dataset --annotations --short-side --codec --crf --workers --limit --strict --keep-partial --max-pixels --video-timeout "
    "--retry-failed --verify-sources --shard --dask",
    "pretrain": "--recipe --config --set --split --epochs --batch-size --lr --backbone --device --precision --compile --workers --tracker "
    "--seed",
    "export-features": "--frames --clips --pool --gallery-augment --split --seed --random-init --checkpoint --device --precision "
    "--batch-size --workers --set --shard",
    "eval-retrieval": "--topk --split --protocol --device",
    "eval-classification": "--split --protocol --probe --seed",
    "finetune": "--frames --recipe --config --set --split --select-on --linear --random-init --checkpoint --epochs --batch-size --lr "
    "--device --precision --compile --workers --tracker --seed",
    "preview": "--recipe --config --set --split --batch-size --device --workers --seed --step --count",
    "visualize": "--videos --frames --clips --size --checkpoint --count --seed --device",
    "import-checkpoint": "--set --classes",
    "export-checkpoint": "--checkpoint",
    "search": "--features --topk --html --device --workers",
    "merge": "",
}


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("eval-retrieval --topk 1 5 10 20 50", "eval-retrieval --topk 1 --topk 5 --topk 10 --topk 20 --topk 50"),
        ("eval-retrieval --topk 1 --topk 5", "eval-retrieval --topk 1 --topk 5"),
        ("eval-retrieval --topk 1,5,10", "eval-retrieval --topk 1 --topk 5 --topk 10"),
        ("eval-retrieval --topk=1,5 10", "eval-retrieval --topk 1 --topk 5 --topk 10"),
        ("eval-retrieval --topk 1, 5, 10", "eval-retrieval --topk 1 --topk 5 --topk 10"),
        ("eval-retrieval --topk 1 5 other/export-features --json", "eval-retrieval --topk 1 --topk 5 other/export-features --json"),
        ("eval-retrieval other/export-features --topk 1 5", "eval-retrieval other/export-features --topk 1 --topk 5"),
        ("eval-retrieval --topk 1 5 --split 2", "eval-retrieval --topk 1 --topk 5 --split 2"),
        ("eval-retrieval --topk x 5", "eval-retrieval --topk x --topk 5"),
        ("eval-retrieval --topk -1", "eval-retrieval --topk -1"),
        ("eval-retrieval --topk", "eval-retrieval --topk"),
        ("eval-retrieval --topk ,", "eval-retrieval --topk ,"),
        ("visualize --videos a,b.mp4 'c d' e* --size 64", "visualize --videos a,b.mp4 --videos 'c --videos d' --videos e* --size 64"),
        ("visualize x --videos=a b --json", "visualize x --videos a --videos b --json"),
        ("visualize --videos", "visualize --videos"),
        ("export-features --also npy,parquet --clips 3", "export-features --also npy --also parquet --clips 3"),
        ("export-features --also npy pretrain", "export-features --also npy pretrain"),
        ("pretrain --set optim.lr=1,5 -- --topk 1 5", "pretrain --set optim.lr=1,5 -- --topk 1 5"),
        ("pretrain --set clip.speeds=[2,4]", "pretrain --set clip.speeds=[2,4]"),
        ("", ""),
    ],
)
def test_lists_are_read_as_typed(typed: str, read: str) -> None:
    assert repeat_list_options(typed.split()) == read.split()


@given(st.lists(st.sampled_from(["eval-retrieval", "--split", "1", "a=b", "--json", "x,y", "", "-", "--out=1,2", "5"])))
def test_without_a_list_option_nothing_is_rewritten(args: list[str]) -> None:
    assert repeat_list_options(args) == args


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(args)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "dumb")


@pytest.mark.usefixtures("wide")
def test_help_lists_every_command_and_every_flag_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    positions = [re.search(rf"^\W*{command}\s", out, re.MULTILINE) for command in COMMANDS]
    assert all(positions), out
    assert FLAGS.keys() <= set(COMMANDS)
    for command in COMMANDS:
        code, out, err = call(capsys, command, "--help")
        assert (code, err) == (0, "")
        if command in FLAGS:
            typed = set(re.findall(r"--[a-z][a-z-]+", out))
            assert not set(f"{SHARED} {FLAGS[command]}".split()) - typed, command
    code, out, _ = call(capsys, "pretrain", "-h")
    assert code == 0
    for name in {*recipe_names("pretrain"), *BACKBONES}:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", out), name


def help_texts(command: str) -> list[str]:
    """What the source says of a command and of its arguments and options."""
    group = group_of()  # built anew: nothing in it has been made ready for printing
    built = group.commands[command] if command else group
    return [inspect.cleandoc(text) for part in (built, *built.params) if (text := getattr(part, "help", None))]


@pytest.mark.usefixtures("wide")
def test_help_prints_every_word_that_the_source_says(capsys: pytest.CaptureFixture[str]) -> None:
    bracketed = 0
    for command in ("", *COMMANDS):
        _, out, _ = call(capsys, *command.split(), "--help")
        printed = re.sub(r"[\s│]+", " ", out)
        for text in help_texts(command):
            words = re.sub(r"\s+", " ", text)
            bracketed += len(re.findall(r"\[[^]]*\]", words))
            for word in words.split():
                assert word in printed, (command, word)
    assert bracketed >= 15, "there is something to be swallowed"
    assert '"sections": [keys], "left_out"' in re.sub(r"[\s│]+", " ", call(capsys, "report", "--help")[1])


def test_without_a_command_it_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert code == 2
    assert "extract" in out + err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"rspnet {rspnet_cli.__version__}\n", "")


HEAVY = {"torch", "av", "pandas", "sklearn", "scipy", "safetensors", "tensorboard", "pyarrow", "distributed"}
USAGE_ERRORS = [
    ["extrakt"],
    ["--nonsense"],
    ["extract"],
    ["extract", "videos", "--short-side", "many"],
    ["extract", "videos", "--codec", "vhs"],
    ["extract", "videos", "--shard", "0/4"],
    ["extract", "videos", "--shard", "1/4", "--dry-run"],
    ["extract", "videos", "--dask", "tcp://localhost:1", "--dry-run"],
    ["extract", "videos", "--dask", "tcp://localhost:1", "--workers", "2"],
    ["merge"],
    ["slurm", "pretrain", "--recipe", "r3d-18"],
    ["merge", "pretrain"],
    ["merge", "export-features", "--out", "nowhere"],
    ["pretrain", "a", "b"],
    ["pretrain", "--epochs"],
    ["pretrain", "--epochs", "0"],
    ["pretrain", "--epochs", "1.5"],
    ["pretrain", "--nonsense"],
    ["pretrain", "--recipe", "r3d-18"],
    ["pretrain", "--set", "optim.lrr=1"],
    ["pretrain", "--set", "optim.lr"],
    ["pretrain", "--set", "optim.lr=fast"],
    ["pretrain", "--backbone", "vgg"],
    ["pretrain", "--config", "no-such-file.toml"],
    ["pretrain", "--precision", "fp8"],
    ["pretrain", "--seed", "-1"],
    ["export-features", "--clips", "0"],
    ["export-features", "--pool", "min"],
    ["export-features", "--set", "clip=3"],
    ["export-features", "--gallery-augment", "train"],
    ["export-features", "--seed", "3"],
    ["export-features", "--checkpoint", "newest"],
    ["eval-retrieval", "--topk", "many"],
    ["eval-retrieval", "--topk", "0"],
    ["eval-retrieval", "--protocol", "none"],
    ["eval-classification", "--probe", "svm"],
    ["eval-classification", "--seed", "x"],
    ["finetune", "a", "b"],
    ["finetune", "--epochs", "-1"],
    ["finetune", "--recipe", "r3d18"],
    ["pretrain", "--recipe", "ucf101-r3d18"],
    ["finetune", "--set", "moco.momentum=0.9"],
    ["finetune", "--set", "optim.schedule=multistep"],
    ["finetune", "--set", "optim.milestones=[3]"],
    ["finetune", "--select-on", "train"],
    ["pretrain", "--tracker", "nobody"],
    ["pretrain", "--tracker", "../x"],
    ["finetune", "--set", "run.tracker=nobody"],
    ["finetune", "--random-init", "--checkpoint", "best"],
    ["inspect"],
    ["preview", "--step", "0"],
    ["preview", "--count", "none"],
    ["preview", "--recipe", "ucf101-r3d18"],
    ["preview", "--set", "clip.speeds=[1]"],
    ["preview", "--set", "model.backbone=c3d", "--set", "clip.frames=4"],
    ["visualize", "--clips", "0"],
    ["visualize", "--size", "4"],
    ["visualize", "--checkpoint", "newest"],
    ["visualize", "--videos", "a", "--count", "2"],
    ["visualize", "--videos"],
    ["search"],
    ["search", "a.mp4", "--topk", "0"],
    ["search", "a.mp4", "--topk", "5", "10"],
    ["search", "a.mp4", "--out", "page.html"],
    ["search", "a.mp4", "--force"],
    ["import-checkpoint"],
    ["import-checkpoint", "a.pth.tar", "--set", "clip.frames=0"],
    ["import-checkpoint", "a.pth.tar", "--set", "clip.frame=8"],
    ["export-checkpoint", "a", "b"],
    ["recipes", "r3d19"],
    ["reproduce"],
    ["reproduce", "ucf102-r3d18"],
]


@pytest.mark.parametrize("args", USAGE_ERRORS, ids=" ".join)
def test_a_usage_error_exits_2_with_nothing_on_stdout_and_no_folder(
    args: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *args)
    assert (code, out) == (2, "")
    assert err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_help_and_usage_errors_import_nothing_heavy() -> None:
    """In a fresh interpreter: the calls one after the other, and after each what has been imported."""
    calls = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS), *USAGE_ERRORS]
    script = f"""
import contextlib, io, sys
from rspnet_cli.cli.main import main
import rspnet_cli
for call in {calls!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(call)
    heavy = {{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}
    assert not heavy, f'{{call}} imported {{sorted(heavy)}}'
print('done')
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr


def test_a_command_loads_no_other_command() -> None:
    script = """
import sys
from rspnet_cli.cli.main import main
main(["merge", "--help"])
print(sorted(name for name in sys.modules if name.startswith("rspnet_cli.cli.")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == "['rspnet_cli.cli.main', 'rspnet_cli.cli.merge', 'rspnet_cli.cli.options']\n"


def test_a_command_imports_what_it_uses_alone(tmp_path: Path) -> None:
    """In a fresh interpreter: commands that do their work, the lightest first, and after each what has been imported."""
    make_export(tmp_path / "features", make_table(classes=7, spread=2.0))
    extract = ["extract", str(make_videos(tmp_path / "videos", (9, 12))), "--dataset", "plain", "--short-side", "32", "--workers", "1"]
    first = subprocess.run([sys.executable, "-m", "rspnet_cli", *extract], cwd=tmp_path, env=_environment(), capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    calls: list[tuple[list[str], set[str]]] = [
        (["recipes"], set()),
        (["recipes", "r3d18"], set()),
        (["inspect", "rspnet-run/extract"], set()),
        (["inspect", "rspnet-run/extract", "--verify"], set()),
        (extract, {"numpy"}),  # it is finished
        (["search", "id:c0_g0_0", "--features", "features"], {"numpy", "safetensors"}),
        ([*extract, "--force"], {"numpy", "safetensors", "av"}),
        # pandas imports pyarrow where it is installed.
        (["eval-retrieval", "features", "--device", "cpu"], {"numpy", "safetensors", "av", "pandas", "pyarrow", "threadpoolctl"}),
    ]
    script = f"""
import contextlib, io, sys
from rspnet_cli.cli.main import main
for call, allowed in {calls!r}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(call)
    assert code == 0, said.getvalue()
    heavy = {{name.partition('.')[0] for name in sys.modules}} & {HEAVY | {"numpy", "threadpoolctl"}!r}
    assert heavy <= allowed, f'{{call}} imported {{sorted(heavy - allowed)}}'
print('done')
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("error", "code"),
    [(RspnetError("It failed: try again."), 1), (InputError("It is wrong: do it right."), 2), (BusyError("It is in use: wait."), 1)],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: RspnetError, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module, "program", lambda *_: fail)
    assert call(capsys, "pretrain") == (code, "", f"rspnet: {error}\n")


def test_a_name_that_is_no_text_does_not_break_the_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise InputError("\udcff.mp4 is wrong: [bold]name it[/bold] anew.")

    monkeypatch.setattr(main_module, "program", lambda *_: fail)
    assert call(capsys, "extract") == (2, "", "rspnet: \\udcff.mp4 is wrong: [bold]name it[/bold] anew.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_to_a_command_is_one_line_which_says_what_becomes_of_it(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "program", lambda *_: lambda **_: os.kill(os.getpid(), signal.SIGTERM))
    goes_on = "rspnet: interrupted; what a stage has done is kept, the same command goes on.\n"
    anew = "rspnet: interrupted; nothing is kept to go on from, the same command begins anew.\n"
    stage = ROOT / "rspnet_cli" / "stages" / command.replace("-", "_")
    sources = [stage.with_suffix(".py")] if stage.with_suffix(".py").exists() else sorted(stage.glob("*.py"))
    is_continued = any("begin_stage(" in source.read_text(encoding="utf-8") for source in sources)
    assert call(capsys, command) == (143, "", goes_on if is_continued else anew)
    if command == "extract":
        assert call(capsys, command, "VIDEOS", "--dry-run") == (143, "", anew)


def test_a_reader_that_leaves_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "rspnet_cli", "pretrain", "--help"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_path_that_no_file_can_have_is_one_sentence(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("x" * 300, "missing", "a\nb", "file/below"):
        (tmp_path / "file").write_text("no folder")
        code, out, err = call(capsys, command, path)
        assert (code, out) == (2, ""), err
        assert len(err.splitlines()) == 1 or "\n" in path, err
        assert err.startswith("rspnet: ")
    for words in (["file"], ["--work-dir", "x" * 300]):
        code, out, err = call(capsys, command, *words)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["file"]
