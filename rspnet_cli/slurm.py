"""Scripts for a Slurm cluster: a job array of the shards of a stage with their merge behind it, or a training under torchrun.

Each job is told by USR1 that its time is nearly over, ends its run cleanly with TERM, which keeps what is done, and puts itself back
into the queue; typed again, the command goes on where it was. The limit's signal is not TERM, which `scancel` sends too: a job that
is cancelled stays so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from pydantic import Field, ValidationInfo, field_validator

from rspnet_cli.config import Section
from rspnet_cli.errors import InputError

SHARDED = ("extract", "export-features")
TRAININGS = ("pretrain", "finetune")
WARNING_S = 180
"""How long before its limit a job is told: torchrun gives its processes 30 s to end."""
# How each is to be written, for people and for the check: nothing may end its line of the script.
_FORMS = {
    "partition": ("a name without spaces", r"[\w.,+@:\-]+"),
    "account": ("a name without spaces", r"[\w.,+@:\-]+"),
    "time": ("as Slurm does: minutes, 24:00:00 or 2-00:00:00", r"(\d+-)?\d+(:\d\d){0,2}"),
    "mem": ("as Slurm does: 64G", r"\d+[KMGT]?"),
}
_END = "END_OF_JOB"


class Resources(Section):
    """What a job asks of the cluster."""

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    """Limit of one job; a run may take several."""
    nodes: int = Field(1, ge=1, le=10_000)
    gpus: int = Field(0, ge=0, le=64)
    """Per node."""
    cpus: int = Field(8, ge=1, le=4096)
    """Per node."""
    mem: str | None = None
    """Per node."""
    setup: tuple[str, ...] = ()
    """Lines of shell to run first, such as `module load` or the activation of an environment."""

    @field_validator(*_FORMS)
    @classmethod
    def _written_as_slurm_does(cls, value: str | None, info: ValidationInfo) -> str | None:
        words, pattern = _FORMS[info.field_name or ""]
        if value is not None and not re.fullmatch(pattern, value, flags=re.ASCII):
            raise ValueError(f"write it {words}")
        return value


def training_script(stage: str, args: Sequence[str], resources: Resources) -> str:
    """A script for sbatch: a training on one node or several. args: of the stage's command, as typed. Raises InputError."""
    command = _quoted(args)
    if resources.nodes == 1 and resources.gpus < 2:
        run = f"rspnet {stage}{command}"
    else:
        place = '--nnodes "$SLURM_JOB_NUM_NODES" --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:$port"'
        processes = '"$SLURM_GPUS_ON_NODE"' if resources.gpus else "1"
        run = f"torchrun {place if resources.nodes > 1 else '--standalone'} --nproc-per-node {processes} -m rspnet_cli {stage}{command}"
    before = []
    if resources.nodes > 1:  # the port differs from that of another job on the same node
        before = ['head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)', "port=$((20000 + SLURM_JOB_ID % 20000))"]
    # Since Slurm 22.05 srun does not take over the CPUs of the job by itself.
    lines = [*before, *_until_done(f'srun --cpus-per-task="$SLURM_CPUS_PER_TASK" {run}', '"$SLURM_JOB_ID"')]
    return _script(f"rspnet-{stage}", _directives(resources), resources, lines)


def array_script(
    stage: str, args: Sequence[str], resources: Resources, *, shards: int, at_once: int | None, merge_args: Sequence[str] = ()
) -> str:
    """A script for bash that submits a job array of all shards and, to run after them, their merge.

    args, merge_args: of the commands, as typed. at_once: the most tasks that may run together. Raises InputError.
    """
    if resources.nodes > 1:
        raise InputError(f"A shard of {stage} is done on one node: leave out --nodes, and give more --shards.")
    if stage == "extract" and resources.gpus:
        raise InputError("extract computes on CPUs alone: leave out --gpus.")
    array = f"--array=1-{shards}" + (f"%{at_once}" if at_once else "")
    command = f'rspnet {stage}{_quoted(args)} --shard "$SLURM_ARRAY_TASK_ID/{shards}"'
    # Not by SLURM_JOB_ID: for one of the tasks that is the number of the whole array.
    own_job = '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
    tasks = _script(f"rspnet-{stage}", [array, *_directives(resources)], resources, _until_done(command, own_job))
    alone = resources.model_copy(update={"gpus": 0, "cpus": 1})
    merge = _until_done(f"rspnet merge {stage}{_quoted(merge_args)}", '"$SLURM_JOB_ID"')
    behind = _script(f"rspnet-merge-{stage}", _directives(alone), alone, merge)
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Submits {shards} shards of `rspnet {stage}` and, to run when all of them are done, their merge.",
            "# Run it with bash, not sbatch; after a failure run it again: what is done is not done twice.",
            "set -eu",
            "",
            f"array=$(sbatch --parsable <<'{_END}'",
            f"{tasks}{_END}",
            ")",
            f"sbatch --dependency=\"afterok:${{array%%;*}}\" --kill-on-invalid-dep=yes <<'{_END}'",
            f"{behind}{_END}",
            "",
        ]
    )


def _directives(resources: Resources) -> list[str]:
    asked = {
        "--partition": resources.partition,
        "--account": resources.account,
        "--nodes": resources.nodes,
        "--ntasks-per-node": 1,
        "--gpus-per-node": resources.gpus or None,
        "--cpus-per-task": resources.cpus,
        "--mem": resources.mem,
        "--time": resources.time,
        "--signal": f"B:USR1@{WARNING_S}",
    }
    return [*(f"{name}={value}" for name, value in asked.items() if value is not None), "--requeue", "--open-mode=append"]


def _script(name: str, directives: Sequence[str], resources: Resources, lines: Sequence[str]) -> str:
    # The user's lines first: scripts that activate an environment do not all bear `set -u`.
    return "\n".join(
        ["#!/bin/bash", *(f"#SBATCH {line}" for line in (f"--job-name={name}", *directives)), "", *resources.setup, "set -u", *lines, ""]
    )


def _until_done(command: str, own_job: str) -> list[str]:
    """Run a command; out of time, end it cleanly and queue the job again."""
    return f"""\
stopped=
stop() {{
    stopped=1
    kill -TERM "$child"
}}

{command} &
child=$!
trap stop USR1
wait "$child"
status=$?

if [ -n "$stopped" ]; then
    wait "$child" # until everything is written
    exec scontrol requeue {own_job}
fi
exit "$status\"""".splitlines()


def _quoted(args: Sequence[str]) -> str:
    """Arguments as the shell wants them, after a space. Raises InputError for what cannot stand in a line of a script."""
    if any(re.search(r"[\r\n\0]", word) for word in args):
        raise InputError("An argument holds a line end, which no line of a script can: rename what it names.")
    return "".join(f" {shlex.quote(word)}" for word in args)
