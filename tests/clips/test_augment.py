"""Augmentation against a reference of loops over clips, frames and pixels; the whole batch at once equals clip by clip."""

import colorsys
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from rspnet_cli.clips.augment import Augmentation, pixels_of, resize_batch
from rspnet_cli.clips.colour import colour_batch
from rspnet_cli.clips.crops import Crops
from rspnet_cli.clips.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ClipDraw, clip_rng, draw_clip
from rspnet_cli.config import AugmentConfig
from rspnet_cli.videos.planes import Box, Planes
from tests.crops import Crop, pack

CPU = torch.device("cpu")
FRAMES, SIZE = 2, 5
# float32 arithmetic on values up to 1 in a few dozen operations, divided by deviations of 0.22.
TOLERANCE = 2e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = (0.2989, 0.587, 0.114)

Pixel = list[float]
Picture = list[list[Pixel]]  # rows of pixels, RGB in [0, 1]


# The reference, written from method.md: one clip, one frame, one pixel at a time.


def resize(frame: np.ndarray, size: int) -> Picture:
    """Bilinear, align_corners=False, no antialias: each output pixel's centre looked up between its four neighbours."""
    height, width = frame.shape[:2]

    def neighbours(i: int, length: int) -> tuple[int, int, float]:
        position = min(max((i + 0.5) * length / size - 0.5, 0.0), length - 1.0)
        low = math.floor(position)
        return low, min(low + 1, length - 1), position - low

    rows = []
    for y in range(size):
        top, bottom, down = neighbours(y, height)
        row = []
        for x in range(size):
            left, right, across = neighbours(x, width)
            pixel = []
            for c in range(3):
                upper = (1 - across) * float(frame[top, left, c]) + across * float(frame[top, right, c])
                lower = (1 - across) * float(frame[bottom, left, c]) + across * float(frame[bottom, right, c])
                pixel.append(((1 - down) * upper + down * lower) / 255)
            row.append(pixel)
        rows.append(row)
    return rows


def resize_averaging(frame: np.ndarray, size: int) -> Picture:
    """Antialiased: a triangle of weights over the source pixels, at least one output pixel and one of theirs wide to either side."""

    def weights(i: int, length: int) -> list[float]:
        centre, reach = (i + 0.5) * length / size, max(length / size, 1.0)
        raw = [max(0.0, 1 - abs(j + 0.5 - centre) / reach) for j in range(length)]
        return [weight / sum(raw) for weight in raw]

    height, width = frame.shape[:2]
    rows, columns = ([weights(i, length) for i in range(size)] for length in (height, width))
    return [
        [
            [sum(row[y] * column[x] * float(frame[y, x, c]) for y in range(height) for x in range(width)) / 255 for c in range(3)]
            for column in columns
        ]
        for row in rows
    ]


def grey_of(pixel: Pixel) -> float:
    return sum(weight * value for weight, value in zip(GREY, pixel, strict=True))


def clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def each_pixel(clip: list[Picture], change) -> list[Picture]:  # type: ignore[no-untyped-def]
    return [[[change(pixel) for pixel in row] for row in picture] for picture in clip]


def colour_op(clip: list[Picture], op: int, factor: float) -> list[Picture]:
    if op == BRIGHTNESS:
        return each_pixel(clip, lambda pixel: [clamp(value * factor) for value in pixel])
    if op == CONTRAST:
        greys = [grey_of(pixel) for picture in clip for row in picture for pixel in row]
        pivot = sum(greys) / len(greys)
        return each_pixel(clip, lambda pixel: [clamp(pivot + factor * (value - pivot)) for value in pixel])
    if op == SATURATION:
        return each_pixel(clip, lambda pixel: [clamp(grey_of(pixel) + factor * (value - grey_of(pixel))) for value in pixel])
    assert op == HUE

    def turn(pixel: Pixel) -> Pixel:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return [clamp(channel) for channel in colorsys.hsv_to_rgb((hue + factor) % 1.0, saturation, value)]

    return each_pixel(clip, turn)


