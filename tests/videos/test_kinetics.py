from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.videos.kinetics import list_kinetics
from rspnet_cli.videos.sources import find_videos
from rspnet_cli.videos.walk import FoundFile, Walk
from tests.layouts import by_path, paths, reasons, touch, write_lists
from tests.sentences import refused

DRUM = ["-3B32lodo2M", "_dbcJuKJQNs"]
CLIMB = ["0wR5jVB-WPk", "NLL667uPWVA", "eiZ8Hzc7FPU"]
HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def clip(video: str, start: int = 12) -> str:
    return f"{video}_{start:06d}_{start + 10:06d}.mp4"


def by_folders(tmp_path: Path, train: str, val: str) -> Path:
    return touch(
        tmp_path / "kinetics",
        f"{train}/air_drumming/{clip(DRUM[0])}",
        f"{val}/air_drumming/{clip(DRUM[1])}",
        f"{train}/climbing/{clip(CLIMB[0])}",
        f"{train}/climbing/{CLIMB[1]}.mp4",
        f"{val}/climbing/{clip(CLIMB[2])}",
    )


def cvdf(tmp_path: Path, *, train: list[str] | None = None) -> Path:
    """CVDF's copy: all classes in one folder, CSV files in annotations/."""
    rows = {
        "train.csv": train
        or [HEADER, f'"air drumming",{DRUM[0]},12,22,train,0', f"climbing,{CLIMB[0]},12,22,train,1", f"climbing,{CLIMB[1]},0,10,train,0"],
        "val.csv": [HEADER, f'"air drumming",{DRUM[1]},12,22,val,0', f"climbing,{CLIMB[2]},12.0,22.0,validate,0"],
        "test.csv": ["youtube_id,time_start,time_end,split", "QuUC4vJs---,84,94,test"],
    }
    root = touch(
        tmp_path / "k400",
        *(f"train/{clip(video)}" for video in (DRUM[0], CLIMB[0])),
        f"train/{clip(CLIMB[1], 0)}",
        *(f"val/{clip(video)}" for video in (DRUM[1], CLIMB[2])),
        "test/QuUC4vJs---_000084_000094.mp4",
    )
    write_lists(root / "annotations", rows)
    return root


@pytest.mark.parametrize(("train", "val"), [("train_video", "val_video"), ("train", "val"), ("videos_train", "videos_val")])
def test_class_folders_of_train_and_val_are_labels_and_split(tmp_path: Path, train: str, val: str) -> None:
    table = find_videos(by_folders(tmp_path, train, val), dataset="kinetics400")
    assert (table.classes, table.split_names) == (("air_drumming", "climbing"), ("split_1",))
    assert {path: (video.label, video.group, video.splits) for path, video in by_path(table).items()} == {
        f"{train}/air_drumming/{clip(DRUM[0])}": (0, DRUM[0], ("train",)),
        f"{val}/air_drumming/{clip(DRUM[1])}": (0, DRUM[1], ("test",)),
        f"{train}/climbing/{clip(CLIMB[0])}": (1, CLIMB[0], ("train",)),
        f"{train}/climbing/{CLIMB[1]}.mp4": (1, CLIMB[1], ("train",)),
        f"{val}/climbing/{clip(CLIMB[2])}": (1, CLIMB[2], ("test",)),
    }
    assert (table.failures, table.warnings, table.missing, table.extra) == ((), (), (), ())
    assert "Split 1 trains on train and tests on val, as publications do." in table.notes


def test_the_csv_files_label_what_lies_in_no_class_folder(tmp_path: Path) -> None:
    table = find_videos(cvdf(tmp_path))
    assert table.dataset == "kinetics400"
    assert table.classes == ("air drumming", "climbing")
    assert {path: (video.label_name, video.splits) for path, video in by_path(table).items()} == {
        f"train/{clip(DRUM[0])}": ("air drumming", ("train",)),
        f"train/{clip(CLIMB[0])}": ("climbing", ("train",)),
        f"train/{clip(CLIMB[1], 0)}": ("climbing", ("train",)),
        f"val/{clip(DRUM[1])}": ("air drumming", ("test",)),
        f"val/{clip(CLIMB[2])}": ("climbing", ("test",)),
    }
    assert "1 video in test/ left out: neither train nor val." in table.notes
    assert table.failures == ()


def test_a_single_csv_file_can_be_named(tmp_path: Path) -> None:
    root = cvdf(tmp_path)
    table = find_videos(root, annotations=root / "annotations/train.csv")
    assert table.dataset == "kinetics400"
    assert len(table.videos) == 3
    assert table.extra == (f"val/{clip(DRUM[1])}", f"val/{clip(CLIMB[2])}")


