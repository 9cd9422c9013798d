"""The table of an extraction, as every later stage reads it: one row per video."""

from __future__ import annotations

import binascii
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import INDEX, Entry, artifact_fault
from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.tables import EVERY_ROW, FILES, VIDEOS, read_header, read_table
from rspnet_cli.tables.arrays import joined, places, read_pieces

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
    """(V, 32) uint8: sha256 of each frame file, from the index."""
    sizes: np.ndarray
    """(V,) int64: bytes of each frame file, from the index."""

    def path(self, row: int) -> Path:
        """The frame file of a row."""
        return self.folder / str(self.paths[row], "utf-8")

    def check_file(self, row: int) -> None:
        """Hash a frame file before its first use. Raises InputError when it is not the file that was extracted."""
        entry = Entry(str(self.paths[row], "utf-8"), int(self.sizes[row]), self.hashes[row].tobytes().hex())
        fault = artifact_fault(self.folder, entry, hashed=True)
        if fault:
            raise InputError(f"{self.path(row)} {fault}: {self.advice}.")


@dataclass(frozen=True)
class FramesTable:
    """The videos of an extraction, sorted by id: in memory what is needed to read their frames, all else when it is asked for."""

    manifest: Manifest
    files: FrameFiles
    """What a loader worker is given of it."""
    split_columns: list[str]
    """The split columns, such as split_1."""

    def __len__(self) -> int:
        return len(self.files.frames)

    @property
    def frames(self) -> np.ndarray:
        """(V,) int64: frames per video."""
        return self.files.frames

    @property
    def fps(self) -> np.ndarray:
        """(V,) float64: average frames per second."""
        return self.files.fps

    def read(self, *columns: str, rows: slice = EVERY_ROW, categories: Collection[str] = ()) -> pd.DataFrame:
        """Columns of videos.csv (none named: all) as of `read_table`. Raises InputError where it is not what it was."""
        return read_table(self._file(), VIDEOS, columns or None, rows=rows, categories=categories)

    def pieces(self, *columns: str, rows: slice = EVERY_ROW) -> Iterator[dict[str, np.ndarray]]:
        """Columns of videos.csv as of `read_pieces`. Raises InputError where it is not what it was."""
        return read_pieces(self._file(), VIDEOS, columns, rows)

    def array(self, column: str) -> np.ndarray:
        """The same of one column, whole: (V,)."""
        return joined(self.pieces(column))[column]

    def _file(self) -> Path:
        # Hashed whenever it is read, in a fraction of the time: nothing may have taken its place since the files above were read.
        return checked_artifact(self.manifest, VIDEOS.file)

    @property
    def ids(self) -> list[str]:
        """The videos' ids in row order, read anew: a string each, for who looks through all of them."""
        return [video_id.decode() for piece in self.pieces("id") for video_id in piece["id"].tolist()]

    def ids_of(self, rows: Sequence[int]) -> list[str]:
        """The ids of some rows."""
        ids = self.array("id")
        return [str(ids[row], "utf-8") for row in rows]

    def rows_of(self, ids: Collection[str]) -> dict[str, int]:
        """The rows of some ids, of those that are there."""
        wanted = {video_id.encode() for video_id in ids}
        rows: dict[str, int] = {}
        start = 0
        for piece in self.pieces("id") if wanted else ():
            rows |= {video_id.decode(): row for row, video_id in enumerate(piece["id"].tolist(), start) if video_id in wanted}
            start += len(piece["id"])
        return rows

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
        if column not in self.split_columns:
            there = ", ".join(name.removeprefix("split_") for name in self.split_columns) or "none"
            raise InputError(f"{self.manifest.path} has no split {split} (splits there: {there}): name one of them with --split.")
        return np.flatnonzero(self.array(column) == part.encode())


def read_frames(manifest: Manifest) -> FramesTable:
    """Read videos.csv of an extraction and check it against its manifest. Raises InputError."""
    path = checked_artifact(manifest, VIDEOS.file)
    listed = _listed_files(manifest)
    table = joined(
        {
            "place": _places(piece["frames_file"], listed["path"]),
            "frames": piece["frames"],
            "fps": piece["fps"],
            "height": piece["height"].astype(np.int32),
            "width": piece["width"].astype(np.int32),
        }
        for piece in read_pieces(path, VIDEOS, ("frames_file", "frames", "fps", "height", "width"))
    )
    place, fps = table["place"], table["fps"]
    whole = (table["frames"], table["height"], table["width"])
    if not len(fps) or min(map(np.min, whole)) < 1 or not np.isfinite(fps).all() or fps.min() <= 0 or place.min() < 0:
        raise InputError(f"{path} has rows without frames, rate, size or frame file: make it anew with `rspnet extract --force`.")
    files = FrameFiles(
        folder=manifest.folder,
        advice=manifest.advice,
        frames=table["frames"],
        fps=fps,
        height=table["height"],
        width=table["width"],
        paths=listed.pop("path")[place],
        hashes=listed.pop("sha256")[place],
        sizes=listed.pop("bytes")[place],
    )
    return FramesTable(manifest, files, [name for name in read_header(path) if name.startswith("split_")])


def _places(names: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Where the frame files of videos.csv are in the index; there a folder of pictures ends with a slash."""
    found = places(names, listed)
    missing = found < 0
    if missing.any():
        found[missing] = places(np.char.add(names[missing], b"/"), listed)
    return found


def _listed_files(manifest: Manifest) -> dict[str, np.ndarray]:
    """path (F,) bytes, ascending, bytes (F,) int64 and sha256 (F, 32) uint8 of all frame files: of the index, or of a manifest of schema 1.

    Raises InputError.
    """
    if manifest.listed is None:
        items = sorted(manifest.artifacts, key=lambda item: item.path)
        return {
            "path": np.array([item.path.encode() for item in items]),
            "bytes": np.array([item.bytes for item in items], np.int64),
            "sha256": _raw_hashes(np.array([item.sha256.encode() for item in items])),
        }
    path = checked_artifact(manifest, INDEX)
    try:
        listed = joined(piece | {"sha256": _raw_hashes(piece["sha256"])} for piece in read_pieces(path, FILES, FILES.header()))
        if listed["bytes"].min(initial=0) < 0:
            raise ValueError
    except ValueError as error:
        raise InputError(f"{path} has rows without size or hash: make it anew with `rspnet extract --force`.") from error
    if (listed["path"][1:] <= listed["path"][:-1]).any():
        raise InputError(f"{path} is not sorted by path: make it anew with `rspnet extract --force`.")
    return listed


def _raw_hashes(hashes: np.ndarray) -> np.ndarray:
    """(n,) bytes, 64 hexadecimal digits each -> (n, 32) uint8. Raises ValueError."""
    if hashes.itemsize > 64:
        raise ValueError
    return np.frombuffer(binascii.unhexlify(hashes.astype("S64").tobytes()), np.uint8).reshape(len(hashes), 32)


def frames_of(encoder: Manifest, default: Path | None) -> Path:
    """The extraction that a pretraining or fine-tuning read; the default for an imported encoder, which names none. Raises InputError."""
    if not encoder.is_imported:
        return encoder.input("extract", verify=False).path
    if default is None:
        raise InputError(f"{encoder.path} was imported and names no extraction: say whose videos are meant (--frames).")
    return default
