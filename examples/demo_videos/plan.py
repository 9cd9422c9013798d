"""What is drawn for which video: actors, scenes, viewpoints; the names of the files and the split lists."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .actions import ACTIONS, perform
from .camera import Camera, framed, limbs_in_picture
from .draw import paint, paint_figure
from .encode import FORMATS, Format
from .performance import Clock
from .scenes import DIM, LIFT, SCENES, Scene, backdrop
from .skeleton import INDEX, LIMBS, Array, Body, joint_positions

CLASSES = tuple(sorted(ACTIONS))
FPS = 25
GROUP_SIZE = 4
NUM_SPLITS = 3
TEST_SHARE = 4 / 15
FLAT = np.zeros(3)


@dataclass(frozen=True)
class Video:
    """One video to make. Its group shares actor, scene and file format, as clips cut from one film do."""

    action: str
    group: int
    clip: int
    file_format: Format

    @property
    def path(self) -> str:
        """Relative to the folder of all videos, as UCF101 names them."""
        return f"{self.action}/v_{self.action}_g{self.group:02d}_c{self.clip:02d}.{self.file_format.extension}"


def plan_videos(videos_per_class: int, seed: int, classes: Sequence[str] = CLASSES) -> list[Video]:
    """All videos in the order of their names. What a video shows depends on the seed and its name alone, not on what else is made."""
    return [
        Video(action, number // GROUP_SIZE + 1, number % GROUP_SIZE + 1, _group_format(action, number // GROUP_SIZE + 1, seed))
        for action in sorted(classes)
        for number in range(videos_per_class)
    ]


def _group_rng(action: str, group: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, CLASSES.index(action), group])


def _group_format(action: str, group: int, seed: int) -> Format:
    rng = np.random.default_rng([seed, CLASSES.index(action), group, 0, 1])
    return FORMATS[rng.choice(len(FORMATS), p=[each.share for each in FORMATS])]


def split_lists(videos: list[Video]) -> dict[str, str]:
    """Contents of classInd.txt, trainlist0N.txt and testlist0N.txt, by file name. A group is never on both sides of a split.

    At least two groups are needed.
    """
    classes = sorted({video.action for video in videos})
    groups = max(video.group for video in videos)
    lists = {"classInd.txt": "".join(f"{label} {name}\n" for label, name in enumerate(classes, start=1))}
    num_test = max(1, round(groups * TEST_SHARE))
    for split in range(1, NUM_SPLITS + 1):
        last = groups - (split - 1) * num_test
        if last <= num_test and split > 1:
            break  # too few groups for another split whose test groups are its own
        tested = range(last - num_test + 1, last + 1)
        train = [f"{video.path} {classes.index(video.action) + 1}\n" for video in videos if video.group not in tested]
        lists[f"trainlist0{split}.txt"] = "".join(train)
        lists[f"testlist0{split}.txt"] = "".join(f"{video.path}\n" for video in videos if video.group in tested)
    return lists


def favourite_scenes(seed: int) -> dict[str, tuple[str, str]]:
    """Two scenes for each class, in which half of its groups are set; every scene is a favourite of two or three classes."""
    rng = np.random.default_rng([seed, 12])
    names = list(SCENES)
    deck: list[str] = []
    while len(deck) < 2 * len(CLASSES):
        deck += [names[index] for index in rng.permutation(len(names))]
    pairs = {}
    for action in CLASSES:
        first = deck.pop(0)
        second = deck.pop(next(index for index, name in enumerate(deck) if name != first))
        pairs[action] = (first, second)
    return pairs


@dataclass(frozen=True)
class Cast:
    """What the videos of a group share."""

    body: Body
    colours: dict[str, Array]
    """Part of the figure -> RGB in 0-255."""
    scene: Scene


def cast_of(video: Video, seed: int) -> Cast:
    """Actor and scene of a video's group."""
    rng = _group_rng(video.action, video.group, seed)
    favourites = favourite_scenes(seed)[video.action]
    at_home = (video.group + CLASSES.index(video.action)) % 2 == 0
    scene = SCENES[str(rng.choice(favourites if at_home else list(SCENES)))]
    body = Body(legs=rng.uniform(0.93, 1.07), arms=rng.uniform(0.93, 1.07), trunk=rng.uniform(0.94, 1.06), girth=rng.uniform(1.05, 1.4))
    return Cast(body, _clothes(scene, rng), scene)


