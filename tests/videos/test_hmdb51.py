from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.videos.hmdb51 import group_of
from rspnet_cli.videos.sources import find_videos
from tests.layouts import by_path, paths, reasons, touch, write_lists
from tests.sentences import refused

BRUSH = [f"April_09_brush_hair_u_nm_np1_ba_goo_{number}.avi" for number in range(2)] + ["winKen_brush_hair_h_cm_np2_fr_med_0.avi"]
WAVE = ["April_09_wave_f_cm_np1_le_bad_3.avi", "(Rad)[1]_wave_l_nm_np1_ri_med_12.avi"]


def hmdb51(tmp_path: Path, *, lists: str = "testTrainMulti_7030_splits", newline: str = "\n") -> Path:
    """Two classes, two splits; every line ends with a blank, as in the published lists."""
    tags = {1: ["1", "1", "2", "2", "1"], 2: ["2", "2", "1", "0", "2"]}
    files = {}
    for split, values in tags.items():
        files[f"brush_hair_test_split{split}.txt"] = [f"{name} {tag} " for name, tag in zip(BRUSH, values[:3], strict=True)]
        files[f"wave_test_split{split}.txt"] = [f"{name} {tag} " for name, tag in zip(WAVE, values[3:], strict=True)]
    write_lists(tmp_path / lists, files, newline)
    return touch(tmp_path / "videos", *(f"brush_hair/{name}" for name in BRUSH), *(f"wave/{name}" for name in WAVE))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_labels_count_sorted_classes_and_tags_are_the_parts(tmp_path: Path, newline: str) -> None:
    table = find_videos(hmdb51(tmp_path, newline=newline), dataset="hmdb51")
    assert (table.classes, table.split_names) == (("brush_hair", "wave"), ("split_1", "split_2"))
    videos = by_path(table)
    assert {path: (video.label, *video.splits) for path, video in videos.items()} == {
        f"brush_hair/{BRUSH[0]}": (0, "train", "test"),
        f"brush_hair/{BRUSH[1]}": (0, "train", "test"),
        f"brush_hair/{BRUSH[2]}": (0, "test", "train"),
        f"wave/{WAVE[0]}": (1, "test", "unused"),
        f"wave/{WAVE[1]}": (1, "train", "test"),
    }
    assert table.failures == ()
    assert table.missing == table.extra == ()


def test_clips_of_one_source_and_class_are_a_group(tmp_path: Path) -> None:
    videos = by_path(find_videos(hmdb51(tmp_path), dataset="hmdb51"))
    assert {path.split("/")[1]: video.group for path, video in videos.items()} == {
        BRUSH[0]: "brush_hair/April_09",
        BRUSH[1]: "brush_hair/April_09",
        BRUSH[2]: "brush_hair/winKen",
        WAVE[0]: "wave/April_09",
        WAVE[1]: "wave/(Rad)[1]",
    }


SOURCES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    source=SOURCES,
    class_name=st.sampled_from(["wave", "brush_hair", "kick_ball"]),
    body=st.sampled_from("hufl"),
    camera=st.sampled_from(["cm", "nm"]),
    people=st.integers(0, 12),
    view=st.sampled_from(["fr", "ba", "le", "ri"]),
    quality=st.sampled_from(["bad", "med", "goo"]),
    number=st.integers(0, 200),
)
def test_the_group_is_the_source_whatever_it_is_called(
    source: str, class_name: str, body: str, camera: str, people: int, view: str, quality: str, number: int
) -> None:
    stem = f"{source}_{class_name}_{body}_{camera}_np{people}_{view}_{quality}_{number}"
    assert group_of(class_name, stem) == f"{class_name}/{source}"


@pytest.mark.parametrize("stem", ["", "wave_1", "a_wave_x_cm_np1_le_bad_3", "a_wave_f_cm_np1_le_bad_3_more", "a_wave_f_cm_npx_le_bad_3"])
def test_other_names_have_no_group(stem: str) -> None:
    assert group_of("wave", stem) == ""


@pytest.mark.parametrize("lists", ["testTrainMulti_7030_splits", "videos/metafile", "videos", "annotations"])
def test_the_lists_in_or_beside_the_folder_tell_the_layout(tmp_path: Path, lists: str) -> None:
    table = find_videos(hmdb51(tmp_path, lists=lists))
    assert table.dataset == "hmdb51"
    assert table.notes[0].startswith("Taken for --dataset hmdb51")
    assert find_videos(tmp_path / "videos", annotations=tmp_path / lists).dataset == "hmdb51"


