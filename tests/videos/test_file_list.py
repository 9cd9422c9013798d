import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.videos.sources import find_videos
from rspnet_cli.videos.toolkit_lists import Line, named, parse_list
from tests.layouts import by_path, paths, reasons, touch, write_lists
from tests.sentences import refused

VIDEOS = ["walk/a.mp4", "walk/b.mp4", "run/c.mp4", "run/d.mp4"]


def videos(tmp_path: Path) -> Path:
    return touch(tmp_path / "videos", *VIDEOS)


def frames(tmp_path: Path) -> Path:
    return touch(tmp_path / "rawframes", *(f"{name.removesuffix('.mp4')}/img_{i:05d}.jpg" for name in VIDEOS for i in (1, 2)))


# The text


def parsed(tmp_path: Path, text: str) -> list[Line]:
    (tmp_path / "train.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    return parse_list(tmp_path / "train.txt")


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", "::"])
def test_the_separators_of_other_toolkits(tmp_path: Path, separator: str) -> None:
    lines = parsed(tmp_path, f"walk/a.mp4{separator}0\r\n\r\nrun, fast/c d.mp4{separator}12\n")
    assert lines == [Line(1, "walk/a.mp4", None, 0), Line(3, "run, fast/c d.mp4", None, 12)]


@pytest.mark.parametrize("separator", [" ", ",", "::"])
def test_folders_of_frames_have_their_number_before_the_label(tmp_path: Path, separator: str) -> None:
    lines = parsed(tmp_path, "".join(f"walk/a {i}b{separator}{163 + i}{separator}{i}\n" for i in range(2)))
    assert lines == [Line(1, "walk/a 0b", 163, 0), Line(2, "walk/a 1b", 164, 1)]


def test_paths_alone_and_minus_one_are_no_labels(tmp_path: Path) -> None:
    assert parsed(tmp_path, "walk/a.mp4\nwalk/b.mp4\n") == [Line(1, "walk/a.mp4", None, None), Line(2, "walk/b.mp4", None, None)]
    assert [line.label for line in parsed(tmp_path, "walk/a.mp4 -1\nwalk/b.mp4 3\n")] == [None, 3]
    assert parsed(tmp_path, "\n \n") == []


# Paths as lists can hold them: no line breaks, no blanks at their ends.
LISTED_PATHS = (
    st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
    .map(str.strip)
    .filter(bool)
    .map(lambda path: f"{path}.mp4")
)


@given(entries=st.lists(st.tuples(LISTED_PATHS, st.integers(0, 999)), min_size=1, max_size=8), separator=st.sampled_from([" ", ",", "::"]))
def test_every_written_list_of_videos_reads_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, int]], separator: str
) -> None:
    folder = tmp_path_factory.mktemp("list")
    lines = parsed(folder, "".join(f"{path}{separator}{label}\n" for path, label in entries))
    assert [(line.path.removesuffix(separator), line.label, line.num_frames) for line in lines] == [
        (path.removesuffix(separator), label, None) for path, label in entries
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.mp4 0\nb.mp4\n", "train.txt, line 2: 'b.mp4' does not end with the number of a class"),
        ("a.mp4 0\nb.mp4 walk\nc.mp4 1\n", "line 2: 'b.mp4 walk' does not end"),
        ("a.mp4 1 3 5\n", "line 1: 'a.mp4 1 3 5' has several labels"),
        ("a.mp4 1 3\nb.mp4 2\n", "line 1: 'a.mp4 1 3' has several labels"),
        ("walk/v 12 163 3\nwalk/w 0 9 1\n", "names a part of a folder"),
        ("walk/v 0 3\n", "the folder has 0 frames"),
        ("a.mp4 100000\n", "the label 100,000 is above 99,999"),
    ],
)
def test_lines_that_mean_something_else_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parsed(tmp_path, text)
    refused(error.value, words)


