"""`rspnet preview` as typed."""

import json
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import Manifest

TINY = ["--set", "clip.frames=4", "--set", "clip.size=16", "--batch-size", "4", "--count", "3", "--workers", "0"]


def test_it_says_what_it_shows_and_where(extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", str(extracted.folder), "--work-dir", str(tmp_path), *TINY]) == 0
    out, err = capsys.readouterr()
    *videos, sheet, film = out.splitlines()
    assert len(videos) == 3
    assert all(line.split(": ")[0] in {f"v{video:03d}" for video in range(10)} for line in videos)
    assert {line.split(": ")[1] for line in videos} <= {
        "query at speed 1, key at speed 1, other key at speed 2",
        "query at speed 2, key at speed 2, other key at speed 1",
    }
    assert sheet == f"Contact sheet: {tmp_path / 'preview' / 'step-1.png'}"
    assert film == f"Film: {tmp_path / 'preview' / 'step-1.mp4'}"
    assert err == ""
    assert {path.name for path in (tmp_path / "preview").iterdir()} == {"step-1.png", "step-1.mp4", "step-1.json"}


def test_json_is_the_object_of_the_help(extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", str(extracted.folder), "--out", str(tmp_path / "o"), "--step", "2", "--json", "--quiet", *TINY]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    shown = json.loads(out)
    assert list(shown) == ["sheet", "film", "extract_digest", "config", "seed", "batch_size", "step", "videos"]
    assert shown["sheet"] == str(tmp_path / "o" / "step-2.png")
    assert shown["extract_digest"] == extracted.digest
    assert list(shown["videos"][0]) == ["id", "step", "clips"]
    assert [clip["name"] for clip in shown["videos"][0]["clips"]] == ["query", "key", "other key"]
    for clip in shown["videos"][0]["clips"]:
        assert list(clip) == ["name", "speed", "fast", "crop", "flip", "grayscale", "blur", "jitter"]
        assert clip["fast"] == (clip["speed"] > 1)


def test_a_refusal_is_one_line_and_leaves_no_folder(extracted: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", str(extracted.folder), "--out", str(tmp_path / "new"), "--step", "999", *TINY]) == 2
    assert "no step 999" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
