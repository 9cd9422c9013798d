"""Videos for the comparisons that cost a codec what filmed ones do: texture at every scale, a moving camera, moving things, grain.

python -m tests.benchmarks.natural DIR [--videos 40] [--frames 180]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from tests.encode import Codec, encode

# As data sets are handed out: UCF101's and Kinetics' clips in their usual small copies.
SIZE = (340, 256)
# x264's defaults, spelled out: 400 to 450 kbit/s.
SOURCE = Codec("libx264", ".mp4", options={"preset": "medium", "crf": "23", "x264-params": "keyint=250:threads=1:mbtree=0"})
_GRAIN = 2.0  # standard deviation, in levels of 255
_FINE = 2  # the scene is drawn at twice the size: things move by half pixels


def natural_video(path: Path, num_frames: int, *, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """An H.264 video of 25 frames a second with a key frame every 250."""
    pictures = (
        av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p", threads=1) for frame in scene(num_frames, size, seed)
    )
    return encode(path, pictures, SOURCE)


def scene(num_frames: int, size: tuple[int, int], seed: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
    """(H, W, 3) uint8: a camera that sways over a landscape of noise, three things that cross it."""
    rng = np.random.default_rng(seed)
    width, height = size[0] * _FINE, size[1] * _FINE
    sway = np.array([width // 3, height // 3])
    world = _texture(rng, height + sway[1], width + sway[0])  # (H', W', 3)
    things = [_Thing(rng, width, height) for _ in range(3)]
    grain = [rng.normal(0, _GRAIN, (size[1], size[0], 1)).astype(np.float32) for _ in range(16)]
    periods, phases = rng.uniform(120, 400, 2), rng.uniform(0, 2 * np.pi, 2)
    for index in range(num_frames):
        x, y = (sway * (0.5 + 0.5 * np.sin(2 * np.pi * index / periods + phases))).astype(int)
        picture = world[y : y + height, x : x + width].copy()
        for thing in things:
            thing.paint(picture, index)
        small = picture.reshape(size[1], _FINE, size[0], _FINE, 3).mean((1, 3))
        yield np.clip(small + np.roll(grain[index % 16], 5 * index, 1), 0, 255).astype(np.uint8)


class _Thing:
    """A round piece of another texture that goes to and fro."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        side = int(rng.uniform(0.25, 0.45) * height)
        self.texture = _texture(rng, side, side)
        rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        self.mask = rows**2 + columns**2 < 1
        self.room = np.array([width - side, height - side])
        self.period, self.phase = rng.uniform(30, 110, 2), rng.uniform(0, 2 * np.pi, 2)

    def paint(self, picture: npt.NDArray[np.float32], index: int) -> None:
        """Draw it where it is in a frame."""
        x, y = (self.room * (0.5 + 0.5 * np.sin(2 * np.pi * index / self.period + self.phase))).astype(int)
        side = len(self.mask)
        picture[y : y + side, x : x + side][self.mask] = self.texture[self.mask]


def _texture(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """(height, width, 3) float32 of 0 to 255 with the spectrum of photographs: the amplitude falls as one over the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.normal(size=(4, height, width))) / frequency**1.25
    grey, *tints = np.fft.irfft2(noise, s=(height, width))
    planes = np.stack([grey + 0.3 * tint for tint in tints], -1)
    levels: npt.NDArray[np.float32] = (127 + 50 * planes / planes.std()).clip(0, 255).astype(np.float32)
    return levels


def main() -> None:
    """Write some into a folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.natural", description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=180, help="of each; a clip of UCF101 has 186 on average")
    arguments = parser.parse_args()
    for number in range(arguments.videos):
        natural_video(arguments.folder / f"v{number:03d}.mp4", arguments.frames, seed=number)


if __name__ == "__main__":
    main()
