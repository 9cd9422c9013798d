"""What a viewer sees is what is stored: upright, square pixels, right size, right colours."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.videos.decode import BrokenVideo, open_video
from rspnet_cli.videos.picture import Orientation, display_size, stored_size
from rspnet_cli.videos.store import open_store, write_video
from tests.encode import CODECS, Codec, encode, make_video, read_numbers

Planes = tuple[npt.NDArray[np.float64], ...]

# Kr, Kb of each matrix (ITU-R BT.601, BT.709, BT.2020) and FFmpeg's number for its tag.
MATRICES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1), "bt2020": (0.2627, 0.0593, 9)}
LOSSLESS = Codec("ffv1", ".mkv")
PATCH = 16
# Strong colours, in which a wrong matrix is far off; not so strong that they leave the YUV cube of another matrix.
PATCHES = np.array(
    [[[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]], [[40, 200, 200], [200, 40, 200], [30, 30, 30], [225, 225, 225]]],
    np.float64,
)


def yuv(rgb: npt.NDArray[np.float64], matrix: str, full: bool, bits: int) -> Planes:
    """The definition of the matrix, in float: (H, W, 3) RGB 0-255 -> Y, Cb, Cr (H, W) in code values of so many bits."""
    kr, kb, _ = MATRICES[matrix]
    red, green, blue = (rgb[..., i] / 255 for i in range(3))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    unit = 2.0 ** (bits - 8)
    if full:
        top = 2.0**bits - 1
        return luma * top, cb * top + 128 * unit, cr * top + 128 * unit
    return (luma * 219 + 16) * unit, (cb * 224 + 128) * unit, (cr * 224 + 128) * unit


def patch_frame(matrix: str, *, full: bool = False, bits: int = 8, height: int = 32) -> av.VideoFrame:
    image = np.kron(PATCHES, np.ones((height // 2, PATCH, 1)))
    frame = av.VideoFrame(image.shape[1], height, "yuv420p" if bits == 8 else "yuv420p10le")
    planes = yuv(image, matrix, full, bits)
    for plane, values in zip(frame.planes, (planes[0], planes[1][::2, ::2], planes[2][::2, ::2]), strict=True):
        dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
        lines = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
        lines[:, : values.shape[1]] = np.round(values)
        plane.update(lines.tobytes())
    return frame


def patches_of(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Mean colour in the middle of each patch."""
    height, width = frame.shape[0] // 2, frame.shape[1] // 4
    blocks = frame.astype(np.float64).reshape(2, height, 4, width, 3)
    return blocks[:, height // 4 : -(height // 4), :, width // 4 : -(width // 4)].mean((1, 3))


def colours_read(path: Path, tmp_path: Path, way: str) -> npt.NDArray[np.float64]:
    if way == "open_video":
        with open_video(path) as video:
            return patches_of(next(video.frames())[1])
    target = tmp_path / ("store.mp4" if way == "h264" else "store")
    write_video(path, target, short_side=1000, codec="jpeg" if way == "jpeg" else "h264")
    with open_store(target) as stored:
        return patches_of(stored.read([0])[0])


# Quantised twice to 8 bits of limited range (1.2 and 1.0 levels of blue at most), coded at CRF 20, converted to RGB by swscale's
# fast path, which is 3 levels too dark at most. A wrong matrix is 15 levels or more off in these colours, a wrong range 12.
TOLERANCE = 7.0


@pytest.mark.parametrize("way", ["open_video", "h264", "jpeg"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", list(MATRICES))
def test_matrix_range_and_depth_of_the_source_are_honoured(tmp_path: Path, matrix: str, full: bool, bits: int, way: str) -> None:
    codec = Codec("ffv1", ".mkv", "yuv420p" if bits == 8 else "yuv420p10le")
    color = {"colorspace": MATRICES[matrix][2], "color_range": 2 if full else 1}
    path = encode(tmp_path / "a.mkv", [patch_frame(matrix, full=full, bits=bits)] * 2, codec, color=color)
    assert np.abs(colours_read(path, tmp_path, way) - PATCHES).max() < TOLERANCE


def test_a_wrong_matrix_or_range_would_be_noticed(tmp_path: Path) -> None:
    for number, (tag, colour_range) in enumerate([(1, 1), (9, 1), (6, 2)]):
        color = {"colorspace": tag, "color_range": colour_range}
        path = encode(tmp_path / f"{number}.mkv", [patch_frame("bt601")] * 2, LOSSLESS, color=color)
        assert np.abs(colours_read(path, tmp_path, "h264") - PATCHES).max() > TOLERANCE + 4


@pytest.mark.parametrize(("height", "matrix"), [(480, "bt601"), (718, "bt601"), (720, "bt709")])
def test_an_untagged_video_is_bt601_below_720_lines(tmp_path: Path, height: int, matrix: str) -> None:
    path = encode(tmp_path / "a.mkv", [patch_frame(matrix, height=height)] * 2, LOSSLESS)
    assert np.abs(colours_read(path, tmp_path, "open_video") - PATCHES).max() < TOLERANCE


def test_mpeg_jpeg_pictures_are_full_range(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [np.kron(PATCHES, np.ones((PATCH, PATCH, 1))).astype(np.uint8)] * 2, "mjpeg")
    assert np.abs(colours_read(path, tmp_path, "h264") - PATCHES).max() < TOLERANCE + 4  # one more lossy codec


def test_a_matrix_that_cannot_be_converted_is_said_so(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", [patch_frame("bt601")] * 2, LOSSLESS, color={"colorspace": 8, "color_range": 1})
    with pytest.raises(BrokenVideo, match="YCgCo"):
        write_video(path, tmp_path / "a.mp4", short_side=32)


def test_the_store_is_tagged(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", 3, "mpeg4")
    write_video(path, tmp_path / "store.mp4", short_side=32)
    with av.open(str(tmp_path / "store.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.format.name) == (6, 1, "yuv420p")
        assert not container.streams.audio


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_display_rotation_is_applied(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    path = make_video(tmp_path / "a.mp4", 4, rotation=rotation, hflip=mirrored, size=(80, 48))

    def numbers(frames: npt.NDArray[np.uint8]) -> list[int]:
        return read_numbers(frames[:, :, ::-1] if mirrored else frames)

    with open_video(path) as video:
        assert (video.info.width, video.info.height) == (80, 48)
        assert numbers(np.stack([frame for _, frame in video.frames()])) == [0, 1, 2, 3]
    for codec, target in (("h264", tmp_path / "store.mp4"), ("jpeg", tmp_path / "store")):
        info = write_video(path, target, short_side=32, codec=codec)  # type: ignore[arg-type]
        assert (info.width, info.height) == (54, 32)
        with open_store(target) as stored:
            assert numbers(stored.read(range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("apply", [np.rot90, np.fliplr, np.flipud, np.transpose])
def test_an_orientation_turns_arrays(apply: Callable[..., npt.NDArray[np.int64]]) -> None:
    picture = np.arange(6).reshape(2, 3)
    found = [
        Orientation(t, x, y)
        for t in (False, True)
        for x in (False, True)
        for y in (False, True)
        if np.array_equal(Orientation(t, x, y).apply(picture), apply(picture))
    ]
    assert len(found) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_pixels_are_made_square(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == ".avi" else "h264"
    path = make_video(tmp_path / f"a{suffix}", 3, codec, size=(64, 48), sample_aspect_ratio=Fraction(4, 3))
    with open_video(path) as video:
        assert (video.info.width, video.info.height) == (85, 48)
    info = write_video(path, tmp_path / "store.mp4", short_side=24)
    assert (info.width, info.height) == (42, 24)


def test_square_pixels_come_before_the_rotation() -> None:
    assert display_size(60, 80, Fraction(3, 2), Orientation()) == (90, 80)
    assert display_size(60, 80, Fraction(3, 2), Orientation(transpose=True)) == (80, 90)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 1000))
def test_stored_sizes_are_even_never_larger_and_keep_the_shape(width: int, height: int, short_side: int) -> None:
    stored = stored_size(width, height, short_side)
    assert stored[0] % 2 == stored[1] % 2 == 0
    assert min(stored) <= max(2, short_side)
    for side, own in zip(stored, (width, height), strict=True):
        assert side <= max(own, 2)
    if min(width, height) > short_side:
        scale = min(stored) / min(width, height)
        assert max(stored) == pytest.approx(max(width, height) * scale, abs=1)
        assert min(stored) >= short_side - 1
    else:
        assert all(own - side <= 1 for side, own in zip(stored, (width, height), strict=True) if own > 1)


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p10le", "gray", "gbrp", "rgb24", "nv12", "yuva420p"])
def test_any_pixel_format_is_read(tmp_path: Path, pix_fmt: str) -> None:
    path = make_video(tmp_path / "a.nut", 4, Codec("rawvideo", ".nut", pix_fmt), size=(63, 47))
    info = write_video(path, tmp_path / "store.mp4", short_side=64)
    assert (info.width, info.height) == (62, 46)
    with open_store(tmp_path / "store.mp4") as stored:
        assert read_numbers(stored.read(range(4))) == [0, 1, 2, 3]


def test_a_size_that_changes_within_a_video_ends_at_the_stored_size(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{i}.ts", 6, CODECS["h264-ts"], size=size, start=6 * i) for i, size in enumerate([(64, 48), (128, 96)])]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    info = write_video(path, tmp_path / "store.mp4", short_side=48)
    assert (info.width, info.height) == (64, 48)
    with open_store(tmp_path / "store.mp4") as stored:
        assert read_numbers(stored.read(range(stored.num_frames))) == list(range(12))
