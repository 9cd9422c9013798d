from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.videos.joining import class_and_stem
from rspnet_cli.videos.walk import VIDEO_SUFFIXES, has_video_suffix

PIECES = st.sampled_from(["a", "b c", ".", "..", "/", "//", ".mp4", ".AVI", ".txt", "é", "."])


@given(st.lists(PIECES, max_size=8).map("".join))
def test_paths_are_taken_apart_as_pathlib_does(path: str) -> None:
    pure = PurePosixPath(path)
    video = pure.suffix.lower() in VIDEO_SUFFIXES
    if not path.endswith("/"):
        assert class_and_stem(path) == (pure.parent.name, pure.stem if video else pure.name)
    if path == str(pure):
        assert has_video_suffix(path) == video


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("Walk/v_Walk_g01_c01.avi", ("Walk", "v_Walk_g01_c01")),
        ("./Walk//a.b.MP4", ("Walk", "a.b")),
        ("a.avi", ("", "a")),
        ("Walk/notes.txt", ("Walk", "notes.txt")),
        ("Walk/.mp4", ("Walk", ".mp4")),
        ("", ("", "")),
    ],
)
def test_class_and_name_of_a_path(path: str, parts: tuple[str, str]) -> None:
    assert class_and_stem(path) == parts
