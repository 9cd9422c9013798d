"""search: videos of the set find themselves, by id and as files; what cannot be asked is told; a page shows what was found."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rspnet_cli import load_encoder
from rspnet_cli.config import ExportConfig, ExtractConfig, PretrainConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import read_features
from rspnet_cli.evaluation.search import Described
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.report.clips import clip_class
from rspnet_cli.settings import validated
from rspnet_cli.shards import Shard
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.extract import extract
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stages.merge import merge
from rspnet_cli.stages.search import Search, describe, find_features, search
from rspnet_cli.stages.search.describe import describe_files, makers_of
from rspnet_cli.stages.search.queries import read_query
from rspnet_cli.tables import from_plain_text, read_rows
from rspnet_cli.videos.store import open_store
from tests import released
from tests.browser import browser
from tests.encode import encode, make_frames, not_a_video, numbered_frames, pixel_bomb, truncated
from tests.evaluation.tables import make_export, make_table
from tests.extracted import make_extract
from tests.layouts import write_lists
from tests.listener import Listener
from tests.pretrained import SMALL, arrays, make_encoder, make_pretrain
from tests.report.chain import AS_SHOWN, make_extraction
from tests.report.parse import by_id, parse, table, words
from tests.sentences import refused

EXPORT: dict[str, Any] = {"clips": 3, "batch_size": 4, "workers": 0, "device": "cpu"}


@dataclass(frozen=True)
class Run:
    """A set with features. sources: id -> the file it was extracted from."""

    export: Manifest
    sources: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.export.folder

    def ask(self, *queries: str, **how: Any) -> Search:
        return search(queries, features=self.folder, device="cpu", **how)


def make_run(extract: Manifest, videos: Path, *, settings: dict[str, Any] | None = None, **export: Any) -> Run:
    """Features of an extraction by an encoder of random weights, all in one work directory."""
    work = extract.folder.parent
    rows = read_rows(extract.folder / "videos.csv")
    used = {row["id"]: row["sha256"] for row in rows}
    trained = make_pretrain(work / "pretrain", inputs={"extract": extract.folder}, used=used, settings=settings or SMALL)
    manifest = export_features(validated(ExportConfig, EXPORT | export), pretrain=trained.folder, out=work / "export-features")
    return Run(manifest, {row["id"]: str(videos / from_plain_text(row["source"])) for row in rows})


def make_small(work: Path, *, settings: dict[str, Any] | None = None, export: dict[str, Any] | None = None, **extraction: Any) -> Run:
    extract = make_extract(work / "extract", **({"num_frames": (9, 20, 30)} | extraction))
    return make_run(extract, work / "extract-sources", settings=settings, **(export or {}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A labelled set whose classes and files have hostile names; not to be written to."""
    work = tmp_path_factory.mktemp("search") / "wörk <dir>"
    make_extraction(work)
    return make_run(read_manifest(work / "extract"), work.parent / "videos")


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nothing that is temporary is left, whatever became of the search."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert [path for path in folder.iterdir() if path.name.startswith("rspnet")] == []


def assert_each_finds_itself(run: Run, ids: Sequence[str], found: Search) -> None:
    for name, answer in zip(ids, found.answers, strict=True):
        assert answer.failure is None
        first, second = answer.hits[:2]
        assert first.video == name
        assert first.similarity == pytest.approx(1, abs=1e-3)
        assert first.seconds == first.query_seconds
        # Random weights tell videos apart by little, but by far more than a copy differs by.
        assert second.similarity < first.similarity - 1e-5


def test_a_video_finds_itself_first_by_id_and_as_its_source_file(run: Run) -> None:
    ids = list(run.sources)
    by_name = run.ask(*(f"id:{name}" for name in ids))
    assert_each_finds_itself(run, ids, by_name)
    by_file = run.ask(*run.sources.values(), workers=2)
    assert_each_finds_itself(run, ids, by_file)
    assert [answer.hits for answer in by_file.answers] == [answer.hits for answer in by_name.answers]
    assert (by_file.videos, by_file.features) == (len(ids), run.export.path)
    hit = by_file.answers[3].hits[0]
    videos = read_features(run.folder).videos.set_index("id")
    assert (hit.label, hit.source) == tuple(videos.loc[ids[3], ["label_name", "source"]])


