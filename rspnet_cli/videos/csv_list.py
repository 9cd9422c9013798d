"""A list of videos as a CSV file: `path[,label][,split][,group]` with a header; paths relative to the folder of videos."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rspnet_cli.errors import InputError
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.listing import UNUSED, Listing, counted, some
from rspnet_cli.videos.walk import FoundFile, PathRefused, locate

COLUMNS = ("path", "label", "split", "group")
PARTS = ("train", "test", "val")


def list_csv(root: Path, file: Path) -> Listing:
    """The videos that `file` names. A label is a class name; a blank cell means none. Raises InputError naming the line of a fault."""
    real_root = os.path.realpath(root)
    header, rows = _read(file)
    listing = Listing(annotations=[file], split_names=["split_1"] if "split" in header else [])
    seen: dict[str, tuple[int, tuple[str, ...]]] = {}
    num_repeated = 0
    for line, row in rows:
        label_name, split, group = (row.get(name, "") for name in ("label", "split", "group"))
        if split and split not in PARTS:
            raise InputError(
                f"{file}, line {line}: the split '{plain_text(split)}' is none of {', '.join(PARTS)}: correct it, or leave it blank."
            )
        path = _relative(row["path"], root, real_root)
        if path in seen:
            first_line, before = seen[path]
            if before != (label_name, split, group):
                raise InputError(
                    f"{file}, lines {first_line} and {line} name {plain_text(path)} with different labels, splits or groups: keep one."
                )
            num_repeated += 1
            continue
        seen[path] = line, (label_name, split, group)
        try:
            place = locate(real_root, real_root, path)
            if place.is_folder:
                raise PathRefused("is a folder, not a file")
        except PathRefused as refused:
            listing.refuse(path, f"is named in line {line} of {plain_text(file.name)}, but {refused}", label_name=label_name)
            continue
        found = FoundFile(path, place.status.st_size, place.status.st_mtime_ns)
        listing.add(found, label_name=label_name, group=group, splits=(split or UNUSED,) if "split" in header else ())
    listing.classes = sorted({label_name for label_name, _, _ in (values for _, values in seen.values()) if label_name})
    if listing.classes and (unlabelled := sum(not label_name for _, label_name, _, _ in listing.files)):
        listing.warnings.append(f"{counted(unlabelled, 'video')} without a label in {file}.")
    if num_repeated:
        listing.warnings.append(f"{counted(num_repeated, 'row')} of {file} repeated.")
    if ignored := [name for name in header if name not in COLUMNS]:
        listing.notes.append(f"Columns of {file} that extract does not use: {some(ignored, 8)}.")
    return listing


def _read(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header and the rows with their line numbers, cells stripped. Raises InputError."""
    try:
        # Paths may be no UTF-8: they come out as the file system spells them.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if "path" not in header or len(set(header)) != len(header):
                typed = plain_text(",".join(header))[:200]
                raise InputError(
                    f"{file}: the first line must name the columns, path[,label][,split][,group], each once; it is '{typed}': add a header."
                )
            return header, list(_rows(file, header, reader))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): name a CSV file with --annotations.") from error
    except csv.Error as error:
        raise InputError(f"{file} is no CSV file that can be read ({error}): correct it.") from error


def _rows(file: Path, header: list[str], reader: Iterator[list[str]]) -> Iterator[tuple[int, dict[str, str]]]:
    line = 1
    for cells in reader:
        line = getattr(reader, "line_num", line + 1)
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{file}, line {line}: {counted(len(cells), 'cell')} where the header names {len(header)}: quote cells that hold commas."
            )
        row = {name: cell.strip() if name != "path" else cell for name, cell in zip(header, cells, strict=True)}
        if not row["path"]:
            raise InputError(f"{file}, line {line}: the path is blank: fill it in, or remove the line.")
        yield line, row


def _relative(path: str, root: Path, real_root: str) -> str:
    """The path as it is recorded: relative to the folder of videos where that is possible, without `./`."""
    pure = PurePosixPath(path)
    if pure.is_absolute():
        for base in (root.absolute().as_posix(), real_root):
            if pure.is_relative_to(base):
                pure = pure.relative_to(base)
                break
    return pure.as_posix()
