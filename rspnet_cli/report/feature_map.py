"""The section with a map of the test videos: principal components and t-SNE of their features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, FeatureTable, read_features
from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.report.choose import balanced
from rspnet_cli.report.clips import clip_class
from rspnet_cli.report.commands import command_of
from rspnet_cli.report.figure import Cell, LeftOut, Section, Table, figure, numbers, svg
from rspnet_cli.report.found import Found
from rspnet_cli.report.html import data_block, element, join, name, number

KEY, TITLE = "map", "Map of the videos"
# t-SNE of 4,000 videos takes about as long as all the rest of a report of UCF101's size; a page with more points is slow.
MAX_VIDEOS = 4000
MAX_CLIPS = 500
_NEIGHBOUR_DIMENSIONS = 50  # what t-SNE gets: its usual input, and quicker than all channels
_SIZE = 560.0
_COLOUR_STEP_DEGREES = 137.508  # golden angle: neighbouring class numbers get far hues, however many there are


def feature_map(found: Found, neighbours: pd.DataFrame | None, *, seed: int) -> Section | LeftOut:
    """Every test video as a point, coloured by class; at most MAX_VIDEOS of them, classes alike."""
    manifest = found.stages.get("export-features")
    if manifest is None:
        return LeftOut(KEY, TITLE, found.missing("export-features"))
    table = _features(manifest)
    rows, which = _test_rows(found, table)
    if len(rows) < 3:
        return LeftOut(KEY, TITLE, "There are fewer than three videos to place on a map.")
    shown = np.sort(rows[balanced(table.label[rows], MAX_VIDEOS, seed)])
    places, explained = principal_components(table.features[shown], _NEIGHBOUR_DIMENSIONS)
    maps = {"t-SNE": neighbour_map(places, seed), "PCA": places[:, :2]}
    layouts = {title: _on_canvas(points) for title, points in maps.items()}
    labels, ids = table.label[shown], [str(item) for item in table.videos["id"].to_numpy(dtype=object)[shown]]
    sources = [str(item) for item in table.videos["source"].to_numpy(dtype=object)[shown]]
    names = [str(item) for item in table.videos["label_name"].to_numpy(dtype=object)[shown]]
    nearest = _nearest(neighbours)
    first = layouts["t-SNE"]
    circles = (
        element("circle", cx=x, cy=y, r=4, fill=_colour(label), data_i=place)
        for place, ((x, y), label) in enumerate(zip(first.tolist(), labels.tolist(), strict=True))
    )
    drawing = svg(circles, width=_SIZE, height=_SIZE, title=TITLE, key=KEY, class_="map")
    classes = sorted(set(names) - {""}, key=str.casefold)
    data = {
        "ids": ids,
        "class_names": classes,
        "classes": [classes.index(label) if label else -1 for label in names],
        "clips": [clip_class(video_id) for video_id in ids],
        "nearest": [nearest.get(video_id, "") for video_id in ids],
        "layouts": {title: np.round(points, 1).ravel().tolist() for title, points in layouts.items()},
    }
    controls = [
        element("label", "Layout ", element("select", *(element("option", title) for title in layouts), class_="layout")),
        element(
            "label",
            " Show ",
            element("select", element("option", "all classes"), *(element("option", label) for label in classes), class_="pick"),
        ),
    ]
    header = ["video", "file", "class", "nearest video's class", "t-SNE x", "t-SNE y", "PCA x", "PCA y"]
    figures = np.concatenate([maps["t-SNE"], maps["PCA"]], axis=1)
    cells: list[list[Cell]] = [
        [name(video_id), name(source), name(label), name(nearest.get(video_id, "")), *(f"{value:.3g}" for value in places)]
        for video_id, source, label, places in zip(ids, sources, names, figures.tolist(), strict=True)
    ]
    note = (
        f"{number(len(shown))} {which}{_sampled(len(rows), len(shown))}, coloured by class. Hover or tap a point for its clip. The first "
        f"two principal components hold {explained[:2].sum():.0%} of the variance; t-SNE keeps neighbours together, distances between "
        "groups mean little. Both see L2-normalised features."
    )
    body = figure(
        "map-figure",
        "Features of the test videos",
        join((element("p", *controls, class_="script"), drawing, data_block(data, class_="map-data"))),
        table=Table(header, cells, numbers(header, 0, 1, 2, 3)),
        commands=[command_of(manifest, found.path)],
        note=note,
    )
    wanted = [ids[place] for place in balanced(labels, MAX_CLIPS, seed).tolist()]
    return Section(KEY, TITLE, element("div", body, class_="wide"), wanted)


def _features(manifest: Manifest) -> FeatureTable:
    for file in (FEATURES, VIDEOS):
        checked_artifact(manifest, file)
    return read_features(manifest.folder)


def _test_rows(found: Found, table: FeatureTable) -> tuple[np.ndarray, str]:
    """The rows that the evaluation tests: test videos of its split, or of the first one, or every video; and what they are."""
    retrieval = found.stages.get("eval-retrieval")
    split = retrieval.config.get("split") if retrieval is not None else next(iter(table.splits), None)
    if split is None:
        return np.arange(len(table.videos)), "videos"
    column = f"split_{split}"
    if column not in table.videos:
        raise InputError(
            f"The features have no split {split}, which {retrieval.path if retrieval else 'the report'} is of: evaluate again."
        )
    return np.flatnonzero(table.videos[column].to_numpy(dtype=object) == "test"), f"test videos of split {split}"


def _sampled(videos: int, shown: int) -> str:
    return "" if videos == shown else f" of {number(videos)} (a random sample, classes alike)"


def _nearest(neighbours: pd.DataFrame | None) -> dict[str, str]:
    """Query id -> class of its nearest video."""
    if neighbours is None:
        return {}
    first = neighbours[neighbours["rank"] == 1]
    return dict(zip(first["query_id"].tolist(), first["neighbour_label_name"].tolist(), strict=True))


def principal_components(features: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, at least 2) float64 coordinates of n L2-normalised, centred features, the widest first, and the share of variance of each.

    features: (n, C). The sign of a component is that which makes its largest loading positive.
    """
    points = features.astype(np.float64)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    points -= points.mean(axis=0)
    variance, axes = np.linalg.eigh(points.T @ points)  # ascending; (C, C)
    kept = min(dimensions, len(variance))
    variance, axes = variance[::-1], axes[:, ::-1][:, :kept]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(kept)] < 0, -1.0, 1.0)
    places = points @ axes
    if kept < 2:
        places = np.concatenate([places, np.zeros((len(places), 1))], axis=1)
    return places, np.maximum(variance, 0) / max(float(variance.sum()), 1e-12)


def neighbour_map(places: np.ndarray, seed: int) -> np.ndarray:
    """(n, 2) t-SNE of principal components."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(places) - 1) / 3)
    return np.asarray(TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(places), np.float64)


def _on_canvas(points: np.ndarray) -> np.ndarray:
    """The points within the drawing, x and y on one scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (_SIZE - 24) / max(float((high - low).max()), 1e-12)
    placed = (points - (low + high) / 2) * scale + _SIZE / 2
    placed[:, 1] = _SIZE - placed[:, 1]
    return np.asarray(placed)


def _colour(label: int) -> str:
    if label < 0:
        return "#888"
    # Three lightnesses in turn help where hues come close.
    return f"hsl({label * _COLOUR_STEP_DEGREES % 360:.0f} 65% {(48, 60, 38)[label % 3]}%)"
