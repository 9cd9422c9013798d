"""The text of lists that other toolkits use: a video a line, with the number of its class from 0.

path label              a video file; also `path,label` and `path::label`, or paths alone; -1 is no label
folder frames label     a folder of img_00001.jpg and so on, and how many of its frames count
label_map.txt           names of the classes, a line each; without it their numbers are the names

A list's name says what it is for: train, val or test, and `split_2` or `trainlist02` for the second split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.joining import list_lines
from rspnet_cli.videos.walk import has_video_suffix

LABEL_MAP = "label_map.txt"
MAX_LABEL = 99_999
_SUFFIXES = {".txt", ".csv", ".lst", ".list"}
_PART = re.compile(r"(?<![a-z])(train|val|test)(?:ing|idation|id)?(?:list)?(?![a-z])")
_SPLIT = re.compile(r"split_?0*([1-9]\d?)(?!\d)|(?:train|val|test)(?:list)?_?0*([1-9]\d?)(?!\d)")
_SEPARATORS = ("::", ",", None)  # None: blanks
_NUMBER = re.compile(r"\d{1,9}")
_LABEL = re.compile(r"-1|\d{1,9}")
_SEVERAL_LABELS = re.compile(r"\S\.[A-Za-z0-9]{2,5}[\s,:]+\d+")
_SNIFFED_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a list. label: None without one; num_frames: None in a list of video files."""

    number: int
    path: str
    num_frames: int | None
    label: int | None


@dataclass(frozen=True)
class ListFile:
    """A list and what its name says of it; part: train, val, test or ""."""

    path: Path
    part: str
    split: int


def named(path: Path) -> ListFile:
    """A list by its name. "ucf101_val_split_2_videos.txt" -> val of split 2, "train.csv" -> train of split 1."""
    name = path.stem.lower()
    parts = set(_PART.findall(name))
    match = _SPLIT.search(name)
    number = int(match[1] or match[2]) if match else 1
    return ListFile(path, parts.pop() if len(parts) == 1 else "", number)


def lists_in(folder: Path) -> list[ListFile]:
    """The lists of a folder whose names say what they are for, in the order of split and name."""
    files = [named(path) for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file()]
    return sorted((item for item in files if item.part), key=lambda item: (item.split, item.path.name))


def looks_like_list(path: Path) -> bool:
    """Whether the first line of a file ends with the number of a class."""
    try:
        with path.open("rb") as file:
            text = file.read(_SNIFFED_BYTES).decode("utf-8-sig", "surrogateescape").lstrip()
    except OSError:
        return False
    first = text.split("\n", 1)[0].strip()
    return any(len(fields := _fields(first, separator, 1)) == 2 and _LABEL.fullmatch(fields[1]) for separator in _SEPARATORS)


def parse_list(path: Path) -> list[Line]:
    """The lines of a list, which are all of one form. Raises InputError naming the line that is not."""
    lines = list_lines(path)
    fits = {separator: [_ends_with_label(text, separator) for _, text in lines] for separator in _SEPARATORS}
    separator = max(_SEPARATORS, key=lambda candidate: sum(fits[candidate]))  # the first of equal ones
    if not any(fits[separator]):
        return [Line(number, text, None, None) for number, text in lines]
    if not all(fits[separator]):
        number, text = lines[fits[separator].index(False)]
        raise InputError(
            f"{path}, line {number}: '{plain_text(text)[:200]}' does not end with the number of a class as other lines do: correct it "
            "(class names instead of numbers: --dataset csv)."
        )
    of_frames = all(_is_frame_folder(_fields(text, separator, 2)) for _, text in lines)
    return [_parse_line(path, number, text, separator, of_frames) for number, text in lines]


def class_names(labels: Iterable[int], label_map: Path | None) -> list[str]:
    """Names of the classes by number: those of the label map, or their numbers. Raises InputError where the map does not fit."""
    highest = max(labels, default=-1)
    if label_map is None:
        return [str(label) for label in range(highest + 1)]
    names = [text for _, text in list_lines(label_map)]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{label_map} names the class {plain_text(repeated)} twice: correct it.")
    if highest >= len(names):
        raise InputError(f"{label_map} names {len(names):,} classes, and the lists have the label {highest:,}: take those of one data set.")
    return names


def _fields(text: str, separator: str | None, most: int) -> list[str]:
    """A line split from its end, so that blanks and commas in a path do no harm."""
    return [field.strip() for field in text.rsplit(separator, most)]


def _ends_with_label(text: str, separator: str | None) -> bool:
    fields = _fields(text, separator, 1)
    return len(fields) == 2 and bool(fields[0]) and _LABEL.fullmatch(fields[1]) is not None


def _is_frame_folder(fields: list[str]) -> bool:
    return len(fields) == 3 and bool(fields[0]) and _NUMBER.fullmatch(fields[1]) is not None and not has_video_suffix(fields[0])


def _parse_line(path: Path, number: int, text: str, separator: str | None, of_frames: bool) -> Line:
    *where, last = _fields(text, separator, 2 if of_frames else 1)
    label = int(last)
    if label > MAX_LABEL:
        raise InputError(f"{path}, line {number}: the label {label:,} is above {MAX_LABEL:,}: correct it.")
    num_frames = int(where[1]) if of_frames else None
    if num_frames == 0:
        raise InputError(f"{path}, line {number}: the folder has 0 frames: remove the line.")
    if _SEVERAL_LABELS.search(where[0]) and not has_video_suffix(where[0]):
        raise InputError(f"{path}, line {number}: '{plain_text(text)[:200]}' has several labels: a video has one class here; keep one.")
    if of_frames and _ends_with_label(where[0], separator):
        raise InputError(
            f"{path}, line {number}: '{plain_text(text)[:200]}' names a part of a folder, from some frame on: make a folder for each clip."
        )
    return Line(number, where[0], num_frames, label if label >= 0 else None)
