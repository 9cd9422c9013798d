"""A manifest that is not exactly what was written is refused in one sentence, whatever was done to it or its files."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import Entry
from rspnet_cli.files import sha256_of, sha256_of_folder, sha256_of_json
from rspnet_cli.manifest import MAX_MANIFEST_BYTES, SCHEMA_VERSION, Listed, Manifest, read_manifest
from rspnet_cli.stage import begin_stage
from tests.sentences import refused

DIGESTED = ("schema_version", "stage", "tool_version", "config", "inputs", "artifacts", "results", "classes_sha256")


def make_stage(out: Path, name: str = "extract", *, inputs: dict[str, Path] | None = None, seed: int = 1) -> Manifest:
    with begin_stage(name, {"a": {"seed": seed, "share": 0.5}}, inputs=inputs or {}, out=out) as stage:
        if stage.manifest is not None:
            return stage.manifest
        (stage.work / "frames" / "b").mkdir(parents=True)
        (stage.work / "table.csv").write_text("id,label\n1,2\n")
        (stage.work / "frames" / "a.mp4").write_bytes(bytes(range(100)))
        (stage.work / "frames" / "b" / "img_00001.jpg").write_bytes(b"picture")
        frames = [
            Entry("frames/a.mp4", 100, sha256_of(stage.work / "frames" / "a.mp4")),
            Entry("frames/b/", *sha256_of_folder(stage.work / "frames" / "b")),
        ]
        return stage.finish(results={"loss": 0.25, "recall": {"1": 0.5}}, artifacts=["table.csv"], indexed=("frames/", frames))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_stage(tmp_path / "run" / "extract").folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object], *, rehash: bool) -> None:
    """Change a manifest; rehash: by someone who computes the digest anew."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    if rehash:
        content["digest"] = sha256_of_json({key: content[key] for key in DIGESTED if key in content})
    path.write_text(json.dumps(content))


def fault(folder: Path, *words: str, stage: str | None = "extract", verify_all: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        read_manifest(folder, stage=stage, verify_all=verify_all)
    return refused(caught.value, *words)


def test_a_finished_stage_reads_back_by_folder_and_by_file(folder: Path) -> None:
    manifest = read_manifest(folder, stage="extract", verify_all=True)
    assert manifest == read_manifest(folder / "manifest.json")
    assert manifest.folder == folder
    assert manifest.results == {"loss": 0.25, "recall": {"1": 0.5}}
    assert manifest.artifact_path("table.csv").read_text() == "id,label\n1,2\n"
    assert [artifact.path for artifact in manifest.artifacts] == ["files.csv", "table.csv"]
    assert [entry.path for entry in manifest.indexed()] == ["frames/a.mp4", "frames/b/"]
    assert manifest.listed == Listed(folder="frames/", files=2, bytes=107)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("manifest.json", ".lock")]
    assert (manifest.num_files, manifest.num_bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert list(json.loads((folder / "manifest.json").read_text())) == [
        *("schema_version", "stage", "tool_version", "created", "config", "inputs", "artifacts", "results", "classes_sha256"),
        *("environment", "digest"),
    ]


def test_the_digest_is_the_hash_of_everything_but_created_environment_and_itself(folder: Path) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    assert raw["digest"] == sha256_of_json({key: raw[key] for key in DIGESTED})


def test_equal_settings_and_files_have_equal_digests_and_others_do_not(folder: Path, tmp_path: Path) -> None:
    first = read_manifest(folder)
    assert make_stage(tmp_path / "again").digest == first.digest
    assert make_stage(tmp_path / "other", seed=2).digest != first.digest


@pytest.mark.parametrize("key", ["created", "environment"])
def test_time_and_machine_are_no_part_of_the_digest(folder: Path, key: str) -> None:
    edit(
        folder, lambda content: content.update({key: {"host": "x"} if key == "environment" else "2001-01-01T00:00:00+00:00"}), rehash=False
    )
    read_manifest(folder)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a setting": lambda content: content["config"]["a"].update(seed=2),
    "a result": lambda content: content["results"].update(loss=0.1),
    "a result's kind": lambda content: content["results"]["recall"].update({"1": "0.5"}),
    "an added result": lambda content: content["results"].update(more=1),
    "the version": lambda content: content.update(tool_version="9.9"),
    "an artifact's size": lambda content: content["artifacts"][1].update(bytes=1),
    "an artifact left out": lambda content: content["artifacts"].pop(),
    "the class list": lambda content: content.update(classes_sha256="0" * 64),
    "an added input": lambda content: content["inputs"].append({"stage": "x", "path": "../x/manifest.json", "digest": "0" * 64}),
    "the digest": lambda content: content.update(digest="0" * 64),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS.keys())
