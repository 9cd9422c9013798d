"""Short clips from the frame store that play in every browser without a codec: a JPEG strip of frames that CSS steps through.

16 frames over 1.6 seconds from the middle of a video take 5 to 12 kB. A video element a clip would be smaller, but browsers allow some 40
to 75 of them on a page, not every one has H.264, and a strip can be paused and needs no script.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation

from rspnet_cli.errors import InputError
from rspnet_cli.pictures.stills import jpeg_bytes
from rspnet_cli.progress import Reporter
from rspnet_cli.report.html import Child, Html, element
from rspnet_cli.videos.frames import FramesTable
from rspnet_cli.videos.store import StoredVideo, open_store

NUM_FRAMES = 16
SECONDS = 1.6
SIDE = 72
_BLOCK = 16  # frames of a multiple of JPEG's blocks do not bleed into each other
_QUANTISER = 7


@dataclass
class Clips:
    """The clips of a page: wanted by id or moment, made at the end while they fit. frames: None where there is no extraction at hand."""

    frames: FramesTable | None
    styles: dict[str, str] = field(default_factory=dict)
    """Name (video id, or name of the moment) -> the CSS rule of its clip, of the clips that have been made."""
    faults: list[str] = field(default_factory=list)
    """Why a clip could not be made."""

    def make(self, wanted: Iterable[str | Moment], room_bytes: int, report: Reporter, *, name: str = "report") -> None:
        """Make clips in order, until the next one would not fit into `room_bytes`. A video's id alone stands for its middle."""
        if self.frames is None:
            return
        moments = dict.fromkeys(Moment(item) if isinstance(item, str) else item for item in wanted)
        rows = self.frames.rows_of({moment.video_id for moment in moments})
        known = [moment for moment in moments if moment.video_id in rows]
        for moment in report.track(known, total=len(known), unit="clips", name=name):
            row = rows[moment.video_id]
            try:
                self.frames.check_file(row)
                with open_store(self.frames.path(row)) as video:
                    rule = css_rule(moment.name, *clip_strip(video, moment.middle_s))
            except InputError as error:
                self.faults.append(str(error))
                continue
            room_bytes -= rule_bytes(moment.name, rule)
            if room_bytes < 0:
                return
            self.styles[moment.name] = rule

    def rules(self) -> list[tuple[str, str]]:
        """(CSS class, rule) of every clip that has been made."""
        return [(clip_class(name), rule) for name, rule in self.styles.items()]


class Moment(NamedTuple):
    """A place in a video to show a clip of. middle_s: in seconds of the source; None: the middle of the video."""

    video_id: str
    middle_s: float | None = None

    @property
    def name(self) -> str:
        """What its clip is called."""
        return self.video_id if self.middle_s is None else f"{self.video_id}@{self.middle_s:.3f}"


def rule_bytes(name: str, rule: str) -> int:
    """What a clip adds to a page: a line of the style, and its class in the list of clips with quotes and comma."""
    return len(rule) + 1 + len(clip_class(name)) + 3


def clip_box(name: str, label: str, *, class_: str = "") -> Html:
    """A place for a clip; where there is none it shows nothing but its frame. label: for those who do not see it."""
    return element("span", class_=f"clip {clip_class(name)} {class_}".rstrip(), role="img", aria_label=label)


def clip_class(name: str) -> str:
    """The CSS class of a clip, from ids of letters, digits, `.`, `_` and `-`, and from any other name as well."""
    return "v-" + "".join(character if character.isascii() and character.isalnum() else f"_{ord(character):x}_" for character in name)


def css_rule(name: str, strip: bytes, width: int, height: int) -> str:
    """The rule that shows a strip of NUM_FRAMES frames of width x height."""
    data = base64.b64encode(strip).decode("ascii")
    return f".{clip_class(name)}{{background-image:url(data:image/jpeg;base64,{data});aspect-ratio:{width}/{height}}}"


def clip_strip(video: StoredVideo, middle_s: float | None = None) -> tuple[bytes, int, int]:
    """(JPEG of NUM_FRAMES frames side by side, width and height of one frame). Raises InputError where the store is damaged."""
    height = SIDE
    width = min(max(_BLOCK * round(SIDE * video.width / video.height / _BLOCK), 3 * _BLOCK), 12 * _BLOCK)
    strip = np.empty((height, NUM_FRAMES, width, 3), np.uint8)
    frames = video.read(clip_indices(video, middle_s))
    for place, pixels in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(width, height, "rgb24", interpolation=Interpolation.BICUBIC)
        strip[:, place] = picture.to_ndarray()
    return jpeg_bytes(strip.reshape(height, NUM_FRAMES * width, 3), quantiser=_QUANTISER), width, height


def clip_indices(video: StoredVideo, middle_s: float | None = None) -> np.ndarray:
    """(NUM_FRAMES,) int64: the frames shown from SECONDS around a time (None: the middle); a shorter video is shown from end to end."""
    times = video.times_s - video.times_s[0]
    middle = times[-1] / 2 if middle_s is None else middle_s - video.times_s[0]
    start = max(0.0, min(middle - SECONDS / 2, times[-1] - SECONDS))
    wanted = start + np.arange(NUM_FRAMES) * min(SECONDS, times[-1]) / NUM_FRAMES
    return np.asarray(np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, video.num_frames - 1), np.int64)


def captioned(clip: str, *lines: Child, label: str | None = None, class_: str = "") -> Html:
    """A clip, by its name, with lines below it. label: for those who do not see it (None: the name)."""
    box = clip_box(clip, clip if label is None else label)
    return element("div", box, *(element("span", line) for line in lines), class_=f"shot {class_}".rstrip())
