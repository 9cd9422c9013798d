"""Draws shaded capsules over a still picture, all frames of a video at once.

The limbs of a frame are painted from the farthest to the nearest. The k-th limb of every frame is painted in one go: its pixels, of all
frames, lie in flat arrays row after row, so that numpy works on some ten thousand pixels a call and touches few outside the limbs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .skeleton import Array


def paint(
    frames: NDArray[np.uint8], ends: Array, radii: Array, colours: Array, *, light: Array, opacity: float = 1.0, softness: float = 1.0
) -> None:
    """Paints one capsule into each frame, in place.

    frames: (F, H, W, 4) uint8, contiguous; the fourth channel is there for speed only: a pixel is one 32-bit number. ends: (F, 2, 2) pixels
    (start and end, x and y), radii: (F, 2) pixels, colours: (F, 3) in 0-255. light: (3,) unit vector towards the light (x right, y down,
    z to the viewer); zeros paint flat. Edges are `softness` pixels wide.
    """
    num_frames, height, width, _ = frames.shape
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-3)
    unit = along / length[:, None]
    reach = radii.max(1) + softness / 2
    low, high = ends.min(1) - reach[:, None], ends.max(1) + reach[:, None]  # (F, 2)
    # Rows of pixels that the capsule may touch; pixel (x, y) has its middle at x + 0.5, y + 0.5.
    top, bottom = np.clip(low[:, 1], 0, height).astype(np.int64), np.clip(high[:, 1] + 1, 0, height).astype(np.int64)
    rows_of_frame = bottom - top
    frame = np.repeat(np.arange(num_frames), rows_of_frame)
    row = _counted(top, rows_of_frame)
    beside = row + 0.5 - start[frame, 1]
    # On a row the capsule lies within `reach` of its axis: a strip, cut off by the box around it.
    level, slope = unit[frame].T
    steep = np.abs(slope) > 1e-2
    safe_slope = np.where(steep, slope, 1.0)
    middle = start[frame, 0] + beside * level / safe_slope
    half = reach[frame] / np.abs(safe_slope)
    left = np.where(steep, np.maximum(middle - half, low[frame, 0]), low[frame, 0])
    right = np.where(steep, np.minimum(middle + half, high[frame, 0]), high[frame, 0])
    first = np.clip(left, 0, width).astype(np.int64)
    columns_of_row = np.maximum(np.clip(right + 1, 0, width).astype(np.int64) - first, 0)

    def spread(per_row: NDArray[np.floating]) -> NDArray[np.float32]:
        """A value for each row -> the same for each of its pixels. (np.repeat is four times faster here than indexing.)"""
        return np.repeat(per_row.astype(np.float32), columns_of_row)

    column = _counted(first, columns_of_row)
    x = column.astype(np.float32)
    # The place of the axis that is nearest to a pixel, as a share of the way from start to end: linear along a row.
    share = x * spread(level / length[frame]) + spread(((0.5 - start[frame, 0]) * level + beside * slope) / length[frame])
    np.clip(share, 0, 1, out=share)
    dx = x + spread(0.5 - start[frame, 0]) - share * spread(along[frame, 0])
    dy = spread(beside) - share * spread(along[frame, 1])
    radius = spread(radii[frame, 0]) + share * spread(radii[frame, 1] - radii[frame, 0])
    distance = np.sqrt(dx * dx + dy * dy)
    cover = np.clip((radius - distance) / np.float32(softness) + np.float32(0.5), 0, 1)
    colour = np.repeat(np.column_stack([colours, np.zeros(num_frames)]).astype(np.float32)[frame], columns_of_row, axis=0)  # (N, 4)
    if light.any():
        scale = 1 / np.maximum(radius, distance)
        towards = np.sqrt(1 - (distance * scale) ** 2)
        facing = (dx * np.float32(light[0]) + dy * np.float32(light[1])) * scale + towards * np.float32(light[2])
        shade = np.float32(0.5) + np.float32(0.55) * np.maximum(facing, 0) + np.float32(0.1) * towards
        np.minimum(colour * shade[:, None], 255, out=colour)
    pixels = frames.view(np.uint32).reshape(-1)
    place = np.repeat((frame * height + row) * width, columns_of_row) + column
    behind = pixels[place].view(np.uint8).reshape(-1, 4).astype(np.float32)
    colour -= behind
    colour *= (cover * np.float32(opacity))[:, None]
    behind += colour
    pixels[place] = behind.astype(np.uint8).view(np.uint32).reshape(-1)


def _counted(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """first[i], first[i] + 1, ... (counts[i] numbers) for every i, one after the other."""
    before = np.cumsum(counts) - counts
    numbers: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(first - before, counts)
    return numbers


def paint_figure(frames: NDArray[np.uint8], ends: Array, radii: Array, depth: Array, colours: Array, *, light: Array) -> None:
    """Paints all limbs into their frames, the farthest first. ends (F, L, 2, 2), radii (F, L, 2), depth (F, L), colours (L, 3)."""
    every = np.arange(len(frames))
    for limbs in np.argsort(-depth, axis=1, kind="stable").T:
        paint(frames, ends[every, limbs], radii[every, limbs], colours[limbs], light=light)
