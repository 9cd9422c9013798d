"""Clip arithmetic against the formulas of the paper's released code, for all lengths."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.clips.sampling import FrameRate, cover_clip, cover_clips, frames_at_rate, random_clip, uniform_clips
from rspnet_cli.config.base import RATE_TOLERANCE

VIDEO_FRAMES = st.integers(1, 900)
FRAMES = st.integers(1, 64)
STRIDES = st.integers(1, 8)


def short_clip(n: int, frames: int, stride: int) -> list[int] | None:
    """What a video too short for a clip gives, one index at a time; None for a video that is long enough."""
    if n <= frames:
        return [i % n for i in range(frames)]
    if (frames - 1) * stride + 1 > n:
        return [round(i * (n - 1) / (frames - 1)) for i in range(frames)]
    return None


@given(n=VIDEO_FRAMES, frames=FRAMES, stride=STRIDES, seed=st.integers(0, 99))
def test_every_index_of_a_clip_lies_in_the_video(n: int, frames: int, stride: int, seed: int) -> None:
    indices = random_clip(n, frames=frames, stride=stride, rng=np.random.default_rng(seed))
    assert indices.shape == (frames,)
    assert indices.dtype == np.int64
    assert 0 <= indices.min() <= indices.max() < n


@given(n=VIDEO_FRAMES, frames=FRAMES, stride=STRIDES, seed=st.integers(0, 99))
def test_a_random_clip_is_consecutive_at_its_stride_or_the_short_clip(n: int, frames: int, stride: int, seed: int) -> None:
    indices = random_clip(n, frames=frames, stride=stride, rng=np.random.default_rng(seed))
    short = short_clip(n, frames, stride)
    if short is None:
        assert indices.tolist() == [int(indices[0]) + stride * i for i in range(frames)]
    else:
        assert np.abs(indices - short).max() <= 1  # rounding of an exact half may differ by the order of the arithmetic
        assert n > frames or indices.tolist() == short


@given(n=st.integers(1, 40), frames=st.integers(1, 8), stride=st.integers(1, 3))
def test_random_clips_reach_every_place_equally_often(n: int, frames: int, stride: int) -> None:
    if short_clip(n, frames, stride) is not None:
        return
    places = n - (frames - 1) * stride
    rng = np.random.default_rng(0)
    draws = 200 * places
    starts = [int(random_clip(n, frames=frames, stride=stride, rng=rng)[0]) for _ in range(draws)]
    counts = np.bincount(starts, minlength=places)
    assert len(counts) == places
    # 6 standard deviations of a binomial count with mean 200.
    assert np.abs(counts - 200).max() < 6 * math.sqrt(200)


@given(n=VIDEO_FRAMES, frames=FRAMES, stride=STRIDES, count=st.integers(1, 20))
def test_uniform_clips_are_those_of_the_formula(n: int, frames: int, stride: int, count: int) -> None:
    clips = uniform_clips(n, frames=frames, count=count, stride=stride)
    assert clips.shape == (count, frames)
    assert clips.dtype == np.int64
    assert 0 <= clips.min() <= clips.max() < n
    short = short_clip(n, frames, stride)
    if short is not None:
        assert (clips == clips[0]).all()
        assert (clips == random_clip(n, frames=frames, stride=stride, rng=np.random.default_rng(0))).all()
        return
    last = n - ((frames - 1) * stride + 1)
    for number, clip in enumerate(clips.tolist()):
        # round() of Python, too, rounds halves to even.
        start = last // 2 if count == 1 else round(last * number / (count - 1))
        assert abs(clip[0] - start) <= (0 if count == 1 or (2 * last * number) % (count - 1) else 1)
        assert clip == [clip[0] + stride * i for i in range(frames)]
    if count > 1:
        assert (clips[0, 0], clips[-1, -1]) == (0, n - 1)


def test_starts_are_rounded_half_to_even() -> None:
    # 4 frames of 8: starts 0 to 4 in 3 clips are 0, 2, 4; in 9 clips 0, 0.5, 1, 1.5, ...
    assert uniform_clips(8, frames=4, count=9)[:, 0].tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4]
    assert uniform_clips(9, frames=4, count=1)[0].tolist() == [2, 3, 4, 5]


def test_short_videos_are_looped_or_spread() -> None:
    assert random_clip(3, frames=8, rng=np.random.default_rng(0)).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert random_clip(4, frames=4, stride=3, rng=np.random.default_rng(0)).tolist() == [0, 1, 2, 3]
    assert random_clip(6, frames=4, stride=3, rng=np.random.default_rng(0)).tolist() == [0, 2, 3, 5]
    assert uniform_clips(5, frames=6, count=2).tolist() == [[0, 1, 2, 3, 4, 0]] * 2


@given(
    n=VIDEO_FRAMES,
    fps=st.sampled_from([5.0, 10.0, 12.5, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0]),
    rate=st.sampled_from([None, 1.0, 5.0, 8.0, 12.5, 24.0, 25.0, 30.0, 100.0]),
)
def test_resampling_is_that_of_the_formula(n: int, fps: float, rate: float | None) -> None:
    indices = frames_at_rate(n, fps=fps, frame_rate=FrameRate.of(rate, RATE_TOLERANCE))
    assert indices.dtype == np.int64
    assert 0 <= indices.min() <= indices.max() < n
    assert (np.diff(indices) >= 0).all()
    if rate is None:
        assert indices.tolist() == list(range(n))
        return
    step = fps / rate
    if step == int(step):
        assert indices.tolist() == list(range(0, n, int(step)))
        assert len(indices) == math.ceil(n / step)
    else:
        count = max(math.floor(n / step), 1)
        assert indices.tolist() == [min(math.floor(i * step), n - 1) for i in range(count)]
        if step < 1 and n > 1:
            assert len(set(indices.tolist())) < len(indices)


def test_a_rate_off_by_the_rounding_of_times_is_the_whole_one() -> None:
    assert frames_at_rate(60, fps=29.999, frame_rate=FrameRate(15.0, RATE_TOLERANCE)).tolist() == list(range(0, 60, 2))
    assert len(frames_at_rate(60, fps=30.001, frame_rate=FrameRate(30.0, RATE_TOLERANCE))) == 60
    assert frames_at_rate(6000, fps=30000 / 1001, frame_rate=FrameRate(30.0, RATE_TOLERANCE)).tolist() != list(range(6000))


def test_without_tolerance_a_rate_that_is_nearly_whole_is_taken_as_it_is() -> None:
    step = 29.999 / 15.0  # 1.99993: the frame before, from the second one on
    indices = frames_at_rate(60, fps=29.999, frame_rate=FrameRate(15.0, 0.0)).tolist()
    assert indices == [math.floor(i * step) for i in range(30)] == [0, *range(1, 58, 2)]
    assert frames_at_rate(60, fps=30.0, frame_rate=FrameRate(15.0, 0.0)).tolist() == list(range(0, 60, 2))


@pytest.mark.parametrize("rate", [None, 0.0])
def test_no_frame_rate_leaves_all_frames(rate: float | None) -> None:
    assert frames_at_rate(7, fps=25.0, frame_rate=FrameRate.of(rate, 0.0)).tolist() == list(range(7))


def test_a_video_without_frames_is_a_mistake_of_the_caller() -> None:
    for clip in (random_clip, cover_clip):
        with pytest.raises(ValueError):
            clip(0, frames=4, rng=np.random.default_rng(0))


# Cover: clips that span the whole video.


def test_a_cover_clip_takes_every_nth_share_of_the_video_from_one_offset() -> None:
    assert cover_clips(32, frames=4, count=1).tolist() == [[4, 12, 20, 28]]  # step 8, offset 4
    assert cover_clips(32, frames=4, count=2).tolist() == [[0, 8, 16, 24], [4, 12, 20, 28]]  # offsets 0 and 4: 8 itself is left out
    assert cover_clips(10, frames=4, count=2).tolist() == [[0, 2, 5, 7], [1, 3, 6, 8]]  # step 2.5, offsets 0 and 1.25
    assert cover_clips(2, frames=5, count=1).tolist() == [[0, 0, 1, 1, 1]]  # 0.2, 0.6, 1.0, 1.4, 1.8


@given(n=VIDEO_FRAMES, frames=FRAMES, count=st.integers(1, 20))
def test_cover_clips_are_those_of_the_formula(n: int, frames: int, count: int) -> None:
    clips = cover_clips(n, frames=frames, count=count)
    assert clips.shape == (count, frames)
    assert clips.dtype == np.int64
    assert 0 <= clips.min() <= clips.max() < n
    step = Fraction(n, frames)
    for number, clip in enumerate(clips.tolist()):
        offset = step / 2 if count == 1 else step * number / count
        exact = [offset + step * place for place in range(frames)]
        # The float sum may fall on either side of a whole number.
        for value, index in zip(exact, clip, strict=True):
            assert index == math.floor(value) or (value.denominator == 1 and index == value - 1)


@given(n=VIDEO_FRAMES, frames=FRAMES, seed=st.integers(0, 99))
def test_a_random_cover_clip_has_one_offset_below_the_step(n: int, frames: int, seed: int) -> None:
    clip = cover_clip(n, frames=frames, rng=np.random.default_rng(seed))
    assert clip.shape == (frames,)
    assert clip.dtype == np.int64
    offset = np.random.default_rng(seed).random() * n / frames
    expected = [min(math.floor(offset + n / frames * place), n - 1) for place in range(frames)]
    assert clip.tolist() == expected
    assert clip[0] < max(n / frames, 1)


def test_offsets_of_cover_clips_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    first = [int(cover_clip(40, frames=4, rng=rng)[0]) for _ in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 200).max() < 6 * math.sqrt(200)
