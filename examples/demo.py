"""The main job from end to end, on videos that it makes itself: what `make demo` runs.

    python examples/demo.py

makes labelled videos, then types the five commands as a user would: extract, pretrain (which sees no labels), export-features,
eval-retrieval, eval-classification; then evaluates an untrained encoder and a plain colour histogram, prints all three side by side, and
makes a page to look at (report.html).
Everything lands in demo-run/. Stopped and started again it goes on where it was; finished, it only shows the tables again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from result_tables import classification_table, read_results, retrieval_table

HERE = Path(os.path.relpath(Path(__file__).parent))


def run(*words: str | Path, environment: dict[str, str]) -> float:
    """Runs one command line, printed as a user would type it: the seconds it took. Ends the demo when it fails."""
    typed = [str(word) for word in words]
    print(f"\n$ {shlex.join(typed)}", flush=True)
    programs = {"rspnet": [sys.executable, "-m", "rspnet_cli"], "python": [sys.executable]}
    start_s = time.monotonic()
    code = subprocess.run([*programs[typed[0]], *typed[1:]], env=environment).returncode
    took_s = time.monotonic() - start_s
    if code:
        print(f"\n{shlex.join(typed)} ended with exit code {code}.", file=sys.stderr)
        raise SystemExit(code if code > 0 else 1)
    print(f"  ({took_s:.1f} s)", flush=True)
    return took_s


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The main job from end to end, on videos that it makes itself.")
    parser.add_argument("--work-dir", type=Path, default=Path("demo-run"), help="where everything lands (default: %(default)s)")
    parser.add_argument("--videos-per-class", type=int, default=32, help="of 15 classes (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=70, help="of pretraining (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws; the videos stay the same (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that make and read videos (default: %(default)s)"
    )
    arguments = parser.parse_args()
    work_dir: Path = arguments.work_dir
    videos, untrained, histogram = work_dir / "videos", work_dir / "random-init", work_dir / "colour-histogram"
    workers = ("--workers", str(arguments.workers))
    environment = os.environ | {"RSPNET_WORK_DIR": str(work_dir)}

    def step(*words: str | Path) -> float:
        return run(*words, environment=environment)

    print(f"Every command below finds its input in {work_dir}, because RSPNET_WORK_DIR={work_dir} is set.")
    took_s = step("python", HERE / "make_videos.py", "--out", videos, "--videos-per-class", str(arguments.videos_per_class), *workers)
    lists = ("--dataset", "ucf101", "--annotations", videos / "ucfTrainTestlist")
    # 64 pixels are enough for clips of 48, and are read in less time than the default 128.
    took_s += step("rspnet", "extract", videos / "UCF-101", *lists, "--short-side", "64", *workers)
    took_s += step("rspnet", "pretrain", "--recipe", "small-cpu", "--epochs", str(arguments.epochs), "--seed", str(arguments.seed))
    # Maxima over a clip's map, as in the paper's supplement: they find more than means.
    took_s += step("rspnet", "export-features", "--pool", "max")
    took_s += step("rspnet", "eval-retrieval", "--topk", "1", "5", "10", "20", "50")
    took_s += step("rspnet", "eval-classification")

    print("\nThe same with an encoder that was not trained: its initial weights.")
    took_s += step("rspnet", "export-features", "--pool", "max", "--random-init")
    took_s += step("rspnet", "eval-retrieval", untrained / "export-features", "--out", untrained / "eval-retrieval")
    took_s += step("rspnet", "eval-classification", untrained / "export-features", "--out", untrained / "eval-classification")

    print("\nAnd with colours alone, which tell the scene but no motion.")
    took_s += step("python", HERE / "colour_histogram.py", work_dir / "extract", "--out", histogram / "export-features")
    took_s += step("rspnet", "eval-retrieval", histogram / "export-features", "--out", histogram / "eval-retrieval")
    took_s += step("rspnet", "eval-classification", histogram / "export-features", "--out", histogram / "eval-classification")

    print("\nAnd all of it on one page.")
    took_s += step("rspnet", "report")

    rows = {"RSPNet, pretrained without labels": work_dir, "untrained encoder": untrained, "colour histogram": histogram}
    found = read_results(work_dir / "eval-retrieval")
    print(f"\nAll of it took {took_s / 60:.1f} minutes. With their 95 % intervals:")
    print(
        f"\nRetrieval: {found['queries']} test videos query {found['gallery']} train videos; right if one of k neighbours has its class.\n"
    )
    print(retrieval_table({name: folder / "eval-retrieval" for name, folder in rows.items()}))
    print("\nClassification of frozen features: trained on the train videos' labels, tested on the test videos.\n")
    print(classification_table({name: folder / "eval-classification" for name, folder in rows.items()}))
    print(f"\nHow each number came about: rspnet inspect {work_dir / 'eval-retrieval'}")
    print(f"Curves, figures and clips to look at: {work_dir / 'report.html'}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None
