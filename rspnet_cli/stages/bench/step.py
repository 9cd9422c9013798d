"""bench step: the very steps that pretrain would take, batches of its loader included."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import count

import torch

from rspnet_cli.clips.dataset import ClipBatch
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import computes_bf16, warn_of_emulated_bf16
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.moco import MoCo
from rspnet_cli.progress import duration
from rspnet_cli.stages.bench.clock import clock_of, kind_of, write_trace
from rspnet_cli.stages.bench.convolutions import best_rate, flops_per_video
from rspnet_cli.stages.bench.measured import MIN_REPEATS, READING, Measured, Rate, Request, percent, repeats, share_of, shares
from rspnet_cli.stages.bench.training_clips import TrainingClips, codec_of, more_clips, open_training_clips
from rspnet_cli.timing import Part, listening, timed
from rspnet_cli.training.fit import compiles_augmentation, prepare_compiling
from rspnet_cli.training.loop import take_step
from rspnet_cli.training.optimiser import build_optimizer, learning_rate
from rspnet_cli.training.pretraining import build_moco, pretraining_step, ready_to_train
from rspnet_cli.usage import forget_peak, peak_bytes

# What the workers have read ahead by then is used up first, or a slow loader would look fast. Not for longer than WARM_UP_S.
_WARM_UP_STEPS, _WARM_UP_S = 3, 30.0
_LONG_S = 120.0
_PASSES: tuple[Part, ...] = ("key forwards", "query forward", "backward")
# What a share has to be for a verdict.
_WAITS, _COMPUTES, _FASTER = 0.1, 0.6, 1.3


def bench_step(request: Request) -> Measured:
    """Measure training steps, and what share of the machine's best convolution rate they reach. Raises InputError."""
    training = open_training_clips(request)
    config, device, report = training.config, training.device, request.report
    warn_of_emulated_bf16(config.run.precision, device, report)
    if config.run.compile:
        prepare_compiling("bench step", device, report)
    if compiles_augmentation("bench step", training.clips.augmentation, report):
        training.clips.compile()
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = clock_of(device)
    with closing(training.clips.batches((0, 0))) as source:
        take, moco = _steps(training, source)
        _warm_up(take, training, request)
        with listening(clock):
            clock.mark()
            for _ in report.track(repeats(request.steps, most_s=math.inf), total=request.steps, unit="steps", name="step"):
                take()
                clock.mark()
        laps_s, parts = clock.laps_s(), shares(clock.parts_s())
        memory = {"host": peak_bytes(), "gpu": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}
        if request.trace is not None:
            write_trace(request.trace, device, take)
    batch_size = config.optim.batch_size
    rate = Rate.of_laps([batch_size] * len(laps_s), laps_s, "videos/s", bursts=config.run.workers or 1)
    in_passes = share_of(parts, _PASSES)
    convolutions = _convolutions(config, device, moco.query, rate.median, in_passes)
    return Measured(
        setup=training.setup
        | {
            "backbone": config.model.backbone,
            "width": config.model.width,
            "precision": config.run.precision,
            "compile": config.run.compile,
            "threads": torch.get_num_threads(),
        },
        rate=rate,
        parts=parts,
        figures={
            "step_s": batch_size / rate.median,
            "clips_per_s": 2 * rate.median,
            "data_wait": share_of(parts, READING),
            "in_passes": in_passes,
            "convolutions": convolutions,
        },
        memory=memory,
        verdict=_verdict(training, parts, convolutions),
    )


def _steps(training: TrainingClips, source: Generator[ClipBatch]) -> tuple[Callable[[], None], MoCo]:
    """A function that takes the next step of a new training, and the encoders that it trains."""
    config, clips = training.config, training.clips
    moco = ready_to_train(build_moco(config), config, training.device)
    optimizer = build_optimizer(config.optim, moco.query)
    step = pretraining_step(moco, clips)
    positions = (divmod(number, clips.steps_per_epoch) for number in count())

    def take() -> None:
        epoch, number = next(positions)
        with timed("other"):
            batch = next(source)
            take_step(lambda: step(batch, epoch, number), moco, optimizer, rate=learning_rate(config.optim, 0))

    return take, moco


