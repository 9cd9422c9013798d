"""Actions of a body that stays where it stands."""

from __future__ import annotations

import numpy as np

from .performance import Clock, Performance, both, cycle
from .skeleton import Array


def bow(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.45, 1.75))
    depth = clock.between(55, 85)
    down = cycle(phase, (0.0, 0.0), (0.08, 0.0), (0.42, 1.0), (0.52, 0.96), (0.9, 0.0))
    arms = {"arm_fwd": down * clock.between(10, 70), "arm_out": 9.0 + down * clock.between(-4, 14)}
    return Performance(
        {
            "pitch": down * depth,
            "bend": down * clock.between(10, 30),
            "nod": down * 20,
            **both(hip_fwd=down * (depth + 8), knee=down * 8, **arms),
        }
    )


def clap(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.7, 0.85))
    opening = cycle(phase, (0.0, -12.0), (0.08, -11.0), (0.5, clock.between(45, 70)), (0.7, 40.0))
    height = clock.between(45, 95)
    beat = cycle(phase, (0.0, 1.0), (0.5, 0.0))
    return Performance(
        {
            "bend": 4 + 4 * beat,
            "nod": 8 * beat,
            **both(
                arm_fwd=height + clock.between(10, 34) * beat,
                arm_out=opening,
                elbow=24 + 14 * beat,
                knee=6 + 10 * beat,
                hip_fwd=4 + 6 * beat,
            ),
        }
    )


def kick(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.1, 1.35))
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
    phase = clock.phase(clock.between(0.9, 1.15))
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


def squat(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.25, 1.5))
    down = cycle(phase, (0.0, 0.0), (0.05, 0.0), (0.46, 1.0), (0.54, 1.0), (0.95, 0.0))
    deep = clock.between(85, 118)
    return Performance(
        {
            "pitch": down * clock.between(22, 36),
            "nod": -12 * down,
            **both(
                knee=6 + down * deep,
                hip_fwd=4 + down * (deep * 0.94),
                hip_out=6 + 8 * down,
                arm_fwd=8 + down * clock.between(75, 110),
                elbow=12.0,
            ),
        }
    )


def twist(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.8, 0.98))
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


def wave(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(0.78, 0.95))
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
