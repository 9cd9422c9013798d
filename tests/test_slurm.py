"""The printed scripts do what they say, on a cluster of stubs: what is submitted, run, stopped, queued again."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.settings import validated
from rspnet_cli.slurm import Resources, array_script, training_script
from tests.sentences import refused

AWKWARD = ["my videos/it's", "--set", 'a="$HOME"', "--out", "run/`x`", "--dataset", "csv"]


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which srun runs what it is given, and all else writes down its arguments (sbatch: its script too).

    rspnet and torchrun wait for TERM, and then end with 143.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    note = "import json, os, signal, sys, time\nname = os.path.basename(sys.argv[0])\n"
    stubs = {
        "srun": "os.execvp(sys.argv[2], sys.argv[2:])\n",
        "scontrol": "print('node7') if sys.argv[1] == 'show' else open('scontrol.txt', 'w').write(' '.join(sys.argv[1:]))\n",
        "sbatch": "number = len([item for item in os.listdir('.') if item.startswith('job')])\n"
        "open(f'job{number}.sh', 'w').write(sys.stdin.read())\n"
        "open(f'arguments{number}.txt', 'w').write(' '.join(sys.argv[1:]))\nprint(f'4{number};cluster')\n",
    }
    waiting = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "open('run.part', 'w').write('\\n'.join([name, *sys.argv[1:]]))\nos.rename('run.part', 'run.txt')\n"
        "time.sleep(0 if os.environ.get('AT_ONCE') else 60)\nsys.exit(int(os.environ.get('AT_ONCE', 9)))\n"
    )
    for name, text in (stubs | {"rspnet": waiting, "torchrun": waiting}).items():
        (tools / name).write_text(f"#!{sys.executable}\n{note}{text}")
        (tools / name).chmod(0o755)
    own = {"SLURM_JOB_ID": "50", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "8"}
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **own, "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NUM_NODES": "2"} | {
        "SLURM_JOB_NODELIST": "node[7-8]"
    }


def check(script: str, folder: Path) -> Path:
    """The script as a file that bash understands."""
    path = folder / "script.sh"
    path.write_text(script)
    subprocess.run(["bash", "-n", path], check=True, timeout=30)
    return path


def run(script: Path, cluster: dict[str, str], *, stop: signal.Signals | None = None) -> int:
    folder = script.parent
    if stop is None:
        return subprocess.run(["bash", script], cwd=folder, env=cluster | {"AT_ONCE": "5"}, timeout=60).returncode
    job = subprocess.Popen(["bash", script], cwd=folder, env=cluster)
    end = time.monotonic() + 60
    while not (folder / "run.txt").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.1)  # past `trap`
    job.send_signal(stop)
    return job.wait(timeout=60)


def ran(folder: Path) -> list[str]:
    return (folder / "run.txt").read_text().splitlines()


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


ASKED = {"partition": "gpu", "account": "lab", "time": "2-00:00:00", "mem": "64G", "cpus": 16}


@pytest.mark.parametrize("stage", ["extract", "export-features"])
def test_an_array_is_submitted_with_its_merge_behind_it(stage: str, tmp_path: Path, cluster: dict[str, str]) -> None:
    resources = Resources.model_validate(ASKED | {"gpus": 0 if stage == "extract" else 1, "setup": ("unset NOTHING", "export X=$Y")})
    script = check(array_script(stage, AWKWARD, resources, shards=64, at_once=8, merge_args=["--out", "run/`x`"]), tmp_path)
    assert run(script, cluster) == 0
    assert (tmp_path / "arguments0.txt").read_text() == "--parsable"
    assert (tmp_path / "arguments1.txt").read_text() == "--dependency=afterok:40 --kill-on-invalid-dep=yes"
    tasks, merge = ((tmp_path / f"job{number}.sh").read_text() for number in (0, 1))
    common = {"--partition=gpu", "--account=lab", "--time=2-00:00:00", "--mem=64G", "--nodes=1", "--ntasks-per-node=1", "--requeue"}
    common |= {"--open-mode=append", "--signal=B:USR1@180"}
    gpus = set() if stage == "extract" else {"--gpus-per-node=1"}
    assert set(directives(tasks)) == common | gpus | {"--cpus-per-task=16", "--array=1-64%8", f"--job-name=rspnet-{stage}"}
    assert set(directives(merge)) == common | {"--cpus-per-task=1", f"--job-name=rspnet-merge-{stage}"}
    assert run(check(tasks, tmp_path), cluster) == 5  # a failure is passed on
    assert ran(tmp_path) == ["rspnet", stage, *AWKWARD, "--shard", "3/64"]
    assert run(check(merge, tmp_path), cluster) == 5
    assert ran(tmp_path) == ["rspnet", "merge", stage, "--out", "run/`x`"]
    assert not (tmp_path / "scontrol.txt").exists()


def test_a_task_out_of_time_stops_its_run_and_queues_itself_alone_again(tmp_path: Path, cluster: dict[str, str]) -> None:
    run(check(array_script("extract", ["videos"], Resources(), shards=4, at_once=None), tmp_path), cluster)
    tasks, merge = ((tmp_path / f"job{number}.sh").read_text() for number in (0, 1))
    assert "--array=1-4" in directives(tasks)
    assert run(check(tasks, tmp_path), cluster, stop=signal.SIGUSR1) == 0
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 41_3"
    (tmp_path / "run.txt").unlink()
    assert run(check(merge, tmp_path), cluster, stop=signal.SIGUSR1) == 0
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 50"


def test_a_cancelled_job_stays_cancelled(tmp_path: Path, cluster: dict[str, str]) -> None:
    script = check(training_script("pretrain", [], Resources()), tmp_path)
    assert run(script, cluster, stop=signal.SIGTERM) == -signal.SIGTERM
    assert not (tmp_path / "scontrol.txt").exists()


TRAININGS: dict[str, tuple[Resources, Sequence[str]]] = {
    "one GPU": (Resources(gpus=1), ["rspnet"]),
    "a CPU": (Resources(), ["rspnet"]),
    "four GPUs": (Resources(gpus=4), ["torchrun", "--standalone", "--nproc-per-node", "4", "-m", "rspnet_cli"]),
    "two nodes": (
        Resources(gpus=4, nodes=2),
        shlex.split("torchrun --nnodes 2 --rdzv-backend c10d --rdzv-id 50 --rdzv-endpoint node7:20050 --nproc-per-node 4 -m rspnet_cli"),
    ),
    "two nodes without GPUs": (
        Resources(nodes=2),
        shlex.split("torchrun --nnodes 2 --rdzv-backend c10d --rdzv-id 50 --rdzv-endpoint node7:20050 --nproc-per-node 1 -m rspnet_cli"),
    ),
}


@pytest.mark.parametrize(("resources", "launcher"), TRAININGS.values(), ids=TRAININGS.keys())
def test_a_training_is_launched_on_what_was_asked_for(
    resources: Resources, launcher: Sequence[str], tmp_path: Path, cluster: dict[str, str]
) -> None:
    text = training_script("finetune", AWKWARD, resources)
    script = check(text, tmp_path)
    assert (f"--gpus-per-node={resources.gpus}" in directives(text)) == (resources.gpus > 0)
    assert f"--nodes={resources.nodes}" in directives(text)
    assert run(script, cluster, stop=signal.SIGUSR1) == 0
    assert ran(tmp_path) == [*launcher, "finetune", *AWKWARD]
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 50"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time": "tomorrow"}, "24:00:00"),
        ({"time": "1:00:00\n#SBATCH --uid=0"}, "24:00:00"),
        ({"partition": "a b"}, "without spaces"),
        ({"mem": "lots"}, "64G"),
        ({"nodes": 0}, "nodes"),
        ({"gpus": -1}, "gpus"),
    ],
)
def test_what_slurm_would_not_understand_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        validated(Resources, wrong)
    refused(caught.value, words)


def test_a_line_end_in_an_argument_and_resources_without_effect_are_refused() -> None:
    for function in (
        lambda: training_script("pretrain", ["a\nb"], Resources()),
        lambda: array_script("extract", ["x"], Resources(gpus=1), shards=2, at_once=None),
        lambda: array_script("export-features", [], Resources(nodes=2), shards=2, at_once=None),
    ):
        with pytest.raises(InputError) as caught:
            function()
        refused(caught.value)
