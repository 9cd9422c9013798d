"""The clips of the training that loader and step are measured on: pretrain's own, from the extraction in the work directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import num_cpus, resolve_device
from rspnet_cli.stages.bench.clock import device_name
from rspnet_cli.stages.bench.measured import Request, open_extraction
from rspnet_cli.training.fit import resolve
from rspnet_cli.training.paired_clips import PairedClips, training_rows
from rspnet_cli.training.pretraining import check_clips
from rspnet_cli.videos.frames import FramesTable, read_frames

# More epochs than anybody waits for: a measurement ends by itself.
_ENDLESS = 1_000_000_000


@dataclass(frozen=True)
class TrainingClips:
    """The resolved settings, the extraction, and clips without end, none of whose files is hashed (as from the second epoch on)."""

    config: PretrainConfig
    device: torch.device
    table: FramesTable
    clips: PairedClips

    @property
    def setup(self) -> dict[str, Any]:
        """What measurements of the loader and of the step have in common."""
        clip = self.config.clip
        return {
            "device": device_name(self.device),
            "videos": len(self.clips.rows),
            "codec": codec_of(self.table),
            "clip": f"{clip.frames}x{clip.size}x{clip.size}",
            "batch_size": self.config.optim.batch_size,
            "workers": self.config.run.workers,
        }

    def with_workers(self, workers: int) -> PairedClips:
        """The same clips by another number of processes."""
        run = self.config.run.model_copy(update={"workers": workers})
        return _clips(self.config.model_copy(update={"run": run}), self.table, self.device)


def open_training_clips(request: Request) -> TrainingClips:
    """Raises InputError where there is no extraction, or where the settings do not fit it."""
    table = read_frames(open_extraction(request))
    device = resolve_device(request.config.run.device)
    config = resolve(request.config, device)
    check_clips(config, table, training_rows(table, config))
    return TrainingClips(config, device, table, _clips(config, table, device))


def _clips(config: PretrainConfig, table: FramesTable, device: torch.device) -> PairedClips:
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"epochs": _ENDLESS})})
    clips = PairedClips(config, table, training_rows(table, config), device)
    clips.skip_checks()
    return clips


def codec_of(table: FramesTable) -> str:
    """How the frames of an extraction are stored."""
    return str(table.manifest.config.get("codec", "h264"))


def more_clips(codec: str, workers: int, wanted: int) -> str:
    """What to type for a faster loader, which has `workers` processes and would need `wanted`."""
    cores, advice = num_cpus(), []
    if workers < min(wanted, cores):
        advice.append(f"use --workers {min(wanted, cores)} (now {workers}; there are {cores} cores)")
    if codec != "raw":
        advice.append("extract with --codec raw, if there is room for it")
    return ", or ".join(advice) or f"all {cores} cores read already: more of them, or smaller frames (extract --short-side N), would help"
