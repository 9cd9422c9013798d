"""A tracker gets every step once and cannot harm the run, wherever either of them stops."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.progress import Reporter
from rspnet_cli.training import trackers
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.loop import Position, train
from rspnet_cli.training.trackers import Tracking, resolved_tracker
from tests.fake_tracker import events, install
from tests.sentences import one_sentence, refused
from tests.training.test_loop import Interrupted, Trial, results

SETTINGS = {"optim": {"lr": 0.05}}


@pytest.fixture(autouse=True)
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker `fake` is installed."""
    monkeypatch.syspath_prepend(str(install(tmp_path_factory.mktemp("installed"))))
    monkeypatch.delitem(sys.modules, "fake_tracker", raising=False)


def run(trial: Trial, report: Reporter | None = None, tracker: str | None = "fake") -> Position:
    plan = trial.plan()
    plan.tracker, plan.settings = tracker, SETTINGS
    return train(plan, Checkpoints(trial.work), report or Reporter.silent())


def fails(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setenv("FAKE_TRACKER_FAILS", when)


def test_it_gets_the_rows_of_the_tables_and_knows_the_run(tmp_path: Path) -> None:
    work = tmp_path / "pretrain" / "unfinished"
    run(Trial(work, measured=[0.4, 0.3, 0.2, 0.1]))
    told = events(work)
    assert (told[0]["event"], told[-1]["event"]) == ("start", "close")
    start = told[0]
    assert (start["stage"], start["last_step"], start["settings"]) == ("train", None, SETTINGS)
    assert start["name"] == f"{tmp_path.name}/pretrain"
    logs = [(event["step"], event["figures"]) for event in told if event["event"] == "log"]
    with (work / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [(step, figures) for step, figures in logs if "loss" in figures]
    assert [step for step, _ in steps] == [int(row["step"]) for row in rows]
    for (_, figures), row in zip(steps, rows, strict=True):
        assert figures == {name: float(row[name]) for name in ("lr", "loss", "where", "grad_norm", "share")}
    epochs = [(step, figures) for step, figures in logs if "epoch/loss" in figures]
    assert [step for step, _ in epochs] == [5, 10, 15, 20]
    assert [figures["epoch/selection_loss"] for _, figures in epochs] == [0.4, 0.3, 0.2, 0.1]
    assert [step for step, _ in logs] == sorted(step for step, _ in logs)


def test_stopped_and_resumed_it_gets_no_step_twice_and_the_result_is_the_same(tmp_path: Path) -> None:
    whole = Trial(tmp_path / "whole", log_interval=1)
    run(whole, tracker=None)
    trial = Trial(tmp_path / "stopped", log_interval=1)
    # Steps 6 to 9 are logged before the stop and trained again after it; then it stops before it has come as far as it was.
    for stop_at in ((0, 2), (1, 4), (1, 1), (3, 0)):
        trial.stop_at = stop_at
        with pytest.raises(Interrupted):
            run(trial)
    trial.stop_at = None
    run(trial)
    assert [event["step"] for event in events(trial.work, "log")] == list(range(1, 21))
    starts = events(trial.work, "start")
    assert [start["last_step"] for start in starts] == [None, 2, 9, 9, 15]
    assert len({start["id"] for start in starts}) == 1
    assert len(starts[0]["id"]) == 32
    assert len(events(trial.work, "close")) == 5
    assert results(trial.work) == results(whole.work)
    run(Trial(tmp_path / "other", epochs=1))
    assert events(tmp_path / "other", "start")[0]["id"] != starts[0]["id"]


def test_a_tracker_that_fails_is_left_out_and_the_training_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Trial(tmp_path / "whole", log_interval=1), tracker=None)
    fails(monkeypatch, "step 7; close")
    trial = Trial(tmp_path / "failing", log_interval=1)
    run(trial, Reporter())
    out, err = capsys.readouterr()
    assert out == ""
    warnings = [line for line in err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "fake failed (ConnectionError: the server has gone)" in warnings[0]
    assert [event["step"] for event in events(trial.work, "log")] == list(range(1, 7))
    assert len(events(trial.work, "close")) == 1
    assert results(trial.work) == results(tmp_path / "whole")


def test_one_that_cannot_be_closed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(monkeypatch, "close")
    assert run(Trial(tmp_path), Reporter()).epoch == 4
    assert "could not be closed (OSError: not closed)" in capsys.readouterr().err


def test_one_that_cannot_start_stops_a_new_run_but_no_resumed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(tmp_path / "new")
    fails(monkeypatch, "start")
    with pytest.raises(RspnetError) as caught:
        run(trial)
    assert caught.value.exit_code == 1
    one_sentence(caught.value, "fake", "ConnectionError: no server at all", "--tracker none")
    assert trial.done == []
    fails(monkeypatch, "")
    trial.stop_at = (2, 0)
    with pytest.raises(Interrupted):
        run(trial)
    fails(monkeypatch, "start")
    trial.stop_at = None
    capsys.readouterr()
    assert run(trial, Reporter()).epoch == 4
    assert "warning: The tracker fake could not be started" in capsys.readouterr().err


def test_what_a_tracker_prints_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Trial(tmp_path))
    out, err = capsys.readouterr()
    assert out == ""
    assert "the tracker talks" in err


def test_a_damaged_note_of_what_was_given_does_not_stop_a_run(tmp_path: Path) -> None:
    trial = Trial(tmp_path, stop_at=(2, 0))
    with pytest.raises(Interrupted):
        run(trial)
    for text in ("{", "[]", '{"id": 3}'):
        (tmp_path / "tracked.json").write_text(text)
        with pytest.raises(Interrupted):
            run(trial)
    assert len({start["id"] for start in events(tmp_path, "start")}) == 4


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    for name in (None, "none"):
        run(Trial(tmp_path), tracker=name)
        assert not {"trackers", "tracked.json"} & {path.name for path in tmp_path.iterdir()}


def test_another_tracker_of_the_same_run_gets_what_comes_from_then_on(tmp_path: Path) -> None:
    trial = Trial(tmp_path, log_interval=1, stop_at=(2, 0))
    with pytest.raises(Interrupted):
        run(trial, tracker=None)
    trial.stop_at = None
    run(trial)
    assert [event["step"] for event in events(tmp_path, "log")] == list(range(11, 21))


def test_names_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, default in ((None, "none"), (object(), "tensorboard")):
        monkeypatch.setattr(trackers, "find_spec", lambda name, there=there: there)
        assert resolved_tracker(None) == default
        assert [resolved_tracker(name) for name in ("none", "fake")] == ["none", "fake"]
        with pytest.raises(InputError) as caught:
            resolved_tracker("fakee")
        refused(caught.value, "'fakee'", "did you mean 'fake'", "none, ", "rspnet.trackers")
        assert ("tensorboard" in str(caught.value)) == (there is not None)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        resolved_tracker("tensorboard")
    refused(caught.value, "pip install", "--tracker none")


def test_tensorboard_holds_every_figure_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard, which is optional, is not installed here")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trial = Trial(tmp_path, log_interval=1, stop_at=(1, 4))
    with pytest.raises(Interrupted):
        run(trial, tracker="tensorboard")
    trial.stop_at = None
    run(trial, tracker="tensorboard")
    found = EventAccumulator(str(tmp_path / "trackers" / "tensorboard"))
    found.Reload()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        losses = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    kept = [(event.step, event.value) for event in found.Scalars("loss")]
    assert kept == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in losses]


def test_killed_between_note_and_tracker_it_loses_a_step_but_gives_none_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tracking() -> Tracking:
        return Tracking("fake", stage="train", work=tmp_path, settings={}, resumed=True, report=Reporter.silent())

    def kill(step: int, figures: object) -> None:
        raise KeyboardInterrupt

    first = tracking()
    first.log(1, {"loss": 1.0})
    monkeypatch.setattr(first._tracker, "log", kill)
    with pytest.raises(KeyboardInterrupt):
        first.log(2, {"loss": 1.0})
    second = tracking()
    for step in (1, 2, 3):
        second.log(step, {"loss": 2.0})
    second.log(3, {"loss": 2.0}, of_epoch=True)
    third = tracking()
    third.log(3, {"loss": 3.0})
    third.log(3, {"loss": 3.0}, of_epoch=True)
    given = [(event["step"], event["figures"]) for event in events(tmp_path, "log")]
    assert given == [(1, {"loss": 1.0}), (3, {"loss": 2.0}), (3, {"epoch/loss": 2.0})]
