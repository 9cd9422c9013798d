"""Fine-tune on one split: train, choose the best epoch, test it, write down what came of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rspnet_cli import distributed
from rspnet_cli.clips.augment import augment
from rspnet_cli.clips.dataset import BatchOrder, ClipBatch, SingleClips, batches
from rspnet_cli.config import FinetuneConfig
from rspnet_cli.encoder.batch_norm import estimate_statistics
from rspnet_cli.encoder.classifier import CLASSIFIER
from rspnet_cli.encoder.load import checkpoint_file
from rspnet_cli.evaluation.features import ClipInput, UniformClips, load_clips, statistics_batches, statistics_clips
from rspnet_cli.evaluation.logits import video_logits
from rspnet_cli.evaluation.outcomes import Outcome, summary, write_outcomes
from rspnet_cli.evaluation.parts import chance, warn_of_unseen_classes
from rspnet_cli.evaluation.probes import true_ranks
from rspnet_cli.evaluation.task import Task, make_task
from rspnet_cli.evaluation.videos import labelled_videos
from rspnet_cli.files import link_or_copy_file, write_atomic
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.stages.finetune.network import first_classifier
from rspnet_cli.tables import (
    CLASSES,
    EPOCHS,
    FINETUNE_METRICS,
    FINETUNE_PER_CLASS,
    FINETUNE_PREDICTIONS,
    FINETUNE_VIDEOS,
    TIMINGS,
    csv_bytes,
)
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.classification import ClassificationFigures, classification_step
from rspnet_cli.training.fit import check_num_videos, warn_of_looped
from rspnet_cli.training.loop import Plan, Position, build_optimizer, train
from rspnet_cli.videos.frames import FramesTable, read_frames
from rspnet_cli.videos.seen import num_seen, seen_videos


def finetune_one_split(
    config: FinetuneConfig, *, inputs: Mapping[str, Path], out: Path, device: torch.device, force: bool, report: Reporter
) -> Manifest:
    """The stage for one split. config: resolved. inputs: extract, and the stage that the encoder is from. Raises as `finetune`."""
    identity = config.identity()
    identity["run"]["processes"] = distributed.world_size()
    with begin_stage("finetune", identity, inputs=inputs, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        table = read_frames(stage.inputs["extract"])
        task = make_task(labelled_videos(table), config.data, seed=config.run.seed, report=report)
        if not config.optim.epochs:
            task = replace(task, train=task.train[:0])
        _check_fit(config, stage, table, task, report)
        run = _Run(config, stage, table, task, device, report)
        with distributed.may_fail_on_one_rank():
            position = run.train() if config.optim.epochs else Position()
            logits = run.test()
        if distributed.is_main():
            _write_results(config, stage, table, task, position, logits)
        distributed.barrier()
        return stage.manifest or read_manifest(out, stage="finetune", verify=False)


def _check_fit(config: FinetuneConfig, stage: Stage, table: FramesTable, task: Task, report: Reporter) -> None:
    """Whether the settings fit these videos. Raises InputError where they cannot work; warns where they will work badly."""
    assert config.clip.size is not None
    assert config.clip.frames is not None
    table.refuse_larger(config.clip.size)
    if config.optim.epochs:
        check_num_videos(len(task.train), config.optim.batch_size, smallest=1 if config.model.linear else 2)
        warn_of_unseen_classes(task.videos, [task.part], report)
    if config.clip.sampling == "consecutive" and not config.clip.frame_rate:
        warn_of_looped(table, np.concatenate([task.train, task.part.test]), config.clip.frames, report)
    if stage.classes_differ and config.optim.epochs:
        report.info("finetune: the encoder's videos had other classes than these; those of these videos are learned.")


class _Run:
    """Training and test of one split, which share the network and how it takes its clips."""

    def __init__(
        self, config: FinetuneConfig, stage: Stage, table: FramesTable, task: Task, device: torch.device, report: Reporter
    ) -> None:
        self.config, self.stage, self.table, self.task, self.device, self.report = config, stage, table, task, device, report
        clip = config.clip
        assert clip.frames is not None
        assert clip.size is not None
        self.frames, self.frame_rate = clip.frames, clip.frame_rate or None
        self.clip_input = ClipInput(clip.size, bool(clip.antialias), device)
        self.workers = config.run.workers or 0
        self.classifier = first_classifier(config, _encoder_of(stage), task, report)
        # The faster layout of 3D convolutions; see pretrain.
        self.classifier.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.run.compile:
            report.info("finetune: compiling the backbone; the first steps take a minute or so.")
            self.classifier.backbone.compile()

    def train(self) -> Position:
        """Train to the end; the best epoch's weights are then those of the checkpoint `best`."""
        config, task, device = self.config, self.task, self.device
        optim, run = config.optim, config.run
        if config.model.linear and config.model.random_init:
            self._estimate_statistics()
        classifier = distributed.data_parallel(self.classifier, device).train()
        columns = torch.from_numpy(task.columns)
        dataset = SingleClips(
            self.table,
            config.augment,
            frames=self.frames,
            sampling=config.clip.sampling,
            frame_rate=self.frame_rate,
            seed=run.seed,
        )

        def source(start: tuple[int, int]) -> Generator[ClipBatch]:
            order = BatchOrder(
                task.train,
                batch_size=optim.batch_size,
                epochs=optim.epochs,
                seed=run.seed,
                start=start,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
            )
            return batches(dataset, order, workers=self.workers, pin_memory=device.type == "cuda")

        def step(batch: ClipBatch, epoch: int, number: int) -> tuple[Tensor, ClassificationFigures]:
            (crops,) = batch.clips
            size, antialias, _ = self.clip_input
            clips = augment(crops, size=size, antialias=antialias, order=config.augment.order, device=device)
            with self._autocast():
                return classification_step(classifier, clips, columns[batch.videos].to(device, non_blocking=True))

        plan = Plan(
            name="finetune",
            model=self.classifier,
            optimizer=build_optimizer(optim, self.classifier),
            config=optim,
            step=step,
            figures=ClassificationFigures._fields,
            metrics=FINETUNE_METRICS,
            steps_per_epoch=len(task.train) // optim.batch_size,
            batches=source,
            work=self.stage.work,
            device=device,
            log_interval=run.log_interval,
            keep_every=run.keep_every,
            best_from_epoch=0 if len(task.selection) else optim.epochs - 1,
            shown=("loss", "top1"),
            score=_selection_score if len(task.selection) else _no_score,
            evaluate=self._select,
            hint=" On a CPU, `--recipe small-cpu-finetune` is made for less time." if device.type == "cpu" else "",
        )
        return train(plan, Checkpoints(self.stage.work), self.report)

    def test(self) -> np.ndarray:
        """Logits of the test videos (Q, K) by the best epoch, over test.clips clips each."""
        if self.config.optim.epochs:
            Checkpoints(self.stage.work).load_weights(self.classifier, "best")
        return self._logits(self.task.part.test, count=self.config.test.clips, report=self.report)

    def _select(self) -> dict[str, float]:
        """How good the network is on the videos that choose the best epoch, one centre clip each."""
        task = self.task
        if not len(task.selection):
            return {}
        logits = self._logits(task.selection, count=1).astype(np.float64)
        classes = task.columns[task.selection]
        own = logits[np.arange(len(classes)), classes]
        highest = logits.max(axis=1)
        losses = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)) - own  # cross entropy
        right = true_ranks(task.only_known(logits), classes) == 1
        return {"selection_loss": float(losses.mean()), "selection_top1": float(right.mean())}

    def _logits(self, rows: np.ndarray, *, count: int, report: Reporter | None = None) -> np.ndarray:
        self.classifier.eval()
        distributed.share_buffers(self.classifier)
        clips = self._evenly_spaced(count)

        def classify(batch: Tensor) -> Tensor:
            with self._autocast():
                logits: Tensor = self.classifier(batch)
            return logits

        try:
            return video_logits(
                classify,
                clips,
                rows,
                num_classes=len(self.task.labels),
                batch_size=self.config.test.batch_size,
                clip_input=self.clip_input,
                workers=self.workers,
                report=report,
            )
        finally:
            self.classifier.train()

    def _evenly_spaced(self, count: int) -> UniformClips:
        return UniformClips(self.table, frames=self.frames, count=count, frame_rate=self.frame_rate, sampling=self.config.clip.sampling)

    def _estimate_statistics(self) -> None:
        """A random backbone that is never trained has no batch-norm statistics; without them its features say nothing."""
        chosen, count = statistics_clips(self.task.train)
        source = load_clips(self._evenly_spaced(count), chosen.tolist(), workers=self.workers, pin_memory=False)
        with closing(source) as videos, self._autocast():
            clips = statistics_batches(videos, num_clips=count * len(chosen), clip_input=self.clip_input)
            estimate_statistics(self.classifier.backbone, clips)
        self.report.info(f"finetune: random backbone, batch-norm statistics estimated on {count * len(chosen)} clips of train.")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.run.precision == "bf16")


