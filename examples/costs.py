"""What a large set will cost: a measured `rspnet bench --json` times its size, with the computation.

    rspnet bench --recipe r3d18 --json > bench.json
    python examples/costs.py bench.json --videos 240000 --frames 300 --epochs 200

Hours of a core are those of one process; hours of the machine are those of the device (and the precision) that was measured. They are
divided by the cores and GPUs that share the work. Reads two JSON files; needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from result_tables import markdown, read_results


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="what `rspnet bench --json` printed")
    parser.add_argument(
        "--extract", type=Path, default=Path("rspnet-run/extract"), help="the extraction it measured, for the size of a frame"
    )
    parser.add_argument("--videos", type=int, required=True, help="videos of the large set")
    parser.add_argument("--frames", type=int, default=300, help="frames of each (default: 300, 10 s)")
    parser.add_argument("--epochs", type=int, default=200, help="of the pretraining (default: 200)")
    parser.add_argument("--queries", type=int, help="videos searched for (default: a twelfth of the videos, as in Kinetics-400)")
    arguments = parser.parse_args()
    measured = json.loads(arguments.bench.read_text(encoding="utf-8"))["measured"]
    stored = read_results(arguments.extract)
    queries = arguments.queries or arguments.videos // 12
    rows = costs(measured, stored["bytes"] / stored["frames"], arguments.videos, arguments.frames, epochs=arguments.epochs, queries=queries)
    print(markdown(("stage", "cost", "computation"), rows))


def costs(
    measured: Mapping[str, Any], frame_bytes: float, videos: int, frames: int, *, epochs: int, queries: int
) -> list[tuple[str, str, str]]:
    """(stage, cost, how it is computed) of everything that was measured. frame_bytes: of the store, per frame."""
    rows = []
    if "extract" in measured:
        rate = measured["extract"]["figures"]["frames_per_cpu_s"]
        rows.append(_time("extract", "core", videos * frames / rate, f"{videos:,} x {frames} frames / {rate:,.0f} frames per CPU second"))
    size = videos * frames * frame_bytes
    rows.append(("its store", _size(size), f"{videos:,} x {frames} frames x {frame_bytes:,.0f} bytes"))
    if "loader" in measured:
        rate = measured["loader"]["figures"]["videos_per_s_in_process"]
        rows.append(
            _time(f"pretrain, reading, {epochs} epochs", "core", epochs * videos / rate, f"{epochs} x {videos:,} / {rate:,.1f} videos/s")
        )
    if "step" in measured:
        setup, rate = measured["step"]["setup"], measured["step"]["rate"]["median"]
        name = f"pretrain, steps, {epochs} epochs ({setup['backbone']}, {setup['device']}, {setup['precision']})"
        rows.append(_time(name, "machine", epochs * videos / rate, f"{epochs} x {videos:,} / {rate:,.1f} videos/s"))
    if "export" in measured:
        setup, rate = measured["export"]["setup"], measured["export"]["rate"]["median"]
        name = f"export-features ({setup['device']}, {setup['precision']})"
        rows.append(_time(name, "machine", videos * setup["clips"] / rate, f"{videos:,} x {setup['clips']} clips / {rate:,.1f} clips/s"))
    if "retrieval" in measured:
        setup, rate = measured["retrieval"]["setup"], measured["retrieval"]["rate"]["median"]
        pairs, gallery = rate * setup["gallery"], videos - queries
        computation = f"{queries:,} queries x {gallery:,} / {pairs:,.0f} pairs/s"
        rows.append(_time(f"eval-retrieval ({setup['device']})", "machine", queries * gallery / pairs, computation))
        per_video = 4 * setup["channels"]
        rows.append(("its gallery in memory", _size(gallery * per_video), f"{gallery:,} x {per_video:,} bytes"))
    return rows


def _time(stage: str, of: str, seconds: float, computation: str) -> tuple[str, str, str]:
    hours = seconds / 3600
    if hours < 1:
        cost = f"{max(seconds / 60, 0.1):,.1f} minutes of the {of}"
    elif hours < 100:
        cost = f"{hours:,.1f} hours of the {of}"
    else:
        cost = f"{hours:,.0f} hours of the {of} ({hours / 24:,.0f} days)"
    return stage, cost.replace("of the core", "of a core"), computation


def _size(num_bytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes:,.0f} bytes"


if __name__ == "__main__":
    main()
