"""Planes to RGB: the standard's formula, and the whole numbers of FFmpeg's converter on real videos."""

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rspnet_cli.clips.draws import ClipDraw
from rspnet_cli.clips.yuv import rgb_of_planes
from rspnet_cli.videos.h264_store import H264Video
from rspnet_cli.videos.planes import Box, Cut
from rspnet_cli.videos.store import open_store
from tests.crops import Crop, pack, read_cuts, read_planes
from tests.encode import Codec, as_video_frame, encode

CPU = torch.device("cpu")
WIDTH, HEIGHT, NUM_FRAMES = 86, 48, 20
BOXES = [Box(0, 0, HEIGHT, WIDTH), Box(1, 1, 17, 33), Box(2, 3, 16, 31), Box(47, 85, 1, 1), Box(9, 0, 39, 86)]
# swscale computes in 16 bits on x86, in another order elsewhere.
ALLOWED = 0 if platform.machine() in ("x86_64", "AMD64") else 1


def standard(luma: int, u: int, v: int, *, full_range: bool) -> list[float]:
    """BT.601: R, G, B from one pixel's luma and chroma, by solving the equations that define them."""
    y = luma / 255 if full_range else (luma - 16) / 219
    blue_minus_y, red_minus_y = ((sample - 128) / (255 if full_range else 224) for sample in (u, v))
    blue, red = y + 2 * (1 - 0.114) * blue_minus_y, y + 2 * (1 - 0.299) * red_minus_y
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return [min(max(255 * value, 0.0), 255.0) for value in (red, green, blue)]


@pytest.mark.parametrize("full_range", [False, True])
def test_a_pixel_is_that_of_the_standard_rounded_down(full_range: bool) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (600, 3), np.uint8)
    samples[:8] = [[y, u, v] for y in (0, 255) for u in (0, 255) for v in (0, 255)]
    luma = np.repeat(samples[:, :1], 4, 1).reshape(1, -1, 1, 2, 2)  # 600 "frames" of 2 x 2 pixels
    chroma = samples[:, 1:].reshape(1, -1, 1, 2, 1)
    rgb = rgb_of_planes(torch.from_numpy(luma), torch.from_numpy(chroma), [full_range])  # (1, 3, 600, 2, 2)
    assert rgb.shape == (1, 3, 600, 2, 2)
    assert torch.equal(rgb, rgb.round())
    for pixel, sample in zip(rgb[0].permute(1, 2, 3, 0).numpy(), samples.tolist(), strict=True):
        assert (pixel == pixel[0, 0]).all()
        # Every product is rounded down: two for red and blue, three for green.
        below = np.array(standard(*sample, full_range=full_range)) - pixel[0, 0]
        assert (below > -0.05).all()
        assert (below < (2.05, 3.05, 2.05)).all()


def test_the_range_is_each_clips_own() -> None:
    luma, chroma = torch.full((2, 1, 1, 2, 2), 16, dtype=torch.uint8), torch.full((2, 1, 1, 2, 1), 128, dtype=torch.uint8)
    assert rgb_of_planes(luma, chroma, [False, True]).amax((1, 2, 3, 4)).tolist() == [0, 16]


def smooth(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 100 * np.sin(x / rng.uniform(8, 20) + y / rng.uniform(8, 20) + channel) for channel in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def noisy(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def saturated(rng: np.random.Generator) -> np.ndarray:
    tiles = rng.integers(0, 2, (6, 11, 3), np.uint8) * np.uint8(255)
    return np.kron(tiles, np.ones((8, 8, 1), np.uint8))[:HEIGHT, :WIDTH]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("content", [smooth, noisy, saturated])
def test_planes_of_a_real_video_become_the_rgb_that_ffmpeg_makes_of_them(
    tmp_path: Path, content: Callable[[np.random.Generator], np.ndarray], full_range: bool
) -> None:
    rng = np.random.default_rng(1)
    kind = "yuvj420p" if full_range else "yuv420p"
    codec = Codec("libx264", ".mp4", kind, {"crf": "10", "x264-params": "keyint=8:bframes=0:threads=1:mbtree=0"})
    pictures = [as_video_frame(content(rng), kind) for _ in range(NUM_FRAMES)]
    path = encode(tmp_path / "a.mp4", pictures, codec, color={"colorspace": 6, "color_range": 2 if full_range else 1})
    cuts = [Cut(np.arange(start, start + 4), box) for start, box in enumerate(BOXES)]
    with open_store(path) as video:
        expected, planes = read_cuts(video, cuts), read_planes(video, cuts)
        assert isinstance(video, H264Video)
        assert video.full_range == full_range
    draws = [ClipDraw(tuple(cut.box), False, (), (1, 1, 1, 0), False, False) for cut in cuts]
    offsets = np.arange(4)
    crops = pack([Crop(one, offsets, draw) for one, draw in zip(planes, draws, strict=True)], [full_range] * len(BOXES))
    whole = crops.padded(CPU)  # what a GPU computes
    for number, (clip, frames, (top, left)) in enumerate(zip(crops.unpacked(), expected, crops.starts, strict=True)):
        height, width = frames.shape[1:3]
        at_once = whole[number, :, :, top : top + height, left : left + width].permute(1, 2, 3, 0)
        assert torch.equal(clip, at_once.to(torch.uint8))
        assert torch.equal(at_once, at_once.round())
        assert np.abs(clip.numpy().astype(int) - frames).max() <= ALLOWED
