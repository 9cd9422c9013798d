"""Run the comparisons and print the results table (Markdown), with the machine it was measured on."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import torch

import tests.benchmarks
from tests.benchmarks.comparison import Rate, Row

PREFIX = "measure_"
NAMES = sorted(
    module.name.removeprefix(PREFIX) for module in pkgutil.iter_modules(tests.benchmarks.__path__) if module.name.startswith(PREFIX)
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no comparison is called {unknown[0]}: there are {', '.join(NAMES)}")
    rows: list[Row] = []
    for name in arguments.names or NAMES:
        rows += importlib.import_module(f"tests.benchmarks.{PREFIX}{name}").measure()
    print(machine(), "\n", table(rows), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=1) + "\n")


def machine() -> str:
    """One line on what the figures were measured on."""
    threads, versions = torch.get_num_threads(), f"torch {torch.__version__}, PyAV {av.__version__}, NumPy {np.__version__}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = torch.backends.cpu.get_cpu_capability()
    where = f"{os.cpu_count()} cores ({platform.machine()}, {cpu}), {threads} torch threads, {gpu}"
    return f"{where}; Python {platform.python_version()}, {versions}"


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per row; rates with their quartiles."""
    lines = ["| stage | task | unit | rspnet | peer | its rate | ratio | target |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row.stage, row.what, row.unit, shown(row.ours), row.peer, shown(row.theirs), f"**{row.ratio:.2f}**", row.target]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(rate: Rate) -> str:
    """A rate with its quartiles: 131 [128, 133]."""
    digits = 0 if rate.median >= 100 else 1 if rate.median >= 10 else 2
    return f"{rate.median:,.{digits}f} [{rate.low:,.{digits}f}, {rate.high:,.{digits}f}]"


if __name__ == "__main__":
    main()
