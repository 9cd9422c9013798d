"""The epoch loop: batches -> loss -> optimiser, with figures, checkpoints and a stop at the first loss that is no number.

It knows neither RSPNet nor classes: a `StepFunction` gives the loss and its figures, and the plan says what makes an epoch the best.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rspnet_cli import distributed
from rspnet_cli.config import FinetuneOptimConfig, OptimConfig
from rspnet_cli.errors import RspnetError
from rspnet_cli.progress import Reporter, duration
from rspnet_cli.tables import EPOCHS, TIMINGS, Table
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.metrics import CsvLog, Means
from rspnet_cli.training.trackers import Tracking

Batch = TypeVar("Batch")
StepFunction = Callable[[Batch, int, int], tuple[Tensor, tuple[Tensor, ...]]]
"""(batch, epoch, step of the epoch) -> the loss with gradient, and the figures (the loss first)."""

SAVE_INTERVAL_S = 600.0
MULTISTEP_GAMMA = 0.1


def lowest_loss(figures: dict[str, float]) -> list[float]:
    """The score of an epoch by its training loss."""
    return [figures["loss"]]


@dataclass
class Plan(Generic[Batch]):
    """What to train and how to record it."""

    name: str
    """Of the stage, for progress."""
    model: nn.Module
    """Everything a checkpoint holds."""
    optimizer: torch.optim.Optimizer
    config: OptimConfig | FinetuneOptimConfig
    step: StepFunction[Batch]
    figures: Sequence[str]
    """Names of the step's figures."""
    metrics: Table
    """Where they go: epoch, step, lr, the figures, grad_norm, and what `extra` adds."""
    steps_per_epoch: int
    batches: Callable[[tuple[int, int]], Generator[Batch]]
    """From a position (epoch, step) on, over all remaining epochs."""
    work: Path
    device: torch.device
    log_interval: int
    keep_every: int
    best_from_epoch: int
    """Epochs before this one cannot be the best."""
    shown: Sequence[str]
    """Figures beside the progress bar."""
    extra: Callable[[int], dict[str, float]] = lambda steps: {}
    """Further columns of a metrics row, a function of the number of steps done."""
    score: Callable[[dict[str, float]], list[float]] = lowest_loss
    """Of an epoch's figures (means over its steps, and what `evaluate` found): the lowest list is the best, of equal ones the first."""
    evaluate: Callable[[], dict[str, float]] | None = None
    """Measures the model at the end of an epoch, on every rank alike; a row of epochs.csv then tells of it."""
    hint: str = ""
    """Said with the time estimate when that is long."""
    tracker: str | None = None
    """Where the figures go, too (see trackers.py)."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The run's settings as JSON values, for the tracker."""


@dataclass
class Position:
    """Where training stands: what a checkpoint records beside weights."""

    epoch: int = 0
    step: int = 0
    best_epoch: int | None = None
    best_score: list[float] | None = None
    last: dict[str, float] = field(default_factory=dict)
    """The figures of the last whole epoch: means over its steps, and what was measured at its end."""


def learning_rate(config: OptimConfig | FinetuneOptimConfig, epoch: int) -> float:
    """The rate of an epoch, from 0: linear warm-up, then cosine from lr towards lr / 1000 (a step per epoch, as released), a tenth from
    each milestone on, or constant."""
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1) / (config.warmup_epochs + 1)
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "multistep":
        return config.lr * MULTISTEP_GAMMA ** sum(epoch >= milestone for milestone in config.milestones)
    low = config.lr / 1000
    share = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1)
    return low + (config.lr - low) * (1 + math.cos(math.pi * share)) / 2


