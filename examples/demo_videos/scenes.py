"""Twelve places: a floor and what stands behind it, drawn in perspective once per video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .skeleton import Array

Samples = NDArray[np.float32]

# Figures stand in the light, scenes in dusk. Painted in full light, scenes differ so much in brightness that moving figures make 5 % of the
# variance of pixels, and a small network takes hundreds of steps longer to see that they move.
DIM, LIFT = np.float32(0.45), np.float32(0.10)
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Surface:
    """Two colours (RGB, 0-1) mixed by a pattern whose cells measure `cell` metres (along, up)."""

    pattern: str
    dark: Colour
    light: Colour
    cell: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """A wall (or trees, sky, a house front) `wall_distance` metres behind the figure, and the floor before it."""

    wall: Surface
    floor: Surface
    wall_distance: float


SCENES: dict[str, Scene] = {
    "meadow": Scene(
        Surface("sky", (0.55, 0.70, 0.90), (0.85, 0.90, 0.95), (9, 4)),
        Surface("noise", (0.20, 0.38, 0.12), (0.42, 0.58, 0.25), (0.5, 0.5)),
        40,
    ),
    "forest": Scene(
        Surface("trunks", (0.16, 0.22, 0.12), (0.38, 0.46, 0.26), (1.3, 9)),
        Surface("noise", (0.25, 0.20, 0.12), (0.42, 0.36, 0.22), (0.4, 0.4)),
        5,
    ),
    "beach": Scene(
        Surface("waves", (0.20, 0.48, 0.62), (0.62, 0.82, 0.90), (7, 0.5)),
        Surface("noise", (0.70, 0.60, 0.42), (0.86, 0.78, 0.60), (0.7, 0.7)),
        15,
    ),
    "snow": Scene(
        Surface("sky", (0.58, 0.64, 0.74), (0.80, 0.84, 0.90), (8, 3)),
        Surface("noise", (0.74, 0.78, 0.86), (0.93, 0.95, 0.98), (1.5, 1.5)),
        25,
    ),
    "street": Scene(
        Surface("bricks", (0.42, 0.22, 0.17), (0.60, 0.36, 0.28), (0.5, 0.22)),
        Surface("checks", (0.36, 0.36, 0.37), (0.48, 0.48, 0.49), (0.6, 0.6)),
        2.5,
    ),
    "gym": Scene(
        Surface("bars", (0.58, 0.50, 0.36), (0.74, 0.68, 0.54), (1.1, 0.32)),
        Surface("planks", (0.60, 0.40, 0.20), (0.76, 0.56, 0.32), (0.35, 4)),
        3,
    ),
    "stage": Scene(
        Surface("curtain", (0.30, 0.05, 0.09), (0.62, 0.14, 0.18), (0.42, 9)),
        Surface("planks", (0.16, 0.12, 0.10), (0.28, 0.22, 0.18), (0.3, 4)),
        3,
    ),
    "court": Scene(
        Surface("fence", (0.12, 0.30, 0.30), (0.26, 0.46, 0.44), (0.7, 0.7)),
        Surface("lines", (0.18, 0.34, 0.58), (0.75, 0.80, 0.85), (2.2, 2.2)),
        4,
    ),
    "kitchen": Scene(
        Surface("checks", (0.66, 0.72, 0.70), (0.84, 0.88, 0.86), (0.45, 0.45)),
        Surface("checks", (0.30, 0.30, 0.32), (0.70, 0.70, 0.68), (0.5, 0.5)),
        2,
    ),
    "studio": Scene(
        Surface("plain", (0.46, 0.46, 0.50), (0.62, 0.62, 0.66), (4, 2)),
        Surface("plain", (0.40, 0.40, 0.44), (0.54, 0.54, 0.58), (3, 3)),
        2.5,
    ),
    "night": Scene(
        Surface("lights", (0.06, 0.07, 0.16), (0.80, 0.66, 0.34), (0.9, 0.8)),
        Surface("noise", (0.10, 0.10, 0.14), (0.22, 0.22, 0.28), (0.6, 0.6)),
        9,
    ),
    "desert": Scene(
        Surface("dunes", (0.72, 0.44, 0.26), (0.92, 0.74, 0.54), (8, 1.6)),
        Surface("noise", (0.62, 0.40, 0.22), (0.80, 0.58, 0.36), (1, 1)),
        20,
    ),
}


def _value_noise(u: Samples, v: Samples, rng: np.random.Generator, octaves: int = 3) -> Samples:
    """Smooth noise in [0, 1] at the places u, v (any equal shape), about one bump per unit, finer ones below it."""
    total, weight = np.zeros_like(u), 0.0
    for octave in range(octaves):
        lattice = rng.random((32, 32), dtype=np.float32)
        x, y = u * 2**octave + np.float32(rng.uniform(0, 32)), v * 2**octave + np.float32(rng.uniform(0, 32))
        column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
        fx, fy = x - column, y - row
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        left, right, top, bottom = column & 31, (column + 1) & 31, row & 31, (row + 1) & 31
        upper = lattice[top, left] * (1 - fx) + lattice[top, right] * fx
        lower = lattice[bottom, left] * (1 - fx) + lattice[bottom, right] * fx
        total += (upper * (1 - fy) + lower * fy) * 0.5**octave
        weight += 0.5**octave
    noise: Samples = total / np.float32(weight)
    return noise


def _cell_value(column: Samples, row: Samples, rng: np.random.Generator) -> Samples:
    """One random number in [0, 1] for each cell of a grid, the same wherever the cell shows."""
    values: Samples = rng.random((64, 64), dtype=np.float32)[row.astype(np.int32) & 63, column.astype(np.int32) & 63]
    return values


def _mix(surface: Surface, along: Array, up: Array, rng: np.random.Generator) -> Samples:
    """How much of the light colour shows, in [0, 1], at the places along, up (metres)."""
    u = (along / surface.cell[0] + rng.uniform(0, 60)).astype(np.float32)
    v = (up / surface.cell[1] + rng.uniform(0, 60)).astype(np.float32)
    noise = _value_noise(u, v, rng)
    column, row = np.floor(u), np.floor(v)
    match surface.pattern:
        case "noise" | "plain" | "sky":
            mix = noise if surface.pattern == "noise" else 0.25 + 0.5 * noise
        case "checks":
            mix = 0.8 * ((column + row) % 2) + 0.2 * noise
        case "bricks":
            shifted = u + 0.5 * (row % 2)
            joint = ((shifted % 1) < 0.08) | ((v % 1) < 0.14)
            mix = np.where(joint, 1.0, 0.6 * _cell_value(np.floor(shifted), row, rng) + 0.15 * noise)
        case "planks":
            mix = np.where((u % 1) < 0.07, 0.0, 0.65 * _cell_value(column, row, rng) + 0.35 * noise)
        case "bars":
            mix = np.where((v % 1) < 0.16, 0.0, np.where((u % 1) < 0.06, 0.1, 0.6 + 0.4 * noise))
        case "curtain":
            mix = 0.5 + 0.4 * np.sin(2 * np.pi * (u + 0.3 * noise)) + 0.1 * noise
        case "trunks":
            thickness = 0.15 + 0.35 * _cell_value(column, np.zeros_like(row), rng)
            mix = np.where(np.abs(u % 1 - 0.5) < thickness / 2, 0.05 + 0.3 * noise, 0.55 + 0.45 * noise)
        case "waves" | "dunes":
            mix = 0.5 + 0.35 * np.sin(2 * np.pi * (v + 0.8 * noise)) + 0.3 * (noise - 0.5)
        case "fence":
            mix = np.where((((u + v) % 1) < 0.12) | (((u - v) % 1) < 0.12), 0.9, 0.3 * noise)
        case "lines":
            mix = np.where(((u % 1) < 0.05) | ((v % 1) < 0.05), 1.0, 0.15 * noise)
        case "lights":
            lit = (_cell_value(column, row, rng) > 0.55) & (u % 1 > 0.25) & (u % 1 < 0.75) & (v % 1 > 0.3) & (v % 1 < 0.75)
            mix = np.where(lit, 0.85, 0.1 * noise)
        case _:
            raise ValueError(f"no pattern is called {surface.pattern!r}")
    return np.clip(mix, 0, 1)


def _painted(surface: Surface, along: Array, up: Array, rng: np.random.Generator) -> Samples:
    """(N,) places -> (N, 3) colours."""
    dark, light = np.array(surface.dark, np.float32), np.array(surface.light, np.float32)
    colours: Samples = dark + (light - dark) * _mix(surface, along, up, rng)[:, None]
    return colours


def backdrop(scene: Scene, camera: Camera, *, width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What the camera sees without the figure: (height, width, 3) uint8. Tint, brightness and the pattern's place are drawn from `rng`."""
    # Twice the size in each direction, then averaged: patterns far away would flicker between pixels otherwise.
    fine = Camera(camera.azimuth, camera.elevation, camera.distance, camera.focal * 2, (camera.centre[0] * 2, camera.centre[1] * 2))
    rays = fine.rays(2 * width, 2 * height).reshape(-1, 3)
    right, _, forward, place = fine.axes()
    level = np.array([forward[0], forward[1], 0.0]) / np.hypot(forward[0], forward[1])
    to_wall = (scene.wall_distance - place @ level) / (rays @ level)
    with np.errstate(divide="ignore"):
        to_floor = np.where(rays[:, 2] < 0, -place[2] / rays[:, 2], np.inf)
    is_floor = to_floor < to_wall
    picture = np.empty((len(rays), 3), np.float32)
    for surface, mask, reach in ((scene.floor, is_floor, to_floor), (scene.wall, ~is_floor, to_wall)):
        point = place + reach[mask, None] * rays[mask]
        up = point @ level if surface is scene.floor else point[:, 2]
        picture[mask] = _painted(surface, point @ right, up, rng)
    tint = (rng.uniform(0.93, 1.07, 3) * rng.uniform(0.92, 1.08)).astype(np.float32)
    picture = picture.reshape(height, 2, width, 2, 3)
    picture = np.clip((picture[:, 0, :, 0] + picture[:, 0, :, 1] + picture[:, 1, :, 0] + picture[:, 1, :, 1]) / 4 * tint, 0, 1)
    picture = LIFT + DIM * picture
    across = np.linspace(-1, 1, width)[None, :, None] * rng.uniform(-0.06, 0.06)  # the light falls from one side
    return np.clip(picture * (1 + across) * 255, 0, 255).astype(np.uint8)
