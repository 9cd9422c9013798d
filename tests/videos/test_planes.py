"""Boxes of stored frames as the decoder's planes: the samples that FFmpeg decodes, of the frames asked for, from every codec's store."""

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.codecs import ENDINGS
from rspnet_cli.errors import InputError
from rspnet_cli.videos.h264_store import H264Video
from rspnet_cli.videos.planes import Box, Cut
from rspnet_cli.videos.store import Codec, has_planes, open_store, write_video
from tests.crops import read_cuts, read_planes
from tests.encode import Codec as Encoder
from tests.encode import encode, make_video, numbered_frames

SIZE = (62, 46)
NUM_FRAMES = 40
CUTS = [
    Cut(np.array([30, 3, 3, 17]), Box(5, 7, 21, 30)),
    Cut(np.array([3, 4, 5, 31]), Box(0, 0, 46, 62)),
    Cut(np.array([17]), Box(45, 61, 1, 1)),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, SIZE[1], SIZE[0], 3), np.uint8)
    return encode(tmp_path_factory.mktemp("source") / "a.mkv", list(noise), "ffv1")


def stored(source: Path, codec: Codec) -> Path:
    target = source.with_name(f"store{ENDINGS[codec]}")
    if not target.exists():
        write_video(source, target, short_side=46, codec=codec)
    return target


def decoded(path: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Y, U and V of every frame, by PyAV's own arrays."""
    width, height = SIZE
    with av.open(str(path)) as container:
        flat = [frame.to_ndarray().ravel() for frame in container.decode(video=0)]
    sizes = np.cumsum([width * height, width * height // 4])
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    return [tuple(part.reshape(shape) for part, shape in zip(np.split(frame, sizes), shapes, strict=True)) for frame in flat]  # type: ignore[misc]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(1, 50))
def test_an_even_box_is_the_smallest_of_even_edges_around_a_box(top: int, left: int, height: int, width: int) -> None:
    box = Box(top, left, height, width)
    even, inside = box.even, box.in_even
    assert all(edge % 2 == 0 for edge in even)
    assert (even.top + inside.top, even.left + inside.left, *inside[2:]) == tuple(box)
    for start, length, around, size in ((top, height, even.top, even.height), (left, width, even.left, even.width)):
        assert 0 <= start - around < 2
        assert 0 <= around + size - (start + length) < 2


def test_planes_are_the_samples_of_the_frames_asked_for(source: Path) -> None:
    path = stored(source, "h264")
    frames = decoded(path)
    with open_store(path) as video:
        for planes, cut in zip(read_planes(video, CUTS), CUTS, strict=True):
            top, left, height, width = cut.box.even
            assert planes.luma.shape == (len(cut.indices), height // 2, 2, width)
            half = (slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2))
            for place, index in enumerate(cut.indices):
                luma, *chroma = frames[index]
                assert (planes.luma[place].reshape(height, width) == luma[top : top + height, left : left + width]).all()
                for number, plane in enumerate(chroma):
                    assert (planes.chroma[place, :, number] == plane[half]).all()


@pytest.mark.parametrize("codec", ["h264", "jpeg", "raw"])
def test_cuts_are_boxes_of_the_frames_that_read_gives(source: Path, codec: Codec) -> None:
    with open_store(stored(source, codec)) as video:
        everything = video.read(range(NUM_FRAMES))
        for frames, cut in zip(read_cuts(video, CUTS), CUTS, strict=True):
            top, left, height, width = cut.box
            assert (frames == everything[cut.indices, top : top + height, left : left + width]).all()
        with pytest.raises(IndexError, match="frames 0 to 39, not 2 to 40"):
            read_cuts(video, [CUTS[0], Cut(np.array([2, 40]), CUTS[0].box)])


@pytest.mark.parametrize("codec", ["h264", "jpeg", "raw"])
def test_planes_are_in_the_h264_store_alone(source: Path, codec: Codec) -> None:
    path = stored(source, codec)
    assert has_planes(path) == (codec == "h264")
    folder = path.with_name("named.mp4")  # a video's id may end so, and a jpeg store is a folder
    folder.mkdir(exist_ok=True)
    assert not has_planes(folder)


@pytest.mark.parametrize("codec", ["h264", "jpeg", "raw"])
def test_cuts_are_read_to_places_among_others(source: Path, codec: Codec) -> None:
    top, left, height, width = CUTS[0].box
    around = np.full((4, height + 2, width + 3, 3), 77, np.uint8)
    with open_store(stored(source, codec)) as video:
        video.read_cuts(CUTS[:1], [around[:, 1:-1, 1:-2]])
        assert (around[:, 1:-1, 1:-2] == video.read(CUTS[0].indices)[:, top : top + height, left : left + width]).all()
    around[:, 1:-1, 1:-2] = 77
    assert (around == 77).all()


def test_frames_that_cuts_share_are_decoded_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    decode = H264Video._decode
    monkeypatch.setattr(H264Video, "_decode", lambda video, index: (asked.append(index), decode(video, index))[1])
    with open_store(stored(source, "h264")) as video:
        read_planes(video, CUTS)
    assert asked == [3, 4, 5, 17, 30, 31]


@pytest.mark.parametrize(
    ("pix_fmt", "color"), [("yuv444p", {"colorspace": 6}), ("yuv420p", {"colorspace": 1}), ("yuv420p10le", {"colorspace": 6})]
)
def test_an_mp4_of_other_colours_is_no_frame_file(tmp_path: Path, pix_fmt: str, color: dict[str, int]) -> None:
    codec = Encoder("libx264", ".mp4", pix_fmt, {"x264-params": "bframes=0:threads=1"})
    path = encode(tmp_path / "a.mp4", numbered_frames(3, 64, 48), codec, color=color)
    with pytest.raises(InputError, match="no frame file of `rspnet extract`"):
        open_store(path)


def test_a_text_file_is_no_frame_file(tmp_path: Path) -> None:
    make_video(tmp_path / "b.mp4", 3)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile 'b.mp4'\n")
    with pytest.raises(InputError, match="damaged"):
        open_store(tmp_path / "a.mp4")
