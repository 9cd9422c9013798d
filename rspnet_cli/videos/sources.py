"""Data-set layouts -> one table of videos: which files there are, with their labels, groups and splits. No video is opened here.

ucf101   <Class>/v_<Class>_gGG_cCC.avi and UCF101's lists of classes and splits
folder   a class per sub-folder
plain    videos anywhere below, without labels
csv      a list path[,label][,split][,group]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.videos.csv_list import list_csv
from rspnet_cli.videos.listing import Listing, SourceFailure, VideoSource, VideoTable, counted
from rspnet_cli.videos.ucf101 import CLASS_LIST, LISTS_FOLDER, list_ucf101, lists_near
from rspnet_cli.videos.walk import Walk, sort_key, walk

__all__ = ["DATASETS", "SourceFailure", "VideoSource", "VideoTable", "find_videos"]

DATASETS = ("ucf101", "folder", "plain", "csv")


@dataclass(frozen=True)
class _Layout:
    """Which layout to read, with which lists, and why if it was not asked for."""

    dataset: str
    annotations: Path | None
    note: str | None = None


def find_videos(root: Path, *, dataset: str | None = None, annotations: Path | None = None, exclude: Path | None = None) -> VideoTable:
    """The table of all videos below `root`.

    dataset: one of DATASETS; None: what it looks like, which the table's notes then say. annotations: the folder of UCF101's lists, or the
    CSV file. exclude: a folder to leave out (the output may lie inside `root`). Raises InputError when there is nothing to read.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}: name the folder that holds the videos.")
    if annotations is not None and not annotations.exists():
        raise InputError(f"{annotations} does not exist: name the folder of UCF101's lists, or the CSV file, with --annotations.")
    found: Walk | None = None
    layout = _asked_for(root, dataset, annotations)
    if layout is None:
        found = walk(root, exclude=exclude)
        layout = _guess(found)
    if layout.dataset == "csv":
        assert layout.annotations is not None
        listing = list_csv(root, layout.annotations)
    else:
        found = found or walk(root, exclude=exclude)
        if layout.dataset == "ucf101":
            assert layout.annotations is not None
            listing = list_ucf101(found, layout.annotations)
        else:
            listing = _list_folder(found) if layout.dataset == "folder" else _list_plain(found)
    if layout.note:
        listing.notes.insert(0, layout.note)
    if not listing.files and not listing.refused:
        hint = f" ({' '.join(listing.notes)})" if listing.notes else ""
        raise InputError(
            f"There is no video in {layout.annotations if layout.dataset == 'csv' else root}{hint}: name the folder that holds the videos."
        )
    return listing.table(root, layout.dataset)


def _asked_for(root: Path, dataset: str | None, annotations: Path | None) -> _Layout | None:
    """The layout that the arguments name, or that the lists in or beside `root` show; None if the files must tell."""
    if dataset is not None and dataset not in DATASETS:
        raise InputError(f"There is no data set layout '{dataset}': choose one of {', '.join(DATASETS)}.")
    if dataset in ("folder", "plain"):
        if annotations is not None:
            raise InputError(f"--annotations has no effect with --dataset {dataset}: leave it out, or choose ucf101 or csv.")
        return _Layout(dataset, None)
    if dataset == "ucf101":
        lists = annotations or lists_near(root)
        if lists is None:
            raise InputError(
                f"There is no {CLASS_LIST} in or beside {root}: name the folder of UCF101's lists ({LISTS_FOLDER}) with --annotations."
            )
        return _Layout("ucf101", lists, None if annotations else f"Lists of classes and splits: {lists}.")
    if dataset == "csv":
        if annotations is None or not annotations.is_file():
            raise InputError("--dataset csv needs its list: name the CSV file (path[,label][,split][,group]) with --annotations.")
        return _Layout("csv", annotations)
    if annotations is None:
        lists = lists_near(root)
        if lists is None:
            return None
        return _Layout("ucf101", lists, f"Taken for --dataset ucf101: {lists / CLASS_LIST} is there.")
    if annotations.is_file():
        return _Layout("csv", annotations, f"Taken for --dataset csv: {annotations} is a file.")
    if (annotations / CLASS_LIST).is_file():
        return _Layout("ucf101", annotations, f"Taken for --dataset ucf101: {annotations / CLASS_LIST} is there.")
    raise InputError(f"{annotations} holds no {CLASS_LIST} and is no CSV file: name UCF101's lists or a CSV file with --annotations.")


def _guess(found: Walk) -> _Layout:
    """Classes by folder if every video lies exactly one folder deep and there are several folders; otherwise no labels."""
    folders = {file.path.rpartition("/")[0] for file in found.files}
    if len(folders) > 1 and all(folder and "/" not in folder for folder in folders):
        note = (
            f"Taken for --dataset folder: {counted(len(folders), 'sub-folder')} with videos, one class each (--dataset plain: no labels)."
        )
        return _Layout("folder", None, note)
    return _Layout("plain", None, "Taken for --dataset plain: videos without labels (--dataset folder: a class per sub-folder).")


def _list_folder(found: Walk) -> Listing:
    """A class per sub-folder of the first level; whatever lies deeper belongs to it."""
    listing = Listing()
    classes = set()
    for file in found.files:
        class_name, slash, _ = file.path.partition("/")
        if slash:
            classes.add(class_name)
            listing.add(file, label_name=class_name)
        else:
            listing.refuse(file.path, "lies in no sub-folder, so it has no class")
    for path, reason in found.refused:
        class_name, slash, _ = path.partition("/")
        if slash:
            classes.add(class_name)
        listing.refuse(path, reason, label_name=class_name if slash else "")
    listing.classes = sorted(classes, key=sort_key)
    listing.note_skipped(found)
    return listing


def _list_plain(found: Walk) -> Listing:
    listing = Listing()
    for file in found.files:
        listing.add(file)
    for path, reason in found.refused:
        listing.refuse(path, reason)
    listing.note_skipped(found)
    return listing
