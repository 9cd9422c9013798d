"""Shards, merged, are what one run makes: every byte of it, in whatever order, wherever a kill stopped it; and no less than all of them."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.config import ExportConfig, ExtractConfig
from rspnet_cli.errors import BusyError, InputError, RspnetError
from rspnet_cli.evaluation import features
from rspnet_cli.evaluation.feature_facts import feature_facts
from rspnet_cli.lineage import read_lineage
from rspnet_cli.locks import hold_lock
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.shards import Shard, shard_folders
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.extract import extract
from rspnet_cli.stages.inspect import verify_lineage
from rspnet_cli.stages.merge import merge
from rspnet_cli.videos.frames import read_frames
from tests.encode import make_video, not_a_video
from tests.processes import fork, fork_ranks, kill_at_change, wait
from tests.sentences import one_sentence, refused
from tests.stages.test_export_features import FLAGS, SETTINGS, Notes, Run, make_run

NUM_SHARDS = 3


def run(videos: Path, out: Path, *, config: dict[str, Any] | None = None, **how: Any) -> Manifest:
    settings = validated(ExtractConfig, {"short_side": 32, "workers": 1} | (config or {}))
    return extract(settings, videos=videos, out=out, **how)


def run_shards(videos: Path, out: Path, count: int = NUM_SHARDS, **how: Any) -> list[Path]:
    return [run(videos, out, shard=Shard(index, count), **how).folder for index in range(1, count + 1)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, eight videos, one of them broken, and a link that leads nowhere. Not to be written to."""
    root = tmp_path_factory.mktemp("sources") / "videos"
    for number in range(7):
        make_video(root / ("walk", "run")[number % 2] / f"v{number}.mp4", 8 + number, start=100 * number)
    not_a_video(root / 'walk/noise, "loud".mp4')
    (root / "run/gone.mp4").symlink_to("nowhere.mp4")
    return root


@pytest.fixture(scope="module")
def layout(request: pytest.FixtureRequest) -> Iterator[str]:
    """A store of few videos in one folder, or of many in many."""
    layout = getattr(request, "param", "flat")
    with pytest.MonkeyPatch.context() as patch:
        if layout == "folders":
            patch.setattr("rspnet_cli.videos.extraction.FLAT_VIDEOS", 2)
        yield layout


