"""The epoch loop: batches -> gradients -> optimiser, with figures, checkpoints and a stop at the first loss that is no number.

It knows neither RSPNet nor classes: a `StepFunction` gives gradients and figures, and the plan says what makes an epoch the best.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Generic

import torch
from torch import Tensor, nn

from rspnet_cli import distributed, stopping
from rspnet_cli.errors import RspnetError, Stopped
from rspnet_cli.progress import Reporter, duration
from rspnet_cli.tables import EPOCHS, TIMINGS
from rspnet_cli.timing import timed
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.metrics import CsvLog, Means
from rspnet_cli.training.optimiser import learning_rate
from rspnet_cli.training.plan import Batch, Plan, Position
from rspnet_cli.training.trackers import Tracking

SAVE_INTERVAL_S = 600.0
_SAVE = 1  # beside the numbers of the signals that stop a run


def train(plan: Plan[Batch], checkpoints: Checkpoints, report: Reporter) -> Position:
    """Train from the last checkpoint (or the start) to the last epoch. Returns where it ended.

    A signal (`rspnet_cli.stopping`) ends it after the step that it is in, with a checkpoint; several processes end after the same step.
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
    run.steps_saved = run.steps_done
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
    # Several processes stop where they have agreed to, one wherever it waits.
    until_agreed = stopping.held() if distributed.world_size() > 1 else nullcontext()
    try:
        with closing(plan.batches((position.epoch, position.step))) as source, until_agreed:  # the loader's workers end, whatever happens
            try:
                if position.step == plan.steps_per_epoch:  # stopped while the epoch was being measured
                    run.end_epoch()
                for _ in report.track(range(done, total), total=total, unit="steps", name=plan.name, start=done):
                    run.one_step(source)
            except Stopped:
                run.keep()
                raise
    finally:
        if run.tracking is not None:
            run.tracking.close()
    return position


