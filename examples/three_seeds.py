"""Is it the method or luck? Pretrains with several seeds on one extraction and compares each with its own untrained encoder.

    python examples/three_seeds.py demo-run/extract --out demo-run/three-seeds

prints a Markdown table: per seed recall@1 and linear top-1 with their 95 % intervals, those of the same network before training, RSP
accuracy, A-VID top-1 and the minutes of pretraining. Features are max-pooled, as in the paper's supplement (`--pool avg`: as in its
code). Stopped and started again it goes on where it was. What follows `--` goes to `rspnet pretrain`:

    python examples/three_seeds.py demo-run/extract --out other -- --recipe small-cpu --set objective.rsp_weight=0
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from demo import run
from result_tables import markdown, read_results, with_interval


def run_seed(extract: Path, folder: Path, seed: int, pool: str, pretrain_flags: list[str]) -> None:
    """Pretraining, features and evaluations of one seed, and of its untrained encoder, all in `folder`."""
    untrained = folder / "random-init"

    def step(*words: str | Path) -> float:
        return run(*words, environment=os.environ | {"RSPNET_WORK_DIR": str(folder)})

    step("rspnet", "pretrain", extract, *pretrain_flags, "--seed", str(seed), "--out", folder / "pretrain")
    export = ("rspnet", "export-features", folder / "pretrain", "--pool", pool)
    step(*export, "--out", folder / "export-features")
    step(*export, "--random-init", "--out", untrained / "export-features")
    for place in (folder, untrained):
        step("rspnet", "eval-retrieval", place / "export-features", "--out", place / "eval-retrieval")
        step("rspnet", "eval-classification", place / "export-features", "--probe", "linear", "--out", place / "eval-classification")


def figures(folder: Path) -> dict[str, Any]:
    """What a finished seed came to."""
    environment = json.loads((folder / "pretrain" / "manifest.json").read_text(encoding="utf-8"))["environment"]
    found: dict[str, Any] = {
        "pretrain": read_results(folder / "pretrain"),
        "minutes": environment["seconds"] / 60,
        "resumed": environment["resumed"],
    }
    for name, place in (("trained", folder), ("untrained", folder / "random-init")):
        recall, linear = read_results(place / "eval-retrieval"), read_results(place / "eval-classification")["linear"]
        found[name] = {
            "recall@1": (recall["recall"]["1"], recall["interval"]["1"]),
            "linear top-1": (linear["top1"], linear["interval"]["top1"]),
        }
    return found


def seeds_table(seeds: dict[int, dict[str, Any]]) -> str:
    """The table: a row per seed, then the means. `*` after the minutes: of the last part of a run that had been stopped."""
    measures = ("recall@1", "linear top-1")
    header = ["seed", *(f"{measure}{of}" for measure in measures for of in ("", ", untrained")), "RSP accuracy", "A-VID top-1", "minutes"]
    rows, columns = [], [(measure, name) for measure in measures for name in ("trained", "untrained")]
    for seed, found in seeds.items():
        avid = found["pretrain"]["avid_top1"]
        rows.append(
            [
                str(seed),
                *(with_interval(*found[name][measure]) for measure, name in columns),
                f"{found['pretrain']['rsp_accuracy']:.3f}",
                "-" if avid is None else f"{avid:.3f}",  # the queue was never full of real keys
                f"{found['minutes']:.1f}" + ("*" if found["resumed"] else ""),
            ]
        )
    means = [f"{mean(found[name][measure][0] for found in seeds.values()):.3f}" for measure, name in columns]
    rsp = f"{mean(found['pretrain']['rsp_accuracy'] for found in seeds.values()):.3f}"
    avids = [found["pretrain"]["avid_top1"] for found in seeds.values()]
    avid = "-" if None in avids else f"{mean(avids):.3f}"
    rows.append(["mean", *means, rsp, avid, f"{mean(found['minutes'] for found in seeds.values()):.1f}"])
    return markdown(header, rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Pretrain with several seeds on one extraction; compare each with its untrained encoder.",
        epilog="What follows -- are flags of rspnet pretrain (default: --recipe small-cpu).",
    )
    parser.add_argument("extract", type=Path, help="folder or manifest of an extraction")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, one sub-folder a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--pool", choices=("max", "avg"), default="max", help="of a clip's features (default: %(default)s)")
    own, pretrain_flags = sys.argv[1:], ["--recipe", "small-cpu"]
    if "--" in own:
        own, pretrain_flags = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    folders = {seed: arguments.out / f"seed-{seed}" for seed in arguments.seeds}
    for seed, folder in folders.items():
        run_seed(arguments.extract, folder, seed, arguments.pool, pretrain_flags)
    print("\n" + seeds_table({seed: figures(folder) for seed, folder in folders.items()}))


if __name__ == "__main__":
    main()