def blur(picture: Picture) -> Picture:
    weights = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in (-1, 0, 1)]
    total = sum(weights) ** 2
    size = len(picture)
    result = []
    for y in range(size):
        row = []
        for x in range(size):
            sums = [0.0, 0.0, 0.0]
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < size and 0 <= x + dx < size:  # zeros beyond the edge
                        for c in range(3):
                            sums[c] += weights[dy + 1] * weights[dx + 1] / total * picture[y + dy][x + dx][c]
            row.append(sums)
        result.append(row)
    return result


def reference(frames: np.ndarray, draw: ClipDraw, order: str, resized: Callable[[np.ndarray, int], Picture] = resize) -> np.ndarray:
    """One crop (L, h, w, 3) uint8 -> (3, L, SIZE, SIZE)."""
    clip = [resized(frame, SIZE) for frame in frames]

    def grayscale() -> None:
        nonlocal clip
        if draw.grayscale:
            clip = each_pixel(clip, lambda pixel: [grey_of(pixel)] * 3)

    def jitter() -> None:
        nonlocal clip
        for op in draw.ops:
            clip = colour_op(clip, op, draw.factors[op])

    if order == "reference":
        grayscale()
        jitter()
    else:
        jitter()
        grayscale()
        if draw.blur:
            clip = [blur(picture) for picture in clip]
    if draw.flip:
        clip = [[row[::-1] for row in picture] for picture in clip]
    values = np.array(clip)  # (L, S, S, 3)
    return ((values - MEAN) / STD).transpose(3, 0, 1, 2)


def batch_of(crops: Sequence[np.ndarray], draws: Sequence[ClipDraw]) -> Crops:
    return pack([Crop(crop, np.arange(len(crop)), draw) for crop, draw in zip(crops, draws, strict=True)])


def augmented(crops: Sequence[np.ndarray], draws: Sequence[ClipDraw], order: str, *, antialias: bool = False) -> torch.Tensor:
    return Augmentation(SIZE, antialias, order, CPU)(batch_of(crops, draws))


def example(config: AugmentConfig, count: int = 16) -> tuple[list[np.ndarray], list[ClipDraw]]:
    """Crops of noise, smooth colour and pure greys (where hue is not defined), of sizes below and above the output's."""
    rng = np.random.default_rng(0)
    draws = [draw_clip(int(rng.integers(3, 14)), int(rng.integers(3, 14)), config, clip_rng(0, 0, video, 0)) for video in range(count)]
    crops = []
    for number, draw in enumerate(draws):
        shape = (FRAMES, draw.box[2], draw.box[3], 3)
        crop = rng.integers(0, 256, shape, np.uint8)
        if number % 4 == 1:
            crop[...] = crop[..., :1]  # grey
        if number % 4 == 2:
            crop[...] = crop[:1, :1, :1]  # one colour, the same in all frames
        if number % 4 == 3:
            crop = np.where(crop > 127, np.uint8(255), np.uint8(0))  # saturated: two channels equal, or all
        crops.append(crop)
    return crops, draws


def batch_of_planes(order: str, count: int = 24, *, frames: int = FRAMES, size: tuple[int, int] = (18, 22)) -> Crops:
    """Planes of noise in both ranges; crops begin on even and on odd lines and pixels."""
    rng = np.random.default_rng(3)
    crops = []
    for video in range(count):
        draw = draw_clip(*size, ORDERS[order], clip_rng(0, 0, video, 0))
        planes = Planes.empty(frames, Box(*draw.box).even)
        for part in (planes.luma, planes.chroma):
            part[...] = rng.integers(0, 256, part.shape)
        crops.append(Crop(planes, np.arange(frames), draw))
    assert len({crop.draw.box[0] % 2 for crop in crops} | {2 + crop.draw.box[1] % 2 for crop in crops}) == 4
    return pack(crops, [video % 3 == 0 for video in range(count)])


