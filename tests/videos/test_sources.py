import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.videos.ids import MAX_ID_LENGTH, make_ids
from rspnet_cli.videos.sources import VideoTable, find_videos
from tests.layouts import paths, reasons, touch
from tests.sentences import one_sentence


def ucf101_lists(folder: Path, classes: list[str], splits: dict[int, tuple[list[str], list[str]]], newline: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, lines: list[str]) -> None:
        (folder / name).write_text("".join(line + newline for line in lines), newline="")

    write("classInd.txt", [f"{number} {name}" for number, name in enumerate(classes, start=1)])
    for number, (train, test) in splits.items():
        write(f"trainlist{number:02d}.txt", [f"{path} {classes.index(path.split('/')[0]) + 1}" for path in train])
        write(f"testlist{number:02d}.txt", test)
    return folder


# ids

# Paths as a file system can hold them: any characters but "/" and NUL, also bytes that are no UTF-8.
NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: name not in (b".", b".."))
FILE_PATHS = (
    st.lists(NAMES, min_size=1, max_size=3)
    .map(lambda parts: b"/".join(part.replace(b"/", b"_").replace(b"\0", b"_") for part in parts))
    .map(os.fsdecode)
    .filter(lambda path: not {".", ".."} & set(path.split("/")))
)


@given(st.lists(FILE_PATHS, max_size=20, unique=True))
def test_ids_are_safe_and_unique_even_where_case_does_not_count(found: list[str]) -> None:
    ids = make_ids(found)
    assert list(ids) == found
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", video_id) and len(video_id) <= MAX_ID_LENGTH for video_id in ids.values())
    assert len({video_id.casefold() for video_id in ids.values()}) == len(found)
    assert make_ids(reversed(found)) == ids  # the order of discovery has no part in it


@pytest.mark.parametrize("other", ["Walk/v_Walk_g01_c01.mp4", "walk/V_WALK_g01_c01.avi", "Walk__v_Walk_g01_c01.avi"])
def test_names_that_look_alike_are_told_apart(other: str) -> None:
    path = "Walk/v_Walk_g01_c01.avi"
    assert make_ids([path]) == {path: "Walk__v_Walk_g01_c01"}
    ids = make_ids([path, other])
    assert all(re.fullmatch(r"walk__v_walk_g01_c01-[0-9a-f]{12}", video_id.lower()) for video_id in ids.values())
    assert len(set(ids.values())) == 2


def test_a_name_cannot_be_chosen_to_equal_the_id_of_another() -> None:
    ids = make_ids(["a b.mp4"])
    assert make_ids(["a b.mp4", f"{ids['a b.mp4']}.mp4"])[f"{ids['a b.mp4']}.mp4"] != ids["a b.mp4"]


# folder and plain


def test_plain_finds_videos_at_any_depth_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["b.mp4", "B.MOV", "a/z.mkv", "a/b/c/x.WebM", "ä.avi", "a.mp4"]
    table = find_videos(touch(tmp_path, *names), dataset="plain")
    assert paths(table) == sorted(names, key=os.fsencode)
    assert all(video.label is None and video.label_name == video.group == "" and video.splits == () for video in table.videos)
    assert (table.classes, table.split_names, table.annotations_sha256) == ((), (), None)
    assert [video.bytes for video in table.videos] == [len(os.fsencode(video.path)) for video in table.videos]


def test_files_that_are_no_videos_by_name_are_counted_and_named(tmp_path: Path) -> None:
    table = find_videos(touch(tmp_path, "a.mp4", "x.txt", "y.txt", "c/z.JPG", "Makefile", "._a.mp4", ".git/b.mp4"))
    assert paths(table) == ["a.mp4"]
    assert table.failures == ()
    assert "Passed over 6 entries that by name can be no video: 2 .txt, 2 hidden, 1 .jpg, 1 no ending." in table.notes


