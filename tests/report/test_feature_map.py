"""The map begins with the layout that its videos are enough for, and its colours are told apart or said not to be."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from rspnet_cli.report.feature_map import _COLOURS, feature_map
from rspnet_cli.report.figure import Section
from rspnet_cli.report.found import Found
from tests.evaluation.tables import make_export, make_table
from tests.report.parse import data, words


def mapped(folder: Path, **settings: int | bool) -> Element:
    """The map of the test videos of a table: two groups of each class."""
    found = Found(folder, {"export-features": make_export(folder / "export-features", make_table(**settings))})  # type: ignore[arg-type]
    section = feature_map(found, None, seed=0)
    assert isinstance(section, Section)
    return ElementTree.fromstring(section.body.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


@pytest.mark.parametrize(("videos", "first"), [(15, "PCA"), (16, "t-SNE")])
def test_few_videos_are_laid_out_by_their_components(tmp_path: Path, videos: int, first: str) -> None:
    figure = mapped(tmp_path, classes=3, videos=videos, groups=3)  # 6 * videos of test
    layouts = data(figure, "map-data")["layouts"]
    assert next(iter(layouts)) == first
    assert words(figure.findall(".//select[@class='layout']/option")[0]) == first
    drawn = [float(circle.get(axis, "")) for circle in figure.findall(".//circle") for axis in ("cx", "cy")]
    assert np.abs(np.array(drawn) - np.array(layouts[first])).max() < 0.06


def test_so_many_colours_are_explained_as_can_be_told_apart(tmp_path: Path) -> None:
    limit = len(_COLOURS)
    few, many = (mapped(tmp_path / str(classes), classes=classes, videos=1) for classes in (limit, limit + 1))
    legend = few.find(".//p[@class='legend']")
    assert legend is not None
    assert [words(entry).strip() for entry in legend] == sorted(f"class {label}" for label in range(limit))
    assert "told apart" not in words(few)
    assert many.find(".//p[@class='legend']") is None
    assert f"{limit + 1} colours cannot all be told apart" in words(many)
    assert len({circle.get("fill") for circle in many.findall(".//circle")}) == limit + 1


def test_without_classes_nothing_is_said_of_colours(tmp_path: Path) -> None:
    figure = mapped(tmp_path, classes=3, videos=1, labelled=False)
    assert "colour" not in words(figure)
    assert figure.find(".//p[@class='legend']") is None


def test_the_colours_are_far_apart_and_stand_out_on_both_papers() -> None:
    def oklab(colour: str) -> np.ndarray:
        """OKLab (Ottosson 2020) of a colour as #rrggbb."""
        share = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        cones = np.array([[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]) @ linear
        mixed = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]
        return np.array(mixed) @ np.cbrt(cones)

    places = [oklab(colour) for colour in _COLOURS]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(places, 2)) > 0.18
    for paper in ("#f6f7f9", "#1d2126"):  # page.css: --panel, light and dark
        assert min(abs(float(place[0] - oklab(paper)[0])) for place in places) > 0.2