def test_lists_beside_a_folder_of_other_videos_do_not_count(tmp_path: Path) -> None:
    hmdb51(tmp_path)
    assert find_videos(touch(tmp_path / "others", "run/a.mp4", "sit/a.mp4")).dataset == "folder"


def test_a_class_index_beside_the_lists_does_not_make_it_ucf101(tmp_path: Path) -> None:
    root = hmdb51(tmp_path, lists="annotations")
    write_lists(tmp_path / "annotations", {"classInd.txt": ["1 brush_hair", "2 wave"], "trainlist01.txt": [], "testlist01.txt": []})
    assert find_videos(root, annotations=tmp_path / "annotations").dataset == "hmdb51"


def test_missing_extra_and_double_videos_are_counted_and_named(tmp_path: Path) -> None:
    root = hmdb51(tmp_path)
    (root / "brush_hair" / BRUSH[1]).unlink()
    touch(root, "wave/other.avi", f"wave/{WAVE[0].replace('.avi', '.mp4')}", "fly/a.avi")
    table = find_videos(root)
    assert reasons(table) == {
        f"brush_hair/{BRUSH[1]}": "is named in brush_hair_test_split1.txt, brush_hair_test_split2.txt, but not there",
        f"wave/{WAVE[0].replace('.avi', '.mp4')}": f"is by its name the same video as wave/{WAVE[0]}, which is taken for it",
        "fly/a.avi": "lies in fly, which is no class of the lists in testTrainMulti_7030_splits",
    }
    assert (table.missing, table.extra) == ((f"brush_hair/{BRUSH[1]}",), ("wave/other.avi",))
    assert by_path(table)["wave/other.avi"].splits == ("unused", "unused")
    assert any("1 video in no list" in warning and "wave/other.avi" in warning for warning in table.warnings)
    assert any("1 listed video not there" in warning for warning in table.warnings)


def test_a_class_without_a_train_video_is_told(tmp_path: Path) -> None:
    root = hmdb51(tmp_path)
    (root / "wave" / WAVE[1]).unlink()
    assert "1 class without a train video in split 1 (wave): its test videos can never be found or classified right." in (
        find_videos(root).warnings
    )


def test_a_part_of_the_data_set_is_one_warning_not_a_failure_for_every_video(tmp_path: Path) -> None:
    root = hmdb51(tmp_path)
    for name in WAVE:
        (root / "wave" / name).unlink()
    table = find_videos(root)
    assert table.failures == ()
    assert "1 class of 2 without any video (wave): 2 list entries left out." in table.warnings
    assert table.classes == ("brush_hair", "wave")  # the labels stay those of the whole


def test_none_of_the_listed_videos_is_there(tmp_path: Path) -> None:
    hmdb51(tmp_path)
    root = touch(tmp_path / "elsewhere", "notes.txt")
    with pytest.raises(InputError) as error:
        find_videos(root, annotations=tmp_path / "testTrainMulti_7030_splits")
    refused(error.value, "None of the 5 videos of", BRUSH[0], "name the folder that the lists count from")


@pytest.mark.parametrize(
    ("file", "lines", "words"),
    [
        ("wave_test_split1.txt", ["a.avi 3"], "wave_test_split1.txt, line 1: 'a.avi 3' is not `<clip>.avi 0`, 1 or 2"),
        ("wave_test_split1.txt", ["", "a.avi"], "line 2: 'a.avi' is not"),
        ("wave_test_split1.txt", ["../a.avi 1"], "line 1"),
        ("wave_test_split1.txt", ["a.avi 1", "a.avi 2"], "line 2: wave/a.avi is in the train and in the test list of split 1"),
        ("wave_test_split3.txt", ["a.avi 1"], "has no brush_hair_test_split3.txt"),
    ],
)
def test_lists_that_contradict_themselves_are_refused_by_file_and_line(tmp_path: Path, file: str, lines: list[str], words: str) -> None:
    root = hmdb51(tmp_path)
    write_lists(tmp_path / "testTrainMulti_7030_splits", {file: lines})
    with pytest.raises(InputError) as error:
        find_videos(root)
    refused(error.value, words)


def test_without_lists_it_says_what_is_needed(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "wave/a.avi")
    with pytest.raises(InputError) as error:
        find_videos(root, dataset="hmdb51")
    refused(error.value, "no <class>_test_split1.txt in or beside", "--annotations")
    with pytest.raises(InputError) as error:
        find_videos(root, dataset="hmdb51", annotations=root)
    refused(error.value, "holds no <class>_test_split1.txt")
    assert paths(find_videos(root)) == ["wave/a.avi"]
