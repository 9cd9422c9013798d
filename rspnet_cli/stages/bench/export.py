"""bench export: clips through the loader and the encoder of export-features, beside the bare forward pass of the same batches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.config import ExportConfig
from rspnet_cli.devices import computes_bf16, default_workers, resolve_device, resolve_precision, warn_of_emulated_bf16
from rspnet_cli.encoder.load import PretrainedEncoder, TrainedAs, load_encoder, ready_to_encode
from rspnet_cli.evaluation.encoding import clip_features, clips_of, input_of
from rspnet_cli.evaluation.features import describe_videos, load_clips, split_pieces
from rspnet_cli.manifest import MANIFEST
from rspnet_cli.stages.bench.clock import clock_of, device_name, kind_of, write_trace
from rspnet_cli.stages.bench.measured import READING, Measured, Rate, Request, open_extraction, percent, repeats, share_of, shares
from rspnet_cli.stages.bench.training_clips import codec_of, more_clips
from rspnet_cli.timing import Part, listening, timed
from rspnet_cli.usage import forget_peak, peak_bytes
from rspnet_cli.videos.frames import FramesTable, read_frames

_WARM_UP_BATCHES = 3
# Batches whose forward pass is measured alone; they stay in memory.
_KEPT_BATCHES = 4
_BARE_S = 5.0
_MOST_ROWS = 100_000
# A wait of so much is worth more workers.
_WAITS = 0.1


def bench_export(request: Request) -> Measured:
    """Measure the description of videos, by the encoder of the work directory or an untrained one. Raises InputError."""
    table = read_frames(open_extraction(request))
    device = resolve_device(request.export.device)
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    encoder, source = _encoder(request, device)
    workers = default_workers(device) if request.export.workers is None else request.export.workers
    config = request.export.model_copy(update={"precision": resolve_precision(request.export.precision, device), "workers": workers})
    warn_of_emulated_bf16(config.precision, device, request.report)
    clock, run = clock_of(device), _Run(encoder, config, table)
    with closing(run):
        run.describe(range(_WARM_UP_BATCHES), mark=None)
        kept, sizes = run.batches[:_KEPT_BATCHES], run.sizes
        sizes.clear()
        with listening(clock):
            clock.mark()
            progress = request.report.track(repeats(request.steps), total=request.steps, unit="batches", name="export")
            run.describe(progress, mark=clock.mark)
        if request.trace is not None:
            write_trace(request.trace, device, lambda: run.describe(range(1), mark=None))
    laps_s = clock.laps_s()
    rate, parts = Rate.of_laps(sizes[: len(laps_s)], laps_s, "clips/s", bursts=workers), shares(clock.parts_s())
    bare = _bare_rate(encoder, config, kept, request)
    of_bare = sum(sizes[: len(laps_s)]) / sum(laps_s) / bare
    return Measured(
        setup={
            "encoder": source,
            "backbone": encoder.backbone_name,
            "device": device_name(device),
            "videos": len(table),
            "codec": codec_of(table),
            "clip": f"{encoder.frames}x{encoder.size}x{encoder.size}",
            "clips": config.clips,
            "batch_size": config.batch_size,
            "precision": config.precision,
            "workers": workers,
        },
        rate=rate,
        parts=parts,
        figures={
            "videos_per_s": rate.median / config.clips,
            "data_wait": share_of(parts, READING),
            "bare_clips_per_s": bare,
            "of_bare_rate": of_bare,
        },
        memory={"host": peak_bytes(), "gpu": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None},
        verdict=_verdict(config, device, codec_of(table), parts, of_bare),
    )


def _encoder(request: Request, device: torch.device) -> tuple[PretrainedEncoder, str]:
    """The encoder of the work directory's pretraining, else an untrained one of the settings, which takes as long."""
    folder = request.work_dir / "pretrain"
    if (folder / MANIFEST).exists():
        return load_encoder(folder, device=str(device)), "pretrain"
    with torch.random.fork_rng(devices=[]):
        encoder = PretrainedEncoder(TrainedAs.by_pretraining(request.config.model, request.config.clip))
    return ready_to_encode(encoder, device), "untrained: there is no pretrain"


class _Enough(Exception):
    """So many batches were wanted."""


class _Run:
    """The export of a table's videos, over and over, in runs of so many batches."""

    def __init__(self, encoder: PretrainedEncoder, config: ExportConfig, table: FramesTable) -> None:
        self.encoder, self.config = encoder, config
        self.batches: list[Tensor] = []
        """The first few as the encoder gets them."""
        self.sizes: list[int] = []
        """Clips of each batch."""
        # As of a set of so many videos: a small one has pieces that fill no batch.
        self._piece = len(split_pieces(_MOST_ROWS, clips=config.clips, batch_size=config.batch_size)[0])
        rows = np.resize(np.arange(len(table)), _MOST_ROWS).tolist()
        clips, pin_memory = clips_of(encoder, table.files, config.clips), encoder.device.type == "cuda"
        self._videos = load_clips(clips, rows, workers=config.workers or 0, pin_memory=pin_memory)

    def describe(self, wanted: Iterable[int], *, mark: Callable[[], None] | None) -> None:
        """Describe so many batches. mark: called after each."""
        left = iter(wanted)
        next(left)

        def forward(batch: Tensor) -> Tensor:
            if len(self.batches) < _KEPT_BATCHES:
                self.batches.append(batch.clone())  # its memory is the next one's
            features = clip_features(self.encoder, self.config, batch)
            self.sizes.append(len(batch))
            if mark is not None:
                mark()
            if next(left, None) is None:
                raise _Enough
            return features

        described = describe_videos(
            forward, self._videos, repeat(self._piece), batch_size=self.config.batch_size, clip_input=input_of(self.encoder)
        )
        with suppress(_Enough), timed("other"):
            deque(described, maxlen=0)

    def close(self) -> None:
        """End the loader's processes."""
        self._videos.close()


def _bare_rate(encoder: PretrainedEncoder, config: ExportConfig, batches: Sequence[Tensor], request: Request) -> float:
    """Clips per second of the forward pass alone, over batches that lie on the device."""
    clock, sizes = clock_of(encoder.device), []
    with torch.inference_mode():
        clip_features(encoder, config, batches[0])
        clock.mark()
        for number in repeats(request.steps, at_least=_KEPT_BATCHES, target_s=_BARE_S):
            batch = batches[number % len(batches)]
            clip_features(encoder, config, batch)
            sizes.append(len(batch))
            clock.mark()
    return sum(sizes) / sum(clock.laps_s())


def _verdict(config: ExportConfig, device: torch.device, codec: str, parts: dict[Part, float], of_bare: float) -> str:
    """What limits the export, and what to type."""
    wait = share_of(parts, READING)
    if wait >= _WAITS:
        workers = config.workers or 0
        needed = math.ceil(max(workers, 1) / max(1 - wait, 0.05))
        return f"The loader limits: the encoder waits {percent(wait)} of its time; {more_clips(codec, workers, needed)}."
    largest = max((part for part in parts if part not in READING), key=lambda part: parts[part])
    if largest != "forward":
        return f"Not the encoder limits but {largest} ({percent(parts[largest])} of the time); a larger --batch-size may help."
    faster = "a larger --batch-size may be faster"
    if config.precision == "fp32" and computes_bf16(device):
        faster = "--precision bf16 may be faster"
    elif config.precision == "bf16" and not computes_bf16(device):
        faster = "--precision fp32 would be faster"
    reached = f"{percent(parts[largest])} of the time is the forward pass, and {percent(of_bare)} of its bare rate is reached"
    return f"The {kind_of(device)} limits: {reached}; {faster}."
