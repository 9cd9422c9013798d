"""Every random draw of training, and what it depends on.

Draws of one clip: (seed, epoch, video, clip). Draws of a batch (order, who is fast, the speed, the shuffles): (seed, epoch, step).
Of an augmented gallery: (seed, video), and its order of the seed alone.
None depends on worker, rank or arrival order, so any number of them gives the same training.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from rspnet_cli.config import AugmentConfig


class _Stream(IntEnum):
    """Keeps the generators of different purposes apart."""

    ORDER = 1
    STEP = 2
    CLIP = 3
    GALLERY_ORDER = 4
    GALLERY_VIDEO = 5


def clip_rng(seed: int, epoch: int, video: int, clip: int) -> np.random.Generator:
    """The generator of one clip's draws: where it is cut, then how it is augmented."""
    return np.random.default_rng([_Stream.CLIP, seed, epoch, video, clip])


def epoch_order(num_videos: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: (num_videos,) int64, a permutation."""
    return np.random.default_rng([_Stream.ORDER, seed, epoch]).permutation(num_videos)


def gallery_order(num_videos: int, *, seed: int) -> np.ndarray:
    """The order in which an augmented gallery is made: (num_videos,) int64, a permutation."""
    return np.random.default_rng([_Stream.GALLERY_ORDER, seed]).permutation(num_videos)


def gallery_rng(seed: int, video: int) -> np.random.Generator:
    """The generator of the one draw that all clips of a video of an augmented gallery share."""
    return np.random.default_rng([_Stream.GALLERY_VIDEO, seed, video])


@dataclass(frozen=True)
class StepDraw:
    """The draws of one step, for the global batch; equal on every rank."""

    fast: np.ndarray
    """(B,) bool: samples played at `speed`; the others play at speed 1."""
    speed: int
    """Every `speed`-th frame."""
    shuffles: np.ndarray
    """(2, B) int64: permutations that shuffle the key clips over BN sub-batches, for k- and k+."""


def draw_step(batch_size: int, *, speeds: tuple[int, ...], sub_batches: int = 1, seed: int, epoch: int, step: int) -> StepDraw:
    """Draw a step. Of every BN sub-batch of b samples (a rank, or one of its bn_splits) floor(b/2) play at speed 1, as released."""
    rng = np.random.default_rng([_Stream.STEP, seed, epoch, step])
    speed = int(rng.choice(np.array(speeds)))
    size = batch_size // sub_batches
    fast = np.concatenate([rng.permutation(size) >= size // 2 for _ in range(sub_batches)])
    shuffles = np.stack([rng.permutation(batch_size) for _ in range(2)])
    return StepDraw(fast=fast, speed=speed, shuffles=shuffles)


# The colour operations, as numbers in ClipDraw.ops.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True)
class ClipDraw:
    """How one clip is augmented; the same for all its frames."""

    box: tuple[int, int, int, int]
    """Crop: top, left, height, width, in pixels of the stored frame."""
    grayscale: bool
    ops: tuple[int, ...]
    """Colour operations in their order (empty: no jitter)."""
    factors: tuple[float, float, float, float]
    """By operation: brightness, contrast and saturation factors, hue shift in turns."""
    blur: bool
    flip: bool


def draw_clip(height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> ClipDraw:
    """Draw a clip's augmentation for frames of height x width pixels."""
    # Always the same number of draws and the box, whose number of tries varies, last: one setting changes nothing but its own effect.
    chances = rng.random(4)
    factors = rng.uniform(-1.0, 1.0, 4) * np.array(config.jitter)
    order = rng.permutation(4)
    ops = tuple(int(op) for op in order if config.jitter[op] > 0) if chances[0] < config.jitter_p else ()
    return ClipDraw(
        box=_crop_box(height, width, config.crop_area, config.crop_ratio, rng),
        grayscale=bool(chances[1] < config.grayscale),
        ops=ops,
        factors=(1 + float(factors[0]), 1 + float(factors[1]), 1 + float(factors[2]), float(factors[3])),
        blur=bool(chances[2] < config.blur_p),
        flip=bool(chances[3] < config.flip),
    )


def _crop_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """The random resized crop: 10 tries at an area and a shape, then the largest centre box of an allowed shape."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        shape = float(np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]))))
        w, h = round(float(np.sqrt(target * shape))), round(float(np.sqrt(target / shape)))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = min(round(width / ratio[0]), height)
    elif width / height > ratio[1]:
        w = min(round(height * ratio[1]), width)
    return (height - h) // 2, (width - w) // 2, h, w
