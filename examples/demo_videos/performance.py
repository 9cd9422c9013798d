"""What the actions are written in: time, values that move with it, and what an action hands back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .skeleton import Array

GRAVITY = 9.81  # m/s2


@dataclass(frozen=True)
class Clock:
    """Time of the frames (F,) in seconds of the acting figure, and the draws that make this performance differ from the next."""

    time_s: Array
    rng: np.random.Generator

    def between(self, low: float, high: float) -> float:
        """A draw of this performance."""
        return float(self.rng.uniform(low, high))

    def phase(self, period_s: float) -> Array:
        """Cycles done at every frame (F,), from a random start; no two cycles last equally long."""
        start, wobble_phase = self.rng.uniform(0, 1), self.rng.uniform(0, 2 * np.pi)
        wobble = 0.06 * np.sin(2 * np.pi * self.time_s / self.between(1.7, 3.1) + wobble_phase)
        return start + (self.time_s + wobble) / period_s

    def sway(self, size: float) -> Array:
        """Slow aimless movement (F,) of about `size`: nobody stands perfectly still."""
        waves = (self.between(0.4, 1) * np.sin(2 * np.pi * (self.time_s * self.between(0.2, 0.9) + self.between(0, 1))) for _ in range(2))
        return size * sum(waves, start=np.zeros_like(self.time_s))


def cycle(phase: Array, *keys: tuple[float, float]) -> Array:
    """The value at every phase (F,) of the closed curve through `keys` = (phase in [0, 1), value), in rising order of phase.

    A monotone cubic (Fritsch and Butland 1984): never beyond its keys, at rest at its extremes.
    """
    at = np.array([key[0] for key in keys])
    value = np.array([key[1] for key in keys])
    at = np.concatenate([at - 1, at, at + 1])
    value = np.tile(value, 3)
    slope = np.diff(value) / np.diff(at)
    before, after = slope[:-1], slope[1:]
    both = before * after
    tangent = np.zeros_like(value)
    np.divide(2 * both, before + after, out=tangent[1:-1], where=both > 0)
    position = phase % 1.0
    index = np.searchsorted(at, position, side="right") - 1
    width = at[index + 1] - at[index]
    u = (position - at[index]) / width
    curve: Array = (
        value[index] * (1 + 2 * u) * (1 - u) ** 2
        + tangent[index] * width * u * (1 - u) ** 2
        + value[index + 1] * u**2 * (3 - 2 * u)
        + tangent[index + 1] * width * u**2 * (u - 1)
    )
    return curve


def flight(phase: Array, start: float, stop: float, period_s: float) -> Array:
    """Metres above the ground (F,) of a body that leaves it at phase `start` and is back at `stop`."""
    share = (phase % 1.0 - start) / (stop - start)
    duration_s = (stop - start) * period_s
    return np.where((share > 0) & (share < 1), 0.5 * GRAVITY * duration_s**2 * share * (1 - share), 0.0)


def both(**channels: Array | float) -> dict[str, Array | float]:
    """The same on the left and on the right."""
    return {f"{side}_{name}": values for name, values in channels.items() for side in "lr"}


@dataclass(frozen=True)
class Performance:
    """What an action function returns: channels that it moves, the joints that keep their place, and whether the soles stay level."""

    channels: dict[str, Array | float]
    anchor: tuple[str, ...] = ("l_ankle", "r_ankle")
    level_soles: bool = True
