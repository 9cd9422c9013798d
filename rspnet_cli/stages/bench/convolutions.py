"""How much the convolutions of a step compute, and the fastest that this machine computes any."""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.encoder import Encoder

# (channels, frames, side) of 3 x 3 x 3 convolutions with as many outputs: the layers that 3D networks spend most of their time in.
_SHAPES = ((64, 8, 56), (128, 8, 28), (256, 4, 28))
_BATCH = {"cpu": 2, "cuda": 64, "mps": 8}
_TIMED_S, _TIMED_REPEATS = 0.4, 3
KEY_PASSES = 2


def flops_per_video(encoder: Encoder, *, frames: int, size: int) -> float:
    """Floating-point operations (a multiplication and an addition are two) of all convolutions in a step, per video of its batch.

    One query pass forward and backward and two key passes forward. Backward is twice forward, once in the first layer, which has no use
    for its input's gradient. What activation checkpointing computes again is not counted. The encoder is in evaluation mode afterwards.
    """
    forward = backward = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal forward, backward
        assert isinstance(module.weight, Tensor)
        once = 2.0 * output.numel() * math.prod(module.weight.shape[1:])
        forward += once
        backward += once * (2 if inputs[0].requires_grad else 1)

    encoder.eval()  # nothing learns from the clip of zeros
    encoder.backbone.checkpoint_activations = False
    weight = next(encoder.parameters())
    hooks = [module.register_forward_hook(count) for module in encoder.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    # Not through `project`, which would run what torch.compile made. Nor on the meta device: that imports the compiler, for two seconds.
    feature_map = encoder.backbone.forward(torch.zeros(1, 3, frames, size, size, device=weight.device))
    for head in (encoder.head_a, encoder.head_m):
        head(feature_map)
    for hook in hooks:
        hook.remove()
    return (1 + KEY_PASSES) * forward + backward


def best_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of the fastest of a few large convolutions, forward, channels last."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return max(_rate(device, dtype, *shape) for shape in _SHAPES)


@torch.no_grad()
def _rate(device: torch.device, dtype: torch.dtype, channels: int, frames: int, side: int) -> float:
    def ready(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)

    with torch.random.fork_rng(devices=[]):
        clips, weight = ready(_BATCH[device.type], channels, frames, side, side), ready(channels, channels, 3, 3, 3)
    flops = 2.0 * clips.numel() * channels * 27
    best, times, began = 0.0, 1, time.perf_counter()
    F.conv3d(clips, weight, padding=1)
    for repeat in range(1 + _TIMED_REPEATS):
        _wait(device)
        start = time.perf_counter()
        for _ in range(times):
            F.conv3d(clips, weight, padding=1)
        _wait(device)
        seconds = time.perf_counter() - start
        best = max(best, flops * times / seconds)
        if repeat == 0:  # so many that a GPU's start and end do not count
            times = max(1, min(200, round(_TIMED_S / _TIMED_REPEATS / max(seconds, 1e-6))))
        if time.perf_counter() - began > 3 * _TIMED_S:
            break
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
