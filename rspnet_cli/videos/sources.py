"""Data-set layouts -> one table of videos: which files there are, with their labels, groups and splits. No video is opened here.

ucf101        <Class>/v_<Class>_gGG_cCC.avi and UCF101's lists of classes and splits
hmdb51        <class>/<clip>.avi and HMDB51's lists of splits
kinetics400   train and val, with class folders or CSV lists; kinetics100: its 100 classes of the fewest train bytes
ssv2          <id>.webm and Something-Something v2's JSON lists
folder        a class per sub-folder
plain         videos anywhere below, without labels
csv           a list path[,label][,split][,group]
list          lists of other toolkits, of video files or of folders of frames
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.videos.checks import check_listing
from rspnet_cli.videos.csv_list import list_csv
from rspnet_cli.videos.file_list import list_listed
from rspnet_cli.videos.hmdb51 import list_hmdb51
from rspnet_cli.videos.kinetics import NUM_SMALLEST, list_kinetics
from rspnet_cli.videos.layouts import LISTS, Layout, layout_of
from rspnet_cli.videos.listing import Listing, SourceFailure, VideoSource, VideoTable
from rspnet_cli.videos.ssv2 import list_ssv2
from rspnet_cli.videos.ucf101 import list_ucf101
from rspnet_cli.videos.walk import Walk, sort_key, walk

__all__ = ["DATASETS", "SourceFailure", "VideoSource", "VideoTable", "find_videos"]

DATASETS = tuple(LISTS)


def find_videos(
    root: Path, *, dataset: str | None = None, annotations: Path | None = None, exclude: Path | None = None, find_extra: bool = False
) -> VideoTable:
    """The table of all videos below `root`.

    dataset: one of DATASETS; None: what it looks like, which the table's notes then say. annotations: file or folder of the layout's lists
    (None: where they usually lie). exclude: the result's folder, which may lie inside `root`. find_extra: look below `root` for
    videos that a list leaves out also where the list alone would tell all (csv, list). Raises InputError when there is nothing to read.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}: name the folder that holds the videos.")
    if annotations is not None and not annotations.exists():
        raise InputError(f"{annotations} does not exist: name the lists of classes and splits, a file or a folder, with --annotations.")

    @cache
    def found() -> Walk:
        return walk(root, exclude=exclude)

    layout = layout_of(root, dataset, annotations, found)
    listing = _read(root, layout, found)
    if layout.note:
        listing.notes.insert(0, layout.note)
    check_listing(listing, root=root, lists=layout.annotations)
    table = listing.table(root, layout.dataset)
    if find_extra and table.extra is None and not table.of_frames:
        listed = {video.path for video in table.videos}
        table = replace(table, extra=tuple(file.path for file in found().files if file.path not in listed))
    return table


def _read(root: Path, layout: Layout, found: Callable[[], Walk]) -> Listing:
    """What a layout makes of the files and its lists."""
    dataset, annotations = layout.dataset, layout.annotations
    if dataset in ("csv", "list"):
        assert annotations is not None
        return list_csv(root, annotations) if dataset == "csv" else list_listed(root, annotations)
    if dataset in ("kinetics400", "kinetics100"):
        listing = list_kinetics(root, found(), annotations, smallest=NUM_SMALLEST if dataset == "kinetics100" else None)
    elif dataset in ("folder", "plain"):
        listing = _list_folder(root, found()) if dataset == "folder" else _list_plain(found())
    else:
        assert annotations is not None
        listing = {"ucf101": list_ucf101, "hmdb51": list_hmdb51, "ssv2": list_ssv2}[dataset](found(), annotations)
    listing.note_skipped(found())
    return listing


def _list_folder(root: Path, found: Walk) -> Listing:
    """A class per sub-folder of the first level; whatever lies deeper belongs to it. Raises InputError where there is no sub-folder."""
    if found.files and not any("/" in file.path for file in found.files):
        raise InputError(
            f"The videos of {root} lie in no sub-folder, so they have no class: name the folder above it, or --dataset plain for videos "
            "without labels."
        )
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
    return listing


def _list_plain(found: Walk) -> Listing:
    listing = Listing()
    for file in found.files:
        listing.add(file)
    for path, reason in found.refused:
        listing.refuse(path, reason)
    return listing
