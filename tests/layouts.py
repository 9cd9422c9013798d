"""Folders in the layouts of data sets, and what is read from a table in the tests."""

from pathlib import Path

from rspnet_cli.videos.listing import VideoSource
from rspnet_cli.videos.sources import VideoTable


def touch(root: Path, *paths: str) -> Path:
    """Files that are videos by their names; nothing here opens them."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode("utf-8", "surrogateescape"))
    return root


def paths(table: VideoTable) -> list[str]:
    return [video.path for video in table.videos]


def reasons(table: VideoTable) -> dict[str, str]:
    return {failure.path: failure.reason for failure in table.failures}


def by_path(table: VideoTable) -> dict[str, VideoSource]:
    return {video.path: video for video in table.videos}


def write_lists(folder: Path, files: dict[str, list[str]], newline: str = "\n") -> Path:
    """Text files by name, from their lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_text("".join(line + newline for line in lines), newline="")
    return folder
