"""Folders of frames as sources: every frame once, in order, at the stated rate; and hostile folders refused with a reason."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.tables import FAILURES, VIDEOS, read_table
from rspnet_cli.videos.broken import BrokenVideo
from rspnet_cli.videos.frame_files import NoFrames, frame_files, sha256_of_frames
from rspnet_cli.videos.span import Span
from rspnet_cli.videos.store import StoredInfo, open_store, write_video
from tests.encode import grey, make_frames, make_video, numbered_frame, picture_bytes, read_numbers
from tests.layouts import write_lists
from tests.sentences import refused


def stored(folder: Path, num_frames: int = 10, **how: Any) -> tuple[Path, StoredInfo]:
    target = folder.with_name("store.mp4")
    return target, write_video(folder, target, **({"short_side": 32, "num_frames": num_frames} | how))


def test_a_part_of_a_folder_is_cut_by_its_rate(tmp_path: Path) -> None:
    target, info = stored(make_frames(tmp_path / "frames", 20), 20, frames_fps=10, span=Span(Fraction(1), Fraction("1.5")))
    with open_store(target) as video:
        assert read_numbers(video.read(range(info.frames))) == list(range(10, 15))
        assert video.times_s.tolist() == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4])


# Which files are frames


@given(
    prefix=st.sampled_from(["img_", "", "frame", "v_Walk_g01_c02_", "image_2_", "a.b "]),
    first=st.integers(0, 20),
    count=st.integers(1, 120),
    digits=st.integers(1, 6),
    kind=st.sampled_from(["jpg", "JPG", "jpeg", "png"]),
)
def test_frames_come_in_the_order_of_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, first: int, count: int, digits: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("frames")
    names = [f"{prefix}{number:0{digits}d}.{kind}" for number in range(first, first + count)]
    for name in [*reversed(names), f"flow_x_{first:05d}.jpg", f"flow_y_{first:05d}.jpg", "notes.txt"]:
        (folder / name).touch()
    assert frame_files(folder) == names


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "holds no numbered pictures such as img_00001.jpg"),
        (["cover.jpg", "flow_x_00001.jpg", "x_00001.jpg"], "holds no numbered pictures"),
        (["img_00001.jpg", "img_00003.jpg"], "lacks the frame of number 2 between others"),
        (["img_00001.jpg", "img_001.jpg"], "has two frames of the number 1"),
        (["a_1.jpg", "b_1.jpg"], r"holds pictures of 2 kinds, and none or several of them are img_\* \(a_\*.jpg, b_\*.jpg\)"),
        (["img_1.jpg", "img_1.png"], "holds pictures of 2 kinds"),
    ],
)
def test_what_is_no_sequence_is_refused(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(NoFrames, match=words):
        frame_files(tmp_path)


def test_the_usual_prefix_is_taken_beside_others(tmp_path: Path) -> None:
    for name in ("img_00001.jpg", "mask_00001.png", "mask_00002.png"):
        (tmp_path / name).touch()
    assert frame_files(tmp_path) == ["img_00001.jpg"]


def test_the_hash_is_that_of_names_and_contents(tmp_path: Path) -> None:
    first, copy, other = (make_frames(tmp_path / name, 3) for name in "abc")
    (other / "img_00002.jpg").write_bytes((other / "img_00001.jpg").read_bytes())
    (copy / "notes.txt").touch()
    hashes = [sha256_of_frames(folder) for folder in (first, copy, other)]
    assert hashes[0] == hashes[1] != hashes[2]


# What is stored


@pytest.mark.parametrize("name", ["img_{:05d}.jpg", "frame{:d}.jpeg", "{:06d}.png"])
def test_every_frame_is_stored_once_at_the_stated_rate(tmp_path: Path, name: str) -> None:
    folder = make_frames(tmp_path / "frames", 12, name=name, first=0)
    target, info = stored(folder, 12, frames_fps=12)
    with open_store(target) as video:
        assert read_numbers(video.read(range(12))) == list(range(12))
        assert video.times_s.tolist() == [i / 12 for i in range(12)]
        assert (video.width, video.height) == (info.width, info.height) == (42, 32)
    assert (info.frames, info.fps, info.partial) == (12, 12, False)


def test_without_a_stated_rate_it_is_25_and_odd_rates_keep_their_times(tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "frames", 4)
    assert stored(folder, 4)[1].fps == 25
    target, info = stored(folder, 4, frames_fps=29.97)
    assert info.fps == pytest.approx(29.97)
    with open_store(target) as video:
        assert video.times_s.tolist() == pytest.approx([i / 29.97 for i in range(4)], abs=1e-6)


def test_only_as_many_frames_as_the_list_states_count(tmp_path: Path) -> None:
    target, info = stored(make_frames(tmp_path / "frames", 10), 7)
    assert info.frames == 7
    with open_store(target) as video:
        assert read_numbers(video.read(range(7))) == list(range(7))


def test_frames_and_the_video_they_are_of_are_stored_alike(tmp_path: Path) -> None:
    """The same pictures, as a folder and as a lossless video, differ by the JPEG's loss alone."""
    target, _ = stored(make_frames(tmp_path / "frames", 4, name="{:d}.png"), 4)
    write_video(make_video(tmp_path / "video.mkv", 4, "ffv1"), tmp_path / "video.mp4", short_side=32)
    with open_store(target) as frames, open_store(tmp_path / "video.mp4") as video:
        assert abs(frames.read(range(4)).astype(int) - video.read(range(4)).astype(int)).max() <= 6