def test_an_edited_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change, rehash=False)
    fault(folder, str(folder / "manifest.json"), "edited", "--force")


NO_MANIFESTS: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{schema_version: 1}",
    "a list": b"[1, 2]",
    "a number": b"7",
    "a text": b'"schema_version"',
    "no schema": b"{}",
    "schema a text": b'{"schema_version": "1"}',
    "schema true": b'{"schema_version": true}',
    "half": b'{"schema_version": 1, "stage": "extr',
    "binary": bytes(range(256)),
    "utf-16": '{"schema_version": 1}'.encode("utf-16"),
    "deep lists": b'{"schema_version": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a number of 100,000 digits": b'{"schema_version": ' + b"9" * 100_000 + b"}",
    "schema missing the rest": b'{"schema_version": 1}',
    "nul bytes": bytes(1000),
}


@pytest.mark.parametrize("content", NO_MANIFESTS.values(), ids=NO_MANIFESTS.keys())
def test_what_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    fault(folder, str(folder / "manifest.json"))


WRONG_CONTENTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an unknown key": lambda content: content.update(extra=1),
    "a key missing": lambda content: content.pop("results"),
    "artifacts no list": lambda content: content.update(artifacts={"a": 1}),
    "a negative size": lambda content: content["artifacts"][0].update(bytes=-1),
    "a size as text": lambda content: content["artifacts"][0].update(bytes="100"),
    "no hash": lambda content: content["artifacts"][0].update(sha256="xyz"),
    "config a list": lambda content: content.update(config=[1]),
    "results not a number": lambda content: content["results"].update(loss=float("nan")),
    "results infinite": lambda content: content["results"].update(loss=float("inf")),
    "a half character": lambda content: content["config"].update(name="\ud800"),
    "a half character as key": lambda content: content["config"].update({"\ud800": 1}),
    "a half character as path": lambda content: content["artifacts"][0].update(path="\ud800"),
    "stage a number": lambda content: content.update(stage=3),
    "schema 0": lambda content: content.update(schema_version=0),
    "schema negative": lambda content: content.update(schema_version=-1),
}


@pytest.mark.parametrize("change", WRONG_CONTENTS.values(), ids=WRONG_CONTENTS.keys())
def test_wrong_contents_are_refused_whatever_the_digest_says(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change, rehash=False)
    fault(folder, str(folder / "manifest.json"))


@pytest.mark.parametrize("depth", [100, 250, 300, 600, 900, 2000])
def test_deeply_nested_settings_are_read_or_refused(folder: Path, depth: int) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"config": {', '"config": {"deep": ' + "[" * depth + "]" * depth + ",", 1))
    fault(folder, str(folder / "manifest.json"))


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=3))
def test_no_damage_goes_unnoticed_or_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        make_stage(folder)
        shutil.copy(folder / "manifest.json", folder / "good")
    good = (folder / "good").read_bytes()
    place = place % len(good)
    bad = good[:place] + damage + good[place + len(damage) :]
    (folder / "manifest.json").write_bytes(bad)
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        refused(error)
    else:  # what no digest covers, white space, or another spelling of the same
        expected = json.loads(good)
        assert {key: manifest.model_dump(mode="json")[key] for key in DIGESTED} == {key: expected[key] for key in DIGESTED}


def test_a_newer_schema_says_to_upgrade(folder: Path) -> None:
    edit(folder, lambda content: content.update(schema_version=SCHEMA_VERSION + 1, tool_version="7.0", news=[]), rehash=True)
    fault(folder, "newer", "7.0", "upgrade")


def test_another_stage_is_named_with_the_command_that_makes_the_right_one(folder: Path) -> None:
    fault(folder, "'extract'", "'pretrain'", "rspnet pretrain", stage="pretrain")


def test_a_shard_is_no_result_of_its_stage_and_names_the_command_that_makes_one(tmp_path: Path) -> None:
    make_stage(tmp_path / "run" / "extract.shard-1-of-2", "extract-shard")
    fault(tmp_path / "run" / "extract.shard-1-of-2", "'extract-shard'", "'extract'", "run `rspnet merge extract` first")
    fault(tmp_path / "run" / "extract", "its shards are there", "`rspnet merge extract`")