def described(run: Run, *typed: str, report: Reporter | None = None) -> list[Described]:
    """The features that a search makes of files."""
    queries = {place: read_query(text, ()) for place, text in enumerate(typed)}
    outcomes = describe_files(queries, makers_of(run.export), device="cpu", workers=1, report=report or Reporter.silent())
    results = {place: result for place, result, _ in outcomes}
    found = [results[place] for place in queries]
    assert not [result for result in found if isinstance(result, str)]
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    "how",
    [
        {"export": {"pool": "max", "clips": 1}},
        {"export": {"random_init": True}},
        {"export": {"reestimate_bn": True, "precision": "bf16"}},
        {"export": {"checkpoint": "epoch_2", "clips": 25}, "codec": "jpeg"},
        {"codec": "raw"},
        {"settings": SMALL | {"clip": {"frames": 4, "size": 24, "frame_rate": 10, "antialias": True}}, "crf": 40},
    ],
    ids=["max", "untrained", "bf16", "checkpoint of jpeg frames", "raw frames", "frame rate"],
)
def test_a_file_is_described_as_the_export_described_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]) -> None:
    monkeypatch.setattr("rspnet_cli.devices.computes_bf16", lambda _: False)
    listener = Listener()
    run = make_small(tmp_path / "work", **how)
    expected = read_features(run.folder, with_clips=True)
    assert expected.clip_features is not None
    for row, result in enumerate(described(run, *run.sources.values(), report=listener)):
        tolerance = {"rtol": 1e-4, "atol": 1e-4 * float(np.abs(expected.features).max())}
        np.testing.assert_allclose(result.feature, expected.features[row], **tolerance)
        np.testing.assert_allclose(result.clips, expected.clip_features[row], **tolerance)
        np.testing.assert_array_equal(result.times_s, expected.clip_times_s[row])
    assert listener.heard("search features that were exported with --precision fp32") is (run.export.config["precision"] == "bf16")


def test_merged_features_are_searched_as_those_of_one_run(tmp_path: Path) -> None:
    whole = make_small(tmp_path / "work", export={"random_init": True})
    out, config = tmp_path / "work" / "merged", validated(ExportConfig, EXPORT | {"random_init": True})
    for index in (1, 2):
        export_features(config, pretrain=tmp_path / "work" / "pretrain", out=out, shard=Shard(index, 2))
    merged = Run(merge("export-features", out=out), whole.sources)
    queries = list(whole.sources.values())
    answers = merged.ask(*queries).answers
    assert answers == whole.ask(*queries).answers
    assert_each_finds_itself(merged, list(whole.sources), Search(merged.export.path, 3, answers, None))


def test_sources_that_are_folders_of_frames_find_themselves_too(tmp_path: Path) -> None:
    root = tmp_path / "rawframes"
    for number in range(3):
        make_frames(root / f"v{number}", 8 + number, size=(40, 32), start=100 * number)
    write_lists(tmp_path / "lists", {"train.txt": [f"v{number} {8 + number} 0" for number in range(3)]})
    config = validated(ExtractConfig, {"short_side": 32, "workers": 1, "dataset": "list", "frames_fps": 10})
    extracted = extract(config, videos=root, annotations=tmp_path / "lists", out=tmp_path / "work" / "extract")
    run = make_run(extracted, root)
    (root / "empty").mkdir()
    found = run.ask(*run.sources.values(), str(root / "empty"))
    assert_each_finds_itself(run, list(run.sources), Search(found.features, found.videos, found.answers[:3], None))
    assert found.answers[3].failure == "holds no numbered pictures such as img_00001.jpg"
    assert found.answers[2].hits[0].seconds == (0.0, 0.4), "4 frames at the set's 10 a second"


