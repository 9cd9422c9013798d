"""The section with a map of the test videos: principal components and t-SNE of their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from rspnet_cli.report.html import Html, data_block, element, join, name, number

KEY, TITLE = "map", "Map of the videos"
# t-SNE of 4,000 videos takes about as long as all the rest of a report of UCF101's size; a page with more points is slow.
MAX_VIDEOS = 4000
MAX_CLIPS = 500
_NEIGHBOUR_DIMENSIONS = 50  # what t-SNE gets: its usual input, and quicker than all channels
_SIZE = 560.0
_PERPLEXITY = 30.0
# So many classes have a colour that an eye tells from all others: any two of these are at least 0.18 apart in OKLab, and all of them stand
# out on light and on dark paper (lightness 0.50 to 0.74).
_COLOURS = (
    *("#0078b4", "#ff4b00", "#00872d", "#ff0fa5", "#c3a54b", "#5a1eff"),
    *("#00c3c3", "#965a0f", "#a596ff", "#2dc300", "#963c87", "#c300ff"),
)
_NO_CLASS = "#888"
_COLOUR_STEP_DEGREES = 137.508  # golden angle: of more classes, neighbours in the order of names get far hues


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
    # With too few videos for its usual perplexity t-SNE ties them in knots.
    order = ("t-SNE", "PCA") if len(shown) > 3 * _PERPLEXITY else ("PCA", "t-SNE")
    layouts = {title: _on_canvas(maps[title]) for title in order}
    labels, ids = table.label[shown], [str(item) for item in table.videos["id"].to_numpy(dtype=object)[shown]]
    sources = [str(item) for item in table.videos["source"].to_numpy(dtype=object)[shown]]
    names = [str(item) for item in table.videos["label_name"].to_numpy(dtype=object)[shown]]
    nearest = _nearest(neighbours)
    classes = sorted(set(names) - {""}, key=str.casefold)
    colours = {"": _NO_CLASS} | {label: _colour(place, len(classes)) for place, label in enumerate(classes)}
    circles = (
        element("circle", cx=x, cy=y, r=4, fill=colours[label], data_i=place)
        for place, ((x, y), label) in enumerate(zip(layouts[order[0]].tolist(), names, strict=True))
    )
    drawing = svg(circles, width=_SIZE, height=_SIZE, title=TITLE, key=KEY, class_="map")
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
        f"{number(len(shown))} {which}{_sampled(len(rows), len(shown))}{_coloured(len(classes))}. The first two principal components hold "
        f"{explained[:2].sum():.0%} of the variance; t-SNE keeps neighbours together, distances between groups mean little. Both see "
        "L2-normalised features."
    )
    body = figure(
        "map-figure",
        "Features of the test videos",
        join(
            (
                element("p", *controls, class_="script"),
                _hint(),
                _legend(classes, names, colours),
                drawing,
                data_block(data, class_="map-data"),
            )
        ),
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

    perplexity = min(_PERPLEXITY, (len(places) - 1) / 3)
    return np.asarray(TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(places), np.float64)


def _on_canvas(points: np.ndarray) -> np.ndarray:
    """The points within the drawing, x and y on one scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (_SIZE - 24) / max(float((high - low).max()), 1e-12)
    placed = (points - (low + high) / 2) * scale + _SIZE / 2
    placed[:, 1] = _SIZE - placed[:, 1]
    return np.asarray(placed)


def _colour(place: int, classes: int) -> str:
    """The colour of a class by its place in the order of names."""
    if classes <= len(_COLOURS):
        return _COLOURS[place]
    # Three lightnesses in turn help where hues come close.
    return f"hsl({place * _COLOUR_STEP_DEGREES % 360:.0f} 65% {(48, 60, 38)[place % 3]}%)"


def _coloured(classes: int) -> str:
    """What the colours mean, as the end of a sentence."""
    if classes <= len(_COLOURS):
        return ", coloured by class" if classes else ""
    return f", coloured by class; {number(classes)} colours cannot all be told apart, so point at one or choose a class to be sure"


def _legend(classes: Sequence[str], names: Sequence[str], colours: Mapping[str, str]) -> Html | None:
    """The colour of every class, as long as they can be told apart."""
    if not 0 < len(classes) <= len(_COLOURS):
        return None
    entries = [(label, name(label)) for label in classes] + ([("", "no class")] if "" in names else [])
    marks = (element("span", element("i", class_="swatch", style=f"background: {colours[label]}"), " ", shown) for label, shown in entries)
    return element("p", *marks, class_="legend")


def _hint() -> Html:
    """Where the script says what a point tells: how many clips there is room for is known when the page is made."""
    return element("p", class_="script note hint")
