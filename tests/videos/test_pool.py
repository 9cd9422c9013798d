import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rspnet_cli.errors import DiskFullError, RspnetError
from rspnet_cli.videos import pool as pool_module
from rspnet_cli.videos.pool import Outcome, WorkerPool
from tests.videos.pool_tasks import work

Task = tuple[str, object]
ROOT = Path(__file__).parents[2]


def run(tasks: list[Task], *, num_workers: int = 1, timeout_s: float = 60) -> dict[Task, Outcome[Task, object]]:
    with WorkerPool(work, num_workers=num_workers, timeout_s=timeout_s) as pool:
        outcomes = list(pool.outcomes(tasks))
    assert len(outcomes) == len(tasks)
    return {outcome.task: outcome for outcome in outcomes}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(condition: object, what: str, seconds: float = 120) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def test_every_task_has_its_outcome_and_failures_have_reasons_in_words() -> None:
    tasks: list[Task] = [("echo", i) for i in range(6)]
    tasks[3:3] = [
        ("die", int(signal.SIGKILL)),
        ("die", int(signal.SIGSEGV)),
        ("exit", 0),
        ("raise", "no such luck"),
        ("memory", None),
        ("unpicklable", None),
        ("ignored", None),
        ("big", 3_000_000),
        ("talk", None),
    ]
    outcomes = run(tasks, num_workers=2)
    for i in range(6):
        assert outcomes["echo", i] == Outcome(("echo", i), i)
    assert outcomes["die", 9].failure == (
        "ended its worker process, which was killed from outside, as the system does when memory runs out"
    )
    assert outcomes["die", 11].failure == "ended its worker process, which crashed (segmentation fault)"
    assert outcomes["exit", 0].failure == "ended its worker process, which ended unexpectedly (exit code 0)"
    assert outcomes["raise", "no such luck"].failure == "raised an unexpected ValueError: no such luck"
    assert outcomes["memory", None].failure == "ran out of memory"
    assert (outcomes["unpicklable", None].failure or "").startswith("gave a result that cannot be sent")
    assert outcomes["ignored", None].result == [True, True]
    assert outcomes["big", 3_000_000].result == bytes(3_000_000)
    assert outcomes["talk", None].result == "said"


def test_a_task_beyond_its_time_is_ended_and_the_others_go_on() -> None:
    began = time.monotonic()
    outcomes = run([("hang in C", None), ("echo", 1), ("sleep", 0.1), ("echo", 2)], num_workers=2, timeout_s=1.5)
    assert outcomes["hang in C", None].failure == "took longer than 1.5 s"
    assert [outcomes["echo", i].result for i in (1, 2)] == [1, 2]
    assert outcomes["sleep", 0.1].failure is None
    assert time.monotonic() - began < 60


def test_a_worker_ends_itself_when_stuck_with_nobody_to_end_it() -> None:
    ((remaining_s, is_default),) = [outcome.result for outcome in run([("alarm", None)], timeout_s=60).values()]  # type: ignore[misc]
    assert is_default
    assert 60 < remaining_s <= 60 + pool_module.ALARM_GRACE_S


def test_no_more_tasks_are_drawn_than_there_are_workers() -> None:
    drawn = 0

    def tasks() -> Iterator[Task]:
        nonlocal drawn
        for i in range(40):
            drawn += 1
            yield ("echo", i)

    with WorkerPool(work, num_workers=3, timeout_s=60) as pool:
        for done, _ in enumerate(pool.outcomes(tasks())):
            assert drawn - done <= 3
    assert drawn == 40


def test_fewer_tasks_start_fewer_workers_and_an_empty_list_none(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    real = subprocess.Popen
    monkeypatch.setattr(pool_module.subprocess, "Popen", lambda *args, **how: started.append(args) or real(*args, **how))
    assert run([], num_workers=4) == {}
    assert not started
    run([("echo", 1), ("echo", 2)], num_workers=4)
    assert len(started) == 2


def test_workers_are_renewed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "TASKS_PER_WORKER", 2)
    with WorkerPool(work, num_workers=1, timeout_s=60) as pool:
        pids = [outcome.result for outcome in pool.outcomes([("pid", None)] * 4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_full_disk_ends_the_run_and_no_task_is_blamed() -> None:
    with (
        WorkerPool(work, num_workers=1, timeout_s=60) as pool,
        pytest.raises(DiskFullError, match=r"/somewhere/frames/a\.mp4"),
    ):
        list(pool.outcomes([("disk full", "/somewhere/frames/a.mp4"), ("echo", 1)]))


def test_a_task_is_not_blamed_for_a_worker_that_died_before(tmp_path: Path) -> None:
    with WorkerPool(work, num_workers=1, timeout_s=60) as pool:
        (first,) = pool.outcomes([("pid", None)])
        os.kill(int(str(first.result)), signal.SIGKILL)
        wait_until(lambda: not is_alive(int(str(first.result))), "the worker is gone")
        time.sleep(0.2)  # until its last thread has let go of the socket
        (second,) = pool.outcomes([("echo", 7)])
    assert second.result == 7


def test_workers_that_cannot_start_end_the_run_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_BOOT", "raise SystemExit(3)")
    with (
        WorkerPool(work, num_workers=2, timeout_s=60) as pool,
        pytest.raises(RspnetError, match=r"cannot be started.*exit code 3"),
    ):
        list(pool.outcomes([("echo", i) for i in range(5)]))


def test_leaving_the_pool_ends_its_workers(tmp_path: Path) -> None:
    with WorkerPool(work, num_workers=2, timeout_s=60) as pool:
        next(pool.outcomes([("note and hang", str(tmp_path)), ("wait for note", str(tmp_path))]))
    assert not is_alive(int(next(tmp_path.iterdir()).name))


# No `if __name__ == "__main__"`: a worker must not run the caller's script again.
SCRIPT = textwrap.dedent(
    """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    sys.path.insert(0, sys.argv[1])
    from rspnet_cli.videos.pool import WorkerPool
    from tests.videos.pool_tasks import work
    print("started", flush=True)
    with WorkerPool(work, num_workers=2, timeout_s=300) as pool:
        list(pool.outcomes([("note and hang", sys.argv[2])] * 2))
    """
)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path: Path, stop: signal.Signals) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    script = tmp_path / "caller.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, script, ROOT, notes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(list(notes.iterdir())) == 2, "both workers are at work")
        pids = [int(note.name) for note in notes.iterdir()]
        os.killpg(parent.pid, stop)  # as a terminal or a job scheduler does
        out, err = parent.communicate(timeout=120)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "the workers are gone", 30)
    finally:
        parent.kill()
        parent.communicate()
    assert out == "started\n"  # once: the script ran in the parent alone
    assert err.count("Traceback") == (1 if stop == signal.SIGINT else 0)  # the parent's own KeyboardInterrupt
