"""Colour, flip and normalisation of resized clips: one clip in chunks that stay in a CPU's cache, or a batch, operation by operation.

Both go through the same operations, on clips (n, C, F, S, S) float32 in [0, 1]; C is 1 instead of 3 where a clip is known to be grey.
Each operation is clamped to [0, 1] on its own, as published, which is why neighbouring ones are not merged into one affine map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rspnet_cli.clips.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ClipDraw
from rspnet_cli.config import MEAN, STD
from rspnet_cli.devices import to_device

# Steps beside the colour operations of draws.py.
GRAYSCALE, _BLUR, _FLIP = range(4, 7)

GREY = (0.2989, 0.587, 0.114)

# Normalisation as one multiplication and addition.
SCALE = tuple(1 / std for std in STD)
SHIFT = tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True))


def frames_per_chunk(size: int) -> int:
    """How many frames of size x size pixels to give `colour` at once, so that they and what is computed of them stay in a core's cache."""
    return max(1, 4 * 112**2 // size**2)  # 4 at 112 px, the fastest of 1 to 8 where a core has 1 MiB of its own


def colour(chunks: Iterable[Tensor], draw: ClipDraw, order: str, *, out: Tensor) -> None:
    """Write one augmented, normalised clip to `out` (3, F, S, S).

    chunks: the clip's frames in turn, each chunk (3, f, S, S) float32 in [0, 1], in memory of its own, which is overwritten.
    """
    steps = [step for step in steps_of(draw, order) if step is not None] + [_FLIP] * draw.flip
    factors = _factors([draw])
    parts: Iterable[Tensor] = (chunk[None] for chunk in chunks)  # each (1, C, f, S, S)
    pivot = None
    if CONTRAST in steps:
        # Contrast pivots on the whole clip as it then is: all chunks have to come that far first.
        first = steps.index(CONTRAST)
        parts = [_changed(part, steps[:first], factors) for part in parts]
        steps, pivot = steps[first:], _mean_grey(parts)
    start = 0
    for part in parts:
        (frames,) = _changed(part, steps, factors, pivot)  # (C, f, S, S)
        stop = start + frames.shape[1]
        # Channel by channel: of (f, S, S, 3) in memory the three channels would become the innermost loop, at half the speed.
        for channel, shift, scale, target in zip(frames.expand(3, -1, -1, -1), SHIFT, SCALE, out[:, start:stop], strict=True):
            torch.add(shift, channel, alpha=scale, out=target)
        start = stop


def colour_batch(clips: Tensor, draws: Sequence[ClipDraw], order: str, *, out: Tensor) -> None:
    """Write the augmented, normalised clips to `out`: clips (B, 3, F, S, S) float32 in [0, 1], flipped already, which are overwritten.

    Clips whose turn it is for the same operation go through it together. Which they are is known on the host: no device is waited for.
    """
    groups: list[tuple[int, list[int]]] = []
    for position in zip(*(steps_of(draw, order) for draw in draws), strict=True):
        groups += [(step, [row for row, own in enumerate(position) if own == step]) for step in sorted({*position} - {None})]
    rows = to_device(torch.tensor([row for _, chosen in groups for row in chosen], dtype=torch.int64), clips.device)
    factors = to_device(_factors(draws), clips.device)
    for (step, chosen), index in zip(groups, torch.split(rows, [len(chosen) for _, chosen in groups]), strict=True):
        everyone = len(chosen) == len(clips)
        picked = clips if everyone else clips.index_select(0, index)
        pivot = _mean_grey([picked]) if step == CONTRAST else None
        changed = _changed(picked, [step], factors if everyone else factors.index_select(0, index), pivot)
        if changed is not clips:
            clips.index_copy_(0, index, changed.expand(-1, 3, -1, -1, -1))
    shift, scale = (to_device(torch.tensor(values).view(3, 1, 1, 1), clips.device) for values in (SHIFT, SCALE))
    torch.addcmul(shift, clips, scale, out=out)


def steps_of(draw: ClipDraw, order: str) -> tuple[int | None, ...]:
    """What happens to a clip before its flip, in turn; None where a step that other clips take at this position is left out."""
    jitter = draw.ops + (None,) * (4 - len(draw.ops))
    grayscale, blur = (step if chosen else None for step, chosen in ((GRAYSCALE, draw.grayscale), (_BLUR, draw.blur)))
    return (grayscale, *jitter) if order == "reference" else (*jitter, grayscale, blur)


# Where an operation's factors stand in a row of _factors.
_COLUMNS = {BRIGHTNESS: slice(0, 1), CONTRAST: slice(1, 2), SATURATION: slice(2, 3), HUE: slice(3, 6)}


def _factors(draws: Sequence[ClipDraw]) -> Tensor:
    """The factors of n clips, (n, 6) float32: brightness, contrast, saturation, and of each channel the hue it gets its value from."""
    return torch.tensor([(*draw.factors[:3], *hue_sources(draw.factors[HUE])) for draw in draws], dtype=torch.float32)


def hue_sources(shift: float) -> tuple[float, float, float]:
    """Of red, green and blue the hue they get their value from: their own (0, 2, 4 sixths of a turn) before a shift by so many turns,
    negated, within [-3, 3]."""
    red, green, blue = ((6 * shift - own + 3) % 6 - 3 for own in (0, 2, 4))
    return red, green, blue


def _changed(clips: Tensor, steps: Sequence[int], factors: Tensor, pivot: Tensor | None = None) -> Tensor:
    """Clips (n, C, f, S, S) after the steps; they are overwritten.

    factors: (n, 6), of _factors. pivot: (n, 1, 1, 1, 1) the clips' mean grey, for contrast.
    """
    for step in steps:
        if step == GRAYSCALE:
            clips = _grey(clips)
        elif step == _BLUR:
            clips = _gaussian_blur(clips)
        elif step == _FLIP:
            clips = clips.flip(-1)
        else:
            factor = factors[:, _COLUMNS[step]].view(len(factors), -1, 1, 1, 1)
            if step == HUE:
                _shift_hue(clips, factor)
            elif step == BRIGHTNESS:
                clips.mul_(factor).clamp_(0, 1)
            elif step == SATURATION:
                clips.lerp_(_grey(clips), 1 - factor).clamp_(0, 1)
            else:
                assert pivot is not None
                clips.mul_(factor).add_(pivot * (1 - factor)).clamp_(0, 1)
    return clips


def _grey(clips: Tensor) -> Tensor:
    """Luma of (n, C, f, S, S): (n, 1, f, S, S)."""
    red, green, blue = torch.split(clips.expand(-1, 3, -1, -1, -1), 1, 1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def _mean_grey(chunks: Sequence[Tensor]) -> Tensor:
    """Mean luma over all frames of n clips, (n, 1, 1, 1, 1); chunks: of the clips, each (n, C, f, S, S)."""
    sums = torch.stack([chunk.sum((2, 3, 4), keepdim=True) for chunk in chunks]).sum(0)  # (n, C, 1, 1, 1)
    return _grey(sums / sum(chunk[0, 0].numel() for chunk in chunks))


def _shift_hue(clips: Tensor, offsets: Tensor) -> None:
    """Turn the hue of (n, C, f, S, S) in place, through HSV. offsets: (n, 3, 1, 1, 1), of _factors."""
    if clips.shape[1] == 1:
        return  # grey has no hue
    red, green, blue = torch.split(clips, 1, 1)  # each (n, 1, f, S, S)
    high = torch.maximum(red, green)
    torch.maximum(high, blue, out=high)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = high - low
    # Hue in sixths of a turn, in [-3, 3], red at 0. Its size is (green + blue - red + high - 2 low) / chroma whichever channel is
    # largest: |green - blue| / chroma where it is red, up to 3 where it is smallest. Its sign is that of green - blue.
    hue = (green + blue).sub_(red).add_(high).sub_(low, alpha=2).copysign_(green - blue).div_(chroma.clamp_min(1e-12))
    # Back to RGB without branches. A channel is `high` up to 1 from its own hue, `low` from 2 on, and linear between. 3 - distance is
    # ||hue + offset| - 3|: two absolute values go once around the circle, for sums within [-6, 6].
    torch.add(hue, offsets, out=clips)
    clips.abs_().sub_(3).abs_().clamp_(1, 2)
    torch.addcmul(low.sub_(chroma), chroma, clips, out=clips)


def _gaussian_blur(clips: Tensor) -> Tensor:
    """3 x 3 Gaussian, sigma 1.5, zeros beyond the edge: (n, C, f, S, S) -> same."""
    weights = torch.exp(-(torch.arange(-1.0, 2.0, device=clips.device) ** 2) / (2 * 1.5**2))
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    planes = clips.reshape(-1, 1, *clips.shape[-2:])
    return F.conv2d(planes, kernel[None, None], padding=1).view(clips.shape)
