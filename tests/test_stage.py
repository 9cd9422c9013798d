"""A stage's folder through all that can happen to it: finished, found again, changed, forced, killed, moved, in use, refused."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import rspnet_cli.stage
from rspnet_cli.errors import BusyError, DiskFullError, InputError, RspnetError
from rspnet_cli.file_index import Entry
from rspnet_cli.files import sha256_of_folder
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import Stage, begin_stage
from tests.processes import fork, kill, kill_at_change, wait, wait_until
from tests.sentences import one_sentence, refused

OLD = {"seed": 1, "nested": {"a": [1, 2]}}
NEW = {"seed": 2, "nested": {"a": [1, 2]}}


def contents_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The files a run with these settings makes: some names are those of other settings, some are not."""
    seed = config["seed"]
    return {
        "table.csv": f"table {seed}",
        f"deep/er/{seed}.txt": f"deep {seed}",
        "timings.csv": f"timings {seed}",
        f"frames/v{seed}/img_00001.jpg": "picture",
        "frames/both/img_00001.jpg": f"picture {seed}",
        "resume/checkpoint": "needed only for resuming",
    }


def run(out: Path, config: Mapping[str, Any] = OLD, *, force: bool = False, inputs: Mapping[str, Path] | None = None) -> Stage:
    """A stage that writes its files and finishes, or was finished."""
    with begin_stage("thing", dict(config), inputs=inputs or {}, out=out, force=force) as stage:
        if stage.finished:
            return stage
        contents = contents_of(config)
        for name, text in contents.items():
            (stage.work / name).parent.mkdir(parents=True, exist_ok=True)
            (stage.work / name).write_text(text)
        folders = sorted({name.rpartition("/")[0] for name in contents if name.startswith("frames/")})
        stage.finish(
            results={"seed": config["seed"]},
            artifacts=[name for name in contents if not name.startswith(("frames/", "resume/", "timings"))],
            indexed=("frames/", [Entry(f"{folder}/", *sha256_of_folder(stage.work / folder)) for folder in folders]),
            logs=["timings.csv", "no-such-log.csv"],
        )
        return stage


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the lock, and of the manifest only what its digest covers."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    files |= {f"{path.relative_to(folder)}/": b"" for path in folder.rglob("*") if path.is_dir()}
    files.pop(".lock", None)
    if "manifest.json" in files:
        raw = json.loads(files["manifest.json"])
        files["manifest.json"] = raw["digest"].encode()
    return files


def tree_with_manifest(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def caught(function: Callable[[], object]) -> RspnetError:
    with pytest.raises(RspnetError) as info:
        function()
    return info.value


def test_a_finished_stage_holds_its_files_and_nothing_else(tmp_path: Path) -> None:
    stage = run(tmp_path / "thing")
    manifest = read_manifest(tmp_path / "thing", stage="thing", verify_all=True)
    assert manifest == stage.manifest
    expected = {name: text for name, text in contents_of(OLD).items() if not name.startswith("resume")}
    found = {
        name: content.decode() for name, content in tree(tmp_path / "thing").items() if not name.endswith("/") and name != "manifest.json"
    }
    assert list(found.pop("files.csv").splitlines())[1:] == [
        f"{folder}/,{size},{digest}"
        for folder in ("frames/both", "frames/v1")
        for size, digest in [sha256_of_folder(tmp_path / "thing" / folder)]
    ]
    assert found == expected
    assert "timings.csv" not in {artifact.path for artifact in manifest.artifacts}
    assert manifest.environment["logs"] == ["timings.csv"]
    assert manifest.environment["resumed"] is False


def test_a_finished_stage_is_found_again_and_touched_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "thing")
    before = stamps(tmp_path)
    time.sleep(0.02)
    with begin_stage("thing", OLD, inputs={}, out=tmp_path / "thing", report=Reporter()) as stage:
        assert stage.finished
    assert stamps(tmp_path) == before
    assert "finished already" in capsys.readouterr().err


