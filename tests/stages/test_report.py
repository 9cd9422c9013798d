"""report: one page that stands alone, shows what the manifests say, survives every name, and can be made at any time."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from rspnet_cli.config import ExportConfig, ExtractConfig, FinetuneConfig, PretrainConfig, RetrievalConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.report.clips import clip_class
from rspnet_cli.settings import validated
from rspnet_cli.stages.eval_retrieval import eval_retrieval
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.extract import extract
from rspnet_cli.stages.finetune import finetune
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stages.pretrain import pretrain
from rspnet_cli.stages.report import Written, report
from tests import released
from tests.browser import Page, browser
from tests.encode import make_video
from tests.finetuned import make_labelled
from tests.processes import fork, kill, wait, wait_until
from tests.report.chain import AS_SHOWN, SMALL, TEST, make_extraction, make_work_dir
from tests.report.parse import by_id, data, parse, table, words
from tests.sentences import refused

KEYS = ["retrieval", "classification", "per-class", "neighbours", "confusion", "map", "finetuning", "training", "lineage"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report of a whole work directory; not to be written to."""
    return report(make_work_dir(tmp_path_factory.mktemp("report") / "wörk <dir>"))


@pytest.fixture
def work(made: Written, tmp_path: Path) -> Path:
    """A copy of the work directory, to be changed."""
    return Path(shutil.copytree(made.path.parent, tmp_path / "work", ignore=shutil.ignore_patterns("report.html")))


def manifest(made: Written, stage: str) -> Manifest:
    return read_manifest(made.path.parent / stage)


def test_every_part_of_a_whole_work_directory_is_there(made: Written) -> None:
    assert made.sections == KEYS
    assert made.left_out == {}
    tree = parse(made.path)
    assert [section.get("id") for section in tree.findall("./body/main/section")] == KEYS
    assert made.bytes == made.path.stat().st_size < 1_000_000
    assert [words(link) for link in tree.findall(".//nav/a")] == [words(head) for head in tree.findall(".//section/h2")]


