"""How the CSV tables are described, written and read.

All tables are UTF-8, comma-separated, with a header and `\\n` line ends; numbers are written so that they read back equal.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rspnet_cli.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.parsers import TextFileReader

Kind = Literal["text", "int", "float", "bool"]
EVERY_ROW = slice(None)
ROWS_AT_ONCE = 2**16
"""Of a table with millions of rows."""


@dataclass(frozen=True)
class Column:
    """A column. `kind` is what a value is; an empty cell means "none", in a text column also the empty text."""

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of one file. Columns named `<prefix>_N` stand for any number of columns, N from 1 up (`split_N`)."""

    file: str
    stage: str
    row: str
    columns: tuple[Column, ...]

    def header(self, families: Sequence[str] = ()) -> list[str]:
        """Names of the columns in order; `families` (such as split_1, split_2) take the place of the column `<prefix>_N`."""
        names: list[str] = []
        for column in self.columns:
            names += families if column.name.endswith("_N") else [column.name]
        return names

    def kind_of(self, column: str) -> Kind | None:
        """The kind of a column of this table by its name in a file, None if it has no such column."""
        prefix, underscore, number = column.rpartition("_")
        family = f"{prefix}_N" if underscore and number.isdigit() else column
        return next((item.kind for item in self.columns if item.name in (column, family)), None)


def csv_bytes(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A table as the bytes of a file. Missing, None and NaN values become empty cells, floats their shortest exact spelling."""
    names = list(columns)
    return (csv_line(names) + "".join(csv_line(row.get(name) for name in names) for row in rows)).encode("utf-8")


def csv_line(values: Iterable[Any]) -> str:
    """One line of a table, cells spelled as in `csv_bytes`."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow([_cell(value) for value in values])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"  # as pandas writes it
    return float.__repr__(value) if isinstance(value, float) else str(value)  # numpy's repr names its type


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table as text; none where there is no such file. For what needs no pandas. Raises InputError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): restore it, or run its stage again with --force.") from error


def read_header(path: Path) -> list[str]:
    """The names of a table's columns. Raises what `open` and the csv module raise."""
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def read_table(
    path: Path,
    table: Table,
    columns: Sequence[str] | None = None,
    *,
    rows: slice = EVERY_ROW,
    categories: Collection[str] = (),
) -> pd.DataFrame:
    """Read a table with the types of its columns: text stays text ("01", "NA"), a column of whole numbers with gaps is Int64.

    columns, rows (start and stop): these alone, numbered from 0. categories: text columns of few different values, each kept once.
    Raises InputError when the file is no such table.
    """
    import pandas as pd
    from pandas.api.types import union_categoricals

    # Floats by Python: pandas' own parser is off by a last digit in some versions.
    dtypes: dict[Kind, str] = {"text": "str", "int": "Int64", "float": "str", "bool": "bool"}
    with open_table(path, table, dtypes, columns, categories=categories) as reader:
        parts: dict[str, list[pd.Series]] = {}
        for piece in reader:
            for name, part in rows_of(piece, rows).items():
                parts.setdefault(str(name), []).append(part)
        whole = {name: union_categoricals if name in categories else partial(pd.concat, ignore_index=True) for name in parts}
        frame = pd.DataFrame({name: join(parts.pop(name)) for name, join in whole.items()})  # one column at a time is there twice
        for name in (name for name in frame.columns if table.kind_of(name) == "float"):
            frame[name] = [float(text or "nan") for text in frame[name]]
    return frame


def rows_of(piece: pd.DataFrame, rows: slice) -> pd.DataFrame:
    """Those of the rows (start and stop, or EVERY_ROW) that a piece of `open_table`'s reader holds."""
    return piece if rows == EVERY_ROW else piece.loc[rows.start : rows.stop - 1]


@contextmanager
def open_table(
    path: Path,
    table: Table,
    dtypes: Mapping[Kind, str],
    columns: Sequence[str] | None = None,
    *,
    categories: Collection[str] = (),
) -> Iterator[TextFileReader]:
    """A reader of a table, ROWS_AT_ONCE, at least once. An empty cell is an empty text, in a column of whole numbers the missing value.

    dtypes: of each kind of column. columns: these alone. A ValueError in the block, which says what is wrong with the file, becomes an
    InputError, as those of the reader do.
    """
    import pandas as pd

    try:
        names = read_header(path)
        needed = {column.name for column in table.columns if not column.name.endswith("_N")}
        if missing := sorted((needed | set(columns or ())) - set(names)):
            raise InputError(f"{path} has no column {missing[0]}: make it anew with `rspnet {table.stage} --force`.")
        kinds = {name: table.kind_of(name) for name in (names if columns is None else columns)}
        with pd.read_csv(
            path,
            usecols=None if columns is None else list(columns),
            dtype={name: "category" if name in categories else dtypes[kind] for name, kind in kinds.items() if kind},
            keep_default_na=False,
            na_values={name: [""] for name, kind in kinds.items() if kind == "int"},
            encoding="utf-8",
            chunksize=ROWS_AT_ONCE,
        ) as reader:
            yield reader
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): make it anew with `rspnet {table.stage} --force`.") from error
