"""What a search finds, against plain loops over cosines."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rspnet_cli.evaluation.open_features import open_features
from rspnet_cli.evaluation.search import Described, described, find
from tests.evaluation.tables import make_export, make_table


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    product = sum(float(a) * float(b) for a, b in zip(first, second, strict=True))
    lengths = [math.sqrt(sum(float(a) ** 2 for a in vector)) for vector in (first, second)]
    return product / (lengths[0] * lengths[1])


def test_ranks_and_best_seconds_are_those_of_plain_loops(tmp_path: Path) -> None:
    table = make_table(videos=2, spread=2.0)
    assert table.clip_features is not None
    rng = np.random.default_rng(7)
    table.clip_times_s[:] = np.sort(rng.uniform(0, 9, table.clip_times_s.shape), axis=2)
    clips = rng.normal(size=(3, 6)).astype(np.float32)  # a query may have another number of clips than the set's videos
    query = Described(clips.mean(axis=0), clips, np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.5]]))
    with open_features(make_export(tmp_path / "export", table)) as features:
        (hits,) = find([query], features, k=5)
    ranked = sorted(range(len(table.features)), key=lambda row: -cosine(query.feature, table.features[row]))[:5]
    assert [hit.video for hit in hits] == [table.videos["id"][row] for row in ranked]
    assert [hit.source for hit in hits] == [table.videos["source"][row] for row in ranked]
    assert [hit.label for hit in hits] == [table.videos["label_name"][row] for row in ranked]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    for hit, row in zip(hits, ranked, strict=True):
        assert hit.similarity == pytest.approx(cosine(query.feature, table.features[row]), abs=1e-6)
        pairs = {(i, j): cosine(clips[i], table.clip_features[row][j]) for i in range(3) for j in range(2)}
        ours, theirs = max(pairs, key=lambda pair: pairs[pair])
        assert hit.query_seconds == tuple(query.times_s[ours])
        assert hit.seconds == tuple(table.clip_times_s[row][theirs])
        assert all(type(value) is float for value in (hit.similarity, *hit.seconds, *hit.query_seconds))


def test_every_video_finds_itself_first_at_its_own_seconds(tmp_path: Path) -> None:
    table = make_table(videos=2, spread=2.0)
    with open_features(make_export(tmp_path / "export", table)) as features:
        rows = range(len(features.ids))
        for row, hits in zip(rows, find([described(features, row) for row in rows], features, k=2), strict=True):
            assert (hits[0].video, hits[0].similarity) == (features.ids[row], 1.0)
            assert hits[0].seconds == hits[0].query_seconds
            assert hits[1].similarity < 1


def test_clips_that_are_equal_but_for_rounding_are_the_first_of_them(tmp_path: Path) -> None:
    table = make_table(classes=1, groups=1, videos=2)
    assert table.clip_features is not None
    table.clip_features[1, 1] = table.clip_features[1, 0] * np.float32(3.0000002)
    with open_features(make_export(tmp_path / "export", table)) as features:
        (hits,) = find([described(features, 1)], features, k=1)
    assert hits[0].seconds == hits[0].query_seconds == (0.0, 0.64)


def test_zero_vectors_and_missing_labels_do_no_harm(tmp_path: Path) -> None:
    table = make_table(classes=2, groups=1, videos=1, labelled=False)
    assert table.clip_features is not None
    table.clip_features[1] = 0
    table.features[1] = 0
    with open_features(make_export(tmp_path / "export", table)) as features:
        (hits,) = find([described(features, 1)], features, k=2)
        assert find([], features, k=2) == []
    assert [(hit.similarity, hit.label) for hit in hits] == [(0.0, None), (0.0, None)]
