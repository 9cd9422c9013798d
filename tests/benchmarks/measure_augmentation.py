"""Augmentation of a batch: ours against the loop over clips that one writes first, and against kornia.

Work: clips of 40 frames, random crops of 128 x 170 pixels resized to 112 x 112, the published grayscale, jitter, flip and normalisation.
The plain loop takes our draws, and must give our clips before anything is timed. kornia draws its own, of the same distributions, and
cuts its crops out of whole frames itself. On a GPU, where both find their bytes, ours also makes RGB of YUV planes, and the plain loop gets
RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.clips.crops import Crops
from rspnet_cli.clips.draws import BRIGHTNESS, CONTRAST, SATURATION, ClipDraw, clip_rng, draw_clip
from rspnet_cli.config import MEAN, STD, AugmentConfig
from rspnet_cli.stages.bench.clock import device_name
from rspnet_cli.videos.planes import Box, Planes
from tests.benchmarks.comparison import Row, cpu_seconds, peer, rates
from tests.crops import Crop, pack

FRAMES, HEIGHT, WIDTH, SIZE = 40, 128, 170, 112
BATCHES, BATCH = 4, 4  # on a CPU: the batch of the measured training step, several for the variety of draws
GPU_BATCH = 64
CONFIG = AugmentConfig()


def measure() -> list[Row]:
    """Rows for one CPU thread, and for a GPU where there is one."""
    rows = _on_cpu()
    if torch.cuda.is_available():
        rows += on_gpu(torch.device("cuda"))
    else:
        print("augmentation: no CUDA device here, so the batch-wide path is not measured")
    return rows


def _on_cpu() -> list[Row]:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    batches = [_crops(BATCH, first=BATCH * number) for number in range(BATCHES)]
    augmentation = Augmentation(SIZE, False, CONFIG.order, cpu)
    _check_equal(augmentation(batches[0]), _plain_batch(_arrays(batches[0], cpu), batches[0].draws))
    contenders = {
        "ours": lambda: [augmentation(crops) for crops in batches],
        "plain loop per clip": lambda: [_plain_batch(_arrays(crops, cpu), crops.draws) for crops in batches],
    }
    kornia = peer("kornia")
    if kornia is None:
        print("augmentation: kornia is not installed, left out")
    else:
        contenders["kornia VideoSequential"] = _kornia(kornia)
    found = rates(contenders, amount=BATCHES * BATCH, clock=cpu_seconds)
    what = f"batches of {BATCH}, {FRAMES} frames, crops of {HEIGHT}x{WIDTH} to {SIZE}x{SIZE}, 1 thread"
    return [
        Row("augmentation", what, "clips/CPU-s", found["ours"], name, found[name], "≥ 2" if name.startswith("plain") else "")
        for name in contenders
        if name != "ours"
    ]


def on_gpu(device: torch.device, *, batch: int = GPU_BATCH, frames: int = FRAMES, repeats: int = 20) -> list[Row]:
    """Rows for the compiled whole batch, against itself an operation at a time and against the loop over clips."""
    crops = _planes(batch, frames)
    fused, by_operation = (Augmentation(SIZE, False, CONFIG.order, device, fused=compiled) for compiled in (True, False))
    arrays, there = _arrays(crops, device), fused.ready(crops)
    _check_equal(fused(there), _plain_batch(arrays, crops.draws))

    def waited(run: Callable[[], object]) -> Callable[[], None]:
        def step() -> None:
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return step

    contenders = {
        "ours": waited(lambda: fused(there)),
        "ours, an operation at a time": waited(lambda: by_operation(there)),
        "plain loop per clip": waited(lambda: _plain_batch(arrays, crops.draws)),
    }
    found = rates(contenders, amount=batch, repeats=repeats)
    what = f"batch of {batch}, {frames} frames, crops of {HEIGHT}x{WIDTH} to {SIZE}x{SIZE}, {device_name(device)}"
    return [Row("augmentation", what, "clips/s", found["ours"], name, found[name]) for name in contenders if name != "ours"]


def _crops(count: int, first: int = 0) -> Crops:
    """A batch as the loader hands it over on a CPU, of noise: every colour, and neighbours that differ."""
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (FRAMES, *draw.box[2:], 3), np.uint8) for draw in _draws(count, first)]
    return pack([Crop(clip, np.arange(FRAMES), draw) for clip, draw in zip(clips, _draws(count, first), strict=True)])


def _planes(count: int, frames: int) -> Crops:
    """The same beside a GPU."""
    rng, clips = np.random.default_rng(0), []
    for draw in _draws(count, 0):
        planes = Planes.empty(frames, Box(*draw.box).even)
        for part in (planes.luma, planes.chroma):
            part[...] = rng.integers(0, 256, part.shape, np.uint8)
        clips.append(Crop(planes, np.arange(frames), draw))
    return pack(clips, [False] * count)


def _draws(count: int, first: int) -> tuple[ClipDraw, ...]:
    return tuple(draw_clip(HEIGHT, WIDTH, CONFIG, clip_rng(0, 0, first + video, 0)) for video in range(count))


def _arrays(crops: Crops, device: torch.device) -> list[Tensor]:
    """The crops as RGB, each (T, h, w, 3) uint8 on a device."""
    return [crop.to(device) for crop in crops.unpacked()]


def _check_equal(clips: Tensor, plain: Tensor) -> None:
    """Both are the same clips, within 1/255 of the range of a colour."""
    difference = ((clips - plain) * torch.tensor(STD, device=clips.device).view(3, 1, 1, 1)).abs().max()
    assert difference <= 1 / 255, f"the plain loop's clips differ from ours by {difference:.1e}"


# The published augmentation written straight down: clip by clip, everything at once, each operation as it is defined.


@torch.inference_mode()
def _plain_batch(clips: list[Tensor], draws: Sequence[ClipDraw]) -> Tensor:
    return torch.stack([_plain_clip(clip, draw) for clip, draw in zip(clips, draws, strict=True)])


def _plain_clip(crop: Tensor, draw: ClipDraw) -> Tensor:
    """(T, h, w, 3) uint8 -> (3, T, S, S) float32."""
    # Channels last in memory is interpolate's fast path, planes are that of everything after it.
    frames = F.interpolate(crop.permute(0, 3, 1, 2).float().div_(255), (SIZE, SIZE), mode="bilinear", align_corners=False)
    clip = frames.transpose(0, 1).contiguous()  # (3, T, S, S)
    if draw.grayscale:
        clip = _luma(clip).expand_as(clip)
    for op in draw.ops:
        factor = draw.factors[op]
        if op == BRIGHTNESS:
            clip = (clip * factor).clamp_(0, 1)
        elif op == CONTRAST:
            clip = (clip * factor).add_((1 - factor) * _luma(clip).mean()).clamp_(0, 1)
        elif op == SATURATION:
            clip = (clip * factor).add_((1 - factor) * _luma(clip)).clamp_(0, 1)
        else:
            clip = _from_hsv(*_to_hsv(clip, factor))
    if draw.flip:
        clip = clip.flip(-1)
    mean, std = (torch.tensor(values, device=clip.device).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (clip - mean).div_(std)


def _luma(clip: Tensor) -> Tensor:
    red, green, blue = clip
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _to_hsv(clip: Tensor, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hue (in sixths of a turn, shifted by `shift` turns), saturation times value, and value."""
    red, green, blue = clip
    value, chroma = clip.amax(0), clip.amax(0) - clip.amin(0)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    of_green, of_blue = 2 + (blue - red) / divisor, 4 + (red - green) / divisor
    hue = torch.where(value == red, (green - blue) / divisor, torch.where(value == green, of_green, of_blue))
    return hue + 6 * shift, chroma, value


