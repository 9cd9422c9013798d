"""A finished extract stage: really encoded videos in which every frame shows its number, in a real frame store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest
from rspnet_cli.stage import begin_stage
from rspnet_cli.tables import csv_bytes
from rspnet_cli.videos.store import write_video
from tests.encode import make_video

COLUMNS = ("id", "frames_file", "source", "label", "label_name", "group", "split_1", "frames", "fps", "width", "height", "bytes", "sha256")


def make_extract(
    out: Path,
    sources: Path,
    *,
    num_frames: Sequence[int] = (9, 12, 20, 6),
    size: tuple[int, int] = (40, 32),
    labelled: bool = True,
    codec: str = "h264",
    first: int = 0,
) -> Manifest:
    """One video per entry of num_frames, frames numbered from 100 * (first + position). Classes even and odd; the last one is for test."""
    rows: list[dict[str, Any]] = []
    hashed: dict[str, tuple[int, str]] = {}
    with begin_stage("extract", {"short_side": 32, "codec": codec, "first": first}, inputs={}, out=out) as stage:
        for position, count in enumerate(num_frames):
            number = first + position
            source = make_video(sources / f"v{number}.mp4", count, size=size, start=100 * number)
            file = f"frames/v{number}.mp4" if codec == "h264" else f"frames/v{number}/"
            info = write_video(source, stage.work / file, short_side=32, codec=codec)  # type: ignore[arg-type]
            hashed[file] = (info.bytes, info.sha256)
            rows.append(
                {
                    "id": f"v{number}",
                    "frames_file": file.rstrip("/"),
                    "source": source.name,
                    "label": number % 2 if labelled else None,
                    "label_name": ("even", "odd")[number % 2] if labelled else None,
                    "group": f"g{number // 2}" if labelled else None,
                    "split_1": "test" if position == len(num_frames) - 1 else "train",
                    "frames": info.frames,
                    "fps": info.fps,
                    "width": info.width,
                    "height": info.height,
                    "bytes": info.bytes,
                    "sha256": sha256_of(source),
                }
            )
        columns = [column for column in COLUMNS if labelled or column != "split_1"]
        (stage.work / "videos.csv").write_bytes(csv_bytes(columns, rows))
        return stage.finish(
            results={"videos": len(rows)}, artifacts=["videos.csv"], hashed=hashed, classes_sha256="c" * 64 if labelled else None
        )