def as_schema_1(folder: Path) -> None:
    """What the first version wrote: every file of frames in the manifest itself."""
    entries = [{"path": path, "bytes": size, "sha256": sha256} for path, size, sha256 in read_manifest(folder).indexed()]
    (folder / "files.csv").unlink()
    edit(folder, lambda content: content.update(schema_version=1, artifacts=[*entries, content["artifacts"][1]]), rehash=True)


def test_a_manifest_of_schema_1_is_read_and_checked_as_it_was(folder: Path) -> None:
    as_schema_1(folder)
    manifest = read_manifest(folder, stage="extract", verify_all=True)
    assert (manifest.schema_version, manifest.listed, list(manifest.indexed())) == (1, None, [])
    assert [artifact.path for artifact in manifest.few_artifacts] == ["table.csv"]
    assert (manifest.num_files, manifest.num_bytes) == (3, 120)
    (folder / "frames" / "a.mp4").write_bytes(bytes(100))
    read_manifest(folder)
    fault(folder, "a.mp4", "changed", verify_all=True)
    (folder / "frames" / "a.mp4").unlink()
    fault(folder, "a.mp4", "missing")


def test_a_missing_manifest_names_the_command_to_run_first(tmp_path: Path) -> None:
    fault(tmp_path / "run" / "extract", "run `rspnet extract` first")
    (tmp_path / "empty").mkdir()
    fault(tmp_path / "empty", "run `rspnet extract` first")


def test_an_unfinished_stage_is_named_as_such(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupted() -> None:
        with begin_stage("extract", {}, inputs={}, out=tmp_path / "extract"):
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted()
    fault(tmp_path / "extract", "unfinished", "again")


def test_a_huge_file_is_not_even_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)  # sparse: takes no room
    fault(folder, "268,435,457 bytes")


def test_folders_pipes_and_links_in_a_loop_are_no_manifest(folder: Path, tmp_path: Path) -> None:
    path = folder / "manifest.json"
    path.unlink()
    path.mkdir()
    fault(folder, "not a regular file")
    path.rmdir()
    os.mkfifo(path)
    fault(folder, "not a regular file")
    path.unlink()
    path.symlink_to("manifest.json")
    fault(folder, "cannot be read")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    fault(folder)
    fault(tmp_path / ("long" * 100), "long")


@pytest.mark.parametrize("name", ["table.csv", "frames/a.mp4", "frames/b"])
def test_a_missing_artifact_is_named(folder: Path, name: str) -> None:
    target = folder / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    fault(folder, str(target), "missing", "--force")


def test_a_changed_artifact_is_named_with_what_is_wrong(folder: Path) -> None:
    table, video = folder / "table.csv", folder / "frames" / "a.mp4"
    table.write_text("id,label\n1,3\n")
    fault(folder, str(table), "changed", "sha256")
    table.write_text("id,label\n1,2\n3,4\n")
    fault(folder, str(table), "17 bytes", "13")
    table.write_text("id,label\n1,2\n")
    video.write_bytes(bytes(99))
    fault(folder, str(video), "99 bytes")


def test_frame_files_are_hashed_when_everything_is_asked_for(folder: Path) -> None:
    (folder / "frames" / "a.mp4").write_bytes(bytes(100))
    read_manifest(folder)
    fault(folder, "a.mp4", "changed", verify_all=True)
    (folder / "frames" / "a.mp4").write_bytes(bytes(range(100)))
    (folder / "frames" / "b" / "img_00001.jpg").write_bytes(b"Picture")
    fault(folder, "frames/b", "changed", verify_all=True)
    (folder / "frames" / "b" / "img_00001.jpg").write_bytes(b"picture")
    (folder / "frames" / "b" / "img_00002.jpg").write_bytes(b"")
    fault(folder, "frames/b", verify_all=True)


PATHS = ["../outside.csv", "frames/../../outside.csv", "/etc/hostname", "..", ".", "", "/", "a\\..\\b", "a\0b", "x" * 300, "table.csv/x"]


@pytest.mark.parametrize("path", PATHS, ids=[repr(path[:30]) for path in PATHS])
def test_an_artifact_outside_the_folder_is_refused_even_with_a_right_digest(folder: Path, path: str) -> None:
    (folder.parent / "outside.csv").write_text("id,label\n1,2\n")
    edit(folder, lambda content: content["artifacts"][1].update(path=path), rehash=True)
    fault(folder)


def rewrite_index(folder: Path, text: str) -> None:
    """By someone who computes hash and digest anew."""
    (folder / "files.csv").write_text(text)
    size, sha256 = len(text.encode()), sha256_of(folder / "files.csv")
    edit(folder, lambda content: content["artifacts"][0].update(bytes=size, sha256=sha256), rehash=True)


