"""A finished extract stage of small, really encoded videos in which every frame shows its number."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest
from rspnet_cli.stage import begin_stage
from rspnet_cli.tables import VIDEOS, csv_bytes
from rspnet_cli.videos.store import write_video
from tests.encode import make_video

SIZE = (40, 32)
NUM_FRAMES = (20, 24, 16, 30, 9, 20, 24, 22, 18, 21)
"""Frames of each video: mostly enough for 8-frame clips at speed 2, one too short, all different enough to be told apart."""


def first_number(video: int) -> int:
    """The number that the first frame of a video shows; the others count on from it."""
    return 100 * video


def make_extract(
    out: Path,
    *,
    num_frames: Sequence[int] = NUM_FRAMES,
    size: tuple[int, int] = SIZE,
    splits: Mapping[str, Sequence[str]] | None = None,
    labelled: bool = False,
    codec: Any = "h264",
    first: int = 0,
) -> Manifest:
    """Encode and extract videos v000, v001, ... or those from `first` on (equal videos for equal numbers and lengths).

    splits: {"split_1": a part per video} (None: a set without splits). labelled: classes even and odd, two videos to a group.
    """
    splits = splits or {}
    rows: list[dict[str, Any]] = []
    hashed = {}
    with begin_stage("extract", {"short_side": min(size), "codec": codec, "size": size, "first": first}, inputs={}, out=out) as stage:
        if stage.manifest is not None:
            return stage.manifest
        for position, length in enumerate(num_frames):
            video = first + position
            name = f"v{video:03d}"
            source = make_video(out.parent / f"{out.name}-sources" / f"{name}.mp4", length, size=size, start=first_number(video))
            file = f"frames/{name}.mp4" if codec == "h264" else f"frames/{name}"
            info = write_video(source, stage.work / file, short_side=min(size), codec=codec)
            hashed[file if codec == "h264" else f"{file}/"] = (info.bytes, info.sha256)
            facts = {key: getattr(info, key) for key in ("frames", "fps", "width", "height", "bytes")}
            facts |= {"sha256": sha256_of(source), "repaired_timestamps": 0, "corrupt_frames": 0, "partial": False}
            if labelled:
                facts |= {"label": video % 2, "label_name": ("even", "odd")[video % 2], "group": f"g{video // 2}"}
            parts = {column: values[position] for column, values in splits.items()}
            rows.append({"id": name, "frames_file": file, "source": f"{name}.mp4", **facts, **parts})
        columns = [name for column in VIDEOS.columns for name in ([*splits] if column.name == "split_N" else [column.name])]
        (stage.work / "videos.csv").write_bytes(csv_bytes(columns, rows))
        return stage.finish(
            results={"videos": len(rows)}, artifacts=["videos.csv"], hashed=hashed, classes_sha256="c" * 64 if labelled else None
        )