def test_it_refers_to_nothing_outside_itself(made: Written) -> None:
    tree = parse(made.path)
    ids = {element.get("id") for element in tree.iter() if element.get("id")}
    for element in tree.iter():
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "img", "video", "source", "use", "form"}
        assert not {"src", "srcset", "action", "data", "poster", "background"}.intersection(element.keys()), element.tag
        assert not any(name.startswith("on") for name in element.keys()), "scripts in attributes"  # noqa: SIM118
        if "href" in element.keys():  # noqa: SIM118
            assert element.get("href", "").removeprefix("#") in ids
        for other in (element.get("aria-labelledby"),):
            assert other is None or other in ids
    text = made.path.read_text(encoding="utf-8")
    style, script = (re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL) for tag in ("style", "script"))
    assert len(style) == len(script) == 1
    assert set(re.findall(r"url\((.{22})", style[0])) == {"data:image/jpeg;base64"}
    assert "@import" not in style[0]
    assert not re.search(r"https?:|//\w|import\(|fetch|XMLHttp|WebSocket", re.sub(r"//.*", "", script[0]))
    policy = next(meta.get("content", "") for meta in tree.findall(".//meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy


def test_every_id_is_there_once(made: Written) -> None:
    ids = [element.get("id") for element in parse(made.path).iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_every_figure_has_its_table_and_its_command(made: Written) -> None:
    tree = parse(made.path)
    for section in tree.findall("./body/main/section"):
        figures = section.findall(".//figure")
        assert figures or section.get("id") == "lineage"
        assert all(table(figure) for figure in figures)
        for drawing in section.findall(".//svg"):
            assert drawing.get("role") == "img"
            assert drawing.findtext("title")
        commands = [words(command) for command in section.findall(".//code[@class='command']")]
        assert commands
        assert all(re.match(r"(rspnet|torchrun) ", command) for command in commands)
        for figure in figures:
            assert figure.find(".//code[@class='command']") is not None or section.get("id") in ("finetuning", "training")


def test_recall_is_that_of_the_manifests(made: Written) -> None:
    ours, theirs = (manifest(made, stage).results for stage in ("eval-retrieval", "random-init/eval-retrieval"))
    rows = table(by_id(parse(made.path), "recall"))
    assert [row["k"] for row in rows] == list(ours["recall"])
    for row in rows:
        k = row["k"]
        assert float(row["recall@k"]) == ours["recall"][k]
        assert float(row["chance"]) == ours["chance"][k]
        assert float(row["untrained encoder"]) == theirs["recall"][k]
        assert row["95 % interval"] == "{:.3f} – {:.3f}".format(*ours["interval"][k])
        assert row["its 95 % interval"] == "{:.3f} – {:.3f}".format(*theirs["interval"][k])
    drawn = data(by_id(parse(made.path), "recall"), "chart-data")
    assert [line["label"] for line in drawn["lines"]] == ["this encoder", "untrained encoder", "chance"]
    assert drawn["lines"][0]["values"] == [f"{float(row['recall@k']):.4g}" for row in rows]


def test_a_lines_points_and_whiskers_lie_where_their_values_are(made: Written) -> None:
    results = manifest(made, "eval-retrieval").results
    figure = by_id(parse(made.path), "recall")
    # The grid says where 0 and 1 are.
    labels = {words(text): float(text.get("y", "")) - 4 for text in figure.findall(".//text[@class='end']")}
    dots = [float(dot.get("cy", "")) for dot in figure.findall(".//circle[@class='dot s1']")]
    whiskers = [(float(line.get("y1", "")), float(line.get("y2", ""))) for line in figure.findall(".//line[@class='whisker s1']")]

    def height(share: float) -> float:
        return labels["0"] + share * (labels["1"] - labels["0"])

    assert dots == pytest.approx([height(share) for share in results["recall"].values()], abs=0.02)
    assert np.array(whiskers) == pytest.approx(np.array([[height(end) for end in pair] for pair in results["interval"].values()]), abs=0.02)


def test_accuracies_are_those_of_the_manifests(made: Written) -> None:
    ours, theirs = (manifest(made, stage).results for stage in ("eval-classification", "random-init/eval-classification"))
    rows = {row["figure"]: row for row in table(by_id(parse(made.path), "accuracy"))}
    assert len(rows) == 6
    for probe, words_of_it in (("linear", "linear probe"), ("knn", "kNN")):
        for figure, title in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "mean class")):
            row = rows[f"{words_of_it} {title}"]
            assert float(row["this encoder"]) == ours[probe][figure]
            assert float(row["untrained encoder"]) == theirs[probe][figure]
            assert float(row["chance"]) == ours["chance"].get(figure, -1)


def test_figures_of_the_fine_tuned_network_are_those_of_the_manifests(made: Written) -> None:
    ours, theirs = (manifest(made, stage).results for stage in ("finetune", "random-init/finetune"))
    tree = parse(made.path)
    rows = {row["figure"]: row for row in table(by_id(tree, "finetune-accuracy"))}
    for figure, title in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "mean class")):
        assert float(rows[title]["this network"]) == ours[figure]
        assert float(rows[title]["from random weights"]) == theirs[figure]
    epochs = table(by_id(tree, "finetune-selection"))
    assert [row["epoch"] for row in epochs] == ["1.0", "2.0"]
    assert float(epochs[ours["best_epoch"] - 1]["top-1"]) == pytest.approx(ours["selection_top1"], abs=1e-5)
    assert len(table(by_id(tree, "finetune-loss"))) == ours["epochs"] * (ours["videos"] // 4)


def test_recall_of_the_classes_adds_up_to_recall(made: Written) -> None:
    results = manifest(made, "eval-retrieval").results
    rows = table(by_id(parse(made.path), "classes"))
    assert sorted(row["class"] for row in rows) == sorted(AS_SHOWN)
    queries = [int(row["queries"]) for row in rows]
    assert sum(queries) == results["queries"] == TEST
    for k, recall in results["recall"].items():
        right = sum(float(row[f"recall@{k}"]) * number for row, number in zip(rows, queries, strict=True))
        assert right / TEST == pytest.approx(recall)
    classification = manifest(made, "eval-classification").results
    for probe, column in (("linear", "linear top-1"), ("knn", "kNN top-1")):
        assert np.mean([float(row[column]) for row in rows]) == pytest.approx(classification[probe]["mean_class"])


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_the_confusion_matrix_counts_every_test_video_and_its_orders_are_orders(made: Written, probe: str) -> None:
    figure = by_id(parse(made.path), f"confusion-{probe}")
    cells = [tuple(int(cell.get(f"data-{key}", "")) for key in "tgn") for cell in figure.findall(".//rect[@data-n]")]
    inside = data(figure, "matrix-data")
    assert sorted(inside["names"]) == sorted(AS_SHOWN)
    assert sum(count for _, _, count in cells) == TEST == sum(inside["totals"])
    right = sum(count for true, guess, count in cells if true == guess)
    assert right / TEST == pytest.approx(manifest(made, "eval-classification").results[probe]["top1"])
    assert len(inside["orders"]) == 5
    assert all(sorted(order) == [0, 1, 2] for order in inside["orders"].values())
    assert sum(int(row["videos"]) for row in table(figure)) == TEST


def test_the_confusion_of_the_fine_tuned_network_is_there_too(made: Written) -> None:
    rows = table(by_id(parse(made.path), "confusion-finetune"))
    right = sum(int(row["videos"]) for row in rows if row["class"] == row["taken for"])
    assert right / sum(int(row["videos"]) for row in rows) == pytest.approx(manifest(made, "finetune").results["top1"])


def test_the_map_has_every_test_video_and_the_clips_are_those_that_are_there(made: Written) -> None:
    tree = parse(made.path)
    figure = by_id(tree, "map-figure")
    inside = data(figure, "map-data")
    assert len(inside["ids"]) == len(figure.findall(".//circle")) == TEST
    assert {inside["class_names"][label] for label in inside["classes"]} == set(AS_SHOWN)
    assert all(len(places) == 2 * TEST for places in inside["layouts"].values())
    legend = figure.find(".//p[@class='legend']")
    assert legend is not None
    colours = {words(entry).strip(): (entry[0].get("style") or "").removeprefix("background: ") for entry in legend}
    assert list(colours) == inside["class_names"]
    assert len(set(colours.values())) == 3
    drawn = [circle.get("fill") for circle in figure.findall(".//circle")]
    assert drawn == [colours[inside["class_names"][label]] for label in inside["classes"]]
    assert np.isfinite([value for places in inside["layouts"].values() for value in places]).all()
    clips = json.loads(by_id(tree, "clips").text or "")
    assert set(inside["clips"]) <= set(clips)
    assert len(clips) == made.clips


def test_shown_neighbours_are_the_nearest_and_marked_right_or_wrong(made: Written) -> None:
    with (made.path.parent / "eval-retrieval" / "neighbours.csv").open(encoding="utf-8", newline="") as file:
        found = {(row["query_id"], row["rank"]): row for row in csv.DictReader(file)}
    section = by_id(parse(made.path), "neighbours")
    shown = [row for figure in section.findall(".//figure") for row in table(figure)]
    assert len(shown) >= 20
    for row in shown:
        there = found[row["query"], row["rank"]]
        assert (row["video"], row["its class"]) == (there["neighbour_id"], there["neighbour_label_name"])
        assert float(row["similarity"]) == pytest.approx(float(there["similarity"]), abs=1e-6)
        assert row["right"] == ("yes" if row["class"] == row["its class"] else "no")
    for kind, answer in (("good", "yes"), ("bad", "no")):
        assert len(section.findall(f".//div[@class='shot {kind}']")) == sum(row["right"] == answer for row in shown)


def test_the_curves_end_where_the_log_ends(made: Written) -> None:
    log = (made.path.parent / "pretrain" / "metrics.csv").read_text().splitlines()
    header, last = (line.split(",") for line in (log[0], log[-1]))
    rows = table(by_id(parse(made.path), "done-loss"))
    assert len(rows) == len(log) - 1
    for column, key in (("step", "step"), ("loss", "loss"), ("A-VID (L_A)", "loss_avid"), ("RSP (L_M)", "loss_rsp")):
        assert float(rows[-1][column]) == float(last[header.index(key)])


def test_the_lineage_names_every_stage_its_hashes_and_what_differs_from_the_recipe(made: Written) -> None:
    section = by_id(parse(made.path), "lineage")
    articles = {words(article.findall("h3")[0]): article for article in section.findall(".//article")}
    stages = ["extract", "pretrain", "export-features", "eval-retrieval", "eval-classification", "finetune"]
    untrained = [f"random-init/{stage}" for stage in stages[2:]]
    assert list(articles) == [*stages, f"{untrained[0]} (untrained encoder)", *untrained[1:]]
    for name, article in articles.items():
        there = manifest(made, name.split(" ")[0])
        assert there.digest in {code.get("title") for code in article.findall(".//code")}
        text = words(article)
        assert all(artifact.sha256 in text for artifact in there.artifacts if not artifact.path.startswith("frames/"))
    differing = articles["pretrain"].find(".//div[@class='recipe']")
    assert differing is not None
    rows = {row["setting"]: row["this run"] for row in table(differing)}
    assert rows["optim.epochs"] == "3"
    assert rows["model.width"] == "0.1"
    assert "run.seed" not in rows


def test_names_from_data_are_text_and_never_markup(made: Written) -> None:
    tree = parse(made.path)
    assert [element.tag for element in tree.iter()].count("script") == 2 + len(tree.findall(".//script[@class]"))
    assert not [element for element in tree.iter() if element.tag in {"img", "plain", "b"} and element.attrib]
    text = made.path.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "onerror=alert(2)>" not in re.sub(r"\\u003e|&gt;", "", text)
    assert "\u202e" not in text
    assert "wörk <dir>" in words(tree.findall(".//h1")[0])
    files = {row["file"] for row in table(by_id(tree, "map-figure"))}
    assert any("a\"b'c" in file for file in files)
    assert any("--><script>" in file for file in files)


def test_equal_results_give_equal_pages(made: Written, work: Path) -> None:
    again = report(work, out=work / "again.html").path.read_bytes()
    assert again == report(work, out=work / "again.html").path.read_bytes()
    assert report(work, out=work / "other.html", seed=1).path.read_bytes() != again


def test_clips_are_made_while_they_fit(made: Written, work: Path) -> None:
    bare = report(work, out=work / "bare.html", max_bytes=1)
    assert bare.clips == 0
    whole = report(work, out=work / "page.html")
    assert whole.clips == made.clips
    # Two bytes of room stay: the first clip needs no line end and no comma.
    for room in (whole.bytes + 2, whole.bytes - 1, (bare.bytes + whole.bytes) // 2):
        some = report(work, out=work / "page.html", max_bytes=room)
        assert some.bytes <= room
        assert some.clips == whole.clips if room > whole.bytes else 0 < some.clips < whole.clips
        assert some.sections == KEYS


def test_parts_that_are_missing_are_left_out_with_the_reason(work: Path) -> None:
    shutil.rmtree(work / "eval-classification")
    shutil.rmtree(work / "random-init")
    shutil.rmtree(work / "finetune")
    written = report(work)
    assert written.sections == [key for key in KEYS if key not in ("classification", "confusion", "finetuning")]
    assert "`rspnet eval-classification`" in written.left_out["Confusion"]
    tree = parse(written.path)
    assert "run `rspnet eval-classification`" in words(by_id(tree, "left-out"))
    assert "--random-init" in words(by_id(tree, "recall"))
    shutil.rmtree(work / "eval-retrieval")
    written = report(work)
    assert written.sections == ["map", "training", "lineage"]
    for stage in ("export-features", "pretrain"):
        shutil.rmtree(work / stage)
    written = report(work)
    assert written.sections == ["lineage"]
    assert "`rspnet pretrain`" in written.left_out["Training"]


def test_without_an_extraction_at_hand_there_are_no_clips(work: Path) -> None:
    shutil.rmtree(work / "extract")
    written = report(work)
    assert (written.sections, written.clips) == (KEYS, 0)
    assert "cannot be traced to its extract" in words(parse(written.path).findall(".//ul[@class='notes']")[0])


def test_a_damaged_file_costs_its_part_alone(work: Path) -> None:
    frames = sorted((work / "extract" / "frames").iterdir())
    frames[-1].write_bytes(frames[0].read_bytes())
    neighbours = work / "eval-retrieval" / "neighbours.csv"
    neighbours.write_text(neighbours.read_text().replace("True", "False"))
    written = report(work)
    assert written.sections == [key for key in KEYS if key != "neighbours"]
    assert "neighbours.csv" in written.left_out["Queries and their nearest videos"]
    inside = data(by_id(parse(written.path), "map-figure"), "map-data")
    assert clip_class(frames[-1].stem) in inside["clips"]
    assert clip_class(frames[-1].stem) not in json.loads(by_id(parse(written.path), "clips").text or "")


def test_a_result_of_other_features_is_said_to_be_one(work: Path) -> None:
    export = ExportConfig(clips=3, workers=0)
    export_features(export, pretrain=work / "pretrain", out=work / "export-features", force=True)
    notes = words(parse(report(work).path).findall(".//ul[@class='notes']")[0])
    assert "eval-retrieval cannot be traced to its export-features" in notes


def test_videos_without_labels_have_a_map_and_neighbours(tmp_path: Path) -> None:
    for video in range(6):
        make_video(tmp_path / "videos" / f"{video}.mp4", 12, size=(40, 32), start=100 * video)
    work = tmp_path / "work"
    extract(ExtractConfig(dataset="plain", short_side=32, workers=1), videos=tmp_path / "videos", out=work / "extract")
    pretrain(validated(PretrainConfig, SMALL | {"optim": {"batch_size": 4, "epochs": 1}}), frames=work / "extract", out=work / "pretrain")
    export_features(ExportConfig(clips=2, workers=0), pretrain=work / "pretrain", out=work / "export-features")
    eval_retrieval(RetrievalConfig(), features=work / "export-features", out=work / "eval-retrieval")
    written = report(work)
    assert written.sections == ["neighbours", "map", "training", "lineage"]
    assert "no labels" in written.left_out["Retrieval"]
    assert written.clips == 6
    section = by_id(parse(written.path), "neighbours")
    assert {row["right"] for row in table(section)} == {"–"}
    assert not section.findall(".//div[@class='shot bad']")


@contextmanager
def stopped_while(function: Callable[[], object], rows_of: Callable[[], Path]) -> Iterator[None]:
    """Run a function in a process of its own and hold it still when a log has four rows; killed when the block ends."""
    child = fork(function)
    try:
        wait_until(lambda: rows_of().exists() and rows_of().read_text().count("\n") > 4, "four rows of metrics")
        os.kill(child, signal.SIGSTOP)
        yield
    finally:
        kill(child)
        wait(child)


def test_a_report_can_be_made_while_pretrain_runs(tmp_path: Path) -> None:
    work = tmp_path / "work"
    make_extraction(work)
    config = validated(PretrainConfig, SMALL | {"optim": {"batch_size": 4, "epochs": 100_000}})
    log = work / "pretrain" / "unfinished" / "metrics.csv"
    with stopped_while(lambda: pretrain(config, frames=work / "extract", out=work / "pretrain"), lambda: log):
        written = report(work)
    assert written.sections == ["training", "lineage"]
    tree = parse(written.path)
    assert len(table(by_id(tree, "live-loss"))) >= 4
    assert "Unfinished: epoch " in words(by_id(tree, "training"))
    assert "of 100,000" in words(by_id(tree, "training"))
    assert "pretrain: unfinished" in words(by_id(tree, "lineage"))
    assert "pretrain is unfinished. It runs at this moment." in words(tree)
    # The same when it has been killed, but for one thing.
    killed = parse(report(work).path)
    assert "pretrain is unfinished. It was stopped; its command continues it." in words(killed)
    assert table(by_id(killed, "live-loss")) == table(by_id(tree, "live-loss"))


def tuning(work: Path, epochs: int, split: str) -> Callable[[], object]:
    """A fine-tuning of the random network, as a function to be run elsewhere."""
    settings = {
        "data": {"split": split},
        "model": {"backbone": "r3d18", "width": 0.1, "random_init": True},
        "clip": {"frames": 4, "size": 16, "antialias": False, "frame_rate": 0.0},
        "optim": {"batch_size": 2, "epochs": epochs, "lr": 0.02},
        "test": {"clips": 1},
        "run": {"log_interval": 1, "workers": 0},
    }
    config = validated(FinetuneConfig, settings)
    return lambda: finetune(config, pretrain=None, frames=work / "extract", out=work / "finetune")


def test_a_report_can_be_made_while_a_fine_tuning_runs(tmp_path: Path) -> None:
    work = tmp_path / "work"
    make_labelled(work / "extract")
    log = work / "finetune" / "unfinished" / "epochs.csv"
    with stopped_while(tuning(work, 100_000, "1"), lambda: log):
        written = report(work)
    assert written.sections == ["finetuning", "lineage"]
    tree = parse(written.path)
    assert "Unfinished: epoch " in words(by_id(tree, "finetuning"))
    assert len(table(by_id(tree, "live-finetune-loss"))) >= 4
    assert len(table(by_id(tree, "live-finetune-selection"))) >= 4
    assert "finetune is unfinished. It runs at this moment." in words(tree)


def test_splits_have_their_curves_while_they_run_and_afterwards(tmp_path: Path) -> None:
    work = tmp_path / "work"
    make_labelled(work / "extract", parts=None)  # five folds
    shutil.copytree(finished_split(work), work / "finetune" / "split-5")  # of an earlier run: not shown

    def log() -> Path:
        running = sorted((work / "finetune").glob("split-[2-4]/unfinished/metrics.csv"))
        return running[-1] if running else work / "none yet"

    with stopped_while(tuning(work, 4, "all"), log):
        number = log().parent.parent.name
        tree = parse(report(work).path)
    section = words(by_id(tree, "finetuning"))
    assert "Unfinished: a fine-tuning on every split" in section
    assert f"Unfinished: {number.replace('-', ' ')}, epoch " in section
    assert len(table(by_id(tree, f"live-{number}-loss"))) >= 4
    assert len(table(by_id(tree, "done-split-1-selection"))) == 4
    assert not tree.findall(".//*[@id='done-split-5-loss']")
    assert "--set data.split=all" in section
    shutil.rmtree(work / "finetune" / "split-5")
    tuning(work, 4, "all")()
    tree = parse(report(work).path)
    assert "Unfinished" not in words(by_id(tree, "finetuning"))
    for split in range(1, 6):
        assert len(table(by_id(tree, f"finetune-split-{split}-selection"))) == 4
    (work / "finetune" / "split-3" / "epochs.csv").write_text("epoch\n")
    tree = parse(report(work).path)
    assert "The curves of split 3 are left out" in words(by_id(tree, "finetuning"))
    assert by_id(tree, "finetune-split-4-selection") is not None


def finished_split(work: Path) -> Path:
    """One fold's fine-tuning, elsewhere."""
    tuning(work, 1, "5")()
    return Path(shutil.move(work / "finetune", work.parent / "earlier"))


def test_imported_encoders_have_no_curves_and_no_figures_of_their_own(tmp_path: Path) -> None:
    work = tmp_path / "work"
    clip = {"clip.frames": 4, "clip.size": 24}
    torch.save(released.checkpoint(released.pretrained("r3d18", "linear"), "resnet18"), tmp_path / "pretrained.pth.tar")
    torch.save(released.checkpoint(released.finetuned("r3d18", 2), released.ARCH["r3d18"]), tmp_path / "tuned.pth.tar")
    for name in ("pretrained", "tuned"):
        import_checkpoint(tmp_path / f"{name}.pth.tar", settings=clip, work_dir=work)
    written = report(work)
    assert written.sections == ["lineage"]
    assert "imported" in written.left_out["Training"]
    assert "imported" in written.left_out["Fine-tuning"]
    commands = [words(command) for command in parse(written.path).findall(".//code[@class='command']")]
    expected = ["rspnet", "import-checkpoint", "FILE", "--set", "clip.frames=4", "--set", "clip.size=24", "--work-dir", str(work)]
    assert [shlex.split(command) for command in commands] == [expected, expected]
    assert "differ" not in words(by_id(parse(written.path), "lineage"))


def test_a_folder_with_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        report(tmp_path / "nowhere")
    refused(caught.value, "nowhere", "rspnet extract VIDEOS")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_no_report_is_replaced_by_force_alone(work: Path) -> None:
    target = work / "mine.html"
    target.write_text("<h1>mine</h1>")
    with pytest.raises(InputError) as caught:
        report(work, out=target)
    refused(caught.value, "mine.html", "--force")
    assert target.read_text() == "<h1>mine</h1>"
    report(work, out=target, force=True)
    report(work, out=target)  # an earlier report is
    assert parse(target) is not None


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


SHOWN = {
    "clips": "#neighbours",
    "table": "#classes",
    "matrix": "#confusion-knn",
    "map": "#map-figure",
    "curves": "#done-loss",
    "lineage": "#lineage .recipe",
}
"""What the screenshots show, each in the middle."""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_a_request_or_a_complaint(made: Written, page: Page, tmp_path: Path, width: int, dark: bool) -> None:
    page.requests.clear()
    page.errors.clear()
    page.size(width, 800, dark=dark)
    page.open(made.path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out to the right"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 64) == dark
    page.move("#neighbours .clip")
    assert page.evaluate("document.querySelector('#neighbours .clip').getAnimations()[0].playState") == "running"
    shown = page.evaluate("getComputedStyle(document.querySelector('#neighbours .clip')).backgroundImage")
    assert shown.startswith('url("data:image/jpeg;base64,')
    folder = Path(os.environ.get("RSPNET_TEST_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for name, selector in SHOWN.items():
        page.move(selector)
        page.screenshot(folder / f"report-{name}-{width}{'-dark' if dark else ''}.png")
    assert page.errors == []
    assert {address for address in page.requests if not address.startswith("data:")} == {made.path.resolve().as_uri()}


# The height of a table's first cell beside that of one line of its text, and the width of its box beside that of the page.
CELL = """(selector, text) => {
    const cell = document.querySelector(selector);
    cell.textContent = text;
    const box = cell.getBoundingClientRect(), line = parseFloat(getComputedStyle(cell).lineHeight);
    const room = cell.closest(".scroll");
    return {lines: Math.floor(box.height / line), width: box.width, stands: room.getBoundingClientRect().right <= innerWidth};
}"""


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("selector", ["#classes td", "#lineage .recipe td"])
def test_names_in_a_table_are_whole_words_and_hostile_ones_do_not_blow_it_up(made: Written, page: Page, width: int, selector: str) -> None:
    page.size(width, 800)
    page.open(made.path)
    for name in ("Walk", "ApplyEyeMakeup", "NameAAAAction", "moco.queue_size"):
        cell = page.evaluate(f"({CELL})({json.dumps(selector)}, {json.dumps(name)})")
        assert cell["lines"] == 1, name
    cell = page.evaluate(f"({CELL})({json.dumps(selector)}, {json.dumps('A' * 400)})")
    assert cell["lines"] > 3
    assert 80 < cell["width"] <= 0.62 * width
    assert cell["stands"], "the table scrolls in a box of its own"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_in_a_browser_tables_matrices_and_maps_answer(made: Written, page: Page) -> None:
    page.errors.clear()
    page.size(1200, 800)
    page.open(made.path)

    def tip() -> str:
        visible = page.evaluate("document.getElementById('tip').style.visibility") == "visible"
        return page.evaluate("document.getElementById('tip').innerText") if visible else ""

    # A table sorts by a click, and the other way by another.
    column = "[...document.querySelectorAll('#classes tbody tr')].map((row) => row.cells[0].textContent)"
    page.click("#classes th:nth-child(1) button")
    rising = page.evaluate(column)
    page.click("#classes th:nth-child(1) button")
    assert page.evaluate(column) == rising[::-1]
    assert sorted(rising) == sorted(AS_SHOWN)
    # The matrix tells the counts of every cell, also of the empty ones, in whatever order its rows and columns are.
    inside = data(by_id(parse(made.path), "confusion-knn"), "matrix-data")
    cells = by_id(parse(made.path), "confusion-knn").findall(".//rect[@data-n]")
    counts = {(int(cell.get("data-t", "")), int(cell.get("data-g", ""))): int(cell.get("data-n", "")) for cell in cells}
    assert len(counts) < 9, "there are empty cells"
    for order in ("class number", "worst first", "name"):
        page.choose("#confusion-knn .order", order)
        classes = inside["orders"][order]
        for row, true in enumerate(classes):
            for place, guess in enumerate(classes):
                page.move("#confusion-knn .frame", (place + 0.3) / 3, (row + 0.7) / 3)
                first, second, last = tip().split("\n")
                assert first == inside["names"][true]
                assert second == ("right" if true == guess else f"taken for {inside['names'][guess]}")
                assert last.startswith(f"{counts.get((true, guess), 0)} of {inside['totals'][true]} (")
        middles = (
            "[...document.querySelectorAll('#confusion-knn SELECTOR')].map((node) => { const box = node.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })"
        )
        frame = page.evaluate(middles.replace("SELECTOR", ".frame"))[0]
        rows = page.evaluate(middles.replace("SELECTOR", "text[data-row]"))
        columns = page.evaluate(middles.replace("SELECTOR", "text[data-column]"))
        assert sorted(range(3), key=lambda label: rows[label][1]) == classes, "names beside the rows"
        assert sorted(range(3), key=lambda label: columns[label][0]) == classes, "and below the columns"
        assert all(x < frame[0] for x, _ in rows)
        assert all(y > frame[1] for _, y in columns)
    # The map plays a clip, moves to the other layout, and shows one class alone.
    page.move("#map circle")
    assert page.evaluate("document.querySelector('#tip .clip').getAnimations()[0].playState") == "running"
    first = data(by_id(parse(made.path), "map-figure"), "map-data")
    assert first["ids"][0] in tip() or any(name in tip() for name in first["ids"])
    assert page.evaluate("document.querySelector('.hint').textContent") == "Hover or tap a point for its name and its clip."
    place = "Number(document.querySelector('#map circle').getAttribute('cx'))"
    assert page.evaluate(place) == pytest.approx(first["layouts"]["PCA"][0], abs=0.06), "few points: the components first"
    page.choose(".layout", "t-SNE")
    assert page.evaluate(place) == first["layouts"]["t-SNE"][0] != first["layouts"]["PCA"][0]
    page.choose(".pick", first["class_names"][1])
    assert page.evaluate("document.querySelectorAll('#map circle.faint').length") == TEST - first["classes"].count(1)
    page.choose(".pick", "all classes")
    assert page.evaluate("document.querySelectorAll('#map circle.faint').length") == 0
    # A chart tells the values at the pointer.
    page.move("#recall svg")
    assert "this encoder: " in tip()
    assert page.errors == []


def test_the_map_says_how_many_points_have_a_clip(made: Written, work: Path, page: Page) -> None:
    bare = report(work, out=work / "bare.html", max_bytes=1)
    some = report(work, out=work / "some.html", max_bytes=(bare.bytes + made.bytes) // 2)
    played = len(
        set(data(by_id(parse(some.path), "map-figure"), "map-data")["clips"]) & set(json.loads(by_id(parse(some.path), "clips").text or ""))
    )
    assert 0 < played < TEST
    for path, words_of_it in (
        (bare.path, "Hover or tap a point for its name."),
        (some.path, f"Hover or tap a point for its name, and for its clip where there is one ({played} of {TEST} points)."),
    ):
        page.open(path)
        assert page.evaluate("document.querySelector('.hint').textContent") == words_of_it