ORDERS = {
    "reference": AugmentConfig(grayscale=0.3, jitter_p=0.7),
    "aug_plus": AugmentConfig(order="aug_plus", grayscale=0.3, jitter=(0.4, 0.4, 0.4, 0.3)),
}


@pytest.mark.parametrize("chunk", [1, FRAMES])
@pytest.mark.parametrize("order", ORDERS)
def test_every_clip_is_that_of_the_plain_loops(order: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Frame by frame, too, as larger pictures come: the contrast jitter's mean grey stays that of the whole clip.
    monkeypatch.setattr("rspnet_cli.clips.augment.frames_per_chunk", lambda size: chunk)
    crops, draws = example(ORDERS[order])
    assert {draw.flip for draw in draws} == {draw.grayscale for draw in draws} == {bool(draw.ops) for draw in draws} == {True, False}
    clips = augmented(crops, draws, order)
    assert clips.shape == (len(crops), 3, FRAMES, SIZE, SIZE)
    assert clips.dtype == torch.float32
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    for clip, crop, draw in zip(clips.numpy(), crops, draws, strict=True):
        np.testing.assert_allclose(clip, reference(crop, draw, order), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("op", [BRIGHTNESS, CONTRAST, SATURATION, HUE])
def test_every_colour_operation_alone_is_that_of_the_plain_loops(order: str, op: int) -> None:
    crops, draws = example(ORDERS[order], 8)
    alone = [ClipDraw(draw.box, False, (op,), draw.factors, False, False) for draw in draws]
    clips = augmented(crops, alone, order)
    for clip, crop, draw in zip(clips.numpy(), crops, alone, strict=True):
        np.testing.assert_allclose(clip, reference(crop, draw, order), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_the_whole_batch_at_once_gives_what_clip_by_clip_gives(order: str, antialias: bool) -> None:
    crops, draws = example(ORDERS[order], 40)
    batch = batch_of(crops, draws)
    whole = torch.empty(len(draws), 3, FRAMES, SIZE, SIZE)
    colour_batch(resize_batch(batch, SIZE, antialias, CPU), draws, order, out=whole)  # what a GPU computes
    torch.testing.assert_close(whole, augmented(crops, draws, order, antialias=antialias), rtol=0, atol=TOLERANCE)


def test_an_antialiased_clip_is_that_of_the_plain_loops() -> None:
    crops, draws = example(ORDERS["reference"], 8)
    clips = augmented(crops, draws, "reference", antialias=True)
    for clip, crop, draw in zip(clips.numpy(), crops, draws, strict=True):
        np.testing.assert_allclose(clip, reference(crop, draw, "reference", resize_averaging), rtol=0, atol=TOLERANCE)


def test_a_crop_is_resized_as_if_nothing_lay_around_it() -> None:
    # Beside a larger clip the smaller one is padded; nothing of the padding, or of the neighbour, may get in.
    small, large = np.full((FRAMES, 3, 4, 3), 255, np.uint8), np.zeros((FRAMES, 11, 12, 3), np.uint8)
    draws = [ClipDraw((0, 0, *crop.shape[1:3]), False, (), (1.0, 1.0, 1.0, 0.0), False, False) for crop in (small, large)]
    for antialias in (False, True):
        resized = resize_batch(batch_of([small, large], draws), SIZE, antialias, CPU)
        assert resized[0].min() > 1 - 1e-6
        assert resized[1].max() == 0


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_of_planes_gives_what_its_rgb_gives_at_once_and_clip_by_clip(order: str, antialias: bool) -> None:
    batch = batch_of_planes(order)
    as_rgb = batch_of([clip.numpy() for clip in batch.unpacked()], batch.draws)
    expected = Augmentation(SIZE, antialias, order, CPU)(as_rgb)
    assert torch.equal(Augmentation(SIZE, antialias, order, CPU)(batch), expected)
    whole = torch.empty_like(expected)
    colour_batch(resize_batch(batch, SIZE, antialias, CPU), batch.draws, order, out=whole)  # what a GPU computes
    torch.testing.assert_close(whole, expected, rtol=0, atol=TOLERANCE)


def test_all_frames_of_a_clip_are_changed_alike_and_clips_are_not() -> None:
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (1, 9, 9, 3), np.uint8)
    draws = [
        ClipDraw((0, 0, 9, 9), *(lambda d: (d.grayscale, d.ops, d.factors, d.blur, d.flip))(draw))
        for draw in [draw_clip(9, 9, ORDERS["aug_plus"], clip_rng(0, 0, video, 0)) for video in range(8)]
    ]
    clips = augmented([np.repeat(frame, FRAMES, 0)] * 8, draws, "aug_plus")
    assert torch.equal(clips[:, :, 0], clips[:, :, 1])
    assert len({clip.numpy().tobytes() for clip in clips}) > 4


def test_a_clip_does_not_depend_on_the_batch_it_is_in() -> None:
    crops, draws = example(ORDERS["reference"], 6)
    together = augmented(crops, draws, "reference")
    for index in range(6):
        alone = augmented(crops[index : index + 1], draws[index : index + 1], "reference")
        assert torch.equal(alone[0], together[index])


def test_without_any_change_a_clip_is_its_pixels_normalised() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)
    draw = ClipDraw((0, 0, SIZE, SIZE), False, (), (1.0, 1.0, 1.0, 0.0), False, False)
    before = crop.copy()
    (clip,) = augmented([crop], [draw], "reference").numpy()
    np.testing.assert_allclose(clip, ((crop / 255 - MEAN) / STD).transpose(3, 0, 1, 2), rtol=0, atol=TOLERANCE)
    assert (crop == before).all()


def test_a_batch_of_which_no_clip_is_changed_is_only_normalised() -> None:
    clips = torch.rand(2, 3, FRAMES, SIZE, SIZE)
    expected = (clips - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)
    out = torch.empty_like(clips)
    colour_batch(clips, [ClipDraw((0, 0, SIZE, SIZE), False, (), (1.0, 1.0, 1.0, 0.0), False, False)] * 2, "reference", out=out)
    torch.testing.assert_close(out, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_a_gpu_gives_what_a_cpu_gives(order: str, planes: bool, precision: str, cuda: torch.device) -> None:
    crops = batch_of_planes(order) if planes else batch_of(*example(ORDERS[order], 40))
    torch.set_float32_matmul_precision(precision)
    try:
        clips = Augmentation(SIZE, False, order, cuda)(crops).cpu()
    finally:
        torch.set_float32_matmul_precision("highest")
    # TF32, which "high" allows, would be 1/1000 away: many times as much.
    torch.testing.assert_close(clips, Augmentation(SIZE, False, order, CPU)(crops), rtol=0, atol=5 * TOLERANCE)


def test_clips_of_a_whole_batch_may_be_rounded_to_bfloat16_where_they_are_written() -> None:
    crops, draws = example(ORDERS["reference"], 8)
    resized = resize_batch(batch_of(crops, draws), SIZE, False, CPU)
    whole, rounded = torch.empty_like(resized), torch.empty_like(resized, dtype=torch.bfloat16)
    for out in (whole, rounded):
        colour_batch(resized.clone(), draws, "reference", out=out)
    assert torch.equal(rounded, whole.bfloat16())


def test_pixels_are_what_was_normalised_rounded_and_within_their_range() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3 * FRAMES * 2).view(2, FRAMES, 16, 16, 3)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    normalised = ((pixels / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    assert torch.equal(pixels_of(normalised), pixels)
    assert torch.equal(pixels_of(normalised[0]), pixels[0])
    assert pixels_of(torch.full((3, 1, 1, 1), 9.0)).tolist() == [[[[255, 255, 255]]]]
    assert pixels_of(torch.full((3, 1, 1, 1), -9.0)).tolist() == [[[[0, 0, 0]]]]
