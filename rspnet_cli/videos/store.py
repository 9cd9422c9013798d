"""The frame store: one file (or folder) per video, written once from a foreign video, then read by frame index, exactly.

`h264` (h264_store.py) is one MP4, `jpeg` (jpeg_store.py) one folder of pictures, `raw` (raw_store.py) one safetensors file. Frames
are at most `short_side` pixels on the shorter side, upright, in square pixels, BT.601, and keep the times of the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from av.video.frame import VideoFrame

from rspnet_cli.codecs import DEFAULT_CRF, DEFAULT_FRAMES_FPS, ENDINGS, Codec
from rspnet_cli.errors import InputError
from rspnet_cli.files import sha256_of, sha256_of_folder
from rspnet_cli.timing import timed
from rspnet_cli.videos.decode import MAX_PIXELS, BrokenVideo, Video, open_video
from rspnet_cli.videos.frame_folder import FrameFolder
from rspnet_cli.videos.h264_store import H264Video, write_h264
from rspnet_cli.videos.jpeg_store import JpegVideo, write_jpeg
from rspnet_cli.videos.picture import PictureFormat, UnsupportedColour, stored_size, to_picture
from rspnet_cli.videos.raw_store import RawVideo, write_raw
from rspnet_cli.videos.span import Span, time_text
from rspnet_cli.videos.stored import StoredVideo
from rspnet_cli.videos.tasks import StoredInfo
from rspnet_cli.videos.timestamps import average_rate

__all__ = ["BrokenVideo", "Codec", "StoredInfo", "StoredVideo", "has_planes", "open_store", "write_video"]

_KINDS: dict[Codec, PictureFormat] = {"h264": "yuv420p", "jpeg": "yuvj420p", "raw": "rgb24"}
# The longest side that every H.264 decoder takes.
MAX_SIDE = 16_384


def write_video(
    source: Path,
    target: Path,
    *,
    short_side: int,
    codec: Codec = "h264",
    crf: int | None = None,
    keep_partial: bool = False,
    max_pixels: int = MAX_PIXELS,
    num_frames: int | None = None,
    frames_fps: float | None = None,
    span: Span | None = None,
) -> StoredInfo:
    """Decode a foreign video and write its frame store at `target`, named with the codec's ending (`ENDINGS`), whole or not at all.

    crf: quality of h264 (None: 20). num_frames: the source is a folder of so many frames, frames_fps (None: 25) a second. span: store that
    part alone, with its times in the whole; what lies behind it is not looked at. The same source gives the same bytes, in any process.
    Raises BrokenVideo for the source's faults, DiskFullError where there is no room for the target, InputError for settings that
    contradict each other.
    """
    if codec != "h264" and crf is not None:
        raise InputError(f"crf is the quality of the h264 store and means nothing for {codec}: leave it out.")
    with _open_source(source, num_frames, frames_fps, max_pixels=max_pixels, keep_partial=keep_partial) as video:
        width, height = size = stored_size(video.info.width, video.info.height, short_side)
        if max(size) > MAX_SIDE:
            raise BrokenVideo(source, f"has pictures too elongated to store ({width:,} x {height:,} after resizing)")
        kind = _KINDS[codec]
        pictures = _pictures(video, size, kind) if span is None else _pictures_of_part(video, size, kind, span)
        if codec == "h264":
            times = write_h264(
                pictures, target, size=size, time_base=video.time_base, rate=video.rate, crf=DEFAULT_CRF if crf is None else crf
            )
        else:
            write = write_jpeg if codec == "jpeg" else write_raw
            times = write(pictures, target, size=size, time_base=video.time_base, rate=video.rate)
        with timed("hash"):
            num_bytes, digest = sha256_of_folder(target) if target.is_dir() else (target.stat().st_size, sha256_of(target))
        return StoredInfo(
            frames=len(times),
            fps=average_rate(times[0], times[-1], len(times), video.time_base) or float(video.rate),
            width=width,
            height=height,
            bytes=num_bytes,
            sha256=digest,
            repaired_timestamps=video.repaired_timestamps,
            corrupt_frames=video.corrupt_frames,
            partial=video.partial,
        )


def open_store(path: Path) -> StoredVideo:
    """Open what `write_video` wrote, for random access. Raises InputError where it is missing, damaged, or something else."""
    if path.is_dir():
        return JpegVideo(path)
    if not path.exists():
        raise InputError(f"{path} is missing: copy it back, or extract the videos again with `rspnet extract --force`.")
    return RawVideo(path) if path.suffix == ENDINGS["raw"] else H264Video(path)


def has_planes(path: Path) -> bool:
    """Whether a frame file holds planes of YUV 4:2:0, to be read without conversion (the codec h264)."""
    return path.suffix == ENDINGS["h264"] and not path.is_dir()


def _open_source(
    source: Path, num_frames: int | None, frames_fps: float | None, *, max_pixels: int, keep_partial: bool
) -> Video | FrameFolder:
    if num_frames is None:
        return open_video(source, max_pixels=max_pixels, keep_partial=keep_partial)
    return FrameFolder(
        source, num_frames=num_frames, rate=frames_fps or DEFAULT_FRAMES_FPS, max_pixels=max_pixels, keep_partial=keep_partial
    )


def _pictures(video: Video | FrameFolder, size: tuple[int, int], kind: PictureFormat) -> Iterator[tuple[int, VideoFrame]]:
    """(ticks, upright picture of the stored size) of every frame. There is at least one, or BrokenVideo."""
    num_pictures = 0
    for picture in video.converted(lambda frame: _picture(video, frame, size, kind)):
        yield picture
        num_pictures += 1
    if not num_pictures:
        raise BrokenVideo(video.path, "has no undamaged picture", video.decoded, video.declared)


def _pictures_of_part(
    video: Video | FrameFolder, size: tuple[int, int], kind: PictureFormat, span: Span
) -> Iterator[tuple[int, VideoFrame]]:
    """The same of the frames of a part."""
    if isinstance(video, Video):
        video.skip_to(span.start)
    num_pictures, time, end = 0, Fraction(0), ""
    for ticks, frame in video.decoded_frames():
        time = ticks * video.time_base
        if span.end is not None and time >= span.end:
            break
        if time >= span.start:
            yield ticks, _picture(video, frame, size, kind)
            num_pictures += 1
    else:
        end = f": its last one is at {time_text(time)}"
    if not num_pictures:
        raise BrokenVideo(video.path, f"has no picture in {span}{end}", video.decoded, video.declared)


def _picture(video: Video | FrameFolder, frame: VideoFrame, size: tuple[int, int], kind: PictureFormat) -> VideoFrame:
    try:
        with timed("scale"):
            return to_picture(frame, size, video.orientation, kind)
    except UnsupportedColour as error:
        raise video.unsupported(error) from error
