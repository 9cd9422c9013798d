"""What a run says while it works, on a terminal and elsewhere: all of it on stderr."""

import pytest

from rspnet_cli import progress
from rspnet_cli.progress import Reporter


def test_off_a_terminal_there_are_plain_lines_with_rate_time_left_and_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    report = Reporter()
    seen = []
    for item in report.track("abc", total=3, unit="videos", name="extract"):
        report.figures(loss=0.123456, failed=2)
        seen.append(item)
    out, err = capsys.readouterr()
    assert seen == ["a", "b", "c"]
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(" videos")[0] for line in lines] == ["extract: 1/3", "extract: 2/3", "extract: 3/3"]
    assert all("/s" in line and "loss 0.1235, failed 2" in line for line in lines)
    assert "left" in lines[0]
    assert "left" not in lines[-1]
    assert "\x1b" not in err


def test_a_short_run_still_has_a_last_line_and_an_empty_one_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Reporter().track([1, 2], total=2, unit="steps", name="pretrain")) == [1, 2]
    assert capsys.readouterr().err.splitlines()[0].startswith("pretrain: 2/2 steps")
    assert list(Reporter().track([], total=0, unit="steps", name="pretrain")) == []
    assert capsys.readouterr().err == ""


def test_a_resumed_run_counts_on_and_its_rate_is_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(second) for second in range(100))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.5)
    list(Reporter().track(range(2), total=10, unit="steps", name="pretrain", start=7))
    # Began at second 0; each step ends one second later: one step a second, one step left after the second.
    assert capsys.readouterr().err.splitlines()[:2] == [
        "pretrain: 8/10 steps, 1.0/s, 2s left",
        "pretrain: 9/10 steps, 1.0/s, 1s left",
    ]


def test_a_silent_reporter_says_nothing_and_still_yields(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter.silent()
    report.info("note")
    report.warn("warning")
    report.figures(loss=1.0)
    assert list(report.track([1, 2, 3], total=3)) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_notes_are_one_line_each_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter()
    report.info("a [bold]name[/bold] \udcff " + "x" * 300)
    report.warn("careful")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a [bold]name[/bold] \\udcff " + "x" * 300 + "\nwarning: careful\n"


def test_on_a_terminal_there_is_a_bar_and_names_are_no_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("COLUMNS", "160")
    report = Reporter()
    for _ in report.track(range(3), total=3, unit="[bold]videos", name="[red]extract"):
        report.figures(worst="[link]x", loss=0.5)
        report.info("a [bold]name[/bold]")
        report.warn("[dim]careful")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[red]extract" in err
    assert "[bold]videos" in err
    assert "3/3" in err
    assert "a [bold]name[/bold]" in err
    assert "[dim]careful" in err
    assert "[link]x, loss 0.5" in err


def test_a_failing_loop_ends_the_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    report = Reporter()

    def fail() -> None:
        for item in report.track(range(3), total=3, unit="steps", name="pretrain"):
            if item == 1:
                raise ValueError

    with pytest.raises(ValueError):
        fail()
    report.figures(loss=1.0)  # belongs to no bar
    assert list(report.track(range(2), total=2, name="next")) == [0, 1]
    assert "next" in capsys.readouterr().err
