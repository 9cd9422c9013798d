"""Random draws: what they depend on, and how they are distributed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.clips.draws import BRIGHTNESS, HUE, ClipDraw, clip_rng, draw_clip, draw_step, epoch_order
from rspnet_cli.config import AugmentConfig


@given(
    st.integers(1, 64).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, 4))),
    st.lists(st.integers(2, 8), min_size=1, max_size=3),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 99),
)
def test_of_every_sub_batch_half_rounded_down_plays_at_speed_1(
    sizes: tuple[int, int], speeds: list[int], seed: int, epoch: int, step: int
) -> None:
    size, parts = sizes
    draw = draw_step(size * parts, speeds=tuple(speeds), sub_batches=parts, seed=seed, epoch=epoch, step=step)
    assert draw.fast.shape == (size * parts,)
    assert draw.fast.dtype == bool
    for part in np.split(draw.fast, parts):
        assert (~part).sum() == size // 2
    assert draw.speed in speeds
    assert draw.shuffles.shape == (2, size * parts)
    assert (np.sort(draw.shuffles, axis=1) == np.arange(size * parts)).all()


def test_a_step_is_drawn_from_seed_epoch_and_step_alone() -> None:
    def key(**change: int) -> tuple[object, ...]:
        draw = draw_step(16, speeds=(2, 4), sub_batches=2, **({"seed": 1, "epoch": 2, "step": 3} | change))
        return (draw.fast.tobytes(), draw.speed, draw.shuffles.tobytes())

    assert key() == key()
    assert len({key(), key(seed=2), key(epoch=3), key(step=4)}) == 4


def test_speeds_and_halves_are_drawn_evenly() -> None:
    draws = [draw_step(6, speeds=(1, 2, 4), seed=0, epoch=epoch, step=step) for epoch in range(20) for step in range(60)]
    for speed in (1, 2, 4):  # 400 of each expected
        assert abs(sum(draw.speed == speed for draw in draws) - 400) < 6 * math.sqrt(400 * 2 / 3)
    share = np.mean([draw.fast for draw in draws], axis=0)
    assert np.abs(share - 0.5).max() < 6 * 0.5 / math.sqrt(len(draws))
    assert any((draw.shuffles[0] != draw.shuffles[1]).any() for draw in draws)


@given(st.integers(1, 200), st.integers(0, 9), st.integers(0, 9))
def test_an_epochs_order_is_a_permutation_of_its_own(num_videos: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_videos, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_videos))
    assert (order == epoch_order(num_videos, seed=seed, epoch=epoch)).all()
    if num_videos > 20:
        assert (order != epoch_order(num_videos, seed=seed, epoch=epoch + 1)).any()
        assert (order != epoch_order(num_videos, seed=seed + 1, epoch=epoch)).any()


def test_a_clips_generator_depends_on_seed_epoch_video_and_clip_and_on_nothing_else() -> None:
    values = {
        tuple(clip_rng(seed, epoch, video, clip).random(4))
        for seed in range(3)
        for epoch in range(3)
        for video in range(3)
        for clip in range(2)
    }
    assert len(values) == 54
    np.random.default_rng().random()
    assert (clip_rng(1, 2, 3, 1).random(4) == clip_rng(1, 2, 3, 1).random(4)).all()


@given(
    st.integers(2, 200),
    st.integers(2, 200),
    st.integers(0, 999),
    st.sampled_from([(0.4, 1.0), (0.6, 1.0), (0.05, 0.1), (1.0, 1.0)]),
    st.sampled_from([(3 / 4, 4 / 3), (1.0, 1.0), (3.0, 4.0)]),
)
def test_a_crop_lies_in_the_frame_and_has_an_allowed_area_and_shape(
    height: int, width: int, seed: int, area: tuple[float, float], ratio: tuple[float, float]
) -> None:
    config = AugmentConfig(crop_area=area, crop_ratio=ratio)
    top, left, h, w = draw_clip(height, width, config, np.random.default_rng(seed)).box
    assert min(top, left) >= 0
    assert top + h <= height
    assert left + w <= width
    assert h > 0
    assert w > 0
    # Sides are rounded to whole pixels, so area and shape are met up to half a pixel on each side.
    inside = (h - 0.5) * (w - 0.5) <= area[1] * height * width and (h + 0.5) * (w + 0.5) >= area[0] * height * width
    shaped = (w - 0.5) / (h + 0.5) <= ratio[1] and (w + 0.5) / (h - 0.5) >= ratio[0]
    is_fallback = (top, left) == ((height - h) // 2, (width - w) // 2) and (h == height or w == width)
    assert shaped or min(height, width) < 8
    assert inside or is_fallback


@pytest.mark.parametrize(
    ("size", "box"),
    [((20, 100), (0, 36, 20, 27)), ((100, 20), (36, 0, 27, 20)), ((64, 80), (0, 0, 64, 80))],
)
def test_when_no_try_fits_the_largest_allowed_centre_box_is_taken(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    # Of a frame five times as wide as high no box of an allowed shape has the whole area.
    config = AugmentConfig(crop_area=(1.0, 1.0), crop_ratio=(3 / 4, 4 / 3))

    class Never:
        """A generator whose tries never fit: the largest shape for tall frames, the smallest for wide ones."""

        def uniform(self, low: float, high: float, count: int | None = None) -> float | np.ndarray:
            if count is not None:
                return np.zeros(count)
            return high * 1.001 if low == high else (low if size[0] <= size[1] else high)

        def random(self, count: int) -> np.ndarray:
            return np.ones(count) * 0.5

        def permutation(self, count: int) -> np.ndarray:
            return np.arange(count)

    assert draw_clip(*size, config, Never()).box == box  # type: ignore[arg-type]


def many(config: AugmentConfig, count: int = 4000) -> list[ClipDraw]:
    return [draw_clip(32, 40, config, clip_rng(0, 0, video, 0)) for video in range(count)]


def test_probabilities_and_ranges_are_those_of_the_settings() -> None:
    config = AugmentConfig(order="aug_plus", jitter=(0.4, 0.3, 0.2, 0.1), jitter_p=0.8, grayscale=0.2, blur_p=0.5, flip=0.25)
    draws = many(config)

    def near(share: float, expected: float) -> bool:
        return abs(share - expected) < 6 * math.sqrt(expected * (1 - expected) / len(draws))

    assert near(np.mean([bool(draw.ops) for draw in draws]), 0.8)
    assert near(np.mean([draw.grayscale for draw in draws]), 0.2)
    assert near(np.mean([draw.blur for draw in draws]), 0.5)
    assert near(np.mean([draw.flip for draw in draws]), 0.25)
    factors = np.array([draw.factors for draw in draws])
    for op, (strength, centre) in enumerate(zip((0.4, 0.3, 0.2, 0.1), (1, 1, 1, 0), strict=True)):
        values = factors[:, op] - centre
        assert np.abs(values).max() <= strength
        assert np.abs(values).max() > 0.98 * strength
        assert abs(values.mean()) < 6 * strength / math.sqrt(3 * len(draws))  # of a uniform draw
    orders = [draw.ops for draw in draws if draw.ops]
    assert {len(order) for order in orders} == {4}
    assert len(set(orders)) == 24
    # Draws do not hang together: of the flipped as many are grey as of the others.
    flipped = [draw.grayscale for draw in draws if draw.flip]
    assert abs(np.mean(flipped) - 0.2) < 6 * math.sqrt(0.16 / len(flipped))


def test_an_operation_of_strength_0_is_left_out_and_certain_things_always_happen() -> None:
    draws = many(AugmentConfig(jitter=(0.2, 0.2, 0.2, 0.0), grayscale=0.0, flip=1.0), 200)
    assert all(sorted(draw.ops) == [BRIGHTNESS, 1, 2] and HUE not in draw.ops for draw in draws)
    assert not any(draw.grayscale or draw.blur for draw in draws)
    assert all(draw.flip for draw in draws)
    assert not any(draw.ops for draw in many(AugmentConfig(jitter_p=0.0), 50))


def test_one_setting_changes_nothing_but_its_own_effect() -> None:
    before = many(AugmentConfig(), 50)
    for one, other in zip(before, many(AugmentConfig(grayscale=1.0), 50), strict=True):
        assert (one.box, one.ops, one.factors, one.flip) == (other.box, other.ops, other.factors, other.flip)
    for one, other in zip(before, many(AugmentConfig(jitter=(0.1, 0.4, 0.4, 0.4)), 50), strict=True):
        assert (one.box, one.ops, one.factors[1:], one.flip) == (other.box, other.ops, other.factors[1:], other.flip)
    for one, other in zip(before, many(AugmentConfig(crop_area=(0.1, 0.2)), 50), strict=True):
        assert (one.ops, one.factors, one.flip, one.grayscale) == (other.ops, other.factors, other.flip, other.grayscale)
