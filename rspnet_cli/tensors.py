"""Safetensors files with one spelling and no trust: equal content has equal bytes, a hostile header is one sentence.

They are written here, byte for byte as the library lays them out but for its metadata, whose order changes from process to process
(safetensors 0.8), and read by the library. So a tensor can also be written in parts, larger than memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.files import atomic_path

# The format's names of the kinds of values, in the order in which the library lays tensors out.
_KINDS = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_RANK = {name: rank for rank, name in enumerate(_KINDS)}


@dataclass(frozen=True)
class InParts:
    """A tensor that need not be in memory as a whole: `parts`, one after the other, are its rows."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Iterable[np.ndarray]


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray | InParts], metadata: Mapping[str, str]) -> None:
    """Write arrays and their metadata atomically, with equal bytes for equal content. Raises DiskFullError."""
    whole = {
        name: value if isinstance(value, InParts) else InParts(value.shape, value.dtype, [value])
        for name, value in sorted(tensors.items(), key=lambda item: (_RANK[item[1].dtype.name], item[0]))
    }
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, value in whole.items():
        begin, end = end, end + math.prod(value.shape) * value.dtype.itemsize
        header[name] = {"dtype": _KINDS[value.dtype.name], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, value in whole.items():
            for part in value.parts:
                little = np.asarray(part, value.dtype.newbyteorder("<"), order="C")
                file.write(little.reshape(-1).view(np.uint8).data)
            assert file.tell() == 8 + len(text) + header[name]["data_offsets"][1], f"the parts of {name} are not of its shape"


@contextmanager
def open_tensors(path: Path, *, advice: str) -> Iterator[Any]:
    """The safetensors library's view of a file (keys, get_slice, get_tensor, metadata), arrays as numpy.

    The file is memory-mapped: shapes and dtypes can be checked before anything is loaded. Raises InputError, ending in
    `advice` (what to do), when the file is missing or its header is not a valid one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as view:
            yield view
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not a readable safetensors file ({reason}): {advice}.") from error


def check_shape(path: Path, view: Any, name: str, *, dtype: str, shape: tuple[int | None, ...], advice: str) -> tuple[int, ...]:
    """The shape of one tensor of an open file, before it is loaded.

    dtype: as safetensors spells it ("F32", "I64"); shape: None stands for any positive size. Raises InputError when the
    tensor is missing or of another kind; also a size of 0, with which the others may be as large as a header can say.
    """
    if name not in view.keys():  # noqa: SIM118 (not a dict: `in` is not defined)
        raise InputError(f"{path} has no tensor {name!r}: {advice}.")
    part = view.get_slice(name)
    found, kind = tuple(part.get_shape()), str(part.get_dtype())
    fits = len(found) == len(shape) and all(size > 0 and wanted in (None, size) for size, wanted in zip(found, shape, strict=True))
    if kind != dtype or not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{path}: tensor {name!r} is {kind} {list(found)} instead of {dtype} [{expected}]: {advice}.")
    return found
