"""The dry run of `rspnet extract` in words and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from rspnet_cli.cli.tables import bytes_text, show_table

if TYPE_CHECKING:
    from rspnet_cli.stages.plan_extract import Plan
    from rspnet_cli.videos.probe import Estimate, Total

_PARTS = ("train", "val", "test", "unused")
_LISTED = 20


def show_plan(plan: Plan) -> None:
    """Counts by class and split, what is wrong with the lists, what it would cost, and what the folder of the result holds."""
    header = ["class", "videos", "failed"]
    columns = [(split, part) for split, counts in plan.splits.items() for part in _PARTS if counts.get(part)]
    header += [f"{split.replace('_', ' ')} {part}" for split, part in columns]
    rows = [[item.name or "(no class)", f"{item.videos:,}", f"{item.failed:,}", *_cells(item.splits, columns)] for item in plan.classes]
    if len(rows) != 1:
        rows.append(["all", f"{plan.videos:,}", f"{plan.failed:,}", *_cells(plan.splits, columns)])
    show_table(f"{plan.dataset}: what extract would do (nothing is written)", header, rows, [])
    for names, what in (
        (plan.missing, "listed but not there"),
        (plan.extra or [], "there but in no list"),
        (plan.repeated, "listed again"),
        ([f"{source} {reason}" for source, reason in plan.failures.items() if source not in set(plan.missing)], "no videos"),
        ([f"{source} {reason}" for source, reason in _probe_failures(plan.estimate)], "of the probed videos failed"),
    ):
        _show_names(names, what)
    typer.echo(_cost(plan))
    typer.echo(f"{plan.out}: {plan.out_holds}.")


def _cells(splits: dict[str, dict[str, int]], columns: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{splits.get(split, {}).get(part, 0):,}" for split, part in columns]


def _probe_failures(estimate: Estimate | None) -> list[tuple[str, str]]:
    return list(estimate.failures.items()) if estimate is not None else []


def _show_names(names: Sequence[str], what: str) -> None:
    if names:
        typer.echo(f"{len(names):,} {what}:")
        for name in names[:_LISTED]:
            typer.echo(f"  {name}")
        if len(names) > _LISTED:
            typer.echo(f"  and {len(names) - _LISTED:,} more; --json lists all")


def _cost(plan: Plan) -> str:
    from rspnet_cli.progress import duration

    estimate = plan.estimate
    if estimate is None or estimate.bytes is None or estimate.seconds is None:
        return "What it would cost is not known: no probed video could be extracted."
    free = "" if plan.free_bytes is None else f", of {bytes_text(plan.free_bytes)} free"
    short = " (NOT ENOUGH)" if plan.free_bytes is not None and estimate.bytes.value > plan.free_bytes else ""
    processes = f"{estimate.workers} process{'es' if estimate.workers > 1 else ''}"
    return (
        f"About {_between(estimate.bytes, bytes_text)} of frames{free}{short}; about {_between(estimate.seconds, duration)} with "
        f"{processes}. Measured on {estimate.probed:,} of {plan.videos:,} videos."
    )


def _between(total: Total, text: Callable[[float], str]) -> str:
    if total.low is None or total.high is None or text(total.low) == text(total.high):
        return text(total.value)
    return f"{text(total.value)} ({text(total.low)} to {text(total.high)})"
