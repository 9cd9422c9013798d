"""A human figure of 18 joints: joint angles over time -> joint positions over time (forward kinematics).

Axes: x forward, y to the figure's left, z up; metres. Angles are degrees; all channels are arrays of shape (F,), one value a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Channels = dict[str, Array]

SIDED = ("arm_fwd", "arm_out", "arm_twist", "elbow", "hip_fwd", "hip_out", "knee", "ankle")
"""Channels that both sides have, written l_arm_fwd and r_arm_fwd. `fwd` swings forward, `out` away from the body, the rest bend."""
CENTRAL = ("x", "y", "lift", "yaw", "pitch", "roll", "bend", "side", "twist", "nod", "turn")
"""x, y, lift: metres of the whole body; yaw, pitch (forward), roll (to the left): rotation; bend, side, twist: spine; nod, turn: head."""
CHANNELS = (*CENTRAL, *(f"{side}_{name}" for side in "lr" for name in SIDED))
CHANGES_SIGN = ("y", "yaw", "roll", "side", "twist", "turn")
"""Channels that change their sign when left and right are exchanged."""

JOINTS = (
    *("pelvis", "chest", "neck", "head", "face"),
    *(f"{side}_{name}" for side in "lr" for name in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "toe")),
)
INDEX = {name: index for index, name in enumerate(JOINTS)}


@dataclass(frozen=True)
class Body:
    """Proportions of one figure: factors on the lengths (metres) and the thickness of an average body."""

    legs: float = 1.0
    arms: float = 1.0
    trunk: float = 1.0
    girth: float = 1.0


@dataclass(frozen=True)
class Limb:
    """A capsule between two joints; radii in metres; `part` names the piece of clothing whose colour it has."""

    start: str
    end: str
    radius_start: float
    radius_end: float
    part: str


LIMBS = (
    Limb("pelvis", "chest", 0.125, 0.135, "shirt"),
    Limb("l_shoulder", "r_shoulder", 0.085, 0.085, "shirt"),
    Limb("l_hip", "r_hip", 0.105, 0.105, "trousers"),
    Limb("chest", "neck", 0.06, 0.055, "skin"),
    Limb("head", "head", 0.118, 0.118, "hair"),
    Limb("face", "face", 0.098, 0.098, "skin"),
    *(
        limb
        for side in "lr"
        for limb in (
            Limb(f"{side}_shoulder", f"{side}_elbow", 0.062, 0.05, "sleeves"),
            Limb(f"{side}_elbow", f"{side}_wrist", 0.05, 0.036, "forearms"),
            Limb(f"{side}_hand", f"{side}_hand", 0.055, 0.055, "skin"),
            Limb(f"{side}_hip", f"{side}_knee", 0.092, 0.066, "trousers"),
            Limb(f"{side}_knee", f"{side}_ankle", 0.066, 0.044, "shins"),
            Limb(f"{side}_ankle", f"{side}_toe", 0.052, 0.04, "shoes"),
        )
    ),
)


def rest_pose(num_frames: int) -> Channels:
    """Standing, arms hanging a little off the body: what an action does not move stays like this. Arrays of shape (F,)."""
    pose = {name: np.zeros(num_frames) for name in CHANNELS}
    for side in "lr":
        pose[f"{side}_arm_out"] += 9.0
        pose[f"{side}_elbow"] += 14.0
        pose[f"{side}_hip_out"] += 4.0
    return pose


def other_side(name: str) -> str:
    """The joint or channel on the other side of the body; one in the middle stays itself."""
    return {"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]


def mirrored(pose: Channels) -> Channels:
    """The same pose with left and right exchanged."""
    swapped = {other_side(name): values for name, values in pose.items()}
    return {name: -values if name in CHANGES_SIGN else values for name, values in swapped.items()}


def _turn(axis: int, degrees: Array) -> Array:
    """Rotation matrices about axis 0, 1 or 2 (x, y, z), right-handed: (F,) degrees -> (F, 3, 3)."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.zeros((len(angle), 3, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, first, first] = matrix[:, second, second] = cos
    matrix[:, first, second], matrix[:, second, first] = -sin, sin
    return matrix


