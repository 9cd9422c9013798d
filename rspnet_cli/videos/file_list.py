"""The layout `list`: lists of other toolkits (toolkit_lists.py) that name video files, or folders of frames, below the folder of videos.

Given a folder of lists, every one whose name says train, val or test is read; given a file, that one alone. Where a split has no labelled
test list, its val list is what it tests on, as these toolkits do. Clips named as in UCF101 or HMDB51 are grouped as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos import hmdb51, ucf101
from rspnet_cli.videos.joining import Lists, class_and_stem, report_missing
from rspnet_cli.videos.listing import UNUSED, Listing, counted
from rspnet_cli.videos.toolkit_lists import LABEL_MAP, Line, ListFile, class_names, lists_in, looks_like_list, named, parse_list
from rspnet_cli.videos.walk import FoundFile, Locator, PathRefused, Place

_UCF101_CLIP = re.compile(r"v_(?P<class>.+)_g\d+_c\d+", re.DOTALL)

Parsed = list[tuple[ListFile, list[Line]]]


def has_lists(place: Path) -> bool:
    """Whether a file, or a folder by all its lists, is for this layout."""
    if place.is_file():
        return looks_like_list(place)
    found = lists_in(place)
    return bool(found) and all(looks_like_list(item.path) for item in found)


def list_listed(root: Path, annotations: Path) -> Listing:
    """The videos that the lists name. Raises InputError naming file and line of a fault."""
    found = lists_in(annotations) if annotations.is_dir() else [named(annotations)]
    if not found:
        raise InputError(f"{annotations} holds no list whose name says train, val or test: name its folder, or a file, with --annotations.")
    locator = Locator(root)
    parsed = _of_one_kind([(item, parse_list(item.path)) for item in found], locator, annotations)
    lists, lines = _read_lists(parsed, locator)
    label_map = found[0].path.parent / LABEL_MAP
    labels = (line.label for line in lines.values() if line.label is not None)
    lists.classes = class_names(labels, label_map if label_map.is_file() else None)
    if label_map.is_file():
        lists.files.append(label_map)
    listing = _locate_all(lists, lines, locator)
    if num_grouped := sum(bool(item.group) for item in listing.files):
        listing.notes.append(f"{counted(num_grouped, 'clip')} grouped by recording, as names of UCF101's and HMDB51's kind tell.")
    return listing


def _of_one_kind(parsed: Parsed, locator: Locator, annotations: Path) -> Parsed:
    """Of lists of videos beside lists of frames, keep those whose first paths are there. Raises InputError if that is unclear."""
    kinds: dict[bool, Parsed] = {}
    for item, lines in parsed:
        if lines:
            kinds.setdefault(lines[0].num_frames is not None, []).append((item, lines))
    if len(kinds) < 2:
        return next(iter(kinds.values()), [])
    there = [kind for kind, lists in kinds.items() if any(_is_there(lines[0], locator) for _, lines in lists)]
    if len(there) != 1:
        raise InputError(
            f"{annotations} holds lists of videos and lists of frames, such as {kinds[False][0][0].path.name} and "
            f"{kinds[True][0][0].path.name}: keep those of one kind in a folder, or name a file with --annotations."
        )
    return kinds[there[0]]


def _is_there(line: Line, locator: Locator) -> bool:
    try:
        return locator.locate(locator.relative(line.path)).is_folder == (line.num_frames is not None)
    except PathRefused:
        return False


def _read_lists(parsed: Parsed, locator: Locator) -> tuple[Lists, dict[str, Line]]:
    """All lists in one, by path, and the line that tells label and frames of each. Raises InputError where two say otherwise."""
    lists = Lists(split_names=[f"split_{number}" for number in sorted({item.split for item, _ in parsed if item.part})])
    tested = {item.split for item, lines in parsed if item.part == "test" and any(line.label is not None for line in lines)}
    known: dict[str, Line] = {}
    for item, lines in sorted(parsed, key=lambda pair: pair[0].split):
        part = item.part
        if item.split not in tested and {other.part for other, _ in parsed if other.split == item.split} >= {"val"}:
            part = {"val": "test", "test": UNUSED}.get(part, part)
        for line in lines:
            path = locator.relative(line.path)
            before = known.setdefault(path, line)
            if (before.label, before.num_frames) != (line.label, line.num_frames):
                raise InputError(
                    f"{item.path}, line {line.number}: {plain_text(path)} has another label or number of frames before: correct it."
                )
            lists.add(path, path, "", split=f"split_{item.split}" if part else None, part=part, file=item.path, at=f"line {line.number}")
        lists.files.append(item.path)
    return lists, known


def _locate_all(lists: Lists, lines: Mapping[str, Line], locator: Locator) -> Listing:
    listing = Listing(classes=lists.classes, annotations=lists.files, split_names=lists.split_names, extra=None, repeated=lists.repeated)
    missing = []
    for path, line in lines.items():
        entry = lists.entries[path]
        entry.label_name = lists.classes[line.label] if line.label is not None else ""
        try:
            place = _source_of(locator.locate(path), line)
        except PathRefused as refused:
            if refused.is_missing:
                missing.append(entry)
            else:
                listing.refuse_listed(path, refused, entry.lists, label_name=entry.label_name)
            continue
        # Of a folder of frames the time alone: the sizes of 70 million files of Kinetics would take hours to ask for.
        found = FoundFile(path, 0 if place.is_folder else place.status.st_size, place.status.st_mtime_ns)
        splits = lists.splits_of(entry)
        listing.add(found, label_name=entry.label_name, group=_group_of(path), splits=splits, num_frames=line.num_frames)
    report_missing(listing, missing)
    return listing


def _source_of(place: Place, line: Line) -> Place:
    if place.is_folder and line.num_frames is None:
        raise PathRefused("is a folder, not a file (a list of frames states their number: `folder frames label`)")
    if not place.is_folder and line.num_frames is not None:
        raise PathRefused("is a file, not a folder of frames")
    return place


def _group_of(path: str) -> str:
    folder, stem = class_and_stem(path)
    clip = _UCF101_CLIP.fullmatch(stem)
    return ucf101.group_of(clip["class"], stem) if clip else hmdb51.group_of(folder, stem)
