"""Which frame indices make a clip: integers in, integers out; no torch, no files.

The arithmetic is that of the released code, which the published figures rest on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class FrameRate(NamedTuple):
    """What videos are resampled to before clips are cut."""

    per_s: float
    """Frames per second."""
    tolerance: float
    """A step (see `frames_at_rate`) that differs from a whole number by less than this share of it is that number."""

    @classmethod
    def of(cls, per_s: float | None, tolerance: float) -> FrameRate | None:
        """From settings, of which None and 0 frames per second leave videos as they are: None."""
        return cls(per_s, tolerance) if per_s else None


def random_clip(video_frames: int, *, frames: int, stride: int = 1, rng: np.random.Generator) -> np.ndarray:
    """A training clip at a random place: (frames,) int64 in [0, video_frames).

    Short videos: one of at most `frames` frames is looped; one too short for the stride is sampled evenly from end to end.
    """
    short = _short_clip(video_frames, frames, stride)
    if short is not None:
        return short
    start = int(rng.integers(0, video_frames - _span(frames, stride) + 1))
    return start + stride * np.arange(frames, dtype=np.int64)


def played_frames(frames: int, *, fast: bool, speed: int) -> np.ndarray:
    """Which frames of a loaded clip are played: (frames,) int64. Speed 1 is the first ones, `speed` (fast) 0, s, 2s, ..."""
    return np.arange(frames, dtype=np.int64) * (speed if fast else 1)


def uniform_clips(video_frames: int, *, frames: int, count: int, stride: int = 1) -> np.ndarray:
    """`count` evenly spaced clips for features and tests: (count, frames) int64 in [0, video_frames).

    First to last possible start, rounded half to even; one clip lies in the centre, rounded down. Short videos as in `random_clip`.
    """
    short = _short_clip(video_frames, frames, stride)
    if short is not None:
        return np.tile(short, (count, 1))
    last = video_frames - _span(frames, stride)
    starts: np.ndarray = np.array([last // 2]) if count == 1 else np.round(np.linspace(0, last, count))
    return starts.astype(np.int64)[:, None] + stride * np.arange(frames, dtype=np.int64)


def cover_clip(video_frames: int, *, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A training clip that spans the whole video: (frames,) int64 in [0, video_frames).

    Its step is n/T frames, with one offset for all of them, drawn from U(0, n/T): 32 frames at T = 4 and offset 1.5 give 1, 9, 17, 25.
    """
    stride = _cover_stride(video_frames, frames)
    return _cover(video_frames, frames, rng.uniform(0, stride))


def cover_clips(video_frames: int, *, frames: int, count: int) -> np.ndarray:
    """`count` clips for features and tests that span the whole video each: (count, frames) int64 in [0, video_frames).

    Their offsets are evenly spaced from 0 up to, but without, the step n/T; a single clip has the offset n/2T.
    """
    stride = _cover_stride(video_frames, frames)
    offsets = [stride / 2] if count == 1 else np.linspace(0, stride, count, endpoint=False).tolist()
    return np.stack([_cover(video_frames, frames, offset) for offset in offsets])


def frames_at_rate(video_frames: int, *, fps: float, frame_rate: FrameRate | None) -> np.ndarray:
    """The frames of a video of `fps` resampled to a frame rate: (n,) int64, n >= 1. None: all of them.

    With step = fps / frame_rate: a whole step takes every step-th frame; any other takes floor(i * step) for floor(video_frames / step) i,
    which repeats frames where the step is below 1.
    """
    if frame_rate is None:
        return np.arange(video_frames, dtype=np.int64)
    step = fps / frame_rate.per_s
    if round(step) >= 1 and abs(step - round(step)) < frame_rate.tolerance * step:
        step = float(round(step))
    if step >= 1 and float(step).is_integer():
        return np.arange(0, video_frames, int(step), dtype=np.int64)
    count = max(math.floor(video_frames / step), 1)
    indices: np.ndarray = np.floor(np.arange(count) * step).astype(np.int64)
    return indices.clip(max=video_frames - 1)


def _span(frames: int, stride: int) -> int:
    return (frames - 1) * stride + 1


def _short_clip(video_frames: int, frames: int, stride: int) -> np.ndarray | None:
    if video_frames < 1:
        raise ValueError("a video has at least one frame")
    if video_frames <= frames:
        return np.arange(frames, dtype=np.int64) % video_frames
    if _span(frames, stride) > video_frames:
        return np.round(np.linspace(0, video_frames - 1, frames)).astype(np.int64)
    return None


def _cover_stride(video_frames: int, frames: int) -> float:
    if video_frames < 1:
        raise ValueError("a video has at least one frame")
    return video_frames / frames


def _cover(video_frames: int, frames: int, offset: float) -> np.ndarray:
    indices: np.ndarray = np.floor(offset + video_frames / frames * np.arange(frames)).astype(np.int64)
    return indices.clip(max=video_frames - 1)  # the last one may be rounded up to the end
