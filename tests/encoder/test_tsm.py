"""What is particular to TSM: the shift."""

from __future__ import annotations

import torch

from rspnet_cli.encoder.tsm import shift


def test_the_shift_moves_an_eighth_of_the_channels_each_way_and_fills_with_zeros() -> None:
    x = torch.arange(1, 1 + 2 * 16 * 3, dtype=torch.float32).view(2, 16, 3, 1, 1)
    moved = shift(x)
    zeros = torch.zeros(2, 2, 1, 1, 1)
    assert torch.equal(moved[:, :2], torch.cat((x[:, :2, 1:], zeros), 2))  # frame t shows t + 1
    assert torch.equal(moved[:, 2:4], torch.cat((zeros, x[:, 2:4, :-1]), 2))  # frame t shows t - 1
    assert torch.equal(moved[:, 4:], x[:, 4:])
    assert torch.equal(shift(x[:, :, :1])[:, :4], torch.zeros(2, 4, 1, 1, 1))
