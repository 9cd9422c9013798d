"""Describe every video by its colours alone, in the form of `rspnet export-features`, so that both evaluations run on it.

A colour histogram knows the scene and nothing of the motion: what it reaches is what scenes tell about the classes, and a video encoder has
to do better. It also shows how features of any other origin enter the evaluations.

    python examples/colour_histogram.py rspnet-run/extract --out rspnet-run/colour-histogram/export-features
    rspnet eval-retrieval rspnet-run/colour-histogram/export-features --out rspnet-run/colour-histogram/eval-retrieval
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from rspnet_cli.errors import RspnetError
from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, FeatureTable, write_features
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import begin_stage
from rspnet_cli.videos.frames import FramesTable, read_frames
from rspnet_cli.videos.store import open_store

LEVELS = 4  # of each of red, green and blue: 64 colours


def colour_histogram(frames: np.ndarray) -> np.ndarray:
    """Share of the pixels that have each of the LEVELS ** 3 colours. frames: (N, H, W, 3) uint8 -> (N, LEVELS ** 3) float32."""
    level = frames.astype(np.int64) * LEVELS // 256  # (N, H, W, 3)
    colour = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]  # (N, H, W)
    counts = np.stack([np.bincount(one.ravel(), minlength=LEVELS**3) for one in colour])
    return np.asarray(counts / colour[0].size, np.float32)


def describe(path: Path, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Histograms of evenly spaced frames of a stored video, (N, colours), and when each begins and ends in seconds, (N, 2)."""
    with open_store(path) as video:
        indices = np.round(np.linspace(0, video.num_frames - 1, num_frames)).astype(np.int64)
        ends = np.append(video.times_s[1:], video.times_s[-1] + 1 / video.fps)
        return colour_histogram(video.read(indices)), np.stack([video.times_s[indices], ends[indices]], axis=1)


def export_colours(extract: Path, out: Path, *, num_frames: int = 10, force: bool = False, report: Reporter | None = None) -> Manifest:
    """Write the histograms of every extracted video as a finished export-features stage. A frame stands where a clip stands there."""
    report = report or Reporter.silent()
    config = {"encoder": "colour-histogram", "levels": LEVELS, "clips": num_frames}
    with begin_stage("export-features", config, inputs={"extract": extract}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        source = stage.inputs["extract"]
        table = read_frames(source)
        described = []
        for row in report.track(range(len(table)), total=len(table), unit="videos", name="colour-histogram"):
            table.check_file(row)
            described.append(describe(table.path(row), num_frames))
        histograms, times_s = (np.stack(parts) for parts in zip(*described, strict=True))
        features = FeatureTable(
            features=histograms.mean(axis=1),
            clip_features=histograms,
            clip_times_s=times_s,
            video_index=np.arange(len(table)),
            videos=video_rows(table),
            metadata={"encoder": "colour-histogram", "levels": str(LEVELS), "clips": str(num_frames), "extract_digest": source.digest},
        )
        write_features(stage.work, features)
        results = {"videos": len(table), "channels": LEVELS**3, "clips": num_frames}
        return stage.finish(results=results, artifacts=[FEATURES, VIDEOS], classes_sha256=source.classes_sha256)


def video_rows(table: FramesTable) -> pd.DataFrame:
    """The extraction's words about each video, as a FeatureTable wants them; nothing was trained, so none was seen."""
    videos = table.read("id", "source", "label", "label_name", "group", *table.split_columns)
    videos["label"] = videos["label"].fillna(-1).astype("int64")
    videos["frames"], videos["fps"], videos["seen"] = table.frames, table.fps, False
    return videos


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Colour histograms of extracted videos, in the form of export-features.")
    parser.add_argument("extract", type=Path, help="manifest or folder of an extraction")
    parser.add_argument("--out", type=Path, required=True, help="where the features go")
    parser.add_argument("--frames", type=int, default=10, help="frames per video, evenly spaced (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="start anew")
    arguments = parser.parse_args()
    if arguments.frames < 1:
        parser.error("--frames needs a whole number from 1 up")
    try:
        manifest = export_colours(arguments.extract, arguments.out, num_frames=arguments.frames, force=arguments.force, report=Reporter())
    except RspnetError as error:
        print(f"colour_histogram: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in manifest.results.items():
        print(f"{name:<8}  {value:,}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