@pytest.mark.parametrize(
    ("name", "part", "split"),
    [
        ("train.csv", "train", 1),
        ("ucf101_val_split_2_videos.txt", "val", 2),
        ("hmdb51_train_split_3_rawframes.txt", "train", 3),
        ("kinetics400_train_list_videos.txt", "train", 1),
        ("sthv2_val_list_rawframes.txt", "val", 1),
        ("testlist03.txt", "test", 3),
        ("Validation.txt", "val", 1),
        ("training_256.txt", "train", 1),
        ("constraints.txt", "", 1),
        ("trainval.txt", "", 1),
        ("train_val.txt", "", 1),
        ("label_map.txt", "", 1),
    ],
)
def test_a_name_says_what_a_list_is_for(name: str, part: str, split: int) -> None:
    item = named(Path("lists") / name)
    assert (item.part, item.split) == (part, split)


# The layout


def test_a_folder_of_lists_gives_splits_and_labels(tmp_path: Path) -> None:
    lists = write_lists(
        tmp_path / "lists",
        {
            "walks_train_split_1_videos.txt": ["walk/a.mp4 1", "run/c.mp4 0"],
            "walks_val_split_1_videos.txt": ["walk/b.mp4 1", "run/d.mp4 0"],
            "walks_train_split_2_videos.txt": ["walk/b.mp4 1", "run/d.mp4 0"],
            "walks_val_split_2_videos.txt": ["run/c.mp4 0"],
            "label_map.txt": ["Run fast", "Walk"],
            "notes.md": ["not a list"],
        },
    )
    table = find_videos(videos(tmp_path), annotations=lists)
    assert table.dataset == "list"
    assert table.notes[0].startswith("Taken for --dataset list")
    assert (table.classes, table.split_names) == (("Run fast", "Walk"), ("split_1", "split_2"))
    assert {path: (video.label, video.splits) for path, video in by_path(table).items()} == {
        "walk/a.mp4": (1, ("train", "unused")),
        "walk/b.mp4": (1, ("test", "train")),
        "run/c.mp4": (0, ("train", "test")),
        "run/d.mp4": (0, ("test", "train")),
    }
    assert (table.failures, table.warnings) == ((), ())


def test_beside_a_labelled_test_list_val_stays_val_and_without_labels_test_is_unused(tmp_path: Path) -> None:
    root = videos(tmp_path)
    lists = {"train.csv": ["walk/a.mp4 1"], "val.csv": ["walk/b.mp4 1"], "test.csv": ["run/c.mp4 0"]}
    table = find_videos(root, annotations=write_lists(tmp_path / "lists", lists))
    assert {path: video.splits for path, video in by_path(table).items()} == {
        "walk/a.mp4": ("train",),
        "walk/b.mp4": ("val",),
        "run/c.mp4": ("test",),
    }
    lists["test.csv"] = ["run/c.mp4 -1"]
    table = find_videos(root, annotations=write_lists(tmp_path / "lists", lists))
    assert by_path(table)["walk/b.mp4"].splits == ("test",)
    assert (by_path(table)["run/c.mp4"].splits, by_path(table)["run/c.mp4"].label) == (("unused",), None)
    assert table.classes == ("0", "1")  # without a label map the numbers are the names


def test_a_single_file_is_read_alone(tmp_path: Path) -> None:
    root = videos(tmp_path)
    lists = write_lists(tmp_path / "lists", {"all.txt": ["walk/a.mp4,0", f"{root}/run/c.mp4,2"], "val.txt": ["walk/b.mp4,0"]})
    table = find_videos(root, annotations=lists / "all.txt")
    assert (table.dataset, table.split_names) == ("list", ())
    assert {path: video.label_name for path, video in by_path(table).items()} == {"walk/a.mp4": "0", "run/c.mp4": "2"}
    assert find_videos(root, annotations=lists / "val.txt").split_names == ("split_1",)


