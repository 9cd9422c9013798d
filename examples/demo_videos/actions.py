"""Fifteen actions: for each a function from a clock to joint angles over time.

Every action is written as key poses over one cycle, in degrees and metres, joined by a curve that rests at its extremes (as muscles do) and
flows through what lies between. Cycles take 0.6 to 2 seconds and the ranges of the actions overlap: how fast a video plays can't be told from how
long a cycle takes, only from how this action looks. Flight follows gravity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .skeleton import SIDED, Array, Channels, mirrored, other_side, rest_pose

GRAVITY = 9.81  # m/s2
Keys = tuple[tuple[float, float], ...]


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

    A monotone cubic (Fritsch and Carlson 1980): never beyond its keys, at rest at its extremes.
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
    return (
        value[index] * (1 + 2 * u) * (1 - u) ** 2
        + tangent[index] * width * u * (1 - u) ** 2
        + value[index + 1] * u**2 * (3 - 2 * u)
        + tangent[index + 1] * width * u**2 * (u - 1)
    )


def flight(phase: Array, start: float, stop: float, period_s: float) -> Array:
    """Metres above the ground (F,) of a body that leaves it at phase `start` and is back at `stop`."""
    share = (phase % 1.0 - start) / (stop - start)
    duration_s = (stop - start) * period_s
    return np.where((share > 0) & (share < 1), 0.5 * GRAVITY * duration_s**2 * share * (1 - share), 0.0)


def both(**channels: Array | float) -> dict[str, Array | float]:
    """The same on the left and on the right."""
    return {f"{side}_{name}": values for name, values in channels.items() for side in "lr"}


def flat_feet(pose: Channels) -> None:
    """Sets the ankles so that the soles stay level while hips and knees bend."""
    for side in "lr":
        pose[f"{side}_ankle"] = pose[f"{side}_knee"] - pose[f"{side}_hip_fwd"] + pose["pitch"]


@dataclass(frozen=True)
class Performance:
    """What an action function returns: channels that it moves, the joints that keep their place, and whether the soles stay level."""

    channels: dict[str, Array | float]
    anchor: tuple[str, ...] = ("l_ankle", "r_ankle")
    level_soles: bool = True


def bow(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.3, 1.9))
    depth = clock.between(55, 85)
    down = cycle(phase, (0.0, 0.0), (0.08, 0.0), (0.42, 1.0), (0.52, 0.96), (0.9, 0.0))
    arms = {"arm_fwd": down * clock.between(10, 70), "arm_out": 9.0 + down * clock.between(-4, 14)}
    return Performance(
        {"pitch": down * depth, "bend": down * clock.between(10, 30), "nod": down * 20, **both(hip_fwd=down * (depth + 8), knee=down * 8, **arms)}
    )


def cartwheel(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(2.5, 3.1))  # one to the left and one back to the right
    keys: Keys = ((0.0, 0.0), (0.06, 8.0), (0.25, 180.0), (0.44, 352.0), (0.5, 360.0), (0.56, 352.0), (0.75, 180.0), (0.94, 8.0))
    roll = cycle(phase, *keys)
    inverted = (1 - np.cos(np.deg2rad(roll))) / 2
    reach = clock.between(0.3, 0.6)
    spread = clock.between(32, 44)
    return Performance(
        {
            "roll": roll,
            "y": -reach * np.cos(2 * np.pi * phase),
            "bend": 6.0,
            **both(arm_fwd=8.0, arm_out=clock.between(150, 162) + 10 * inverted, elbow=6.0, hip_out=14 + spread * inverted, knee=4 + 8 * inverted, ankle=-25 * inverted),
        },
        anchor=("pelvis",),
        level_soles=False,
    )


def clap(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.6, 0.95))
    opening = cycle(phase, (0.0, -12.0), (0.08, -11.0), (0.5, clock.between(45, 70)), (0.7, 40.0))
    height = clock.between(45, 95)
    beat = cycle(phase, (0.0, 1.0), (0.5, 0.0))
    return Performance(
        {
            "bend": 4 + 4 * beat,
            "nod": 8 * beat,
            **both(arm_fwd=height + clock.between(10, 34) * beat, arm_out=opening, elbow=24 + 14 * beat, knee=6 + 10 * beat, hip_fwd=4 + 6 * beat),
        }
    )


def crawl(clock: Clock) -> Performance:
    period_s = clock.between(0.85, 1.25)
    phase = clock.phase(period_s)
    reach = clock.between(18, 28)
    slant = clock.between(64, 74)  # arms are longer than thighs
    channels: dict[str, Array | float] = {
        "pitch": slant,
        "nod": -clock.between(25, 50),
        "side": 8 * np.sin(2 * np.pi * phase),
        "yaw": 6 * np.sin(2 * np.pi * phase + 1),
    }
    for side, shift in (("l", 0.0), ("r", 0.5)):
        leg, arm = phase + shift, phase + shift + 0.5 + 0.06
        channels |= {
            f"{side}_hip_fwd": slant + 2 + cycle(leg, (0.0, reach), (0.62, -reach), (0.82, 0.0)),
            f"{side}_knee": 92 + cycle(leg, (0.0, -4.0), (0.6, -6.0), (0.8, 22.0)),
            f"{side}_ankle": -55.0,
            f"{side}_arm_fwd": slant + cycle(arm, (0.0, reach + 6), (0.62, -reach), (0.82, 8.0)),
            f"{side}_elbow": 6 + cycle(arm, (0.0, 4.0), (0.6, 6.0), (0.8, 42.0)),
        }
    return Performance(channels, anchor=("pelvis",), level_soles=False)


def jump(clock: Clock) -> Performance:
    flight_s = clock.between(0.38, 0.54)
    period_s = clock.between(0.7, 0.9) + flight_s
    phase = clock.phase(period_s)
    off, land = 0.36, 0.36 + flight_s / period_s
    deep = clock.between(55, 85)
    knee = cycle(phase, (0.0, 20.0), (0.2, deep), (off, 4.0), (land, 12.0), (land + 0.12, deep * 0.8), (0.95, 22.0))
    swing = cycle(phase, (0.0, -5.0), (0.18, -45.0), (off + 0.04, clock.between(120, 165)), (land, 70.0), (land + 0.14, -15.0))
    lean = cycle(phase, (0.0, 8.0), (0.2, 34.0), (off, 3.0), (land, 6.0), (land + 0.12, 28.0))
    point = cycle(phase, (0.0, 0.0), (off - 0.04, 0.0), (off + 0.03, -45.0), (land - 0.05, -40.0), (land + 0.02, 0.0))
    return Performance(
        {"pitch": lean, "lift": flight(phase, off, land, period_s), **both(knee=knee, hip_fwd=knee * 0.5 + lean, ankle=knee * 0.5 + point, arm_fwd=swing, elbow=18.0)},
        level_soles=False,
    )


def jumping_jack(clock: Clock) -> Performance:
    period_s = clock.between(0.85, 1.15)
    phase = clock.phase(period_s)
    apart = cycle(phase, (0.02, 0.0), (0.1, 0.06), (0.42, 1.0), (0.6, 0.95), (0.92, 0.04))
    soft = cycle(phase, (0.0, 1.0), (0.25, 0.1), (0.5, 1.0), (0.75, 0.1))
    hop = flight(phase, 0.14, 0.38, period_s) + flight(phase, 0.64, 0.88, period_s)
    return Performance(
        {
            "lift": hop,
            **both(arm_out=8 + apart * clock.between(130, 160), elbow=12.0, hip_out=3 + apart * clock.between(22, 32), knee=6 + 20 * soft, hip_fwd=3 + 10 * soft),
        }
    )


def kick(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.0, 1.45))
    height = clock.between(75, 115)
    out = clock.between(0, 30)
    thrust = cycle(phase, (0.0, 0.0), (0.15, 0.25), (0.42, 1.0), (0.48, 0.97), (0.75, 0.1))
    return Performance(
        {
            "pitch": -thrust * clock.between(8, 22),
            "twist": -10 + 22 * thrust,
            "bend": 8.0,
            "r_hip_fwd": cycle(phase, (0.0, -14.0), (0.1, -18.0), (0.3, height * 0.8), (0.44, height), (0.6, height * 0.7), (0.82, -10.0)),
            "r_hip_out": 5 + out * thrust,
            "r_knee": cycle(phase, (0.0, 14.0), (0.1, 25.0), (0.29, 105.0), (0.42, 5.0), (0.58, 85.0), (0.82, 14.0)),
            "r_ankle": -20 * thrust,
            "l_knee": 10 + 8 * thrust,
            "l_hip_fwd": 8 - thrust * 6,
            "l_arm_fwd": 42 - 25 * thrust,
            "r_arm_fwd": 38 - 50 * thrust,
            **both(elbow=95.0, arm_out=12 + 20 * thrust),
        },
        anchor=("l_ankle",),
        level_soles=False,
    )


def punch(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.85, 1.25))
    channels: dict[str, Array | float] = {}
    turn = clock.between(22, 38)
    for side, shift in (("l", 0.0), ("r", 0.5)):
        out = cycle(phase + shift, (0.0, 0.0), (0.06, -0.05), (0.22, 1.0), (0.27, 0.97), (0.48, 0.0))
        channels |= {f"{side}_arm_fwd": 38 + 54 * out, f"{side}_elbow": 128 - 122 * out, f"{side}_arm_out": 10 - 6 * out}
    swing = cycle(phase, (0.0, 0.0), (0.22, -1.0), (0.5, 0.0), (0.72, 1.0))
    bounce = cycle(phase * 2, (0.0, 0.0), (0.5, 1.0))
    return Performance(
        {
            "yaw": 0.4 * turn * swing,
            "twist": turn * swing,
            "bend": 10 + 4 * bounce,
            "pitch": 6.0,
            **channels,
            "l_hip_fwd": 30 + 6 * bounce,
            "r_hip_fwd": -2 + 6 * bounce,
            **both(knee=24 + 14 * bounce, hip_out=8.0),
        }
    )


def _gait(phase: Array, hip: Keys, knee: Keys, ankle: Keys) -> dict[str, Array | float]:
    """Both legs through the same keys, half a cycle apart."""
    return {
        f"{side}_{name}": cycle(phase + shift, *keys)
        for side, shift in (("l", 0.0), ("r", 0.5))
        for name, keys in (("hip_fwd", hip), ("knee", knee), ("ankle", ankle))
    }


def run(clock: Clock) -> Performance:
    period_s = clock.between(0.62, 0.78)
    phase = clock.phase(period_s)
    stride = clock.between(0.85, 1.2)
    legs = _gait(
        phase,
        hip=((0.0, 34 * stride), (0.12, 26 * stride), (0.36, -22 * stride), (0.46, -18 * stride), (0.8, 48 * stride)),
        knee=((0.0, 16.0), (0.12, 36.0), (0.34, 12.0), (0.58, 105 * stride), (0.68, 96.0), (0.95, 12.0)),
        ankle=((0.0, 4.0), (0.14, 16.0), (0.36, -30.0), (0.6, -8.0)),
    )
    swing = np.sin(2 * np.pi * phase)
    size = clock.between(28, 46)
    return Performance(
        {
            "pitch": clock.between(6, 14),
            "yaw": 7 * swing,
            "twist": -16 * swing,
            "lift": flight(phase, 0.36, 0.5, period_s) + flight(phase + 0.5, 0.36, 0.5, period_s),
            "l_arm_fwd": -size * np.cos(2 * np.pi * phase) + 4,
            "r_arm_fwd": size * np.cos(2 * np.pi * phase) + 4,
            **both(elbow=clock.between(75, 105), arm_out=14.0),
            **legs,
        },
        anchor=("pelvis",),
        level_soles=False,
    )


def side_step(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.1, 1.5))  # a step to the left, a step to the right
    width = clock.between(0.18, 0.3)
    sideways = cycle(phase, (0.0, -1.0), (0.08, -1.0), (0.5, 1.0), (0.58, 1.0))
    spread = cycle(phase * 2, (0.08, 0.0), (0.5, 1.0), (0.62, 0.9), (0.98, 0.0))
    bounce = cycle(phase * 2, (0.05, 1.0), (0.55, 0.2))
    sweep = clock.between(40, 70)
    return Performance(
        {
            "y": width * sideways,
            "roll": 4 * sideways,
            "side": -10 * sideways,
            "twist": 14 * sideways,
            "l_arm_out": 28 + sweep * np.clip(sideways + 0.3, -0.6, None),
            "r_arm_out": 28 + sweep * np.clip(-sideways + 0.3, -0.6, None),
            **both(arm_fwd=24.0, elbow=clock.between(20, 60), hip_out=4 + 15 * spread, knee=10 + 22 * bounce, hip_fwd=6 + 12 * bounce),
        },
        anchor=("pelvis",),
    )


def spin(clock: Clock) -> Performance:
    period_s = clock.between(1.1, 1.6)
    phase = clock.phase(period_s)
    step = 2 * np.pi * 2 * phase  # two steps a turn, a push at each
    channels: dict[str, Array | float] = {}
    for side, shift in (("l", 0.0), ("r", 0.5)):
        lifted = cycle(2 * phase + shift, (0.0, 0.0), (0.2, 1.0), (0.45, 0.0), (0.7, 0.0))
        channels |= {f"{side}_hip_fwd": 6 + 24 * lifted, f"{side}_knee": 10 + 46 * lifted, f"{side}_hip_out": 6 + 6 * lifted}
    return Performance(
        {
            "yaw": 360 * phase + 14 * np.sin(step),
            "twist": 10 * np.cos(step),
            "side": 5 * np.sin(step),
            **both(arm_fwd=10 + 8 * np.sin(step), arm_out=clock.between(50, 88), elbow=clock.between(8, 40)),
            **channels,
        },
        anchor=("pelvis",),
    )


def squat(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.15, 1.65))
    down = cycle(phase, (0.0, 0.0), (0.05, 0.0), (0.46, 1.0), (0.54, 1.0), (0.95, 0.0))
    deep = clock.between(85, 118)
    return Performance(
        {
            "pitch": down * clock.between(22, 36),
            "nod": -12 * down,
            **both(knee=6 + down * deep, hip_fwd=4 + down * (deep * 0.94), hip_out=6 + 8 * down, arm_fwd=8 + down * clock.between(75, 110), elbow=12.0),
        }
    )


def twist(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.75, 1.05))
    turn = np.sin(2 * np.pi * phase)
    size = clock.between(28, 42)
    low = clock.between(38, 62) + 12 * np.sin(np.pi * phase)
    return Performance(
        {
            "yaw": size * turn,
            "twist": -1.7 * size * turn,
            "pitch": 12.0,
            "side": 8 * np.sin(np.pi * phase),
            "l_arm_fwd": 28 + 34 * turn,
            "r_arm_fwd": 28 - 34 * turn,
            **both(elbow=85.0, arm_out=24.0, knee=low, hip_fwd=low * 0.6 + 6, hip_out=9.0),
        }
    )


def walk(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.98, 1.3))
    stride = clock.between(0.85, 1.2)
    legs = _gait(
        phase,
        hip=((0.0, 27 * stride), (0.14, 22 * stride), (0.52, -20 * stride), (0.62, -12 * stride), (0.86, 29 * stride)),
        knee=((0.0, 4.0), (0.13, 18.0), (0.38, 5.0), (0.58, 34.0), (0.72, 64.0), (0.95, 4.0)),
        ankle=((0.0, 2.0), (0.08, -7.0), (0.42, 11.0), (0.62, -20.0), (0.8, 2.0)),
    )
    size = clock.between(16, 32)
    return Performance(
        {
            "pitch": clock.between(1, 5),
            "yaw": 5 * np.sin(2 * np.pi * phase),
            "roll": 3 * np.sin(2 * np.pi * phase + 0.5),
            "twist": -11 * np.sin(2 * np.pi * phase),
            "l_arm_fwd": -size * np.cos(2 * np.pi * (phase - 0.04)),
            "r_arm_fwd": size * np.cos(2 * np.pi * (phase - 0.04)),
            **both(elbow=clock.between(12, 30)),
            **legs,
        },
        anchor=("pelvis",),
        level_soles=False,
    )


def wave(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.7, 1.05))
    swing = cycle(phase, (0.0, -1.0), (0.5, 1.0))
    raised = clock.between(100, 130)
    return Performance(
        {
            "side": -5 - 6 * swing,
            "turn": 6 * swing,
            "roll": 3 * swing,
            "twist": 6 * swing,
            "r_arm_out": raised + 24 * swing,
            "r_arm_fwd": clock.between(0, 25) - clock.between(10, 26) * swing,
            "r_arm_twist": 90.0,
            "r_elbow": 34 - 44 * swing,
            "l_arm_out": 14 + 7 * swing,
            **both(knee=8 + 5 * swing, hip_fwd=5 + 2.5 * swing),
        }
    )


ACTIONS: dict[str, Callable[[Clock], Performance]] = {
    "Bow": bow,
    "Cartwheel": cartwheel,
    "Clap": clap,
    "Crawl": crawl,
    "Jump": jump,
    "JumpingJack": jumping_jack,
    "Kick": kick,
    "Punch": punch,
    "Run": run,
    "SideStep": side_step,
    "Spin": spin,
    "Squat": squat,
    "Twist": twist,
    "Walk": walk,
    "Wave": wave,
}


def perform(action: str, clock: Clock) -> tuple[Channels, tuple[str, ...]]:
    """One performance of an action: every channel over time, (F,) each, and the joints that keep their place.

    What all actions share is added here: a limb's swing is never twice equally large, joints sway a little, half of the figures are left-handed.
    """
    performance = ACTIONS[action](clock)
    pose = rest_pose(len(clock.time_s))
    for name, values in performance.channels.items():
        pose[name] = np.zeros_like(clock.time_s) + values
    for name in (*(f"{side}_{channel}" for side in "lr" for channel in SIDED), "bend", "side", "twist", "nod"):
        middle = pose[name].mean()
        swell = clock.between(0.9, 1.1) + clock.sway(0.05)
        pose[name] = middle + (pose[name] - middle) * swell + clock.sway(1.6)
    if performance.level_soles:
        flat_feet(pose)
    anchor = performance.anchor
    if clock.rng.random() < 0.5:
        pose = mirrored(pose)
        anchor = tuple(other_side(name) for name in anchor)
    return pose, anchor