both_layouts = pytest.mark.parametrize("layout", ["flat", "folders"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def whole(videos: Path, layout: str, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The extraction of one run. Not to be written to."""
    return run(videos, tmp_path_factory.mktemp("whole") / "extract")


@pytest.fixture(scope="module")
def shards(videos: Path, layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shards of `extract`. Not to be written to."""
    out = tmp_path_factory.mktemp("shards") / "extract"
    run_shards(videos, out)
    return out.parent


@pytest.fixture
def own(shards: Path, tmp_path: Path) -> Path:
    """The result's folder beside a copy of the shards for a test to merge."""
    return Path(shutil.copytree(shards, tmp_path / "run")) / "extract"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the lock, and of the manifest what its digest covers."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    manifest = json.loads(found.pop("manifest.json"))
    return found | {"manifest.json": json.dumps({key: manifest[key] for key in manifest if key not in ("created", "environment")}).encode()}


def test_shards_cover_the_listing_and_each_is_a_folder_of_its_own(shards: Path, whole: Manifest) -> None:
    folders = shard_folders(shards / "extract")
    assert [folder.name for folder in folders] == [f"extract.shard-{index}-of-3" for index in (1, 2, 3)]
    manifests = [read_manifest(folder, stage="extract-shard", verify_all=True) for folder in folders]
    assert len({manifest.config["listing_sha256"] for manifest in manifests}) == 1
    assert [manifest.config["shard"] for manifest in manifests] == ["1/3", "2/3", "3/3"]
    assert sorted(manifest.results["videos"] + manifest.results["failed"] for manifest in manifests) == [2, 3, 4]  # one failed by its name
    assert sum(manifest.results["videos"] for manifest in manifests) == whole.results["videos"] == 7
    with pytest.raises(InputError) as caught:
        read_manifest(folders[0], stage="extract")
    refused(caught.value, "'extract-shard'", "run `rspnet merge extract` first")


@both_layouts
def test_merged_shards_are_the_result_of_one_run_byte_for_byte(own: Path, whole: Manifest, videos: Path, layout: str) -> None:
    folders = shard_folders(own)
    merged = merge("extract", out=own, shards=[folders[1], folders[2], folders[0]])
    assert merged.digest == whole.digest
    assert contents(own) == contents(whole.folder)
    assert {"videos.csv", "failures.csv", "files.csv", "sources.csv", "manifest.json"} < contents(own).keys()
    assert any(name.count("/") == (2 if layout == "folders" else 1) for name in contents(own) if name.endswith(".mp4"))
    assert shard_folders(own) == []
    assert [part["shard"] for part in merged.environment["shards"]] == ["1/3", "2/3", "3/3"]
    assert merged.environment["sources_sha256"] == whole.environment["sources_sha256"]
    # From here on it is as one run's: for the same command, the next stage, and the reader of its files.
    notes = Notes()
    assert run(videos, own, report=notes).digest == whole.digest
    assert run(videos, own, shard=Shard(2, 3), report=notes).digest == whole.digest
    assert merge("extract", out=own, report=notes).digest == whole.digest
    assert ["finished" in line for line in notes.lines] == [True] * 3
    assert len(read_frames(read_manifest(own, stage="extract", verify_all=True))) == 7
    assert verify_lineage(read_lineage(own), Reporter.silent()).faults == []
    assert shard_folders(own) == []


@pytest.mark.parametrize("layout", ["folders"], indirect=True, scope="module")
def test_folders_of_a_large_store_are_moved_whole(own: Path, layout: str) -> None:
    inodes = {path.name: path.stat().st_ino for folder in shard_folders(own) for path in (folder / "frames").iterdir()}
    assert len(inodes) > 3
    merge("extract", out=own)
    assert {path.name: path.stat().st_ino for path in (own / "frames").iterdir()} == inodes


@pytest.mark.parametrize(("layout", "codec"), [("folders", "h264"), ("flat", "jpeg")], indirect=["layout"], scope="module")
def test_a_merge_killed_at_any_change_of_the_disk_is_finished_by_the_same_command(
    videos: Path, tmp_path: Path, codec: str, layout: str
) -> None:
    config = {"codec": codec, "limit": 4}
    expected = contents(run(videos, tmp_path / "whole", config=config).folder)
    template = tmp_path / "template"
    run_shards(videos, template / "extract", 2, config=config)
    number = 0
    while True:
        out = Path(shutil.copytree(template, tmp_path / str(number), symlinks=True)) / "extract"
        killed = kill_at_change(partial(merge, "extract", out=out), number)
        if killed:
            kill_at_change(partial(merge, "extract", out=out), 5)  # and once more
        assert merge("extract", out=out).folder == out
        assert contents(out) == expected, f"killed before change {number}"
        assert os.listdir(out.parent) == ["extract"], f"killed before change {number}"
        shutil.rmtree(out.parent)
        if not killed:
            break
        number += 2 if codec == "h264" else 5
    assert number > 50


def test_shards_that_are_not_all_of_one_run_are_refused_and_nothing_is_changed(own: Path, videos: Path, tmp_path: Path) -> None:
    def tree() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in own.parent.rglob("*.*") if path.name != ".lock"}

    def fault(*words: str, shards: list[Path] | None = None) -> None:
        before = tree()
        with pytest.raises(InputError) as caught:
            merge("extract", out=own, shards=shards or ())
        refused(caught.value, *words)
        assert tree() == before
        assert not own.exists()

    folders = shard_folders(own)
    other = run(videos, tmp_path / "other/extract", shard=Shard(2, 3), config={"crf": 30}).folder
    more = run(videos, tmp_path / "more/extract", shard=Shard(2, 4)).folder
    fault("2 are missing (1, 3)", "--shard 1/3", shards=[folders[1]])
    fault("Shard 2/3 of extract is there more than once", str(other), shards=[*folders, other])
    fault(str(other), "crf is 20 there, 30 here", shards=[folders[0], other, folders[2]])
    fault("different numbers of shards", shards=[folders[0], more, folders[2]])
    first = next(path for path in folders[2].rglob("*.mp4"))
    notes = first.parent / "notes.mp4"
    notes.write_text("mine")
    fault(str(notes), "no file of this shard")
    notes.unlink()
    hidden = first.rename(own.parent / "hidden.mp4")
    fault(str(first), "is missing", "--shard 3/3 --force")
    hidden.rename(first)
    with hold_lock(folders[1]), pytest.raises(BusyError):
        merge("extract", out=own)
    with pytest.raises(InputError) as caught:
        merge("pretrain", out=own)
    refused(caught.value, "extract or export-features")


def test_a_listing_that_changed_between_two_shards_is_refused_when_the_second_begins_and_when_they_are_merged(
    videos: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "videos", symlinks=True))
    out = tmp_path / "extract"
    run(root, out, shard=Shard(1, 2))
    make_video(root / "walk/late.mp4", 8)
    with pytest.raises(InputError) as caught:
        run(root, out, shard=Shard(2, 2))
    refused(caught.value, "Shard 2/2", f"{out}.shard-1-of-2", "other listing", "--force")
    assert not Path(f"{out}.shard-2-of-2").exists()
    run(root, out, shard=Shard(2, 2), force=True)
    with pytest.raises(InputError) as caught:
        merge("extract", out=out)
    refused(caught.value, f"{out}.shard-2-of-2", f"{out}.shard-1-of-2", "other listing")
    run(root, out, shard=Shard(1, 2), force=True)
    assert merge("extract", out=out).digest == run(root, tmp_path / "whole").digest


@both_layouts
def test_touched_files_workers_and_interruptions_change_nothing(videos: Path, tmp_path: Path, whole: Manifest, layout: str) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "videos", symlinks=True))
    out = tmp_path / "run/extract"
    assert kill_at_change(lambda: run(root, out, shard=Shard(2, 3), config={"workers": 2}), 15)
    left = out.with_name("extract.shard-2-of-3") / "unfinished/frames" / ("00a" if layout == "folders" else "") / ".tmp-1-deadbeef.mp4"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    for number, path in enumerate(sorted(root.rglob("v*.mp4"))):
        os.utime(path, (number, number))
    run(root, out, shard=Shard(2, 3), verify_sources=True)
    run(root, out, shard=Shard(3, 3), config={"workers": 3})
    run(root, out, shard=Shard(1, 3))
    merged = merge("extract", out=out)
    assert merged.digest == whole.digest
    assert not list(out.rglob(".tmp-*"))
    names = ("videos.csv", "failures.csv", "files.csv")
    assert all((out / name).read_bytes() == (whole.folder / name).read_bytes() for name in names)


