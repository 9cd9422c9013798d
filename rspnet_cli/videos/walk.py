"""What lies below a folder of videos: the video files, what cannot be one and why, and what was passed over.

A downloaded folder is hostile input: it may hold links that lead out of it or in circles, pipes that block whoever opens them, devices,
names that are no text. Nothing is opened here; every entry ends up in exactly one of the three lists.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rspnet_cli.shards import is_output
from rspnet_cli.tables import plain_text

# Endings of files that are taken for videos where no list names them. What is really inside is the decoder's finding.
VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "ivf", "m2ts", "m4v", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg"),
        *("mts", "mxf", "nut", "ogv", "qt", "rm", "rmvb", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
_MISSING = "is not there"
_SPECIAL = {stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file, or a link to one inside the folder. `path` is relative to the folder, with forward slashes."""

    path: str
    bytes: int
    mtime_ns: int


@dataclass
class Walk:
    """What was found, each list sorted by path (as bytes, so equal everywhere)."""

    files: list[FoundFile] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason in words: the rest of a sentence that begins with the path)"""
    skipped: Counter[str] = field(default_factory=Counter)
    """How many entries were passed over, by kind: an ending such as ".txt", "no ending", "hidden", "results of rspnet"."""


def sort_key(path: str) -> bytes:
    """Order of paths that no locale and no encoding changes."""
    return os.fsencode(path)


def has_video_suffix(path: str) -> bool:
    """Whether a path ends as those of videos do; a name that is an ending alone (.mp4) does not."""
    stem, dot, ending = path.rpartition("/")[2].rpartition(".")
    return bool(stem) and f"{dot}{ending.lower()}" in VIDEO_SUFFIXES


def walk(root: Path, *, exclude: Path | None = None) -> Walk:
    """Look at everything below `root`. exclude: a result's folder (it may lie inside): left out, with its shards."""
    found = Walk()
    real_root = os.path.realpath(root)
    real_exclude = os.path.realpath(exclude) if exclude is not None else None
    # (path relative to root, real paths of the folder and all above it, whether a link led here)
    pending: list[tuple[str, tuple[str, ...], bool]] = [("", (real_root,), False)]
    while pending:  # not recursive: folders may be nested deeper than Python's stack
        folder, above, linked = pending.pop()
        try:
            names = os.listdir(above[-1])  # str: names that are no text come with surrogate escapes
        except OSError as error:
            found.refused.append((folder or ".", f"is a folder that cannot be read ({error.strerror})"))
            continue
        if folder and {"manifest.json", "videos.csv", "frames"} <= set(names):
            found.skipped["results of rspnet"] += 1
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            if name.startswith("."):  # .git, .DS_Store, the ._name.mp4 that macOS leaves on other disks
                found.skipped["hidden"] += 1
                continue
            try:
                place = locate(real_root, above[-1], name)
            except PathRefused as refused:
                found.refused.append((path, str(refused)))
                continue
            if real_exclude is not None and is_output(place.real, real_exclude):
                found.skipped["results of rspnet"] += 1
            elif not place.is_folder:
                if has_video_suffix(path):
                    found.files.append(FoundFile(path, place.status.st_size, place.status.st_mtime_ns))
                else:
                    found.skipped[PurePosixPath(path).suffix.lower() or "no ending"] += 1
            elif place.is_link and place.real in above:
                found.refused.append((path, "is a link to a folder that it lies in, without end"))
            elif place.is_link and linked:
                # One level is enough for real collections, and it bounds what a hostile one can unfold to.
                found.refused.append((path, "is a link to a folder inside a folder that is a link itself: not followed"))
            else:
                pending.append((path, (*above, place.real), linked or place.is_link))
    found.files.sort(key=lambda file: sort_key(file.path))
    found.refused.sort(key=lambda item: sort_key(item[0]))
    return found


class PathRefused(Exception):
    """Why a path below the folder of videos cannot be a video, in words. is_missing: there is simply nothing."""

    def __init__(self, reason: str, *, is_missing: bool = False) -> None:
        super().__init__(reason)
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class Place:
    """A regular file or folder: its real path, its status, whether its name is a link."""

    real: str
    status: os.stat_result
    is_link: bool

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def locate(real_root: str, real_folder: str, path: str) -> Place:
    """Follow `path` (relative to `real_folder`) to a file or folder below `real_root`; both are free of links.

    Raises PathRefused when it leads to anything else.
    """
    whole = os.path.join(real_folder, path)  # noqa: PTH118
    try:
        status = os.lstat(whole)
        is_link = stat.S_ISLNK(status.st_mode)
        if is_link or "/" in path or path == "..":  # resolving costs a call per folder: spared for the plain entries of a folder
            real = os.path.realpath(whole, strict=True)
            status = os.stat(real)  # noqa: PTH116
        else:
            real = whole
    except OSError as error:
        reason = _why_not(whole, error)
        raise PathRefused(reason, is_missing=reason == _MISSING) from error
    except ValueError as error:  # a NUL in a list
        raise PathRefused("is no path that a file can have") from error
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        how = "is a link that leads" if is_link else "leads"
        raise PathRefused(f"{how} out of the folder of videos, to {plain_text(real)}: copy it there, or name a folder that holds both")
    kind = _SPECIAL.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise PathRefused(f"is {kind}, not a file")
    return Place(real, status, is_link)


class Locator:
    """`locate` for the paths of a list: each folder is resolved once, however many of its files a list names."""

    def __init__(self, root: Path) -> None:
        self.real_root = os.path.realpath(root)
        self._bases = (root.absolute().as_posix(), self.real_root)
        self._folders: dict[str, str] = {"": self.real_root}
        self._missing: set[str] = set()

    def locate(self, path: str) -> Place:
        """Follow a path relative to the root. Raises PathRefused."""
        folder, _, name = path.rpartition("/")
        if name in ("", ".", "..") or path.startswith("/"):
            return locate(self.real_root, self.real_root, path)
        if folder in self._missing:
            raise PathRefused(_MISSING, is_missing=True)
        if folder not in self._folders:
            try:
                self._folders[folder] = locate(self.real_root, self.real_root, folder).real
            except PathRefused as refused:
                if refused.is_missing:
                    self._missing.add(folder)
                    raise
                return locate(self.real_root, self.real_root, path)  # for words about the path itself
        return locate(self.real_root, self._folders[folder], name)

    def relative(self, path: str) -> str:
        """A path of a list as it is recorded: relative to the folder of videos where that is possible, without `./`."""
        pure = PurePosixPath(path)
        if pure.is_absolute():
            pure = next((pure.relative_to(base) for base in self._bases if pure.is_relative_to(base)), pure)
        return pure.as_posix()


def _why_not(path: str, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a link in a loop of links"
    if error.errno == errno.ENOENT:
        try:
            return f"is a link to {plain_text(os.readlink(path))}, which is not there"  # noqa: PTH115
        except OSError:
            return _MISSING
    return f"cannot be reached ({error.strerror})"
