"""HMDB51's layout: `<class>/<clip>.avi`, with `<class>_test_split1.txt` to `..3.txt`, a list per class and split.

A line is "<clip>.avi 1": 1 train, 2 test, 0 neither. Labels count the sorted names of the classes that have lists.

A clip's name is `<source>_<class>_<body>_<camera>_np<people>_<view>_<quality>_<number>`. Clips of one class and one source are a group: in
the official lists (6,766 clips, 2,023 such groups in split 1) every name has this form, and no group lies on both sides of any of the three
splits. Sources alone are no groups there: about a tenth of them (133 of 1,352 in split 1) have clips of one class in train and of
another in test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.joining import Lists, class_and_stem, files_by_class, join, list_lines
from rspnet_cli.videos.listing import UNUSED, Listing
from rspnet_cli.videos.walk import Walk, sort_key

# The archive's own name first, then those that other toolkits give the folder.
LISTS_FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits", "splits", "annotations", "metafile")
_LIST = re.compile(r"(?P<class>.+)_test_split(?P<number>[1-9])\.txt", re.DOTALL)
_CLIP = re.compile(r"(?P<source>.+)_[hufl]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+", re.DOTALL)
_PARTS = {"0": UNUSED, "1": "train", "2": "test"}


def lists_near(root: Path) -> Path | None:
    """The folder of HMDB51's lists inside or beside the folder of videos, if there is one; beside it only lists of classes that it has."""
    inside = [root / name for name in LISTS_FOLDERS] + [root]
    if found := next((folder for folder in inside if has_lists(folder)), None):
        return found
    beside = [root.resolve().parent / name for name in LISTS_FOLDERS]
    return next((folder for folder in beside if any((root / name).is_dir() for name, _, _ in _files(folder))), None)


def has_lists(folder: Path) -> bool:
    """Whether a folder holds lists of HMDB51's kind."""
    return next(_files(folder), None) is not None


def list_hmdb51(found: Walk, annotations: Path) -> Listing:
    """Join the files that were found with the lists in `annotations`. Raises InputError when the lists contradict themselves."""
    lists = read_lists(annotations)
    files = files_by_class(found, lists.classes, lists=f"the lists in {annotations.name}", group_of=group_of)
    return join(files, lists, annotations=annotations)


def group_of(class_name: str, stem: str) -> str:
    """What a clip is cut from, by its name without the ending; "" where that is no name of HMDB51's kind."""
    clip = _CLIP.fullmatch(stem)
    return f"{class_name}/{clip['source'].removesuffix(f'_{class_name}')}" if clip else ""


def read_lists(folder: Path) -> Lists:
    """Read the lists of all classes and splits that are there. Raises InputError naming file and line of a fault."""
    files = sorted(_files(folder), key=lambda item: (item[1], sort_key(item[0])))
    if not files:
        raise InputError(f"{folder} holds no <class>_test_split1.txt: name the folder of HMDB51's lists with --annotations.")
    numbers = sorted({number for _, number, _ in files})
    lists = Lists(
        classes=sorted({name for name, _, _ in files}, key=sort_key),
        files=[path for _, _, path in files],
        split_names=[f"split_{number}" for number in numbers],
    )
    there = {(name, number) for name, number, _ in files}
    if absent := next(((name, number) for number in numbers for name in lists.classes if (name, number) not in there), None):
        raise InputError(
            f"{folder} has no {plain_text(absent[0])}_test_split{absent[1]}.txt, though it lists that class or that split elsewhere: "
            "add it, or remove the others of the split."
        )
    for class_name, number, path in files:
        for line, text in list_lines(path):
            name, tag = (*text.rsplit(None, 1), "")[:2]
            if tag not in _PARTS or "/" in name:
                raise InputError(f"{path}, line {line}: '{plain_text(text)}' is not `<clip>.avi 0`, 1 or 2: correct the list.")
            clip = f"{class_name}/{name}"
            lists.add(class_and_stem(clip), clip, class_name, split=f"split_{number}", part=_PARTS[tag], file=path, at=f"line {line}")
    return lists


def _files(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """(class, number of the split, file) of every list in a folder."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if match := _LIST.fullmatch(path.name):
            yield match["class"], int(match["number"]), path
