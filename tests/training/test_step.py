"""The whole RSPNet step against one written down from method.md in loops, over several steps of training."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rspnet_cli.clips.draws import StepDraw, draw_step
from rspnet_cli.config import PretrainConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.heads import HEADS
from rspnet_cli.encoder.moco import MoCo, query_projection
from rspnet_cli.encoder.registry import BACKBONES
from rspnet_cli.settings import validated
from rspnet_cli.training import step as training_step
from rspnet_cli.training.objective import instance_loss
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.step import LoadedClips, play, rspnet_step

BATCH, FRAMES, SIZE, DIM, QUEUE = 6, 4, 16, 6, 12
CPU = torch.device("cpu")


def settings(**sections: dict[str, Any]) -> PretrainConfig:
    base: dict[str, dict[str, Any]] = {
        "model": {"width": 0.1, "head": "convbn", "embedding_dim": DIM},
        "clip": {"frames": FRAMES, "size": SIZE, "speeds": (2, 3)},
        # Far from 1, so that the average moves, and a queue of two batches, so that it wraps around.
        "moco": {"queue_size": QUEUE, "momentum": 0.7, "temperature": 0.1},
        "objective": {"margin": 3.0, "avid_weight": 0.5, "rsp_weight": 2.0},
        "optim": {"batch_size": BATCH, "lr": 0.05, "weight_decay": 0.01},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return validated(PretrainConfig, base)


# The reference: the step of method.md, with the real encoders and nothing else of the package.


def normalised(rows: Tensor) -> Tensor:
    return torch.stack([row / (row**2).sum().sqrt() for row in rows])


@dataclass
class Reference:
    config: PretrainConfig
    query: Encoder
    key: Encoder
    queue: list[Tensor]
    """Columns, by place."""
    videos: list[int]
    place: int = 0
    momenta: dict[str, Tensor] = field(default_factory=dict)

    def embed(self, encoder: Encoder, clips: list[Tensor]) -> tuple[Tensor, Tensor]:
        feature_map = encoder.backbone(torch.stack(clips))
        return normalised(encoder.head_a(feature_map)), normalised(encoder.head_m(feature_map))

    def embed_keys(self, clips: list[Tensor], shuffle: list[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Sub-batch by sub-batch of the shuffled order; the running statistics are the first one's."""
        splits = self.config.moco.bn_splits
        appearance: list[Any] = [None] * len(clips)
        motion: list[Any] = [None] * len(clips)
        share = len(clips) // splits
        order = shuffle if splits > 1 else list(range(len(clips)))
        before = copy.deepcopy(self.key)
        for part in range(splits):
            encoder = self.key if part == 0 else copy.deepcopy(before)
            members = order[part * share : (part + 1) * share]
            with torch.no_grad():
                a, m = self.embed(encoder, [clips[i] for i in members])
            for row, i in enumerate(members):
                appearance[i], motion[i] = a[row], m[row]
        return appearance, motion

    def played(self, clip: Tensor, fast: bool, speed: int) -> Tensor:
        """(3, L, S, S) -> (3, T, S, S)."""
        return torch.stack([clip[:, t * speed if fast else t] for t in range(FRAMES)], 1)

    def step(self, clips: Tensor, videos: list[int], draw: StepDraw, lr: float, momentum: float) -> dict[str, float]:
        config, tau = self.config, self.config.moco.temperature
        size = len(videos)
        # 1. EMA first, of parameters.
        with torch.no_grad():
            for key, query in zip(self.key.parameters(), self.query.parameters(), strict=True):
                key.copy_(momentum * key + (1 - momentum) * query)
        # 2. Speeds: q and k+ at the sample's, k- the same key clip at the other.
        fast = draw.fast.tolist()
        q_clips = [self.played(clips[i], fast[i], draw.speed) for i in range(size)]
        k_clips = [self.played(clips[size + i], fast[i], draw.speed) for i in range(size)]
        other_clips = [self.played(clips[size + i], not fast[i], draw.speed) for i in range(size)]
        # 3. k-, then k+, then q.
        other_a, other_m = self.embed_keys(other_clips, draw.shuffles[0].tolist())
        key_a, key_m = self.embed_keys(k_clips, draw.shuffles[1].tolist())
        splits, share = config.moco.bn_splits, size // config.moco.bn_splits
        copies, rows_a, rows_m = [], [], []
        for part in range(splits):
            encoder = self.query if part == 0 else copy.deepcopy(copies[0])
            copies.append(copy.deepcopy(encoder) if part == 0 else encoder)
            a, m = self.embed(encoder, q_clips[part * share : (part + 1) * share])
            rows_a += list(a)
            rows_m += list(m)
        encoders = [self.query, *copies[1:]]
        # 4. The losses, with the queue as it is before this step's keys join it.
        loss_a, loss_m = torch.zeros(()), torch.zeros(())
        right = {"avid_top1": 0, "avid_top5": 0, "avid_other_top1": 0, "avid_other_top5": 0, "rsp_accuracy": 0}
        for i in range(size):
            negatives = [
                (rows_a[i] * column).sum() / tau
                for column, video in zip(self.queue, self.videos, strict=True)
                if not (config.moco.mask_same_video and video == videos[i])
            ]
            for positive, name in ((key_a[i], "avid"), (other_a[i], "avid_other")):
                logits = [(rows_a[i] * positive).sum() / tau, *negatives]
                loss_a = loss_a + (torch.stack([logit.exp() for logit in logits]).sum().log() - logits[0]) / size
                place = sum(bool(logit >= logits[0]) for logit in logits[1:])
                right[f"{name}_top1"] += place < 1
                right[f"{name}_top5"] += place < 5
            near, far = (rows_m[i] * key_m[i]).sum(), (rows_m[i] * other_m[i]).sum()
            hinge = config.objective.margin - (near - far) / tau
            if hinge > 0:
                loss_m = loss_m + hinge / size
            right["rsp_accuracy"] += bool(near > far)
        loss = config.objective.avid_weight * loss_a + config.objective.rsp_weight * loss_m
        for encoder in encoders:
            encoder.zero_grad()
        loss.backward()
        # SGD with momentum 0.9 and weight decay on everything.
        with torch.no_grad():
            for (name, parameter), *others in zip(
                self.query.named_parameters(), *(encoder.parameters() for encoder in encoders[1:]), strict=True
            ):
                grad = parameter.grad + sum(other.grad for other in others) + config.optim.weight_decay * parameter
                velocity = grad if name not in self.momenta else 0.9 * self.momenta[name] + grad
                self.momenta[name] = velocity.clone()
                parameter -= lr * velocity
        # 5. k'_A joins the queue.
        for i in range(size):
            self.queue[self.place], self.videos[self.place] = other_a[i], videos[i]
            self.place = (self.place + 1) % len(self.queue)
        figures = {name: count / size for name, count in right.items()}
        return figures | {"loss": loss.item(), "loss_avid": loss_a.item(), "loss_rsp": loss_m.item()}


