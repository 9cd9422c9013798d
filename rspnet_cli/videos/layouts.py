"""Which layout a folder of videos has: the one that was asked for, or what its lists and folders show beyond doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.videos import file_list, hmdb51, kinetics, ssv2, ucf101
from rspnet_cli.videos.csv_list import FORM, is_csv_list
from rspnet_cli.videos.listing import counted
from rspnet_cli.videos.walk import Walk


@dataclass(frozen=True)
class Lists:
    """What a layout's lists are. near: finds them in or beside the folder of videos; None: they must be named."""

    what: str
    near: Callable[[Path], Path | None] | None = None
    needed: bool = True
    missing: str = ""
    """Why there is no going on without them, before "in or beside"."""


LISTS: dict[str, Lists | None] = {
    "ucf101": Lists(f"the folder of UCF101's lists ({ucf101.LISTS_FOLDER})", ucf101.lists_near, missing=ucf101.CLASS_LIST),
    "hmdb51": Lists(f"the folder of HMDB51's lists ({hmdb51.LISTS_FOLDERS[0]})", hmdb51.lists_near, missing="<class>_test_split1.txt"),
    "kinetics400": Lists("the folder of the CSV files, or one of them", kinetics.lists_near, needed=False),
    "kinetics100": Lists("the folder of the CSV files, or one of them", kinetics.lists_near, needed=False),
    "ssv2": Lists("the folder of the JSON lists", ssv2.lists_near, missing="something-something-v2-labels.json"),
    "folder": None,
    "plain": None,
    "csv": Lists(f"the CSV file ({FORM})"),
    "list": Lists("the folder of the lists, or one of them"),
}
# Those whose lists are looked for in and beside the folder of videos, in this order: HMDB51's folder may hold a classInd.txt, too.
_FOUND_NEAR = ("hmdb51", "ucf101", "ssv2")
_FILE_ONLY = {"csv"}


@dataclass(frozen=True)
class Layout:
    """Which layout to read, with which lists, and why if it was not asked for."""

    dataset: str
    annotations: Path | None
    note: str | None = None


def layout_of(root: Path, dataset: str | None, annotations: Path | None, found: Callable[[], Walk]) -> Layout:
    """The layout of `root`. found: what lies below it, asked for only where that must tell. Raises InputError."""
    if dataset is not None:
        return _asked_for(root, dataset, annotations)
    return _by_lists(annotations) if annotations is not None else _by_content(root, found)


def _asked_for(root: Path, dataset: str, annotations: Path | None) -> Layout:
    if dataset not in LISTS:
        raise InputError(f"There is no data set layout '{dataset}': choose one of {', '.join(LISTS)}.")
    lists = LISTS[dataset]
    if lists is None:
        if annotations is not None:
            raise InputError(f"--annotations has no effect with --dataset {dataset}: leave it out, or choose a layout that has lists.")
        return Layout(dataset, None)
    if annotations is not None:
        if dataset in _FILE_ONLY and not annotations.is_file():
            raise InputError(f"--dataset {dataset} needs its list: name {lists.what} with --annotations.")
        return Layout(dataset, annotations)
    near = lists.near(root) if lists.near is not None else None
    if near is None and lists.needed:
        if lists.near is None:
            raise InputError(f"--dataset {dataset} needs its list: name {lists.what} with --annotations.")
        raise InputError(f"There is no {lists.missing} in or beside {root}: name {lists.what} with --annotations.")
    return Layout(dataset, near, f"Lists of classes and splits: {near}." if near is not None else None)


def _by_lists(annotations: Path) -> Layout:
    """What the lists that were named are lists of."""
    if annotations.is_file():
        kinds: tuple[tuple[str, Callable[[Path], bool], str], ...] = (
            ("kinetics400", kinetics.has_lists, "names YouTube ids"),
            ("csv", is_csv_list, "has a column path"),
            ("list", file_list.has_lists, "has a path and the number of a class a line"),
        )
        taken = next(((name, why) for name, fits, why in kinds if fits(annotations)), ("csv", "is a file"))
    else:
        kinds = (
            ("hmdb51", hmdb51.has_lists, "holds lists such as <class>_test_split1.txt"),
            ("ucf101", lambda folder: (folder / ucf101.CLASS_LIST).is_file(), f"holds {ucf101.CLASS_LIST}"),
            ("ssv2", ssv2.has_lists, "holds something-something-v2-labels.json"),
            ("kinetics400", kinetics.has_lists, "holds CSV files with YouTube ids"),
            ("list", file_list.has_lists, "holds lists of paths and labels"),
        )
        known = next(((name, why) for name, fits, why in kinds if fits(annotations)), None)
        if known is None:
            raise InputError(
                f"{annotations} holds no lists of a known kind ({ucf101.CLASS_LIST} of UCF101, <class>_test_split1.txt of HMDB51, JSON of "
                "Something-Something v2, CSV of Kinetics, or train and val lists): name other lists, or the layout with --dataset."
            )
        taken = known
    return Layout(taken[0], annotations, f"Taken for --dataset {taken[0]}: {annotations} {taken[1]}.")


def _by_content(root: Path, found: Callable[[], Walk]) -> Layout:
    """What lists in or beside the folder show, else what the folders and names of the files do."""
    for name in _FOUND_NEAR:
        lists = LISTS[name]
        assert lists is not None
        assert lists.near is not None
        if near := lists.near(root):
            return Layout(name, near, f"Taken for --dataset {name}: {near} holds {lists.missing}.")
    near = kinetics.lists_near(root)
    if near or any((root / name).is_dir() for name in kinetics.OWN_FOLDERS):
        why = f"{near} holds CSV files with YouTube ids" if near else f"it has {' or '.join(sorted(kinetics.OWN_FOLDERS))}"
        return Layout("kinetics400", near, f"Taken for --dataset kinetics400: {why}.")
    files = found().files
    if kinetics.looks_like_kinetics(found()):
        return Layout("kinetics400", None, "Taken for --dataset kinetics400: clips named by YouTube ids in class folders of train and val.")
    folders = {file.path.rpartition("/")[0] for file in files}
    if len(folders) > 1 and all(folder and "/" not in folder for folder in folders):
        kind = f"{counted(len(folders), 'sub-folder')} with videos, one class each (--dataset plain: no labels)"
        return Layout("folder", None, f"Taken for --dataset folder: {kind}.")
    hint = "--dataset folder: a class per sub-folder"
    if {"train", "val"} <= {folder.partition("/")[0] for folder in folders if folder.count("/") == 1}:
        hint += "; --dataset kinetics400: train/ and val/ with a class per sub-folder, as its split"
    return Layout("plain", None, f"Taken for --dataset plain: videos without labels ({hint}).")
