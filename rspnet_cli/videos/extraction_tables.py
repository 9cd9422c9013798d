"""videos.csv and failures.csv of an extraction: their rows, and what can be read back from them. The columns are in `rspnet_cli.tables`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rspnet_cli.tables import FAILURES, VIDEOS, plain_text, read_rows
from rspnet_cli.videos.extraction import StoreLayout
from rspnet_cli.videos.listing import VideoTable
from rspnet_cli.videos.tasks import Extracted, Failed, Outcome


def video_rows(table: VideoTable, outcomes: Mapping[str, Outcome], layout: StoreLayout) -> list[dict[str, Any]]:
    """A row for every extracted video, sorted by id."""
    rows = [
        {
            "id": video.id,
            "frames_file": layout.name(video.id),
            "source": plain_text(video.path),
            "label": video.label,
            "label_name": video.label_name,
            "group": video.group,
            **dict(zip(table.split_names, video.splits, strict=True)),
            **asdict(outcome),
            "sha256": outcome.source_sha256,  # of the source; the store's own is in the index
        }
        for video in table.videos
        if isinstance(outcome := outcomes[video.id], Extracted)
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


def failure_rows(table: VideoTable, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """A row for every source that could not be extracted, found so by the decoder or already by its name; sorted by id."""
    rows = [
        {"id": video.id, "source": plain_text(video.path), "label_name": video.label_name, **asdict(outcome)}
        for video in table.videos
        if isinstance(outcome := outcomes[video.id], Failed)
    ]
    rows += [
        {"id": failure.id, "source": plain_text(failure.path), "label_name": failure.label_name, "reason": failure.reason}
        for failure in table.failures
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


def failures_by_class(folder: Path) -> dict[str, tuple[int, int]]:
    """Class name -> (failed videos, all videos) of a finished extraction, for classes with failures; "" stands for no class."""
    failed = Counter(row["label_name"] for row in read_rows(folder / FAILURES.file))
    extracted = Counter(row["label_name"] for row in read_rows(folder / VIDEOS.file))
    return {name: (failed[name], failed[name] + extracted[name]) for name in sorted(failed)}


def extracted_from_row(row: Mapping[str, str], *, store_sha256: str) -> Extracted:
    """What a row of videos.csv says of its video, with the store's hash, which is in the index."""
    return Extracted(
        frames=int(row["frames"]),
        fps=float(row["fps"]),
        width=int(row["width"]),
        height=int(row["height"]),
        bytes=int(row["bytes"]),
        sha256=store_sha256,
        repaired_timestamps=int(row["repaired_timestamps"]),
        corrupt_frames=int(row["corrupt_frames"]),
        partial=row["partial"] == "True",
        source_sha256=row["sha256"],
    )
