"""An export's features in part: those of the videos at once, those of clips as they are asked for, and no table library.

The features of a hundred thousand videos' clips take gigabytes, of which a search needs those of a few videos. So the file is held to its
size, shapes and finite values, not to its hash, which would read all of it (`rspnet inspect --verify` does).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest, check_artifact, checked_artifact
from rspnet_cli.tables import read_rows
from rspnet_cli.tensors import check_shape, open_tensors

FEATURES = "features.safetensors"
VIDEOS = "videos.csv"
STATISTICS = "batch_norm.safetensors"
"""Batch-norm statistics, where the export estimated them anew."""
ADVICE = "make the features anew with `rspnet export-features --force`"


@dataclass(frozen=True)
class OpenFeatures:
    """Features of V videos, N clips each. ids, label_names, sources: (V) text, "" for no label; features: (V, C) float32."""

    path: Path
    ids: list[str]
    label_names: list[str]
    sources: list[str]
    features: np.ndarray
    _view: Any

    def clips(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """One video's clips: features (N, C) float32, and start and end (N, 2) float64 in seconds of the source. Raises InputError."""
        found = tuple(self._view.get_slice(name)[row] for name in ("clip_features", "clip_times_s"))
        if not all(np.isfinite(values).all() for values in found):
            raise InputError(f"{self.path}: the clips of video {self.ids[row]} hold values that are not finite: {ADVICE}.")
        return found[0], found[1]


@contextmanager
def open_features(export: Manifest) -> Iterator[OpenFeatures]:
    """The features of an export, whose file stays open for the block. Raises InputError, in one sentence."""
    listed = {artifact.path: artifact for artifact in export.artifacts}
    path = export.artifact_path(FEATURES)
    check_artifact(export, listed[FEATURES], hashed=False)
    table = checked_artifact(export, VIDEOS)
    rows = read_rows(table)
    if not rows or not {"id", "label_name", "source"} <= rows[0].keys() or len({row["id"] for row in rows}) < len(rows):
        raise InputError(f"{table} is no list of videos with features: {ADVICE}.")
    with open_tensors(path, advice=ADVICE) as view:
        check_features(path, view, len(rows))
        features = view.get_tensor("features")
        if not np.isfinite(features).all():
            raise InputError(f"{path}: tensor 'features' holds values that are not finite: {ADVICE}.")
        ids, names, sources = ([row[name] for row in rows] for name in ("id", "label_name", "source"))
        yield OpenFeatures(path, ids, names, sources, features, view)


def check_features(path: Path, view: Any, rows: int) -> None:
    """Check kinds and shapes of what an open file says of `rows` videos. Raises InputError."""
    _, channels = check_shape(path, view, "features", dtype="F32", shape=(rows, None), advice=ADVICE)
    clips = check_shape(path, view, "clip_features", dtype="F32", shape=(rows, None, channels), advice=ADVICE)[1]
    check_shape(path, view, "clip_times_s", dtype="F64", shape=(rows, clips, 2), advice=ADVICE)
