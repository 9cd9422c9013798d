"""Really encoded videos in the folders of real data sets, through extract: the labels, splits and groups that later stages read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.config import ExtractConfig
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.tables import FAILURES, VIDEOS, read_table
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.store import open_store
from tests.encode import make_video, read_number, sound_only
from tests.layouts import write_lists


@dataclass(frozen=True)
class Expected:
    """What videos.csv must say: source -> (label name, group, parts), in the order of the sources' numbers."""

    dataset: str
    classes: list[str]
    videos: dict[str, tuple[str, str, tuple[str, ...]]]
    failures: dict[str, str]


def encoded(root: Path, *paths: str, codec: str = "mpeg4") -> None:
    """A video for each path, the first of which shows the numbers from 0, the next from 100 and so on."""
    for number, path in enumerate(paths):
        make_video(root / path, 6, codec, start=100 * number)


def hmdb51(base: Path) -> Expected:
    brush, wave = "winKen_brush_hair_u_nm_np1_ba_goo_{}.avi", "winKen_wave_f_cm_np1_le_bad_{}.avi"
    encoded(base / "hmdb51_org", f"brush_hair/{brush.format(0)}", f"brush_hair/{brush.format(1)}", f"wave/{wave.format(0)}")
    parts = {1: ("1", "1", "2", "1"), 2: ("2", "0", "1", "1"), 3: ("1", "2", "1", "1")}
    lists = {}
    for split, tags in parts.items():
        lists[f"brush_hair_test_split{split}.txt"] = [f"{brush.format(i)} {tags[i]} " for i in range(2)]
        lists[f"wave_test_split{split}.txt"] = [f"{wave.format(i)} {tags[2 + i]} " for i in range(2)]
    write_lists(base / "testTrainMulti_7030_splits", lists)
    return Expected(
        "hmdb51",
        ["brush_hair", "wave"],
        {
            f"brush_hair/{brush.format(0)}": ("brush_hair", "brush_hair/winKen", ("train", "test", "train")),
            f"brush_hair/{brush.format(1)}": ("brush_hair", "brush_hair/winKen", ("train", "unused", "test")),
            f"wave/{wave.format(0)}": ("wave", "wave/winKen", ("test", "train", "train")),
        },
        {f"wave/{wave.format(1)}": "is named in wave_test_split1.txt, wave_test_split2.txt, wave_test_split3.txt, but not there"},
    )


def kinetics_cvdf(base: Path) -> Expected:
    root = base / "k400"
    names = [f"{part}/{video}_000012_000022.mp4" for part, video in (("train", "a" * 11), ("train", "-b" * 5 + "b"), ("val", "c" * 11))]
    encoded(root, *names, "replacement/replacement_for_corrupted_k400/" + "d" * 11 + "_000012_000022.mp4", codec="h264")
    header = "label,youtube_id,time_start,time_end,split,is_cc"
    train = [f"air drumming,{'a' * 11},12,22,train,0", f"zumba,{'-b' * 5}b,12,22,train,0", f"zumba,{'d' * 11},12,22,train,0"]
    val = [f"zumba,{'c' * 11},12,22,val,0", f"air drumming,{'e' * 11},12,22,val,0"]
    write_lists(root / "annotations", {"train.csv": [header, *train], "val.csv": [header, *val]})
    return Expected(
        "kinetics400",
        ["air drumming", "zumba"],
        {
            names[0]: ("air drumming", "a" * 11, ("train",)),
            names[1]: ("zumba", "-b" * 5 + "b", ("train",)),
            names[2]: ("zumba", "c" * 11, ("test",)),
            "replacement/replacement_for_corrupted_k400/" + "d" * 11 + "_000012_000022.mp4": ("zumba", "d" * 11, ("train",)),
        },
        {"e" * 11 + "_000012_000022.mp4": "is named in val.csv, but not there"},
    )


def kinetics_folders(base: Path) -> Expected:
    names = [
        f"{part}_video/{folder}/{id_ * 11}.mp4" for part, folder, id_ in (("train", "run", "a"), ("train", "sit", "b"), ("val", "run", "c"))
    ]
    encoded(base / "kinetics", *names, codec="h264")
    sound_only(base / "kinetics/train_video/sit/sound.mp4")  # the published data set has some
    return Expected(
        "kinetics400",
        ["run", "sit"],
        {names[0]: ("run", "a" * 11, ("train",)), names[1]: ("sit", "b" * 11, ("train",)), names[2]: ("run", "c" * 11, ("test",))},
        {"train_video/sit/sound.mp4": "has no video stream"},
    )


