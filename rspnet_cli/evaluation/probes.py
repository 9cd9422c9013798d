"""Two classifiers on frozen features: a linear probe and weighted nearest neighbours.

Each chooses its one setting (regularisation, number of neighbours) on a part of train that shares no group with the rest, and is then
fitted to all of train. Both return scores, from which every figure follows; test labels are seen by neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rspnet_cli.evaluation.folds import validation_part
from rspnet_cli.evaluation.intervals import class_mean_interval, mean_interval
from rspnet_cli.evaluation.retrieval import nearest

# Inverse regularisation of the linear probe on standardised features, strongest first.
LINEAR_C = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
KNN_K = (1, 5, 10, 20, 50, 100, 200)
# Where there is nothing to choose on: the middle of what usually wins.
DEFAULT_C, DEFAULT_K = 1e-2, 10
KNN_TEMPERATURE = 0.07
_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Fitted:
    """Scores for queries and how they came about.

    scores: (Q, classes) float64, higher is likelier; -inf: not guessed at all. setting: the chosen C or k. tried: setting -> share of the
    validation part that was right, empty when there was none. num_validation: its videos. converged: whether the solver was done.
    """

    scores: np.ndarray
    setting: float
    tried: dict[float, float]
    num_validation: int
    converged: bool = True


@dataclass(frozen=True)
class Figures:
    """What a probe achieved: shares, their 95 % intervals (low, high), and (Q,) rank of the true class, 1 the best, 0 never guessed."""

    top1: float
    top5: float
    mean_class: float
    interval: dict[str, list[float]]
    rank: np.ndarray


def linear_probe(
    features: np.ndarray, classes: np.ndarray, groups: np.ndarray, queries: np.ndarray, *, num_classes: int, seed: int
) -> Fitted:
    """Multinomial logistic regression on standardised features (lbfgs, L2).

    features: (V, C), classes: (V,) int in [0, num_classes), at least two different; groups: (V,) int; queries: (Q, C). A class without a
    training video has score -inf.
    """
    part = validation_part(classes, groups, seed=seed)
    tried: dict[float, float] = {}
    converged = True
    if part.any():
        fit_classes = classes[~part]
        scores = _logistic(features[~part], fit_classes, features[part], LINEAR_C, num_classes)
        tried = {c: _share_right(found, classes[part]) for c, (found, _) in zip(LINEAR_C, scores, strict=True)}
    chosen = max(tried, key=lambda c: tried[c]) if tried else DEFAULT_C
    ((found, converged),) = _logistic(features, classes, queries, [chosen], num_classes)
    return Fitted(found, chosen, tried, int(part.sum()), converged)


def _logistic(
    features: np.ndarray, classes: np.ndarray, queries: np.ndarray, strengths: Sequence[float], num_classes: int
) -> list[tuple[np.ndarray, bool]]:
    """(Q, num_classes) logits for each C in turn, each fit starting where the last one ended; and whether the solver was done."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    wide = features.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    # A channel that says nothing in train must not shout in test: its rounding noise divided by nearly 0.
    constant = deviation <= 1e-6 * np.abs(wide).max(axis=0)
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    train, test = (wide - mean) * scale, (queries.astype(np.float64) - mean) * scale
    results = []
    # Only arguments that have kept their names over scikit-learn's versions.
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    for strength in strengths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=strength).fit(train, classes)
        logits = model.decision_function(test)
        if logits.ndim == 1:  # two classes: the second's logit
            logits = np.stack([-logits / 2, logits / 2], axis=1)
        scores = np.full((len(queries), num_classes), -np.inf)
        scores[:, model.classes_] = logits
        results.append((scores, not any(issubclass(item.category, ConvergenceWarning) for item in caught)))
    return results


def knn_probe(features: np.ndarray, classes: np.ndarray, groups: np.ndarray, queries: np.ndarray, *, num_classes: int, seed: int) -> Fitted:
    """Each of the k nearest train videos by cosine votes for its class with weight exp(cosine / 0.07).

    Arguments as of linear_probe. Classes without a vote come after, in the order of their nearest video as far as the largest k of KNN_K
    looks (score minus its rank); a class that has none there has score -inf: it was not guessed.
    """
    part = validation_part(classes, groups, seed=seed)
    tried: dict[float, float] = {}
    if part.any():
        ks = [k for k in KNN_K if k <= (~part).sum()]
        scores = _votes(features[~part], classes[~part], features[part], ks, num_classes)
        tried = {float(k): _share_right(found, classes[part]) for k, found in zip(ks, scores, strict=True)}
    chosen = int(max(tried, key=lambda k: tried[k]) if tried else min(DEFAULT_K, len(features)))
    (found,) = _votes(features, classes, queries, [chosen], num_classes)
    return Fitted(found, chosen, tried, int(part.sum()))


def _votes(features: np.ndarray, classes: np.ndarray, queries: np.ndarray, ks: Sequence[int], num_classes: int) -> list[np.ndarray]:
    """(Q, num_classes) sums of weights for each k, ascending."""
    furthest = min(max(KNN_K), len(features))
    found = nearest(queries, features, k=furthest)
    # Divided by the largest weight there can be: only their order counts.
    weight = np.exp((found.similarity - 1) / KNN_TEMPERATURE)
    rows, labels = np.arange(len(queries)), classes[found.index]  # (Q, furthest)
    order = np.full((len(queries), num_classes), -np.inf)
    for rank in reversed(range(furthest)):
        order[rows, labels[:, rank]] = -1.0 - rank
    votes, results = np.zeros((len(queries), num_classes)), []
    for rank in range(max(ks)):
        votes[rows, labels[:, rank]] += weight[:, rank]
        if rank + 1 in ks:
            results.append(np.where(votes > 0, votes, order))
    return results


PROBES: dict[str, Callable[..., Fitted]] = {"linear": linear_probe, "knn": knn_probe}


def true_ranks(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(Q,) int64 rank of the true class among the scores, 1 the best; of equal scores the lower class comes first. 0: not guessed."""
    own = scores[np.arange(len(classes)), classes][:, None]
    before = np.arange(scores.shape[1])[None, :] < classes[:, None]
    rank = 1 + ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return np.where(np.isneginf(own[:, 0]), 0, rank)


def figures_of(rank: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> Figures:
    """Top-1, top-5 and the mean over classes of per-class top-1, with intervals over groups. All arguments (Q,) int."""
    hits = np.stack([rank == 1, (rank >= 1) & (rank <= 5)], axis=1).astype(np.float64)
    top1, top5 = hits.mean(axis=0).tolist()
    low_high = mean_interval(hits, groups).tolist()
    mean_class = float(np.mean([hits[classes == label, 0].mean() for label in np.unique(classes)]))
    interval = {"top1": low_high[0], "top5": low_high[1], "mean_class": class_mean_interval(hits[:, 0], classes, groups).tolist()}
    return Figures(top1, top5, mean_class, interval, rank)


def _share_right(scores: np.ndarray, classes: np.ndarray) -> float:
    return float((true_ranks(scores, classes) == 1).mean())