def test_a_part_is_described_by_its_own_frames(tmp_path: Path) -> None:
    run = make_small(tmp_path / "work", crf=1)
    file = run.sources["v002"]  # 30 frames, the first shows 200
    part, beginning = described(run, f"{file}@0.4-00:00.8", f"{file}@-0.4")
    # 10 frames, of which 3 clips of 4 are evenly spaced: they begin with 0, 3 and 6.
    assert part.times_s == pytest.approx(np.array([[(10 + start) / 25, (14 + start) / 25] for start in (0, 3, 6)]))
    assert beginning.times_s == pytest.approx(part.times_s - 0.4)
    encoder = load_encoder(tmp_path / "work" / "pretrain")

    def by_hand(first: int) -> np.ndarray:
        with open_store(tmp_path / "work" / "extract" / "frames" / "v002.mp4") as video:
            frames = video.read(range(first, first + 10))
        clips = torch.stack([torch.from_numpy(frames[start : start + 4]).permute(3, 0, 1, 2) for start in (0, 3, 6)])
        return np.asarray(encoder(clips).mean(0))

    off = {first: float(np.linalg.norm(part.feature - by_hand(first))) for first in (0, 8, 9, 10, 11, 12, 20)}
    # The part was compressed anew, which costs a little; frames that are one off would cost more.
    assert off.pop(10) < 0.5 * min(off.values())
    (answer,) = run.ask(f"{file}@0.4-00:00.8").answers
    assert answer.hits[0].video == "v002"
    assert answer.hits[0].query_seconds in [tuple(pair) for pair in part.times_s.tolist()]


def test_queries_that_fail_are_told_and_the_others_are_answered(run: Run, tmp_path: Path) -> None:
    file, name = next(iter(run.sources.values())), next(iter(run.sources))
    frames = numbered_frames(60, 64, 48)
    whole = encode(tmp_path / "whole.mp4", frames, container_options={"movflags": "faststart"})
    asked = {
        str(tmp_path / "nowhere.mp4"): r"does not exist",
        str(tmp_path): r"is a folder",
        str(not_a_video(tmp_path / "noise.mp4")): r"is not a video file, or its header is damaged or cut off",
        str(truncated(whole, tmp_path / "cut.mp4", 0.7)): r"is damaged or cut short: .*|is cut short: \d+ pictures decode of the 60 .*",
        str(pixel_bomb(tmp_path / "bomb.mp4")): r"has .* beyond the limit of 64,000,000 .*--max-pixels\)",
        f"id:{name[:-1]}": rf"is none of the 21 videos of the set; did you mean '{re.escape(name)}'\?",
        "id:": r"is none of the 21 videos of the set",
        f"{file}@7-9": r"has no picture in 00:07.00-00:09.00: its last one is at 00:00.\d\d",
        f"{file}@0.2-0.1": r"is no part of a video: it ends before it begins",
        '""': r"names no file: type a video file.*",  # nothing between quotes, as of a variable that is not set
        f"{file}@0.1-0.1": r"is no part of a video: it ends before it begins",
    }
    queries = [text for pair in zip(asked, [file, f"id:{name}"] * len(asked), strict=False) for text in pair]
    found = run.ask(*("" if text == '""' else text for text in queries), workers=2)
    assert [answer.query for answer in found.answers] == queries
    for answer in found.answers:
        if answer.query in asked:
            assert answer.hits == []
            assert re.fullmatch(asked[answer.query], answer.failure or ""), answer.failure
        else:
            assert (answer.failure, answer.hits[0].video) == (None, name)


def test_names_with_an_at_are_files_where_they_are_files(run: Run, tmp_path: Path) -> None:
    file = next(iter(run.sources.values()))
    copies = [tmp_path / name for name in ("me@home.mp4", "x@00:12-00:20", "-dash@1-2.mp4")]
    for copy in copies:
        shutil.copy(file, copy)
    found = run.ask(*map(str, copies), f"{copies[1]}@0-0.2", topk=1)
    assert [answer.failure for answer in found.answers] == [None] * 4
    assert {answer.hits[0].similarity for answer in found.answers[:3]} == {1.0}
    assert found.answers[3].hits[0].query_seconds[1] <= 0.2


def test_how_many_are_shown(run: Run) -> None:
    query = f"id:{next(iter(run.sources))}"
    assert len(run.ask(query).answers[0].hits) == 10
    assert [hit.rank for hit in run.ask(query, topk=21).answers[0].hits] == list(range(1, 22))
    for topk in (0, 22):
        with pytest.raises(InputError) as error:
            run.ask(query, topk=topk)
        refused(error.value, f"--topk {topk} is not from 1 to 21")
    assert len(search(["id:v000"], features=make_export(run.folder.parent / "x", one_video()).folder).answers[0].hits) == 1


