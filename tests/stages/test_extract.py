"""extract as a whole: what the store and the tables say, and that neither kills, workers nor moves change a byte of it."""

import csv
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import BusyError, DiskFullError, InputError, RspnetError
from rspnet_cli.files import sha256_of
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.tables import FAILURES, SOURCES, VIDEOS, Table, from_plain_text, plain_text, read_table
from rspnet_cli.videos.extraction_tables import failures_by_class
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.store import open_store
from tests.encode import ffconcat, make_video, no_frames, not_a_video, pixel_bomb, read_numbers, sound_only, truncated
from tests.processes import children_of, fork, is_alive, kill, kill_at_change, wait, wait_until
from tests.sentences import one_sentence, refused

RESULT_KEYS = ["videos", "failed", "frames", "bytes", "classes", "splits"]


def run(videos: Path, out: Path, *, config: dict[str, Any] | None = None, **how: Any) -> Manifest:
    settings = validated(ExtractConfig, {"short_side": 32, "workers": 1} | (config or {}))
    return extract(settings, videos=videos, out=out, **how)


def rows(manifest: Manifest, table: Table = VIDEOS) -> dict[str, dict[str, str]]:
    """The rows of a table by source."""
    with (manifest.folder / table.file).open(encoding="utf-8", newline="") as file:
        return {row["source"]: row for row in csv.DictReader(file)}


