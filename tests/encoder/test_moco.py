"""Momentum contrast: the key encoder's average, the queue, batch-norm statistics of shuffled sub-batches."""

import copy
from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.moco import MoCo, key_momentum, query_projection

CPU = torch.device("cpu")
DIM = 6


def make_moco(queue_size: int = 8, *, bn_splits: int = 1, head: str = "convbn") -> MoCo:
    torch.manual_seed(0)
    query = Encoder("r3d18", width=0.1, head=head, embedding_dim=DIM)
    moco = MoCo(query, embedding_dim=DIM, queue_size=queue_size, bn_splits=bn_splits)
    with torch.no_grad():  # different encoders, or nothing that mixes them up would be seen
        for parameter in moco.query.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return moco


def clips(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def norms(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.named_buffers() if "running" in name}


def test_the_key_encoder_begins_as_a_copy_that_is_not_trained() -> None:
    query = Encoder("r3d18", width=0.1, embedding_dim=DIM)
    moco = MoCo(query, embedding_dim=DIM, queue_size=8)
    for (name, one), (other_name, other) in zip(moco.query.state_dict().items(), moco.key.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    assert all(parameter.requires_grad for parameter in moco.query.parameters())
    assert not any(parameter.requires_grad for parameter in moco.key.parameters())


def test_the_key_encoder_is_the_moving_average_of_parameters_alone() -> None:
    moco = make_moco()
    before = {name: value.clone() for name, value in moco.key.named_parameters()}
    for buffer in moco.query.buffers():
        if buffer.is_floating_point():
            buffer.add_(1)
    buffers = {name: value.clone() for name, value in moco.key.named_buffers()}
    query = {name: value.clone() for name, value in moco.query.named_parameters()}
    for momentum in (0.75, 0.5, 0.9):
        moco.update_key_encoder(momentum)
        before = {name: momentum * value + (1 - momentum) * query[name] for name, value in before.items()}
    for name, value in moco.key.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=1e-6, atol=1e-7)
    for name, value in moco.key.named_buffers():
        assert torch.equal(value, buffers[name]), f"batch norm's {name} is not averaged"
    assert all(torch.equal(value, query[name]) for name, value in moco.query.named_parameters())


def test_the_momentum_rises_along_half_a_cosine_or_stays() -> None:
    assert [key_momentum(0.9, None, share) for share in (0.0, 0.3, 1.0)] == [0.9] * 3
    rising = [key_momentum(0.9, 0.99, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert rising == pytest.approx([0.9, 0.9 + 0.09 * (0.5 - 0.5**1.5), 0.945, 0.9 + 0.09 * (0.5 + 0.5**1.5), 0.99])
    assert key_momentum(0.9, 0.5, 0.5) == pytest.approx(0.7)  # it may fall, too


def test_the_queue_begins_with_random_directions_of_no_video() -> None:
    moco = make_moco(64)
    assert moco.queue.shape == (DIM, 64)
    torch.testing.assert_close(moco.queue.norm(dim=0), torch.ones(64))
    assert moco.queue_videos.tolist() == [-1] * 64
    assert moco.queue_ptr.tolist() == [0]
    assert {"queue", "queue_videos", "queue_ptr"} <= moco.state_dict().keys()


@pytest.mark.parametrize(("queue_size", "batch"), [(8, 4), (12, 4), (4, 4), (9, 3)])
def test_the_queue_holds_the_newest_keys_and_wraps_around(queue_size: int, batch: int) -> None:
    moco = make_moco(queue_size)
    columns = deque([(moco.queue[:, i].clone(), -1) for i in range(queue_size)], maxlen=queue_size)  # oldest first
    for step in range(2 * queue_size // batch + 1):
        keys, videos = torch.randn(batch, DIM), torch.arange(batch) + 100 * step
        moco.enqueue(keys, videos)
        columns.extend(zip(keys, videos.tolist(), strict=True))
        assert moco.queue_ptr.item() == (step + 1) * batch % queue_size
        oldest = int(moco.queue_ptr)
        order = [(oldest + i) % queue_size for i in range(queue_size)]
        assert moco.queue_videos[order].tolist() == [video for _, video in columns]
        assert torch.equal(moco.queue[:, order], torch.stack([key for key, _ in columns], 1))


def test_keys_come_without_gradient_and_queries_with_it() -> None:
    moco = make_moco()
    batch = clips(4)
    for embedding in moco.embed_keys(batch, np.arange(4)):
        assert not embedding.requires_grad
    for embedding in query_projection(moco, CPU)(batch):
        assert embedding.requires_grad
        assert embedding.shape == (4, DIM)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))


def test_with_one_sub_batch_keys_are_the_key_encoders_of_the_whole_batch() -> None:
    moco = make_moco()
    batch = clips(4)
    expected = copy.deepcopy(moco.key).project(batch)
    for got, wanted in zip(moco.embed_keys(batch, np.array([2, 0, 3, 1])), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("splits", [2, 4])
def test_shuffled_keys_have_the_statistics_of_their_sub_batch_and_come_back_in_order(splits: int) -> None:
    moco = make_moco(bn_splits=splits)
    batch, shuffle = clips(8), np.random.default_rng(3).permutation(8)
    reference = copy.deepcopy(moco.key)
    appearance, motion = torch.empty(8, DIM), torch.empty(8, DIM)
    statistics = []
    for part in range(splits):
        members = [int(shuffle[i]) for i in range(part * 8 // splits, (part + 1) * 8 // splits)]
        alone = copy.deepcopy(reference)  # statistics of this sub-batch, from the same running ones
        a, m = alone.project(torch.stack([batch[i] for i in members]))
        statistics.append(norms(alone))
        for place, i in enumerate(members):
            appearance[i], motion[i] = a[place].detach(), m[place].detach()
    got_a, got_m = moco.embed_keys(batch, shuffle)
    torch.testing.assert_close(got_a, appearance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got_m, motion, rtol=1e-4, atol=1e-5)
    whole, _ = reference.project(batch)
    assert (whole - got_a).abs().max() > 0.01, "statistics of the whole batch would have gone unnoticed"
    for name, value in norms(moco.key).items():  # the running statistics follow the first sub-batch, as rank 0's do
        torch.testing.assert_close(value, statistics[0][name], rtol=1e-5, atol=1e-6)


def test_queries_are_split_but_not_shuffled_and_every_part_has_its_gradient() -> None:
    moco = make_moco(bn_splits=2)
    batch = clips(6)
    reference = copy.deepcopy(moco.query)
    parts = []
    for part in range(2):
        alone = reference if part == 0 else copy.deepcopy(moco.query)
        parts.append((alone, alone.project(torch.stack([batch[i] for i in range(3 * part, 3 * part + 3)]))))
    got_a, got_m = query_projection(moco, CPU)(batch)
    torch.testing.assert_close(got_a, torch.cat([a for _, (a, _) in parts]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got_m, torch.cat([m for _, (_, m) in parts]), rtol=1e-4, atol=1e-5)
    for name, value in norms(moco.query).items():
        torch.testing.assert_close(value, norms(reference)[name], rtol=1e-5, atol=1e-6)

    def objective(a: Tensor, m: Tensor) -> Tensor:
        weights = torch.linspace(-1, 1, a.numel()).view_as(a)
        return (weights * a).sum() + (weights**2 * m).sum()

    objective(got_a, got_m).backward()
    weights = torch.linspace(-1, 1, 6 * DIM).view(6, DIM)
    for part, (_, (a, m)) in enumerate(parts):
        rows = weights[3 * part : 3 * part + 3]
        ((rows * a).sum() + (rows**2 * m).sum()).backward()
    for (name, got), *others in zip(moco.query.named_parameters(), *(encoder.parameters() for encoder, _ in parts), strict=True):
        wanted = sum(other.grad for other in others)
        torch.testing.assert_close(
            got.grad, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