def _clothes(scene: Scene, rng: np.random.Generator) -> dict[str, Array]:
    """Colours of an actor, in 0-255, drawn until clothes are brighter than the scene."""
    weights = np.array([0.3, 0.59, 0.11])  # brightness of red, green and blue
    around = max(float(LIFT + DIM * (np.add(surface.dark, surface.light) @ weights) / 2) for surface in (scene.wall, scene.floor))

    def cloth() -> Array:
        for _ in range(30):
            colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.9), rng.uniform(0.6, 1.0)))
            if colour @ weights > around + 0.2:
                break
        return colour * 255

    skin = np.array([235.0, 190.0, 160.0]) * rng.uniform(0.5, 1.0) * np.array([1, rng.uniform(0.92, 1.02), rng.uniform(0.88, 1.04)])
    shirt, trousers = cloth(), cloth()
    sleeves = shirt if rng.random() < 0.8 else skin
    return {
        "skin": skin,
        "hair": np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.05, 0.8))) * 255,
        "shirt": shirt,
        "sleeves": sleeves,
        "forearms": sleeves if rng.random() < 0.5 else skin,
        "trousers": trousers,
        "shins": trousers if rng.random() < 0.65 else skin,
        "shoes": cloth(),
    }


def render(video: Video, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The frames of a video (F, H, W, 4), uint8: RGB and an unused fourth; and the empty scene (H, W, 3)."""
    cast = cast_of(video, seed)
    rng = np.random.default_rng([seed, CLASSES.index(video.action), video.group, video.clip])
    width, height = video.file_format.width, video.file_format.height
    rate = rng.uniform(0.9, 1.1)  # playback
    time_s = np.arange(round(rng.uniform(2.5, 3.2) * FPS)) / FPS * rate
    pose, anchor = perform(video.action, Clock(time_s, rng))
    joints = joint_positions(pose, cast.body, anchor=anchor)
    camera = Camera(azimuth=rng.uniform(-80, 80), elevation=rng.uniform(0, 14), distance=rng.uniform(4, 7))
    shift = (rng.uniform(-0.06, 0.06), rng.uniform(-0.02, 0.02))
    camera = framed(camera, joints, cast.body, width=width, height=height, fill=rng.uniform(0.8, 0.93), shift=shift)
    empty = backdrop(cast.scene, camera, width=width, height=height, rng=rng)
    frames = np.repeat(np.concatenate([empty, np.zeros_like(empty[..., :1])], axis=2)[None], len(time_s), axis=0)
    _paint_shadow(frames, camera, joints)
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1, -0.3), rng.uniform(0.4, 1)])
    colours = np.array([cast.colours[limb.part] for limb in LIMBS]) * rng.uniform(0.85, 1.1)
    paint_figure(frames, *limbs_in_picture(camera, joints, cast.body), colours, light=light / np.linalg.norm(light))
    return frames, empty


def _paint_shadow(frames: NDArray[np.uint8], camera: Camera, joints: Array) -> None:
    """Darkens the floor below the feet and the trunk."""
    flatness = max(np.sin(np.deg2rad(camera.elevation)), 0.12)  # a disc on the floor, seen from the side
    dark = np.zeros((len(frames), 3))
    for start, end, radius in (
        ("l_ankle", "r_ankle", 0.16),
        ("pelvis", "chest", 0.24),
        ("l_ankle", "l_toe", 0.12),
        ("r_ankle", "r_toe", 0.12),
    ):
        on_floor = joints[:, [INDEX[start], INDEX[end]]] * np.array([1, 1, 0])
        ends, depth = camera.project(on_floor)
        radii = radius * flatness * camera.focal / depth
        paint(frames, ends, radii, dark, light=FLAT, opacity=0.3, softness=max(1.5, 0.02 * frames.shape[1]))


def write_lists(folder: Path, videos: list[Video]) -> None:
    """Writes classInd.txt and the split lists as UCF101 has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in split_lists(videos).items():
        (folder / name).write_text(text, encoding="utf-8")
