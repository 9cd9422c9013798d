"""UCF101's layout: `<Class>/v_<Class>_gGG_cCC.avi`, with `classInd.txt` and `trainlist0N.txt`, `testlist0N.txt` for up to three splits.

Clips of one group gGG are cut from one recording. The lists say .avi; many copies of the data hold .mp4: the ending is not compared.
"""

from __future__ import annotations

import re
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.joining import Lists, class_and_stem, files_by_class, join, list_lines
from rspnet_cli.videos.listing import Listing
from rspnet_cli.videos.walk import Walk

LISTS_FOLDER = "ucfTrainTestlist"
CLASS_LIST = "classInd.txt"
_GROUP = re.compile(r"_g(\d+)_c\d+$")
_ENTRY = re.compile(r"(?P<path>.+?)(?:\s+(?P<number>\d{1,9}))?")


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
    files = files_by_class(found, lists.classes, lists=CLASS_LIST, group_of=group_of)
    return join(files, lists, annotations=annotations)


def group_of(class_name: str, stem: str) -> str:
    """The recording that a clip is cut from, by its name without the ending; "" where that says nothing.

    The number of a group counts within its class: Walk_g03 and Run_g03 are different recordings.
    """
    group = _GROUP.search(stem)
    return f"{class_name}_g{group[1]}" if group else ""


def read_classes(path: Path) -> list[str]:
    """The class names of `classInd.txt` in the order of their numbers. Raises InputError."""
    numbered: dict[int, str] = {}
    for line, text in list_lines(path):
        number, name = (*text.split(maxsplit=1), "")[:2]
        if not number.isdecimal() or len(number) > 9 or not name or "/" in name:
            raise InputError(f"{path}, line {line}: '{plain_text(text)}' is not `<number> <class>`: correct the list.")
        if int(number) in numbered or name in numbered.values():
            raise InputError(f"{path}, line {line}: '{plain_text(text)}' repeats a number or a class: correct the list.")
        numbered[int(number)] = name
    if not numbered:
        raise InputError(f"{path} names no class: name the folder of UCF101's lists with --annotations.")
    return [numbered[number] for number in sorted(numbered)]


def read_lists(folder: Path) -> Lists:
    """Read the class list and the lists of the splits that are there. Raises InputError naming file and line of a contradiction."""
    class_file = folder / CLASS_LIST
    if not class_file.is_file():
        raise InputError(
            f"There is no {class_file}: name the folder of UCF101's lists ({CLASS_LIST}, trainlist01.txt, ...) with --annotations."
        )
    lists = Lists(classes=read_classes(class_file), files=[class_file])
    for number in (1, 2, 3):
        parts = {part: folder / f"{part}list{number:02d}.txt" for part in ("train", "test")}
        there = [part for part, path in parts.items() if path.is_file()]
        if not there:
            continue
        lists.split_names.append(f"split_{number}")
        for part, path in parts.items():
            if part not in there:
                raise InputError(
                    f"{parts[there[0]].name} is there, but {path} is not: a split needs both lists; add it, or remove the other."
                )
            lists.files.append(path)
            _read_list(lists, path, number, part)
    if not lists.split_names:
        raise InputError(f"{folder} holds {CLASS_LIST} but no trainlist01.txt and testlist01.txt: add the lists, or use --dataset folder.")
    return lists


def _read_list(lists: Lists, path: Path, number: int, part: str) -> None:
    labels = {name: label for label, name in enumerate(lists.classes, start=1)}
    for line, text in list_lines(path):
        match = _ENTRY.fullmatch(text)
        assert match is not None, "a line that is not blank matches"
        key = class_and_stem(match["path"])
        if key[0] not in labels:
            raise InputError(
                f"{path}, line {line}: '{plain_text(text)}' is not `<Class>/<file>` with a class of {CLASS_LIST}: correct the lists."
            )
        if match["number"] is not None and int(match["number"]) != labels[key[0]] and part == "train":
            raise InputError(
                f"{path}, line {line}: {key[0]} has number {match['number']} here, {labels[key[0]]} in {CLASS_LIST}: correct it."
            )
        lists.add(key, match["path"], key[0], split=f"split_{number}", part=part, file=path, at=f"line {line}")