def test_a_class_is_a_sub_folder_with_all_that_lies_below_it(tmp_path: Path) -> None:
    table = find_videos(touch(tmp_path, "walk/a.mp4", "walk/deep/b.mp4", "[bold]/c.mp4", "stray.mp4"), dataset="folder")
    assert table.classes == ("[bold]", "walk")
    assert {video.path: (video.label, video.label_name) for video in table.videos} == {
        "[bold]/c.mp4": (0, "[bold]"),
        "walk/a.mp4": (1, "walk"),
        "walk/deep/b.mp4": (1, "walk"),
    }
    assert all(video.group == "" for video in table.videos)
    assert reasons(table) == {"stray.mp4": "lies in no sub-folder, so it has no class"}


def test_a_class_folder_by_itself_is_no_folder_of_classes(tmp_path: Path) -> None:
    touch(tmp_path, "walk/a.mp4", "walk/b.mp4")
    with pytest.raises(InputError) as caught:
        find_videos(tmp_path / "walk", dataset="folder")
    one_sentence(caught.value, str(tmp_path / "walk"), "the folder above it", "--dataset plain")


def test_names_that_are_no_text_stay_what_they_are(tmp_path: Path) -> None:
    names = ["walk\n/[red]x\nb.mp4", os.fsdecode(b"walk\xff/\xe9t\xe9.mp4"), f"walk/{'x' * 250}.mp4"]
    table = find_videos(touch(tmp_path, *names), dataset="folder")
    assert sorted(paths(table)) == sorted(names)
    assert table.classes == ("walk", "walk\\n", "walk\\xff")
    assert len({video.id for video in table.videos}) == 3


