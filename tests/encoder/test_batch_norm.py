"""Batch norm whose running statistics are left alone."""

import copy

import pytest
import torch
from torch import nn

from rspnet_cli.encoder.batch_norm import frozen_statistics


def test_frozen_statistics_stay_and_the_batch_is_normalised_as_ever() -> None:
    network = nn.Sequential(nn.BatchNorm3d(3), nn.Sequential(nn.BatchNorm3d(3, momentum=None)))
    batch = torch.randn(4, 3, 2, 2, 2)
    network(batch)
    before = copy.deepcopy(network.state_dict())
    assert before["0.num_batches_tracked"] == 1
    expected = copy.deepcopy(network)(2 * batch)
    with frozen_statistics(network):
        assert torch.equal(network(2 * batch), expected)
        with frozen_statistics(network[1]):
            network(batch)
        network(batch)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with frozen_statistics(network, frozen=False):
        network(3 * batch + 1)
    assert all((value != before[name]).any() for name, value in network.state_dict().items() if "weight" not in name and "bias" not in name)


def test_batch_norm_is_as_before_after_a_pass_that_fails() -> None:
    network = nn.Sequential(nn.BatchNorm3d(2, momentum=0.3), nn.BatchNorm3d(2))
    with pytest.raises(ValueError), frozen_statistics(network):
        raise ValueError
    assert [norm.momentum for norm in network] == [0.3, 0.1]
    assert [int(norm.num_batches_tracked) for norm in network] == [0, 0]
    assert "0.num_batches_tracked" in network.state_dict()
