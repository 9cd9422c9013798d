"""The table of source videos that every data-set layout fills in, and how it is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rspnet_cli.files import sha256_of, sha256_of_json
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.ids import make_ids
from rspnet_cli.videos.walk import FoundFile, Walk, sort_key

UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A file that may be a video, and what is known of it without opening it."""

    id: str
    path: str
    """Below the folder of videos, with forward slashes, as the file system spells it (surrogate escapes for bytes that are no text)."""
    bytes: int
    mtime_ns: int
    label: int | None
    label_name: str
    group: str
    splits: tuple[str, ...]
    """For each of the table's splits: train, test, val or unused."""


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """Something named or found that cannot be a video."""

    id: str
    path: str
    label_name: str
    reason: str


@dataclass(frozen=True)
class VideoTable:
    """All that a folder of videos holds; videos and failures sorted by path."""

    root: Path
    dataset: str
    videos: tuple[VideoSource, ...]
    failures: tuple[SourceFailure, ...]
    classes: tuple[str, ...]
    """Names by label; empty without labels."""
    split_names: tuple[str, ...]
    """Names of the split columns, "split_1" and so on."""
    annotations_sha256: str | None
    """Hash of the lists that labels and splits come from."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def limited(self, limit: int) -> VideoTable:
        """The table with at most `limit` videos, evenly spaced over the sorted paths, so that the first class is not all there is."""
        count = len(self.videos)
        if limit >= count:
            return self
        videos = tuple(self.videos[i * count // limit] for i in range(limit))
        return replace(self, videos=videos, notes=(*self.notes, f"--limit: {limit:,} of {count:,} videos, evenly spaced over the list."))


@dataclass
class Listing:
    """A table while a layout fills it in."""

    files: list[tuple[FoundFile, str, str, tuple[str, ...]]] = field(default_factory=list)
    """(file, class name or "", group or "", splits)"""
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """(path, class name or "", reason)"""
    classes: Sequence[str] = ()
    split_names: Sequence[str] = ()
    annotations: Sequence[Path] = ()
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, file: FoundFile, *, label_name: str = "", group: str = "", splits: tuple[str, ...] = ()) -> None:
        self.files.append((file, label_name, group, splits))

    def refuse(self, path: str, reason: str, *, label_name: str = "") -> None:
        self.refused.append((path, label_name, reason))

    def note_skipped(self, found: Walk) -> None:
        """Say how many files were passed over because their names are not those of videos."""
        if found.skipped:
            kinds = [f"{count:,} {plain_text(kind)}" for kind, count in sorted(found.skipped.items(), key=lambda item: (-item[1], item[0]))]
            listed = ", ".join(kinds[:8]) + (f" and {len(kinds) - 8:,} other kinds" if len(kinds) > 8 else "")
            self.notes.append(f"Passed over {counted(found.skipped.total(), 'entry')}, no videos by their names: {listed}.")

    def table(self, root: Path, dataset: str) -> VideoTable:
        """Ids and labels for what was added."""
        refused = _first_of_each(self.refused)
        ids = make_ids([file.path for file, *_ in self.files] + [path for path, *_ in refused])
        labels = {name: label for label, name in enumerate(self.classes)}
        videos = [
            VideoSource(
                ids[file.path],
                file.path,
                file.bytes,
                file.mtime_ns,
                labels.get(label_name) if label_name else None,
                plain_text(label_name),
                plain_text(group),
                splits,
            )
            for file, label_name, group, splits in self.files
        ]
        failures = [SourceFailure(ids[path], path, plain_text(label_name), reason) for path, label_name, reason in refused]
        return VideoTable(
            root=root,
            dataset=dataset,
            videos=tuple(sorted(videos, key=lambda video: sort_key(video.path))),
            failures=tuple(sorted(failures, key=lambda failure: sort_key(failure.path))),
            classes=tuple(plain_text(name) for name in self.classes),
            split_names=tuple(self.split_names),
            # By name and content: where the lists lie is not part of what they say.
            annotations_sha256=sha256_of_json([[path.name, sha256_of(path)] for path in self.annotations]) if self.annotations else None,
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
        )


def counted(number: int, noun: str) -> str:
    """ "1 video", "2 videos", "2 classes", "3 entries"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun}es" if noun.endswith("s") else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {plural}"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    listed = [plain_text(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")


def _first_of_each(refused: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """One entry per path (a list may name a missing file twice)."""
    return list({path: (path, label_name, reason) for path, label_name, reason in reversed(refused)}.values())