INDEXES: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "another header": lambda text: text.replace("path", "file"),
    "a line cut off": lambda text: text[:-10],
    "a file left out": lambda text: "".join(text.splitlines(keepends=True)[:2]),
    "a file twice": lambda text: text + text.splitlines(keepends=True)[-1],
    "out of order": lambda text: "".join([text.splitlines(keepends=True)[line] for line in (0, 2, 1)]),
    "another size": lambda text: text.replace(",100,", ",101,"),
    "no hash": lambda text: text.replace("\n", "x\n"),
    "outside the folder": lambda text: text.replace("frames/a.mp4", "frames/../../outside.csv"),
    "outside its own folder": lambda text: text.replace("frames/b/", "table.csv"),
    "absolute": lambda text: text.replace("frames/a.mp4", "/etc/hostname"),
    "more columns": lambda text: text.replace("frames/a.mp4", "frames/a.mp4,1"),
}


@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES.keys())
def test_an_index_that_is_none_is_refused_whatever_its_hash_says(folder: Path, change: Callable[[str], str]) -> None:
    (folder.parent / "outside.csv").write_text("id,label\n1,2\n")
    text = change((folder / "files.csv").read_text())
    (folder / "files.csv").write_text(text)
    fault(folder, str(folder / "files.csv"))
    rewrite_index(folder, text)
    fault(folder)


def test_of_very_many_files_a_sample_is_looked_for_and_all_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rspnet_cli.manifest.CHECKED_FILES", 1)
    monkeypatch.setattr("rspnet_cli.manifest.SAMPLED_FILES", 1)
    shutil.rmtree(folder / "frames" / "b")
    read_manifest(folder)  # the sample is the first
    fault(folder, "frames/b", "missing", verify_all=True)
    monkeypatch.setattr("rspnet_cli.manifest.SAMPLED_FILES", 4)
    fault(folder, "frames/b", "missing")


def test_links_that_lead_out_of_the_folder_are_refused(folder: Path) -> None:
    outside = folder.parent / "outside"
    shutil.copytree(folder, outside)
    table, frames = folder / "table.csv", folder / "frames"
    table.unlink()
    table.symlink_to(outside / "table.csv")
    fault(folder, str(table), "link")
    table.unlink()
    table.symlink_to("../outside/table.csv")
    fault(folder, str(table), "link")
    table.unlink()
    table.symlink_to("table.csv")
    fault(folder, str(table), "link")
    table.unlink()
    shutil.copy(outside / "table.csv", table)
    read_manifest(folder)
    shutil.rmtree(frames)
    frames.symlink_to(outside / "frames")
    fault(folder, "frames", "link")


def test_a_pipe_or_folder_in_place_of_an_artifact_is_refused(folder: Path) -> None:
    (folder / "table.csv").unlink()
    os.mkfifo(folder / "table.csv")
    fault(folder, "table.csv", "regular file")
    (folder / "table.csv").unlink()
    (folder / "table.csv").mkdir()
    fault(folder, "table.csv", "regular file")


def test_a_folder_reached_through_a_link_is_as_good_as_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert read_manifest(tmp_path / "link", verify_all=True).folder == tmp_path / "link"


def test_an_input_that_was_made_anew_differently_is_noticed(folder: Path, tmp_path: Path) -> None:
    later = make_stage(tmp_path / "run" / "pretrain", "pretrain", inputs={"extract": folder})
    assert later.input("extract").folder == folder
    shutil.rmtree(folder)
    with pytest.raises(InputError) as caught:
        later.input("extract")
    refused(caught.value, "rspnet extract")
    make_stage(folder, seed=2)
    with pytest.raises(InputError) as caught:
        later.input("extract")
    refused(caught.value, str(folder), "digest differs")


def test_a_moved_work_directory_still_works(folder: Path, tmp_path: Path) -> None:
    make_stage(tmp_path / "run" / "pretrain", "pretrain", inputs={"extract": folder})
    (tmp_path / "run").rename(tmp_path / "moved")
    later = read_manifest(tmp_path / "moved" / "pretrain", verify_all=True)
    assert later.inputs[0].path == "../extract/manifest.json"
    assert later.input("extract", verify=True).folder == tmp_path / "moved" / "extract"


def test_an_artifact_or_input_that_is_not_listed_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    with pytest.raises(InputError) as caught:
        manifest.artifact_path("features.safetensors")
    refused(caught.value, "features.safetensors", "run `rspnet extract` again")
    with pytest.raises(InputError) as caught:
        manifest.input("pretrain")
    refused(caught.value, "'pretrain'")
