"""Names of the classes of a network from elsewhere, whose file has only their number."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of_json
from rspnet_cli.manifest import read_manifest
from rspnet_cli.tables import CLASSES, VIDEOS, plain_text, read_table

_NUMBERED = re.compile(r"(\d{1,9})\s+(\S.*)")
_MAX_LIST_BYTES = 2**20


class ClassNames(NamedTuple):
    """The classes of a last layer, row by row."""

    labels: list[int]
    names: list[str]
    sha256: str | None
    """As `classes_sha256` of a manifest; None where the names are not known."""

    @classmethod
    def numbers(cls, num_classes: int) -> ClassNames:
        """Classes that are called by their numbers."""
        return cls(list(range(num_classes)), [str(label) for label in range(num_classes)], None)


def read_class_names(path: Path, num_classes: int) -> ClassNames:
    """The classes of an extraction or a fine-tuning, or those of a list: a name a line in order, or `<number> <name>` as in classInd.txt.

    Raises InputError for what is neither, and for another number of classes.
    """
    found = _of_manifest(path) if os.path.isdir(path) or path.suffix == ".json" else _of_list(path)  # noqa: PTH112
    if len(found.labels) != num_classes:
        raise InputError(
            f"{path} has {len(found.labels):,} classes, and the network {num_classes:,}: name those it was trained on with --classes, "
            "or leave --classes out."
        )
    return found


def _of_manifest(path: Path) -> ClassNames:
    manifest = read_manifest(path, stage=("extract", "finetune"))
    table = CLASSES if manifest.stage == "finetune" else VIDEOS
    rows = read_table(manifest.artifact_path(table.file), table, ("label", "label_name"), categories=("label_name",)).dropna(subset="label")
    # Rows of the last layer stand for the labels in ascending order, as in a fine-tuning here.
    known = rows.drop_duplicates("label").sort_values("label")
    return ClassNames(known["label"].tolist(), known["label_name"].tolist(), manifest.classes_sha256)


def _of_list(path: Path) -> ClassNames:
    advice = "name a text file with a class a line, or an extraction, with --classes"
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise InputError(f"{path} is too large for a list of classes: {advice}.")
        lines = [plain_text(line.strip()) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"{path} cannot be read ({reason}): {advice}.") from error
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    keys, names = list(range(len(lines))), lines
    if lines and len(numbered) == len(lines):
        keys = [int(match[1]) for match in numbered]
        names = [match[2] for _, match in sorted(zip(keys, numbered, strict=True), key=lambda item: item[0])]
    for values in (keys, names):
        if repeated := next((value for place, value in enumerate(values) if value in values[:place]), None):
            raise InputError(f"{path} has the class {repeated} twice: correct the list.")
    if keys and max(keys) - min(keys) >= len(keys):
        raise InputError(f"{path} numbers {len(keys):,} classes from {min(keys):,} to {max(keys):,}: add those that are missing.")
    return ClassNames(list(range(len(names))), names, sha256_of_json(names))
