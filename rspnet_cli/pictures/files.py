"""What a command shows, as files: a contact sheet NAME.png, a film NAME.mp4, and NAME.json, which says what both show.

The record is written first and marks the other two as ours: files of these names without one are somebody else's and stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

import rspnet_cli
from rspnet_cli.errors import InputError
from rspnet_cli.files import write_atomic
from rspnet_cli.pictures.layout import Picture
from rspnet_cli.pictures.stills import png_bytes
from rspnet_cli.videos.h264_store import write_h264
from rspnet_cli.videos.picture import Orientation, to_picture
from rspnet_cli.videos.timestamps import store_timescale

_ENDINGS = (".json", ".png", ".mp4")
_MAX_RECORD_BYTES = 2**24
# Letters stay sharp, and a film of a few seconds is small anyway.
_CRF = 16


def refuse_foreign(folder: Path, names: Iterable[str], command: str) -> None:
    """Raise InputError where a file that `show` would write is there and no earlier run of the command wrote it."""
    for name in names:
        there = [folder / f"{name}{ending}" for ending in _ENDINGS if os.path.lexists(folder / f"{name}{ending}")]
        if there and not _is_ours(folder / f"{name}.json", command):
            raise InputError(
                f"{there[0]} is there and was not written by rspnet {command}: move it away, add --force to replace it, or use --out DIR."
            )


def show(
    folder: Path, name: str, command: str, *, sheet: Picture, film: Iterable[Picture], rate: Fraction, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the three files, each whole or not at all. Returns the record with its files' paths, as JSON values.

    film: pictures of one size with even sides, `rate` of them a second. Raises DiskFullError.
    """
    png, mp4 = folder / f"{name}.png", folder / f"{name}.mp4"
    content = {"made_by": f"rspnet {command}", "tool_version": rspnet_cli.__version__, **record}
    try:
        write_atomic(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_atomic(png, png_bytes(sheet))
        _write_film(mp4, film, rate)
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): choose another place with --out.") from error
    return {"sheet": str(png), "film": str(mp4), **record}


def _write_film(path: Path, film: Iterable[Picture], rate: Fraction) -> None:
    pictures = iter(film)
    first = next(pictures)
    height, width = first.shape[:2]
    time_base = Fraction(1, store_timescale(1 / rate))
    ticks = int(1 / rate / time_base)

    def encoded() -> Iterable[tuple[int, av.VideoFrame]]:
        for number, picture in enumerate((first, *pictures)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            yield number * ticks, to_picture(frame, (width, height), Orientation(), "yuv420p")

    write_h264(encoded(), path, size=(width, height), time_base=time_base, rate=rate, crf=_CRF)


def _is_ours(record: Path, command: str) -> bool:
    try:
        with record.open("rb") as file:
            content = json.loads(file.read(_MAX_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("made_by") == f"rspnet {command}"
