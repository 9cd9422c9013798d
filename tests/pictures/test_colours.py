"""The colour map rises in lightness, evenly, and an overlay keeps both the colours and the picture apart."""

import numpy as np
import pytest

from rspnet_cli.pictures.colours import bar_decimals, colour_bar, coloured, overlaid
from rspnet_cli.pictures.layout import PAPER


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB, 0 to 100, from the standard's formulas: another measure than the one the map was made with."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


def test_lightness_rises_without_a_step_back_or_a_jump() -> None:
    values = lightness(coloured(np.linspace(0, 1, 65)))
    steps = np.diff(values)
    assert values[0] < 12
    assert values[-1] > 90
    assert steps.min() > 0.4 * steps.mean()
    assert steps.max() < 2.0 * steps.mean()


def test_what_lies_beyond_is_cut_off_and_shapes_are_kept() -> None:
    assert coloured(np.array(0.5)).shape == (3,)
    assert coloured(np.zeros((4, 5, 6))).shape == (4, 5, 6, 3)
    assert (coloured(np.array([-3.0, 7.0])) == coloured(np.array([0.0, 1.0]))).all()


def test_under_every_grey_a_higher_value_is_lighter() -> None:
    for grey in (0, 90, 255):
        picture = np.full((1, 33, 3), grey, np.uint8)
        assert (np.diff(lightness(overlaid(picture, np.linspace(0, 1, 33)[None])[0])) > 0).all()
    edges = overlaid(np.array([[[20, 20, 20], [220, 220, 220]]], np.uint8), np.full((1, 2), 0.5))[0]
    assert lightness(edges)[1] - lightness(edges)[0] > 20, "the picture shows through"


def test_the_bar_runs_from_the_lowest_to_the_highest_colour() -> None:
    bar = colour_bar(-0.5, 12.25, 300)
    assert bar.shape[1] == 300
    inked = bar[0][(bar[0] != PAPER).any(-1)]
    low, high = coloured(np.array([0.0, 1.0]))
    assert (inked == low).all(-1).any()
    assert (inked == high).all(-1).any()


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [
        (-0.5, 12.25, ("-0.50", "12.25")),
        (0.99812, 0.99949, ("0.99812", "0.99949")),
        (-0.01, 0.02, ("-0.0100", "0.0200")),
        (1.0, 1.0, ("1.00", "1.00")),
        (0.0, 1e-20, ("0.00000000", "0.00000000")),
    ],
)
def test_both_ends_of_a_narrow_scale_are_told_apart(low: float, high: float, ends: tuple[str, str]) -> None:
    decimals = bar_decimals(low, high)
    assert (f"{low:.{decimals}f}", f"{high:.{decimals}f}") == ends
    assert colour_bar(low, high, 400).shape[1] == 400
