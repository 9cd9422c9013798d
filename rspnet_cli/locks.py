"""One run at a time in a folder: an OS lock that dies with its holder, whose name the second run is told."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rspnet_cli.errors import BusyError, InputError
from rspnet_cli.files import disk_full, is_disk_full

LOCK = ".lock"
_LOCK_FILE = ".lock-file"  # where the file system has no flock
_held: set[int] = set()  # open lock files of this process
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def _let_go_in_child() -> None:
    """A forked loader worker must not keep the lock of a parent that was killed; closing its copy leaves the parent's lock in place."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold `<folder>/.lock` for the block; makes the folder. Raises BusyError naming the holder's host and process.

    flock where the file system has it: the system drops it when the holder dies, however that happens. Elsewhere (some network file
    systems) an exclusive file naming host and process; one of a dead process of this host is taken over.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise InputError(f"{folder} cannot be written to ({error.strerror}): choose another place with --out or --work-dir.") from error
    try:
        locked = _flock(handle, path)
    except BaseException:
        os.close(handle)  # the name in the file is the holder's: it stays
        raise
    if not locked:
        os.close(handle)
        with _exclusive_file(folder / _LOCK_FILE):
            yield
        return
    _held.add(handle)
    try:
        with suppress(OSError):  # on a full disk the lock holds without a name
            os.ftruncate(handle, 0)
            os.pwrite(handle, _me().encode(), 0)
        yield
    finally:
        _held.discard(handle)
        with suppress(OSError):
            os.ftruncate(handle, 0)  # the file stays (removing a locked file races), empty: nobody holds it
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a run works in the folder at this moment, as far as that can be told from here. Nothing is written."""
    import fcntl

    exclusive = folder / _LOCK_FILE
    if exclusive.exists():
        return not _is_dead(exclusive)
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: a run that starts meanwhile tries again
    except OSError as error:
        return error.errno not in _NO_FLOCK
    finally:
        os.close(handle)
    return False


def _flock(handle: int, path: Path) -> bool:
    """Take the lock. False where the file system has no flock. Raises BusyError."""
    import fcntl

    for attempt in range(3):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            if attempt == 2:
                raise _busy(path) from None
            time.sleep(0.05)  # a holder that is just ending, or has not written its name yet
    return True


@contextmanager
def _exclusive_file(path: Path) -> Iterator[None]:
    for _ in range(2):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            break
        except FileExistsError:
            if not _is_dead(path):
                raise _busy(path) from None
            path.unlink(missing_ok=True)
    else:
        raise _busy(path)
    os.write(handle, _me().encode())
    os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _me() -> str:
    return json.dumps({"host": platform.node(), "pid": os.getpid()})


def _holder(path: Path) -> tuple[str, int] | None:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return str(holder["host"]), int(holder["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_dead(path: Path) -> bool:
    holder = _holder(path)
    if holder is None or holder[0] != platform.node():
        return False
    try:
        os.kill(holder[1], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _busy(path: Path) -> BusyError:
    holder = _holder(path)
    who = f"process {holder[1]} on {holder[0]}" if holder else "another run"
    return BusyError(f"{path.parent} is in use by {who}: wait until it has ended, stop it, or choose another --out.")
