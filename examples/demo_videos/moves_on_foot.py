"""Actions that go somewhere, turn or leave the ground: on the spot, as on a treadmill, before a camera that keeps still."""

from __future__ import annotations

import numpy as np

from .performance import Clock, Performance, both, cycle, flight
from .skeleton import Array

Keys = tuple[tuple[float, float], ...]


def cartwheel(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(2.6, 3.0))  # one to the left and one back to the right
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
            **both(
                arm_fwd=8.0,
                arm_out=clock.between(150, 162) + 10 * inverted,
                elbow=6.0,
                hip_out=14 + spread * inverted,
                knee=4 + 8 * inverted,
                ankle=-25 * inverted,
            ),
        },
        anchor=("pelvis",),
        level_soles=False,
    )


def crawl(clock: Clock) -> Performance:
    period_s = clock.between(0.9, 1.1)
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
    flight_s = clock.between(0.42, 0.5)
    period_s = clock.between(0.74, 0.84) + flight_s
    phase = clock.phase(period_s)
    off, land = 0.36, 0.36 + flight_s / period_s
    deep = clock.between(55, 85)
    knee = cycle(phase, (0.0, 20.0), (0.2, deep), (off, 4.0), (land, 12.0), (land + 0.12, deep * 0.8), (0.95, 22.0))
    swing = cycle(phase, (0.0, -5.0), (0.18, -45.0), (off + 0.04, clock.between(120, 165)), (land, 70.0), (land + 0.14, -15.0))
    lean = cycle(phase, (0.0, 8.0), (0.2, 34.0), (off, 3.0), (land, 6.0), (land + 0.12, 28.0))
    point = cycle(phase, (0.0, 0.0), (off - 0.04, 0.0), (off + 0.03, -45.0), (land - 0.05, -40.0), (land + 0.02, 0.0))
    return Performance(
        {
            "pitch": lean,
            "lift": flight(phase, off, land, period_s),
            **both(knee=knee, hip_fwd=knee * 0.5 + lean, ankle=knee * 0.5 + point, arm_fwd=swing, elbow=18.0),
        },
        level_soles=False,
    )


def jumping_jack(clock: Clock) -> Performance:
    period_s = clock.between(0.9, 1.08)
    phase = clock.phase(period_s)
    apart = cycle(phase, (0.02, 0.0), (0.1, 0.06), (0.42, 1.0), (0.6, 0.95), (0.92, 0.04))
    soft = cycle(phase, (0.0, 1.0), (0.25, 0.1), (0.5, 1.0), (0.75, 0.1))
    hop = flight(phase, 0.14, 0.38, period_s) + flight(phase, 0.64, 0.88, period_s)
    return Performance(
        {
            "lift": hop,
            **both(
                arm_out=8 + apart * clock.between(130, 160),
                elbow=12.0,
                hip_out=3 + apart * clock.between(22, 32),
                knee=6 + 20 * soft,
                hip_fwd=3 + 10 * soft,
            ),
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
    period_s = clock.between(0.64, 0.74)
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
    phase = clock.phase(clock.between(1.15, 1.35))  # a step to the left, a step to the right
    width = clock.between(0.3, 0.42)
    sideways = cycle(phase, (0.0, -1.0), (0.08, -1.0), (0.5, 1.0), (0.58, 1.0))
    spread = cycle(phase * 2, (0.08, 0.0), (0.5, 1.0), (0.62, 0.9), (0.98, 0.0))
    bounce = cycle(phase * 2, (0.05, 1.0), (0.55, 0.2))
    sweep = clock.between(55, 80)
    return Performance(
        {
            "y": width * sideways,
            "roll": 4 * sideways,
            "side": -10 * sideways,
            "twist": 14 * sideways,
            "l_arm_out": 28 + sweep * np.clip(sideways + 0.3, -0.6, None),
            "r_arm_out": 28 + sweep * np.clip(-sideways + 0.3, -0.6, None),
            **both(arm_fwd=24.0, elbow=clock.between(20, 60), hip_out=4 + 18 * spread, knee=10 + 22 * bounce, hip_fwd=6 + 12 * bounce),
        },
        anchor=("pelvis",),
    )


def spin(clock: Clock) -> Performance:
    period_s = clock.between(1.2, 1.45)
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
            **both(arm_fwd=10 + 8 * np.sin(step), arm_out=clock.between(65, 90), elbow=clock.between(6, 25)),
            **channels,
        },
        anchor=("pelvis",),
    )


def walk(clock: Clock) -> Performance:
    phase = clock.phase(clock.between(1.02, 1.2))
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