def test_sources_beyond_a_limit_are_known_of_the_merged_result_too(videos: Path, tmp_path: Path) -> None:
    config = {"limit": 5}
    run_shards(videos, tmp_path / "extract", config=config)
    merged = merge("extract", out=tmp_path / "extract")
    expected = run(videos, tmp_path / "whole", config=config)
    assert contents(merged.folder) == contents(expected.folder)
    with (merged.folder / "sources.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8


def test_a_shard_of_broken_videos_alone_is_finished_and_a_result_without_any_video_is_not(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    make_video(root / "good.mp4", 8)
    not_a_video(root / "bad.mp4")
    folders = run_shards(root, tmp_path / "extract", 2)
    assert sorted(read_manifest(folder).results["videos"] for folder in folders) == [0, 1]
    assert merge("extract", out=tmp_path / "extract").digest == run(root, tmp_path / "whole").digest
    not_a_video(root / "good.mp4")
    run_shards(root, tmp_path / "none", 2)
    with pytest.raises(RspnetError) as caught:
        merge("extract", out=tmp_path / "none")
    one_sentence(caught.value, "None of the 2 videos")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "none").exists()
    run_shards(root, tmp_path / "none", 2, retry_failed=True)  # as the sentence says


def test_the_results_of_running_shards_are_no_videos(videos: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "videos", symlinks=True))
    out = root / "run/extract"
    config = {"dataset": "plain"}
    run(root, out, shard=Shard(1, 2), config=config)
    unfinished = Path(f"{out}.shard-3-of-5/unfinished/frames")  # of another task, at work
    unfinished.mkdir(parents=True)
    make_video(unfinished / "v0.mp4", 8)
    run(root, out, shard=Shard(2, 2), config=config)
    shutil.rmtree(unfinished.parent.parent)
    assert merge("extract", out=out).results["videos"] == 7


