"""The reproduction guide: its commands are those of `rspnet reproduce`, each is understood, and the Slurm script queues itself again."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rspnet_cli.cli.main import group_of, repeat_list_options
from rspnet_cli.published import published
from rspnet_cli.settings import finetune_settings, pretrain_settings
from rspnet_cli.slurm import Resources, training_script
from rspnet_cli.stages.recipes import published_table
from rspnet_cli.stages.reproduce import reproduce
from tests.processes import ROOT

GUIDE = (ROOT / "examples" / "reproduce.md").read_text(encoding="utf-8")
SLURM = ROOT / "examples" / "reproduce.slurm"
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL) for line in block.splitlines()]


def parse(words: list[str]) -> dict[str, object]:
    """The parameters of an rspnet command line, as Typer reads them; fails for a flag that is not there."""
    start = 1 if words[0] == "rspnet" else words.index("rspnet_cli") + 1
    args = repeat_list_options(words[start:])
    command = group_of(args[0]).commands[args[0]]
    return command.make_context(args[0], args[1:]).params  # type: ignore[no-any-return]


def check(words: list[str]) -> None:
    """Parse a command and merge its settings."""
    params = parse(words)
    if "recipe" in params:
        settings = finetune_settings if "finetune" in words else pretrain_settings
        settings(recipe=params["recipe"], sets=params["sets"] or ())  # type: ignore[operator]


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("sbatch")])
def test_every_command_is_understood(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "torchrun":
        assert words[1] == "--nproc-per-node"
        assert words[3:5] == ["-m", "rspnet_cli"]
        batch = (finetune_settings if words[5] == "finetune" else pretrain_settings)(
            recipe=words[words.index("--recipe") + 1]
        ).optim.batch_size
        assert batch % int(words[2]) == 0
    check(words)


def test_a_wrong_command_would_be_found() -> None:
    for wrong in ("rspnet pretrain --recipee r3d18", "rspnet pretrain --recipe r3d-18", "rspnet pretrain --recipe c3d --set optim.lrr=1"):
        with pytest.raises(Exception, match=r"recipee|r3d-18|optim\.lrr"):
            check(shlex.split(wrong))


@pytest.mark.parametrize("name", published().results)
def test_the_commands_of_a_result_are_those_that_reproduce_prints(name: str) -> None:
    expected = [command for _, command in reproduce(name, work_dir=Path("rspnet-run")).missing]
    assert len(expected) >= 4
    places = [COMMANDS.index(command) for command in expected]  # and so each stands there
    assert places[-1] > max(places[:-1])
    assert f"rspnet reproduce {name}" in COMMANDS


def test_the_table_of_results_is_generated() -> None:
    after = GUIDE.split("<!-- published results:", 1)[1]
    assert after.split("-->\n", 1)[1].split("\n<!-- /published results -->")[0] == published_table()


def test_every_published_number_of_the_readme_is_the_data_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for result in published().results.values():
        if result.recipe is not None:
            row = next(line for line in readme.splitlines() if line.startswith(f"| `{result.recipe}` |"))
            assert f"{result.percent['top1']:g}" in row.split("|")[-2]
            assert f"{finetune_settings(recipe=result.recipe).optim.batch_size} " in row.split("|")[3].rsplit(", ", 1)[1]


def stub(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!{sys.executable}\n{text}")
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which srun runs what it is given, and torchrun and scontrol write down their arguments."""
    tools = tmp_path / "tools"
    tools.mkdir()
    stub(tools, "srun", "import os, sys\nassert sys.argv[1] == '--cpus-per-task=32'\nos.execvp(sys.argv[2], sys.argv[2:])\n")
    stub(
        tools,
        "torchrun",
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGTERM, lambda *_: (Path('stopped').touch(), sys.exit(1)))\n"
        "Path('torchrun.part').write_text('\\n'.join(sys.argv[1:]))\nos.rename('torchrun.part', 'torchrun.txt')\n"
        "time.sleep(0 if os.environ.get('AT_ONCE') else 60)\nsys.exit(3)\n",
    )
    stub(tools, "scontrol", "import sys\nfrom pathlib import Path\nPath('scontrol.txt').write_text(' '.join(sys.argv[1:]))\n")
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "42",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
    }


def test_the_slurm_script_runs_the_guides_pretraining_and_passes_its_failure_on(tmp_path: Path, cluster: dict[str, str]) -> None:
    done = subprocess.run(["bash", SLURM, "c3d", "--epochs", "7"], cwd=tmp_path, env=cluster | {"AT_ONCE": "1"}, timeout=60)
    assert done.returncode == 3
    words = (tmp_path / "torchrun.txt").read_text().splitlines()
    assert words[:3] == ["--standalone", "--nproc-per-node", "4"]
    published_command = next(command for command in COMMANDS if "--recipe c3d " in command)
    assert words[3:] == [*shlex.split(published_command)[3:], "--epochs", "7"]
    assert parse(["torchrun", *words])["epochs"] == 7
    assert not (tmp_path / "scontrol.txt").exists()


def test_a_job_that_is_out_of_time_stops_its_training_and_queues_itself_again(tmp_path: Path, cluster: dict[str, str]) -> None:
    job = subprocess.Popen(["bash", SLURM], cwd=tmp_path, env=cluster)
    deadline = time.monotonic() + 60
    while not (tmp_path / "torchrun.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=60) == 0
    assert (tmp_path / "stopped").exists()
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 42"


def test_the_slurm_script_is_that_of_rspnet_slurm_but_for_its_arguments() -> None:
    printed = training_script("pretrain", [], Resources(gpus=4, cpus=32, time="24:00:00")).splitlines()
    typed = SLURM.read_text(encoding="utf-8").splitlines()
    (run,) = [line for line in printed if line.startswith("srun ")]
    assert [line for line in typed if line.startswith(run.removesuffix(" &"))]
    assert {line for line in printed if line != run} <= set(typed)