def _from_hsv(hue: Tensor, chroma: Tensor, value: Tensor) -> Tensor:
    channels = []
    for offset in (5, 3, 1):
        k = (hue + offset) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels).clamp_(0, 1)


def _kornia(kornia: ModuleType) -> Callable[[], None]:
    """The same distributions, one draw for all frames of a clip; clip by clip, which is faster here than whole batches."""
    layers = kornia.augmentation
    brightness, contrast, saturation, hue = CONFIG.jitter
    pipeline = layers.VideoSequential(
        layers.RandomResizedCrop((SIZE, SIZE), scale=CONFIG.crop_area, ratio=CONFIG.crop_ratio, cropping_mode="slice"),
        layers.RandomGrayscale(p=CONFIG.grayscale),
        layers.ColorJitter(brightness, contrast, saturation, hue, p=CONFIG.jitter_p),
        layers.RandomHorizontalFlip(p=CONFIG.flip),
        layers.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_format="BTCHW",
        same_on_frame=True,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (BATCHES, BATCH, FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    batches = torch.from_numpy(pixels).permute(0, 1, 2, 5, 3, 4)  # (batches, B, T, 3, H, W) uint8

    @torch.inference_mode()
    def run() -> None:
        for frames in batches:
            torch.cat([pipeline(clip[None].float().div_(255)) for clip in frames])

    return run