def test_a_csv_with_a_header_and_youtube_ids_are_told_from_lists(tmp_path: Path) -> None:
    root = videos(tmp_path)
    lists = write_lists(tmp_path / "lists", {"a.csv": ["label,path", "walk,walk/a.mp4"], "b.csv": ["walk/a.mp4,0"]})
    assert find_videos(root, annotations=lists / "a.csv").dataset == "csv"
    assert find_videos(root, annotations=lists / "b.csv").dataset == "list"


def test_folders_of_frames_are_sources_with_the_number_that_the_list_states(tmp_path: Path) -> None:
    lists = write_lists(
        tmp_path / "lists",
        {"train_rawframes.txt": ["walk/a 2 1", "run/c 2 0", "run/../run/d 1 0"], "val_rawframes.txt": ["walk/b 5 1", "gone/e 2 1"]},
    )
    touch(frames(tmp_path), "walk/file.mp4")
    table = find_videos(tmp_path / "rawframes", annotations=lists)
    assert table.of_frames
    assert {path: (video.num_frames, video.bytes, video.splits) for path, video in by_path(table).items()} == {
        "walk/a": (2, 0, ("train",)),
        "run/c": (2, 0, ("train",)),
        "run/../run/d": (1, 0, ("train",)),
        "walk/b": (5, 0, ("test",)),
    }
    assert reasons(table) == {"gone/e": "is named in val_rawframes.txt, but not there"}
    assert (table.missing, table.extra) == (("gone/e",), None)
    assert all(video.mtime_ns == (tmp_path / "rawframes" / path).stat().st_mtime_ns for path, video in by_path(table).items())


def test_of_lists_of_videos_and_of_frames_those_that_fit_are_read(tmp_path: Path) -> None:
    lists = write_lists(
        tmp_path / "lists",
        {f"x_{part}_split_1_{kind}.txt": [line] for part, name in (("train", "walk/a"), ("val", "walk/b")) for kind, line in
         (("videos", f"{name}.mp4 1"), ("rawframes", f"{name} 2 1"))},
    )  # fmt: skip
    assert paths(find_videos(videos(tmp_path), annotations=lists)) == ["walk/a.mp4", "walk/b.mp4"]
    assert paths(find_videos(frames(tmp_path), annotations=lists)) == ["walk/a", "walk/b"]
    with pytest.raises(InputError) as error:
        find_videos(touch(tmp_path / "other", "a.mp4"), annotations=lists)
    refused(error.value, "holds lists of videos and lists of frames")


def test_what_a_list_names_must_be_a_video_inside_the_folder(tmp_path: Path) -> None:
    root = touch(videos(tmp_path), "walk/file")
    touch(tmp_path, "outside.mp4", "outside/img_00001.jpg")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "again.mp4").symlink_to("walk/a.mp4")
    os.mkfifo(root / "pipe.mp4")
    listed = [
        "walk/a.mp4",
        "again.mp4",
        "../outside.mp4",
        "/etc/passwd",
        "walk",
        "pipe.mp4",
        "link/img_00001.jpg",
        "a\0b.mp4",
        "..",
        "gone/x.mp4",
    ]
    lists = write_lists(tmp_path / "lists", {"train.txt": [f"{path} 0" for path in listed]})
    table = find_videos(root, dataset="list", annotations=lists)
    assert paths(table) == ["again.mp4", "walk/a.mp4"]
    there = "copy it there, or name a folder that holds both"
    assert reasons(table) == {
        "../outside.mp4": f"is named in train.txt, but leads out of the folder of videos, to {tmp_path}/outside.mp4: {there}",
        "/etc/passwd": f"is named in train.txt, but leads out of the folder of videos, to /etc/passwd: {there}",
        "walk": "is named in train.txt, but is a folder, not a file (a list of frames states their number: `folder frames label`)",
        "pipe.mp4": "is named in train.txt, but is a named pipe (FIFO), not a file",
        "link/img_00001.jpg": f"is named in train.txt, but leads out of the folder of videos, to {tmp_path}/outside/img_00001.jpg: {there}",
        "a\0b.mp4": "is named in train.txt, but is no path that a file can have",
        "..": f"is named in train.txt, but leads out of the folder of videos, to {tmp_path}: {there}",
        "gone/x.mp4": "is named in train.txt, but not there",
    }
    lists = write_lists(tmp_path / "frames", {"train.txt": [f"{path} 2 0" for path in ("walk", "..", "link", "walk/file")]})
    table = find_videos(root, dataset="list", annotations=lists)
    assert paths(table) == ["walk"]
    assert set(reasons(table)) == {"..", "link", "walk/file"}