def one_video() -> Any:
    only = make_table(classes=1, groups=1, videos=1)
    only.videos["id"] = "v000"
    return only


def test_files_are_decoded_by_as_many_processes_as_there_are_files_or_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def pool(_: Any, *, num_workers: int, timeout_s: float) -> None:
        asked.append(num_workers)
        assert timeout_s == 600
        raise InputError("Enough.")

    monkeypatch.setattr(describe, "WorkerPool", pool)
    monkeypatch.setattr(describe, "num_cpus", lambda: 3)
    files = list(run.sources.values())
    for count, workers, expected in ((2, None, 2), (4, None, 3), (4, 1, 1)):
        with pytest.raises(InputError, match="Enough"):
            run.ask(*files[:count], workers=workers)
        assert asked.pop() == expected
    run.ask(f"id:{next(iter(run.sources))}")
    assert asked == []


# What is missing or foreign


@pytest.fixture
def moved(run: Run, tmp_path: Path) -> Run:
    """A copy of the work directory, elsewhere, to be changed. The sources stay."""
    work = Path(shutil.copytree(run.folder.parent, tmp_path / "moved", ignore=shutil.ignore_patterns("x")))
    return Run(read_manifest(work / "export-features"), run.sources)


def test_a_work_directory_that_was_moved_whole_still_answers(moved: Run) -> None:
    name, file = next(iter(moved.sources.items()))
    assert moved.ask(file).answers[0].hits[0].video == name


@pytest.mark.parametrize("gone", ["pretrain", "extract"])
def test_without_encoder_or_extraction_ids_can_be_asked(moved: Run, gone: str) -> None:
    name, file = next(iter(moved.sources.items()))
    folder = moved.folder.parent / gone
    folder.rename(folder.with_name("elsewhere"))
    assert moved.ask(f"id:{name}").answers[0].hits[0].video == name
    with pytest.raises(InputError) as error:
        moved.ask(f"id:{name}", file)
    refused(error.value, str(moved.export.path), str(folder), "videos of the set (id:NAME) can be asked for without it")


def test_an_encoder_that_is_damaged_is_told(moved: Run) -> None:
    (moved.folder.parent / "pretrain" / "encoder.safetensors").write_bytes(b"")
    with pytest.raises(InputError) as error:
        moved.ask(next(iter(moved.sources.values())))
    refused(error.value, "encoder.safetensors has 0 bytes")


