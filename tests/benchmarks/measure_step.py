"""The training step: ours against one written straight down, on the same clips, weights and losses.

The straightforward step is what a good engineer writes first: contiguous tensors, the paper's equations, a loop over the parameters for the
moving average, `torch.optim.SGD` as it comes. Both have the batch augmented and in memory; ours also logs the figures that a run logs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.clips.draws import draw_step
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import computes_bf16
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.moco import MoCo, query_projection
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.step import LoadedClips, rspnet_step
from tests.benchmarks.comparison import Row, rates

BATCH, FRAMES, SIDE, SPEED = 4, 16, 112, 2
QUEUE = 16384
# What was measured before this code was there: (fp32 over straightforward, bf16 over our fp32).
TARGETS = {"r3d18": ("1.0", "1.7"), "c3d": ("1.15", "1.7")}


def measure() -> list[Row]:
    """Rows for r3d18 and c3d on the CPU with its threads, and on a GPU where there is one."""
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    for backbone, (fp32, bf16) in TARGETS.items():
        steps = {"ours": _ours(backbone, "fp32"), "straightforward": _straightforward(backbone)}
        if computes_bf16(torch.device("cpu")):
            steps["bf16"] = _ours(backbone, "bf16")
        _check_equal(backbone)
        found = rates(steps, amount=BATCH, repeats=5)
        what = f"{backbone}, batch {BATCH}, {FRAMES}x{SIDE}x{SIDE}, {torch.get_num_threads()} threads"
        rows.append(Row("step", f"{what}, fp32", "videos/s", found["ours"], "straightforward", found["straightforward"], f"≥ {fp32}"))
        if "bf16" in found:
            rows.append(Row("step", f"{what}, bf16", "videos/s", found["bf16"], "our fp32", found["ours"], f"≥ {bf16}"))
    return rows


def _clips() -> tuple[Tensor, Tensor]:
    """Query and key clips (B, 3, s T, S, S) float32, in our memory layout."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, SPEED * FRAMES, SIDE, SIDE, 3)
    return tuple(torch.randn(shape, generator=generator).permute(0, 4, 1, 2, 3) for _ in range(2))  # type: ignore[return-value]


def _config(backbone: str, precision: str) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "model": {"backbone": backbone},
            "clip": {"frames": FRAMES, "size": SIDE, "speeds": (SPEED,)},
            "moco": {"queue_size": QUEUE},
            "optim": {"batch_size": BATCH},
            "run": {"precision": precision},
        }
    )


def _moco(config: PretrainConfig) -> MoCo:
    torch.manual_seed(0)
    return MoCo(Encoder(config.model.backbone, head=config.model.head), embedding_dim=128, queue_size=QUEUE)


def _ours(backbone: str, precision: str, losses: list[float] | None = None) -> Callable[[], None]:
    """Our step as `rspnet pretrain` does it, from the augmented clips to the renewed weights."""
    config = _config(backbone, precision)
    moco = _moco(config).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    project = query_projection(moco, torch.device("cpu"))
    optimizer = build_optimizer(config.optim, moco.query)
    offsets = torch.arange(SPEED * FRAMES).expand(BATCH, -1).contiguous()
    query, key = (LoadedClips(clips, offsets) for clips in _clips())
    videos = torch.arange(BATCH)
    draw = draw_step(BATCH, speeds=(SPEED,), seed=0, epoch=0, step=0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        figures = rspnet_step(moco, project, query, key, videos, draw, config, momentum=config.moco.momentum)
        torch.nn.utils.get_total_norm([p.grad for p in moco.query.parameters() if p.grad is not None])
        optimizer.step()
        if losses is not None:
            losses.append(figures.loss.item())

    return step


def _straightforward(backbone: str, losses: list[float] | None = None) -> Callable[[], None]:
    """The same step, written straight down."""
    config = _config(backbone, "fp32")
    start = _moco(config)
    query_encoder, key_encoder, queue = start.query, start.key, start.queue.clone()
    optim = config.optim
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=optim.lr, momentum=optim.sgd_momentum, weight_decay=optim.weight_decay)
    query_frames, key_frames = (clips.contiguous() for clips in _clips())
    fast = torch.from_numpy(draw_step(BATCH, speeds=(SPEED,), seed=0, epoch=0, step=0).fast)
    temperature, margin, pointer = config.moco.temperature, config.objective.margin, 0

    def embed(encoder: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
        features = encoder.backbone(clips)
        return F.normalize(encoder.head_a(features), dim=1), F.normalize(encoder.head_m(features), dim=1)

    def at_speeds(frames: Tensor, fast: Tensor) -> Tensor:
        return torch.where(fast[:, None, None, None, None], frames[:, :, ::SPEED], frames[:, :, :FRAMES])

    def step() -> None:
        nonlocal pointer
        with torch.no_grad():
            for ours, theirs in zip(key_encoder.parameters(), query_encoder.parameters(), strict=True):
                ours.data = ours.data * config.moco.momentum + theirs.data * (1 - config.moco.momentum)
            other_a, other_m = embed(key_encoder, at_speeds(key_frames, ~fast))
            key_a, key_m = embed(key_encoder, at_speeds(key_frames, fast))
        query_a, query_m = embed(query_encoder, at_speeds(query_frames, fast))
        first = torch.zeros(BATCH, dtype=torch.long)
        loss = torch.zeros(())
        for keys in (key_a, other_a):
            positive = torch.einsum("nc,nc->n", query_a, keys)[:, None]
            negative = torch.einsum("nc,ck->nk", query_a, queue.clone())
            loss = loss + config.objective.avid_weight * F.cross_entropy(torch.cat([positive, negative], 1) / temperature, first)
        gap = ((query_m * key_m).sum(1) - (query_m * other_m).sum(1)) / temperature
        loss = loss + config.objective.rsp_weight * F.margin_ranking_loss(gap, torch.zeros(BATCH), torch.ones(BATCH), margin=margin)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[:, pointer : pointer + BATCH] = other_a.T
        pointer = (pointer + BATCH) % QUEUE
        if losses is not None:
            losses.append(loss.item())

    return step


def _check_equal(backbone: str) -> None:
    """The first losses of both, which a wrong gradient, average or queue would set apart."""
    ours: list[float] = []
    theirs: list[float] = []
    for step in (_ours(backbone, "fp32", ours), _straightforward(backbone, theirs)):
        step()
        step()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, err_msg="the two steps compute different losses")
