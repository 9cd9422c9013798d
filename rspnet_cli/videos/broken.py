"""The one exception for a video that cannot be used, with its reason in words."""

from __future__ import annotations

from pathlib import Path

from rspnet_cli.errors import InputError


class BrokenVideo(InputError):
    """A foreign file that is no usable video. One such file never stops a run over many; named alone it is bad input (exit code 2).

    reason: what is wrong, the rest of a sentence that begins with the file's name ("was cut short: ...").
    decoded, declared: pictures that decoded and that the file says it holds, None where unknown.
    """

    def __init__(self, path: Path, reason: str, decoded: int | None = None, declared: int | None = None) -> None:
        super().__init__(f"{path} {reason}.")
        self.path = path
        self.reason = reason
        self.decoded = decoded
        self.declared = declared

    def __reduce__(self) -> tuple[type[BrokenVideo], tuple[Path, str, int | None, int | None]]:
        # It is raised in worker processes and travels to their parent.
        return type(self), (self.path, self.reason, self.decoded, self.declared)