def test_replacements_take_the_place_of_videos_and_fill_gaps(tmp_path: Path) -> None:
    root = cvdf(tmp_path)
    (root / "train" / clip(CLIMB[1], 0)).unlink()
    there = "replacement/replacement_for_corrupted_k400"
    touch(root, *(f"{there}/{name}" for name in (clip(DRUM[0], 3), clip(CLIMB[1], 0), clip("QQQQQQQQQQQ"))))
    table = find_videos(root)
    videos = by_path(table)
    assert f"train/{clip(DRUM[0])}" not in videos
    drum, climb = videos[f"{there}/{clip(DRUM[0], 3)}"], videos[f"{there}/{clip(CLIMB[1], 0)}"]
    assert (drum.label_name, drum.group, drum.splits) == ("air drumming", DRUM[0], ("train",))
    assert (climb.label_name, climb.group, climb.splits) == ("climbing", CLIMB[1], ("train",))
    assert table.failures == ()
    assert table.extra == (f"{there}/{clip('QQQQQQQQQQQ')}",)
    assert "2 corrupted videos replaced by those of replacement/." in table.notes


def test_replacements_need_no_lists_beside_class_folders(tmp_path: Path) -> None:
    root = touch(by_folders(tmp_path, "train", "val"), f"replacement/{clip(CLIMB[0])}")
    video = by_path(find_videos(root, dataset="kinetics400"))[f"replacement/{clip(CLIMB[0])}"]
    assert (video.label_name, video.splits) == ("climbing", ("train",))


def test_beside_class_folders_the_lists_tell_what_is_missing(tmp_path: Path) -> None:
    root = by_folders(tmp_path, "train", "val")
    lists = cvdf(tmp_path, train=[HEADER, f"air drumming,{DRUM[0]},12,22,train,0", "climbing,zzzzzzzzzzz,7,17,train,0"]) / "annotations"
    table = find_videos(root, annotations=lists)
    assert table.classes == ("air_drumming", "climbing")  # spelled as the folders are
    assert reasons(table) == {"zzzzzzzzzzz_000007_000017.mp4": "is named in train.csv, but not there"}
    assert {failure.label_name for failure in table.failures} == {"climbing"}
    assert len(table.videos) == 5
    assert table.missing == ("zzzzzzzzzzz_000007_000017.mp4",)


def test_a_folder_that_contradicts_the_lists_counts_and_is_told(tmp_path: Path) -> None:
    root = by_folders(tmp_path, "train", "val")
    lists = cvdf(tmp_path, train=[HEADER, f"climbing,{DRUM[0]},12,22,train,0"]) / "annotations"
    table = find_videos(root, annotations=lists)
    assert by_path(table)[f"train/air_drumming/{clip(DRUM[0])}"].label_name == "air_drumming"
    assert any("1 video in the folder of another class than the lists say" in warning for warning in table.warnings)


def test_one_video_in_train_and_val_is_told(tmp_path: Path) -> None:
    root = touch(by_folders(tmp_path, "train", "val"), f"val/climbing/{clip(CLIMB[0], 99)}")
    warnings = find_videos(root, dataset="kinetics400").warnings
    assert any(f"1 group on both sides of split 1 ({CLIMB[0]})" in warning for warning in warnings)


def test_two_files_of_one_clip_are_one_video_and_two_clips_of_one_video_are_two(tmp_path: Path) -> None:
    root = touch(
        by_folders(tmp_path, "train", "val"),
        f"train/climbing/{clip(CLIMB[0]).replace('.mp4', '.webm')}",
        f"train/climbing/{clip(CLIMB[0], 40)}",
    )
    table = find_videos(root, dataset="kinetics400")
    assert len(table.videos) == 6
    (reason,) = reasons(table).values()
    assert reason.startswith("is by its name the same video as")


def test_kinetics_100_is_the_classes_of_the_fewest_train_bytes() -> None:
    sizes = {f"class {number:03d}": 1000 - number for number in range(120)} | {"class 050": 2000}
    found = Walk(files=[FoundFile(f"train/{name}/a.mp4", size, 0) for name, size in sizes.items()])
    found.files += [FoundFile(f"val/{name}/b.mp4", 1, 0) for name in sizes]  # val does not count
    found.refused = [("train/class 000/pipe.mp4", "is a named pipe (FIFO), not a file")]
    listing = list_kinetics(Path("k"), found, None, smallest=100)
    # The smaller the number the larger the class, but for class 050, the largest of all.
    expected = [f"class {number:03d}" for number in range(19, 120) if number != 50]
    assert listing.classes == expected
    assert {item.label_name for item in listing.files} == set(expected)
    assert len(listing.files) == 200
    assert listing.refused == []
    assert any("The 100 of 120 classes with the fewest bytes" in note for note in listing.notes)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 30))