# Broken and hostile folders


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_cut_frame_is_damage_and_what_is_before_can_be_kept(tmp_path: Path, kind: str) -> None:
    folder = make_frames(tmp_path / "frames", 8, name=f"img_{{:05d}}.{kind}")
    path = folder / f"img_00006.{kind}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BrokenVideo, match=r"is damaged: 5 frames decode, then img_00006\.\w+ does not") as error:
        stored(folder, 8)
    assert (error.value.decoded, error.value.declared) == (5, 8)
    _, info = stored(folder, 8, keep_partial=True)
    assert (info.frames, info.partial) == (5, True)


def test_fewer_frames_than_listed_are_a_cut_folder(tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "frames", 6)
    with pytest.raises(BrokenVideo, match="is cut short: 6 frames are there of the 9 that its list states") as error:
        stored(folder, 9)
    assert (error.value.decoded, error.value.declared) == (6, 9)
    assert stored(folder, 9, keep_partial=True)[1].partial


def test_a_picture_beyond_the_limit_is_refused_wherever_it_comes(tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "frames", 3)
    with pytest.raises(BrokenVideo, match=r"has pictures of 64 x 48 = 3,072 pixels, beyond the limit of 3,000"):
        stored(folder, 3, max_pixels=3000)
    (folder / "img_00002.jpg").write_bytes(picture_bytes(grey(3000, 2000)))  # 6 million pixels: the decoder itself must refuse
    with pytest.raises(BrokenVideo, match=r"img_00002.jpg does not \(its size is .* beyond the limit of 1,000,000 pixels"):
        stored(folder, 3, max_pixels=1_000_000)


@pytest.mark.parametrize("number", [1, 2])
def test_links_pipes_folders_and_other_formats_are_no_frames(tmp_path: Path, number: int) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(picture_bytes(numbered_frame(1, 64, 48)))
    for index, (kind, words) in enumerate(
        {
            "link": "cannot be read or is a link",
            "pipe": "is no picture file of at most",
            "folder": "is no picture file of at most",
            "empty": "is no picture file of at most",
            "text": "frames decode, then",
        }.items()
    ):
        folder = make_frames(tmp_path / f"frames{index}", 2)
        path = folder / f"img_{number:05d}.jpg"
        path.unlink()
        if kind == "link":
            path.symlink_to(outside)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_text("" if kind == "empty" else "ffconcat version 1.0\nfile '../outside.jpg'\n")
        with pytest.raises(BrokenVideo, match=words):
            stored(folder, 2)


