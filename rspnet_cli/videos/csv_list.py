"""A list of videos as a CSV file: `path[,label][,split][,group]` with a header; paths relative to the folder of videos."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import UNUSED, Listing, counted, some
from rspnet_cli.videos.walk import FoundFile, Locator, PathRefused

COLUMNS = ("path", "label", "split", "group")
FORM = "path[,label][,split][,group]"
PARTS = ("train", "test", "val")


def list_csv(root: Path, file: Path) -> Listing:
    """The videos that `file` names. A label is a class name; a blank cell means none. Raises InputError naming the line of a fault."""
    locator = Locator(root)
    header, rows = read_csv(file, needs="path", form=FORM)
    repeated: list[str] = []
    listing = Listing(annotations=[file], split_names=["split_1"] if "split" in header else [], extra=None, repeated=repeated)
    seen: dict[str, tuple[int, tuple[str, ...]]] = {}
    for line, row in rows:
        label_name, split, group = (row.get(name, "") for name in ("label", "split", "group"))
        if split and split not in PARTS:
            raise InputError(
                f"{file}, line {line}: the split '{plain_text(split)}' is none of {', '.join(PARTS)}: correct it, or leave it blank."
            )
        path = locator.relative(row["path"])
        if path in seen:
            first_line, before = seen[path]
            if before != (label_name, split, group):
                raise InputError(
                    f"{file}, lines {first_line} and {line} name {plain_text(path)} with different labels, splits or groups: keep one."
                )
            repeated.append(path)
            continue
        seen[path] = line, (label_name, split, group)
        try:
            place = locator.locate(path)
            if place.is_folder:
                raise PathRefused("is a folder, not a file")
        except PathRefused as refused:
            listing.refuse_listed(path, refused, [f"line {line} of {plain_text(file.name)}"], label_name=label_name)
            continue
        found = FoundFile(path, place.status.st_size, place.status.st_mtime_ns)
        listing.add(found, label_name=label_name, group=group, splits=(split or UNUSED,) if "split" in header else ())
    listing.classes = sorted({label_name for label_name, _, _ in (values for _, values in seen.values()) if label_name})
    if ignored := [name for name in header if name not in COLUMNS]:
        listing.notes.append(f"Columns of {file} that extract does not use: {some(ignored, 8)}.")
    return listing


def is_csv_list(file: Path) -> bool:
    """Whether the first line of a file names a column path."""
    try:
        with file.open("rb") as handle:
            header = handle.readline(4096)
    except OSError:
        return False
    return "path" in [name.strip() for name in header.decode("utf-8-sig", "replace").split(",")]


def read_csv(file: Path, *, needs: str, form: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The header of a CSV file, and its rows with their line numbers, cells stripped. Raises InputError, also while rows are taken.

    needs: the column that every row must fill. It is taken as it stands: a path may begin or end with a blank. form: what the header should
    be, for the message.
    """
    reader = csv.reader(_lines(file), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise _unreadable(file, error) from error
    if needs not in header or len(set(header)) != len(header):
        typed = plain_text(",".join(header))[:200]
        raise InputError(f"{file}: the first line must name the columns, {form}, each once; it is '{typed}': add a header.")
    return header, _rows(file, header, reader, needs)


def _lines(file: Path) -> Iterator[str]:
    try:
        # Paths may be no UTF-8: they come out as the file system spells them.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            yield from handle
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): name a CSV file with --annotations.") from error


def _rows(file: Path, header: list[str], reader: Any, needs: str) -> Iterator[tuple[int, dict[str, str]]]:
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _unreadable(file, error) from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{file}, line {reader.line_num}: {counted(len(cells), 'cell')} where the header names {len(header)}: "
                "quote cells that hold commas."
            )
        row = {name: cell if name == needs else cell.strip() for name, cell in zip(header, cells, strict=True)}
        if not row[needs]:
            raise InputError(f"{file}, line {reader.line_num}: the {needs} is blank: fill it in, or remove the line.")
        yield reader.line_num, row


def _unreadable(file: Path, error: csv.Error) -> InputError:
    return InputError(f"{file} is no CSV file that can be read ({error}): correct it.")
