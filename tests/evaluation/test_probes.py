"""The probes against their definitions in plain loops, and what they may and may not look at."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rspnet_cli.evaluation import probes
from rspnet_cli.evaluation.folds import validation_part
from rspnet_cli.evaluation.probes import PROBES, figures_of, knn_probe, linear_probe, true_ranks
from tests.evaluation.tables import make_table


def make_data(**kind: object) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train features, classes, groups; test features, classes, groups."""
    table = make_table(**kind)  # type: ignore[arg-type]
    train = (table.videos["split_1"] == "train").to_numpy()
    sides = [(table.features[rows], table.label[rows], table.group[rows]) for rows in (train, ~train)]
    return (*sides[0], *sides[1])


@pytest.mark.parametrize("num_classes", [2, 4])
def test_linear_scores_are_the_minimum_of_the_stated_loss(num_classes: int) -> None:
    features, classes, groups, queries, _, _ = make_data(classes=num_classes, channels=5, spread=2.0)
    fitted = linear_probe(features, classes, groups, queries, num_classes=num_classes, seed=0)
    mean, deviation = features.astype(float).mean(axis=0), features.astype(float).std(axis=0)
    train, test = (features - mean) / deviation, (queries - mean) / deviation
    # With two classes, one weight vector w is fitted for the difference of the logits; written with a softmax that is w/2 and -w/2.
    penalty = 0.5 if num_classes > 2 else 1.0

    def loss(flat: np.ndarray) -> float:
        weights = flat[: 5 * num_classes].reshape(num_classes, 5)
        logits = train @ weights.T + flat[5 * num_classes :]
        entropy = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(classes)), classes]
        return float(fitted.setting * entropy.sum() + penalty * (weights**2).sum())

    best = minimize(loss, np.zeros(6 * num_classes), method="BFGS", options={"gtol": 1e-9})
    logits = test @ best.x[: 5 * num_classes].reshape(num_classes, 5).T + best.x[5 * num_classes :]

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values - np.logaddexp.reduce(values, axis=1)[:, None])

    # lbfgs stops at gradients of 1e-4 per video.
    np.testing.assert_allclose(softmax(fitted.scores), softmax(logits), atol=5e-3)


def plain_votes(features: np.ndarray, classes: np.ndarray, query: np.ndarray, k: int) -> dict[int, float]:
    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    order = sorted(range(len(features)), key=lambda video: -cosine(features[video].tolist(), query.tolist()))
    votes: dict[int, float] = {}
    for video in order[:k]:
        weight = math.exp(cosine(features[video].tolist(), query.tolist()) / 0.07)
        votes[int(classes[video])] = votes.get(int(classes[video]), 0.0) + weight
    return votes


def test_knn_scores_are_the_votes_of_plain_loops() -> None:
    features, classes, groups, queries, _, _ = make_data(classes=4, spread=3.0, seed=5)
    fitted = knn_probe(features, classes, groups, queries, num_classes=5, seed=0)
    for query, scores in zip(queries, fitted.scores, strict=True):
        votes = plain_votes(features, classes, query, int(fitted.setting))
        for label in range(5):
            if label in votes:
                expected = votes[label] * math.exp(-1 / 0.07)
            else:  # minus the rank of its nearest video
                others = [rank for rank in range(1, len(features) + 1) if label in plain_votes(features, classes, query, rank)]
                expected = -others[0] if others else -math.inf
            assert scores[label] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("probe", PROBES)
def test_the_setting_is_the_best_on_the_validation_part_which_shares_no_group(probe: str) -> None:
    features, classes, groups, queries, _, _ = make_data(classes=6, groups=12, spread=3.0)
    fitted = PROBES[probe](features, classes, groups, queries, num_classes=6, seed=4)
    part = validation_part(classes, groups, seed=4)
    assert fitted.num_validation == part.sum() > 0
    assert fitted.tried[fitted.setting] == max(fitted.tried.values())
    assert len(set(fitted.tried.values())) > 1  # the choice was one
    if probe == "knn":
        for k, share in fitted.tried.items():
            right = 0
            for query, label in zip(features[part], classes[part], strict=True):
                votes = plain_votes(features[~part], classes[~part], query, int(k))
                right += max(votes, key=lambda c: votes[c]) == label
            assert share == pytest.approx(right / part.sum())


