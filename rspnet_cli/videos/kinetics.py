"""Kinetics-400, and the part of it that is called Kinetics-100.

Folders   train_video/<class>/*.mp4 and val_video/<class>/*.mp4, or train and val, or videos_train and videos_val; labels count the sorted
          names of the class folders in both.
Lists     CVDF's copy has the videos of all classes in train/ and val/, and CSV files label,youtube_id,time_start,time_end,split; what lies
          in replacement/ takes the place of the corrupted video with its YouTube id. Beside class folders the lists tell what is missing.

Split 1 trains on train and tests on val, as publications do; the videos of test/ are left out. The group is the YouTube id, which a name
`<id>_000012_000022.mp4` or `<id>.mp4` begins with. Kinetics-100 is the 100 classes whose train files have the fewest bytes, as released.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.csv_list import read_csv
from rspnet_cli.videos.joining import Candidate, Files, Lists, class_and_stem, join
from rspnet_cli.videos.listing import Listing, counted, some
from rspnet_cli.videos.walk import FoundFile, Walk, sort_key

NUM_SMALLEST = 100
OWN_FOLDERS = {"train_video", "val_video"}
_FOLDERS = {
    f"{before}{part}{after}": part for part in ("train", "val", "test") for before, after in (("", ""), ("", "_video"), ("videos_", ""))
}
_SPLITS = {"train": "train", "val": "test"}
_PARTS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
_REPLACEMENT = "replacement"
_ID_LENGTH = 11
_CLIP = re.compile(rf"(?P<id>[A-Za-z0-9_-]{{{_ID_LENGTH}}})(?:_(?P<start>\d{{6}})_\d{{6}})?")
_FORM = "label,youtube_id,time_start,time_end,split"

Key = tuple[str, str, int | None]  # (part, YouTube id or else the path, second that the clip begins at)
ByVideo = dict[tuple[str, str], Key]  # (part, YouTube id) -> key of its listed clip


def lists_near(root: Path) -> Path | None:
    """The folder of the CSV files inside the folder of videos, if there is one."""
    return next((folder for folder in (root / "annotations", root) if has_lists(folder)), None)


def has_lists(folder: Path) -> bool:
    """Whether a folder, or a file, holds CSV lists of YouTube ids."""
    return bool(_csv_files(folder))


def looks_like_kinetics(found: Walk) -> bool:
    """Whether files lie in class folders of train and val and every one is named like a clip of a YouTube video, with its times."""
    parts = set()
    for file in found.files:
        folders = file.path.split("/")
        clip = _CLIP.fullmatch(class_and_stem(file.path)[1])
        if len(folders) < 3 or folders[0] not in _FOLDERS or clip is None or clip["start"] is None:
            return False
        parts.add(_FOLDERS[folders[0]])
    return {"train", "val"} <= parts


def list_kinetics(root: Path, found: Walk, annotations: Path | None, *, smallest: int | None = None) -> Listing:
    """The table of the files. annotations: CSV file or folder of such, None without. smallest: keep so many classes, of the fewest bytes.

    Raises InputError where there is neither a train nor a val folder, or where labels cannot be known.
    """
    clips, replacements, left_out = _sorted_out(found)
    if not clips:
        raise InputError(f"{root} has no video in a folder train_video, val_video, train or val: name the folder that holds these two.")
    if annotations is None and (flat := next((clip for clip in clips if not clip.class_name), None)):
        raise InputError(
            f"{plain_text(flat.file.path)} lies in no class folder, and there is no CSV file {_FORM} in or below annotations/: "
            "name its file or folder with --annotations."
        )
    lists, by_video = _read_lists(annotations, {clip.class_name for clip in clips if clip.class_name})
    files = Files(candidates=[_candidate(clip, lists, by_video) for clip in clips])
    for path, reason in found.refused:
        _, class_name, key = _place(path)
        files.refused.append((path, reason, class_name, key))
    num_replaced = _replace(files, replacements, by_video)
    listing = join(files, lists, annotations=annotations)
    if others := _in_another_folder(files, lists):
        listing.warnings.append(
            f"{counted(len(others), 'video')} in the folder of another class than the lists say ({some(others)}): the folder counts."
        )
    if num_replaced:
        listing.notes.append(f"{counted(num_replaced, 'corrupted video')} replaced by those of {_REPLACEMENT}/.")
    for where, number in sorted(left_out.items()):
        listing.notes.append(f"{counted(number, 'video')} in {plain_text(where)} left out: neither train nor val.")
    listing.notes.append("Split 1 trains on train and tests on val, as publications do.")
    if smallest is not None:
        _keep_smallest(listing, smallest)
    return listing


@dataclass(frozen=True, slots=True)
class _Clip:
    """A file of train or val. class_name: its folder's, "" where it lies in none."""

    file: FoundFile
    key: Key
    class_name: str


def _sorted_out(found: Walk) -> tuple[list[_Clip], list[FoundFile], Counter[str]]:
    """The files of train and val, the replacements, and how many videos lie in each other folder."""
    clips: list[_Clip] = []
    replacements: list[FoundFile] = []
    left_out = Counter[str]()
    for file in found.files:
        top, class_name, key = _place(file.path)
        if key is not None:
            clips.append(_Clip(file, key, class_name))
        elif top == _REPLACEMENT:
            replacements.append(file)
        else:
            left_out[f"{top}/" if top else "no folder"] += 1
    return clips, replacements, left_out


def _candidate(clip: _Clip, lists: Lists, by_video: ByVideo) -> Candidate:
    key = clip.key if clip.key in lists.entries else by_video.get(clip.key[:2], clip.key)
    group = clip.key[1] if _CLIP.fullmatch(class_and_stem(clip.file.path)[1]) else ""
    # Without a class folder a list must tell what the video is.
    return Candidate(clip.file, key, clip.class_name, group, (_SPLITS[clip.key[0]],) if clip.class_name else ())


