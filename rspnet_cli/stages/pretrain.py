"""pretrain: videos without labels -> an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from rspnet_cli import distributed
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import resolve_device, warn_of_emulated_bf16
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.tables import METRICS, PRETRAIN_VIDEOS, TIMINGS
from rspnet_cli.tensors import write_tensors
from rspnet_cli.training.checkpoint import Checkpoints, state_arrays
from rspnet_cli.training.fit import compiles_augmentation, prepare_compiling, resolve, warn_of_accumulation
from rspnet_cli.training.loop import train
from rspnet_cli.training.objective import Figures
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.paired_clips import PairedClips, training_rows
from rspnet_cli.training.plan import Plan, Position
from rspnet_cli.training.pretraining import build_moco, check_fit, epochs_to_fill, pretraining_step, ready_to_train
from rspnet_cli.training.trackers import TRACKERS
from rspnet_cli.videos.frames import FramesTable, read_frames
from rspnet_cli.videos.seen import write_trained_videos


def pretrain(config: PretrainConfig, *, frames: Path, out: Path, force: bool = False, report: Reporter | None = None) -> Manifest:
    """Learn an encoder from an extraction's videos (RSPNet, AAAI 2021).

    frames: the extract stage's folder or manifest. out: this stage's folder. Under torchrun every rank calls it. Raises InputError
    for settings that do not fit the videos, RspnetError when the loss is no number.
    """
    report = report or Reporter.silent()
    device = resolve_device(config.run.device)
    with distributed.process_group(device.type):
        asked, config = config, resolve(config, device)
        identity = config.identity()
        identity["run"]["processes"] = distributed.world_size()
        with begin_stage("pretrain", identity, inputs={"extract": frames}, out=out, force=force, report=report) as stage:
            if stage.manifest is not None:
                return stage.manifest
            table = read_frames(stage.inputs["extract"])
            rows = training_rows(table, config)
            check_fit(config, table, rows, report)
            if config.moco.bn_splits > asked.moco.bn_splits:
                warn_of_accumulation(config.optim, report)
            warn_of_emulated_bf16(config.run.precision, device, report)
            with distributed.may_fail_on_one_rank():
                if distributed.is_main() and not (stage.work / PRETRAIN_VIDEOS.file).exists():
                    used = np.full(len(table), b"False")
                    used[rows] = b"True"
                    write_trained_videos(stage.work, PRETRAIN_VIDEOS, table, {"used": used})
                position, queue_filled = _train(config, stage, table, rows, device, report)
            if distributed.is_main():
                _write_results(stage, config, len(rows), position, queue_filled)
            distributed.barrier()
            return stage.manifest or read_manifest(out, stage="pretrain", verify=False)


def _train(
    config: PretrainConfig, stage: Stage, table: FramesTable, rows: np.ndarray, device: torch.device, report: Reporter
) -> tuple[Position, bool]:
    """Train to the end. Returns the position and whether the queue was full of real keys when the last epoch began."""
    optim, run = config.optim, config.run
    if run.compile:
        prepare_compiling("pretrain", device, report)
    moco = build_moco(config)
    if distributed.is_main() and not (stage.work / "initial.safetensors").exists():
        write_tensors(stage.work / "initial.safetensors", state_arrays(moco.query), {})
    moco = ready_to_train(moco, config, device)
    clips = PairedClips(config, table, rows, device)
    fused = compiles_augmentation("pretrain", clips.augmentation, report)
    if fused:
        clips.compile()
    step = pretraining_step(moco, clips)
    optimizer = build_optimizer(optim, moco.query)
    steps_to_fill = config.moco.queue_size // optim.batch_size
    full_from = epochs_to_fill(config, len(rows))

    plan = Plan(
        name="pretrain",
        model=moco,
        optimizer=optimizer,
        config=optim,
        step=step,
        figures=Figures._fields,
        metrics=METRICS,
        steps_per_epoch=clips.steps_per_epoch,
        batches=clips.batches,
        work=stage.work,
        device=device,
        log_interval=run.log_interval,
        keep_every=run.keep_every,
        best_from_epoch=full_from if optim.best_from == "full_queue" else 0,
        shown=("loss", "avid_top1", "rsp_accuracy"),
        extra=lambda steps: {"queue_filled": min(1.0, steps / steps_to_fill)},
        compiled=run.compile or fused,
        hint=" On a CPU, `--recipe small-cpu` is made for less time." if device.type == "cpu" else "",
        tracker=run.tracker,
        settings=stage.config,
    )
    position = train(plan, Checkpoints(stage.work), report)
    if distributed.is_main():
        write_tensors(stage.work / "encoder.safetensors", state_arrays(moco.query), {})
    return position, full_from < optim.epochs


def _write_results(stage: Stage, config: PretrainConfig, num_videos: int, position: Position, queue_filled: bool) -> None:
    last = position.last
    avid = {key: last[key] if queue_filled else None for key in ("avid_top1", "avid_top5")}
    results: dict[str, Any] = {
        "videos": num_videos,
        "epochs": position.epoch,
        "steps": position.epoch * config.optim.steps_per_epoch(num_videos, distributed.world_size()),
        **{key: last[key] for key in ("loss", "loss_avid", "loss_rsp")},
        **avid,
        "rsp_accuracy": last["rsp_accuracy"],
        "best_epoch": position.best_epoch,
    }
    checkpoints = Checkpoints(stage.work).publish()
    stage.finish(
        results=results,
        artifacts=["encoder.safetensors", "initial.safetensors", METRICS.file, PRETRAIN_VIDEOS.file, *checkpoints],
        logs=[TIMINGS.file, TRACKERS],
        classes_sha256=stage.inputs["extract"].classes_sha256,
        environment={"device": config.run.device, "workers": config.run.workers, "tracker": config.run.tracker},
    )