@pytest.mark.parametrize("probe", PROBES)
def test_scores_of_one_query_do_not_depend_on_the_others(probe: str) -> None:
    features, classes, groups, queries, _, _ = make_data()
    whole = PROBES[probe](features, classes, groups, queries, num_classes=3, seed=0).scores
    alone = PROBES[probe](features, classes, groups, queries[4:5], num_classes=3, seed=0).scores
    np.testing.assert_allclose(alone[0], whole[4], rtol=1e-9)


@pytest.mark.parametrize("probe", PROBES)
def test_clear_classes_are_told_apart_and_noise_is_not(probe: str) -> None:
    features, classes, groups, queries, truth, _ = make_data(classes=5, spread=0.3, channels=16)
    clear = PROBES[probe](features, classes, groups, queries, num_classes=5, seed=0)
    assert (true_ranks(clear.scores, truth) == 1).all()
    rng = np.random.default_rng(0)
    noise = PROBES[probe](rng.normal(size=features.shape), classes, groups, rng.normal(size=(500, 16)), num_classes=5, seed=0)
    # 500 guesses at a share of 0.2 have a deviation of 0.018.
    assert (true_ranks(noise.scores, rng.integers(0, 5, 500)) == 1).mean() == pytest.approx(0.2, abs=0.07)


@pytest.mark.parametrize("probe", PROBES)
def test_a_class_missing_from_train_is_never_guessed(probe: str) -> None:
    features, classes, groups, queries, truth, _ = make_data(classes=4)
    kept = classes != 1
    fitted = PROBES[probe](features[kept], classes[kept], groups[kept], queries, num_classes=4, seed=0)
    assert np.isneginf(fitted.scores[:, 1]).all()
    assert (true_ranks(fitted.scores, truth)[truth == 1] == 0).all()


@pytest.mark.parametrize("probe", PROBES)
def test_without_a_validation_part_the_default_is_used(probe: str) -> None:
    features, classes, _, queries, _, _ = make_data()
    fitted = PROBES[probe](features, classes, classes, queries, num_classes=3, seed=0)
    assert fitted.tried == {}
    assert fitted.setting == {"linear": probes.DEFAULT_C, "knn": probes.DEFAULT_K}[probe]


def test_a_channel_constant_in_train_has_no_say() -> None:
    features, classes, groups, queries, _, _ = make_data()
    wide = np.concatenate([features, np.full((len(features), 1), 7.0, np.float32)], axis=1)
    loud = np.concatenate([queries, np.full((len(queries), 1), 900.0, np.float32)], axis=1)
    expected = linear_probe(features, classes, groups, queries, num_classes=3, seed=0)
    found = linear_probe(wide, classes, groups, loud, num_classes=3, seed=0)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_a_solver_that_is_not_done_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_MAX_ITERATIONS", 1)
    features, classes, groups, queries, _, _ = make_data()
    assert not linear_probe(features, classes, groups, queries, num_classes=3, seed=0).converged


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.sampled_from([-math.inf, 0.0, 0.5, 1.0]), min_size=4, max_size=4), min_size=1, max_size=6), st.integers(0, 3))
def test_ranks_are_places_in_the_sorted_list(scores: list[list[float]], label: int) -> None:
    ranks = true_ranks(np.array(scores), np.full(len(scores), label))
    for row, rank in zip(scores, ranks.tolist(), strict=True):
        places = sorted(range(4), key=lambda c: (-row[c], c))
        assert rank == (0 if row[label] == -math.inf else places.index(label) + 1)


def test_figures_are_shares_of_ranks() -> None:
    rank, classes = np.array([1, 1, 2, 6, 0, 5]), np.array([0, 0, 0, 0, 1, 2])
    figures = figures_of(rank, classes, np.arange(6))
    assert figures.top1 == pytest.approx(2 / 6)
    assert figures.top5 == pytest.approx(4 / 6)
    assert figures.mean_class == pytest.approx((2 / 4 + 0 + 0) / 3)
    assert set(figures.interval) == {"top1", "top5", "mean_class"}
    for name, (low, high) in figures.interval.items():
        assert low <= getattr(figures, name) <= high
