"""The columns of every CSV table that a stage writes, and how the tables are written and read. README and tests take them from here.

All tables are UTF-8, comma-separated, with a header and `\\n` line ends; numbers are written so that they read back equal.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rspnet_cli.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
Kind = Literal["text", "int", "float", "bool"]


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


_ID = Column("id", "text", "the video's id: letters, digits, `.`, `_`, `-`; derived from the path of the source")
_SOURCE = Column(
    "source",
    "text",
    "path of the source below VIDEOS; backslashes, control characters and bytes that are not UTF-8 are escaped (`\\\\`, `\\n`, `\\xff`)",
)
_LABEL = Column("label", "int", "number of the class, from 0; empty for a video without a label")
_LABEL_NAME = Column("label_name", "text", "name of the class; empty for a video without a label")
_GROUP = Column("group", "text", "videos cut from one recording share it, and stay together in every evaluation; empty: the video is alone")
_SPLIT = Column("split_N", "text", "part in split N: train, test, val or unused; no such columns where the data has no splits")

VIDEOS = Table(
    "videos.csv",
    "extract",
    "an extracted video, sorted by id",
    (
        _ID,
        Column("frames_file", "text", "its frames below the stage's folder: `frames/<id>.mp4`, or the folder `frames/<id>` of JPEG files"),
        _SOURCE,
        _LABEL,
        _LABEL_NAME,
        _GROUP,
        _SPLIT,
        Column("frames", "int", "frames in the store, which is what a reader of it gets"),
        Column("fps", "float", "average frames per second"),
        Column("width", "int", "pixels, as stored"),
        Column("height", "int", "pixels, as stored"),
        Column("bytes", "int", "size of the stored frames"),
        Column("sha256", "text", "sha256 of the source file; of a folder of frames over its lines `sha256 name`"),
        Column("repaired_timestamps", "int", "frames whose time in the source ran backwards, repeated or was missing"),
        Column("corrupt_frames", "int", "frames that the decoder flagged as damaged, kept"),
        Column("partial", "bool", "whether the source is truncated and what decodes before the damage was kept (--keep-partial)"),
    ),
)
FAILURES = Table(
    "failures.csv",
    "extract",
    "a video that could not be extracted, sorted by id",
    (
        _ID,
        _SOURCE,
        _LABEL_NAME,
        Column("reason", "text", "why, in words that follow the source's name"),
        Column("decoded", "int", "frames that decoded, where it came to that"),
        Column("declared", "int", "frames that the file declares, where it does"),
    ),
)
SOURCES = Table(
    "sources.csv",
    "extract",
    "a source as it was found, sorted by path; a log, no artifact: a later run compares it with what it finds",
    (
        _SOURCE,
        Column("bytes", "int", "size; 0 for a folder of frames"),
        Column("mtime_ns", "int", "time of the last change, nanoseconds since 1970"),
    ),
)
PRETRAIN_VIDEOS = Table(
    "videos.csv",
    "pretrain",
    "a video of the extraction",
    (
        _ID,
        Column("used", "bool", "whether the encoder was trained on it"),
        Column("sha256", "text", "sha256 of the source file"),
    ),
)
METRICS = Table(
    "metrics.csv",
    "pretrain",
    "a log interval; figures are means over its steps",
    (
        Column("epoch", "int", "epoch of the last step, from 1"),
        Column("step", "int", "steps done"),
        Column("lr", "float", "learning rate"),
        Column("loss", "float", "avid_weight * L_A + rsp_weight * L_M"),
        Column("loss_avid", "float", "L_A, video instance discrimination"),
        Column("loss_rsp", "float", "L_M, relative speed perception"),
        Column("avid_top1", "float", "share of queries whose key is nearer than every key of the queue"),
        Column("avid_top5", "float", "share of queries whose key is among the 5 nearest"),
        Column("avid_other_top1", "float", "avid_top1 for the key at the other speed"),
        Column("avid_other_top5", "float", "avid_top5 for the key at the other speed"),
        Column("rsp_accuracy", "float", "share of queries nearer to the key at their own speed than to the other"),
        Column("grad_norm", "float", "norm of the gradient of all parameters"),
        Column("queue_filled", "float", "share of the queue that holds real keys; below 1 the avid columns mean nothing"),
    ),
)
TIMINGS = Table(
    "timings.csv",
    "pretrain",
    "a log interval; a log, no artifact",
    (
        Column("step", "int", "steps done"),
        Column("seconds", "float", "time of the interval"),
        Column("videos_per_s", "float", "videos trained on per second, all processes together"),
        Column("data_wait_share", "float", "share of the time spent waiting for decoded clips"),
    ),
)
FEATURE_VIDEOS = Table(
    "videos.csv",
    "export-features",
    "a video with features: row i describes row i of the tensors of features.safetensors",
    (
        _ID,
        _SOURCE,
        _LABEL,
        _LABEL_NAME,
        _GROUP,
        _SPLIT,
        Column("frames", "int", "frames in the store"),
        Column("fps", "float", "average frames per second"),
        Column(
            "seen",
            "text",
            "whether the encoder saw the video in pretraining, True or False; empty where an imported encoder's videos are not known",
        ),
    ),
)
NEIGHBOURS = Table(
    "neighbours.csv",
    "eval-retrieval",
    "a query and one of its nearest gallery videos, nearest first",
    (
        Column("query_id", "text", "the query's id"),
        Column("rank", "int", "1 for the nearest"),
        Column("neighbour_id", "text", "the gallery video's id"),
        Column("similarity", "float", "cosine of the two features"),
        Column("query_label_name", "text", "class of the query; empty without a label"),
        Column("neighbour_label_name", "text", "class of the neighbour; empty without a label"),
        Column("correct", "text", "True if the classes are the same, False if not; empty for a query without a label"),
    ),
)
PREDICTIONS = Table(
    "predictions.csv",
    "eval-classification",
    "a test video, in the order of the features; the columns of a probe that was not asked for are empty",
    (
        _ID,
        _LABEL,
        _LABEL_NAME,
        Column("fold", "int", "the fold it was tested in, from 1; empty with a split"),
        Column("linear_label", "int", "class that the linear probe gives it"),
        Column("linear_label_name", "text", "name of that class"),
        Column("linear_rank", "int", "place of the true class in the linear probe's order, 1 for right; empty if train has no such class"),
        Column("knn_label", "int", "class that its nearest train videos give it"),
        Column("knn_label_name", "text", "name of that class"),
        Column("knn_rank", "int", "place of the true class in their order, 1 for right; empty if none of the 200 nearest is of it"),
    ),
)
PER_CLASS = Table(
    "per_class.csv",
    "eval-classification",
    "a class that test videos have; the column of a probe that was not asked for is empty",
    (
        _LABEL,
        _LABEL_NAME,
        Column("queries", "int", "test videos of the class"),
        Column("linear_top1", "float", "share of them that the linear probe gets right"),
        Column("knn_top1", "float", "share of them that nearest neighbours get right"),
    ),
)
PROBE_SETTINGS = Table(
    "probe_settings.csv",
    "eval-classification",
    "a setting that a probe tried on its validation part, which is a fifth of train in whole groups",
    (
        Column("fold", "int", "the fold, from 1; empty with a split"),
        Column("probe", "text", "linear or knn"),
        Column("setting", "float", "linear: C, the inverse of the regularisation; knn: k, the number of neighbours"),
        Column("validation_videos", "int", "videos it was tried on; 0: there were none, and the default is used"),
        Column("validation_top1", "float", "share of them it gets right; empty without any"),
        Column("chosen", "bool", "whether the probe was then fitted to all of train with it"),
    ),
)
TABLES = [
    VIDEOS,
    FAILURES,
    SOURCES,
    PRETRAIN_VIDEOS,
    METRICS,
    TIMINGS,
    FEATURE_VIDEOS,
    NEIGHBOURS,
    PREDICTIONS,
    PER_CLASS,
    PROBE_SETTINGS,
]


def plain_text(name: str) -> str:
    """A file name as text that every file, terminal and JSON can hold, different for different names."""
    return "".join(_plain_character(character) for character in name)


def from_plain_text(text: str) -> str:
    """The file name that `plain_text` was made of."""
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[0]
    if escape.startswith("\\x") and int(escape[2:], 16) >= 0x80:
        return chr(0xDC00 + int(escape[2:], 16))
    return escape.encode("ascii").decode("unicode_escape")


def _plain_character(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python hands it over
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    # \xNN is kept for bytes that are no UTF-8, from 80 up, and for control characters below.
    return f"\\u{code:04x}" if 0x80 <= code <= 0xFF else character.encode("unicode_escape").decode("ascii")


def csv_bytes(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A table as the bytes of a file. Missing and None values become empty cells, floats their shortest exact spelling."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = list(columns)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return text.getvalue().encode("utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"  # as pandas writes it
    return repr(value) if isinstance(value, float) else str(value)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table as text; none where there is no such file. For what needs no pandas. Raises InputError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): restore it, or run its stage again with --force.") from error


def read_table(path: Path, table: Table) -> pd.DataFrame:
    """Read a table with the types of its columns: text stays text ("01", "NA"), a column of whole numbers with gaps is Int64.

    Raises InputError when the file is no such table.
    """
    import pandas as pd

    # Floats by Python: pandas' own parser is off by a last digit in some versions.
    dtypes = {"text": "str", "int": "Int64", "float": "str", "bool": "bool"}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = next(csv.reader(file), [])
        kinds = {name: table.kind_of(name) for name in names}
        frame = pd.read_csv(
            path,
            dtype={name: dtypes[kind] for name, kind in kinds.items() if kind},
            keep_default_na=False,
            na_values={name: [""] for name, kind in kinds.items() if kind == "int"},
            encoding="utf-8",
        )
        for name in (name for name, kind in kinds.items() if kind == "float"):
            frame[name] = [float(text or "nan") for text in frame[name]]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): make it anew with `rspnet {table.stage} --force`.") from error
    needed = {column.name for column in table.columns if not column.name.endswith("_N")}
    if missing := sorted(needed - set(frame.columns)):
        raise InputError(f"{path} has no column {missing[0]}: make it anew with `rspnet {table.stage} --force`.")
    return frame
