"""Which videos of an export are nearest to a query, and which seconds of them are nearest to which of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rspnet_cli.evaluation.open_features import OpenFeatures
from rspnet_cli.evaluation.retrieval import nearest

_DECIMALS = 6  # similarities of clips that differ by rounding alone count as equal: of a looped video's clips the first is taken


@dataclass(frozen=True)
class Described:
    """A video as an export describes one. feature: (C,) float32; clips: (N, C) float32; times_s: (N, 2) float64, start and end."""

    feature: np.ndarray
    clips: np.ndarray
    times_s: np.ndarray


@dataclass(frozen=True)
class Hit:
    """A video that was found. Seconds are (start, end)."""

    rank: int
    similarity: float
    """Cosine of the two videos' features."""
    video: str
    """Its id."""
    source: str
    """Path of its file below the folder that was extracted, as the tables spell it."""
    label: str | None
    """The name of its class."""
    seconds: tuple[float, float]
    """Of its clips the one that is nearest to any of the query's."""
    query_seconds: tuple[float, float]
    """The clip of the query that this one is nearest to."""


def described(features: OpenFeatures, row: int) -> Described:
    """A video of the export as a query. Raises InputError."""
    return Described(features.features[row], *features.clips(row))


def find(queries: Sequence[Described], features: OpenFeatures, *, k: int) -> list[list[Hit]]:
    """The k videos nearest to every query by cosine, nearest first; of equal ones those that the export lists first. Raises InputError."""
    if not queries:
        return []
    found = nearest(np.stack([query.feature for query in queries]), features.features, k=k)
    return [
        [
            _hit(query, features, row, place, similarity)
            for place, (row, similarity) in enumerate(zip(rows.tolist(), similarities.tolist(), strict=True), start=1)
        ]
        for query, rows, similarities in zip(queries, found.index, found.similarity, strict=True)
    ]


def _hit(query: Described, features: OpenFeatures, row: int, rank: int, similarity: float) -> Hit:
    clips, times_s = features.clips(row)
    alike = np.round(_units(query.clips) @ _units(clips).T, _DECIMALS)  # (N of the query, N)
    ours, theirs = np.unravel_index(int(alike.argmax()), alike.shape)
    return Hit(
        rank=rank,
        similarity=round(similarity, _DECIMALS),
        video=features.ids[row],
        source=features.sources[row],
        label=features.label_names[row] or None,
        seconds=_pair(times_s[theirs]),
        query_seconds=_pair(query.times_s[ours]),
    )


def _units(vectors: np.ndarray) -> np.ndarray:
    """(N, C) float64 of length 1; zero vectors stay."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(length > 0, length, 1))


def _pair(times_s: np.ndarray) -> tuple[float, float]:
    return float(times_s[0]), float(times_s[1])