# The stage


@pytest.fixture(scope="module")
def rawframes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five folders of frames, one of them cut short, with their lists beside. Not to be written to."""
    root = tmp_path_factory.mktemp("toolkit") / "rawframes"
    for number in range(5):
        make_frames(root / ("walk", "run")[number % 2] / f"v{number}", 6 + number, start=100 * number)
    lines = [f"{('walk', 'run')[n % 2]}/v{n} {6 + n + (n == 4)} {1 - n % 2}" for n in range(5)]
    write_lists(
        root.parent / "lists", {"x_train_rawframes.txt": lines[:3], "x_val_rawframes.txt": lines[3:], "label_map.txt": ["run", "walk"]}
    )
    return root


def run(root: Path, out: Path, *, config: dict[str, Any] | None = None, **how: Any) -> Manifest:
    settings = validated(ExtractConfig, {"short_side": 32, "workers": 1} | (config or {}))
    return extract(settings, videos=root, annotations=root.parent / "lists", out=out, **how)


def test_extract_stores_the_folders_of_a_list(rawframes: Path, tmp_path: Path) -> None:
    manifest = run(rawframes, tmp_path / "extract", config={"frames_fps": 30})
    assert (manifest.config["dataset"], manifest.config["frames_fps"]) == ("list", 30.0)
    table = read_table(manifest.folder / "videos.csv", VIDEOS)
    assert table[["source", "label", "label_name", "split_1", "frames", "fps"]].to_numpy().tolist() == [
        ["run/v1", 0, "run", "train", 7, 30.0],
        ["run/v3", 0, "run", "test", 9, 30.0],
        ["walk/v0", 1, "walk", "train", 6, 30.0],
        ["walk/v2", 1, "walk", "train", 8, 30.0],
    ]
    assert list(table["sha256"]) == [sha256_of_frames(rawframes / source) for source in table["source"]]
    failures = read_table(manifest.folder / "failures.csv", FAILURES)
    assert failures[["source", "decoded", "declared"]].to_numpy().tolist() == [["walk/v4", 10, 11]]
    with open_store(manifest.folder / table["frames_file"][2]) as video:
        assert read_numbers(video.read(range(6))) == list(range(6))
    assert run(rawframes, tmp_path / "extract", config={"frames_fps": 30}, verify_sources=True).digest == manifest.digest
    with pytest.raises(InputError, match=r"frames_fps was 30\.0, now 25\.0"):
        run(rawframes, tmp_path / "extract")


def test_a_folder_that_changed_is_told(rawframes: Path, tmp_path: Path) -> None:
    root = tmp_path / "toolkit" / "rawframes"
    for number in range(2):
        make_frames(root / f"v{number}", 6, start=100 * number)
    write_lists(root.parent / "lists", {"train.txt": ["v0 6 0", "v1 6 0"]})
    run(root, tmp_path / "extract")
    frame = root / "v1" / "img_00003.jpg"
    frame.write_bytes((root / "v0" / "img_00003.jpg").read_bytes())  # in place: the folder's time stays
    assert run(root, tmp_path / "extract").results["videos"] == 2
    with pytest.raises(InputError) as error:
        run(root, tmp_path / "extract", verify_sources=True)
    refused(error.value, "1 source with other content (v1)")
    (root / "v1" / "img_00007.jpg").write_bytes(frame.read_bytes())
    with pytest.raises(InputError) as error:
        run(root, tmp_path / "extract")
    refused(error.value, "1 source with another time of change (v1)")


def test_the_rate_has_no_effect_on_video_files(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/a.mp4", 8)
    with pytest.raises(InputError) as error:
        extract(validated(ExtractConfig, {"frames_fps": 30}), videos=tmp_path / "videos", out=tmp_path / "extract")
    refused(error.value, "--frames-fps has no effect")
    assert not (tmp_path / "extract").exists()
