"""The table of source videos that every data-set layout fills in, and how it is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from rspnet_cli.files import sha256_of, sha256_of_json
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.ids import make_ids
from rspnet_cli.videos.walk import FoundFile, PathRefused, Walk, sort_key

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
    num_frames: int | None = None
    """Of a folder of frames, as its list says; None for a video file."""


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
    missing: tuple[str, ...] = ()
    """Videos that a list names and that are not there; they are among the failures."""
    extra: tuple[str, ...] | None = ()
    """Video files that are there and that no list names; None where nobody looked for them."""
    repeated: tuple[str, ...] = ()
    """Videos that a list names again, once for each time."""

    @property
    def of_frames(self) -> bool:
        """Whether the sources are folders of frames rather than video files."""
        return any(video.num_frames is not None for video in self.videos)

    def limited(self, limit: int) -> VideoTable:
        """The table with at most `limit` videos, evenly spaced over the sorted paths, so that the first class is not all there is."""
        count = len(self.videos)
        if limit >= count:
            return self
        videos = tuple(self.videos[i * count // limit] for i in range(limit))
        return replace(self, videos=videos, notes=(*self.notes, f"--limit: {limit:,} of {count:,} videos, evenly spaced over the list."))


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a listing; label_name and group are "" where there is none."""

    file: FoundFile
    label_name: str
    group: str
    splits: tuple[str, ...]
    num_frames: int | None


@dataclass
class Listing:
    """A table while a layout fills it in."""

    files: list[Listed] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """(path, class name or "", reason)"""
    missing: list[str] = field(default_factory=list)
    """Videos that lists name and that are not there; each is refused, too."""
    extra: list[str] | None = field(default_factory=list)
    """Video files that no list names; None where nobody looked for them."""
    repeated: Sequence[str] = ()
    """Videos that a list names again."""
    classes: Sequence[str] = ()
    split_names: Sequence[str] = ()
    annotations: Sequence[Path] = ()
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(
        self, file: FoundFile, *, label_name: str = "", group: str = "", splits: tuple[str, ...] = (), num_frames: int | None = None
    ) -> None:
        self.files.append(Listed(file, label_name, group, splits, num_frames))

    def refuse(self, path: str, reason: str, *, label_name: str = "") -> None:
        self.refused.append((path, label_name, reason))

    def miss(self, path: str, lists: Iterable[str], *, label_name: str = "") -> None:
        """A video that lists name and that is not there."""
        self.missing.append(path)
        self.refuse(path, f"is named in {', '.join(lists)}, but not there", label_name=label_name)

    def refuse_listed(self, path: str, refused: PathRefused, lists: Iterable[str], *, label_name: str = "") -> None:
        """A path of a list that leads to no video."""
        if refused.is_missing:
            self.miss(path, lists, label_name=label_name)
        else:
            self.refuse(path, f"is named in {', '.join(lists)}, but {refused}", label_name=label_name)

    def label_names(self) -> Iterator[str]:
        """The class name, or "", of every file and of everything refused."""
        yield from (item.label_name for item in self.files)
        yield from (label_name for _, label_name, _ in self.refused)

    def keep_classes(self, names: Sequence[str]) -> None:
        """Drop what is of other classes. What has no class stays."""
        kept = {"", *names}
        self.files = [item for item in self.files if item.label_name in kept]
        dropped = {path for path, label_name, _ in self.refused if label_name not in kept}
        self.refused = [item for item in self.refused if item[1] in kept]
        self.missing = [path for path in self.missing if path not in dropped]
        self.classes = names

    def note_skipped(self, found: Walk) -> None:
        """Say how many files were passed over because their names are not those of videos."""
        if found.skipped:
            kinds = [f"{count:,} {plain_text(kind)}" for kind, count in sorted(found.skipped.items(), key=lambda item: (-item[1], item[0]))]
            listed = ", ".join(kinds[:8]) + (f" and {len(kinds) - 8:,} other kinds" if len(kinds) > 8 else "")
            self.notes.append(f"Passed over {counted(found.skipped.total(), 'entry')} that by name can be no video: {listed}.")

    def table(self, root: Path, dataset: str) -> VideoTable:
        """Ids and labels for what was added."""
        refused = _first_of_each(self.refused)
        ids = make_ids([item.file.path for item in self.files] + [path for path, *_ in refused])
        labels = {name: label for label, name in enumerate(self.classes)}
        # Few names, many videos: each name is made once, and its text shared.
        plain = cache(plain_text)
        videos = [
            VideoSource(
                id=ids[item.file.path],
                path=item.file.path,
                bytes=item.file.bytes,
                mtime_ns=item.file.mtime_ns,
                label=labels.get(item.label_name) if item.label_name else None,
                label_name=plain(item.label_name),
                group=plain(item.group),
                splits=item.splits,
                num_frames=item.num_frames,
            )
            for item in self.files
        ]
        failures = [SourceFailure(ids[path], path, plain(label_name), reason) for path, label_name, reason in refused]
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
            missing=tuple(sorted(self.missing, key=sort_key)),
            extra=None if self.extra is None else tuple(sorted(self.extra, key=sort_key)),
            repeated=tuple(self.repeated),
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