def indexed(out: Path, listed: Mapping[str, str], left: Sequence[str] = ()) -> Manifest:
    """A stage of files in folders, beside which a killed worker or an earlier listing left some."""
    with begin_stage("thing", {}, inputs={}, out=out, force=True) as stage:
        for name in (*listed, *left):
            (stage.work / name).parent.mkdir(parents=True, exist_ok=True)
            (stage.work / name).write_text(listed.get(name, "left"))
        stage.finish(results={}, indexed=("frames/", [Entry(name, len(text), sha256(text)) for name, text in sorted(listed.items())]))
    return read_manifest(out, verify_all=True)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_indexed_files_move_with_their_folder_and_nothing_that_is_not_listed_does(tmp_path: Path) -> None:
    inodes: dict[str, int] = {}
    finish = Stage.finish

    def noted(self: Stage, **how: Any) -> Manifest:
        inodes["frames"] = (self.work / "frames").stat().st_ino
        return finish(self, **how)

    listed = {"frames/00a/x.mp4": "x", "frames/00b/y.mp4": "y", "frames/00b/z.mp4": "z"}
    left = ["frames/00a/.tmp-1.mp4", "frames/00c/w.mp4", "frames/.tmp-2/img_00001.jpg", "frames/00b/v/img_00001.jpg"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "finish", noted)
        manifest = indexed(tmp_path / "thing", listed, left)
    assert (tmp_path / "thing" / "frames").stat().st_ino == inodes["frames"]
    frames = [name for name in tree(tmp_path / "thing") if name.startswith("frames/") and not name.endswith("/")]
    assert set(frames) == set(listed)
    assert sorted(os.listdir(tmp_path / "thing" / "frames")) == ["00a", "00b"]
    assert manifest.listed is not None
    assert (manifest.listed.files, manifest.listed.bytes) == (3, 3)


def test_an_indexed_file_that_has_vanished_ends_the_run_before_its_manifest(tmp_path: Path) -> None:
    with pytest.raises(RspnetError) as caught, begin_stage("thing", {}, inputs={}, out=tmp_path) as stage:
        stage.finish(results={}, indexed=("frames/", [Entry("frames/x.mp4", 1, sha256("x"))]))
    one_sentence(caught.value, "frames/x.mp4 has vanished", "same command")
    assert not (tmp_path / "manifest.json").exists()


def test_settings_that_json_writes_alike_are_the_same(tmp_path: Path) -> None:
    run(tmp_path / "thing", {"seed": 1, "nested": {"a": (1, 2)}})
    assert run(tmp_path / "thing", OLD).finished


def test_changed_settings_are_refused_with_the_difference_and_touch_nothing(tmp_path: Path) -> None:
    run(tmp_path / "thing")
    before = stamps(tmp_path)
    error = caught(lambda: run(tmp_path / "thing", {"seed": 2, "nested": {"a": [1, 3]}, "more": True}))
    text = refused(error, "nested.a was [1, 2], now [1, 3]", "seed was 1, now 2", "more was null, now true", "--force", "--out")
    assert str(tmp_path / "thing") in text
    assert stamps(tmp_path) == before


def test_changed_hashes_are_named_by_what_they_are_of(tmp_path: Path) -> None:
    first = {"seed": 1, "lists_sha256": "a" * 64, "x_sha256": None}
    second = {"seed": 1, "lists_sha256": "b" * 64, "x_sha256": "c" * 64}
    run(tmp_path / "thing", first)
    refused(caught(lambda: run(tmp_path / "thing", second)), "other settings (other lists; x added)")
    run(tmp_path / "thing", second, force=True)
    refused(caught(lambda: run(tmp_path / "thing", first)), "other settings (other lists; x left out)")


def test_a_changed_input_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path / "first")
    with begin_stage("next", {}, inputs={"thing": tmp_path / "first"}, out=tmp_path / "next") as stage:
        assert stage.inputs["thing"].results == {"seed": 1}
        stage.finish(results={})
    run(tmp_path / "first", NEW, force=True)

    def again() -> None:
        with begin_stage("next", {}, inputs={"thing": tmp_path / "first"}, out=tmp_path / "next"):
            pass

    refused(caught(again), "the input thing has changed", "--force")


def test_force_replaces_all_the_old_run_made_and_nothing_of_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    run(folder)
    users = {"notes.txt": "mine", "deep/notes.txt": "mine too", "frames/notes.txt": "and mine", "frames/empty/": ""}
    (folder / "frames" / "empty").mkdir()
    for name, text in users.items():
        if text:
            (folder / name).write_text(text)
    run(folder, NEW, force=True)
    run(tmp_path / "fresh", NEW)
    found = tree(folder)
    assert {name: found.pop(name).decode() for name in users} == users
    assert found == tree(tmp_path / "fresh")
    read_manifest(folder, verify_all=True)


