"""What is checked of every data set's table, whatever its layout: each finding is counted, and the first of it are named."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import Listing, counted, some


def check_listing(listing: Listing, *, root: Path, lists: Path | None) -> None:
    """Add warnings for what the user should know. lists: where the lists lie. Raises InputError where nothing is to be extracted."""
    if not listing.files and listing.missing:
        raise InputError(
            f"None of the {counted(len(listing.missing), 'video')} of {lists} is in {root} (the first: {plain_text(listing.missing[0])}): "
            "name the folder that the lists count from."
        )
    if not listing.files and not listing.refused:
        hint = f" ({' '.join(listing.notes)})" if listing.notes else ""
        raise InputError(f"There is no video in {root}{hint}: name the folder that holds the videos, or other lists.")
    if listing.missing:
        listing.warnings.append(
            f"{counted(len(listing.missing), 'listed video')} not there ({some(listing.missing)}): recorded as failures with their lists."
        )
    if listing.repeated:
        listing.warnings.append(
            f"{counted(len(listing.repeated), 'entry')} repeated in {lists} ({some(listing.repeated)}): each counts once."
        )
    if listing.classes and (unlabelled := sum(not item.label_name for item in listing.files)):
        listing.warnings.append(f"{counted(unlabelled, 'video')} without a label.")
    for index, name in enumerate(listing.split_names):
        _check_split(listing, index, name.removeprefix("split_"))


def _check_split(listing: Listing, index: int, number: str) -> None:
    """Classes and groups that make a split harder or easier than it looks."""
    classes: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, set[str]] = defaultdict(set)
    for item in listing.files:
        part = item.splits[index]
        classes[part].add(item.label_name)
        if item.group:
            groups[part].add(item.group)
    if classes["test"] and not classes["train"]:
        listing.warnings.append(f"Split {number} has no train video: pretrain and the evaluations need some, or another split.")
    elif untrained := sorted(classes["test"] - classes["train"] - {""}):
        listing.warnings.append(
            f"{counted(len(untrained), 'class')} without a train video in split {number} ({some(untrained)}): "
            "its test videos can never be found or classified right."
        )
    if both := sorted(groups["train"] & groups["test"]):
        listing.warnings.append(
            f"{counted(len(both), 'group')} on both sides of split {number} ({some(both)}): "
            "clips of one recording in train and test flatter every result."
        )
