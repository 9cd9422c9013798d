"""`rspnet merge` and `--shard` as they are typed in the tasks of a job array."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.manifest import read_manifest
from tests.encode import make_video
from tests.pretrained import make_pretrain


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three videos; the current folder is the one they lie in, the work directory the default one."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        make_video(tmp_path / f"videos/v{number}.mp4", 8, size=(40, 32), start=100 * number)
    return tmp_path / "videos"


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(args)
    return (code, *capsys.readouterr())


def test_from_shards_to_features_as_typed(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract = ["extract", "videos", "--short-side", "32", "--workers", "1"]
    for index in (2, 1):
        code, _, err = call(capsys, *extract, "--shard", f"{index}/2")
        assert code == 0
        assert f"shard {index}/2 is done" in err
    assert sorted(os.listdir("rspnet-run")) == ["extract.shard-1-of-2", "extract.shard-2-of-2"]
    code, out, err = call(capsys, "pretrain")
    assert (code, out) == (2, "")
    assert "`rspnet merge extract`" in err
    code, out, err = call(capsys, "merge", "extract", "--json")
    assert code == 0
    assert json.loads(out) == read_manifest(Path("rspnet-run/extract")).results
    assert "merge: 2/2 shards" in err
    code, _, err = call(capsys, *extract, "--shard", "2/2")
    assert (code, err) == (
        0,
        "extract: shard 2/2 is finished and part of rspnet-run/extract already; nothing to do (--force starts anew).\n",
    )
    make_pretrain(Path("rspnet-run/pretrain"), inputs={"extract": Path("rspnet-run/extract")})
    assert call(capsys, "export-features", "--device", "cpu", "--workers", "0", "--clips", "1", "--shard", "1/1")[0] == 0
    code, out, err = call(capsys, "merge", "export-features", "rspnet-run/export-features.shard-1-of-1")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [["videos", "3"], ["channels", "64"], ["clips", "1"]]
    assert sorted(os.listdir("rspnet-run")) == ["export-features", "extract", "pretrain"]


def test_a_merge_that_cannot_be_is_one_sentence_and_code_2(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "extract", "videos", "--workers", "1", "--shard", "1/3", "--out", "elsewhere/frames", "--quiet")[0] == 0
    code, out, err = call(capsys, "merge", "extract", "--out", "elsewhere/frames")
    assert (code, out) == (2, "")
    assert err.startswith("rspnet: Of the 3 shards of extract, 2 are missing (2-3)")
    assert len(err.splitlines()) == 1
    assert os.listdir("elsewhere") == ["frames.shard-1-of-3"]
