"""`rspnet extract` as it is typed: flags, what goes to stdout and stderr, exit codes, signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.cli.tables import bytes_text
from rspnet_cli.manifest import read_manifest
from tests.encode import make_frames, make_video, not_a_video
from tests.processes import ROOT, children_of, is_alive, wait_until

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def rspnet(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rspnet_cli", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, five good videos and two that are none. Not to be written to."""
    root = tmp_path_factory.mktemp("sources") / "videos"
    for number in range(5):
        make_video(root / ("walk", "[bold]run")[number % 2] / f"v{number}.mp4", 8, start=100 * number)
    not_a_video(root / "walk/noise.mp4")
    not_a_video(root / "[bold]run/noise.mp4")
    return root


def test_the_command_as_typed_writes_results_to_stdout_and_all_else_to_stderr(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").symlink_to(videos)
    first = rspnet("extract", "videos", "--short-side", "32", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    lines = dict(line.split(None, 1) for line in first.stdout.splitlines()[:6])
    assert lines.keys() == {"videos", "failed", "frames", "bytes", "classes", "splits"}
    assert (lines["videos"], lines["failed"], lines["frames"], lines["classes"], lines["splits"]) == ("5", "2", "40", "2", "0")
    assert "[bold]run  1 of 3" in first.stdout
    assert "walk  1 of 4" in first.stdout
    assert "Taken for --dataset folder" in first.stderr
    assert "7/7 videos" in first.stderr
    assert "/s" in first.stderr
    assert f"warning: 2 videos failed: {tmp_path}/rspnet-run/extract/failures.csv lists the reasons." in first.stderr

    second = rspnet("extract", "videos", "--short-side", "32", "--json", cwd=tmp_path)
    assert second.returncode == 0
    assert json.loads(second.stdout) == read_manifest(tmp_path / "rspnet-run/extract").results
    assert second.stderr.splitlines() == [
        "extract: finished already in rspnet-run/extract with the same settings and sources; nothing to do (--force starts anew)."
    ]
    third = rspnet("extract", "videos", "--short-side", "32", "--quiet", cwd=tmp_path)
    assert (third.returncode, third.stderr, third.stdout) == (0, "", first.stdout)


def test_a_dry_run_counts_and_estimates_and_writes_nothing(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").symlink_to(videos)
    (tmp_path / "list.csv").write_text("path,label,split\nwalk/v0.mp4,walk,train\nwalk/v2.mp4,[b]walk,test\nwalk/gone.mp4,walk,train\n")
    command = ["extract", "videos", "--annotations", "list.csv", "--short-side", "32", "--dry-run"]
    done = rspnet(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["list.csv", "videos"]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["class", "videos", "failed", "split", "1", "train", "split", "1", "test"] in lines
    assert ["[b]walk", "1", "0", "0", "1"] in lines
    assert ["walk", "1", "1", "1", "0"] in lines
    assert ["all", "2", "1", "1", "1"] in lines
    assert "1 listed but not there:\n  walk/gone.mp4\n" in done.stdout
    assert "5 there but in no list:\n  [bold]run/noise.mp4\n" in done.stdout
    assert re.search(r"^About [\d.]+ kB of frames, of [\d.,]+ [GT]B free; about \d+s with [12] process", done.stdout, flags=re.MULTILINE)
    assert "Measured on 2 of 2 videos." in done.stdout
    assert done.stdout.endswith("rspnet-run/extract: no result yet.\n")
    assert "warning: 1 listed video not there (walk/gone.mp4)" in done.stderr
    assert "warning: 1 class without a train video in split 1 ([b]walk)" in done.stderr

    as_json = json.loads(rspnet(*command, "--json", cwd=tmp_path).stdout)
    assert as_json.keys() == {
        *("dataset", "out", "out_holds", "videos", "failed", "splits", "classes", "missing", "extra", "repeated", "failures"),
        *("notes", "warnings", "estimate", "free_bytes"),
    }
    assert (as_json["extra"][0], len(as_json["extra"])) == ("[bold]run/noise.mp4", 5)
    assert as_json["estimate"]["probed"] == 2
    real = json.loads(rspnet(*command[:-1], "--json", "--quiet", cwd=tmp_path).stdout)
    assert as_json["estimate"]["bytes"] == dict.fromkeys(("value", "low", "high"), real["bytes"])


def test_frames_of_other_toolkits_have_the_rate_that_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_frames(tmp_path / "rawframes/v0", 5)
    (tmp_path / "train.txt").write_text("v0 5 0\n")
    command = ["extract", str(tmp_path / "rawframes"), "--annotations", str(tmp_path / "train.txt"), "--frames-fps", "12.5"]
    assert main([*command, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert read_manifest(tmp_path / "out").config["frames_fps"] == 12.5
    assert main([*command, "--frames-fps", "0", "--out", str(tmp_path / "other")]) == 2
    assert "frames_fps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "text"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_951, "1.0 MB"), (2.5e9, "2.5 GB"), (1.3e15, "1,300.0 TB")],
)
def test_sizes_in_words(number: float, text: str) -> None:
    assert bytes_text(number) == text


def test_every_flag_reaches_the_stage(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("path,label\nwalk/v0.mp4,walk\nwalk/v2.mp4,walk\nwalk/noise.mp4,walk\n")
    flags = ["--dataset", "csv", "--annotations", str(tmp_path / "list.csv"), "--short-side", "24", "--codec", "h264", "--crf", "30"]
    flags += ["--limit", "2", "--keep-partial", "--max-pixels", "4000", "--video-timeout", "50", "--workers", "1", "--quiet"]
    assert main(["extract", str(videos), *flags, "--out", str(tmp_path / "out"), "--work-dir", str(tmp_path / "unused")]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert {key: value for key, value in manifest.config.items() if key != "annotations_sha256"} == {
        "dataset": "csv",
        "short_side": 24,
        "codec": "h264",
        "crf": 30,
        "limit": 2,
        "keep_partial": True,
        "max_pixels": 4000,
        "frames_fps": None,
        "video_timeout_s": 50.0,
    }
    assert manifest.results["videos"] == 1  # of noise.mp4 and v0.mp4, which a limit of 2 takes of the three
    assert not (tmp_path / "unused").exists()
    capsys.readouterr()
    command = ["extract", str(videos), *flags, "--out", str(tmp_path / "out")]
    assert main([*command, "--strict"]) == 1
    assert "1 video failed and --strict was given" in capsys.readouterr().err
    assert main([*command, "--retry-failed", "--verify-sources", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == manifest.results
    assert main([*command, "--crf", "20"]) == 2
    assert "crf was 30, now 20" in capsys.readouterr().err
    assert main([*command, "--crf", "20", "--force"]) == 0
    assert read_manifest(tmp_path / "out").config["crf"] == 20


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["gone"], "gone does not exist"),
        (["videos/walk/v0.mp4"], "is not a folder"),
        (["videos", "--codec", "webp"], "codec (--codec) is 'webp': it should be 'h264', 'jpeg' or 'raw'."),
        (["videos", "--codec", "gif"], "codec"),
        (["videos", "--codec", "jpeg", "--crf", "20"], "crf has no effect with codec jpeg"),
        (["videos", "--crf", "52"], "crf"),
        (["videos", "--short-side", "3"], "short_side"),
        (["videos", "--limit", "0"], "limit"),
        (["videos", "--workers", "0"], "workers"),
        (["videos", "--video-timeout", "nan"], "video_timeout_s"),
        (["videos", "--dataset", "imagenet"], "dataset"),
        (["videos", "--dataset", "ucf101"], "classInd.txt"),
        (["videos", "--dataset", "hmdb51", "--dry-run"], "<class>_test_split1.txt"),
        (["videos", "--dataset", "ssv2"], "something-something-v2-labels.json"),
        (["videos", "--dataset", "kinetics100"], "has no video in a folder train_video, val_video, train or val"),
        (["videos", "--dataset", "list"], "--dataset list needs its list"),
        (["videos", "--frames-fps", "30"], "--frames-fps has no effect"),
        (["gone", "--dry-run"], "gone does not exist"),
        (["videos", "--dataset", "plain", "--annotations", "videos"], "--annotations has no effect"),
        (["videos", "--out", "videos"], "would hold the result and holds the videos"),
        (["videos", "--no-such-flag"], "--no-such-flag"),
        ([], "VIDEOS"),
    ],
)
def test_what_cannot_be_done_is_refused_with_exit_code_2_and_leaves_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    (tmp_path / "videos").symlink_to(videos)
    monkeypatch.chdir(tmp_path)
    assert main(["extract", *args]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert os.listdir(tmp_path) == ["videos"]


def test_a_refusal_needs_neither_the_decoder_nor_torch(videos: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from rspnet_cli.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(0 if code == 2 and not {'torch', 'av', 'pandas', 'sklearn'} & sys.modules.keys() else 1)"
    )
    source = str(videos)
    for args in (["gone"], [source, "--codec", "webp"], [source, "--dataset", "ucf101"], [source, "--dataset", "ssv2", "--dry-run"]):
        done = subprocess.run([sys.executable, "-c", script, "extract", *args], cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_nothing_extracted_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    not_a_video(tmp_path / "videos/a.mp4")
    assert main(["extract", str(tmp_path / "videos"), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rspnet: None of the 1 video in")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes in /proc")
def test_interrupts_are_one_line_stop_the_workers_and_keep_what_is_done(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    make_video(root / "v0.avi", 40, "mjpeg", size=(640, 480))
    for number in range(1, 9):
        shutil.copy(root / "v0.avi", root / f"v{number}.avi")
    command = [sys.executable, "-m", "rspnet_cli", "extract", "videos", "--short-side", "480", "--workers", "2"]
    journal = tmp_path / "rspnet-run/extract/unfinished/journal.jsonl"

    def num_done() -> int:
        return len(journal.read_bytes().splitlines()) if journal.exists() else 0

    for stop, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = num_done()
        process = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        wait_until(lambda: num_done() > before, "a video is done")  # noqa: B023
        workers = children_of(process.pid)
        os.killpg(process.pid, stop)  # as a terminal or a scheduler does
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert out == ""
        assert "Traceback" not in err
        assert err.splitlines()[-1] == "rspnet: interrupted; what a stage has done is kept, the same command goes on."
        assert workers
        assert not any(is_alive(worker) for worker in workers)
    booked = journal.read_text()  # a video that was whole but not booked when the signal came is made again
    done = {path.name: path.stat().st_mtime_ns for path in journal.parent.glob("frames/[!.]*.mp4") if f'"{path.stem}"' in booked}
    assert len(done) >= 2
    last = rspnet(*command[3:], cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert "continuing the unfinished run" in last.stderr
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rspnet-run/extract/frames").iterdir()}
    assert done.items() <= after.items()
    assert main([*command[3:4], str(root), *command[5:], "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    assert read_manifest(tmp_path / "whole").digest == read_manifest(tmp_path / "rspnet-run/extract", verify_all=True).digest
