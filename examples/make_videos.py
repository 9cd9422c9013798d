"""Makes the demo's videos: figures that walk, run, jump, wave, spin, ... in UCF101's folders, with its split lists.

    python examples/make_videos.py --out demo-videos

writes demo-videos/UCF-101/<Class>/v_<Class>_gGG_cCC.<ext> and demo-videos/ucfTrainTestlist/. The same seed gives the same videos with any
number of workers. Run again, it makes what is missing and touches nothing else. Needs numpy and av alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from demo_videos.encode import write_video
from demo_videos.plan import CLASSES, FPS, GROUP_SIZE, Video, plan_videos, render, write_lists

VERSION = 1
"""Of what the videos look like: videos made by another version are not mixed with ours."""


def make_video(video: Video, *, folder: Path, seed: int) -> None:
    """Renders and encodes one video."""
    frames, _ = render(video, seed)
    write_video(folder / video.path, frames, file_format=video.file_format, fps=FPS)


def make_videos(out: Path, *, classes: Sequence[str], videos_per_class: int, seed: int, workers: int) -> tuple[int, int]:
    """Makes the videos that are not there yet and the split lists: (videos of the set, videos made now)."""
    settings = {"version": VERSION, "classes": sorted(classes), "videos_per_class": videos_per_class, "seed": seed}
    record = out / "made-with.json"
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) != settings:
        raise SystemExit(f"{out} holds videos made with other settings (see {record}): remove it, or name another folder with --out.")
    videos = plan_videos(videos_per_class, seed, classes)
    folder = out / "UCF-101"
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    missing = [video for video in videos if not (folder / video.path).exists()]
    make = partial(make_video, folder=folder, seed=seed)
    # spawn: the same on Linux and macOS, and no copy of a library's threads.
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(make, missing, chunksize=4), start=1):
            if done % 100 == 0 or done == len(missing):
                print(f"{done} of {len(missing)} videos made", file=sys.stderr, flush=True)
    # Last, so that whoever finds the lists finds every video they name.
    if missing or not (out / "ucfTrainTestlist").exists():
        write_lists(out / "ucfTrainTestlist", videos)
    return len(videos), len(missing)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the demo's videos: figures in action, in UCF101's folders.")
    parser.add_argument("--out", type=Path, default=Path("demo-videos"), help="folder to write (default: %(default)s)")
    parser.add_argument(
        "--classes", nargs="+", choices=CLASSES, default=CLASSES, metavar="CLASS", help=f"some of {', '.join(CLASSES)} (default: all)"
    )
    parser.add_argument("--videos-per-class", type=int, default=60, help="in groups of 4, the last ones for testing (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other videos (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.videos_per_class <= GROUP_SIZE:
        parser.error(f"--videos-per-class must be at least {GROUP_SIZE + 1}: one group is for training and one for testing.")
    if arguments.workers < 1:
        parser.error("--workers must be at least 1.")
    start_s = time.monotonic()
    total, made = make_videos(
        arguments.out,
        classes=arguments.classes,
        videos_per_class=arguments.videos_per_class,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    print(f"{total} videos of {len(arguments.classes)} classes in {arguments.out} ({made} made now, {time.monotonic() - start_s:.0f} s).")


if __name__ == "__main__":
    main()
