"""Signals: a run ends in one line, with one exit code, and never in the middle of what must be whole."""

import os
import signal
import subprocess
import sys

import pytest

from rspnet_cli import stopping
from rspnet_cli.errors import RspnetError, Stopped
from tests.processes import ROOT

LINE = "rspnet: interrupted; what a stage has done is kept, the same command goes on.\n"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_a_signal_is_one_line_and_the_handlers_are_put_back(number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in CODES]
    seen = []

    def interrupted() -> int:
        try:
            send(number, *CODES)  # further ones, of any kind, do not break the clean-up
        except Exception:
            seen.append("swallowed")
        finally:
            seen.append("cleaned up")
        return 0

    assert stopping.stoppable(interrupted) == code
    assert capsys.readouterr() == ("", LINE)
    assert seen == ["cleaned up"]
    assert [signal.getsignal(each) for each in CODES] == before
    assert stopping.stoppable(lambda: 7) == 7
    assert capsys.readouterr() == ("", "")


def test_a_held_signal_waits_for_the_end_of_the_outermost_block(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def run() -> int:
        with stopping.held():
            with stopping.held():
                assert not stopping.requested()
                send(signal.SIGTERM, signal.SIGINT)
                seen.append(stopping.requested())
            seen.append("whole")
        raise AssertionError("not stopped")

    assert stopping.stoppable(run) == 143
    assert seen == [signal.SIGTERM, "whole"]
    assert capsys.readouterr().err == LINE
    assert not stopping.requested()
    with stopping.held():
        pass  # what stopped one run stops no other


def test_an_error_in_a_held_block_is_not_replaced_by_the_signal() -> None:
    def fail() -> None:
        send(signal.SIGTERM)
        raise RspnetError("it failed")

    def run() -> int:
        with pytest.raises(RspnetError, match="it failed"), stopping.held():
            fail()
        assert stopping.requested()
        with pytest.raises(Stopped), stopping.held():
            pass
        return 5

    assert stopping.stoppable(run) == 5


def test_a_signal_is_heard_while_the_command_line_is_still_being_imported() -> None:
    script = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Finder())
sys.argv = ["rspnet", "--version"]
runpy.run_module("rspnet_cli", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "rspnet: interrupted; nothing had begun.\n")
