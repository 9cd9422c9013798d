"""The convolution that all backbones use: the same maths everywhere, and right gradients in bfloat16 on CPUs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Conv3d
from rspnet_cli.encoder.heads import build_head
from rspnet_cli.encoder.registry import BACKBONES, build_backbone
from tests.encoder import reference
from tests.encoder.test_backbones import clips

MAX_CHANNELS = 32  # of a group; the fault needs 16
MAX_GROUPS = 2
MAX_SIDE = 12


def bfloat16_fault() -> str | None:
    """Why CPU bfloat16 cannot be tested here, or None."""
    try:
        F.conv3d(torch.ones(1, 1, 2, 2, 2, dtype=torch.bfloat16), torch.ones(1, 1, 1, 1, 1, dtype=torch.bfloat16))
    except RuntimeError as error:
        return f"this torch has no bfloat16 convolution on CPUs ({error})"
    return None


needs_bfloat16 = pytest.mark.skipif(bfloat16_fault() is not None, reason=bfloat16_fault() or "")


@cache
def shapes_of(name: str, frames: int, clip_side: int) -> list[tuple[Any, ...]]:
    """(in, out, kernel, stride, padding, groups, bias, depth, side) of a backbone's and a head's convolutions for clips of this size."""
    found = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv3d)
        depth, side = inputs[0].shape[2], inputs[0].shape[3]
        groups = min(module.groups, MAX_GROUPS)
        channels = (groups * min(count // module.groups, MAX_CHANNELS) for count in (module.in_channels, module.out_channels))
        how = module.kernel_size, module.stride, module.padding, groups, module.bias is not None
        found[(*channels, *how, depth, min(side, MAX_SIDE))] = None

    with torch.device("meta"):
        backbone = build_backbone(name)
        for module in backbone.modules():
            if isinstance(module, nn.Conv3d):
                module.register_forward_pre_hook(note)
        feature_map = backbone(torch.empty(2, 3, frames, clip_side, clip_side))
        head = build_head("convbn", backbone.channels, 16)
        head.conv1.register_forward_pre_hook(note)
        head(feature_map)
    return list(found)


@needs_bfloat16
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("published_clip", [True, False])
@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_gradients_on_cpu_equal_those_of_float32(name: str, published_clip: bool, autocast: bool) -> None:
    # Small clips reach heights and widths of 1 and 2, and stems whose kernel is longer than the clip.
    smallest = BACKBONES[name].smallest
    small = (max(4, smallest.frames), max(16, smallest.side))
    compare_gradients(shapes_of(name, *(BACKBONES[name].clip if published_clip else small)), torch.device("cpu"), autocast=autocast)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["r3d18", "c3d"])
def test_bfloat16_gradients_on_a_gpu_are_near_those_of_float32(name: str, cuda: torch.device) -> None:
    compare_gradients(shapes_of(name, *BACKBONES[name].clip), cuda, autocast=True)


def compare_gradients(shapes: list[tuple[Any, ...]], device: torch.device, *, autocast: bool) -> None:
    assert len(shapes) >= 5
    for in_channels, out_channels, kernel, stride, padding, groups, bias, depth, side in shapes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups, bias=bias)
        # The same rounded numbers go into both, so that only sums differ: bfloat16 keeps 8 bits, a relative step of 0.4 %. TF32 keeps more.
        layer.weight.data = layer.weight.data.bfloat16().float()
        layer = layer.to(device).to(memory_format=torch.channels_last_3d if device.type == "cuda" else torch.preserve_format)
        x = clips(2, in_channels, depth, side, side).bfloat16().float().to(device).requires_grad_()
        exact = F.conv3d(x, layer.weight, layer.bias, stride, padding, groups=groups)
        direction = clips(*exact.shape).bfloat16().float().to(device)
        wanted = torch.autograd.grad(exact, (x, layer.weight), direction)
        if autocast:
            with torch.autocast(device.type, torch.bfloat16):
                result = layer(x)
        else:
            layer = layer.bfloat16()
            result = layer(x.bfloat16())
        assert result.dtype == torch.bfloat16
        found = torch.autograd.grad(result, (x, layer.weight), direction.bfloat16())
        label = f"{in_channels}->{out_channels} kernel {kernel} stride {stride} at depth {depth}"
        for what, value, reference_value in (("output", result, exact), ("input", found[0], wanted[0]), ("weight", found[1], wanted[1])):
            error = float((value.detach().float() - reference_value.detach()).norm() / reference_value.detach().norm())
            assert error < 0.02, f"{what} of {label}: {error:.3f}"


@needs_bfloat16
@pytest.mark.parametrize("frames", [4, 8, 16])
@pytest.mark.parametrize("name", BACKBONES)
def test_no_axis_is_left_to_the_faulty_kernel(name: str, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's bfloat16 weight gradient is garbage where an axis is at most twice its padding (but for one pixel under stride 1)."""
    calls: list[list[tuple[int, int, int]]] = []
    original = F.conv3d

    def noted(x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
        is_bfloat16 = torch.is_autocast_enabled("cpu")
        calls.append(list(zip(x.shape[2:], stride, padding, strict=True)) if is_bfloat16 else [])
        return original(x, weight, bias, stride, padding, dilation, groups)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(name, 0.125).eval()
    frames = max(frames, BACKBONES[name].smallest.frames)
    monkeypatch.setattr(F, "conv3d", noted)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        backbone(clips(1, 3, frames, 32, 32).float())
    assert len(calls) == sum(isinstance(module, nn.Conv3d) for module in backbone.modules())
    faulty = [axis for call in calls for axis in call if axis[2] and axis[0] <= 2 * axis[2] and axis[:2] != (1, 1)]
    assert not faulty


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_it_is_a_plain_convolution(depth: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = Conv3d(4, 6, kernel_size=(3, 3, 5), stride=(1, 2, 1), padding=(1, 1, 2)).double()
    x = clips(2, 4, depth, 7, 6)
    expected = reference.conv(x, layer.weight, stride=(1, 2, 1), padding=(1, 1, 2), bias=layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-12)
    assert set(layer.state_dict()) == {"weight", "bias"}
