"""`rspnet visualize` as typed."""

import json
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from tests.extracted import make_extract
from tests.pretrained import make_pretrain

KEYS = [
    *("sheet", "film", "video", "definition", "pretrain_digest", "checkpoint", "backbone", "head", "clip", "places", "scale", "clips"),
    "failure",
]


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with an extraction and a pretraining; only its visualize folder may be written to."""
    folder = tmp_path_factory.mktemp("work")
    make_extract(folder / "extract", num_frames=(9, 10, 11))
    make_pretrain(folder / "pretrain", inputs={"extract": folder / "extract"})
    return folder


def test_several_videos_are_named_one_after_the_other(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualize", "--work-dir", str(work_dir), "--videos", "v002", "v000", "--clips", "1", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    folder = work_dir / "visualize"
    assert out.splitlines() == [
        line
        for name in ("v002", "v000")
        for line in (
            f"{name}: similarity A 1.0000 and M 1.0000",
            f"  Contact sheet: {folder / name}.png",
            f"  Film: {folder / name}.mp4",
        )
    ]
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in ("v000", "v002") for kind in ("png", "mp4", "json")}


def test_json_is_the_list_of_the_help(work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["visualize", str(work_dir / "pretrain"), "--out", str(tmp_path), "--count", "1", "--clips", "2", "--json", "--quiet"]
    assert main(typed) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert list(shown) == KEYS
    assert list(shown["scale"]) == ["low", "high"]
    assert [list(clip) for clip in shown["clips"]] == [["start_s", "end_s", "key", "similarity"]] * 2
    assert Path(shown["sheet"]).is_file()
    assert Path(shown["film"]).is_file()


def test_videos_that_fail_are_told_the_others_are_drawn_and_the_exit_code_is_1(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    typed = ["visualize", str(work_dir / "pretrain"), "--out", str(tmp_path / "out"), "--clips", "1", "--quiet"]
    assert main([*typed, "--videos", str(bad), "v001", "v1"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("v001: similarity A ")
    first, second, last = err.splitlines()
    assert first.startswith(f"{bad} ")
    assert second.startswith("v1 is neither a video of the set nor a pattern that one matches nor a file; did you mean 'v001'?")
    assert last == "rspnet: Videos that are not shown: 2 of 3."
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"v001.png", "v001.mp4", "v001.json"}
    assert main([*typed, "--json", "--videos", "v1", "v001"]) == 1
    out, err = capsys.readouterr()
    failed, drawn = json.loads(out)
    assert (list(failed), failed["video"]) == (["video", "failure"], "v1")
    assert (list(drawn), drawn["failure"]) == (KEYS, None)


def test_a_file_that_stands_alone_and_fails_leaves_no_folder(work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualize", str(work_dir / "pretrain"), "--videos", "", "--out", str(tmp_path / "new"), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 2)
    assert err.startswith('"" is neither a video of the set')
    assert not (tmp_path / "new").exists()
