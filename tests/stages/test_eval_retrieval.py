"""eval-retrieval on finished exports: figures against plain loops, every protocol, every refusal."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rspnet_cli.config import RetrievalConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FEATURES, FeatureTable
from rspnet_cli.manifest import read_manifest
from rspnet_cli.stages.eval_retrieval import eval_retrieval
from rspnet_cli.tables import NEIGHBOURS, read_table
from tests.evaluation.tables import make_export, make_table
from tests.listener import Listener
from tests.sentences import refused


def plain_figures(table: FeatureTable, queries: list[int], gallery: list[int], k: int, leave_group_out: bool) -> tuple[float, float]:
    """(recall, chance) at k in loops over Python floats."""
    vectors = [[float(value) for value in row] for row in table.features]
    groups, labels = table.videos["group"].tolist(), table.videos["label"].tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    right = chance = 0.0
    for query in queries:
        others = [video for video in gallery if not (leave_group_out and groups[video] == groups[query])]
        others.sort(key=lambda video: -cosine(vectors[query], vectors[video]))
        right += any(labels[video] == labels[query] for video in others[:k])
        same = sum(labels[video] == labels[query] for video in others)
        chance += 1 - math.comb(len(others) - same, k) / math.comb(len(others), k)
    return right / len(queries), chance / len(queries)


def rows_of(table: FeatureTable, part: str) -> list[int]:
    return np.flatnonzero(table.videos["split_1"] == part).tolist()


def test_recall_and_chance_of_a_split_are_those_of_plain_loops(tmp_path: Path) -> None:
    table = make_table(classes=4, spread=2.5)
    make_export(tmp_path / "export", table)
    manifest = eval_retrieval(RetrievalConfig(topk=(1, 3, 7)), features=tmp_path / "export", out=tmp_path / "out")
    results = manifest.results
    assert {name: results[name] for name in ("protocol", "queries", "queries_seen", "gallery")} == {
        "protocol": "split",
        "queries": 24,
        "queries_seen": 0,
        "gallery": 36,
    }
    for k in (1, 3, 7):
        recall, chance = plain_figures(table, rows_of(table, "test"), rows_of(table, "train"), k, leave_group_out=False)
        assert results["recall"][str(k)] == pytest.approx(recall)
        assert results["chance"][str(k)] == pytest.approx(chance)
        low, high = results["interval"][str(k)]
        assert low <= recall <= high
    assert 0.2 < results["recall"]["1"] < 1  # a case that tells right from wrong
    assert manifest.classes_sha256 == "c" * 64


@pytest.mark.parametrize(("config", "gallery"), [("none", "centre"), ("reference", "reference"), (None, None)])
def test_the_results_name_the_protocol(tmp_path: Path, config: str | None, gallery: str | None) -> None:
    settings = {} if config is None else {"clips": 10, "pool": "max", "gallery_augment": config, "split": "1"}
    make_export(tmp_path / "export", make_table(), config=settings)
    results = eval_retrieval(RetrievalConfig(topk=(1,)), features=tmp_path / "export", out=tmp_path / "out").results
    known = {"clips": None, "pool": None} if config is None else {"clips": 10, "pool": "max"}
    assert results["setup"] == known | {"split": 1, "gallery": gallery, "distance": "cosine"}


def test_an_augmented_gallery_is_not_searched_by_another_protocol(tmp_path: Path) -> None:
    make_export(tmp_path / "export", make_table(), config={"gallery_augment": "reference", "split": "1"})
    with pytest.raises(InputError) as error:
        eval_retrieval(RetrievalConfig(protocol="leave-one-out"), features=tmp_path / "export", out=tmp_path / "out")
    refused(error.value, "--gallery-augment", "--split 1")
    assert not (tmp_path / "out").exists()


def test_leave_one_out_leaves_the_whole_group_out_of_recall_and_chance(tmp_path: Path) -> None:
    table = make_table(classes=3, groups=4, spread=2.5, split=False)
    table.videos.loc[[0, 5, 20], "group"] = ["c1_g0", "", ""]  # a group over two classes, and videos alone
    make_export(tmp_path / "export", table)
    results = eval_retrieval(RetrievalConfig(topk=(1, 4)), features=tmp_path / "export", out=tmp_path / "out").results
    assert results["protocol"] == "leave-one-out"
    assert results["queries"] == results["gallery"] == 36
    assert results["queries_seen"] == 9
    table.videos.loc[[5, 20], "group"] = ["alone 5", "alone 20"]
    for k in (1, 4):
        recall, chance = plain_figures(table, list(range(36)), list(range(36)), k, leave_group_out=True)
        assert results["recall"][str(k)] == pytest.approx(recall)
        assert results["chance"][str(k)] == pytest.approx(chance)
    neighbours = read_table(tmp_path / "out" / NEIGHBOURS.file, NEIGHBOURS)
    group = table.videos.set_index("id")["group"]
    assert (neighbours["query_id"].map(group) != neighbours["neighbour_id"].map(group)).all()


def test_neighbours_are_listed_in_rank_order_with_labels(tmp_path: Path) -> None:
    table = make_table(spread=2.5)
    make_export(tmp_path / "export", table)
    manifest = eval_retrieval(RetrievalConfig(topk=(5, 2)), features=tmp_path / "export", out=tmp_path / "out")
    neighbours = read_table(manifest.artifact_path(NEIGHBOURS.file), NEIGHBOURS)
    assert neighbours.columns.tolist() == NEIGHBOURS.header()
    assert len(neighbours) == 18 * 5
    for query, rows in neighbours.groupby("query_id", sort=False):
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5]
        assert (rows["similarity"].diff().dropna() <= 0).all()
        assert rows["neighbour_id"].is_unique
        own = table.videos.set_index("id").loc[str(query)]
        assert (rows["query_label_name"] == own["label_name"]).all()
        assert (rows["correct"] == (rows["neighbour_label_name"] == own["label_name"]).map({True: "True", False: "False"})).all()
    first = neighbours[neighbours["rank"] == 1]
    assert manifest.results["recall"] == pytest.approx({"2": _recall(neighbours, 2), "5": _recall(neighbours, 5)})
    assert first["query_id"].tolist() == table.videos["id"][table.videos["split_1"] == "test"].tolist()


def _recall(neighbours: pd.DataFrame, k: int) -> float:
    within = neighbours[neighbours["rank"] <= k]
    return float((within["correct"] == "True").groupby(within["query_id"]).any().mean())


def test_without_labels_there_are_neighbours_and_no_recall(tmp_path: Path) -> None:
    make_export(tmp_path / "export", make_table(labelled=False, split=False))
    listener = Listener()
    manifest = eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "out", report=listener)
    assert manifest.results["recall"] is manifest.results["chance"] is manifest.results["interval"] is None
    assert any("no recall" in text for text in listener.said)
    neighbours = read_table(manifest.artifact_path(NEIGHBOURS.file), NEIGHBOURS)
    assert set(neighbours["correct"]) == {""}
    assert len(neighbours) == 45 * 20


def test_partly_labelled_sets_are_measured_where_they_can_be(tmp_path: Path) -> None:
    table = make_table(spread=2.5)
    train, test = rows_of(table, "train"), rows_of(table, "test")
    for rows in (train[:4], test[:5]):
        table.videos.loc[rows, ["label", "label_name"]] = [-1, ""]
    make_export(tmp_path / "export", table)
    listener = Listener()
    results = eval_retrieval(RetrievalConfig(topk=(1,)), features=tmp_path / "export", out=tmp_path / "out", report=listener).results
    recall, chance = plain_figures(table, test[5:], train, 1, leave_group_out=False)
    assert results["queries"] == 18
    assert results["recall"]["1"] == pytest.approx(recall)
    assert results["chance"]["1"] == pytest.approx(chance)
    assert any(text.startswith("5 of 18 queries have no label") for text in listener.said)
    assert any(text.startswith("4 of 27 gallery videos have no label") for text in listener.said)


def test_a_class_that_the_gallery_lacks_counts_as_missed_and_is_named(tmp_path: Path) -> None:
    table = make_table(spread=0.1)
    table.videos.loc[(table.videos["label"] == 1) & (table.videos["split_1"] == "train"), "split_1"] = "unused"
    make_export(tmp_path / "export", table)
    listener = Listener()
    results = eval_retrieval(RetrievalConfig(topk=(1,)), features=tmp_path / "export", out=tmp_path / "out", report=listener).results
    assert results["recall"]["1"] == pytest.approx(2 / 3)
    assert any("6 queries have no video of their class in their gallery (class 1)" in text for text in listener.said)
    assert any("9 of 45 videos are neither train nor test in split 1" in text for text in listener.said)


def test_a_group_on_both_sides_is_warned_of(tmp_path: Path) -> None:
    table = make_table()
    table.videos.loc[0, "split_1"] = "test"
    make_export(tmp_path / "export", table)
    listener = Listener()
    eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "out", report=listener)
    assert any(text.startswith("warning: 1 groups have videos in train and in test") for text in listener.said)


def test_default_ks_that_are_too_large_are_left_out_and_said(tmp_path: Path) -> None:
    make_export(tmp_path / "export", make_table())
    listener = Listener()
    results = eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "out", report=listener).results
    assert list(results["recall"]) == ["1", "5", "10", "20"]
    assert any("left out for k = 50: the smallest gallery has 27 videos" in text for text in listener.said)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topk": (1, 28)}, ["--topk 28", "27"]),
        ({"topk": (0,)}, ["--topk", "from 1 up"]),
        ({"topk": ()}, ["--topk"]),
        ({"split": "2"}, ["no split 2", "only split 1"]),
        ({"split": "all"}, ["no split all"]),
        ({"split": "1", "protocol": "leave-one-out"}, ["--split 1", "no effect", "leave-one-out"]),
        ({"protocol": "leave-one-out", "topk": (43,)}, ["--topk 43", "42"]),
    ],
)
def test_settings_that_cannot_be_met_are_refused_and_leave_nothing(tmp_path: Path, settings: dict[str, object], words: list[str]) -> None:
    make_export(tmp_path / "export", make_table())
    with pytest.raises(InputError) as error:
        eval_retrieval(RetrievalConfig(**settings), features=tmp_path / "export", out=tmp_path / "out")  # type: ignore[arg-type]
    refused(error.value, *words)
    assert not (tmp_path / "out").exists()


def test_sets_that_cannot_be_searched_are_refused(tmp_path: Path) -> None:
    one_group = make_table(split=False)
    one_group.videos["group"] = "the only one"
    no_splits, no_test, no_train = make_table(split=False), make_table(), make_table()
    no_test.videos["split_1"] = "train"
    no_train.videos["split_1"] = "val"
    no_train.videos.loc[0, "split_1"] = "test"
    cases = [
        (one_group, {}, ["one group"]),
        (no_splits, {"protocol": "split"}, ["no splits", "leave-one-out"]),
        (no_splits, {"split": "1"}, ["no splits"]),
        (no_test, {}, ["no test videos"]),
        (no_train, {}, ["no train videos"]),
    ]
    for number, (table, settings, words) in enumerate(cases):
        make_export(tmp_path / str(number), table)
        with pytest.raises(InputError) as error:
            eval_retrieval(RetrievalConfig(**settings), features=tmp_path / str(number), out=tmp_path / "out")  # type: ignore[arg-type]
        refused(error.value, *words)


def test_a_right_hash_does_not_make_features_right(tmp_path: Path) -> None:
    table = make_table()
    table.features[3, 1] = np.nan
    make_export(tmp_path / "export", table)
    with pytest.raises(InputError) as error:
        eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "out")
    refused(error.value, "not finite", FEATURES)


def test_the_explicit_default_and_no_flag_are_one_run(tmp_path: Path) -> None:
    make_export(tmp_path / "export", make_table(groups=20))
    first = eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "out")
    explicit = RetrievalConfig(topk=(50, 20, 10, 5, 1, 1), split="1", protocol="split", device="cpu")
    again = eval_retrieval(explicit, features=tmp_path / "export", out=tmp_path / "out")
    assert again.created == first.created
    with pytest.raises(InputError) as error:
        eval_retrieval(RetrievalConfig(topk=(1,)), features=tmp_path / "export", out=tmp_path / "out")
    refused(error.value, "--force")


def test_equal_runs_have_equal_digests_wherever_they_are(tmp_path: Path) -> None:
    table = make_table(spread=2.5)
    digests = set()
    for name in ("a", "b"):
        make_export(tmp_path / name / "export-features", table)
        eval_retrieval(RetrievalConfig(), features=tmp_path / name / "export-features", out=tmp_path / name / "eval-retrieval")
        digests.add(read_manifest(tmp_path / name / "eval-retrieval").digest)
    assert len(digests) == 1


def test_a_large_search_asks_torch_for_a_device_and_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(spread=2.5)
    make_export(tmp_path / "export", table)
    small = eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "small")
    asked = []
    monkeypatch.setattr("rspnet_cli.devices.GPU_MULTIPLICATIONS", 1)
    monkeypatch.setattr("rspnet_cli.devices.resolve_device", lambda name: asked.append(name) or "cpu:0")
    large = eval_retrieval(RetrievalConfig(), features=tmp_path / "export", out=tmp_path / "large")
    assert asked == ["auto"]
    assert large.results == small.results
    assert large.digest == small.digest


def test_one_group_of_queries_is_warned_of(tmp_path: Path) -> None:
    table = make_table(classes=2)
    table.videos.loc[table.videos["split_1"] == "test", "group"] = "one recording"
    make_export(tmp_path / "export", table)
    listener = Listener()
    results = eval_retrieval(RetrievalConfig(topk=(1,)), features=tmp_path / "export", out=tmp_path / "out", report=listener).results
    assert results["interval"]["1"] == [0, 1]
    assert any("of one group" in text for text in listener.said)
