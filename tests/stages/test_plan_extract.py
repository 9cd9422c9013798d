"""The dry run of extract: what it counts, what it says of the folder of the result, and that nothing stays of it."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.stages.plan_extract import ClassCounts, Plan, plan_extract
from tests.encode import make_video, not_a_video
from tests.layouts import touch, write_lists
from tests.sentences import refused


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of HMDB51's layout; one listed clip is not there, one file is in no list, one is no video. Not to be written to."""
    root = tmp_path_factory.mktemp("hmdb51") / "videos"
    names = {name: [f"s{i}_{name}_f_cm_np1_le_bad_{i}.avi" for i in range(4)] for name in ("kick", "wave")}
    for name, clips in names.items():
        for clip in clips[:3]:
            make_video(root / name / clip, 8, "mpeg4")
    not_a_video(root / "kick" / names["kick"][3])
    make_video(root / "wave" / "extra.avi", 8, "mpeg4")
    tags = {1: "1122", 2: "2210"}
    lists = {
        f"{name}_test_split{split}.txt": [f"{clip} {tag}" for clip, tag in zip(clips, tags[split], strict=True)]
        for split in tags
        for name, clips in names.items()
    }
    lists["kick_test_split1.txt"].append(lists["kick_test_split1.txt"][0])
    write_lists(root.parent / "testTrainMulti_7030_splits", lists)
    return root


def plan(videos: Path, out: Path, **settings: Any) -> Plan:
    return plan_extract(validated(ExtractConfig, {"short_side": 32, "workers": 1} | settings), videos=videos, out=out)


def test_it_counts_by_class_and_split_and_names_what_is_wrong(hmdb51: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = plan(hmdb51, tmp_path / "out")
    assert os.listdir(tmp_path) == []
    assert (found.dataset, found.videos, found.failed) == ("hmdb51", 8, 1)
    assert found.splits == {"split_1": {"train": 4, "test": 3, "unused": 1}, "split_2": {"test": 4, "train": 2, "unused": 2}}
    kick = {"split_1": {"train": 2, "test": 2}, "split_2": {"test": 2, "train": 1, "unused": 1}}
    wave = {"split_1": {"train": 2, "test": 1, "unused": 1}, "split_2": {"test": 2, "train": 1, "unused": 1}}
    assert found.classes == [ClassCounts("kick", 0, 4, 0, kick), ClassCounts("wave", 1, 4, 1, wave)]
    assert found.missing == ["wave/s3_wave_f_cm_np1_le_bad_3.avi"]
    assert found.extra == ["wave/extra.avi"]
    assert found.repeated == ["kick/s0_kick_f_cm_np1_le_bad_0.avi"]
    assert found.failures == {found.missing[0]: "is named in wave_test_split1.txt, wave_test_split2.txt, but not there"}
    assert any("Taken for --dataset hmdb51" in note for note in found.notes)
    assert sum("listed video not there" in warning for warning in found.warnings) == 1
    assert found.estimate is not None
    assert list(found.estimate.failures) == ["kick/s3_kick_f_cm_np1_le_bad_3.avi"]
    assert found.free_bytes is not None
    manifest = extract(validated(ExtractConfig, {"short_side": 32, "workers": 1}), videos=hmdb51, out=tmp_path / "extract")
    assert found.estimate.bytes is not None
    assert found.estimate.bytes.value == manifest.results["bytes"]
    assert manifest.results["failed"] == found.failed + len(found.estimate.failures)


def test_videos_without_labels_are_one_line_without_a_class(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/a.mp4", 8)
    make_video(tmp_path / "videos/b/c/d.mp4", 8)
    found = plan(tmp_path / "videos", tmp_path / "out")
    assert found.classes == [ClassCounts("", None, 2, 0, {})]
    assert (found.splits, found.extra) == ({}, [])


def test_a_list_is_compared_with_all_videos_below_the_folder(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/a.mp4", 8)
    touch(tmp_path / "videos", "more/b.mp4")
    (tmp_path / "list.csv").write_text("path,label\na.mp4,walk\n")
    config = validated(ExtractConfig, {"short_side": 32, "workers": 1})
    found = plan_extract(config, videos=tmp_path / "videos", annotations=tmp_path / "list.csv", out=tmp_path / "out")
    assert (found.extra, found.videos) == (["more/b.mp4"], 1)


def test_it_says_what_the_folder_of_the_result_holds(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/a.mp4", 8)
    out = tmp_path / "out"
    assert plan(tmp_path / "videos", out).out_holds == "no result yet"
    config = validated(ExtractConfig, {"short_side": 32, "workers": 1})
    not_a_video(tmp_path / "videos/b.mp4")
    with pytest.raises(RspnetError, match="--strict"):
        extract(config, videos=tmp_path / "videos", out=out, strict=True)
    assert "an unfinished extract with these settings: it would be continued" in plan(tmp_path / "videos", out).out_holds
    extract(config, videos=tmp_path / "videos", out=out)
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    assert "a finished extract with these settings: there is nothing to do" in plan(tmp_path / "videos", out).out_holds
    assert "other settings (crf was 20, now 30): --force would replace it" in plan(tmp_path / "videos", out, crf=30).out_holds
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before
    (out / "manifest.json").write_text("{}")
    assert "cannot be read" in plan(tmp_path / "videos", out).out_holds


def test_a_limit_holds_and_what_extract_refuses_is_refused(hmdb51: Path, tmp_path: Path) -> None:
    assert plan(hmdb51, tmp_path / "out", limit=3).videos == 3
    with pytest.raises(InputError) as error:
        plan(hmdb51, tmp_path / "out", frames_fps=10)
    refused(error.value, "--frames-fps has no effect")
    with pytest.raises(InputError) as error:
        plan(hmdb51, hmdb51)
    refused(error.value, "would hold the result and holds the videos")