def test_an_older_result_is_replaced_by_force_alone(own: Path, whole: Manifest, videos: Path) -> None:
    old = run(videos, own, config={"crf": 30})
    with pytest.raises(InputError) as caught:
        merge("extract", out=own)
    refused(caught.value, "crf was 30, now 20", "--force", "--out")
    assert read_manifest(own, verify_all=True).digest == old.digest
    assert merge("extract", out=own, force=True).digest == whole.digest
    assert contents(own) == contents(whole.folder)


def test_an_equal_result_of_one_run_is_not_taken_for_the_merged_one(own: Path, whole: Manifest, videos: Path) -> None:
    run(videos, own)
    with pytest.raises(InputError) as caught:
        merge("extract", out=own)
    refused(caught.value, "was not made of them", "--force")
    assert len(shard_folders(own)) == 3
    assert merge("extract", out=own, force=True).digest == whole.digest
    assert shard_folders(own) == []


def test_extract_does_not_touch_a_merge_that_was_stopped_and_the_other_way_round(own: Path, whole: Manifest, videos: Path) -> None:
    def stopped(function: Callable[[], object], where: str) -> None:
        with pytest.MonkeyPatch.context() as patch:

            def stop(*_: object, **__: object) -> None:
                raise ZeroDivisionError

            patch.setattr(where, stop)
            with pytest.raises(ZeroDivisionError):
                function()

    stopped(lambda: merge("extract", out=own), "rspnet_cli.stage.Stage.finish")
    for force in (False, True):
        with pytest.raises(InputError) as caught:
            run(videos, own, force=force)
        refused(caught.value, "`rspnet merge extract` has begun")
    with pytest.raises(InputError) as caught:  # a task of the array, started again
        run(videos, own, shard=Shard(1, 3))
    refused(caught.value, "merge of these shards that is not finished", "`rspnet merge extract`")
    assert merge("extract", out=own).digest == whole.digest
    other = own.with_name("other")
    stopped(lambda: run(videos, other), "rspnet_cli.stage.Stage.finish")
    run_shards(videos, other, 2)
    for force in (False, True):
        with pytest.raises(InputError) as caught:
            merge("extract", out=other, force=force)
        refused(caught.value, "`rspnet extract` has begun")


