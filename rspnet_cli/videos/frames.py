"""The table of an extraction, as every later stage reads it: one row per video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import INDEX, Entry, artifact_fault
from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.tables import FILES, VIDEOS, read_table

if TYPE_CHECKING:
    import pandas as pd  # half a second to import: a search reads no table with it


@dataclass(frozen=True)
class FrameFiles:
    """What a loader worker needs of an extraction to read its videos: row i of each array is video i.

    Arrays alone, however many videos: a worker shares the pages of its parent until one of them is written to, and a mere look at a Python
    object writes its count of references. Lists of 10 million names would soon be there once per worker.
    """

    folder: Path
    """Of the extraction."""
    advice: str
    """How to mend a frame file, for messages."""
    frames: np.ndarray
    """(V,) int64: frames per video."""
    fps: np.ndarray
    """(V,) float64: average frames per second."""
    height: np.ndarray
    """(V,) int32: pixels, as stored."""
    width: np.ndarray
    """(V,) int32: pixels, as stored."""
    paths: np.ndarray
    """(V,) bytes, UTF-8: frame file, or folder ending with a slash, relative to the extraction's folder."""
    hashes: np.ndarray
    """(V,) S64: sha256 of each frame file, from the index."""
    sizes: np.ndarray
    """(V,) int64: bytes of each frame file, from the index."""

    def path(self, row: int) -> Path:
        """The frame file of a row."""
        return self.folder / str(self.paths[row], "utf-8")

    def check_file(self, row: int) -> None:
        """Hash a frame file before its first use. Raises InputError when it is not the file that was extracted."""
        entry = Entry(str(self.paths[row], "utf-8"), int(self.sizes[row]), self.hashes[row].decode())
        fault = artifact_fault(self.folder, entry, hashed=True)
        if fault:
            raise InputError(f"{self.path(row)} {fault}: {self.advice}.")


@dataclass(frozen=True)
class FramesTable:
    """The videos of an extraction, sorted by id."""

    manifest: Manifest
    rows: pd.DataFrame
    """videos.csv as it is (columns: `rspnet_cli.tables`)."""
    files: FrameFiles
    """What a loader worker is given of it."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def frames(self) -> np.ndarray:
        """(V,) int64: frames per video."""
        return self.files.frames

    @property
    def fps(self) -> np.ndarray:
        """(V,) float64: average frames per second."""
        return self.files.fps

    @property
    def ids(self) -> list[str]:
        """The videos' ids in row order."""
        return [str(value) for value in self.rows["id"]]

    @property
    def split_columns(self) -> list[str]:
        """The split columns, such as split_1."""
        return [column for column in self.rows.columns if column.startswith("split_")]

    def refuse_larger(self, size: int) -> None:
        """Raise InputError where clips of `size` pixels would have to be enlarged from what the extraction stored."""
        short_side = self.manifest.config.get("short_side")
        if isinstance(short_side, int) and size > short_side:
            raise InputError(
                f"clip.size {size} exceeds the stored frames' short side of {short_side}: run `rspnet extract VIDEOS --short-side {size} "
                "--out DIR` (or a little more, so that crops keep their detail) and name that DIR, or lower clip.size."
            )

    def path(self, row: int) -> Path:
        """The frame file of a row."""
        return self.files.path(row)

    def check_file(self, row: int) -> None:
        """Hash a frame file before its first use. Raises InputError when it is not the file that was extracted."""
        self.files.check_file(row)

    def rows_of_split(self, split: str, part: str) -> np.ndarray:
        """(n,) int64: rows whose split_<split> is `part` ("train" or "test"). Raises InputError when there is no such split."""
        column = f"split_{split.removeprefix('split_')}"
        if column not in self.rows.columns:
            there = ", ".join(name.removeprefix("split_") for name in self.split_columns) or "none"
            raise InputError(f"{self.manifest.path} has no split {split} (splits there: {there}): name one of them with --split.")
        return np.flatnonzero(self.rows[column].to_numpy() == part)


def read_frames(manifest: Manifest) -> FramesTable:
    """Read videos.csv of an extraction and check it against its manifest. Raises InputError."""
    import pandas as pd

    path = manifest.artifact_path("videos.csv")
    rows = read_table(path, VIDEOS)
    frames = rows["frames"].fillna(0).to_numpy(np.int64)
    fps = rows["fps"].to_numpy(np.float64)
    listed = _listed_files(manifest)
    places = pd.Index(listed["path"].str.rstrip("/")).get_indexer(pd.Index(rows["frames_file"].str.rstrip("/")))
    height, width = (rows[side].fillna(0).to_numpy(np.int32) for side in ("height", "width"))
    numbers = (frames, height, width)
    if not len(rows) or min(map(np.min, numbers)) < 1 or not np.isfinite(fps).all() or fps.min() <= 0 or places.min() < 0:
        raise InputError(f"{path} has rows without frames, rate, size or frame file: make it anew with `rspnet extract --force`.")
    files = FrameFiles(
        folder=manifest.folder,
        advice=manifest.advice,
        frames=frames,
        fps=fps,
        height=height,
        width=width,
        paths=np.array([path.encode() for path in listed["path"].to_numpy(object)[places]], dtype=np.bytes_),
        hashes=listed["sha256"].to_numpy("S64")[places],
        sizes=listed["bytes"].to_numpy(np.int64)[places],
    )
    return FramesTable(manifest=manifest, rows=rows, files=files)


def _listed_files(manifest: Manifest) -> pd.DataFrame:
    """path, bytes and sha256 of every frame file: of the index, or of a manifest of schema 1. Raises InputError."""
    import pandas as pd

    if manifest.listed is not None:
        path = checked_artifact(manifest, INDEX)
        listed = read_table(path, FILES)
        if not listed["sha256"].str.fullmatch("[0-9a-f]{64}").all() or listed["bytes"].isna().any():
            raise InputError(f"{path} has rows without size or hash: make it anew with `rspnet extract --force`.")
        return listed
    return pd.DataFrame([(item.path, item.bytes, item.sha256) for item in manifest.artifacts], columns=FILES.header())


def frames_of(encoder: Manifest, default: Path | None) -> Path:
    """The extraction that a pretraining or fine-tuning read; the default for an imported encoder, which names none. Raises InputError."""
    if not encoder.is_imported:
        return encoder.input("extract", verify=False).path
    if default is None:
        raise InputError(f"{encoder.path} was imported and names no extraction: say whose videos are meant (--frames).")
    return default
