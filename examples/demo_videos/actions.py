"""Fifteen actions: for each a function from a clock to joint angles over time.

Every action is written as key poses over one cycle, in degrees and metres, joined by a curve that rests at its extremes (as
muscles do) and flows through what lies between. Cycles take 0.6 to 3 seconds and the ranges of the actions overlap: how fast
a video plays can't be told from how long a cycle takes, only from how this action looks. Flight follows gravity.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .moves_in_place import bow, clap, kick, punch, squat, twist, wave
from .moves_on_foot import cartwheel, crawl, jump, jumping_jack, run, side_step, spin, walk
from .performance import Clock, Performance
from .skeleton import SIDED, Channels, mirrored, other_side, rest_pose

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


def flat_feet(pose: Channels) -> None:
    """Sets the ankles so that the soles stay level while hips and knees bend."""
    for side in "lr":
        pose[f"{side}_ankle"] = pose[f"{side}_knee"] - pose[f"{side}_hip_fwd"] + pose["pitch"]


def perform(action: str, clock: Clock) -> tuple[Channels, tuple[str, ...]]:
    """One performance of an action: every channel over time, (F,) each, and the joints that keep their place.

    What all actions share is added here: no two swings are equally large, joints sway a little, half of the figures are left-handed.
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
