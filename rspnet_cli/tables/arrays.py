"""Columns of tables with millions of rows as arrays, read and written a piece at a time: no Python object stays for a cell.

Text is bytes, UTF-8, as wide as the longest of its column. It is short: ids, paths of frames, hashes, parts of a split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rspnet_cli.files import atomic_path
from rspnet_cli.tables.table import EVERY_ROW, ROWS_AT_ONCE, Kind, Table, csv_line, open_table, rows_of

if TYPE_CHECKING:
    import pandas as pd

# Text while it is read: ids have 100 characters at most, paths of frames some more, hashes 64.
_DTYPES: dict[Kind, str] = {"text": "S128", "int": "Int64", "float": "S32", "bool": "bool"}


def read_pieces(path: Path, table: Table, columns: Sequence[str], rows: slice = EVERY_ROW) -> Iterator[dict[str, np.ndarray]]:
    """Columns of a table (of these rows), so many rows at a time or none. Raises InputError, also between pieces.

    text: bytes; int: int64, -1 for an empty cell; float: float64; bool: bool. There is a piece at least.
    """
    with open_table(path, table, _DTYPES, columns) as reader:
        for piece in reader:
            wanted = rows_of(piece, rows)
            yield {name: _array(wanted[name], table.kind_of(name)) for name in columns}


def joined(pieces: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns in pieces -> whole columns."""
    parts: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        for name, values in piece.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(parts.pop(name)) for name in list(parts)}  # one column at a time is there twice


def _array(cells: pd.Series, kind: Kind | None) -> np.ndarray:
    if kind == "int":
        return cells.to_numpy(np.int64, na_value=-1)
    if kind == "bool":
        return cells.to_numpy(bool)
    text = np.ascontiguousarray(cells.to_numpy(_DTYPES["float" if kind == "float" else "text"]))
    used = text.view(np.uint8).reshape(len(text), text.itemsize).any(axis=0)
    width = int(np.flatnonzero(used).max(initial=0)) + 1
    if width == text.itemsize:  # there was no room for what may have followed
        raise ValueError(f"a cell of {cells.name} has {width} bytes or more")
    if kind == "float":
        return np.where(text == b"", b"nan", text).astype(np.float64)
    return text.astype(f"S{width}")


def write_arrays(path: Path, columns: Sequence[str], pieces: Iterable[Sequence[np.ndarray]]) -> None:
    """Write a table of text columns, each (n,) bytes, atomically, piece by piece; the same bytes as `csv_bytes`. Raises DiskFullError."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(csv_line(columns).encode())
        for piece in pieces:
            lines = zip(*(values.tolist() for values in piece), strict=True)
            raw = b"".join(values.tobytes() for values in piece)
            if any(mark in raw for mark in (b",", b'"', b"\r", b"\n")):
                file.writelines(csv_line(cell.decode() for cell in line).encode() for line in lines)
            else:  # in a ninth of the time
                file.writelines(b",".join(line) + b"\n" for line in lines)


def places(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each of `values` (n,) is in `known` (m,), both bytes, the latter ascending: (n,) int64, -1 for one that is not there."""
    width = max(values.itemsize, known.itemsize)
    known = known.astype(f"S{width}", copy=False)
    found = np.full(len(values), -1)
    for start in range(0, len(values) if len(known) else 0, ROWS_AT_ONCE):
        part = values[start : start + ROWS_AT_ONCE].astype(f"S{width}", copy=False)
        order = np.argsort(part)  # neighbours are then looked for at neighbouring places, in half the time
        place = np.searchsorted(known, part[order])
        place[place == len(known)] = 0
        found[start : start + ROWS_AT_ONCE][order] = np.where(known[place] == part[order], place, -1)
    return found
