"""bench: how fast each stage is on this machine with these videos and settings, where its time goes, and what limits it.

Everything is measured on the code that the stages run. Nothing is written but a trace that was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any

import torch

from rspnet_cli import __version__, distributed
from rspnet_cli.devices import num_cpus
from rspnet_cli.environment import describe_environment
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.stages.bench.measured import Measured, Request, has_extraction, percent
from rspnet_cli.usage import Usage

__all__ = ["TRACED", "WHATS", "Request", "bench"]

WHATS = ("extract", "loader", "step", "export", "retrieval")
TRACED = ("loader", "step", "export", "retrieval")
"""What can be traced: what this process does itself."""


_QUEUED = 0.1
_MISSING = (
    "There is nothing to measure: {work_dir} holds no finished extraction. Run `rspnet extract VIDEOS` first, name another --work-dir, or "
    "--videos DIR to measure extract alone."
)


def bench(what: str, request: Request) -> dict[str, Any]:
    """Measure one of WHATS, or "all" that the work directory allows (a trace is then the step's).

    Returns what --json prints: machine, measured {what: `Measured`}, left_out {what: why not}, trace. Raises InputError where there is
    nothing to measure.
    """
    _check(what, request)
    names = WHATS if what == "all" else (what,)
    measured: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        own = request if what == name or name == "step" else replace(request, trace=None)
        try:
            measured[name] = asdict(_measure(name, own))
        except InputError as error:
            if what != "all":
                raise
            left_out[name] = str(error)
    return {
        "machine": describe_environment() | {"rspnet": __version__, "cores": num_cpus(), "gpus": _gpus()},
        "measured": measured,
        "left_out": left_out,
        "trace": None if request.trace is None else str(request.trace),
    }


def _check(what: str, request: Request) -> None:
    if what not in (*WHATS, "all"):
        raise InputError(f"There is no '{what}' to measure: name {', '.join(WHATS)} or all.")
    if distributed.world_size() > 1:
        raise InputError("bench runs in one process: start it without torchrun.")
    if what == "all" and request.videos is None and not has_extraction(request):
        raise InputError(_MISSING.format(work_dir=request.work_dir))
    trace = request.trace
    if trace is None:
        return
    if what not in (*TRACED, "all"):
        raise InputError(f"--trace has no effect with {what}, which other processes do: name {', '.join(TRACED)}, or leave it out.")
    if os.path.lexists(trace) or not trace.absolute().parent.is_dir():
        raise InputError(f"{trace} is there already, or its folder is not: name a new file with --trace.")


def _measure(name: str, request: Request) -> Measured:
    """Load the module of a measurement when its turn has come, and run it."""
    function: Callable[[Request], Measured] = getattr(import_module(f"{__name__}.{name}"), f"bench_{name}")
    before = Usage.now()
    try:
        measured = function(request)
    except torch.OutOfMemoryError as error:
        raise RspnetError(
            f"The GPU's memory is full in bench {name}: use a smaller --batch-size, --set optim.accumulate=2 (or more), or "
            "--set run.checkpoint_activations=true."
        ) from error
    else:
        queued = Usage.now().since(before).queued_share
        if queued >= _QUEUED:
            request.report.warn(
                f"bench {name} waited for a core {percent(queued)} of the time: other programs, or more workers and threads than cores, "
                "slow down what is measured."
            )
        return measured
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the next one measures its own memory


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