def build_optimizer(config: OptimConfig | FinetuneOptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over every parameter that is trained, with one weight decay for all."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.sgd_momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


def train(plan: Plan[Batch], checkpoints: Checkpoints, report: Reporter) -> Position:
    """Train from the last checkpoint (or the start) to the last epoch. Returns where it ended.

    Raises RspnetError when the loss is no finite number, naming the step; the last good checkpoint stays.
    """
    saved = checkpoints.state
    if saved is not None:
        checkpoints.load(plan.model, plan.optimizer)
    position = Position(**saved["position"]) if saved else Position()
    columns = [*plan.figures, "grad_norm"]
    run = _Run(
        plan=plan,
        position=position,
        interval=Means(columns, saved["interval"] if saved else None),
        epoch_means=Means(columns, saved["epoch_means"] if saved else None),
        checkpoints=checkpoints,
        report=report,
    )
    if distributed.is_main():
        run.tracking = Tracking(
            plan.tracker, stage=plan.name, work=plan.work, settings=plan.settings, resumed=saved is not None, report=report
        )
        rows = int(saved["rows"]) if saved else 0
        run.metrics = CsvLog(plan.work / plan.metrics.file, plan.metrics.header(), rows=rows)
        if plan.evaluate is not None:
            run.epochs = CsvLog(plan.work / EPOCHS.file, EPOCHS.header(), rows=position.epoch)
        run.timings = CsvLog(plan.work / TIMINGS.file, TIMINGS.header())
    total, done = plan.config.epochs * plan.steps_per_epoch, run.steps_done
    try:
        with closing(plan.batches((position.epoch, position.step))) as source:  # ends the loader's workers, whatever happens
            for _ in report.track(range(done, total), total=total, unit="steps", name=plan.name, start=done):
                run.one_step(source)
    finally:
        if run.tracking is not None:
            run.tracking.close()
    return position


@dataclass
class _Run(Generic[Batch]):
    plan: Plan[Batch]
    position: Position
    interval: Means
    epoch_means: Means
    checkpoints: Checkpoints
    report: Reporter
    metrics: CsvLog | None = None
    epochs: CsvLog | None = None
    timings: CsvLog | None = None
    tracking: Tracking | None = None
    pending: list[Tensor] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    timed_steps: int = 0
    interval_began: float = field(default_factory=time.perf_counter)
    interval_steps: int = 0
    waited: float = 0.0
    saved_at: float = field(default_factory=time.perf_counter)

    @property
    def steps_done(self) -> int:
        return self.position.epoch * self.plan.steps_per_epoch + self.position.step

    def one_step(self, source: Iterator[Batch]) -> None:
        plan, position = self.plan, self.position
        waiting = time.perf_counter()
        batch = next(source)
        self.waited += time.perf_counter() - waiting
        rate = learning_rate(plan.config, position.epoch)
        for group in plan.optimizer.param_groups:
            group["lr"] = rate
        loss, figures = plan.step(batch, position.epoch, position.step)
        on_cpu = plan.device.type == "cpu"
        if on_cpu:  # reading the loss costs nothing there, so a bad one is found before it reaches the weights
            self._check_finite([loss.item()], self.steps_done + 1)
        plan.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in plan.model.parameters() if p.grad is not None])
        plan.optimizer.step()
        self.pending.append(torch.stack([value.float() for value in (*figures, norm)]))
        self.interval_steps += 1
        position.step += 1
        epoch_ends = position.step == plan.steps_per_epoch
        last = self.steps_done == plan.config.epochs * plan.steps_per_epoch
        log_due = last or self.steps_done % plan.log_interval == 0
        if on_cpu or epoch_ends or log_due:
            self._collect()
        if log_due:
            self._log(rate)
        self._estimate()
        if epoch_ends:
            self._end_epoch()
        elif distributed.share(time.perf_counter() - self.saved_at > SAVE_INTERVAL_S if self.timed_steps % 16 == 0 else False):
            self._collect()
            self._save()

    def _collect(self) -> None:
        """Bring the figures of the steps since the last time to the host, averaged over ranks; on a GPU this waits for them."""
        if not self.pending:
            return
        rows = distributed.mean_over_ranks(torch.stack(self.pending)).tolist()
        self.pending.clear()
        self._check_finite([row[0] for row in rows], self.steps_done - len(rows) + 1)
        for row in rows:
            self.interval.add(row)
            self.epoch_means.add(row)

    def _check_finite(self, losses: list[float], first_step: int) -> None:
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise self._diverged(f"The loss became {loss}", first_step + offset, self.position.epoch + 1)

    def _diverged(self, what: str, step: int, epoch: int) -> RspnetError:
        kept = f" The last good checkpoint is in {self.checkpoints.folder}." if self.checkpoints.state else ""
        return RspnetError(f"{what} at step {step} (epoch {epoch}): lower optim.lr, or use --precision fp32 if it was not.{kept}")

    def _log(self, rate: float) -> None:
        means = self.interval.take()
        self.report.figures(**{name: means[name] for name in self.plan.shown}, data_wait=self._wait_share())
        if self.metrics is None or self.timings is None or self.tracking is None:
            return
        further = self.plan.extra(self.steps_done)
        # A step that ends an epoch still belongs to it.
        self.metrics.append({"epoch": self.position.epoch + 1, "step": self.steps_done, "lr": rate, **means, **further})
        self.tracking.log(self.steps_done, {"lr": rate, **means, **further})
        seconds = time.perf_counter() - self.interval_began
        videos_per_s = self.interval_steps * self.plan.config.batch_size / max(seconds, 1e-9)
        self.timings.append(
            {"step": self.steps_done, "seconds": seconds, "videos_per_s": videos_per_s, "data_wait_share": self._wait_share()}
        )
        self.interval_began, self.interval_steps, self.waited = time.perf_counter(), 0, 0.0

    def _wait_share(self) -> float:
        return self.waited / max(time.perf_counter() - self.interval_began, 1e-9)

    def _estimate(self) -> None:
        """After a few steps: how long the whole run will take."""
        plan = self.plan
        self.timed_steps += 1
        if self.timed_steps == 2:
            self.began = time.perf_counter()  # the first steps warm up
        if self.timed_steps == 5:
            seconds = (time.perf_counter() - self.began) / 3
            left = seconds * (plan.config.epochs * plan.steps_per_epoch - self.steps_done)
            self.report.info(f"{plan.name}: {seconds:.2f} s a step, about {duration(left)} to go." + (plan.hint if left > 3600 else ""))

    def _end_epoch(self) -> None:
        plan, position = self.plan, self.position
        figures = self.epoch_means.take()
        if plan.evaluate is not None:
            began = time.perf_counter()
            figures |= plan.evaluate()
            self.interval_began += time.perf_counter() - began  # the timings are those of training
        position.last = figures
        score = plan.score(figures)
        best = position.epoch >= plan.best_from_epoch and (position.best_score is None or score < position.best_score)
        position.epoch, position.step = position.epoch + 1, 0
        if best:
            position.best_epoch, position.best_score = position.epoch, score
        if plan.evaluate is not None:
            self._tell_of_epoch(figures, best)
        keep = f"epoch_{position.epoch}" if plan.keep_every and position.epoch % plan.keep_every == 0 else ""
        self._save(best=best, keep=keep)

    def _tell_of_epoch(self, figures: dict[str, float], best: bool) -> None:
        epoch = self.position.epoch
        words = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in figures if name != "grad_norm")
        self.report.info(f"{self.plan.name}: epoch {epoch}/{self.plan.config.epochs}: {words}" + (", the best so far" if best else ""))
        if self.epochs is not None and self.tracking is not None:
            row: dict[str, Any] = {"epoch": epoch, "lr": learning_rate(self.plan.config, epoch - 1), **figures, "best": best}
            self.epochs.append(row)
            self.tracking.log(self.steps_done, figures, of_epoch=True)

    def _save(self, *, best: bool = False, keep: str = "") -> None:
        # After a finite loss the step itself may have overflowed; such weights must not replace the last good ones.
        if not all(bool(value.isfinite().all()) for value in self.plan.model.state_dict().values() if value.is_floating_point()):
            raise self._diverged("The weights became infinite or NaN", self.steps_done, -(-self.steps_done // self.plan.steps_per_epoch))
        self.saved_at = time.perf_counter()
        if self.metrics is not None:
            state = {
                "position": asdict(self.position),
                "interval": self.interval.state(),
                "epoch_means": self.epoch_means.state(),
                "rows": self.metrics.rows,
            }
            self.checkpoints.save(state, self.plan.model, self.plan.optimizer, position=self.steps_done, best=best, keep=keep)
        distributed.barrier()
