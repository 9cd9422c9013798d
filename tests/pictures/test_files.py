"""PNG files hold the pixels, films their pictures in time, and files of somebody else stay."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.pictures.files import refuse_foreign, show
from rspnet_cli.pictures.stills import jpeg_bytes, png_bytes
from tests.encode import numbered_frame, read_number
from tests.sentences import refused


def film(first: int = 0) -> Iterator[np.ndarray]:
    return (numbered_frame(first + number, 64, 48) for number in range(7))


def show_in(folder: Path, name: str = "walk", first: int = 0, **record: Any) -> dict[str, Any]:
    sheet = numbered_frame(first, 33, 17)
    return show(folder, name, "test", sheet=sheet, film=film(first), rate=Fraction(8), record=record)


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("shape", [(17, 33), (1, 1), (240, 320)])
def test_a_png_holds_the_very_pixels(tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png_bytes(picture))
    (frame,) = decoded(tmp_path / "a.png")
    assert (frame.to_ndarray(format="rgb24") == picture).all()
    assert png_bytes(picture) == png_bytes(np.asfortranarray(picture))


def test_a_jpeg_looks_like_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(numbered_frame(1234, 64, 48), quantiser=5))
    (frame,) = decoded(tmp_path / "a.jpg")
    assert read_number(frame.to_ndarray(format="rgb24")) == 1234


def test_sheet_film_and_record_lie_side_by_side(tmp_path: Path) -> None:
    shown = show_in(tmp_path / "new" / "folder", first=40, scale=[0.5, 2])
    sheet, movie = Path(shown["sheet"]), Path(shown["film"])
    assert {path.name for path in sheet.parent.iterdir()} == {"walk.png", "walk.mp4", "walk.json"}
    assert shown == {"sheet": str(sheet), "film": str(movie), "scale": [0.5, 2]}
    record = json.loads((sheet.parent / "walk.json").read_text())
    assert record.pop("made_by") == "rspnet test"
    assert record.pop("tool_version")
    assert record == {"scale": [0.5, 2]}
    frames = decoded(movie)
    assert [read_number(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(40, 47))
    assert [frame.time for frame in frames] == pytest.approx([number / 8 for number in range(7)])
    with av.open(str(movie)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 64, 48)


def test_the_same_pictures_are_the_same_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        show_in(tmp_path / folder)
    for name in ("walk.png", "walk.mp4", "walk.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_own_files_are_replaced_and_foreign_ones_are_not(tmp_path: Path) -> None:
    show_in(tmp_path)
    refuse_foreign(tmp_path, ["walk", "run"], "test")
    show_in(tmp_path, first=9)
    assert read_number(decoded(tmp_path / "walk.png")[0].to_ndarray(format="rgb24")) == 9
    (tmp_path / "run.mp4").write_bytes(b"a film of mine")
    for text in (None, "no JSON", "[]", '{"made_by": "rspnet other"}', "[" * 100_000):
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError) as caught:
            refuse_foreign(tmp_path, ["walk", "run"], "test")
        refused(caught.value, str(tmp_path / "run"), "--force", "--out")
    refuse_foreign(tmp_path, ["walk"], "test")


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="--out"):
        show_in(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