def _place(path: str) -> tuple[str, str, Key | None]:
    """(first folder, class folder or "", key) of a path; no key outside train and val."""
    top, _, rest = path.rpartition("/")[0].partition("/")
    part = _FOLDERS.get(top)
    if part not in _SPLITS:
        return top, "", None
    stem = class_and_stem(path)[1]
    clip = _CLIP.fullmatch(stem)
    if clip is None:
        return top, rest.partition("/")[0], (part, f"{rest}/{stem}", None)
    return top, rest.partition("/")[0], (part, clip["id"], int(clip["start"]) if clip["start"] else None)


def _replace(files: Files, replacements: list[FoundFile], by_video: ByVideo) -> int:
    """Put replacements in the place of the videos with their YouTube ids, also of those that are not there. How many were."""
    there = {candidate.group: candidate for candidate in files.candidates if candidate.group}
    listed = {video: key for (_, video), key in by_video.items()}
    num_replaced = 0
    for file in replacements:
        video = class_and_stem(file.path)[1][:_ID_LENGTH]
        if video in there:
            there[video].file = file
        else:  # one that no list knows has a key that no list has: it is left out, and counted
            files.candidates.append(Candidate(file, listed.get(video, (_REPLACEMENT, video, None)), group=video))
        num_replaced += video in there or video in listed
    return num_replaced


def _in_another_folder(files: Files, lists: Lists) -> list[str]:
    return [
        candidate.file.path
        for candidate in files.candidates
        if candidate.label_name
        and (entry := lists.entries.get(candidate.key)) is not None
        and _plain_class(entry.label_name) != _plain_class(candidate.label_name)
    ]


def _keep_smallest(listing: Listing, number: int) -> None:
    """Keep the classes whose train files have the fewest bytes in all; of equal ones the first by name."""
    sizes = Counter[str]()
    for item in listing.files:
        if item.splits == ("train",):
            sizes[item.label_name] += item.file.bytes
    smallest = sorted(sizes, key=lambda name: (sizes[name], sort_key(name)))[:number]
    listing.keep_classes(sorted(smallest, key=sort_key))
    if len(sizes) > number:
        num_bytes = sum(sizes[name] for name in smallest)
        listing.notes.append(
            f"The {number} of {len(sizes):,} classes with the fewest bytes of train videos, {num_bytes:,} in all: which ones depends on "
            "the copy of the data, resized videos rank otherwise."
        )
    elif len(sizes) < number:
        listing.warnings.append(
            f"Only {counted(len(sizes), 'class')} with train videos, where Kinetics-100 is the {number} smallest of 400."
        )


# The CSV files


def _csv_files(place: Path) -> list[Path]:
    """The CSV files of a folder, or a file alone, whose header names youtube_id; sorted by name."""
    try:
        files = sorted(place.glob("*.csv")) if place.is_dir() else [place]
        return [file for file in files if _has_ids(file)]
    except OSError:
        return []


def _has_ids(file: Path) -> bool:
    with file.open("rb") as handle:
        return b"youtube_id" in handle.readline(4096).strip().split(b",")


def _read_lists(annotations: Path | None, folders: set[str]) -> tuple[Lists, ByVideo]:
    """What the CSV files say, classes spelled as the folders are. Without files the folders' names are the classes."""
    by_video: ByVideo = {}
    lists = Lists(classes=sorted(folders, key=sort_key), split_names=["split_1"])
    if annotations is None:
        return lists, by_video
    spelled = {_plain_class(name): name for name in folders}
    names = set(folders)
    for file in _csv_files(annotations):
        for line, part, row in _rows(file):
            label_name = spelled.setdefault(_plain_class(row["label"]), row["label"])
            names.add(label_name)
            video, start, end = row["youtube_id"].strip(), _second(row, "time_start"), _second(row, "time_end")
            times = "" if start is None or end is None else f"_{start:06d}_{end:06d}"
            key = by_video[part, video] = (part, video, start)
            lists.add(key, f"{video}{times}.mp4", label_name, split="split_1", part=_SPLITS[part], file=file, at=f"line {line}")
        lists.files.append(file)
    if not lists.entries:
        raise InputError(f"{annotations} holds no CSV file {_FORM} with rows of train or val: name its file or folder with --annotations.")
    lists.classes = sorted(names, key=sort_key)
    return lists, by_video


def _rows(file: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """(line, part, row) of the rows of train and val."""
    header, rows = read_csv(file, needs="youtube_id", form=_FORM)
    named = next((part for word, part in _PARTS.items() if word in re.split(r"[^a-z]+", PurePosixPath(file.name).stem.lower())), "")
    if "label" not in header:
        if named != "test":
            raise InputError(f"{file}: the first line must name the columns, {_FORM}; there is no label: take the list with labels.")
        return
    for line, row in rows:
        word = row.get("split", "") or named
        part = _PARTS.get(word)
        if part is None:
            raise InputError(f"{file}, line {line}: the split '{plain_text(word)}' is none of train, val and test: correct it.")
        if part in _SPLITS:
            if not row["label"]:
                raise InputError(f"{file}, line {line}: the label is blank: fill it in, or remove the line.")
            yield line, part, row


def _second(row: dict[str, str], column: str) -> int | None:
    try:
        return int(float(row.get(column, "")))
    except (ValueError, OverflowError):
        return None


def _plain_class(name: str) -> str:
    """A class name for comparing: many copies have underscores for blanks, and no quotes."""
    return name.replace(" ", "_").replace('"', "")