def files(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file with its inode, time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def same_result(first: Manifest, second: Manifest) -> bool:
    """Equal digests, and equal bytes of all that the digests cover."""
    verified = [read_manifest(manifest.folder, stage="extract", verify_all=True) for manifest in (first, second)]
    return verified[0].digest == verified[1].digest and verified[0].artifacts == verified[1].artifacts


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three videos, 64 x 48, every frame showing its number. Not to be written to."""
    root = tmp_path_factory.mktemp("sources") / "videos"
    for number in range(6):
        make_video(root / ("walk", "run")[number % 2] / f"v{number}.mp4", 8 + number, start=100 * number)
    return root


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Their extraction, uninterrupted. Not to be written to."""
    return run(videos, tmp_path_factory.mktemp("whole") / "extract")


@pytest.fixture
def own(videos: Path, tmp_path: Path) -> Path:
    """A copy of the videos for a test to change."""
    return Path(shutil.copytree(videos, tmp_path / "videos"))


# What the result says


def test_the_store_holds_every_frame_of_every_video_in_order(whole: Manifest) -> None:
    assert list(whole.results) == RESULT_KEYS
    assert whole.results == {
        "videos": 6,
        "failed": 0,
        "frames": sum(range(8, 14)),
        "bytes": sum((whole.folder / row["frames_file"]).stat().st_size for row in rows(whole).values()),
        "classes": 2,
        "splits": 0,
    }
    for number in range(6):
        row = rows(whole)[f"{('walk', 'run')[number % 2]}/v{number}.mp4"]
        with open_store(whole.folder / row["frames_file"]) as video:
            assert read_numbers(video.read(range(video.num_frames))) == list(range(100 * number, 100 * number + 8 + number))
            assert (str(video.num_frames), str(video.width), str(video.height)) == (row["frames"], row["width"], row["height"])
            assert video.fps == pytest.approx(float(row["fps"])) == 25


def test_the_tables_have_the_documented_columns_and_rows_in_the_order_of_ids(videos: Path, whole: Manifest) -> None:
    for table in (VIDEOS, FAILURES, SOURCES):
        header = (whole.folder / table.file).read_text().splitlines()[0].split(",")
        assert header == [column.name for column in table.columns if column.name != "split_N"]
    table = read_table(whole.folder / "videos.csv", VIDEOS)
    assert list(table["id"]) == sorted(table["id"]) == ["run__v1", "run__v3", "run__v5", "walk__v0", "walk__v2", "walk__v4"]
    assert list(table["label"]) == [0, 0, 0, 1, 1, 1]
    assert list(table["label_name"]) == ["run"] * 3 + ["walk"] * 3
    assert not table["group"].any()
    assert list(table["sha256"]) == [sha256_of(videos / source) for source in table["source"]]
    assert len(read_frames(whole)) == 6  # as the later stages read it


def test_ucf101_has_its_splits_and_groups_in_the_table_and_unlabelled_videos_have_neither(tmp_path: Path, videos: Path) -> None:
    root = tmp_path / "UCF-101"
    for group in (1, 2):
        make_video(root / f"Walk/v_Walk_g{group:02d}_c01.mp4", 8)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Walk\n2 Run\n")
    for number, (train, test) in {1: ("g01", "g02"), 2: ("g02", "g01")}.items():
        (lists / f"trainlist{number:02d}.txt").write_text(f"Walk/v_Walk_{train}_c01.avi 1\n")
        (lists / f"testlist{number:02d}.txt").write_text(f"Walk/v_Walk_{test}_c01.avi\n")
    labelled = run(root, tmp_path / "labelled")
    table = read_table(labelled.folder / "videos.csv", VIDEOS)
    assert table[["id", "label", "label_name", "group", "split_1", "split_2"]].to_numpy().tolist() == [
        ["Walk__v_Walk_g01_c01", 0, "Walk", "Walk_g01", "train", "test"],
        ["Walk__v_Walk_g02_c01", 0, "Walk", "Walk_g02", "test", "train"],
    ]
    assert (labelled.results["classes"], labelled.results["splits"]) == (1, 2)
    assert labelled.config["dataset"] == "ucf101"
    plain = run(root, tmp_path / "plain", config={"dataset": "plain"})
    table = read_table(plain.folder / "videos.csv", VIDEOS)
    assert table["label"].isna().all()
    assert not [name for name in table.columns if name.startswith("split")]
    assert (plain.results["classes"], plain.results["splits"], plain.classes_sha256) == (0, 0, None)
    assert labelled.classes_sha256 is not None


def test_the_jpeg_store_is_a_folder_of_numbered_files_that_counts_as_one_artifact(videos: Path, tmp_path: Path) -> None:
    manifest = run(videos, tmp_path / "extract", config={"codec": "jpeg", "limit": 2})
    row = next(iter(rows(manifest).values()))
    folder = manifest.folder / row["frames_file"]
    assert [path.name for path in sorted(folder.glob("img_*"))][:2] == ["img_00001.jpg", "img_00002.jpg"]
    assert len(list(folder.glob("img_*"))) == int(row["frames"])
    assert f"{row['frames_file']}/" in dict(manifest.hashes())
    read_manifest(manifest.folder, verify_all=True)
    before = files(manifest.folder)
    with open_store(folder) as video:
        assert read_numbers(video.read([0]))[0] % 100 == 0
    assert run(videos, tmp_path / "extract", config={"codec": "jpeg", "limit": 2}).digest == manifest.digest
    assert files(manifest.folder) == before


def test_names_of_any_kind_are_only_in_the_table(tmp_path: Path) -> None:
    names = [
        "[bold]red.mp4",
        "new\nline.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
        "x" * 250 + ".mp4",
        "a.mp4",
        "a.avi",
        "A.mp4",
        "-rf.mp4",
        "é.mp4",
    ]
    root = tmp_path / "videos"
    for number, name in enumerate(names):
        make_video(
            tmp_path / "one.mp4" if not name.endswith("avi") else tmp_path / "one.avi",
            8,
            "h264" if name != "a.avi" else "mpeg4",
            start=100 * number,
        )
        root.mkdir(exist_ok=True)
        shutil.move(tmp_path / f"one{Path(name).suffix}", root / name)
    manifest = run(root, tmp_path / "extract")
    assert manifest.results["videos"] == len(names)
    table = read_table(manifest.folder / "videos.csv", VIDEOS)
    assert {from_plain_text(source) for source in table["source"]} == set(names)
    for number, name in enumerate(names):
        row = table[table["source"] == plain_text(name)].iloc[0]
        assert re.fullmatch(r"frames/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.mp4", row["frames_file"])
        with open_store(manifest.folder / row["frames_file"]) as video:
            assert read_numbers(video.read([0])) == [100 * number]


# Broken videos


@pytest.fixture(scope="module")
def broken(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos with broken ones among them."""
    root = Path(shutil.copytree(videos, tmp_path_factory.mktemp("broken") / "videos"))
    long = make_video(root.parent / "long.avi", 60, "mpeg4")
    truncated(long, root / "walk/cut.avi")
    not_a_video(root / "walk/noise.mp4")
    sound_only(root / "walk/sound.mp4")
    no_frames(root / "run/nothing.mp4")
    ffconcat(root / "run/list.mp4", root / "run/v1.mp4")
    pixel_bomb(root / "run/bomb.avi")
    (root / "run/empty.mp4").touch()
    (root / "run/dangling.mp4").symlink_to("gone.mp4")
    (root / "run/link.mp4").symlink_to("v1.mp4")
    os.mkfifo(root / "run/pipe.mp4")
    return root


BROKEN = {
    "run/bomb.avi": r"72,000,000 pixels|too large|pixel",
    "run/dangling.mp4": r"link to gone\.mp4, which is not there",
    "run/empty.mp4": r"empty",
    "run/list.mp4": r"not a video",
    "run/nothing.mp4": r"no picture|damaged|cut short",
    "run/pipe.mp4": r"named pipe",
    "walk/cut.avi": r"cut short",
    "walk/noise.mp4": r"not a video|Invalid data|cannot be",
    "walk/sound.mp4": r"no video stream|only sound|no video",
}


@pytest.fixture(scope="module")
def part(broken: Path) -> Manifest:
    """Their extraction. Not to be written to."""
    return run(broken, broken.parent / "extract", config={"workers": 2})


def test_broken_videos_are_rows_with_a_reason_and_stop_nothing(part: Manifest) -> None:
    assert (part.results["videos"], part.results["failed"], part.results["classes"]) == (7, 9, 2)
    failures = rows(part, FAILURES)
    assert failures.keys() == BROKEN.keys()
    for source, reason in BROKEN.items():
        assert re.search(reason, failures[source]["reason"]), failures[source]
        assert "\n" not in failures[source]["reason"]
        assert failures[source]["label_name"] == source.split("/")[0]
    cut = failures["walk/cut.avi"]
    assert 0 < int(cut["decoded"]) < int(cut["declared"]) == 60
    assert failures_by_class(part.folder) == {"run": (6, 10), "walk": (3, 6)}
    assert rows(part)["run/link.mp4"]["sha256"] == rows(part)["run/v1.mp4"]["sha256"]
    assert not list(part.folder.rglob(".tmp-*"))


def test_what_decodes_of_a_truncated_video_is_kept_only_when_asked_for(broken: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    shutil.copy(broken / "walk/cut.avi", root)
    manifest = run(root, tmp_path / "extract", config={"keep_partial": True})
    row = rows(manifest)["cut.avi"]
    assert row["partial"] == "True"
    with open_store(manifest.folder / row["frames_file"]) as video:
        assert read_numbers(video.read(range(video.num_frames))) == list(range(int(row["frames"])))
    assert 0 < int(row["frames"]) < 60


def test_strict_tries_all_then_fails_and_the_same_command_without_it_finishes(broken: Path, part: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    with pytest.raises(RspnetError) as caught:
        run(broken, out, strict=True)
    assert caught.value.exit_code == 1
    one_sentence(caught.value, "9 videos failed", str(out / "unfinished/failures.csv"), "without --strict")
    with pytest.raises(InputError, match="unfinished"):
        read_manifest(out, stage="extract")
    done = {path.name: path.stat().st_mtime_ns for path in (out / "unfinished/frames").iterdir()}
    manifest = run(broken, out)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "frames").iterdir()} == done  # nothing was decoded again
    assert same_result(manifest, part)
    with pytest.raises(RspnetError, match="9 videos failed and --strict"):
        run(broken, out, strict=True)


def test_nothing_that_can_be_extracted_is_an_error_without_a_manifest(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    not_a_video(root / "a.mp4")
    (root / "b.mp4").symlink_to("b.mp4")
    with pytest.raises(RspnetError) as caught:
        run(root, tmp_path / "extract")
    assert caught.value.exit_code == 1
    one_sentence(caught.value, "None of the 2 videos", "a.mp4 ")
    assert not (tmp_path / "extract/manifest.json").exists()
    make_video(root / "a.mp4", 8)  # repaired
    with pytest.raises(InputError, match="1 source with another size"):
        run(root, tmp_path / "extract")
    assert run(root, tmp_path / "extract", retry_failed=True).results["videos"] == 1


def test_failed_videos_of_a_finished_stage_can_be_tried_again(own: Path, tmp_path: Path) -> None:
    good = (own / "walk/v0.mp4").read_bytes()
    not_a_video(own / "walk/v0.mp4")
    (own / "run/gone.mp4").symlink_to("later.bin")
    out = tmp_path / "extract"
    first = run(own, out)
    assert (first.results["videos"], first.results["failed"]) == (5, 2)
    before = files(out)
    assert run(own, out, retry_failed=True).digest == first.digest
    assert files(out) == before  # the same outcome: nothing is touched

    (own / "walk/v0.mp4").write_bytes(good)
    shutil.copy(own / "run/v1.mp4", own / "run/later.bin")
    with pytest.raises(InputError) as caught:
        run(own, out)
    refused(caught.value, "1 source added (run/gone.mp4); 1 source with another size (walk/v0.mp4)", "--retry-failed")
    second = run(own, out, retry_failed=True)
    assert (second.results["videos"], second.results["failed"]) == (7, 0)
    assert second.digest != first.digest
    after = files(out)
    kept = [name for name in before if name.startswith("frames/")]
    assert len(kept) == 5
    assert all(after[name] == before[name] for name in kept)  # the very same files
    assert same_result(second, run(own, tmp_path / "anew"))
    assert not (out / "unfinished").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes in /proc")
def test_a_worker_that_is_killed_or_hangs_costs_its_video_and_is_replaced(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    shutil.copytree(videos / "walk", root)
    for name in ("killed.avi", "stopped.avi"):  # the first two by name
        make_video(root / name, 150, "mjpeg", size=(640, 480))
    parent = fork(lambda: run(root, tmp_path / "extract", config={"short_side": 480, "video_timeout_s": 4}))
    frames = tmp_path / "extract/unfinished/frames"
    at_work: set[Path] = set()
    for stop in (signal.SIGKILL, signal.SIGSTOP):
        wait_until(lambda: frames.is_dir() and set(frames.glob(".tmp-*")) - at_work, "the next video is being written")  # noqa: B023
        at_work |= set(frames.glob(".tmp-*"))
        (worker,) = children_of(parent)
        os.kill(worker, stop)
    assert wait(parent) == 0
    manifest = read_manifest(tmp_path / "extract")
    assert {source: row["reason"] for source, row in rows(manifest, FAILURES).items()} == {
        "killed.avi": "ended its worker process, which was killed from outside, as the system does when memory runs out",
        "stopped.avi": "took longer than 4 s (--video-timeout)",
    }
    assert manifest.results["videos"] == 3
    assert not list((tmp_path / "extract").rglob(".tmp-*"))


# The same again


def test_a_finished_stage_is_left_alone(videos: Path, whole: Manifest) -> None:
    before = files(whole.folder)
    assert run(videos, whole.folder, config={"workers": 2}).digest == whole.digest
    assert run(videos, whole.folder, retry_failed=True, strict=True, verify_sources=True).digest == whole.digest
    assert files(whole.folder) == before


def test_workers_place_and_file_times_change_no_byte(whole: Manifest, own: Path, tmp_path: Path) -> None:
    for path in own.rglob("*.mp4"):
        os.utime(path, (1, 1))
    manifest = run(own, tmp_path / "elsewhere", config={"workers": 3})
    assert same_result(manifest, whole)
    assert manifest.environment["workers"] == 3
    assert manifest.environment["videos"] == str(own)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"short_side": 40}, "short_side was 32, now 40"),
        ({"dataset": "plain"}, 'dataset was "folder", now "plain"'),
        ({"crf": 30}, "crf was 20, now 30"),
        ({"limit": 3}, "limit was null, now 3"),
    ],
)
def test_other_settings_are_refused_by_name(videos: Path, whole: Manifest, config: dict[str, Any], words: str) -> None:
    before = files(whole.folder)
    with pytest.raises(InputError) as caught:
        run(videos, whole.folder, config=config)
    refused(caught.value, words, "--force", "--out")
    assert files(whole.folder) == before


def test_the_default_quality_is_the_same_typed_or_not(videos: Path, whole: Manifest) -> None:
    assert run(videos, whole.folder, config={"crf": 20, "dataset": "folder"}).digest == whole.digest


def test_changed_sources_are_refused_by_name_until_force(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    first = run(own, out)
    os.utime(own / "walk/v0.mp4", (1, 1))
    with (own / "run/v1.mp4").open("ab") as file:
        file.write(b"\0")
    (own / "run/v3.mp4").unlink()
    make_video(own / "walk/new.mp4", 8)
    with pytest.raises(InputError) as caught:
        run(own, out, retry_failed=True)
    refused(caught.value, "1 source added (walk/new.mp4); 1 source removed (run/v3.mp4); 1 source with another size (run/v1.mp4)")
    refused(caught.value, "1 source with another time of change (walk/v0.mp4)", "--force", "--out")
    assert read_manifest(out).digest == first.digest
    for label in ("jump", "run"):  # class folders as well
        make_video(tmp_path / "other" / label / "v9.mp4", 8)
    with pytest.raises(InputError) as caught:
        run(tmp_path / "other", out)
    refused(caught.value, "they have no file in common with its 6 sources", "--force", "--out")
    second = run(own, out, force=True)
    assert set(rows(second)) == {"run/v1.mp4", "run/v5.mp4", "walk/new.mp4", "walk/v0.mp4", "walk/v2.mp4", "walk/v4.mp4"}
    assert not (out / "frames/run__v3.mp4").exists()
    assert same_result(second, run(own, tmp_path / "anew"))


def test_verify_sources_reads_contents_instead_of_times(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    first = run(own, out)
    before = files(out)
    os.utime(own / "walk/v0.mp4", (1, 1))
    with pytest.raises(InputError, match="--verify-sources compares contents"):
        run(own, out)
    assert run(own, out, verify_sources=True).digest == first.digest
    status = (own / "run/v1.mp4").stat()
    content = bytearray((own / "run/v1.mp4").read_bytes())
    content[-1] ^= 1
    (own / "run/v1.mp4").write_bytes(content)
    os.utime(own / "run/v1.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(own / "walk/v0.mp4", ns=(0, int((out / "sources.csv").read_text().partition("walk/v0.mp4,")[2].split()[0].split(",")[1])))
    assert run(own, out).digest == first.digest  # size and time are the same: taken for the same file
    with pytest.raises(InputError) as caught:
        run(own, out, verify_sources=True)
    refused(caught.value, "1 source with other content (run/v1.mp4)")
    assert files(out) == before


def test_without_its_log_a_finished_stage_still_knows_whether_the_sources_are_the_same(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    first = run(own, out)
    (out / "sources.csv").unlink()
    assert run(own, out).digest == first.digest
    os.utime(own / "walk/v0.mp4", (1, 1))
    with pytest.raises(InputError) as caught:
        run(own, out)
    refused(caught.value, "sources.csv is missing", "--force")


def test_the_work_directory_may_lie_among_the_videos(own: Path) -> None:
    first = run(own, own / "rspnet-run/extract", config={"dataset": "plain"})
    assert first.results["videos"] == 6
    assert run(own, own / "rspnet-run/extract", config={"dataset": "plain"}).digest == first.digest
    other = run(own, own / "other", config={"dataset": "plain", "short_side": 16})  # the first result is no source of the second
    assert other.results["videos"] == 6


@pytest.mark.parametrize("out", [".", "..", "../run"])
def test_a_refused_command_leaves_no_folder(own: Path, tmp_path: Path, out: str) -> None:
    """VIDEOS and --out the same, VIDEOS inside the frames of --out, lists that contradict the layout."""
    place = (own / out).resolve()
    before = sorted(tmp_path.rglob("*"))
    videos = own if out != ".." else Path(shutil.copytree(own, tmp_path / "frames"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        run(videos, place, annotations=own if out == "../run" else None)
    assert sorted(tmp_path.rglob("*")) == before


# Interruptions


def test_kill_9_between_any_two_videos_changes_no_byte_of_the_result(videos: Path, whole: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    journal = out / "unfinished/journal.jsonl"
    for done in (1, 3):
        parent = fork(lambda: run(videos, out, config={"workers": 2}))
        wait_until(lambda: journal.exists() and len(journal.read_bytes().splitlines()) >= done, f"{done} videos are done")  # noqa: B023
        workers = children_of(parent)
        kill(parent)
        assert wait(parent) == -signal.SIGKILL
        wait_until(lambda: not any(is_alive(worker) for worker in workers), "the workers have ended", seconds=30)  # noqa: B023
        assert not (out / "manifest.json").exists()
    with journal.open("ab") as file:
        file.write(b'{"id": "walk__v0", "outc')  # what a kill leaves of a line
    (out / "unfinished/frames/.tmp-1-deadbeef.mp4").touch()
    first = next((out / "unfinished/frames").glob("*.mp4"))
    first.write_bytes(b"")  # what a disk loses of a file
    manifest = run(videos, out)
    assert manifest.environment["resumed"]
    assert same_result(manifest, whole)
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "failures.csv",
        "files.csv",
        "frames",
        "manifest.json",
        "sources.csv",
        "videos.csv",
    ]
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.parametrize("codec", ["h264", "jpeg", "raw"])
def test_kill_9_at_any_change_of_the_disk_while_finishing_changes_no_byte(videos: Path, tmp_path: Path, codec: str) -> None:
    step = 1 if codec == "h264" else 3
    config = {"codec": codec, "limit": 2}
    expected = run(videos, tmp_path / "expected", config=config)
    begun = tmp_path / "begun"
    with pytest.raises(InputError, match="one source"):
        _stop_before_finishing(videos, begun, config)
    number = 0
    while True:
        out = Path(shutil.copytree(begun, tmp_path / f"run{number}"))
        if not kill_at_change(lambda: run(videos, out, config=config), number):  # noqa: B023
            break
        assert same_result(run(videos, out, config=config), expected)
        number += step
    assert number > 5


def _stop_before_finishing(videos: Path, out: Path, config: dict[str, Any]) -> None:
    """A run of which only the last step is left to do."""
    with pytest.MonkeyPatch.context() as patch:

        def stop(*_: object, **__: object) -> None:
            raise InputError("one source is as good as another.")

        patch.setattr("rspnet_cli.stage.Stage.finish", stop)
        run(videos, out, config=config)


def test_kill_9_while_trying_failed_videos_again_keeps_the_old_result_until_the_new_one_is_whole(own: Path, tmp_path: Path) -> None:
    good = (own / "walk/v0.mp4").read_bytes()
    not_a_video(own / "walk/v0.mp4")
    out = tmp_path / "extract"
    old = run(own, out)
    (own / "walk/v0.mp4").write_bytes(good)
    expected = run(own, tmp_path / "expected")
    for number in range(0, 60, 7):
        again = Path(shutil.copytree(out, tmp_path / f"again{number}"))
        if not kill_at_change(lambda: run(own, again, retry_failed=True), number):  # noqa: B023
            break
        if not (again / "unfinished/manifest.json").exists():  # the new result is not whole yet
            assert read_manifest(again, verify_all=True).digest == old.digest
        assert same_result(run(own, again, retry_failed=True), expected)
    assert number > 7


def test_an_interrupted_run_refuses_other_sources_until_force(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    with pytest.raises(InputError, match="one source"):
        _stop_before_finishing(own, out, {})
    os.utime(own / "walk/v0.mp4", (1, 1))
    with pytest.raises(InputError) as caught:
        run(own, out)
    refused(caught.value, "unfinished", "1 source with another time of change (walk/v0.mp4)", "--verify-sources")
    assert same_result(run(own, Path(shutil.copytree(out, tmp_path / "verified")), verify_sources=True), run(own, tmp_path / "anew"))
    shutil.copy(own / "walk/v2.mp4", own / "walk/v0.mp4")
    with pytest.raises(InputError):
        run(own, out, verify_sources=True)
    forced = run(own, out, force=True)
    assert rows(forced)["walk/v0.mp4"]["sha256"] == rows(forced)["walk/v2.mp4"]["sha256"]
    assert same_result(forced, run(own, tmp_path / "again"))


def test_a_second_run_is_told_who_is_at_work(own: Path, tmp_path: Path) -> None:
    make_video(own / "walk/a.avi", 150, "mjpeg", size=(640, 480))
    out = tmp_path / "extract"
    first = fork(lambda: run(own, out, config={"short_side": 480}))
    wait_until(lambda: (out / "unfinished/journal.jsonl").exists(), "the first run is at work")
    with pytest.raises(BusyError) as caught:
        run(own, out, config={"short_side": 480})
    assert caught.value.exit_code == 1
    one_sentence(caught.value, f"process {first} on")
    assert wait(first) == 0


def test_a_full_disk_blames_no_video_and_the_run_continues_once_there_is_room(
    videos: Path, whole: Manifest, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    """Stops at several places: frames, journal, tables and manifest all meet the full disk."""
    out = small_disk(160) / "extract"
    filler = out.parent / "filler"
    free = shutil.disk_usage(out.parent).free
    stopped = []
    for left in range(8_192, free, 8_192):  # bytes that are left to the run
        filler.write_bytes(bytes(max(free - left, 0)))
        try:
            manifest = run(videos, out)
            break
        except DiskFullError as full:
            stopped.append(full)
        filler.unlink()
        assert not (out / "manifest.json").exists()
        assert b"reason" not in (out / "unfinished/journal.jsonl").read_bytes()
    for full in stopped:
        one_sentence(full, "The disk is full", str(out), "bytes", "free there", "continues")
    assert {full.exit_code for full in stopped} == {1}
    assert len(stopped) >= 3
    assert manifest.results["failed"] == 0
    assert same_result(manifest, whole)
