"""Fine-tune on one split: train, choose the best epoch, test it, write down what came of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rspnet_cli import distributed
from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.clips.crops import planes_on
from rspnet_cli.clips.dataset import BatchOrder, ClipBatch, SingleClips, batches
from rspnet_cli.clips.prefetch import prefetched
from rspnet_cli.clips.sampling import FrameRate
from rspnet_cli.config import FinetuneConfig
from rspnet_cli.devices import clip_dtype, tune_convolutions, warn_of_emulated_bf16
from rspnet_cli.encoder.batch_norm import estimate_statistics
from rspnet_cli.evaluation.features import ClipInput, UniformClips, load_clips, statistics_batches, statistics_clips
from rspnet_cli.evaluation.logits import video_logits
from rspnet_cli.evaluation.parts import warn_of_unseen_classes
from rspnet_cli.evaluation.probes import true_ranks
from rspnet_cli.evaluation.task import Task, make_task
from rspnet_cli.evaluation.videos import labelled_videos
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.stages.finetune.network import first_classifier
from rspnet_cli.stages.finetune.results import encoder_of, write_results, write_videos
from rspnet_cli.tables import FINETUNE_METRICS
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.classification import ClassificationFigures, classification_step
from rspnet_cli.training.fit import check_num_videos, compiles_augmentation, prepare_compiling, warn_of_accumulation, warn_of_looped
from rspnet_cli.training.loop import train
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.plan import Plan, Position
from rspnet_cli.videos.frames import FramesTable, read_frames


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
        warn_of_emulated_bf16(config.run.precision, device, report)
        run = _Run(config, stage, table, task, device, report)
        with distributed.may_fail_on_one_rank():
            seen = write_videos(stage, table, task) if distributed.is_main() else None
            position = run.train() if config.optim.epochs else Position()
            logits = run.test()
        if seen is not None:
            write_results(config, stage, task, seen, position, logits)
        distributed.barrier()
        return stage.manifest or read_manifest(out, stage="finetune", verify=False)


def _check_fit(config: FinetuneConfig, stage: Stage, table: FramesTable, task: Task, report: Reporter) -> None:
    """Whether the settings fit these videos. Raises InputError where they cannot work; warns where they will work badly."""
    assert config.clip.size is not None
    assert config.clip.frames is not None
    table.refuse_larger(config.clip.size)
    if config.optim.epochs:
        optim, smallest = config.optim, 1 if config.model.linear else 2
        check_num_videos(len(task.train), optim, parts=optim.accumulate, smallest=smallest)
        if optim.accumulate > 1 and not config.model.linear:
            warn_of_accumulation(optim, report)
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
        assert clip.rate_tolerance is not None
        self.frames, self.frame_rate = clip.frames, FrameRate.of(clip.frame_rate, clip.rate_tolerance)
        self.clip_input = ClipInput(clip.size, bool(clip.antialias), device)
        self.workers = config.run.workers or 0
        if config.run.compile:
            prepare_compiling("finetune", device, report)
        self.classifier = first_classifier(config, encoder_of(stage), task, report)
        # The faster layout of 3D convolutions; see pretrain.
        self.classifier.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        tune_convolutions(device)
        self.classifier.backbone.checkpoint_activations = config.run.checkpoint_activations
        if config.run.compile:
            self.classifier.backbone.compile()

    def train(self) -> Position:
        """Train to the end; the best epoch's weights are then those of the checkpoint `best`."""
        config, task, device = self.config, self.task, self.device
        optim, run = config.optim, config.run
        if config.model.linear and config.model.random_init:
            self._estimate_statistics()
        classifier = distributed.data_parallel(self.classifier, device).train()
        columns = torch.from_numpy(task.columns).to(device)
        size, antialias, _ = self.clip_input
        dtype = clip_dtype(run.precision, device)
        augmentation = Augmentation(size, antialias, config.augment.order, device, dtype=dtype)
        fused = compiles_augmentation("finetune", augmentation, self.report)
        augmentation = replace(augmentation, fused=fused)
        dataset = SingleClips(
            self.table.files,
            config.augment,
            frames=self.frames,
            sampling=config.clip.sampling,
            frame_rate=self.frame_rate,
            seed=run.seed,
            planes=planes_on(device),
        )

        def source(start: tuple[int, int]) -> Generator[ClipBatch]:
            order = BatchOrder(
                task.train,
                optim,
                seed=run.seed,
                start=start,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
            )
            share = optim.batch_size // distributed.world_size()
            loaded = batches(dataset, order, batch_size=share, workers=self.workers, pin_memory=device.type == "cuda")
            return prefetched(loaded, augmentation.ready_batch, device)

        def step(batch: ClipBatch, epoch: int, number: int) -> ClassificationFigures:
            (crops,) = batch.clips
            clips, classes = augmentation(crops), columns[batch.videos]
            return classification_step(classifier, clips, classes, passes=optim.accumulate, precision=run.precision)

        plan = Plan(
            name="finetune",
            model=self.classifier,
            optimizer=build_optimizer(optim, self.classifier),
            config=optim,
            step=step,
            figures=ClassificationFigures._fields,
            metrics=FINETUNE_METRICS,
            steps_per_epoch=optim.steps_per_epoch(len(task.train), distributed.world_size()),
            batches=source,
            work=self.stage.work,
            device=device,
            log_interval=run.log_interval,
            keep_every=run.keep_every,
            best_from_epoch=0 if len(task.selection) else optim.epochs - 1,
            shown=("loss", "top1"),
            score=_selection_score if len(task.selection) else _no_score,
            evaluate=self._select,
            compiled=run.compile or fused,
            hint=" On a CPU, `--recipe small-cpu-finetune` is made for less time." if device.type == "cpu" else "",
            tracker=run.tracker,
            settings=self.stage.config,
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
        return UniformClips(
            self.table.files, frames=self.frames, count=count, frame_rate=self.frame_rate, sampling=self.config.clip.sampling
        )

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