def test_frames_on_another_file_system_are_not_copied(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(InputError) as caught:
            merge("extract", out=own)
    refused(caught.value, "another file system", "--out")
    assert len(shard_folders(own)) == 3
    assert merge("extract", out=own).results["videos"] == 7


# Features


@pytest.fixture(scope="module")
def features_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MIN_PIECES", 2)  # [0, 1], [2, 3], [4]


def export(run: Run, out: Path, shard: Shard | None = None, *, force: bool = False, **settings: object) -> Manifest:
    config = ExportConfig.model_validate(SETTINGS | settings)
    return export_features(config, pretrain=run.pretrain.folder, out=out, shard=shard, force=force)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize(
    "settings",
    [{"also": ("npy", "parquet")}, {"random_init": True}, {"gallery_augment": "reference", "gallery_batch": 3}],
    ids=["plain", "random-init", "gallery"],
)
def test_merged_features_are_those_of_one_run_byte_for_byte(features_run: Run, tmp_path: Path, settings: dict[str, object]) -> None:
    out = tmp_path / "export-features"
    whole = export(features_run, tmp_path / "whole", **settings)
    parts = [export(features_run, out, Shard(index, 3), workers=index % 2, **settings) for index in (3, 1, 2)]
    assert [part.results["videos"] for part in parts] == [1, 2, 2]
    assert {part.stage for part in parts} == {"export-features-shard"}
    merged = merge("export-features", out=out)
    assert merged.digest == whole.digest
    assert contents(out) == contents(whole.folder)
    assert shard_folders(out) == []
    assert export(features_run, out, Shard(2, 3), **settings).digest == whole.digest
    assert export(features_run, out, **settings).digest == whole.digest
    assert shard_folders(out) == []


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_small_set_makes_as_many_shards_as_it_has_videos(features_run: Run, tmp_path: Path, count: int) -> None:
    out = tmp_path / "export-features"
    whole = export(features_run, tmp_path / "whole")
    for index in range(1, count + 1):
        export(features_run, out, Shard(index, count))
    assert merge("export-features", out=out).digest == whole.digest
    assert contents(out) == contents(whole.folder)


@pytest.mark.usefixtures("_small_pieces")
def test_several_processes_share_a_shard_too(features_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "export-features"
    whole = export(features_run, tmp_path / "whole", random_init=True)

    def together(index: int) -> tuple[list[int], list[str]]:
        command = [
            "export-features",
            str(features_run.pretrain.folder),
            "--random-init",
            "--out",
            str(out),
            "--shard",
            f"{index}/2",
            "--quiet",
        ]
        outputs = [tmp_path / f"output-{rank}" for rank in range(2)]
        codes = fork_ranks(lambda: main([*command, *FLAGS]), outputs)
        return codes, [output.read_text() for output in outputs]

    for index in (2, 1):
        assert together(index)[0] == [0, 0]
    assert merge("export-features", out=out).digest == whole.digest
    assert contents(out) == contents(whole.folder)
    assert together(1)[0] == [0, 0], "part of the merged result"
    assert shard_folders(out) == []

    export(features_run, tmp_path / "other" / "export-features", Shard(2, 2))
    out = tmp_path / "other" / "export-features"
    codes, said = together(1)
    assert codes == [2, 2]
    assert "Shard 1/2 would not belong to" in said[0]
    assert said[1] == "", "the first process alone says why"


@pytest.mark.usefixtures("_small_pieces")
def test_features_by_other_batch_norm_statistics_are_refused(features_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "export-features"
    export(features_run, out, Shard(1, 2), random_init=True)
    with monkeypatch.context() as patch:  # what another processor makes of the same clips
        patch.setattr(features, "STATISTICS_CLIPS", 32)
        patch.setattr("rspnet_cli.stages.export_features.feature_facts", partial(_facts_of, num_statistics_clips=64))
        export(features_run, out, Shard(2, 2), random_init=True)
    with pytest.raises(InputError) as caught:
        merge("export-features", out=out)
    refused(caught.value, "batch_norm.safetensors", "shard-2-of-2", "--force")
    assert len(shard_folders(out)) == 2


def _facts_of(config: Any, encoder: Any, gallery: Any, _: int, *, num_statistics_clips: int, **origins: Any) -> dict[str, str]:
    return feature_facts(config, encoder, gallery, num_statistics_clips, **origins)


@pytest.mark.usefixtures("_small_pieces")
def test_a_merge_of_features_that_is_killed_is_finished_by_the_same_command(features_run: Run) -> None:
    folder = features_run.folder  # paths of inputs, in the manifest, are relative
    expected = contents(export(features_run, folder / "whole" / "export-features").folder)
    template = folder / "template"
    for index in (1, 2):
        export(features_run, template / "export-features", Shard(index, 2))
    number = 0
    while True:
        out = Path(shutil.copytree(template, folder / f"run{number}")) / "export-features"
        killed = kill_at_change(partial(merge, "export-features", out=out), number)
        merge("export-features", out=out)
        assert contents(out) == expected, f"killed before change {number}"
        assert os.listdir(out.parent) == ["export-features"]
        shutil.rmtree(out.parent)
        if not killed:
            break
        number += 3
    assert number > 12


@pytest.mark.usefixtures("_small_pieces")
def test_features_of_other_encoders_or_settings_are_refused(features_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "export-features"
    export(features_run, out, Shard(1, 2))
    with pytest.raises(InputError) as caught:
        export(features_run, out, Shard(2, 2), clips=2)
    refused(caught.value, "clips is 3 there, 2 here")
    other = make_run(tmp_path / "other")
    with pytest.raises(InputError) as caught:
        export(other, out, Shard(2, 2), pool="max")
    refused(caught.value, "pool is", "--force")
    export(features_run, out, Shard(2, 2), pool="max", force=True)
    with pytest.raises(InputError) as caught:
        merge("export-features", out=out)
    refused(caught.value, 'pool is "avg" there, "max" here')
    with pytest.raises(InputError) as caught:
        export(features_run, tmp_path / "many", Shard(1, 4))
    refused(caught.value, "--shard 1/4", "5 videos, described 2 at a time, make 3 shards at most", "use --shard i/3")
    assert not list(tmp_path.glob("many*"))


def test_a_second_run_of_a_shard_is_told_who_is_at_work(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "extract"
    with hold_lock(Shard(1, 2).folder(out)):

        def second() -> int:
            with pytest.raises(BusyError):
                run(videos, out, shard=Shard(1, 2))
            run(videos, out, shard=Shard(2, 2))  # another shard is free
            return 0

        assert wait(fork(second)) == 0
