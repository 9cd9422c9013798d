"""Processes that a test starts and kills: forked children (torch is loaded already) and kills at every file operation."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
KILLED = 137


def fork(function: Callable[[], object], *, output: Path | None = None) -> int:
    """Run a function in a child process and give its process id. It exits with 0, or 70 if the function raised.

    output: what the child prints goes there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        if output is not None:
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        result = function()
        code = result if isinstance(result, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The child's exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_alive(pid: int) -> bool:
    """Whether a process (not a zombie) has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
    """Poll until it holds; fail after so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def kill_at_change(function: Callable[[], object], number: int) -> bool:
    """Run a function in a child that is killed just before its number-th change of the file system (0: the first).

    Every rename, removal, new folder, link and opening of a file for writing counts, also those inside libraries written in
    Python. True when it was killed, False when the function ended before.
    """

    def doomed() -> None:
        left = number

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            if event == "open":
                flags = args[2]
                if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR) or os.fspath(str(args[0])).startswith("/dev/"):
                    return
            elif event not in _CHANGES:
                return
            if left == 0:
                os._exit(KILLED)
            left -= 1

        sys.addaudithook(hook)
        function()

    code = wait(fork(doomed))
    assert code in (0, KILLED), f"the child failed with {code}"
    return code == KILLED


def kill(pid: int) -> None:
    """kill -9."""
    os.kill(pid, signal.SIGKILL)


def fork_ranks(function: Callable[[], object], outputs: list[Path]) -> list[int]:
    """Run a function in as many connected processes as there are outputs, as torchrun does; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number: int) -> object:
        facts = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": len(outputs), "LOCAL_WORLD_SIZE": len(outputs), "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in facts.items()} | {"MASTER_ADDR": "127.0.0.1"})
        return function()

    pids = [fork(lambda number=number: rank(number), output=output) for number, output in enumerate(outputs)]  # type: ignore[misc]
    return [wait(pid) for pid in pids]