def joint_positions(pose: Channels, body: Body, *, anchor: tuple[str, ...]) -> Array:
    """Where every joint is in every frame.

    The lowest point of the body touches the ground (z = 0), or is `lift` metres above it in flight. The mean place of the `anchor` joints
    stays at the channels x, y, so that feet that stand do not slide.

    pose: every channel of CHANNELS, (F,). Returns (F, len(JOINTS), 3) metres.
    """
    num_frames = len(pose["yaw"])
    joints = np.zeros((num_frames, len(JOINTS), 3))

    def place(name: str, parent: str, rotation: Array, offset: tuple[float, float, float]) -> None:
        joints[:, INDEX[name]] = joints[:, INDEX[parent]] + rotation @ np.array(offset)

    # Pitch and roll tilt the pelvis as it is turned by yaw; x and y move in the room.
    pelvis = _turn(2, pose["yaw"]) @ _turn(0, -pose["roll"]) @ _turn(1, pose["pitch"])
    spine = pelvis @ _turn(2, pose["twist"]) @ _turn(0, -pose["side"]) @ _turn(1, pose["bend"])
    head = spine @ _turn(2, pose["turn"]) @ _turn(1, pose["nod"])
    trunk, arms, legs = body.trunk, body.arms, body.legs
    place("chest", "pelvis", spine, (0, 0, 0.40 * trunk))
    place("neck", "chest", spine, (0.0, 0, 0.13 * trunk))
    place("head", "neck", head, (0.0, 0, 0.13))
    place("face", "head", head, (0.04, 0, -0.025))
    for side, sign in (("l", 1.0), ("r", -1.0)):
        channel = {name: pose[f"{side}_{name}"] for name in SIDED}
        upper = spine @ _turn(1, -channel["arm_fwd"]) @ _turn(0, sign * channel["arm_out"])
        upper = upper @ _turn(2, sign * channel["arm_twist"])
        fore = upper @ _turn(1, -channel["elbow"])
        place(f"{side}_shoulder", "chest", spine, (0, sign * 0.175 * body.girth, 0.05 * trunk))
        place(f"{side}_elbow", f"{side}_shoulder", upper, (0, 0, -0.29 * arms))
        place(f"{side}_wrist", f"{side}_elbow", fore, (0, 0, -0.25 * arms))
        place(f"{side}_hand", f"{side}_wrist", fore, (0, 0, -0.06 * arms))
        thigh = pelvis @ _turn(1, -channel["hip_fwd"]) @ _turn(0, sign * channel["hip_out"])
        shin = thigh @ _turn(1, channel["knee"])
        foot = shin @ _turn(1, -channel["ankle"])
        place(f"{side}_hip", "pelvis", pelvis, (0, sign * 0.09 * body.girth, -0.05))
        place(f"{side}_knee", f"{side}_hip", thigh, (0, 0, -0.42 * legs))
        place(f"{side}_ankle", f"{side}_knee", shin, (0, 0, -0.41 * legs))
        place(f"{side}_toe", f"{side}_ankle", foot, (0.17, 0, -0.02))
    joints[..., :2] -= joints[:, [INDEX[name] for name in anchor], :2].mean(1, keepdims=True)
    joints[..., 0] += pose["x"][:, None]
    joints[..., 1] += pose["y"][:, None]
    joints[..., 2] += (pose["lift"] - _smooth(_lowest_point(joints, body)))[:, None]
    return joints


def _lowest_point(joints: Array, body: Body) -> Array:
    """Height of the lowest point of any limb, (F,) metres."""
    ends = [(limb.start, limb.radius_start) for limb in LIMBS] + [(limb.end, limb.radius_end) for limb in LIMBS]
    heights = joints[:, [INDEX[name] for name, _ in ends], 2] - body.girth * np.array([radius for _, radius in ends])
    lowest: Array = heights.min(1)
    return lowest


def _smooth(values: Array) -> Array:
    """(F,) -> (F,): the weight passes from one foot to the other within a few frames, not at once."""
    padded = np.pad(values, 2, mode="edge")
    return np.convolve(padded, (0.1, 0.2, 0.4, 0.2, 0.1), mode="valid")
