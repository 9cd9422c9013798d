"""What can go wrong, as sentences for users: what, where, what to do. Each kind knows its exit code."""

from __future__ import annotations

from pathlib import Path


class RspnetError(Exception):
    """Something failed (exit code 1). The message is one sentence for the user; no traceback is shown."""

    exit_code = 1
    of_this_rank = False
    """Under torchrun: this process alone met it (a video of its share), so rank 0 cannot say it."""


class InputError(RspnetError):
    """A wrong argument, setting, file or manifest (exit code 2)."""

    exit_code = 2


class BusyError(RspnetError):
    """Another run holds the stage's folder (exit code 1)."""


class DiskFullError(RspnetError):
    """No space is left (exit code 1). Earlier artifacts are untouched; the same command continues once there is room."""

    def __init__(self, path: Path, needed_bytes: int | None, free_bytes: int | None) -> None:
        needed = "more room" if needed_bytes is None else f"at least {needed_bytes:,} bytes"
        free = "" if free_bytes is None else f", and {free_bytes:,} bytes are free there"
        super().__init__(
            f"The disk is full: {path} needs {needed}{free}. Make room and type the same command again; it continues where it stopped."
        )
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes

    def __reduce__(self) -> tuple[type[DiskFullError], tuple[Path, int | None, int | None]]:
        return type(self), (self.path, self.needed_bytes, self.free_bytes)


class Stopped(BaseException):
    """A signal arrived: unwind, keep the state, exit with 128 + signal. Not an Exception, so that nothing swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
