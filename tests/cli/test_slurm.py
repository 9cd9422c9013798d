"""`rspnet slurm` as it is typed: a script on stdout, and every wrong argument found before a job waits for it."""

from __future__ import annotations

import subprocess

import pytest

from rspnet_cli.cli.main import main


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["slurm", *args])
    return (code, *capsys.readouterr())


PRINTED = {
    "extract VIDEOS --shards 64 --cpus 16 --codec jpeg": ["rspnet extract VIDEOS --codec jpeg --shard", "rspnet merge extract &"],
    "--shards 4 extract VIDEOS --out run/x --force": ["extract VIDEOS --out run/x --force --shard", "merge extract --out run/x --force &"],
    "export-features --shards 4 --work-dir w --gpus 1": ["export-features --work-dir w --shard", "merge export-features --work-dir w &"],
    "export-features --shards 4 --random-init --also npy,parquet": [
        "export-features --random-init --also npy --also parquet --shard",
        "merge export-features --out rspnet-run/random-init/export-features &",
    ],
    "pretrain --recipe c3d --set optim.epochs=3 --gpus 4 --time 12:00:00": [
        '--nproc-per-node "$SLURM_GPUS_ON_NODE" -m rspnet_cli pretrain --recipe c3d --set optim.epochs=3 &',
        "#SBATCH --time=12:00:00",
    ],
    "finetune --linear --nodes 2 --partition gpu": ["-m rspnet_cli finetune --linear &", "#SBATCH --partition=gpu"],
}


@pytest.mark.parametrize(("command", "parts"), PRINTED.items())
def test_the_script_has_the_command_as_typed(command: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *command.split())
    assert (code, err) == (0, "")
    for part in parts:
        assert part in out
    subprocess.run(["bash", "-n"], input=out, text=True, check=True, timeout=30)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("eval-retrieval", "extract, export-features, pretrain, finetune"),
        ("extract VIDEOS", "--shards N"),
        ("extract VIDEOS --shards 4 --shard 1/4", "leave it out"),
        ("extract --shards 4", "VIDEOS"),
        ("extract VIDEOS --shards 4 --bogus", "--bogus"),
        ("extract VIDEOS --shards 4 --gpus 1", "--gpus"),
        ("pretrain --shards 4", "--shards"),
        ("pretrain --epochs many", "--epochs"),
        ("pretrain --recipe r3d-18", "r3d-18"),
        ("pretrain --set optim.lrr=1", "optim.lrr"),
        ("pretrain --time tomorrow", "24:00:00"),
        ("finetune --nodes 0", "nodes"),
    ],
)
def test_a_wrong_argument_ends_here_and_prints_no_script(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *command.split())
    assert (code, out) == (2, "")
    assert words in err
