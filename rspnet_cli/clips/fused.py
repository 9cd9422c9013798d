"""Augmentation of a whole batch as one function of tensors without a branch, of which torch.compile makes three kernels on a GPU.

The first looks up every output pixel's four source pixels among the packed bytes, makes RGB of them, interpolates, changes colours up to
contrast and sums each frame's grey; the second adds the frames' sums up; the third does the rest and normalises (`aug_plus` has a fourth,
from the blur on). What differs between clips is numbers: brightness, saturation and grey are all a pixel's own value times one number plus
its grey times another, clamped; an operation that a clip does not have, or has elsewhere, gets the numbers that change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.clips.colour import GRAYSCALE, GREY, SCALE, SHIFT, hue_sources, steps_of
from rspnet_cli.clips.crops import Crops
from rspnet_cli.clips.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ClipDraw
from rspnet_cli.clips.yuv import coefficients

# Where an operation can stand: grey, brightness or saturation, hue, contrast. Any order of the last four fits.
_JITTER = "aahaa" + "c" + "aahaa"
_PLACES = {"reference": "g" + _JITTER, "aug_plus": _JITTER + "g"}
_KINDS = {GRAYSCALE: "g", BRIGHTNESS: "a", SATURATION: "a", HUE: "h", CONTRAST: "c"}
_UNCHANGED = {"g": (1.0, 0.0), "a": (1.0, 0.0), "h": hue_sources(0.0), "c": (1.0,)}
# Columns of the factors before those of the places: how planes become RGB.
_LEVELS = 6
_SIDE = 1 / (2 + math.exp(1 / (2 * 1.5**2)))  # the outer two of three Gaussian weights, sigma 1.5


def tables_of(crops: Crops, *, size: int, order: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `whole_batch` is told of the clips beside their pixels, on the host: first, taps, weights, factors."""
    draws = crops.draws
    lengths, starts = np.array([draw.box[2:] for draw in draws])[..., None], np.array(crops.starts)[..., None]  # (B, 2, 1)
    places = np.broadcast_to(np.arange(size), (len(draws), 2, size)).copy()
    flipped = np.array([draw.flip for draw in draws])
    places[flipped, 1] = places[flipped, 1, ::-1]  # everything else is the same for a picture and its mirror image
    # Where an output pixel's centre lies between source pixels (align_corners=False), times 2 * size: whole numbers, no rounding.
    positions = np.clip((2 * places + 1) * lengths - size, 0, 2 * size * (lengths - 1))
    near, beyond = np.divmod(positions, 2 * size)
    taps = np.stack([near, np.minimum(near + 1, lengths - 1)], 2) + starts[:, :, None]
    levels = [(0.0,) * _LEVELS] * len(draws) if crops.full_range is None else [coefficients(full) for full in crops.full_range]
    factors = [(*level, *_numbers(draw, order), _SIDE * draw.blur) for level, draw in zip(levels, draws, strict=True)]
    return (
        torch.from_numpy(crops.first_rows.astype(np.int32)),
        torch.from_numpy(taps.astype(np.int32)),
        torch.from_numpy((beyond / (2 * size)).astype(np.float32)),
        torch.tensor(factors, dtype=torch.float32),
    )


def _numbers(draw: ClipDraw, order: str) -> Iterator[float]:
    """A clip's factors, place by place."""
    brightness, contrast, saturation, hue = draw.factors
    numbers = {
        GRAYSCALE: (0.0, 1.0),
        BRIGHTNESS: (brightness, 0.0),
        CONTRAST: (contrast,),
        SATURATION: (saturation, 1 - saturation),
        HUE: hue_sources(hue),
    }
    steps = [step for step in steps_of(draw, order) if step in _KINDS]
    for place in _PLACES[order]:
        fits = bool(steps) and _KINDS[steps[0]] == place
        yield from numbers[steps.pop(0)] if fits else _UNCHANGED[place]
    assert not steps


RGB = Sequence[Tensor]
"""Red, green and blue apart, each (B, F, S, S, 1): all kernels then go over the same pixels, and every value is computed once."""


