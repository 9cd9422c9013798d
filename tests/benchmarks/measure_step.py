"""The training step: ours against one written straight down, on the same clips, weights and losses.

The straightforward step is what a good engineer writes first: contiguous tensors, the paper's equations, a loop over the parameters for the
moving average, `torch.optim.SGD` as it comes. Both have the batch augmented and in memory; ours also logs the figures that a run logs.
On a GPU ours begins with the bytes of the loader in page-locked memory, and the straightforward one still with clips on the device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.clips.crops import Crops
from rspnet_cli.clips.dataset import ClipBatch
from rspnet_cli.clips.draws import StepDraw, clip_rng, draw_clip, draw_step
from rspnet_cli.clips.prefetch import prefetched
from rspnet_cli.clips.sampling import played_frames
from rspnet_cli.config import AugmentConfig, PretrainConfig
from rspnet_cli.devices import clip_dtype, computes_bf16
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.moco import MoCo, query_projection
from rspnet_cli.stages.bench.clock import clock_of, device_name
from rspnet_cli.timing import listening, timed
from rspnet_cli.training.loop import take_step
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.pretraining import ready_to_train
from rspnet_cli.training.step import LoadedClips, rspnet_step
from rspnet_cli.videos.planes import Box, Planes
from tests.benchmarks.comparison import Row, rates
from tests.crops import Crop, pack

SPEED, QUEUE = 2, 16384
STORED = (128, 170)  # height and width of stored frames
# What was measured before this code was there: (fp32 over straightforward, bf16 over our fp32).
TARGETS = {"r3d18": ("1.0", "1.7"), "c3d": ("1.15", "1.7")}


@dataclass(frozen=True)
class Task:
    """What is trained, and where."""

    backbone: str
    batch: int = 4
    frames: int = 16
    side: int = 112
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __str__(self) -> str:
        return f"{self.backbone}, batch {self.batch}, {self.frames}x{self.side}x{self.side}"

    def config(self, precision: str, *, compile_: bool = False) -> PretrainConfig:
        """The settings of its training."""
        return PretrainConfig.model_validate(
            {
                "model": {"backbone": self.backbone},
                "clip": {"frames": self.frames, "size": self.side, "speeds": (SPEED,)},
                "moco": {"queue_size": QUEUE},
                "optim": {"batch_size": self.batch},
                "run": {"precision": precision, "compile": compile_},
            }
        )

    def draw(self) -> StepDraw:
        """Who plays fast."""
        return draw_step(self.batch, speeds=(SPEED,), seed=0, epoch=0, step=0)


def measure() -> list[Row]:
    """Rows for r3d18 and c3d on the CPU with its threads, and on a GPU where there is one."""
    rows = _on_cpu()
    if torch.cuda.is_available():
        for backbone in TARGETS:
            rows += _largest(backbone, torch.device("cuda"))
    else:
        print("step: no CUDA device here, so bfloat16 with compiled encoders and batches sent ahead is not measured")
    return rows


def _on_cpu() -> list[Row]:
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    for backbone, (fp32, bf16) in TARGETS.items():
        task = Task(backbone)
        steps = {"ours": _ours(task, "fp32"), "straightforward": _straightforward(task)}
        if computes_bf16(task.device):
            steps["bf16"] = _ours(task, "bf16")
        _check_equal(task)
        found = rates(steps, amount=task.batch, repeats=5)
        what = f"{task}, {torch.get_num_threads()} threads"
        rows.append(Row("step", f"{what}, fp32", "videos/s", found["ours"], "straightforward", found["straightforward"], f"≥ {fp32}"))
        if "bf16" in found:
            rows.append(Row("step", f"{what}, bf16", "videos/s", found["bf16"], "our fp32", found["ours"], f"≥ {bf16}"))
    return rows


def _largest(backbone: str, device: torch.device) -> list[Row]:
    """The published batch of one GPU, or as much of it as the straightforward step has memory for."""
    for batch in (64, 32, 16):
        rows = _tried(Task(backbone, batch, device=device))
        if rows:
            return rows
        torch.cuda.empty_cache()
    return []


def _tried(task: Task) -> list[Row]:
    try:
        return on_gpu(task)
    except torch.OutOfMemoryError:
        print(f"step: the GPU has not enough memory for {task}")
        return []


def on_gpu(task: Task, *, compile_: bool = True, precision: str = "bf16", steps: int = 10, repeats: int = 5) -> list[Row]:
    """Our whole step, from the loader's bytes on, against the straightforward step in float32 alone; prints where ours spends its time.

    float32 is what torch makes of it: its convolutions are TF32 on GPUs that have that.
    """
    with closing(_batches(task)) as source:
        ours, theirs = _whole(task, source, precision, compile_=compile_), _straightforward(task)

        def several(step: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                for _ in range(steps):
                    step()
                _wait(task.device)

            return run

        contenders = {"ours": several(ours), "straightforward": several(theirs)}
        for run in contenders.values():  # beside the round of `rates`: cuDNN and the compiler choose among kernels
            run()
        found = rates(contenders, amount=steps * task.batch, repeats=repeats)
        clock = clock_of(task.device)
        with listening(clock):
            clock.mark()
            for _ in range(2 * steps):
                ours()
            clock.mark()
        (whole_s,), parts_s = clock.laps_s(), clock.parts_s()
    passes = sum(parts_s.get(part, 0.0) for part in ("key forwards", "query forward", "backward")) / whole_s
    augmentation, transfer = (parts_s.get(part, 0.0) / whole_s for part in ("augmentation", "transfer"))
    print(f"step: {task}: {passes:.3f} of the step in the encoders' passes (wanted: ≥ 0.9), {augmentation:.3f} augments (≤ 0.03), ", end="")
    print(f"{transfer:.3f} waits for batches on their way")
    what = f"{task}, {precision}, bytes to weights, {device_name(task.device)}"
    return [Row("step", what, "videos/s", found["ours"], "straightforward fp32 on clips in memory", found["straightforward"], "≥ 3")]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _batches(task: Task) -> Generator[ClipBatch]:
    """Batches without end as the loader hands them over: YUV planes of noise, the frames that are played, crops of different sizes."""
    draw, rng = task.draw(), np.random.default_rng(0)
    played = [[played_frames(task.frames, fast=fast, speed=SPEED) for fast in (own, not own)] for own in draw.fast.tolist()]
    offsets = ([own for own, _ in played], [np.union1d(own, other) for own, other in played])  # of queries, of keys

    def crops(number: int, spans: list[np.ndarray], first: int) -> Crops:
        clips = []
        for video, span in enumerate(spans):
            clip = draw_clip(*STORED, AugmentConfig(), clip_rng(0, 0, first + video, number))
            planes = Planes.empty(len(span), Box(*clip.box).even)
            for part in (planes.luma, planes.chroma):
                part[...] = rng.integers(0, 256, part.shape, np.uint8)
            clips.append(Crop(planes, span, clip))
        return pack(clips, [False] * task.batch)

    made = []
    for first in range(0, 3 * task.batch, task.batch):
        clips = tuple(crops(number, spans, first) for number, spans in enumerate(offsets))
        batch = ClipBatch(clips, torch.arange(first, first + task.batch))
        made.append(batch.pin_memory() if task.device.type == "cuda" else batch)
    yield from cycle(made)


def _whole(task: Task, loaded: Generator[ClipBatch], precision: str, *, compile_: bool) -> Callable[[], None]:
    """Our step as `rspnet pretrain` does it on a GPU, from page-locked bytes to the renewed weights."""
    config, device = task.config(precision, compile_=compile_), task.device
    moco = ready_to_train(_moco(config), config, device)
    optimizer, project, draw = build_optimizer(config.optim, moco.query), query_projection(moco, device), task.draw()
    dtype = clip_dtype(precision, device)
    augmentation = Augmentation(task.side, False, config.augment.order, device, dtype=dtype, fused=compile_)
    source = prefetched(loaded, augmentation.ready_batch, device)

    def augmented(crops: Crops) -> LoadedClips:
        with timed("augmentation"):
            return LoadedClips(augmentation(crops), crops.offsets)

    def step() -> None:
        batch = next(source)
        query, key = (augmented(crops) for crops in batch.clips)

        def gradients() -> tuple[Tensor, ...]:
            return rspnet_step(moco, project, query, key, batch.videos, draw, config, momentum=config.moco.momentum)

        take_step(gradients, moco, optimizer, rate=config.optim.lr)

    return step


def _clips(task: Task) -> tuple[Tensor, Tensor]:
    """Query and key clips (B, 3, s T, S, S) float32, in our memory layout."""
    generator = torch.Generator().manual_seed(0)
    shape = (task.batch, SPEED * task.frames, task.side, task.side, 3)
    query, key = (torch.randn(shape, generator=generator).to(task.device).permute(0, 4, 1, 2, 3) for _ in range(2))
    return query, key


def _moco(config: PretrainConfig) -> MoCo:
    torch.manual_seed(0)
    return MoCo(Encoder(config.model.backbone, head=config.model.head), embedding_dim=128, queue_size=QUEUE)


def _ours(task: Task, precision: str, losses: list[float] | None = None) -> Callable[[], None]:
    """Our step as `rspnet pretrain` does it on a CPU, from the augmented clips to the renewed weights."""
    config = task.config(precision)
    moco = _moco(config).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    project = query_projection(moco, torch.device("cpu"))
    optimizer = build_optimizer(config.optim, moco.query)
    offsets = torch.arange(SPEED * task.frames).expand(task.batch, -1).contiguous()
    query, key = (LoadedClips(clips, offsets) for clips in _clips(task))
    videos, draw = torch.arange(task.batch), task.draw()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        figures = rspnet_step(moco, project, query, key, videos, draw, config, momentum=config.moco.momentum)
        torch.nn.utils.get_total_norm([p.grad for p in moco.query.parameters() if p.grad is not None])
        optimizer.step()
        if losses is not None:
            losses.append(figures.loss.item())

    return step


def _straightforward(task: Task, losses: list[float] | None = None) -> Callable[[], None]:
    """The same step, written straight down."""
    config, batch, device = task.config("fp32"), task.batch, task.device
    start = _moco(config).to(device)
    query_encoder, key_encoder, queue = start.query, start.key, start.queue.clone()
    optim = config.optim
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=optim.lr, momentum=optim.sgd_momentum, weight_decay=optim.weight_decay)
    query_frames, key_frames = (clips.contiguous() for clips in _clips(task))
    fast = torch.from_numpy(task.draw().fast).to(device)
    temperature, margin, pointer = config.moco.temperature, config.objective.margin, 0

    def embed(encoder: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
        features = encoder.backbone(clips)
        return F.normalize(encoder.head_a(features), dim=1), F.normalize(encoder.head_m(features), dim=1)

    def at_speeds(frames: Tensor, fast: Tensor) -> Tensor:
        return torch.where(fast[:, None, None, None, None], frames[:, :, ::SPEED], frames[:, :, : task.frames])

    def step() -> None:
        nonlocal pointer
        with torch.no_grad():
            for ours, theirs in zip(key_encoder.parameters(), query_encoder.parameters(), strict=True):
                ours.data = ours.data * config.moco.momentum + theirs.data * (1 - config.moco.momentum)
            other_a, other_m = embed(key_encoder, at_speeds(key_frames, ~fast))
            key_a, key_m = embed(key_encoder, at_speeds(key_frames, fast))
        query_a, query_m = embed(query_encoder, at_speeds(query_frames, fast))
        first = torch.zeros(batch, dtype=torch.long, device=device)
        loss = torch.zeros((), device=device)
        for keys in (key_a, other_a):
            positive = torch.einsum("nc,nc->n", query_a, keys)[:, None]
            negative = torch.einsum("nc,ck->nk", query_a, queue.clone())
            loss = loss + config.objective.avid_weight * F.cross_entropy(torch.cat([positive, negative], 1) / temperature, first)
        gap = ((query_m * key_m).sum(1) - (query_m * other_m).sum(1)) / temperature
        zeros, ones = torch.zeros(batch, device=device), torch.ones(batch, device=device)
        loss = loss + config.objective.rsp_weight * F.margin_ranking_loss(gap, zeros, ones, margin=margin)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[:, pointer : pointer + batch] = other_a.T
        pointer = (pointer + batch) % QUEUE
        if losses is not None:
            losses.append(loss.item())

    return step


def _check_equal(task: Task) -> None:
    """The first losses of both, which a wrong gradient, average or queue would set apart."""
    ours: list[float] = []
    theirs: list[float] = []
    for step in (_ours(task, "fp32", ours), _straightforward(task, theirs)):
        step()
        step()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, err_msg="the two steps compute different losses")