def _selection_score(figures: dict[str, float]) -> list[float]:
    # Few videos leave many epochs equally right; of these the one with the lowest loss.
    return [-figures["selection_top1"], figures["selection_loss"]]


def _no_score(figures: dict[str, float]) -> list[float]:
    return []


def _encoder_of(stage: Stage) -> Manifest | None:
    return next((stage.inputs[name] for name in ENCODER_STAGES if name in stage.inputs), None)


def _write_results(config: FinetuneConfig, stage: Stage, table: FramesTable, task: Task, position: Position, logits: np.ndarray) -> None:
    videos, rows = task.videos, task.part.test
    encoder = _encoder_of(stage)
    seen = seen_videos(encoder, table.rows["sha256"])
    outcome = Outcome.nothing(len(rows))
    outcome.fill(np.arange(len(rows)), task.only_known(logits), task.columns[rows], task.labels)
    results: dict[str, Any] = {
        "protocol": task.protocol,
        "split": config.data.split,
        "videos": len(task.train),
        "classes": len(np.unique(task.columns[task.part.train])),
        "epochs": position.epoch,
        "selected_on": config.data.select_on if position.epoch else None,
        "selection_videos": len(task.selection),
        "selection_top1": -position.best_score[0] if position.best_score else None,
        "best_epoch": position.best_epoch,
        "queries": len(rows),
        "queries_seen": num_seen(seen.iloc[rows]),
        "clips": config.test.clips,
        **summary(outcome, videos.label[rows], videos.group[rows]),
        "chance": chance(videos, [task.part]),
    }
    artifacts = write_outcomes(
        stage.work,
        videos,
        [task.part],
        rows,
        {"finetune": outcome},
        predictions=FINETUNE_PREDICTIONS,
        per_class=FINETUNE_PER_CLASS,
    )
    _write_videos(stage, table, task, seen)
    classes = ({"label": label, "label_name": videos.class_names[label]} for label in task.labels.tolist())
    write_atomic(stage.work / CLASSES.file, csv_bytes(CLASSES.header(), classes))
    if position.epoch:
        trained, best = (
            [FINETUNE_METRICS.file, EPOCHS.file, *Checkpoints(stage.work).publish()],
            stage.work / "checkpoints/best.safetensors",
        )
    else:
        assert encoder is not None
        trained, best = [], encoder.folder / checkpoint_file(encoder, str(config.model.checkpoint))[0]
    (stage.work / CLASSIFIER).unlink(missing_ok=True)  # of a run that was killed here
    link_or_copy_file(best, stage.work / CLASSIFIER)
    stage.finish(
        results=results,
        artifacts=[*artifacts, CLASSIFIER, CLASSES.file, FINETUNE_VIDEOS.file, *trained],
        logs=[TIMINGS.file, "tensorboard"],
        classes_sha256=stage.inputs["extract"].classes_sha256,
        environment={"device": config.run.device, "workers": config.run.workers},
    )


def _write_videos(stage: Stage, table: FramesTable, task: Task, seen: pd.Series) -> None:
    used = np.zeros(len(table), dtype=bool)
    used[task.train] = True
    known = seen.astype(object).where(seen.notna(), None).tolist()
    columns = (table.ids, used.tolist(), task.parts(), known, table.rows["sha256"].tolist())
    rows = (dict(zip(FINETUNE_VIDEOS.header(), values, strict=True)) for values in zip(*columns, strict=True))
    write_atomic(stage.work / FINETUNE_VIDEOS.file, csv_bytes(FINETUNE_VIDEOS.header(), rows))