def whole_batch(
    pixels: Tensor, first: Tensor, taps: Tensor, weights: Tensor, factors: Tensor, *, planes: bool, order: str, dtype: torch.dtype
) -> Tensor:
    """Packed crops -> clips (B, 3, F, S, S), augmented, normalised, channels_last_3d.

    pixels: (R, 3 W) uint8 as in `Crops`. first: (B, F) int32, each frame's first row. taps: (B, 2, 2, S) int32, for rows and for columns
    the two source pixels between which an output pixel lies. weights: (B, 2, S) float32, of the second of them. factors: (B, N) float32.
    planes: pixels are YUV planes.
    """
    batch, _, _, size = taps.shape
    first, width = first[:, :, None, None, None], pixels.shape[1] // 3
    black, gain, blue_u, red_v, green_u, green_v = _columns(factors[:, :_LEVELS])

    def source(y: Tensor, x: Tensor) -> RGB:
        if not planes:
            return [pixels[first + y, 3 * x + channel].float() for channel in range(3)]
        row, half = first + (y >> 1), x >> 1
        light = ((pixels[row, (y & 1) * width + x] - black) * gain).floor()
        u, v = (pixels[row, place + half] - 128.0 for place in (2 * width, 2 * width + width // 2))
        shifts = ((v * red_v).floor(), (u * green_u).floor() + (v * green_v).floor(), (u * blue_u).floor())
        return [(light + shift).clamp(0, 255) for shift in shifts]

    def along(axis: int, *shape: int) -> list[tuple[Tensor, Tensor]]:
        """Both source pixels of an axis and their weights."""
        (near, far), weight = taps[:, axis].unbind(1), weights[:, axis].view(shape)
        return [(near.reshape(shape), 1 - weight), (far.reshape(shape), weight)]

    rows, columns = along(0, batch, 1, size, 1, 1), along(1, batch, 1, 1, size, 1)
    rgb = _sum([_sum([source(y, x) for y, _ in rows], [down for _, down in rows]) for x, _ in columns], [across for _, across in columns])
    return _coloured([channel * (1 / 255) for channel in rgb], factors[:, _LEVELS:], order=order, dtype=dtype)


def resized_batch(clips: Tensor, factors: Tensor, *, order: str, dtype: torch.dtype) -> Tensor:
    """The same for clips (B, 3, F, S, S) float32 in [0, 1] that are resized (and flipped) already."""
    return _coloured(clips.unsqueeze(-1).unbind(1), factors[:, _LEVELS:], order=order, dtype=dtype)


def _coloured(rgb: RGB, factors: Tensor, *, order: str, dtype: torch.dtype) -> Tensor:
    """Clips in [0, 1] with their colours changed and normalised: (B, 3, F, S, S). factors: (B, N), of the places and the blur."""
    *numbers, side = _columns(factors)
    for place in _PLACES[order]:
        own, numbers = numbers[: len(_UNCHANGED[place])], numbers[len(_UNCHANGED[place]) :]
        if place == "g" and order == "aug_plus":
            # Before the grey, after which it would be the same: there the channels need each other, and all three are one kernel.
            rgb = [_blurred(channel, side) for channel in rgb]
        if place == "h":
            rgb = _turned(rgb, own)
            continue
        if place == "c":
            pivot = _grey(*rgb).mean((2, 3, 4)).mean(1)  # frame by frame first: many sums at a time
            own.append(pivot.view(-1, 1, 1, 1, 1) * (1 - own[0]))
        else:
            own[1] = _grey(*rgb) * own[1]
        rgb = [channel * own[0] + own[1] for channel in rgb]
        if place != "g":
            rgb = [channel.clamp(0, 1) for channel in rgb]
    normalised = [(channel * scale + shift).to(dtype) for channel, scale, shift in zip(rgb, SCALE, SHIFT, strict=True)]
    return torch.cat(normalised, -1).permute(0, 4, 1, 2, 3)


def _grey(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    return red * GREY[0] + green * GREY[1] + blue * GREY[2]


def _turned(rgb: RGB, sources: Sequence[Tensor]) -> RGB:
    """The hue turned: `_shift_hue` of colour.py, value by value."""
    red, green, blue = rgb
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    hue = torch.copysign(green + blue - red + high - 2 * low, green - blue) / chroma.clamp_min(1e-12)
    return [low - chroma + chroma * ((hue + source).abs() - 3).abs().clamp(1, 2) for source in sources]


def _blurred(channel: Tensor, side: Tensor) -> Tensor:
    """3 x 3 Gaussian, zeros beyond the edge. side: the weight of both neighbours in each direction."""
    size = channel.shape[2]
    places = torch.arange(size, device=channel.device)
    neighbours = []
    for step in (-1, 0, 1):
        inside = (places + step >= 0) & (places + step < size)
        neighbours.append(((places + step).clamp(0, size - 1), inside * (1 - 2 * side if step == 0 else side)[..., 0]))  # (B, 1, 1, S)
    total: Tensor | int = 0
    for row, down in neighbours:
        for column, across in neighbours:
            total = total + channel[:, :, row][:, :, :, column] * (down.transpose(2, 3) * across)[..., None]
    assert isinstance(total, Tensor)
    return total


def _sum(parts: Sequence[RGB], weights: Sequence[Tensor]) -> RGB:
    """Weighted sums of two pictures, channel by channel."""
    (one, two), (first, second) = parts, weights
    return [a * first + b * second for a, b in zip(one, two, strict=True)]


def _columns(factors: Tensor) -> list[Tensor]:
    """The columns of (B, N), each (B, 1, 1, 1, 1)."""
    return [column.view(-1, 1, 1, 1, 1) for column in factors.unbind(1)]


def compiled_whole_batch(pixels: Tensor, first: Tensor, *more: Tensor, planes: bool, order: str, dtype: torch.dtype) -> Tensor:
    """`whole_batch` in few kernels."""
    _of_any_size(pixels, 0, 1)
    _of_any_size(first, 0, 1)
    for table in more:
        _of_any_size(table, 0)
    return _compiled(whole_batch)(pixels, first, *more, planes=planes, order=order, dtype=dtype)


def compiled_resized_batch(clips: Tensor, factors: Tensor, *, order: str, dtype: torch.dtype) -> Tensor:
    """`resized_batch` in few kernels."""
    _of_any_size(clips, 0, 2)
    _of_any_size(factors, 0)
    return _compiled(resized_batch)(clips, factors, order=order, dtype=dtype)


def _of_any_size(tensor: Tensor, *dims: int) -> None:
    """What is compiled for this tensor is right for other sizes of these dimensions, too: from batch to batch, and after a trial."""
    for dim in dims:
        torch._dynamo.maybe_mark_dynamic(tensor, dim)


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    import torch._inductor.config

    wanted = {
        # The channels are written to their places at once; where torch has no such setting, another kernel joins them.
        "max_pointwise_cat_inputs": 0,
        "max_complex_pointwise_cat_inputs": 0,
        # The tables are made here, and without a compiler every index is checked.
        "assert_indirect_indexing": False,
    }
    options: dict[str, Any] = {name: value for name, value in wanted.items() if hasattr(torch._inductor.config, name)}
    return torch.compile(function, fullgraph=True, options=options)
