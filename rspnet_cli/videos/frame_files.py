"""A folder of numbered pictures that another toolkit made of a video (img_00001.jpg, ...): which files are its frames, and their hash.

The folder is foreign: its files are opened without following links and without waiting for pipes, and their size is bounded.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import defaultdict
from pathlib import Path

MAX_FRAME_BYTES = 2**28
USUAL_PREFIX = "img_"
_FRAME = re.compile(r"(?P<prefix>.*?)0*(?P<number>\d{1,9})\.(?P<kind>jpe?g|png)", re.DOTALL | re.IGNORECASE)
# Optical flow that toolkits keep beside the pictures.
_FLOW = re.compile(r"flow.*|[xy]_", re.DOTALL | re.IGNORECASE)


class NoFrames(Exception):
    """Why a folder is no sequence of frames, in words that follow its name."""


def frame_files(folder: Path) -> list[str]:
    """The names of the frames in the order of their numbers, which run on without a gap. Raises NoFrames."""
    sequences: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = _FRAME.fullmatch(entry.name)
                if match is None or _FLOW.fullmatch(match["prefix"]):
                    continue
                sequence = sequences[match["prefix"], "png" if match["kind"].lower() == "png" else "jpg"]
                if sequence.setdefault(int(match["number"]), entry.name) != entry.name:
                    raise NoFrames(f"has two frames of the number {int(match['number'])}")
    except OSError as error:
        raise NoFrames(f"cannot be read ({error.strerror})") from error
    if not sequences:
        raise NoFrames("holds no numbered pictures such as img_00001.jpg")
    usual = [key for key in sequences if key[0] == USUAL_PREFIX]
    if len(sequences) > 1 and len(usual) != 1:
        kinds = ", ".join(f"{prefix}*.{kind}" for prefix, kind in sorted(sequences)[:3])
        raise NoFrames(f"holds pictures of {len(sequences)} kinds, and none or several of them are {USUAL_PREFIX}* ({kinds})")
    frames = sequences[usual[0] if len(sequences) > 1 else next(iter(sequences))]
    first = min(frames)
    if gap := next((number for number in range(first, first + len(frames)) if number not in frames), None):
        raise NoFrames(f"lacks the frame of number {gap} between others")
    return [frames[number] for number in range(first, first + len(frames))]


def read_frame(folder: Path, name: str) -> bytes:
    """The content of a frame file. Raises NoFrames for what is no regular file of a usual size."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= MAX_FRAME_BYTES:
                raise NoFrames(f"has a frame {name} that is no picture file of at most {MAX_FRAME_BYTES:,} bytes")
            with open(handle, "rb", closefd=False) as file:
                return file.read(MAX_FRAME_BYTES)
        finally:
            os.close(handle)
    except OSError as error:
        raise NoFrames(f"has a frame {name} that cannot be read or is a link ({error.strerror})") from error


def sha256_of_frames(folder: Path) -> str:
    """The hash of a folder of frames: over lines `sha256 name` in their order. Raises NoFrames."""
    whole = hashlib.sha256()
    for name in frame_files(folder):
        whole.update(f"{hashlib.sha256(read_frame(folder, name)).hexdigest()} ".encode() + os.fsencode(name) + b"\n")
    return whole.hexdigest()
