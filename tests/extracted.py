"""Extractions of small, really encoded videos in which every frame shows its number, made by the extract stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rspnet_cli.config import ExtractConfig
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from tests.encode import make_video

SIZE = (40, 32)
NUM_FRAMES = (20, 24, 16, 30, 9, 20, 24, 22, 18, 21)
"""Frames of each video: mostly enough for 8-frame clips at speed 2, one too short, all different enough to be told apart."""


def first_number(video: int) -> int:
    """The number that the first frame of a video shows; the others count on from it."""
    return 100 * video


def make_videos(folder: Path, num_frames: Sequence[int] = NUM_FRAMES, size: tuple[int, int] = SIZE, first: int = 0) -> Path:
    """Encode the videos v000.mp4, v001.mp4, ..., or those from number `first` on (equal files for equal numbers and lengths)."""
    for video, length in enumerate(num_frames, start=first):
        make_video(folder / f"v{video:03d}.mp4", length, size=size, start=first_number(video))
    return folder


def make_extract(
    out: Path,
    *,
    num_frames: Sequence[int] = NUM_FRAMES,
    size: tuple[int, int] = SIZE,
    parts: Sequence[str] | None = None,
    labelled: bool = False,
    first: int = 0,
    **settings: Any,
) -> Manifest:
    """Encode and extract videos: row i of the table is video first + i.

    parts: train or test per video (None: a set without splits). labelled: the classes even and odd, two videos to a group.
    """
    videos = make_videos(out.parent / f"{out.name}-sources", num_frames, size, first)
    annotations = None
    if parts is not None or labelled:
        columns: dict[str, list[str]] = {"path": [f"v{first + row:03d}.mp4" for row in range(len(num_frames))]}
        if parts is not None:
            columns["split"] = list(parts)
        if labelled:
            columns["label"] = [("even", "odd")[(first + row) % 2] for row in range(len(num_frames))]
            columns["group"] = [f"g{(first + row) // 2}" for row in range(len(num_frames))]
        annotations = out.parent / f"{out.name}.csv"
        annotations.write_text("".join(",".join(row) + "\n" for row in [tuple(columns), *zip(*columns.values(), strict=True)]))
    config = {"short_side": min(size), "workers": 1, "dataset": "plain" if annotations is None else "csv"} | settings
    return extract(validated(ExtractConfig, config), videos=videos, annotations=annotations, out=out)
