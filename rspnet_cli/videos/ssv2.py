"""Something-Something v2's layout: `<id>.webm` (or .mp4), with JSON lists of labels, train and validation.

labels       {"Putting something on something": "122", ...}: class name -> number from 0
train        [{"id": "78687", "template": "Putting [something] on [something]", ...}, ...]: the template without brackets names the class
validation   the same; as everywhere in publications it is what split 1 tests on
test         ids alone, without labels: these videos are left out

The files are called something-something-v2-labels.json and so on, in newer downloads labels.json. There is no group column: nothing in the
lists tells which videos one person made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.joining import MAX_LIST_BYTES, Candidate, Files, Lists, class_and_stem, join
from rspnet_cli.videos.listing import Listing, counted
from rspnet_cli.videos.walk import Walk

LISTS_FOLDERS = ("annotations", "labels", "something-something-v2-labels", "20bn-something-something-download-package-labels")
_PREFIXES = ("something-something-v2-", "")
_PARTS = {"train": "train", "validation": "test"}


def lists_near(root: Path) -> Path | None:
    """The folder of the JSON lists inside or beside the folder of videos, if there is one; beside it with their long names only."""
    parent = root.resolve().parent
    inside = [*(root / name for name in LISTS_FOLDERS), root]
    beside = [*(parent / name for name in LISTS_FOLDERS), parent]
    return next((folder for folder in [*inside, *beside] if has_lists(folder)), None)


def has_lists(folder: Path) -> bool:
    """Whether a folder holds the lists under the names that only this data set has."""
    return all((folder / f"{_PREFIXES[0]}{name}.json").is_file() for name in ("labels", "train"))


def list_ssv2(found: Walk, annotations: Path) -> Listing:
    """Join the files that were found with the lists in `annotations`. Raises InputError where the lists are not of this form."""
    lists, without_label = read_lists(annotations)
    files = Files(
        refused=[(path, reason, _label_of(lists, path), _id_of(path)) for path, reason in found.refused],
        candidates=[Candidate(file, _id_of(file.path)) for file in found.files if _id_of(file.path) not in without_label],
    )
    listing = join(files, lists, annotations=annotations)
    if num_left_out := len(found.files) - len(files.candidates):
        listing.notes.append(f"{counted(num_left_out, 'video')} of the test list left out: it has no labels (--dataset plain takes all).")
    listing.notes.append("Split 1 tests on the validation videos, as publications do.")
    return listing


def read_lists(folder: Path) -> tuple[Lists, frozenset[str]]:
    """What labels, train and validation say, and the ids of the test list. Raises InputError naming file and item of a fault."""
    label_file = _file(folder, "labels")
    lists = Lists(classes=_read_classes(label_file), files=[label_file], split_names=["split_1"])
    classes = set(lists.classes)
    for name, part in _PARTS.items():
        path = _file(folder, name)
        lists.files.append(path)
        for number, video_id, item in _items(path):
            template = item.get("template")
            class_name = template.replace("[", "").replace("]", "") if isinstance(template, str) else ""
            if class_name not in classes:
                raise InputError(
                    f"{path}, item {number}: the template '{plain_text(str(template))[:200]}' is no class of {label_file.name}: "
                    "take the lists of one download."
                )
            lists.add(video_id, video_id, class_name, split="split_1", part=part, file=path, at=f"item {number}")
    test = next((folder / f"{prefix}test.json" for prefix in _PREFIXES if (folder / f"{prefix}test.json").is_file()), None)
    listed = lists.entries.keys()
    return lists, frozenset(video_id for _, video_id, _ in _items(test) if video_id not in listed) if test else frozenset()


def _file(folder: Path, name: str) -> Path:
    names = [f"{prefix}{name}.json" for prefix in _PREFIXES]
    path = next((folder / file for file in names if (folder / file).is_file()), None)
    if path is None:
        raise InputError(f"{folder} holds neither {names[0]} nor {names[1]}: name the folder of the JSON lists with --annotations.")
    return path


def _read_classes(path: Path) -> list[str]:
    """The class names by number. The numbers must run from 0 without a gap."""
    content = _read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is no object of class names and numbers: take the list of labels as it was downloaded.")
    numbered: dict[str, str] = {str(number): name for name, number in content.items()}
    classes = [numbered.get(str(number)) for number in range(len(content))]
    if None in classes:
        raise InputError(
            f"{path} does not number its {counted(len(content), 'class')} from 0 to {len(content) - 1}, each number once: correct it."
        )
    return [name for name in classes if name is not None]


def _items(path: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """(number of the item from 1, id, item) of a list of videos."""
    content = _read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path} is no list of videos: take the list as it was downloaded.")
    items = []
    for number, item in enumerate(content, start=1):
        video_id = str(item.get("id")) if isinstance(item, dict) else ""
        if not (video_id.isascii() and video_id.isdigit()):
            raise InputError(f"{path}, item {number}: it has no id made of digits: take the list as it was downloaded.")
        items.append((number, video_id, item))
    return items


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path} is too large for a list of videos: name another folder with --annotations.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name readable lists with --annotations.") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested too deep
        raise InputError(f"{path} is no JSON that can be read: take the list as it was downloaded.") from error


def _id_of(path: str) -> str:
    return class_and_stem(path)[1]


def _label_of(lists: Lists, path: str) -> str:
    entry = lists.entries.get(_id_of(path))
    return entry.label_name if entry is not None else ""