def take_step(
    add_gradients: Callable[[], tuple[Tensor, ...]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    rate: float,
    check: Callable[[Tensor], None] = lambda loss: None,
) -> Tensor:
    """One step of a training: gradients, their norm, the optimiser. Returns the figures and the norm, (F + 1,) float32.

    add_gradients: adds those of a batch to the parameters' own and gives the figures, the loss first, which `check` sees before the
    weights change. On a GPU nothing here is waited for.
    """
    with timed("optimizer"):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
    figures = add_gradients()
    check(figures[0])
    with timed("optimizer"):
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        return torch.stack([value.float() for value in (*figures, norm)])


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
    steps_saved: int = 0
    """Steps that the last checkpoint has done."""
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
        """Fetch a batch and train on it. Raises Stopped between two steps alone, or while it waits for the batch or measures an epoch."""
        batch = self._fetch(source)
        with stopping.held():
            self._train_on(batch)
        if self.position.step == self.plan.steps_per_epoch:
            self.end_epoch()

    def _fetch(self, source: Iterator[Batch]) -> Batch:
        """The next batch. Raises Stopped, on all of several ranks before the same step, where a signal came to one."""
        waiting = time.perf_counter()
        batch = None
        try:
            batch = next(source)
        except RspnetError:
            if not stopping.requested():  # else the signal has reached the loader's workers, too
                raise
        self.waited += time.perf_counter() - waiting
        due = distributed.is_main() and time.perf_counter() - self.saved_at > SAVE_INTERVAL_S
        wanted = distributed.largest(stopping.requested() or (_SAVE if due else 0))
        if wanted > _SAVE:
            raise Stopped(wanted)
        if wanted == _SAVE:
            with stopping.held():
                self._save()
        assert batch is not None
        return batch

    def _train_on(self, batch: Batch) -> None:
        plan, position, began = self.plan, self.position, time.perf_counter()
        rate = learning_rate(plan.config, position.epoch)
        on_cpu = plan.device.type == "cpu"

        def check(loss: Tensor) -> None:
            if on_cpu:  # reading the loss costs nothing there, so a bad one is found before it reaches the weights
                self._check_finite([loss.item()], self.steps_done + 1)

        try:
            figures = take_step(lambda: plan.step(batch, position.epoch, position.step), plan.model, plan.optimizer, rate=rate, check=check)
        except torch.OutOfMemoryError as error:
            raise RspnetError(
                f"The GPU's memory is full in step {self.steps_done + 1}: use --set optim.accumulate=2 (or more), "
                "--set run.checkpoint_activations=true, or a smaller --batch-size, with --force or another --out."
            ) from error
        self.pending.append(figures)
        self.interval_steps += 1
        position.step += 1
        last = self.steps_done == plan.config.epochs * plan.steps_per_epoch
        log_due = last or self.steps_done % plan.log_interval == 0
        if on_cpu or log_due or position.step == plan.steps_per_epoch:
            self._collect()
        if log_due:
            self._log(rate)
        self._estimate(began)

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

    def _estimate(self, step_began: float) -> None:
        """After a few steps: how long the whole run will take."""
        plan = self.plan
        self.timed_steps += 1
        if self.timed_steps == 1 and plan.compiled:
            self.report.info(f"{plan.name}: compiled, in a first step of {duration(time.perf_counter() - step_began)}.")
        if self.timed_steps == 2:
            self.began = time.perf_counter()  # the first steps warm up
        if self.timed_steps == 5:
            seconds = (time.perf_counter() - self.began) / 3
            left = seconds * (plan.config.epochs * plan.steps_per_epoch - self.steps_done)
            self.report.info(f"{plan.name}: {seconds:.2f} s a step, about {duration(left)} to go." + (plan.hint if left > 3600 else ""))

    def end_epoch(self) -> None:
        """Measure the model, decide whether it is the best so far, save it. Raises Stopped while it measures: then nothing is done yet."""
        plan, position = self.plan, self.position
        figures = self.epoch_means.means()
        if plan.evaluate is not None:
            began = time.perf_counter()
            figures |= plan.evaluate()
            self.interval_began += time.perf_counter() - began  # the timings are those of training
        with stopping.held():
            self.epoch_means.clear()
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

    def keep(self) -> None:
        """Save what has been done since the last checkpoint, if anything."""
        if self.steps_done == self.steps_saved:
            return
        self.report.info(f"{self.plan.name}: stopped after step {self.steps_done:,}, of which a checkpoint is being written.")
        self._save()

    def _tell_of_epoch(self, figures: dict[str, float], best: bool) -> None:
        epoch = self.position.epoch
        words = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in figures if name != "grad_norm")
        self.report.info(f"{self.plan.name}: epoch {epoch}/{self.plan.config.epochs}: {words}" + (", the best so far" if best else ""))
        if self.epochs is not None and self.tracking is not None:
            row: dict[str, Any] = {"epoch": epoch, "lr": learning_rate(self.plan.config, epoch - 1), **figures, "best": best}
            self.epochs.append(row)
            self.tracking.log(self.steps_done, figures, of_epoch=True)

    def _save(self, *, best: bool = False, keep: str = "") -> None:
        self._collect()
        # After a finite loss the step itself may have overflowed; such weights must not replace the last good ones.
        finite = all(bool(value.isfinite().all()) for value in self.plan.model.state_dict().values() if value.is_floating_point())
        if distributed.largest(not finite):  # batch-norm statistics are each rank's own
            raise self._diverged("The weights became infinite or NaN", self.steps_done, -(-self.steps_done // self.plan.steps_per_epoch))
        self.saved_at, self.steps_saved = time.perf_counter(), self.steps_done
        if self.metrics is not None:
            state = {
                "position": asdict(self.position),
                "interval": self.interval.state(),
                "epoch_means": self.epoch_means.state(),
                "rows": self.metrics.rows,
            }
            self.checkpoints.save(state, self.plan.model, self.plan.optimizer, position=self.steps_done, best=best, keep=keep)
        distributed.barrier()
