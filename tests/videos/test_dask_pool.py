"""A dask cluster gives the outcomes that the pool of one machine gives: time limit, broken workers, bounded memory and all."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.errors import DiskFullError, InputError, RspnetError
from rspnet_cli.videos.dask_pool import DaskPool, run_task
from rspnet_cli.videos.pool import Outcome, WorkerPool
from tests.processes import is_alive, wait_until
from tests.sentences import one_sentence, refused
from tests.videos.pool_tasks import work

Task = tuple[str, object]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers of one thread, each a process of its own."""
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50) as cluster:
        yield cluster.scheduler_address


def run(address: str, tasks: list[Task], folder: Path, *, timeout_s: float = 60) -> dict[Task, Outcome[Task, object]]:
    with DaskPool(address, work, timeout_s=timeout_s, folder=folder) as pool:
        outcomes = list(pool.outcomes(tasks))
    assert len(outcomes) == len(tasks)
    return {outcome.task: outcome for outcome in outcomes}


def test_outcomes_are_those_of_the_pool_of_one_machine(address: str, tmp_path: Path) -> None:
    tasks: list[Task] = [("echo", number) for number in range(12)]
    tasks[3:3] = [("die", int(signal.SIGSEGV)), ("exit", 0), ("raise", "no such luck"), ("memory", None), ("ignored", None)]
    with WorkerPool(work, num_workers=1, timeout_s=60) as pool:
        expected = {outcome.task: outcome for outcome in pool.outcomes(tasks)}
    assert run(address, tasks, tmp_path) == expected


def test_a_task_beyond_its_time_ends_and_others_go_on(address: str, tmp_path: Path) -> None:
    outcomes = run(address, [("sleep", 600), ("echo", 1), ("echo", 2)], tmp_path, timeout_s=1)
    assert outcomes["sleep", 600] == Outcome(("sleep", 600), None, "took longer than 1 s", timed_out=True)
    assert outcomes["echo", 2].result == 2


def test_processes_live_on_between_tasks_and_end_with_the_run(address: str, tmp_path: Path) -> None:
    pids = {outcome.result for outcome in run(address, [("pid", number) for number in range(20)], tmp_path).values()}
    assert len(pids) <= 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the processes have ended")  # type: ignore[arg-type]


def test_tasks_are_drawn_as_they_are_needed(address: str, tmp_path: Path) -> None:
    drawn = 0

    def tasks() -> Iterator[Task]:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            yield "echo", number

    with DaskPool(address, work, timeout_s=60, folder=tmp_path) as pool:
        for done, _ in enumerate(pool.outcomes(tasks()), start=1):
            assert drawn <= done + 4  # twice the threads
    assert drawn == 100


def test_a_full_disk_ends_the_run(address: str, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"/somewhere/a\.mp4"):
        run(address, [("echo", 1), ("disk full", "/somewhere/a.mp4")], tmp_path)


def test_a_dask_worker_that_dies_takes_no_task_with_it(address: str, tmp_path: Path) -> None:
    """The first run of a task kills the dask worker itself; dask has it done again elsewhere."""
    outcomes = run(address, [("kill parent once", str(tmp_path / "killed")), *(("echo", number) for number in range(6))], tmp_path)
    assert (tmp_path / "killed").exists()
    assert outcomes["kill parent once", str(tmp_path / "killed")].result == "survived"
    assert {outcome.failure for outcome in outcomes.values()} == {None}


def test_a_machine_without_the_folder_or_with_another_version_ends_the_run(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RspnetError) as caught:
        run(address, [("echo", 1)], tmp_path / "elsewhere")
    one_sentence(caught.value, f"does not see {tmp_path / 'elsewhere'}", "same shared folders")
    monkeypatch.setattr("rspnet_cli.__version__", "9.9")
    with pytest.raises(RspnetError) as caught:
        run(address, [("echo", 1)], tmp_path)
    one_sentence(caught.value, "9.9 is needed")


def test_an_address_where_nobody_answers_is_one_sentence(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rspnet_cli.videos.dask_pool.CONNECT_TIMEOUT_S", 1)
    for wrong in ("tcp://127.0.0.1:9", "nonsense://x", "tcp://"):
        with pytest.raises(InputError) as caught:
            run(wrong, [("echo", 1)], tmp_path)
        refused(caught.value, f"--dask {wrong}")


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rspnet_cli.videos.dask_pool.find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        run("tcp://127.0.0.1:9", [("echo", 1)], tmp_path)
    refused(caught.value, "rspnet-cli[dask]")


def test_a_task_runs_in_a_process_beside_its_thread(tmp_path: Path) -> None:
    """The part of a dask worker, without dask."""
    import rspnet_cli
    from rspnet_cli.videos import dask_pool

    how: tuple[Any, ...] = (60.0, str(tmp_path), rspnet_cli.__version__)
    pids = {run_task(work, ("pid", number), *how).result for number in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert run_task(work, ("die", int(signal.SIGKILL)), *how).failure is not None
    assert run_task(work, ("echo", 1), *how).result == 1
    dask_pool._close_pools()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the process has ended")  # type: ignore[arg-type]
