"""The epoch loop: schedule, figures, best and kept checkpoints, stopping and going on, and a loss that is no number."""

import csv
import math
import os
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rspnet_cli.config import FinetuneOptimConfig, OptimConfig
from rspnet_cli.errors import RspnetError
from rspnet_cli.progress import Reporter
from rspnet_cli.stopping import stoppable
from rspnet_cli.tables import Column, Table
from rspnet_cli.training import loop
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.loop import train
from rspnet_cli.training.metrics import CsvLog, Means
from rspnet_cli.training.optimiser import build_optimizer, learning_rate
from rspnet_cli.training.plan import Plan, Position
from tests.sentences import one_sentence


def torchs_rates(epochs: int, lr: float) -> list[float]:
    """The schedule as the released code has it: torch's own, stepped after every epoch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=lr / 1000)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("epochs", "lr"), [(1, 0.1), (2, 0.4), (30, 0.1), (200, 0.4), (1000, 0.2)])
def test_the_cosine_schedule_is_torchs(epochs: int, lr: float) -> None:
    config = OptimConfig(lr=lr, epochs=epochs)
    # torch multiplies from epoch to epoch, so its own rounding adds up.
    assert [learning_rate(config, epoch) for epoch in range(epochs)] == pytest.approx(torchs_rates(epochs, lr), rel=1e-9)


def test_warm_up_rises_in_a_line_to_where_the_schedule_begins() -> None:
    config = OptimConfig(lr=0.4, epochs=10, warmup_epochs=3)
    rates = [learning_rate(config, epoch) for epoch in range(10)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[3:] == pytest.approx(torchs_rates(7, 0.4))
    constant = OptimConfig(lr=0.4, epochs=10, warmup_epochs=1, schedule="constant")
    assert [learning_rate(constant, epoch) for epoch in range(4)] == pytest.approx([0.2, 0.4, 0.4, 0.4])
    assert math.isfinite(learning_rate(OptimConfig(epochs=2, warmup_epochs=2), 1))


@pytest.mark.parametrize("milestones", [(1,), (20, 40), (50, 70, 90)])
def test_multistep_is_torchs(milestones: tuple[int, ...]) -> None:
    config = FinetuneOptimConfig(lr=0.01, epochs=50, schedule="multistep", milestones=milestones)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma=0.1)
    for epoch in range(50):
        assert learning_rate(config, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_trained_parameter_decays_also_biases_and_batch_norm(name: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2).requires_grad_(False))
    optimizer = build_optimizer(OptimConfig(name=name, lr=0.1, weight_decay=0.5, sgd_momentum=0.8), module)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.5)
    assert name == "adamw" or (group["momentum"], group["nesterov"]) == (0.8, False)


# A small training for the loop: fits a line, with data that depend on (epoch, step) alone.


COLUMNS = ("epoch", "step", "lr", "loss", "where", "grad_norm", "share")
METRICS = Table("metrics.csv", "train", "an interval", tuple(Column(name, "float", name) for name in COLUMNS))


class Interrupted(Exception):
    pass


@dataclass
class Trial:
    work: Path
    losses: Callable[[int, int], float] | None = None
    """What the loss is multiplied by, by (epoch, step)."""
    stop_at: tuple[int, int] | None = None
    measured: list[float] | None = None
    """What is found at the end of each epoch; the lowest is the best."""
    epochs: int = 4
    steps_per_epoch: int = 5
    log_interval: int = 3
    keep_every: int = 0
    best_from_epoch: int = 0
    lr: float = 0.05
    optimizer: str = "sgd"
    done: list[tuple[int, int]] = field(default_factory=list)
    signal_at: tuple[str, int, int] | None = None
    """SIGTERM comes while this is done: "fetch", "train" or "measure", in this epoch and step."""

    def meanwhile(self, *what: str | int) -> None:
        if what == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def plan(self) -> Plan[Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        config = OptimConfig(name=self.optimizer, lr=self.lr, epochs=self.epochs, batch_size=8)

        def batches(start: tuple[int, int]) -> Generator[Any]:
            for epoch in range(start[0], self.epochs):
                for step in range(start[1] if epoch == start[0] else 0, self.steps_per_epoch):
                    self.meanwhile("fetch", epoch, step)
                    yield torch.randn(8, 3, generator=torch.Generator().manual_seed(100 * epoch + step))

        def step(batch: Any, epoch: int, number: int) -> tuple[Tensor, ...]:
            if (epoch, number) == self.stop_at:
                raise Interrupted
            self.done.append((epoch, number))
            self.meanwhile("train", epoch, number)
            loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
            if self.losses is not None:
                loss = 0 * loss + self.losses(epoch, number)
            loss.backward()
            return loss.detach(), torch.tensor(10.0 * epoch + number)

        further: dict[str, Any] = {}
        if self.measured is not None:
            state = Checkpoints(self.work).state
            found = iter(list(enumerate(self.measured))[state["position"]["epoch"] if state else 0 :])

            def measure() -> dict[str, float]:
                epoch, value = next(found)
                self.meanwhile("measure", epoch, self.steps_per_epoch)
                return {"selection_loss": value}

            further = {"evaluate": measure, "score": lambda figures: [figures["selection_loss"]]}
        return Plan(
            name="train",
            model=model,
            optimizer=build_optimizer(config, model),
            config=config,
            step=step,
            figures=("loss", "where"),
            metrics=METRICS,
            steps_per_epoch=self.steps_per_epoch,
            batches=batches,
            work=self.work,
            device=torch.device("cpu"),
            log_interval=self.log_interval,
            keep_every=self.keep_every,
            best_from_epoch=self.best_from_epoch,
            shown=("loss",),
            extra=lambda steps: {"share": steps / 100},
            **further,
        )

    def run(self, report: Reporter | None = None) -> Position:
        return train(self.plan(), Checkpoints(self.work), report or Reporter.silent())


def rows(work: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (work / name).open(newline="") as file:
        return list(csv.DictReader(file))


def results(work: Path) -> dict[str, bytes]:
    """All that must not depend on interruptions."""
    paths = [work / "metrics.csv", *(work / "checkpoints").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def test_metrics_have_a_row_per_interval_with_its_means(tmp_path: Path) -> None:
    Trial(tmp_path).run()
    table = rows(tmp_path)
    assert list(table[0]) == list(COLUMNS)
    assert [int(row["step"]) for row in table] == [3, 6, 9, 12, 15, 18, 20]  # the last step ends one, too
    assert [int(row["epoch"]) for row in table] == [1, 2, 2, 3, 3, 4, 4]
    where = [10.0 * epoch + step for epoch in range(4) for step in range(5)]
    parts = [where[i : i + 3] for i in range(0, 20, 3)]
    assert [float(row["where"]) for row in table] == pytest.approx([sum(part) / len(part) for part in parts], rel=1e-5)
    assert [float(row["share"]) for row in table] == pytest.approx([0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.2])
    config = Trial(tmp_path).plan().config
    assert [float(row["lr"]) for row in table] == pytest.approx([learning_rate(config, int(row["epoch"]) - 1) for row in table], rel=1e-5)
    timings = rows(tmp_path, "timings.csv")
    assert list(timings[0]) == ["step", "seconds", "videos_per_s", "data_wait_share"]
    assert all(0 <= float(row["data_wait_share"]) <= 1 for row in timings)


def test_loss_gradient_norm_and_weights_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    trial = Trial(tmp_path, log_interval=1)
    plan = trial.plan()
    model, losses, norms = plan.model, [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for epoch, rate in enumerate(torchs_rates(4, 0.05)):
        optimizer.param_groups[0]["lr"] = rate
        for step in range(5):
            batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(100 * epoch + step))
            loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)))
            optimizer.step()
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    other = trial.plan()
    position = train(other, Checkpoints(tmp_path), Reporter.silent())
    table = rows(tmp_path)
    assert [float(row["loss"]) for row in table] == pytest.approx(losses, rel=1e-5)
    assert [float(row["grad_norm"]) for row in table] == pytest.approx(norms, rel=1e-5)
    for name, value in other.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert (position.epoch, position.step) == (4, 0)
    assert position.last["loss"] == pytest.approx(sum(losses[-5:]) / 5)


STOPS = [(0, 0), (0, 3), (1, 0), (1, 4), (3, 4)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stopped_anywhere_it_ends_with_the_same_bytes(tmp_path: Path, optimizer: str) -> None:
    whole = Trial(tmp_path / "whole", keep_every=3, optimizer=optimizer)
    expected_position = whole.run()
    expected = results(whole.work)
    for stop in STOPS:
        trial = Trial(tmp_path / str(stop), keep_every=3, optimizer=optimizer, stop_at=stop)
        with pytest.raises(Interrupted):
            trial.run()
        trial.stop_at = None
        assert trial.run() == expected_position
        assert results(trial.work) == expected, f"stopped at {stop}"


def test_saved_in_the_middle_of_an_epoch_it_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Trial(tmp_path / "whole", epochs=2, steps_per_epoch=12, log_interval=5)
    whole.run()
    monkeypatch.setattr(loop, "SAVE_INTERVAL_S", -1.0)  # before every step
    for stop in ((0, 7), (1, 9)):
        trial = Trial(tmp_path / str(stop), epochs=2, steps_per_epoch=12, log_interval=5, stop_at=stop)
        with pytest.raises(Interrupted):
            trial.run()
        saved = Checkpoints(trial.work).state
        assert saved is not None
        assert (saved["position"]["epoch"], saved["position"]["step"]) == stop
        trial.stop_at, trial.done = None, []
        trial.run()
        first = (saved["position"]["epoch"], saved["position"]["step"])
        assert trial.done == [(epoch, step) for epoch in range(2) for step in range(12) if (epoch, step) >= first]
        assert results(trial.work) == results(whole.work)


@pytest.mark.parametrize(
    ("signal_at", "kept"),
    [
        (("fetch", 0, 0), None),
        (("fetch", 1, 2), (1, 2)),
        (("train", 1, 2), (1, 3)),
        (("train", 1, 4), (1, 5)),
        (("measure", 1, 5), (1, 5)),
        (("fetch", 2, 0), (2, 0)),
        (("train", 3, 4), (3, 5)),
        (("measure", 3, 5), (3, 5)),
    ],
)
def test_a_signal_ends_it_where_no_step_is_lost(
    tmp_path: Path, signal_at: tuple[str, int, int], kept: tuple[int, int] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = [0.5, 0.25, 0.75, 0.25]
    whole = Trial(tmp_path / "whole", measured=measured)
    expected = whole.run()
    trial = Trial(tmp_path / "stopped", measured=measured, signal_at=signal_at)
    assert stoppable(lambda: bool(trial.run(Reporter()))) == 143
    state = Checkpoints(trial.work).state
    assert kept == (None if state is None else (state["position"]["epoch"], state["position"]["step"]))
    told = [line for line in capsys.readouterr().err.splitlines() if "stopped after step" in line]
    # Nothing is said where nothing had to be written.
    assert len(told) == (kept is not None and kept[1] > 0)
    done, trial.signal_at = trial.done, None
    assert trial.run() == expected
    assert trial.done == done + whole.done[len(done) :], "no step is done twice"
    assert results(trial.work) == results(whole.work)
    assert (trial.work / "epochs.csv").read_bytes() == (whole.work / "epochs.csv").read_bytes()


def test_a_finished_training_has_nothing_left_to_do(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    position = trial.run()
    before = results(tmp_path)
    trial.stop_at = (0, 0)  # not a single step
    assert trial.run() == position
    assert results(tmp_path) == before


def best_of(work: Path, epoch_losses: Sequence[float], best_from_epoch: int, *, stop_at: tuple[int, int] | None = None) -> Position:
    trial = Trial(
        work,
        losses=lambda epoch, step: epoch_losses[epoch],
        epochs=len(epoch_losses),
        best_from_epoch=best_from_epoch,
        stop_at=stop_at,
    )
    if stop_at is not None:
        with pytest.raises(Interrupted):
            trial.run()
        trial.stop_at = None
    return trial.run()


def test_the_best_epoch_has_the_lowest_loss_once_it_may_be_counted_and_is_remembered(tmp_path: Path) -> None:
    losses = [0.5, 3.0, 2.0, 2.5, 2.0]
    assert best_of(tmp_path / "a", losses, 0).best_epoch == 1
    position = best_of(tmp_path / "b", losses, 1)
    assert (position.best_epoch, position.best_score) == (3, [2.0])  # of equal ones the first
    assert best_of(tmp_path / "c", losses, 1, stop_at=(4, 2)).best_epoch == 3  # also by a resumed run
    assert best_of(tmp_path / "d", losses, 3).best_epoch == 5
    none = best_of(tmp_path / "e", losses, 5)
    assert (none.best_epoch, none.best_score) == (None, None)
    names = {path.name for path in (tmp_path / "e" / "checkpoints").iterdir()}
    assert not any(name.startswith("best") for name in names)
    assert "best-15.safetensors" in {path.name for path in (tmp_path / "b" / "checkpoints").iterdir()}


def test_what_is_measured_after_an_epoch_can_choose_the_best_one_and_has_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = [0.5, 0.25, 0.75, 0.25]
    position = Trial(tmp_path / "whole", measured=measured).run(Reporter())
    assert (position.best_epoch, position.best_score) == (2, [0.25])
    assert position.last["selection_loss"] == 0.25
    lines = [line for line in capsys.readouterr().err.splitlines() if "selection loss" in line]
    assert [line.split(":")[1] for line in lines] == [f" epoch {epoch}/4" for epoch in range(1, 5)]
    assert ["the best so far" in line for line in lines] == [True, True, False, False]
    table = rows(tmp_path / "whole", "epochs.csv")
    assert [float(row["selection_loss"]) for row in table] == measured
    assert [row["best"] for row in table] == ["True", "True", "False", "False"]
    losses = [float(row["loss"]) for row in rows(tmp_path / "whole")]
    assert float(table[-1]["loss"]) == pytest.approx(position.last["loss"], rel=1e-15)
    assert min(losses) < float(table[0]["loss"]) < max(losses) * 1.01
    # Stopped within an epoch and after one, a row is neither lost nor written twice.
    trial = Trial(tmp_path / "stopped", measured=measured)
    for stop_at in ((1, 0), (2, 3), (3, 0)):
        trial.stop_at = stop_at
        with pytest.raises(Interrupted):
            trial.run()
    trial.stop_at = None
    assert trial.run() == position
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    assert (tmp_path / "stopped" / "epochs.csv").read_bytes() == (tmp_path / "whole" / "epochs.csv").read_bytes()


def test_every_nth_epoch_is_kept(tmp_path: Path) -> None:
    Trial(tmp_path, epochs=5, keep_every=2).run()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {"epoch_2.safetensors", "epoch_4.safetensors"} == {name for name in names if name.startswith("epoch")}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [(0, 0), (2, 3), (3, 4)])
def test_a_loss_that_is_no_number_stops_naming_the_step_and_keeps_the_last_checkpoint(
    tmp_path: Path, bad: float, at: tuple[int, int]
) -> None:
    trial = Trial(tmp_path, losses=lambda epoch, step: bad if (epoch, step) == at else 1.0)
    with pytest.raises(RspnetError) as caught:
        trial.run()
    assert caught.value.exit_code == 1
    assert f"step {5 * at[0] + at[1] + 1} (epoch {at[0] + 1})" in str(caught.value)
    assert "\n" not in str(caught.value)
    state = Checkpoints(tmp_path).state
    if at[0] == 0:
        assert state is None
    else:
        assert state is not None
        assert (state["position"]["epoch"], state["position"]["step"]) == (at[0], 0)
        plan = trial.plan()
        Checkpoints(tmp_path).load(plan.model, plan.optimizer)
        assert all(torch.isfinite(value).all() for value in plan.model.state_dict().values())


def test_weights_that_are_no_numbers_are_never_saved_although_the_loss_was_one(tmp_path: Path) -> None:
    """The last step of an epoch can overflow after a fine loss: the checkpoint that follows must not take it."""
    trial = Trial(tmp_path)
    plan = trial.plan()
    optimizer_step = plan.optimizer.step

    def step(batch: Any, epoch: int, number: int, inner: Any = plan.step) -> tuple[Tensor, ...]:
        if (epoch, number) == (2, 4):
            plan.optimizer.step = lambda: (optimizer_step(), next(plan.model.parameters()).data.fill_(math.nan))[0]  # type: ignore
        return inner(batch, epoch, number)

    plan.step = step
    with pytest.raises(RspnetError) as caught:
        train(plan, Checkpoints(tmp_path), Reporter.silent())
    one_sentence(caught.value, "step 15 (epoch 3)", "weights")
    state = Checkpoints(tmp_path).state
    assert state is not None
    assert (state["position"]["epoch"], state["position"]["step"]) == (2, 0)


def test_the_first_steps_tell_how_long_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial(tmp_path)
    trial.run(Reporter())
    err = capsys.readouterr().err
    assert err.count("s a step") == 1
    assert "train: 20/20 steps" in err


def test_rows_beyond_the_checkpoint_are_cut_off_also_half_written_ones(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ["a", "b"])
    for number in range(3):
        log.append({"a": number, "b": 1 / 3})
    with log.path.open("a") as file:
        file.write("3,0.3")  # killed while writing
    again = CsvLog(tmp_path / "log.csv", ["a", "b"], rows=2)
    again.append({"a": 7, "b": None})
    assert log.path.read_text() == "a,b\n0,0.3333333333333333\n1,0.3333333333333333\n7,\n"
    assert again.rows == 3
    assert CsvLog(tmp_path / "log.csv", ["a", "b"]).rows == 0
    assert log.path.read_text() == "a,b\n"


def test_means_go_on_from_a_saved_state() -> None:
    means = Means(["a", "b"])
    means.add([1.0, 10.0])
    again = Means(["a", "b"], means.state())
    for one in (means, again):
        one.add([2.0, 20.0])
    assert again.take() == means.take() == {"a": 1.5, "b": 15.0}
    assert means.count == 0


def test_the_message_about_a_bad_loss_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RspnetError) as caught:
        Trial(tmp_path, losses=lambda epoch, step: math.nan).run()
    one_sentence(caught.value, "optim.lr")
    assert str(tmp_path / "checkpoints") not in str(caught.value), "there is no checkpoint yet"