def test_force_keeps_the_old_result_until_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    run(folder)
    before = tree(folder)

    class Interrupted(Exception):
        pass

    def interrupted() -> None:
        with begin_stage("thing", NEW, inputs={}, out=folder, force=True) as stage:
            assert not stage.finished
            (stage.work / "table.csv").write_text("half")
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted()
    assert {name: content for name, content in tree(folder).items() if not name.startswith("unfinished")} == before
    read_manifest(folder, verify_all=True)


def test_force_also_replaces_a_damaged_result(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    run(folder)
    (folder / "table.csv").write_text("damaged")
    refused(caught(lambda: run(folder)), "table.csv", "--force")
    run(folder, force=True)
    read_manifest(folder, verify_all=True)
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(raw | {"results": {"seed": 3}}))  # edited: what it lists is known all the same
    refused(caught(lambda: run(folder)), "manifest.json", "edited")
    run(folder, force=True)
    read_manifest(folder, verify_all=True)


@pytest.mark.parametrize("content", ["mine", "{}", "[" * 10])
def test_force_replaces_nothing_where_ours_cannot_be_told_from_the_users(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    (folder / "table.csv").write_text("mine")
    before = tree_with_manifest(folder)
    for force in (False, True):
        refused(caught(lambda force=force: run(folder, force=force)), "manifest.json")  # type: ignore[misc]
        assert tree_with_manifest(folder) == before


def test_force_does_not_replace_another_stages_result(tmp_path: Path) -> None:
    run(tmp_path / "thing")
    before = tree_with_manifest(tmp_path / "thing")

    def other() -> None:
        with begin_stage("other", NEW, inputs={}, out=tmp_path / "thing", force=True):
            pytest.fail("it began")

    refused(caught(other), "holds a finished thing", "--out")
    assert tree_with_manifest(tmp_path / "thing") == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "checkpoints/last", "state.json"])
def test_an_unfinished_folder_that_is_not_ours_is_left_alone(tmp_path: Path, name: str, force: bool) -> None:
    folder = tmp_path / "thing"
    theirs = folder / "unfinished" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    refused(caught(lambda: run(folder, force=force)), str(folder / "unfinished"), "move it away")
    assert theirs.read_text() == "{}"


def test_an_unfinished_that_is_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "unfinished").write_text("mine")
    refused(caught(lambda: run(tmp_path, force=True)), "unfinished", "move it away")
    assert (tmp_path / "unfinished").read_text() == "mine"


def test_a_file_of_the_users_that_stands_where_a_result_must_go_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "table.csv").write_text("mine")
    refused(caught(lambda: run(folder)), str(folder / "table.csv"), "move")
    assert (folder / "table.csv").read_text() == "mine"
    (folder / "table.csv").unlink()
    (folder / "deep").write_text("mine")
    refused(caught(lambda: run(folder)), str(folder / "deep"), "move")
    assert (folder / "deep").read_text() == "mine"
    (folder / "deep").unlink()
    (folder / "frames" / "both").mkdir(parents=True)
    (folder / "frames" / "both" / "notes.txt").write_text("mine")
    refused(caught(lambda: run(folder)), str(folder / "frames" / "both"), "move")
    assert (folder / "frames" / "both" / "notes.txt").read_text() == "mine"
    shutil.rmtree(folder / "frames")
    assert run(folder).resumed  # what was done is not lost
    read_manifest(folder, verify_all=True)


def state_of(folder: Path) -> str:
    """What a folder holds: the whole old result, the whole new one, or none, which it says."""
    try:
        return {1: "old", 2: "new"}[read_manifest(folder, stage="thing", verify_all=True).results["seed"]]
    except InputError as error:
        text = refused(error)
        return "none" if "is unfinished" in text or text.startswith("There is no") else text


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "a new folder": lambda folder: None,
    "over another result": lambda folder: (run(folder), (folder / "deep" / "notes.txt").write_text("mine"))[0] and None,
    "over an equal result": lambda folder: (run(folder, NEW), (folder / "deep" / "notes.txt").write_text("mine"))[0] and None,
}