def test_links_into_the_folder_count_and_what_cannot_be_a_video_has_a_reason(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    touch(root, "pool/a.mp4", "walk/b.mp4")
    touch(elsewhere, "secret.mp4")
    (root / "walk/link.mp4").symlink_to("../pool/a.mp4")
    (root / "run").symlink_to("walk")
    (root / "walk/again").symlink_to("..")
    (root / "walk/circle.mp4").symlink_to("circle.mp4")
    (root / "walk/dangling.mp4").symlink_to("gone.mp4")
    (root / "walk/out.mp4").symlink_to(elsewhere / "secret.mp4")
    (root / "out").symlink_to(elsewhere)
    (root / "walk/device.mp4").symlink_to("/dev/zero")
    os.mkfifo(root / "walk/pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "walk/socket.mp4"))
        table = find_videos(root, dataset="folder")
    assert paths(table) == ["pool/a.mp4", "run/b.mp4", "run/link.mp4", "walk/b.mp4", "walk/link.mp4"]
    assert {path: reason for path, reason in reasons(table).items() if not path.startswith("run/")} == {
        "out": f"is a link that leads out of the folder of videos, to {elsewhere}: copy it there, or name a folder that holds both",
        "walk/again": "is a link to a folder that it lies in, without end",
        "walk/circle.mp4": "is a link in a loop of links",
        "walk/dangling.mp4": "is a link to gone.mp4, which is not there",
        "walk/device.mp4": "is a link that leads out of the folder of videos, to /dev/zero: "
        "copy it there, or name a folder that holds both",
        "walk/out.mp4": f"is a link that leads out of the folder of videos, to {elsewhere / 'secret.mp4'}: "
        "copy it there, or name a folder that holds both",
        "walk/pipe.mp4": "is a named pipe (FIFO), not a file",
        "walk/socket.mp4": "is a socket, not a file",
    }
    assert {failure.label_name for failure in table.failures if failure.path.startswith("walk/")} == {"walk"}


def test_linked_folders_do_not_unfold_without_bound(tmp_path: Path) -> None:
    for level in range(12):  # 2 ** 12 paths if links inside linked folders were followed
        touch(tmp_path, f"level{level}/a.mp4")
        for name in ("left", "right"):
            (tmp_path / f"level{level}/{name}").symlink_to(f"../level{level + 1}")
    table = find_videos(tmp_path, dataset="plain")
    assert len(table.videos) + len(table.failures) < 100


def test_folders_may_be_nested_deeper_than_the_interpreters_stack_and_the_systems_paths(tmp_path: Path) -> None:
    names = ["d"] * 1100 + ["e" * 250] * 10  # 1,000 is the stack's bound, 4,096 bytes that of a path
    here = os.open(tmp_path, os.O_RDONLY)
    for depth, name in enumerate(names):
        if depth == 1100:
            os.close(os.open("deep.mp4", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("deeper.mp4", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        table = find_videos(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # Python's own ways of deleting it are recursive
    assert paths(table) == ["d/" * 1100 + "deep.mp4"]
    ((path, reason),) = reasons(table).items()
    assert path.startswith("d/" * 1100 + "e")
    assert reason in ("cannot be reached (File name too long)", "is a folder that cannot be read (File name too long)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    touch(tmp_path, "walk/a.mp4", "shut/b.mp4")
    (tmp_path / "shut").chmod(0)
    try:
        table = find_videos(tmp_path, dataset="plain")
    finally:
        (tmp_path / "shut").chmod(0o700)
    assert reasons(table) == {"shut": "is a folder that cannot be read (Permission denied)"}


def test_results_of_earlier_runs_inside_the_folder_are_no_sources(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "run/extract/manifest.json", "run/extract/videos.csv", "run/extract/frames/a.mp4", "out/unfinished/b.mp4")
    table = find_videos(tmp_path, exclude=tmp_path / "out")
    assert paths(table) == ["a.mp4"]
    assert any("2 results of rspnet" in note for note in table.notes)


def test_a_limit_takes_videos_from_the_whole_list(tmp_path: Path) -> None:
    table = find_videos(touch(tmp_path, *(f"{name}/{i}.mp4" for name in "abcd" for i in range(5))))
    limited = table.limited(4)
    assert paths(limited) == ["a/0.mp4", "b/0.mp4", "c/0.mp4", "d/0.mp4"]
    assert [video.id for video in limited.videos] == [video.id for video in table.videos][::5]
    assert limited.classes == table.classes
    assert table.limited(20) is table


# Which layout it is, when nobody says


@pytest.mark.parametrize(
    ("files", "dataset"),
    [
        (["walk/a.mp4", "run/b.mp4"], "folder"),
        (["walk/a.mp4", "run/b.mp4", "c.mp4"], "plain"),
        (["walk/a.mp4"], "plain"),
        (["2023/june/a.mp4", "2024/july/b.mp4"], "plain"),
        (["a.mp4", "b.mp4"], "plain"),
    ],
)
def test_the_layout_is_inferred_and_said(tmp_path: Path, files: list[str], dataset: str) -> None:
    table = find_videos(touch(tmp_path, *files))
    assert table.dataset == dataset
    assert table.notes[0].startswith(f"Taken for --dataset {dataset}")


@pytest.mark.parametrize("lists", ["videos", "videos/ucfTrainTestlist", "ucfTrainTestlist"])
def test_ucf101_is_recognised_by_its_lists_in_or_beside_the_folder(tmp_path: Path, lists: str) -> None:
    touch(tmp_path / "videos", "Walk/v_Walk_g01_c01.avi", "Run/v_Run_g01_c01.avi")
    ucf101_lists(tmp_path / lists, ["Walk", "Run"], {1: (["Walk/v_Walk_g01_c01.avi"], ["Run/v_Run_g01_c01.avi"])})
    table = find_videos(tmp_path / "videos")
    assert table.dataset == "ucf101"
    assert "classInd.txt" in table.notes[0]
    assert table.classes == ("Walk", "Run")


def test_lists_beside_a_folder_of_other_videos_do_not_count(tmp_path: Path) -> None:
    ucf101_lists(tmp_path / "ucfTrainTestlist", ["Walk"], {1: (["Walk/v_Walk_g01_c01.avi"], [])})
    assert find_videos(touch(tmp_path / "others", "a.mp4")).dataset == "plain"


def test_annotations_tell_the_layout(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "Walk/v_Walk_g01_c01.avi")
    lists = ucf101_lists(tmp_path / "lists", ["Walk"], {1: (["Walk/v_Walk_g01_c01.avi"], [])})
    (tmp_path / "list.csv").write_text("path\nWalk/v_Walk_g01_c01.avi\n")
    assert find_videos(root, annotations=lists).dataset == "ucf101"
    assert find_videos(root, annotations=tmp_path / "list.csv").dataset == "csv"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"dataset": "folder", "annotations": "videos"}, "--annotations has no effect with --dataset folder"),
        ({"dataset": "ucf101"}, "no classInd.txt in or beside"),
        ({"dataset": "csv"}, "--dataset csv needs its list"),
        ({"dataset": "csv", "annotations": "videos"}, "--dataset csv needs its list"),
        ({"dataset": "kinetics"}, "choose one of ucf101, hmdb51, kinetics400, kinetics100, ssv2, folder, plain, csv, list"),
        ({"annotations": "videos"}, "holds no lists of a known kind"),
        ({"annotations": "gone"}, "gone does not exist"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, how: dict[str, str], words: str) -> None:
    root = touch(tmp_path / "videos", "a.mp4")
    annotations = tmp_path / how["annotations"] if "annotations" in how else None
    with pytest.raises(InputError, match=words):
        find_videos(root, dataset=how.get("dataset"), annotations=annotations)


def test_no_folder_a_file_and_a_folder_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_videos(tmp_path / "gone")
    with pytest.raises(InputError, match="is not a folder"):
        find_videos(touch(tmp_path, "a.mp4") / "a.mp4")
    with pytest.raises(InputError, match=r"There is no video in .*2 entries that by name can be no video: 2 \.txt"):
        find_videos(touch(tmp_path / "texts", "a.txt", "b.txt"))


# ucf101

WALK = [f"Walk/v_Walk_g{group:02d}_c{clip:02d}.avi" for group in (1, 2, 3) for clip in (1, 2)]
RUN = [f"Run/v_Run_g{group:02d}_c{clip:02d}.avi" for group in (1, 2, 3) for clip in (1, 2)]
SPLITS = {1: (WALK[:4] + RUN[:4], WALK[4:] + RUN[4:]), 3: (WALK[2:] + RUN[2:], WALK[:2])}


@pytest.mark.parametrize("ending", [".avi", ".mp4"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ucf101_gives_labels_groups_and_the_splits_that_are_there(tmp_path: Path, ending: str, newline: str) -> None:
    root = touch(tmp_path / "UCF-101", *(path.replace(".avi", ending) for path in WALK + RUN))
    table = find_videos(root, dataset="ucf101", annotations=ucf101_lists(tmp_path / "lists", ["Walk", "Run"], SPLITS, newline))
    assert table.classes == ("Walk", "Run")
    assert table.split_names == ("split_1", "split_3")
    videos = {video.path: video for video in table.videos}
    walk, run = videos[WALK[0].replace(".avi", ending)], videos[RUN[4].replace(".avi", ending)]
    assert (walk.id, walk.label, walk.label_name, walk.group, walk.splits) == (
        "Walk__v_Walk_g01_c01",
        0,
        "Walk",
        "Walk_g01",
        ("train", "test"),
    )
    assert (run.label, run.label_name, run.group, run.splits) == (1, "Run", "Run_g03", ("test", "train"))
    assert videos[RUN[0].replace(".avi", ending)].splits == ("train", "unused")
    assert len({video.group for video in table.videos}) == 6
    assert table.failures == table.warnings == ()


def test_ucf101_tells_listed_videos_that_are_missing_and_videos_that_are_not_listed(tmp_path: Path) -> None:
    root = touch(tmp_path / "UCF-101", *WALK[1:], "Walk/extra.mp4", "Jump/v_Jump_g01_c01.avi", "top.mp4")
    lists = ucf101_lists(tmp_path / "lists", ["Walk", "Run"], SPLITS)
    table = find_videos(root, dataset="ucf101", annotations=lists)
    assert reasons(table) == {
        WALK[0]: "is named in trainlist01.txt, testlist03.txt, but not there",
        "Jump/v_Jump_g01_c01.avi": "lies in Jump, which is no class of classInd.txt",
        "top.mp4": "lies in no folder that is a class of classInd.txt",
    }
    assert {failure.path: failure.label_name for failure in table.failures}[WALK[0]] == "Walk"
    extra = next(video for video in table.videos if video.path == "Walk/extra.mp4")
    assert (extra.label, extra.group, extra.splits) == (0, "", ("unused", "unused"))
    assert table.warnings == (
        "1 class of 2 without any video (Run): 6 list entries left out.",
        f"1 video in no list of {lists} (Walk/extra.mp4): labelled by folder, unused in every split.",
        f"1 listed video not there ({WALK[0]}): recorded as failures with their lists.",
    )


def test_of_two_files_for_one_list_entry_the_one_it_spells_is_taken(tmp_path: Path) -> None:
    root = touch(tmp_path / "UCF-101", *WALK, *RUN, WALK[0].replace(".avi", ".mp4"))
    table = find_videos(root, dataset="ucf101", annotations=ucf101_lists(tmp_path / "lists", ["Walk", "Run"], SPLITS))
    assert reasons(table) == {WALK[0].replace(".avi", ".mp4"): f"is by its name the same video as {WALK[0]}, which is taken for it"}
    assert WALK[0] in paths(table)


def test_a_broken_link_of_a_listed_video_is_one_failure(tmp_path: Path) -> None:
    root = touch(tmp_path / "UCF-101", *WALK[1:], *RUN)
    (root / WALK[0]).symlink_to("gone.avi")
    table = find_videos(root, dataset="ucf101", annotations=ucf101_lists(tmp_path / "lists", ["Walk", "Run"], SPLITS))
    assert reasons(table) == {WALK[0]: "is a link to gone.avi, which is not there"}


def test_repeated_entries_and_groups_on_both_sides_are_warned_of(tmp_path: Path) -> None:
    root = touch(tmp_path / "UCF-101", *WALK)
    lists = ucf101_lists(tmp_path / "lists", ["Walk"], {1: ([*WALK[:3], WALK[0]], WALK[3:])})
    table = find_videos(root, dataset="ucf101", annotations=lists)
    assert table.warnings == (
        f"1 entry repeated in {lists} (Walk/v_Walk_g01_c01.avi): each counts once.",
        "1 group on both sides of split 1 (Walk_g02): clips of one recording in train and test flatter every result.",
    )


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("classInd.txt", "Walk 1\n", r"classInd.txt, line 1: 'Walk 1' is not"),
        ("classInd.txt", "1 Walk\n1 Run\n", "line 2: '1 Run' repeats"),
        ("classInd.txt", "\n", "names no class"),
        ("trainlist01.txt", "\nWalk/v_Walk_g01_c01.avi 2\n", "trainlist01.txt, line 2: Walk has number 2 here, 1 in classInd.txt"),
        ("trainlist01.txt", "Fly/v.avi 1\n", "'Fly/v.avi 1' is not `<Class>/<file>`"),
        ("testlist01.txt", "Walk/v_Walk_g01_c01.mp4\n", "testlist01.txt, line 1: .* is in the train and in the test list of split 1"),
        ("trainlist02.txt", "Walk/v_Walk_g01_c01.avi 1\n", "trainlist02.txt is there, but .*testlist02.txt is not"),
    ],
)
def test_lists_that_contradict_themselves_are_refused_by_file_and_line(tmp_path: Path, file: str, content: str, words: str) -> None:
    root = touch(tmp_path / "UCF-101", *WALK)
    lists = ucf101_lists(tmp_path / "lists", ["Walk", "Run"], {1: (WALK[:1], WALK[4:])})
    (lists / file).write_text(content)
    with pytest.raises(InputError, match=words):
        find_videos(root, dataset="ucf101", annotations=lists)


def test_the_hash_of_the_lists_is_that_of_what_they_say(tmp_path: Path) -> None:
    root = touch(tmp_path / "UCF-101", *WALK)
    first, copy = (ucf101_lists(tmp_path / name, ["Walk"], {1: (WALK[:2], WALK[4:])}) for name in ("lists", "copy"))
    other = ucf101_lists(tmp_path / "other", ["Walk"], {1: (WALK[:1], WALK[4:])})
    hashes = [find_videos(root, annotations=lists).annotations_sha256 for lists in (first, copy, other)]
    assert hashes[0] == hashes[1] != hashes[2]


# csv


def csv_table(tmp_path: Path, text: str) -> VideoTable:
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    return find_videos(tmp_path / "videos", dataset="csv", annotations=tmp_path / "list.csv")


def test_a_csv_list_gives_labels_splits_and_groups(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4", "b, c.mp4", "d.bin", "not-listed.mp4")
    table = csv_table(tmp_path, '\ufefflabel,path,split,group,note\nwalk,a.mp4,train,g1,x\nrun,"b, c.mp4",test,g2,y\n,./d.bin,,,\n\n')
    assert {video.path: (video.label, video.label_name, video.group, video.splits) for video in table.videos} == {
        "a.mp4": (1, "walk", "g1", ("train",)),
        "b, c.mp4": (0, "run", "g2", ("test",)),
        "d.bin": (None, "", "", ("unused",)),
    }
    assert table.classes == ("run", "walk")
    assert table.split_names == ("split_1",)
    assert any("note" in note for note in table.notes)
    assert table.warnings == (
        "1 video without a label.",
        "1 class without a train video in split 1 (run): its test videos can never be found or classified right.",
    )


def test_a_csv_list_of_paths_alone_is_unlabelled(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4")
    table = csv_table(tmp_path, "path\na.mp4\n")
    assert (table.classes, table.split_names, table.warnings) == ((), (), ())
    assert table.videos[0].label is None


def test_rows_of_a_csv_list_that_name_no_file_are_failures_with_a_reason(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "a.mp4", os.fsdecode(b"caf\xe9.mp4"), "sub/b.mp4")
    touch(tmp_path, "outside.mp4")
    os.mkfifo(root / "pipe.mp4")
    (root / "loop.mp4").symlink_to("loop.mp4")
    listed = [
        "a.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
        str(root / "sub/b.mp4"),
        "gone.mp4",
        "../outside.mp4",
        "/etc/passwd",
        "sub",
        "pipe.mp4",
        "loop.mp4",
    ]
    table = csv_table(tmp_path, "path,label\n" + "".join(f"{path},walk\n" for path in listed))
    assert paths(table) == ["a.mp4", os.fsdecode(b"caf\xe9.mp4"), "sub/b.mp4"]
    there = "copy it there, or name a folder that holds both"
    assert reasons(table) == {
        "gone.mp4": "is named in line 5 of list.csv, but not there",
        "../outside.mp4": f"is named in line 6 of list.csv, but leads out of the folder of videos, to {tmp_path}/outside.mp4: {there}",
        "/etc/passwd": f"is named in line 7 of list.csv, but leads out of the folder of videos, to /etc/passwd: {there}",
        "sub": "is named in line 8 of list.csv, but is a folder, not a file",
        "pipe.mp4": "is named in line 9 of list.csv, but is a named pipe (FIFO), not a file",
        "loop.mp4": "is named in line 10 of list.csv, but is a link in a loop of links",
    }
    assert {failure.label_name for failure in table.failures} == {"walk"}
    assert len({failure.id for failure in table.failures}) == 6


def test_equal_rows_are_counted_and_contradicting_ones_refused(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4")
    assert "1 entry repeated" in csv_table(tmp_path, "path,label\na.mp4,walk\n./a.mp4,walk\n").warnings[0]
    with pytest.raises(InputError, match=r"lines 2 and 3 name a\.mp4 with different labels"):
        csv_table(tmp_path, "path,label\na.mp4,walk\na.mp4,run\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.mp4,walk\n", "the first line must name the columns"),
        ("", "the first line must name the columns"),
        ("path,path\na.mp4,a.mp4\n", "each once"),
        ("path,split\na.mp4,training\n", "line 2: the split 'training' is none of train, test, val"),
        ("path,label\na.mp4\n", "line 2: 1 cell where the header names 2"),
        ("path,label\n,walk\n", "line 2: the path is blank"),
        ('path\n"a.mp4\n', "no CSV file that can be read"),
    ],
)
def test_a_csv_list_that_cannot_be_understood_is_refused(tmp_path: Path, text: str, words: str) -> None:
    touch(tmp_path / "videos", "a.mp4")
    with pytest.raises(InputError, match=words):
        csv_table(tmp_path, text)