def _warm_up(take: Callable[[], None], training: TrainingClips, request: Request) -> None:
    """Steps that do not count. Says so when the measured ones will last long."""
    began, warned = time.perf_counter(), False
    for done in range(max(_WARM_UP_STEPS, training.clips.read_ahead)):
        before = time.perf_counter()
        take()
        if training.device.type == "cuda":
            torch.cuda.synchronize(training.device)
        now = time.perf_counter()
        expected_s = (request.steps or MIN_REPEATS) * (now - before)
        # The first step starts workers and compiles: it tells something only where it is very long.
        if not warned and expected_s > _LONG_S and (done > 0 or now - began > _WARM_UP_S):
            request.report.warn(
                f"bench step: a step takes {now - before:.2g} s, so this takes {duration(expected_s)} or so: a smaller "
                "--batch-size, fewer --steps or --recipe small-cpu would take less."
            )
            warned = True
        if now - began > _WARM_UP_S:
            return


def _convolutions(
    config: PretrainConfig, device: torch.device, encoder: Encoder, videos_per_s: float, in_passes: float
) -> dict[str, float]:
    """FLOP/s of the convolutions beside the best of a single one, over the whole step and over the encoders' passes alone.

    bfloat16 without instructions for it has no best: minutes would go by to learn that it is slow.
    """
    per_video = flops_per_video(encoder, frames=config.clip.frames, size=config.clip.size)
    reached = per_video * videos_per_s
    figures = {"flop_per_video": per_video, "flop_per_s": reached}
    if config.run.precision == "fp32" or computes_bf16(device):
        best = best_rate(device, config.run.precision)
        figures["best_flop_per_s"], figures["share_of_best"] = best, reached / best
        figures["share_of_best_in_passes"] = reached / best / in_passes if in_passes > 0 else 0.0
    if config.run.precision == "fp32" and device.type != "mps" and computes_bf16(device):
        figures["best_flop_per_s_bf16"] = best_rate(device, "bf16")
    return figures


def _verdict(training: TrainingClips, parts: dict[Part, float], convolutions: dict[str, float]) -> str:
    """What limits the step, and what to type."""
    config, wait = training.config, share_of(parts, READING)
    if wait >= _WAITS:
        workers = config.run.workers or 0
        needed = math.ceil(max(workers, 1) / max(1 - wait, 0.05))
        return f"The loader limits: the step waits {percent(wait)} of its time; {more_clips(codec_of(training.table), workers, needed)}."
    in_passes = share_of(parts, _PASSES)
    if in_passes < _COMPUTES:
        largest = max((part for part in parts if part not in (*_PASSES, *READING)), key=lambda part: parts[part])
        name = "what has no name" if largest == "other" else largest
        return f"Not loader or convolutions limit but {name} ({percent(parts[largest])} of the step); {_advice(largest)}."
    if "best_flop_per_s" not in convolutions:
        return f"The {kind_of(training.device)} limits: it has no instructions for bfloat16; --precision fp32 would be faster."
    reached = f"{percent(in_passes)} of the step is in the encoders' passes, at {percent(convolutions['share_of_best_in_passes'])} of the "
    reached += "best rate of a convolution here"
    faster = convolutions.get("best_flop_per_s_bf16", 0.0) / convolutions["best_flop_per_s"]
    advice = []
    if faster >= _FASTER:
        advice.append(f"--precision bf16 would help, in which a convolution is {faster:.1f}x as fast here")
    if training.device.type == "cuda" and not config.run.compile:
        advice.append("--compile may help")
    if not advice:
        on_cpu = "--device cuda, where there is one, or --recipe small-cpu would be faster"
        advice.append(on_cpu if training.device.type == "cpu" else "more GPUs are used by torchrun")
    return f"The {kind_of(training.device)} limits: {reached}; {', and '.join(advice)}."


def _advice(part: Part) -> str:
    """What makes less of a part."""
    return {
        "augmentation": "--device cuda does it in a few kernels, --set clip.size=N makes it less",
        "objective": "a smaller --set moco.queue_size=N makes it less",
    }.get(part, "a larger --batch-size makes fewer, longer steps, and --compile fewer kernels")