@pytest.mark.parametrize("prepare", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_killed_at_any_change_the_same_command_gives_the_whole_result(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    force = prepare is not SCENARIOS["a new folder"]
    template, expected = tmp_path / "template", tmp_path / "expected" / "thing"
    if force:
        prepare(template)
        shutil.copytree(template, expected)
    run(expected, NEW, force=force)
    before = tree(template) if force else {}
    number = 12 if force else 0  # the same work is killed below in a new folder
    while True:
        folder = tmp_path / str(number) / "thing"
        if force:
            shutil.copytree(template, folder)
        killed = kill_at_change(lambda folder=folder: run(folder, NEW, force=force), number)  # type: ignore[misc]
        # At every moment: the old result, the new one, or a stage that says it is not whole.
        if folder.exists() and os.listdir(folder):
            assert state_of(folder) in ({"old", "new", "none"} if force else {"new", "none"})
        if force and number < 16:  # before the new one is whole
            assert before.items() <= tree(folder).items()
        again = run(folder, NEW, force=force)
        assert again.manifest is not None
        assert tree(folder) == tree(expected), f"killed before change {number}"
        assert read_manifest(folder, verify_all=True).digest == again.manifest.digest
        shutil.rmtree(folder)
        if not killed:
            break
        number += 2 if force else 1
    assert number > 25, "the kills did not reach the work itself"


def test_killed_twice_and_then_run_without_force_gives_the_whole_result_or_names_the_difference(tmp_path: Path) -> None:
    template = tmp_path / "template"
    run(template)
    number = 22  # from about where the new result becomes whole
    while True:
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        killed = kill_at_change(lambda folder=folder: run(folder, NEW, force=True), number)  # type: ignore[misc]
        kill_at_change(lambda folder=folder: run(folder, NEW, force=True), 6)  # type: ignore[misc]
        try:
            run(folder, NEW)
        except InputError as error:
            refused(error, "seed was 1, now 2")
            run(folder, NEW, force=True)
        assert read_manifest(folder, verify_all=True).results == {"seed": 2}
        shutil.rmtree(folder)
        if not killed:
            break
        number += 3


def test_a_forced_run_killed_when_its_result_was_whole_is_finished_by_the_same_command(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    run(folder)

    def whole_but_not_settled() -> None:
        rspnet_cli.stage.settle = lambda _: os._exit(9) if (folder / "unfinished" / "manifest.json").exists() else False
        run(folder, NEW, force=True)

    assert wait(fork(whole_but_not_settled)) == 9
    before = (folder / "unfinished" / "manifest.json").read_bytes()
    assert run(folder, NEW, force=True).finished
    assert (folder / "manifest.json").read_bytes() == before


def test_an_interrupted_run_continues_with_what_it_had(tmp_path: Path) -> None:
    def interrupted() -> None:
        with begin_stage("thing", OLD, inputs={}, out=tmp_path / "thing") as stage:
            assert not stage.resumed
            (stage.work / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    refused(caught(lambda: read_manifest(tmp_path / "thing", stage="thing")), "unfinished")
    with begin_stage("thing", OLD, inputs={}, out=tmp_path / "thing") as stage:
        assert stage.resumed
        assert (stage.work / "half").read_text() == "half"
        assert stage.finish(results={}).environment["resumed"] is True
    assert not (tmp_path / "thing" / "half").exists()  # it was needed only for resuming


def test_an_unfinished_run_of_other_settings_is_kept_until_force(tmp_path: Path) -> None:
    def interrupted() -> None:
        with begin_stage("thing", OLD, inputs={}, out=tmp_path / "thing") as stage:
            (stage.work / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    refused(caught(lambda: run(tmp_path / "thing", NEW)), "unfinished", "seed was 1, now 2", "--force")
    assert (tmp_path / "thing" / "unfinished" / "half").exists()
    run(tmp_path / "thing", NEW, force=True)
    assert not (tmp_path / "thing" / "unfinished").exists()


def test_a_moved_work_directory_is_found_finished_and_continued(tmp_path: Path) -> None:
    run(tmp_path / "a" / "thing")
    with pytest.raises(KeyboardInterrupt), begin_stage("next", {}, inputs={"thing": tmp_path / "a" / "thing"}, out=tmp_path / "a" / "next"):
        raise KeyboardInterrupt
    (tmp_path / "a").rename(tmp_path / "b")
    assert run(tmp_path / "b" / "thing").finished
    with begin_stage("next", {}, inputs={"thing": tmp_path / "b" / "thing"}, out=tmp_path / "b" / "next") as stage:
        assert stage.resumed
        manifest = stage.finish(results={})
    assert manifest.input("thing").folder == tmp_path / "b" / "thing"


def hold(folder: Path, told: Path) -> int:
    """A process that runs the stage and does not end. Returns its id when it holds the folder."""

    def holder() -> None:
        with begin_stage("thing", OLD, inputs={}, out=folder) as stage:
            (stage.work / "half").write_text("half")
            told.touch()
            time.sleep(600)

    pid = fork(holder)
    wait_until(told.exists, "the other run has begun")
    return pid


def test_a_second_run_is_told_who_is_there_and_a_dead_one_is_in_nobodys_way(tmp_path: Path) -> None:
    pid = hold(tmp_path / "thing", tmp_path / "told")
    try:
        for _ in range(2):  # being refused does not wipe the name out
            error = caught(lambda: run(tmp_path / "thing"))
            assert isinstance(error, BusyError)
            assert error.exit_code == 1
            one_sentence(error, str(tmp_path / "thing"), f"process {pid} ", os.uname().nodename)
        one_sentence(caught(lambda: run(tmp_path / "thing", NEW, force=True)), f"process {pid} ")
        refused(caught(lambda: read_manifest(tmp_path / "thing", stage="thing")), "unfinished")
    finally:
        kill(pid)
        wait(pid)
    assert run(tmp_path / "thing").resumed


def test_a_killed_run_lets_go_although_its_own_children_live_on(tmp_path: Path) -> None:
    def holder() -> None:
        with begin_stage("thing", OLD, inputs={}, out=tmp_path / "thing"):
            child = fork(lambda: time.sleep(600))
            (tmp_path / "child").write_text(str(child))
            (tmp_path / "child").replace(tmp_path / "told")
            time.sleep(600)

    pid = fork(holder)
    wait_until((tmp_path / "told").exists, "the run has begun and has a child")
    child = int((tmp_path / "told").read_text())
    try:
        kill(pid)
        wait(pid)
        assert run(tmp_path / "thing").resumed
    finally:
        kill(child)


def test_without_flock_an_exclusive_file_names_the_holder_and_a_dead_one_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    pid = hold(tmp_path / "thing", tmp_path / "told")
    try:
        for _ in range(2):
            error = caught(lambda: run(tmp_path / "thing"))
            assert isinstance(error, BusyError)
            one_sentence(error, f"process {pid} ", os.uname().nodename)
    finally:
        kill(pid)
        wait(pid)
    assert run(tmp_path / "thing").resumed
    assert run(tmp_path / "thing").finished
    assert not (tmp_path / "thing" / ".lock-file").exists()


def refused_in_the_body(out: Path, *, force: bool = False) -> None:
    with begin_stage("thing", NEW, inputs={}, out=out, force=force):
        raise InputError("The settings do not fit: change them.")


def test_a_refused_command_leaves_no_folder_behind(tmp_path: Path) -> None:
    caught(lambda: run(tmp_path / "a" / "b" / "next", inputs={"thing": tmp_path / "missing"}))
    caught(lambda: refused_in_the_body(tmp_path / "a" / "b" / "thing"))
    assert os.listdir(tmp_path) == []
    run(tmp_path / "thing")
    before = tree(tmp_path / "thing")
    caught(lambda: refused_in_the_body(tmp_path / "thing", force=True))
    assert tree(tmp_path / "thing") == before


def test_a_folder_that_was_there_is_left_as_it_was_when_a_command_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    caught(lambda: refused_in_the_body(tmp_path / "mine"))
    assert tree(tmp_path / "mine") == {}


def test_a_place_that_cannot_be_written_to_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    refused(caught(lambda: run(tmp_path / "file")), str(tmp_path / "file"), "--out")
    refused(caught(lambda: run(tmp_path / "file" / "thing")), str(tmp_path / "file"), "--out")
    refused(caught(lambda: run(tmp_path / "new" / ("x" * 300))), "--out")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "a file"


def test_on_a_full_disk_the_old_result_stays_and_the_run_continues_once_there_is_room(
    tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(512)
    run(disk / "thing")
    before = tree(disk / "thing")

    def big(folder: Path) -> Manifest:
        with begin_stage("thing", NEW, inputs={}, out=folder, force=True) as stage:
            (stage.work / "first").write_text("done before")
            with (stage.work / "big").open("wb", buffering=0) as file:
                for _ in range(4):
                    file.write(bytes(100 * 1024))
            return stage.finish(results={}, artifacts=["first", "big"])

    filler = disk / "filler"
    filler.write_bytes(bytes(300 * 1024))
    error = caught(lambda: big(disk / "thing"))
    assert isinstance(error, DiskFullError)
    assert error.exit_code == 1
    one_sentence(error, str(disk), "The disk is full")
    assert before.items() <= tree(disk / "thing").items()
    read_manifest(disk / "thing", verify_all=True)
    filler.unlink()
    assert big(disk / "thing").environment["resumed"] is True
    read_manifest(disk / "thing", verify_all=True)
