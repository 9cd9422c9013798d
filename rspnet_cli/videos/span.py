"""A part of a video, as it is typed: `film.mp4@00:12-00:20`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fractions import Fraction

# 12, 12.5, 1:05, 01:02:03.25: seconds, and before a colon minutes and hours.
_TIME = r"(?:(?:\d+:)?[0-5]?\d:[0-5]?\d|\d+:[0-5]?\d|\d+)(?:\.\d+)?"
_TYPED = re.compile(rf"(?P<file>.+)@(?P<start>{_TIME})?-(?P<end>{_TIME})?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """The frames of a video from `start` on and before `end` (None: up to its end), in seconds: exact, as frames' times are."""

    start: Fraction
    end: Fraction | None

    def __str__(self) -> str:
        """As it is typed."""
        return span_text(self.start, self.end)


def split_span(text: str) -> tuple[str, Span | None]:
    """(file, part of it) of what was typed. A file whose whole name is `text` is meant as it is, whatever its name looks like."""
    match = _TYPED.fullmatch(text)
    if os.path.lexists(text) or match is None or not (match["start"] or match["end"]):
        return text, None
    return match["file"], Span(_seconds(match["start"] or "0"), _seconds(match["end"]) if match["end"] else None)


def _seconds(text: str) -> Fraction:
    total = Fraction(0)
    for part in text.split(":"):
        total = 60 * total + Fraction(part)
    return total


def span_text(start: float | Fraction, end: float | Fraction | None) -> str:
    """A part of a video as it can be typed behind a file and an @."""
    return f"{time_text(start)}-{'' if end is None else time_text(end)}"


def time_text(seconds: float | Fraction) -> str:
    """A time as it can be typed, to a hundredth: 00:12.50, 1:02:03.25."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:' if hours else ''}{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"
