"""`rspnet search` as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.config import ExportConfig
from rspnet_cli.stages.export_features import export_features
from tests.encode import make_video, truncated
from tests.evaluation.tables import make_export, make_table
from tests.extracted import make_extract
from tests.pretrained import make_pretrain
from tests.processes import ROOT, children_of, fork, wait, wait_until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a work directory in the default place; videos v000.mp4 to v002.mp4 lie in rspnet-run/extract-sources."""
    folder = tmp_path_factory.mktemp("search")
    work = folder / "rspnet-run"
    make_extract(work / "extract", num_frames=(9, 20, 30), labelled=True)
    make_pretrain(work / "pretrain", inputs={"extract": work / "extract"})
    export_features(ExportConfig(clips=2, workers=0), pretrain=work / "pretrain", out=work / "export-features")
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `made`, to stand in; pages that a test writes go elsewhere."""
    monkeypatch.chdir(made)
    return made


VIDEOS = "rspnet-run/extract-sources"


def test_a_table_shows_the_nearest_videos(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", f"{VIDEOS}/v001.mp4", "id:v000", "--topk", "2", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [line.split() for line in printed.out.splitlines() if line.strip() and not set(line) <= set(" ─")]
    assert lines[0] == f"{VIDEOS}/v001.mp4: nearest of 3 videos".split()
    assert lines[1] == ["rank", "similarity", "seconds", "query", "seconds", "label", "video"]
    assert lines[2] == ["1", "1.0000", "00:00.00-00:00.16", "00:00.00-00:00.16", "odd", "v001"]
    assert lines[4:6] == [["id:v000:", "nearest", "of", "3", "videos"], lines[1]]
    assert lines[6][-2:] == ["even", "v000"]


def test_videos_without_labels_have_no_column_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_export(tmp_path / "export", make_table(labelled=False))
    assert main(["search", "id:c0_g0_0", "--features", str(tmp_path / "export")]) == 0
    assert "label" not in capsys.readouterr().out


def test_json_has_the_keys_of_the_help_and_failures_exit_1(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = truncated(make_video(tmp_path / "whole.mp4", 60), tmp_path / "cut.mp4", 0.7)
    page = tmp_path / "page.html"
    assert main(["search", str(cut), "id:v001", "nowhere.mp4", "--json", "--quiet", "--topk=2", "--html", "--out", str(page)]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["features"] == str(here / "rspnet-run/export-features/manifest.json")
    assert (document["videos"], document["page"]) == (3, str(page))
    assert page.exists()
    broken, answered, missing = document["queries"]
    assert [query["query"] for query in document["queries"]] == [str(cut), "id:v001", "nowhere.mp4"]
    assert [sorted(query) for query in document["queries"]] == [["failure", "hits", "query"]] * 3
    assert answered["failure"] is None
    assert list(answered["hits"][0]) == ["rank", "similarity", "video", "source", "label", "seconds", "query_seconds"]
    assert answered["hits"][0] == {
        "rank": 1,
        "similarity": 1.0,
        "video": "v001",
        "source": "v001.mp4",
        "label": "odd",
        "seconds": [0.0, 0.16],
        "query_seconds": [0.0, 0.16],
    }
    assert broken["hits"] == missing["hits"] == []
    assert printed.err.splitlines() == [
        f"{cut} {broken['failure']}.",
        "nowhere.mp4 does not exist.",
        "rspnet: Queries without an answer: 2 of 3.",
    ]


def test_the_page_goes_into_the_work_directory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "id:v001", "--html"]) == 0
    assert "Page: rspnet-run/search.html\n" in capsys.readouterr().out
    (here / "rspnet-run" / "search.html").unlink()


def test_options_without_effect_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--out", "x.html"], ["--force"]):
        assert main(["search", "id:v001", *option]) == 2
        assert f"{option[0]} is about the page that --html writes" in capsys.readouterr().err
    assert main(["search", "id:v001", "--topk", "1", "2"]) == 2
    assert "--topk 1 2: a search has one" in capsys.readouterr().err
    assert main(["search", "--topk", "1", "--", "-dash.mp4"]) == 1
    assert "-dash.mp4 does not exist." in capsys.readouterr().err


def test_without_features_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "a.mp4"]) == 2
    assert "There is no rspnet-run/export-features/manifest.json: run `rspnet export-features` first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_answered_without_what_takes_long_to_load(tmp_path: Path) -> None:
    make_export(tmp_path / "export", make_table())
    script = f"""
import sys
from rspnet_cli.cli.main import main
assert main(["search", "id:c0_g0_0", "--features", {str(tmp_path / "export")!r}, "--json"]) == 0
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "av", "pandas", "sklearn", "scipy"}}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.stderr == "[]\n"
    assert json.loads(done.stdout)["videos"] == 45


def test_a_file_is_answered_without_tables_learners_and_a_compiler(here: Path) -> None:
    script = f"""
import sys
from rspnet_cli.cli.main import main
assert main(["search", "{VIDEOS}/v001.mp4", "--json", "--quiet"]) == 0
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"pandas", "sklearn", "scipy", "sympy"}}), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=here, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_leaves_nothing_behind(here: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    temporary, said = tmp_path / "temporary", tmp_path / "said"
    temporary.mkdir()
    long = make_video(tmp_path / "long.avi", 1000, "mpeg4", size=(320, 240))

    def typed() -> int:
        os.environ["TMPDIR"] = str(temporary)
        import tempfile

        tempfile.tempdir = None
        return main(["search", str(long), "--device", "cpu"])

    pid = fork(typed, output=said)
    # A store is being written: the worker is in the middle of the video.
    wait_until(lambda: list(temporary.glob("rspnet-search-*/frames/*")), "frames are stored")
    workers = children_of(pid)
    os.kill(pid, number)
    assert wait(pid) == code
    assert workers
    assert [path for path in temporary.iterdir() if path.name.startswith("rspnet")] == []
    assert "Traceback" not in said.read_text()
    assert "interrupted" in said.read_text()