def test_the_smallest_classes_are_those_that_sorting_gives(sizes: list[int], number: int) -> None:
    found = Walk(files=[FoundFile(f"train_video/c{i:02d}/{j}.mp4", size, 0) for i, size in enumerate(sizes) for j in range(2)])
    kept = list_kinetics(Path("k"), found, None, smallest=number).classes
    order = sorted(range(len(sizes)), key=lambda i: (2 * sizes[i], i))
    assert list(kept) == [f"c{i:02d}" for i in sorted(order[:number])]


def test_fewer_classes_than_a_hundred_are_told(tmp_path: Path) -> None:
    table = find_videos(by_folders(tmp_path, "train", "val"), dataset="kinetics100")
    assert table.classes == ("air_drumming", "climbing")
    assert any("Only 2 classes with train videos" in warning for warning in table.warnings)


@pytest.mark.parametrize(("train", "val"), [("train_video", "val_video"), ("train", "val"), ("videos_train", "videos_val")])
def test_it_is_recognised_by_its_own_folders_or_by_names_with_times(tmp_path: Path, train: str, val: str) -> None:
    root = by_folders(tmp_path, train, val)
    (root / train / "climbing" / f"{CLIMB[1]}.mp4").unlink()  # in train/ and val/ only names with times leave no doubt
    table = find_videos(root)
    assert table.dataset == "kinetics400"
    assert table.notes[0].startswith("Taken for --dataset kinetics400")


def test_other_train_and_val_folders_are_no_kinetics_but_the_hint_is_given(tmp_path: Path) -> None:
    table = find_videos(touch(tmp_path, "train/walk/a.mp4", "val/walk/b.mp4"))
    assert table.dataset == "plain"
    assert "--dataset kinetics400: train/ and val/ with a class per sub-folder" in table.notes[0]
    assert find_videos(tmp_path, dataset="kinetics400").classes == ("walk",)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (["label,youtube_id,split", "climbing,x,training"], "train.csv, line 2: the split 'training' is none of train, val and test"),
        (["label,youtube_id,split", ",x,train"], "train.csv, line 2: the label is blank"),
        (["label,youtube_id", "climbing,"], "train.csv, line 2: the youtube_id is blank"),
        (["youtube_id,split", "x,train"], "there is no label: take the list with labels"),
        (["label,youtube_id", "climbing,x,y"], "train.csv, line 2: 3 cells where the header names 2"),
    ],
)
def test_csv_files_of_another_form_are_refused_by_line(tmp_path: Path, train: list[str], words: str) -> None:
    root = cvdf(tmp_path, train=train)
    with pytest.raises(InputError) as error:
        find_videos(root)
    refused(error.value, words)


def test_times_that_are_no_numbers_do_not_matter(tmp_path: Path) -> None:
    rows = [HEADER, f"climbing,{CLIMB[0]},1e999,nan,train,0", f"climbing,{CLIMB[1]},,,train,0", f"air drumming,{DRUM[0]},x,y,train,0"]
    assert len(find_videos(cvdf(tmp_path, train=rows)).videos) == 5


def test_without_lists_labels_cannot_be_known(tmp_path: Path) -> None:
    root = touch(tmp_path / "k400", f"train/{clip(DRUM[0])}", f"val/{clip(DRUM[1])}")
    with pytest.raises(InputError) as error:
        find_videos(root, dataset="kinetics400")
    refused(error.value, "lies in no class folder, and there is no CSV file", "--annotations")
    write_lists(tmp_path / "lists", {"a.csv": ["path,label"]})
    with pytest.raises(InputError) as error:
        find_videos(root, dataset="kinetics400", annotations=tmp_path / "lists")
    refused(error.value, "holds no CSV file label,youtube_id")


def test_a_folder_without_train_and_val_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        find_videos(touch(tmp_path, "walk/a.mp4"), dataset="kinetics400")
    refused(error.value, "has no video in a folder train_video, val_video, train or val")


def test_videos_outside_the_parts_are_counted_not_failed(tmp_path: Path) -> None:
    root = touch(by_folders(tmp_path, "train", "val"), "test/climbing/a.mp4", "b.mp4")
    table = find_videos(root, dataset="kinetics400")
    assert table.failures == ()
    assert "1 video in test/ left out: neither train nor val." in table.notes
    assert "1 video in no folder left out: neither train nor val." in table.notes
    assert len(paths(table)) == 5
