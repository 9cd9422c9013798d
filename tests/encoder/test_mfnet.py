"""What is particular to MF-Net: its fibers and its initial weights."""

from __future__ import annotations

import torch
from torch import nn

from rspnet_cli.encoder.conv import scale_channels
from rspnet_cli.encoder.registry import build_backbone


def test_mfnet_starts_from_xavier_uniform() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone("mfnet", 0.25)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv3d)]
    assert len(convolutions) == 1 + 16 * 4 + 4
    for module in convolutions:
        fan_in, fan_out = module.weight[0].numel(), len(module.weight) * module.weight[0, 0].numel()
        bound = (6 / (fan_in + fan_out)) ** 0.5
        weight = module.weight.detach()
        assert weight.abs().max() <= bound
        assert abs(float(weight.std()) - bound / 3**0.5) < 6 * bound / (3 * weight.numel()) ** 0.5 / 2**0.5
        assert module.bias is None


def test_every_fiber_of_a_narrow_mfnet_has_the_same_channels() -> None:
    assert [scale_channels(channels, 0.25, 16) for channels in (16, 96, 192, 384)] == [16, 32, 48, 96]
    with torch.device("meta"):
        grouped = [module for module in build_backbone("mfnet", 0.1).modules() if isinstance(module, nn.Conv3d) and module.groups > 1]
    assert len(grouped) == 16 + 12
    assert {module.groups for module in grouped} == {16}