def test_without_the_stored_frames_everything_but_clips_is_there(moved: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, file = next(iter(moved.sources.items()))
    shutil.rmtree(moved.folder.parent / "extract" / "frames")
    found = moved.ask(file, f"id:{name}", page=tmp_path / "page.html", topk=2, report=Reporter())
    assert [answer.hits[0].video for answer in found.answers] == [name, name]
    assert "A clip is left out: " in capsys.readouterr().err
    assert len(clips_in(tmp_path / "page.html")) == 1, "that of the query that is a file"


def test_features_of_another_program_can_be_asked_by_id(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export", make_table())
    assert search(["id:c0_g0_0"], features=export.folder, topk=1).answers[0].hits[0].video == "c0_g0_0"
    with pytest.raises(InputError) as error:
        search(["a.mp4"], features=export.folder)
    refused(error.value, "no encoder of rspnet made", "id:NAME")


def test_an_untrained_export_without_its_statistics_is_told(run: Run, tmp_path: Path) -> None:
    config = validated(ExportConfig, EXPORT | {"random_init": True, "reestimate_bn": True}).identity()
    inputs = {stage: run.folder.parent / stage for stage in ("pretrain", "extract")}
    export = make_export(tmp_path / "export", make_table(), config=config, inputs=inputs)
    with pytest.raises(InputError) as error:
        search([next(iter(run.sources.values()))], features=export.folder)
    refused(error.value, "did not keep the batch-norm statistics", "--force", "id:NAME")


def test_features_that_are_not_finite_are_the_query_s_failure(run: Run, tmp_path: Path) -> None:
    config, how = validated(PretrainConfig, SMALL), validated(ExportConfig, EXPORT | {"checkpoint": "last"}).identity()
    tensors = {name: value * 1e38 if name.endswith("bn1.weight") else value for name, value in arrays(make_encoder(config, 1)).items()}
    trained = make_pretrain(tmp_path / "pretrain", inputs={"extract": run.folder.parent / "extract"}, tensors=tensors)
    inputs = {"pretrain": trained.folder, "extract": run.folder.parent / "extract"}
    export = make_export(tmp_path / "export", make_table(channels=64), config=how, inputs=inputs)
    (answer,) = search([next(iter(run.sources.values()))], features=export.folder, device="cpu").answers
    assert answer.failure is not None
    assert "features that are not finite" in answer.failure


@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"])
def test_imported_encoders_describe_files_too(run: Run, tmp_path: Path, kind: str) -> None:
    state = released.pretrained("r3d18", "linear") if kind == "pretraining" else released.finetuned("r3d18", 2)
    torch.save(released.checkpoint(state, "resnet18"), tmp_path / "a.pth.tar")
    settings = {"model.width": 0.125, "clip.frames": 4, "clip.size": 24} | ({} if kind == "pretraining" else {"clip.sampling": "cover"})
    encoder = import_checkpoint(tmp_path / "a.pth.tar", out=tmp_path / "imported", settings=settings)
    config = validated(ExportConfig, EXPORT)
    export = export_features(config, pretrain=encoder.folder, frames=run.folder.parent / "extract", out=tmp_path / "export")
    ids = list(run.sources)[:2]
    assert_each_finds_itself(run, ids, Run(export, run.sources).ask(*(run.sources[name] for name in ids)))


def test_an_augmented_gallery_is_said_so(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = validated(ExportConfig, EXPORT | {"gallery_augment": "reference"})
    export = export_features(config, pretrain=run.folder.parent / "pretrain", out=tmp_path / "export")
    test = next(row["id"] for row in read_rows(export.folder / "videos.csv") if row["split_1"] == "test")
    augmented = Run(export, run.sources)
    assert_each_finds_itself(augmented, [test], augmented.ask(run.sources[test], report=Reporter()))
    assert "train videos of split 1 were described by random crops" in capsys.readouterr().err


# Which features


def test_the_usual_export_is_searched_or_else_the_newest_other_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    assert find_features(work, Reporter()) == work / "export-features"  # whose absence the reader tells
    make_export(work / "features-max", make_table())
    make_export(work / "random-init" / "export-features", make_table(), config={"random_init": True})
    (work / "broken").mkdir()
    (work / "broken" / "manifest.json").write_text("{")
    for folder, created in (("features-max", "2026-01-02"), ("random-init/export-features", "2026-01-01")):
        text = (work / folder / "manifest.json").read_text()
        (work / folder / "manifest.json").write_text(re.sub(r'"created": "[^"]+"', f'"created": "{created}"', text))
    assert find_features(work, Reporter()) == work / "features-max"
    assert f"searching {work / 'features-max'}, the newest of 2 (or name --features)" in capsys.readouterr().err
    shutil.rmtree(work / "features-max")
    assert find_features(work, Reporter()) == work / "random-init" / "export-features"
    assert "(of the untrained encoder)" in capsys.readouterr().err
    make_export(work / "export-features", make_table())
    assert find_features(work, Reporter()) == work / "export-features"
    assert capsys.readouterr().err == ""


# The page


def clips_in(page: Path) -> set[str]:
    """The CSS classes that have a picture."""
    return set(
        re.findall(r"^\.(v-\w+)\{background-image:url\(data:image/jpeg;base64,", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )


def test_the_page_shows_what_was_found(run: Run, tmp_path: Path) -> None:
    name, file = list(run.sources.items())[4]
    hostile = tmp_path / "<script>alert('x')<\\script>\" onload=\"y.mp4@1-2"
    shutil.copy(file, hostile)
    broken = "no<b>where.mp4"
    found = run.ask(str(hostile), f"id:{name}", broken, page=tmp_path / "page.html", topk=4)
    assert found.page == tmp_path / "page.html"
    tree = parse(found.page)
    for place, answer in enumerate(found.answers[:2]):
        section = by_id(tree, f"query-{place}")
        assert words(section.find("h2")) == answer.query  # type: ignore[arg-type]
        rows = table(section)
        assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
        assert [float(row["similarity"]) for row in rows] == [hit.similarity for hit in answer.hits]
        assert [row["video"] for row in rows] == [hit.video for hit in answer.hits]
        assert {row["label"] for row in rows} <= set(AS_SHOWN)
        assert [float(row["seconds"]) for row in rows] == [hit.seconds[0] for hit in answer.hits]
        shown = [clip.get("class", "").split()[1] for clip in section.findall(".//span[@role='img']")]
        assert len(shown) == 5
        assert set(shown) <= clips_in(found.page)
        command = words(section.find(".//code"))  # type: ignore[arg-type]
        assert command.startswith("rspnet search ")
        assert f"--features {run.folder}" in command.replace("'", "")
    left_out = words(by_id(tree, "left-out"))
    assert "no<b>where.mp4: does not exist" in left_out
    text = found.page.read_text(encoding="utf-8")
    assert "<b>where" not in text
    assert text.count("<script") == 2, "the list of clips and the page's own"
    assert "`rspnet search`" in text
    assert not {"src", "href"} & {key for element in tree.iter() for key in element.keys() if not element.get(key, "").startswith("#")}  # noqa: SIM118


def test_a_clip_shows_the_seconds_that_match(run: Run, tmp_path: Path) -> None:
    found = run.ask(f"id:{next(iter(run.sources))}", page=tmp_path / "page.html", topk=2)
    hit = found.answers[0].hits[1]
    assert clip_class(f"{hit.video}@{sum(hit.seconds) / 2:.3f}") in clips_in(tmp_path / "page.html")


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_a_request_or_a_complaint(run: Run, tmp_path: Path, width: int) -> None:
    name, file = next(iter(run.sources.items()))
    found = run.ask(file, f"id:{name}", "nowhere.mp4", page=tmp_path / "page.html")
    assert found.page is not None
    with browser(tmp_path / "chromium") as page:
        page.size(width, 800)
        page.open(found.page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out to the right"
        page.move("#query-0 .clip")
        assert page.evaluate("document.querySelector('#query-0 .clip').getAnimations()[0].playState") == "running"
        shown = "[...document.querySelectorAll('.clip')].map((clip) => getComputedStyle(clip).backgroundImage.slice(0, 27))"
        assert set(page.evaluate(shown)) == {'url("data:image/jpeg;base64'}
        folder = Path(os.environ.get("RSPNET_TEST_SCREENSHOTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(folder / f"search-{width}.png")
        page.click("#query-0 summary")
        ranks = "[...document.querySelectorAll('#query-0 tbody tr')].map((row) => Number(row.cells[0].textContent))"
        assert page.evaluate(ranks) == list(range(1, 11))
        page.click("#query-0 th:nth-child(1) button")
        assert page.evaluate(ranks) == list(range(10, 0, -1))
        assert page.errors == []
        assert {address for address in page.requests if not address.startswith("data:")} == {found.page.resolve().as_uri()}


def test_only_a_page_of_rspnet_is_replaced(run: Run, tmp_path: Path) -> None:
    target, query = tmp_path / "page.html", f"id:{next(iter(run.sources))}"
    target.write_text("<h1>mine</h1>")
    with pytest.raises(InputError) as error:
        run.ask(query, page=target)
    refused(error.value, "no page of rspnet", "--force")
    assert target.read_text() == "<h1>mine</h1>"
    for force in (False, True):
        with pytest.raises(InputError) as error:
            run.ask(query, page=tmp_path, force=force)
        refused(error.value, "cannot be written (Is a directory)")
    run.ask(query, page=target, force=True)
    first = target.read_text()
    run.ask(query, page=target)
    assert target.read_text() == first, "equal results give equal pages"


def test_without_a_single_answer_the_page_says_why(run: Run, tmp_path: Path) -> None:
    found = run.ask("id:x", page=tmp_path / "page.html")
    assert "is none of the 21 videos" in words(by_id(parse(tmp_path / "page.html"), "left-out"))
    assert [answer.hits for answer in found.answers] == [[]]
