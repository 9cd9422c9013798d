"""Times of frames: strictly increasing, as the source states them where it can be believed. Integers in, integers out."""

from __future__ import annotations

from fractions import Fraction

# FFmpeg writes distances of two frames into an MP4 up to 2**31 - 2 ticks right, and larger ones as 1. No real video gets near that.
MAX_GAP = 2**31 - 1
MIN_TIMESCALE = 10_000
MAX_TIMESCALE = 1_000_000


class Timeline:
    """Times of one video's frames, given one after the other together with the next one's.

    nominal: ticks between frames where the source does not tell.
    """

    def __init__(self, *, nominal: int) -> None:
        self.nominal = min(max(1, nominal), MAX_GAP - 1)
        self.repaired = 0
        self._last: int | None = None
        self._shift = 0

    def next(self, pts: int | None, following: int | None) -> int:
        """The time of the next frame in ticks: `pts`, unless it is missing, does not increase, or lies beyond the one that follows.

        A video that starts below zero is moved to zero as a whole, which counts as no repair.
        """
        if self._last is None:
            if pts is None:
                self.repaired += 1
                pts = 0
            self._shift = max(0, -pts)
            self._last = pts + self._shift
            return self._last
        if pts is not None:
            pts += self._shift
        if following is not None:
            following += self._shift
        if not self._believable(pts, following):
            self.repaired += 1
            pts = self._last + self.nominal
            if following is not None and self._last + 1 < following <= pts:
                pts = (self._last + following) // 2
        assert pts is not None
        self._last = pts
        return pts

    def _believable(self, pts: int | None, following: int | None) -> bool:
        assert self._last is not None
        if pts is None or not self._last < pts < self._last + MAX_GAP:
            return False
        # 0 1 2 900 4 5: the odd one is 900, not all that follow it.
        return following is None or following >= pts or following <= self._last


def store_timescale(time_base: Fraction) -> int:
    """Ticks per second of the MP4 that keeps times of `time_base` exactly (or to a microsecond, where it is finer than that).

    FFmpeg doubles a time scale until it is 10,000; the movie's scale must be the same for a late start to be exact.
    """
    scale = min(time_base.denominator, MAX_TIMESCALE)
    while scale < MIN_TIMESCALE:
        scale *= 2
    return scale


def average_rate(first: int, last: int, num_frames: int, time_base: Fraction) -> float | None:
    """Frames per second of a video by its first and last time; None for a single frame, or where that is no number."""
    if num_frames < 2 or last <= first:
        return None
    return float((num_frames - 1) / ((last - first) * time_base))