def start(config: PretrainConfig) -> tuple[MoCo, Reference]:
    torch.manual_seed(1)
    query = Encoder(config.model.backbone, width=config.model.width, head=config.model.head, embedding_dim=DIM)
    moco = MoCo(query, embedding_dim=DIM, queue_size=config.moco.queue_size, bn_splits=config.moco.bn_splits)
    with torch.no_grad():
        for parameter in moco.query.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    moco.double()
    columns = [column.clone() for column in moco.queue.unbind(1)]
    return moco, Reference(config, copy.deepcopy(moco.query), copy.deepcopy(moco.key), columns, [-1] * len(columns))


CASES = {
    "plain": settings(),
    "mask_same_video": settings(moco={"mask_same_video": True}),
    "bn_splits": settings(moco={"bn_splits": 2, "queue_size": 2 * QUEUE}, optim={"batch_size": 2 * BATCH}),
    "a-vid alone": settings(objective={"rsp_weight": 0.0}),
    "rsp alone": settings(objective={"avid_weight": 0.0}),
    "speed 4": settings(clip={"speeds": (4,)}),
    "speeds 4, 2, 1": settings(clip={"speeds": (4, 2, 1)}),
}


@pytest.fixture
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings stay float64 (the encoder rounds them to float32), so that the comparison is not one of rounding errors: batch norm over
    six values, step after step, makes 1e-7 a difference in the third digit."""
    to_float32 = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor if tensor.dtype == torch.float64 else to_float32(tensor))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_several_steps_are_those_of_the_loops(config: PretrainConfig) -> None:
    moco, reference = start(config)
    project = query_projection(moco, CPU)
    optimizer = build_optimizer(config.optim, moco.query)
    data = torch.Generator().manual_seed(2)
    length = max(config.clip.speeds) * FRAMES
    size, speeds = config.optim.batch_size, set()
    for number in range(5):
        clips = torch.randn(2 * size, 3, length, SIZE, SIZE, generator=data, dtype=torch.float64)
        videos = [(number * 4 + i) % (size + 3) for i in range(size)]  # some come again while their keys are in the queue
        # Seed 1: every speed is drawn within five steps.
        draw = draw_step(size, speeds=config.clip.speeds, sub_batches=config.moco.bn_splits, seed=1, epoch=0, step=number)
        speeds.add(draw.speed)
        momentum = 0.9 - 0.1 * number
        expected = reference.step(clips, videos, draw, config.optim.lr, momentum)
        optimizer.zero_grad()
        figures = rspnet_step(moco, project, *loaded(clips), torch.tensor(videos), draw, config, momentum=momentum)
        optimizer.step()
        # Batch norm over six values blows rounding of 1e-16 up to 1e-9 within these steps.
        tolerance = {"rel": 1e-6, "abs": 1e-6}
        for name, value in figures._asdict().items():
            assert not value.requires_grad
            assert value.item() == pytest.approx(expected[name], **tolerance), f"{name}, step {number}"
        assert moco.queue_ptr.item() == reference.place
        assert moco.queue_videos.tolist() == reference.videos
        torch.testing.assert_close(moco.queue, torch.stack(reference.queue, 1), rtol=0, atol=1e-6)
    assert speeds == set(config.clip.speeds)
    for mine, other in ((moco.query, reference.query), (moco.key, reference.key)):
        for name, value in other.state_dict().items():
            if value.is_floating_point():
                close = {"rtol": 1e-5, "atol": 1e-6}
                torch.testing.assert_close(mine.state_dict()[name], value, **close, msg=lambda text, name=name: f"{name}: {text}")
    moved = [
        (mine - other).abs().max().item() for mine, other in zip(moco.query.parameters(), start(config)[0].query.parameters(), strict=True)
    ]
    assert np.median(moved) > 0.002, "the steps changed so little that a wrong one would pass"


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_trains_with_every_head(backbone: str, head: str) -> None:
    batch, frames, size = 4, 8, 24
    config = settings(
        model={"backbone": backbone, "head": head, "width": 0.05},
        clip={"frames": frames, "size": size, "speeds": (2,)},
        optim={"batch_size": batch, "lr": 0.001, "weight_decay": 0.0},
    )
    moco, _ = start(config)
    project = query_projection(moco, CPU)
    optimizer = build_optimizer(config.optim, moco.query)
    before = copy.deepcopy(moco.query.state_dict())
    clips = torch.randn(2 * batch, 3, 2 * frames, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for number in range(2):  # in the first step SlowFast's blocks are their shortcuts
        draw = draw_step(batch, speeds=(2,), seed=0, epoch=0, step=number)
        optimizer.zero_grad()
        figures = rspnet_step(moco, project, *loaded(clips), torch.arange(batch), draw, config, momentum=0.9)
        optimizer.step()
        assert torch.isfinite(figures.loss)
    # Biases before batch norm have no effect; every weight has.
    still = [
        name for name, value in before.items() if name.endswith("weight") and (moco.query.state_dict()[name] - value).abs().max() < 1e-9
    ]
    assert not still


def loaded(clips: Tensor) -> tuple[LoadedClips, LoadedClips]:
    """Queries and keys of (2 b, 3, L, S, S), every frame of the span loaded."""
    query, key = clips.chunk(2)
    offsets = torch.arange(clips.shape[2]).repeat(len(query), 1)
    return LoadedClips(query, offsets), LoadedClips(key, offsets)


def test_clips_of_which_only_played_frames_are_loaded_play_the_same() -> None:
    span = torch.arange(12.0)[None, None, :, None, None].repeat(2, 3, 1, 2, 2)  # (2, 3, 12, 2, 2), each pixel its frame's number
    whole = LoadedClips(span, torch.arange(12).repeat(2, 1))
    fast = torch.tensor([True, False])
    both = torch.tensor([0, 1, 2, 3, 6, 9])
    key = LoadedClips(span[:, :, both], both.repeat(2, 1))
    own = torch.tensor([[0, 3, 6, 9], [0, 1, 2, 3]])
    query = LoadedClips(torch.stack([span[row][:, own[row]] for row in range(2)]), own)
    for who, clips in ((fast, key), (~fast, key), (fast, query)):
        assert torch.equal(play(clips, who, speed=3, frames=4), play(whole, who, speed=3, frames=4))


def test_played_clips_begin_on_the_same_frame_and_skip_frames_where_fast() -> None:
    # Each pixel is its frame's number; in memory as augmentation gives it.
    clips = torch.arange(12.0)[None, :, None, None, None].repeat(2, 1, 2, 2, 3).permute(0, 4, 1, 2, 3)  # (2, 3, 12, 2, 2)
    fast = torch.tensor([True, False])
    played = play(LoadedClips(clips, torch.arange(12).repeat(2, 1)), fast, speed=3, frames=4)
    assert played.shape == (2, 3, 4, 2, 2)
    assert played[0, :, :, 0, 0].tolist() == [[0, 3, 6, 9]] * 3
    assert played[1, :, :, 1, 1].tolist() == [[0, 1, 2, 3]] * 3
    assert played.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.usefixtures("_double")
def test_the_queue_of_a_step_is_that_before_it() -> None:
    """The step's own keys are no negatives of it, neither in the loss nor in its gradient."""
    config = settings()
    moco, _ = start(config)
    clips = torch.randn(2 * BATCH, 3, 12, SIZE, SIZE, dtype=torch.float64)
    draw = draw_step(BATCH, speeds=(2,), seed=0, epoch=0, step=0)
    twin = copy.deepcopy(moco)
    figures = rspnet_step(moco, query_projection(moco, CPU), *loaded(clips), torch.arange(BATCH), draw, config, momentum=0.9)
    assert not torch.equal(moco.queue, twin.queue)
    twin.enqueue = lambda keys, videos: None  # type: ignore[method-assign]
    others = rspnet_step(twin, query_projection(twin, CPU), *loaded(clips), torch.arange(BATCH), draw, config, momentum=0.9)
    assert figures == others
    for one, two in zip(moco.query.parameters(), twin.query.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


@pytest.mark.usefixtures("_double")
def test_every_part_of_the_encoder_learns_from_its_own_loss() -> None:
    for weights, silent in (({"avid_weight": 0.0}, "head_a"), ({"rsp_weight": 0.0}, "head_m")):
        config = settings(objective=weights)
        moco, _ = start(config)
        clips = torch.randn(2 * BATCH, 3, 12, SIZE, SIZE, dtype=torch.float64)
        draw = draw_step(BATCH, speeds=(2,), seed=0, epoch=0, step=0)
        rspnet_step(moco, query_projection(moco, CPU), *loaded(clips), torch.arange(BATCH), draw, config, momentum=0.9)
        sizes = {name: 0.0 if value.grad is None else float(value.grad.abs().max()) for name, value in moco.query.named_parameters()}
        assert all(size == 0 for name, size in sizes.items() if name.startswith(silent))
        assert all(size > 0 for name, size in sizes.items() if not name.startswith(silent) and "conv1.bias" not in name), sizes
        assert all(parameter.grad is None for parameter in nn.Module.parameters(moco.key))


def test_similarities_are_float32_where_the_encoders_compute_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16's 8 bits, divided by a temperature of 0.1, would be steps of 0.04 in the logits."""
    config = settings(run={"precision": "bf16"})
    moco, _ = start(config)
    moco.float()
    differences = []

    def compared(query: Tensor, key: Tensor, other: Tensor, queue: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
        found = instance_loss(query, key, other, queue, **how)
        exact = instance_loss(query.double(), key.double(), other.double(), queue.double(), **how)
        differences.append((found[1] - exact[1]).abs().max().item())
        return found

    monkeypatch.setattr(training_step, "instance_loss", compared)
    clips = torch.randn(2 * BATCH, 3, 12, SIZE, SIZE)
    draw = draw_step(BATCH, speeds=(2,), seed=0, epoch=0, step=0)
    rspnet_step(moco, query_projection(moco, CPU), *loaded(clips), torch.arange(BATCH), draw, config, momentum=0.9)
    assert 0 < differences[0] < 1e-4
