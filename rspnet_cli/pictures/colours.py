"""Numbers as colours: a map from dark blue over red to light yellow whose lightness rises evenly, also without colour vision."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rspnet_cli.pictures.layout import FAINT, Picture, beside, text

# Lightness, hue (degrees) and chroma in OKLab (Ottosson 2020), from the lowest to the highest value.
_LIGHTNESS, _HUE, _CHROMA = (0.20, 0.95), (270.0, 470.0), 0.17
_OPACITY = 0.6
_LUMA = np.array([0.299, 0.587, 0.114])


def coloured(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Values in [0, 1] (those beyond are cut off) -> (..., 3) uint8 sRGB."""
    share = np.clip(np.asarray(values, np.float64), 0, 1)
    lightness, hue = (low + (high - low) * share for low, high in (_LIGHTNESS, np.radians(_HUE)))
    a, b = _CHROMA * np.cos(hue), _CHROMA * np.sin(hue)
    # OKLab -> cone responses -> linear sRGB.
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.clip(np.stack([red, green, blue], -1), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(255 * encoded), np.uint8)


def overlaid(picture: Picture, values: npt.NDArray[np.floating]) -> Picture:
    """The picture (H, W, 3) in grey under the colours of values (H, W) in [0, 1]: uint8."""
    grey = (picture @ _LUMA)[..., None]
    return np.asarray(np.round((1 - _OPACITY) * grey + _OPACITY * coloured(values)), np.uint8)


def bar_decimals(low: float, high: float) -> int:
    """Decimals by which both ends of a scale are told apart: to a hundredth of what lies between them, at least 2 and at most 8."""
    return min(max(2, 2 - math.floor(math.log10(high - low))), 8) if high > low else 2


def colour_bar(low: float, high: float, width: int) -> Picture:
    """The colours from `low` to `high`, with both figures, `width` pixels wide."""
    decimals = bar_decimals(low, high)
    first, last = (text(f"{value:.{decimals}f}", colour=FAINT) for value in (low, high))
    gap = 8
    bar = coloured(np.linspace(0, 1, width - first.shape[1] - last.shape[1] - 2 * gap))
    return beside([first, bar[None].repeat(len(first), axis=0), last], gap=gap)
