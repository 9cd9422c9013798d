"""UCF101's layout: `<Class>/v_<Class>_gGG_cCC.avi`, with `classInd.txt` and `trainlist0N.txt`, `testlist0N.txt` for up to three splits.

Clips of one group gGG are cut from one recording. The lists say .avi; many copies of the data hold .mp4: the ending is not compared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import UNUSED, Listing, counted, some
from rspnet_cli.videos.walk import FoundFile, Walk, has_video_suffix

LISTS_FOLDER = "ucfTrainTestlist"
CLASS_LIST = "classInd.txt"
_GROUP = re.compile(r"_g(\d+)_c\d+$")
_ENTRY = re.compile(r"(?P<path>.+?)(?:\s+(?P<number>\d+))?")

Key = tuple[str, str]  # (class, file name without its ending): what a list names


@dataclass
class Ucf101Lists:
    """What the lists say. `entries`: for each video the split's number -> train or test; `paths`: how the lists spell it."""

    classes: list[str]
    files: list[Path]
    split_numbers: list[int] = field(default_factory=list)
    entries: dict[Key, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    paths: dict[Key, str] = field(default_factory=dict)
    num_repeated: int = 0


def lists_near(root: Path) -> Path | None:
    """The folder of UCF101's lists inside or beside the folder of videos, if there is one."""
    inside = [root / LISTS_FOLDER, root]
    if found := next((folder for folder in inside if (folder / CLASS_LIST).is_file()), None):
        return found
    beside = Path(root.resolve().parent) / LISTS_FOLDER
    if not (beside / CLASS_LIST).is_file():
        return None
    return beside if any((root / name).is_dir() for name in read_classes(beside / CLASS_LIST)) else None


def list_ucf101(found: Walk, annotations: Path) -> Listing:
    """Join the files that were found with the lists in `annotations`. Raises InputError when the lists contradict themselves."""
    lists = read_lists(annotations)
    listing = Listing(
        classes=lists.classes,
        annotations=lists.files,
        split_names=[f"split_{number}" for number in lists.split_numbers],
    )
    classes = set(lists.classes)
    by_key: dict[Key, list[FoundFile]] = defaultdict(list)
    for file in found.files:
        class_name, stem = _key(file.path)
        if class_name in classes:
            by_key[class_name, stem].append(file)
        else:
            what = f"lies in {plain_text(class_name)}, which is no class" if class_name else "lies in no folder that is a class"
            listing.refuse(file.path, f"{what} of {CLASS_LIST}")
    refused_keys = set()
    for path, reason in found.refused:
        class_name = _key(path)[0]
        refused_keys.add(_key(path))
        listing.refuse(path, reason, label_name=class_name if class_name in classes else "")

    num_unlisted = 0
    for key, files in by_key.items():
        listed = lists.entries.get(key)
        if listed is None:
            num_unlisted += len(files)
        elif len(files) > 1:  # the list's own ending first, else the first by path
            wanted = lists.paths[key]
            files.sort(key=lambda file: not file.path.endswith(wanted))
            for other in files[1:]:
                reason = f"is named once in the lists, and {plain_text(files[0].path)} is taken for it"
                listing.refuse(other.path, reason, label_name=key[0])
            files = files[:1]
        splits = tuple((listed or {}).get(number, UNUSED) for number in lists.split_numbers)
        group = _GROUP.search(key[1])
        for file in files:
            # The number of a group counts within its class: Walk_g03 and Run_g03 are different recordings.
            listing.add(file, label_name=key[0], group=f"{key[0]}_g{group[1]}" if group else "", splits=splits)
    _report_missing(listing, lists, present=set(by_key), refused=refused_keys)
    if num_unlisted:
        listing.warnings.append(f"{counted(num_unlisted, 'video')} in no list of {annotations}: labelled by folder, unused in every split.")
    if lists.num_repeated:
        listing.warnings.append(f"{counted(lists.num_repeated, 'entry')} repeated within a list of {annotations}.")
    _warn_of_shared_groups(listing, lists)
    listing.note_skipped(found)
    return listing


def read_classes(path: Path) -> list[str]:
    """The class names of `classInd.txt` in the order of their numbers. Raises InputError."""
    numbered: dict[int, str] = {}
    for line, text in _lines(path):
        number, name = (*text.split(maxsplit=1), "")[:2]
        if not number.isdecimal() or not name or "/" in name:
            raise InputError(f"{path}, line {line}: '{plain_text(text)}' is not `<number> <class>`: correct the list.")
        if int(number) in numbered or name in numbered.values():
            raise InputError(f"{path}, line {line}: '{plain_text(text)}' repeats a number or a class: correct the list.")
        numbered[int(number)] = name
    if not numbered:
        raise InputError(f"{path} names no class: name the folder of UCF101's lists with --annotations.")
    return [numbered[number] for number in sorted(numbered)]


def read_lists(folder: Path) -> Ucf101Lists:
    """Read the class list and the lists of the splits that are there. Raises InputError naming file and line of a contradiction."""
    class_file = folder / CLASS_LIST
    if not class_file.is_file():
        raise InputError(
            f"There is no {class_file}: name the folder of UCF101's lists ({CLASS_LIST}, trainlist01.txt, ...) with --annotations."
        )
    lists = Ucf101Lists(classes=read_classes(class_file), files=[class_file])
    for number in (1, 2, 3):
        parts = {part: folder / f"{part}list{number:02d}.txt" for part in ("train", "test")}
        there = [part for part, path in parts.items() if path.is_file()]
        if not there:
            continue
        for part, path in parts.items():
            if part not in there:
                raise InputError(
                    f"{parts[there[0]].name} is there, but {path} is not: a split needs both lists; add it, or remove the other."
                )
            _read_list(lists, path, number, part)
        lists.split_numbers.append(number)
    if not lists.split_numbers:
        raise InputError(f"{folder} holds {CLASS_LIST} but no trainlist01.txt and testlist01.txt: add the lists, or use --dataset folder.")
    return lists


def _read_list(lists: Ucf101Lists, path: Path, number: int, part: str) -> None:
    labels = {name: label for label, name in enumerate(lists.classes, start=1)}
    for line, text in _lines(path):
        match = _ENTRY.fullmatch(text)
        assert match is not None, "a line that is not blank matches"
        key = _key(match["path"])
        if key[0] not in labels:
            raise InputError(
                f"{path}, line {line}: '{plain_text(text)}' is not `<Class>/<file>` with a class of {CLASS_LIST}: correct the lists."
            )
        if match["number"] is not None and int(match["number"]) != labels[key[0]] and part == "train":
            raise InputError(
                f"{path}, line {line}: {key[0]} has number {match['number']} here, {labels[key[0]]} in {CLASS_LIST}: correct it."
            )
        entry = lists.entries[key]
        if number in entry and entry[number] != part:
            name = plain_text(match["path"])
            raise InputError(f"{path}, line {line}: {name} is in the train and in the test list of split {number}: take it out of one.")
        lists.num_repeated += number in entry
        entry[number] = part
        lists.paths.setdefault(key, match["path"])
    lists.files.append(path)


def _report_missing(listing: Listing, lists: Ucf101Lists, *, present: set[Key], refused: set[Key]) -> None:
    """A listed video that is not there is a failure; of classes without any video there is one warning (a part of UCF101 is in use)."""
    classes_present = {class_name for class_name, _ in present | refused}
    missing = [key for key in lists.entries if key not in present and key not in refused]
    for key in missing:
        if key[0] in classes_present:
            where = ", ".join(f"{part}list{number:02d}.txt" for number, part in sorted(lists.entries[key].items()))
            listing.refuse(lists.paths[key], f"is named in {where}, but not there", label_name=key[0])
    absent = [name for name in lists.classes if name not in classes_present]
    if absent:
        num_entries = sum(key[0] not in classes_present for key in missing)
        listing.warnings.append(
            f"{counted(len(absent), 'class')} of {len(lists.classes)} without any video ({some(absent)}): "
            f"{counted(num_entries, 'list entry')} left out."
        )


def _warn_of_shared_groups(listing: Listing, lists: Ucf101Lists) -> None:
    for index, number in enumerate(lists.split_numbers):
        parts: dict[str, set[str]] = {"train": set(), "test": set()}
        for _, _, group, splits in listing.files:
            if group and splits[index] in parts:
                parts[splits[index]].add(group)
        if both := sorted(parts["train"] & parts["test"]):
            listing.warnings.append(
                f"{counted(len(both), 'group')} on both sides of split {number} ({some(both)}): "
                "clips of one recording in train and test flatter every result."
            )


def _key(path: str) -> Key:
    """What a path is compared by: its folder's name and its own without the ending."""
    pure = PurePosixPath(path)
    return pure.parent.name, pure.stem if has_video_suffix(pure.name) else pure.name


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not blank. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name readable lists with --annotations.") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
