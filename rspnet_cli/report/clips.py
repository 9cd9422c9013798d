"""Short clips from the frame store that play in every browser without a codec: a JPEG strip of frames that CSS steps through.

16 frames over 1.6 seconds from the middle of a video take 5 to 12 kB. A video element a clip would be smaller, but browsers allow some 40
to 75 of them on a page, not every one has H.264, and a strip can be paused and needs no script.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field

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
    """The clips of a report: wanted by id, made at the end for as many as fit. frames: None where there is no extraction at hand."""

    frames: FramesTable | None
    styles: dict[str, str] = field(default_factory=dict)
    """Video id -> the CSS rule of its clip, of the clips that have been made."""
    faults: list[str] = field(default_factory=list)
    """Why a clip could not be made."""

    def make(self, wanted: Iterable[str], room_bytes: int, report: Reporter) -> None:
        """Make clips in order, until the next one would not fit into `room_bytes`."""
        if self.frames is None:
            return
        rows = {name: row for row, name in enumerate(self.frames.ids)}
        ids = [name for name in dict.fromkeys(wanted) if name in rows]
        for video_id in report.track(ids, total=len(ids), unit="clips", name="report"):
            try:
                self.frames.check_file(rows[video_id])
                with open_store(self.frames.path(rows[video_id])) as video:
                    rule = css_rule(video_id, *clip_strip(video))
            except InputError as error:
                self.faults.append(str(error))
                continue
            # A line of the style, and the name in the list of clips with its quotes and comma.
            room_bytes -= len(rule) + 1 + len(clip_class(video_id)) + 3
            if room_bytes < 0:
                return
            self.styles[video_id] = rule


def clip_box(video_id: str, label: str, *, class_: str = "") -> Html:
    """A place for a video's clip; where there is none it shows nothing but its frame. label: for those who do not see it."""
    return element("span", class_=f"clip {clip_class(video_id)} {class_}".rstrip(), role="img", aria_label=label)


def clip_class(video_id: str) -> str:
    """The CSS class of a video's clip, from ids of letters, digits, `.`, `_` and `-`, and from any other as well."""
    return "v-" + "".join(character if character.isascii() and character.isalnum() else f"_{ord(character):x}_" for character in video_id)


def css_rule(video_id: str, strip: bytes, width: int, height: int) -> str:
    """The rule that shows a strip of NUM_FRAMES frames of width x height."""
    data = base64.b64encode(strip).decode("ascii")
    return f".{clip_class(video_id)}{{background-image:url(data:image/jpeg;base64,{data});aspect-ratio:{width}/{height}}}"


def clip_strip(video: StoredVideo) -> tuple[bytes, int, int]:
    """(JPEG of NUM_FRAMES frames side by side, width and height of one frame). Raises InputError where the store is damaged."""
    height = SIDE
    width = min(max(_BLOCK * round(SIDE * video.width / video.height / _BLOCK), 3 * _BLOCK), 12 * _BLOCK)
    strip = np.empty((height, NUM_FRAMES, width, 3), np.uint8)
    frames = video.read(clip_indices(video))
    for place, pixels in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(width, height, "rgb24", interpolation=Interpolation.BICUBIC)
        strip[:, place] = picture.to_ndarray()
    return jpeg_bytes(strip.reshape(height, NUM_FRAMES * width, 3), quantiser=_QUANTISER), width, height


def clip_indices(video: StoredVideo) -> np.ndarray:
    """(NUM_FRAMES,) int64: the frames shown from SECONDS in the middle of a video; a shorter one is shown from end to end."""
    times = video.times_s - video.times_s[0]
    start = max(0.0, (times[-1] - SECONDS) / 2)
    wanted = start + np.arange(NUM_FRAMES) * min(SECONDS, times[-1]) / NUM_FRAMES
    return np.asarray(np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, video.num_frames - 1), np.int64)


def captioned(video_id: str, *lines: Child, class_: str = "") -> Html:
    """A clip with lines below it."""
    return element("div", clip_box(video_id, video_id), *(element("span", line) for line in lines), class_=f"shot {class_}".rstrip())