def ssv2(base: Path) -> Expected:
    encoded(base / "20bn-something-something-v2", "9.webm", "10.webm", "220.webm", codec="vp9")
    classes = {"Pushing something": "1", "Lifting something up": "0"}
    rows = {"train": [("9", "Pushing [something]"), ("10", "Lifting [something] up")], "validation": [("220", "Pushing [something]")]}
    content: dict[str, Any] = {"labels": classes}
    content |= {name: [{"id": video, "template": template} for video, template in items] for name, items in rows.items()}
    lists = {f"something-something-v2-{name}.json": [json.dumps(value)] for name, value in content.items()}
    write_lists(base / "labels", lists)
    return Expected(
        "ssv2",
        ["Lifting something up", "Pushing something"],
        {
            "9.webm": ("Pushing something", "", ("train",)),
            "10.webm": ("Lifting something up", "", ("train",)),
            "220.webm": ("Pushing something", "", ("test",)),
        },
        {},
    )


def toolkit(base: Path) -> Expected:
    encoded(base / "videos", "Walk/v_Walk_g01_c01.avi", "Walk/v_Walk_g02_c01.avi", "Run/v_Run_g01_c01.avi")
    lists = {
        "ucf_train_split_1_videos.txt": ["Walk/v_Walk_g01_c01.avi 1", "Run/v_Run_g01_c01.avi 0"],
        "ucf_val_split_1_videos.txt": ["Walk/v_Walk_g02_c01.avi 1", "Run/gone.avi 0"],
        "label_map.txt": ["Run", "Walk"],
    }
    write_lists(base / "annotations", lists)
    return Expected(
        "list",
        ["Run", "Walk"],
        {
            "Walk/v_Walk_g01_c01.avi": ("Walk", "Walk_g01", ("train",)),
            "Walk/v_Walk_g02_c01.avi": ("Walk", "Walk_g02", ("test",)),
            "Run/v_Run_g01_c01.avi": ("Run", "Run_g01", ("train",)),
        },
        {"Run/gone.avi": "is named in ucf_val_split_1_videos.txt, but not there"},
    )


@pytest.mark.parametrize(
    ("make", "videos", "annotations"),
    [
        (hmdb51, "hmdb51_org", None),
        (kinetics_cvdf, "k400", None),
        (kinetics_folders, "kinetics", None),
        (ssv2, "20bn-something-something-v2", None),
        (toolkit, "videos", "annotations"),
    ],
)
def test_a_data_set_becomes_frames_with_its_labels_splits_and_groups(
    tmp_path: Path, make: Callable[[Path], Expected], videos: str, annotations: str | None
) -> None:
    expected = make(tmp_path)
    config = validated(ExtractConfig, {"short_side": 32, "workers": 1})
    lists = tmp_path / annotations if annotations else None
    manifest = extract(config, videos=tmp_path / videos, annotations=lists, out=tmp_path / "out")
    assert manifest.config["dataset"] == expected.dataset
    table = read_frames(manifest)
    assert len(table.split_columns) == len(next(iter(expected.videos.values()))[2])
    rows = {row["source"]: row for row in read_table(manifest.folder / VIDEOS.file, VIDEOS).to_dict("records")}
    assert {
        source: (row["label_name"], row["group"], tuple(row[column] for column in table.split_columns)) for source, row in rows.items()
    } == expected.videos
    assert {source: row["label"] for source, row in rows.items()} == {
        source: expected.classes.index(label_name) for source, (label_name, _, _) in expected.videos.items()
    }
    failures = read_table(manifest.folder / FAILURES.file, FAILURES)
    assert failures["source"].tolist() == sorted(expected.failures)
    assert all(expected.failures[source] in reason for source, reason in zip(failures["source"], failures["reason"], strict=True))
    for number, source in enumerate(expected.videos):  # every row's frames are those of its own source
        with open_store(manifest.folder / rows[source]["frames_file"]) as store:
            assert read_number(store.read([0])[0]) == 100 * number


def test_kinetics_100_is_kinetics_400_without_the_large_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinetics_folders(tmp_path)
    make_video(tmp_path / "kinetics/train_video/large/zzzzzzzzzzz.mp4", 60, size=(320, 240))
    make_video(tmp_path / "kinetics/val_video/large/yyyyyyyyyyy.mp4", 6)
    monkeypatch.setattr("rspnet_cli.videos.sources.NUM_SMALLEST", 2)
    config = validated(ExtractConfig, {"dataset": "kinetics100", "short_side": 32, "workers": 1})
    manifest = extract(config, videos=tmp_path / "kinetics", out=tmp_path / "out")
    table = read_table(manifest.folder / VIDEOS.file, VIDEOS)
    assert sorted(set(table["label_name"])) == ["run", "sit"]
    assert (manifest.config["dataset"], manifest.results["videos"], manifest.results["classes"]) == ("kinetics100", 3, 2)
