"""The lists of a data set, joined with the files that are there, in one way for every layout that has such lists.

A video of the lists that is not there is a failure with a reason, so that it is counted and named. Where a class has no video at all, only
a part of the data set is in use: there is one warning for all such classes. A file that no list names keeps the label of its folder and is
unused in every split; where no folder tells a label, it is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import UNUSED, Listing, counted, some
from rspnet_cli.videos.walk import FoundFile, Walk, has_video_suffix

MAX_LIST_BYTES = 2**30

Key = Hashable
"""What a list and a file are compared by, such as (class, name without its ending)."""


@dataclass(slots=True)
class Entry:
    """What the lists say of one video."""

    path: str
    """As a list spells it."""
    label_name: str
    splits: tuple[str, ...] = ()
    """Its part in each split, in their order; splits beyond the end do not name it."""
    lists: tuple[str, ...] = ()
    """Names of the lists it is in."""


@dataclass
class Lists:
    """All that the lists of a data set say."""

    classes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    split_names: list[str] = field(default_factory=list)
    entries: dict[Key, Entry] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    """Videos that a list names again."""
    _tuples: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def add(self, key: Key, path: str, label_name: str, *, split: str | None, part: str, file: Path, at: str) -> None:
        """Note that a list names a video as `part` of `split`, one of `split_names`; None: of no split.

        at: where in the file, for messages: "line 3". Raises InputError where a list says otherwise.
        """
        entry = self.entries.get(key)
        if split is None:
            if entry is not None:
                self.repeated.append(path)
            self.entries.setdefault(key, Entry(path, label_name, lists=self._shared((file.name,))))
            return
        if entry is None:
            entry = self.entries[key] = Entry(path, label_name)
        position = self.split_names.index(split)
        before = entry.splits[position] if position < len(entry.splits) else ""
        if before and before != part:
            number = split.removeprefix("split_")
            raise InputError(
                f"{file}, {at}: {plain_text(path)} is in the {before} and in the {part} list of split {number}: take it out of one."
            )
        if before:
            self.repeated.append(path)
            return
        # Thousands of videos share few combinations of parts and lists.
        entry.splits = self._shared((*entry.splits, *[UNUSED] * (position - len(entry.splits)), part))
        entry.lists = self._shared((*entry.lists, file.name))

    def splits_of(self, entry: Entry | None) -> tuple[str, ...]:
        """The part of a video in every split; of one that no list names: unused."""
        known = entry.splits if entry is not None else ()
        return self._shared((*known, *[UNUSED] * (len(self.split_names) - len(known))))

    def _shared(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return self._tuples.setdefault(values, values)


@dataclass(slots=True)
class Candidate:
    """A file that may be a video of the lists, with what its folder tells."""

    file: FoundFile
    key: Key
    label_name: str = ""
    group: str = ""
    splits: tuple[str, ...] = ()
    """Its parts where folders tell them (train/, val/); then it needs no list."""


@dataclass
class Files:
    """What was found, ready to be joined."""

    candidates: list[Candidate] = field(default_factory=list)
    refused: list[tuple[str, str, str, Key]] = field(default_factory=list)
    """(path, reason, class name or "", key or None): what cannot be a video"""


def join(files: Files, lists: Lists, *, annotations: Path | None) -> Listing:
    """The table of the files, with what the lists say of them. Of several files for one video that of the list's spelling counts."""
    listing = Listing(classes=lists.classes, annotations=lists.files, split_names=lists.split_names, repeated=lists.repeated)
    for path, reason, label_name, _ in files.refused:
        listing.refuse(path, reason, label_name=label_name)
    by_key: dict[Key, list[Candidate]] = defaultdict(list)
    for candidate in files.candidates:
        by_key[candidate.key].append(candidate)
    kept: list[str] = []
    left_out: list[str] = []
    for key, same in by_key.items():
        entry = lists.entries.get(key)
        if entry is None and not same[0].splits:
            for candidate in same:
                (kept if candidate.label_name else left_out).append(candidate.file.path)
                if candidate.label_name:
                    splits = lists.splits_of(None)
                    listing.add(candidate.file, label_name=candidate.label_name, group=candidate.group, splits=splits)
            continue
        if entry is not None and len(same) > 1:
            wanted = entry.path
            same.sort(key=lambda candidate: not candidate.file.path.endswith(wanted))
        taken = same[0]
        for other in same[1:]:
            reason = f"is by its name the same video as {plain_text(taken.file.path)}, which is taken for it"
            listing.refuse(other.file.path, reason, label_name=other.label_name)
        label_name = taken.label_name or (entry.label_name if entry is not None else "")
        listing.add(taken.file, label_name=label_name, group=taken.group, splits=taken.splits or lists.splits_of(entry))
    known = by_key.keys() | {key for *_, key in files.refused if key is not None}
    report_missing(listing, [entry for key, entry in lists.entries.items() if key not in known])
    listing.extra = [*kept, *left_out]
    no_list = f"in no list of {annotations}" if annotations else "in no list"
    for names, what in ((kept, "labelled by folder, unused in every split"), (left_out, "left out")):
        if names:
            listing.warnings.append(f"{counted(len(names), 'video')} {no_list} ({some(names)}): {what}.")
    return listing


def report_missing(listing: Listing, missing: Iterable[Entry]) -> None:
    """A listed video that is not there is a failure; of classes without any video there is one warning (a part of the data is in use)."""
    present = {label_name for label_name in listing.label_names() if label_name}
    num_left_out = 0
    for entry in missing:
        if entry.label_name and present and entry.label_name not in present:
            num_left_out += 1
        else:
            listing.miss(entry.path, entry.lists, label_name=entry.label_name)
    if present and (absent := [name for name in listing.classes if name not in present]):
        listing.warnings.append(
            f"{counted(len(absent), 'class')} of {len(listing.classes)} without any video ({some(absent)}): "
            f"{counted(num_left_out, 'list entry')} left out."
        )


def class_and_stem(path: str) -> tuple[str, str]:
    """What videos in class folders are compared by: the folder's name and their own without the ending of a video."""
    # By hand: pathlib takes five times as long, which for the 260,000 files of Kinetics is most of the time that listing takes.
    parts = [part for part in path.split("/") if part not in ("", ".")]
    name = parts[-1] if parts else ""
    return parts[-2] if len(parts) > 1 else "", name.rpartition(".")[0] if has_video_suffix(name) else name


def files_by_class(found: Walk, classes: Iterable[str], *, lists: str, group_of: Callable[[str, str], str]) -> Files:
    """Candidates of a data set with a folder per class.

    lists: what names the classes, for the reason why another folder is none. group_of: class and file name without its ending -> group.
    """
    names = set(classes)
    files = Files()
    for file in found.files:
        class_name, stem = key = class_and_stem(file.path)
        if class_name in names:
            files.candidates.append(Candidate(file, key, class_name, group_of(class_name, stem)))
        else:
            what = f"lies in {plain_text(class_name)}, which is no class" if class_name else "lies in no folder that is a class"
            files.refused.append((file.path, f"{what} of {lists}", "", None))
    for path, reason in found.refused:
        key = class_and_stem(path)
        files.refused.append((path, reason, key[0] if key[0] in names else "", key))
    return files


def list_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines of a list that are not blank. Raises InputError."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path} is too large for a list of videos: name another one with --annotations.")
        # Paths may be no UTF-8: they come out as the file system spells them.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name readable lists with --annotations.") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
