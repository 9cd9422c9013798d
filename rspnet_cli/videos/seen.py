"""Which videos an encoder was trained on: by the hash of the source, so also those of another extraction, under another name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rspnet_cli.manifest import ENCODER_STAGES, Manifest
from rspnet_cli.tables import FINETUNE_VIDEOS, PRETRAIN_VIDEOS, Table
from rspnet_cli.tables.arrays import joined, places, read_pieces, write_arrays
from rspnet_cli.videos.frames import FramesTable


def write_trained_videos(folder: Path, form: Table, videos: FramesTable, own: Mapping[str, np.ndarray]) -> None:
    """Write videos.csv of a training: id and sha256 of an extraction's videos, beside columns of its own, (V,) bytes each.

    Before the training: then the extraction's table need not be kept in memory, nor be there weeks later. Raises DiskFullError.
    """
    write_arrays(folder / form.file, form.header(), _beside(videos, own, form.header()))


def _beside(videos: FramesTable, own: Mapping[str, np.ndarray], header: Sequence[str]) -> Iterator[list[np.ndarray]]:
    start = 0
    for piece in videos.pieces("id", "sha256"):
        stop = start + len(piece["id"])
        columns = piece | {name: values[start:stop] for name, values in own.items()}
        yield [columns[name] for name in header]
        start = stop


def used_videos(manifest: Manifest, column: str) -> np.ndarray:
    """id, or sha256 of the source, of every video that a pretraining or fine-tuning used: (n,) bytes, ascending. Raises InputError."""
    table = FINETUNE_VIDEOS if manifest.stage == "finetune" else PRETRAIN_VIDEOS
    pieces = read_pieces(manifest.artifact_path(table.file), table, (column, "used"))
    used = joined({column: piece[column][piece["used"]]} for piece in pieces)[column]
    used.sort()
    return used


def seen_videos(encoder: Manifest | None, sources: Iterable[np.ndarray]) -> pd.Series:
    """Whether an encoder has seen videos in its training or in one that this went on from: (V,) boolean.

    encoder: None: untrained. sources: sha256 of their source files, bytes, in pieces. NA: not known, as one of the trainings was imported.
    Raises InputError.
    """
    hashes, complete = ([], True) if encoder is None else _seen_hashes(encoder)
    seen = np.concatenate([_are_in_any(hashes, piece) for piece in sources])
    return pd.Series(pd.arrays.BooleanArray(seen, ~seen & (not complete)))


def num_seen(seen: pd.Series) -> int | None:
    """How many of these videos were seen; None where that is not known of one."""
    return None if seen.isna().any() else int(seen.sum())


def _are_in_any(hashes: list[np.ndarray], sources: np.ndarray) -> np.ndarray:
    found = np.zeros(len(sources), bool)
    for known in hashes:
        found |= places(sources, known) >= 0
    return found


def _seen_hashes(encoder: Manifest) -> tuple[list[np.ndarray], bool]:
    """sha256 of the sources that an encoder is known to have seen, by training, and whether these are all."""
    if encoder.is_imported:
        return [], False
    seen, complete = [used_videos(encoder, "sha256")], True
    for ref in encoder.inputs:
        if ref.stage in ENCODER_STAGES:
            before, known = _seen_hashes(encoder.read_input(ref, verify=False))
            seen, complete = seen + before, complete and known
    return seen, complete
