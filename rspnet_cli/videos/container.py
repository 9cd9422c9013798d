"""Open a foreign media file with FFmpeg, and nothing but a media file: what a name on disk stands for is checked before FFmpeg sees it.

FFmpeg also plays text files that name other files or addresses (concat, HLS, ...), devices and pictures. Only the container formats
below are opened, by absolute path, with the `file` protocol alone.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from rspnet_cli.videos.broken import BrokenVideo

# FFmpeg's names of the demuxers: mp4 and mov, avi, mkv and webm, wmv, flv, mpg and vob, ts, ogv, mxf, nut, rm, dv, ivf, y4m.
FORMATS = ("mov", "avi", "matroska", "asf", "flv", "mpeg", "mpegts", "ogg", "mxf", "nut", "rm", "dv", "ivf", "yuv4mpegpipe")
# Decoders hold pictures against FFmpeg's limit with the borders that they add; sizes in between are told apart after decoding.
DECODER_MARGIN = 2**20

_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a named pipe (FIFO), not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
)


def open_container(path: Path, *, max_pixels: int, demuxer: str | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a file and find its video stream, ready to decode in one thread. The caller closes the container.

    demuxer: the one of FORMATS that it is; None: whichever takes it, which costs a third of opening a frame file.
    max_pixels bounds every picture before memory is taken for it, but not to the pixel: see DECODER_MARGIN. Raises BrokenVideo.
    """
    check_file(path)
    bound = {"max_pixels": str(max_pixels + DECODER_MARGIN)}
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)} | bound
    try:
        # By absolute path: a relative name such as `http:x` would be taken for an address.
        absolute = os.path.abspath(path)  # noqa: PTH100 (keeps links as they are)
        container = av.open(absolute, "r", format=demuxer, options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise BrokenVideo(
            path, "is not a video file: what it holds is text, a playlist, a picture or another format that is not opened"
        ) from error
    except Exception as error:  # beside its own errors PyAV lets ValueError, LookupError and others through
        raise BrokenVideo(path, open_failure(error)) from error
    try:
        if not set(container.format.name.split(",")) & set(FORMATS):
            raise BrokenVideo(path, f"is not a video file (its format is {container.format.name})")
        stream = _video_stream(path, container)
        stream.codec_context.options = bound
        # Frame threads can hang for ever when a container is left before its end (PyAV#1962); many videos at once use the cores better.
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
    except BaseException:
        container.close()
        raise
    return container, stream


def check_file(path: Path) -> None:
    """Raise BrokenVideo unless `path` is, or links to, a regular file that may be read and is not empty."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise BrokenVideo(path, "is a link to a file that does not exist" if path.is_symlink() else "does not exist") from error
        if error.errno == errno.ELOOP:
            raise BrokenVideo(path, "is a link in a loop of links") from error
        raise BrokenVideo(path, f"cannot be read ({error_words(error)})") from error
    for is_kind, reason in _KINDS:
        if is_kind(status.st_mode):
            raise BrokenVideo(path, reason)
    if not os.access(path, os.R_OK):
        raise BrokenVideo(path, "may not be read by this user (permission denied)")
    if status.st_size == 0:
        raise BrokenVideo(path, "is empty (0 bytes)")


def open_failure(error: Exception) -> str:
    """In words, why FFmpeg could not open a file."""
    if isinstance(error, av.error.InvalidDataError):
        return "is not a video file, or its header is damaged or cut off"
    if isinstance(error, av.error.EOFError):
        return "ends within its header"
    return f"cannot be opened as a video ({error_words(error)})"


def error_words(error: Exception) -> str:
    """The system's or the library's words for an error, without codes and file names."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(words)[:1].lower() + str(words)[1:]


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not pictures:
        raise BrokenVideo(path, "has no video stream" + (", only a cover picture" if container.streams.video else ""))
    # The type stubs say that there always is one; there is none without a decoder.
    known = [stream for stream in pictures if getattr(stream, "codec_context", None) is not None]
    if not known:
        raise BrokenVideo(path, "is compressed by a video codec that this FFmpeg cannot decode")
    return known[0]


def declared_frames(container: InputContainer, stream: VideoStream) -> int | None:
    """How many pictures the file says it holds, None where its format does not say (mkv, webm, flv, ts, mpg, fragmented mp4).

    Taken from the index where there is a whole one: pictures that an edit list hides count in the header, but will not come.
    """
    names = container.format.name.split(",")
    if stream.frames <= 0 or not {"mov", "avi"} & set(names):
        return None
    entries = list(stream.index_entries)
    if "mov" in names and entries:
        return sum(not entry.is_discard for entry in entries)
    # The index of an avi lies at its end. It leaves out the "same picture again" entries, which the header counts.
    if entries and entries[-1].timestamp >= stream.frames - 1:
        return len(entries)
    return stream.frames


def missing_bytes(path: Path) -> int:
    """How many bytes a file lacks at its end, by the size its header states (mkv, webm, wmv); 0 where it states none.

    FFmpeg reads such a file to the cut and reports nothing.
    """
    with path.open("rb") as file:
        size = _matroska_size(file) or _asf_size(file)
        return max(0, (size or 0) - os.fstat(file.fileno()).st_size)


def _matroska_size(file: BinaryIO) -> int | None:
    """Size of the file by its one segment, None if it is no Matroska file or was written without going back to fill in the size."""
    file.seek(0)
    if file.read(4) != b"\x1a\x45\xdf\xa3":
        return None
    header_bytes = _vint(file)
    if header_bytes is None:
        return None
    file.seek(header_bytes, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    segment_bytes = _vint(file)
    return None if segment_bytes is None else file.tell() + segment_bytes


def _asf_size(file: BinaryIO) -> int | None:
    """Size of the file by its File Properties Object: GUID, own size, file id, then the file's size, all little-endian."""
    file.seek(0)
    header = file.read(65_536)
    start = header.find(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65")
    if not header.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") or start < 0:
        return None
    return int.from_bytes(header[start + 40 : start + 48], "little")


def _vint(file: BinaryIO) -> int | None:
    """A variable-length integer of EBML: the leading zero bits of the first byte tell its length; all ones mean "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1)) & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value
