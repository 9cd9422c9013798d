"""Safetensors files with one spelling and no trust: equal content has equal bytes, a hostile header is one sentence."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rspnet_cli.errors import InputError
from rspnet_cli.files import atomic_path


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and their metadata atomically, with equal bytes for equal content. Raises DiskFullError."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        # None, not {}: without tensors the library writes that as a broken header.
        save_file({name: np.asarray(value, order="C") for name, value in tensors.items()}, temporary, dict(metadata) or None)
        temporary.chmod(mode)  # the library makes files that only their owner can read (safetensors 0.8)
        sort_metadata(temporary)


def sort_metadata(path: Path) -> None:
    """Sort the metadata keys in the header of a safetensors file just written, in place.

    The library keeps metadata in a hash map with a random order: with two keys or more, equal content gets other bytes
    in every process (safetensors 0.8).
    """
    with path.open("r+b") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        header = json.loads(handle.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the sorted header must fit into the place of the unsorted one"
        handle.seek(8)
        handle.write(text.ljust(length))


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
