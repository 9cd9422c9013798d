"""What a large set will cost: a measured `rspnet bench --json` times its size, with the computation.

    rspnet bench --recipe r3d18 --json > bench.json
    python examples/costs.py bench.json --videos 240000 --frames 300 --epochs 200

Hours of a core are those of one process; hours of the machine are those of the device (and the precision) that was measured. They are
divided by the cores and GPUs that share the work. Reads one JSON file; needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from result_tables import markdown

PARTS = ("extract", "loader", "step", "export", "retrieval")


def main() -> None:
    """Print the table, what it assumes, and what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="what `rspnet bench --json` printed")
    parser.add_argument("--videos", type=_count, required=True, help="videos of the large set")
    parser.add_argument("--frames", type=_count, help="frames of each (default: as the measured ones)")
    parser.add_argument("--epochs", type=_count, default=200, help="of the pretraining (default: 200)")
    parser.add_argument("--queries", type=_count, help="videos searched for (default: a twelfth of the videos, as in Kinetics-400)")
    arguments = parser.parse_args()
    try:
        found = _read(arguments.bench)
        queries = arguments.queries or -(-arguments.videos // 12)
        if queries >= arguments.videos:
            raise ValueError(f"{queries:,} queries of {arguments.videos:,} videos leave no gallery to search: give fewer --queries")
        rows = costs(found["measured"], arguments.videos, arguments.frames, epochs=arguments.epochs, queries=queries)
    except ValueError as error:
        parser.error(str(error))
    print(markdown(("stage", "cost", "computation"), rows))
    print("", assumption(found), *missing(found), *mismatches(found["measured"]), sep="\n")


def costs(measured: Mapping[str, Any], videos: int, frames: int | None, *, epochs: int, queries: int) -> list[tuple[str, str, str]]:
    """(stage, cost, how it is computed) of everything that was measured. frames: of a video; None: as the measured ones."""
    rows = []
    if "extract" in measured:
        setup, figures = measured["extract"]["setup"], measured["extract"]["figures"]
        frames, rate = frames or setup["frames_per_video"], figures["frames_per_cpu_s"]
        rows.append(_time("extract", "core", videos * frames / rate, f"{videos:,} x {frames} frames / {rate:,.0f} frames per CPU second"))
        per_frame = figures["bytes_per_frame"]
        rows.append(("its store", _size(videos * frames * per_frame), f"{videos:,} x {frames} frames x {per_frame:,.0f} bytes"))
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
        name = f"export-features ({setup['backbone']}, {setup['device']}, {setup['precision']})"
        rows.append(_time(name, "machine", videos * setup["clips"] / rate, f"{videos:,} x {setup['clips']} clips / {rate:,.1f} clips/s"))
    if "retrieval" in measured:
        setup, rate = measured["retrieval"]["setup"], measured["retrieval"]["rate"]["median"]
        pairs, gallery = rate * setup["gallery"], videos - queries
        computation = f"{queries:,} queries x {gallery:,} / {pairs:,.0f} pairs/s"
        rows.append(_time(f"eval-retrieval ({setup['device']})", "machine", queries * gallery / pairs, computation))
        per_video = 4 * setup["channels"]
        rows.append(("its gallery in memory", _size(gallery * per_video), f"{gallery:,} x {per_video:,} bytes"))
    return rows


def assumption(found: Mapping[str, Any]) -> str:
    """What the table takes for granted, in one sentence."""
    machine, extract = found["machine"], found["measured"].get("extract")
    videos = "videos like those that were measured"
    if extract is not None:
        setup = extract["setup"]
        videos += f" ({setup['sample']} of them, {setup['frames_per_video']} frames on average, stored as {setup['codec']} "
        videos += f"with a short side of {setup['short_side']} pixels)"
    gpus = f" and {len(machine['gpus'])} GPUs" if machine["gpus"] else ""
    return (
        f"Assumed: {videos}, every one of them trained on and described, at the rates of rspnet {machine['rspnet']} on {machine['host']} "
        f"({machine['cores']} cores{gpus}), with a disk as fast as there."
    )


def missing(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each part that was not measured, with the reason."""
    for part in PARTS:
        if part not in found["measured"]:
            yield f"Not measured: {part}. {found['left_out'].get(part, 'Run `rspnet bench` for all parts.')}"


def mismatches(measured: Mapping[str, Any]) -> Iterator[str]:
    """A line for each two parts that are not of one chain of stages."""
    if "step" in measured and "export" in measured:
        step, export = ({key: each["setup"][key] for key in ("backbone", "clip")} for each in (measured["step"], measured["export"]))
        if step != export:
            message = f"Two encoders were measured: {' '.join(step.values())} in pretrain, {' '.join(export.values())} in "
            yield message + "export-features; bench with the recipe of that pretraining, or with another --work-dir."


def _read(path: Path) -> dict[str, Any]:
    """What bench printed. Raises ValueError, in words."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): write it with `rspnet bench --json > {path}`") from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("measured"), dict) or "rspnet" not in found.get("machine", {}):
        raise ValueError(f"{path} is not what `rspnet bench --json` of this version prints: measure again")
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


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