def test_missing_double_and_unlisted_videos_are_counted(tmp_path: Path) -> None:
    root = videos(tmp_path)
    lines = ["walk/a.mp4 0", "./walk/a.mp4 0", "walk/gone.mp4 0", "fly/e.mp4 2", "run/c.mp4 1"]
    lists = write_lists(tmp_path / "lists", {"train.txt": lines})
    table = find_videos(root, annotations=lists, find_extra=True)
    assert reasons(table) == {"walk/gone.mp4": "is named in train.txt, but not there"}
    assert (table.missing, table.extra, table.repeated) == (("walk/gone.mp4",), ("run/d.mp4", "walk/b.mp4"), ("walk/a.mp4",))
    assert find_videos(root, annotations=lists).extra is None  # nobody looked
    assert f"1 entry repeated in {lists} (walk/a.mp4): each counts once." in table.warnings
    assert "1 class of 3 without any video (2): 1 list entry left out." in table.warnings


def test_none_of_the_listed_videos_is_there(tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "lists", {"train.txt": ["videos/walk/a.mp4 0", "videos/walk/b.mp4 0"]})
    with pytest.raises(InputError) as error:
        find_videos(videos(tmp_path), annotations=lists)
    refused(error.value, "None of the 2 videos of", "videos/walk/a.mp4", "name the folder that the lists count from")
    assert len(find_videos(tmp_path, annotations=lists).videos) == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train.txt": ["walk/a.mp4 0", "walk/a.mp4 1"]}, "train.txt, line 2: walk/a.mp4 has another label"),
        ({"train.txt": ["walk/a.mp4 0"], "val.txt": ["walk/a.mp4 1"]}, "has another label"),
        ({"train.txt": ["walk/a.mp4 0"], "val.txt": ["walk/a.mp4 0"]}, "is in the train and in the test list of split 1"),
        ({"train.txt": ["walk/a.mp4 7"], "label_map.txt": ["walk"]}, "names 1 classes, and the lists have the label 7"),
        ({"train.txt": ["walk/a.mp4 0"], "label_map.txt": ["walk", "walk"]}, "names the class walk twice"),
        ({"list.txt": ["walk/a.mp4 0"]}, "holds no list whose name says train, val or test"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(tmp_path: Path, files: dict[str, list[str]], words: str) -> None:
    with pytest.raises(InputError) as error:
        find_videos(videos(tmp_path), dataset="list", annotations=write_lists(tmp_path / "lists", files))
    refused(error.value, words)


def test_clips_named_as_in_ucf101_and_hmdb51_are_grouped(tmp_path: Path) -> None:
    names = ["Walk/v_Walk_g03_c01.avi", "v_Walk_g03_c02.avi", "wave/winKen_wave_u_cm_np1_ri_bad_1.avi", "other.avi"]
    lists = write_lists(tmp_path / "lists", {"train.txt": [f"{name} 0" for name in names]})
    table = find_videos(touch(tmp_path / "videos", *names), annotations=lists)
    assert {path: video.group for path, video in by_path(table).items()} == dict(
        zip(names, ["Walk_g03", "Walk_g03", "wave/winKen", ""], strict=True)
    )
    assert any("3 clips grouped by recording" in note for note in table.notes)


def test_the_layout_needs_its_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        find_videos(videos(tmp_path), dataset="list")
    refused(error.value, "--dataset list needs its list", "--annotations")
