"""eval-classification on finished exports: figures that agree with its tables, every protocol, every refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rspnet_cli.config import ClassificationConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.probes import PROBES, true_ranks
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.stages.eval_classification import eval_classification
from rspnet_cli.tables import PER_CLASS, PREDICTIONS, PROBE_SETTINGS, Table, read_table
from tests.evaluation.tables import make_export, make_table
from tests.listener import Listener
from tests.sentences import refused


def run(folder: Path, listener: Listener | None = None, **settings: object) -> Manifest:
    return eval_classification(ClassificationConfig(**settings), features=folder / "export", out=folder / "out", report=listener)  # type: ignore[arg-type]


def read(manifest: Manifest, table: Table) -> pd.DataFrame:
    return read_table(manifest.artifact_path(table.file), table)


@pytest.fixture(scope="module")
def split_run(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Seven classes that are hard enough to make mistakes, split 1."""
    folder = tmp_path_factory.mktemp("split")
    make_export(folder / "export", make_table(classes=7, groups=6, spread=3.0, channels=16))
    return run(folder)


def test_results_have_the_promised_keys(split_run: Manifest) -> None:
    results = split_run.results
    assert list(results) == ["protocol", "queries", "queries_seen", "classes", "linear", "knn", "chance"]
    assert (results["protocol"], results["queries"], results["queries_seen"], results["classes"]) == ("split", 42, 0, 7)
    for probe in ("linear", "knn"):
        assert list(results[probe]) == ["top1", "top5", "mean_class", "interval"]
        assert 1 / 7 < results[probe]["top1"] < 1
        for name in ("top1", "top5", "mean_class"):
            low, high = results[probe]["interval"][name]
            assert low <= results[probe][name] <= high
    assert results["chance"] == pytest.approx({"top1": 1 / 7, "top5": 5 / 7, "majority": 1 / 7})


@pytest.mark.parametrize("probe", PROBES)
def test_figures_predictions_classes_and_confusion_agree(split_run: Manifest, probe: str) -> None:
    figures, predictions, per_class = split_run.results[probe], read(split_run, PREDICTIONS), read(split_run, PER_CLASS)
    right = predictions[f"{probe}_label"] == predictions["label"]
    assert ((predictions[f"{probe}_rank"] == 1) == right).all()
    assert figures["top1"] == pytest.approx(right.mean())
    assert figures["top5"] == pytest.approx((predictions[f"{probe}_rank"] <= 5).mean())
    by_class = right.groupby(predictions["label_name"]).mean()
    assert figures["mean_class"] == pytest.approx(by_class.mean())
    assert per_class.set_index("label_name")[f"{probe}_top1"].to_dict() == pytest.approx(by_class.to_dict())
    assert per_class["queries"].tolist() == [6] * 7
    confusion = pd.read_csv(split_run.artifact_path(f"confusion_{probe}.csv"), index_col="label_name")
    expected = pd.crosstab(predictions["label_name"], predictions[f"{probe}_label_name"])
    for truth in confusion.index:
        for guess in confusion.columns:
            count = expected.loc[truth, guess] if guess in expected.columns else 0
            assert confusion.loc[truth, guess] == count
    assert predictions.columns.tolist() == PREDICTIONS.header()
    assert predictions["fold"].isna().all()


def test_the_settings_tried_are_listed_and_the_best_is_chosen(split_run: Manifest) -> None:
    settings = read(split_run, PROBE_SETTINGS)
    for probe in PROBES:
        tried = settings[settings["probe"] == probe]
        chosen = tried[tried["chosen"]]
        assert len(tried) > 3
        assert len(chosen) == 1
        assert chosen["validation_top1"].item() == tried["validation_top1"].max()
        assert (tried["validation_videos"] == tried["validation_videos"].iloc[0]).all()


def test_predictions_are_those_of_the_probe_on_train(tmp_path: Path) -> None:
    table = make_table(classes=4, spread=2.5)
    make_export(tmp_path / "export", table)
    manifest = run(tmp_path, probe="linear", seed=3)
    train = (table.videos["split_1"] == "train").to_numpy()
    fitted = PROBES["linear"](table.features[train], table.label[train], table.group[train], table.features[~train], num_classes=4, seed=3)
    predictions = read(manifest, PREDICTIONS)
    assert predictions["id"].tolist() == table.videos["id"][~train].tolist()
    assert predictions["linear_label"].tolist() == fitted.scores.argmax(axis=1).tolist()
    assert predictions["linear_rank"].tolist() == true_ranks(fitted.scores, table.label[~train]).tolist()
    assert manifest.results["knn"] is None
    assert predictions["knn_label"].isna().all()
    assert not any("knn" in artifact.path for artifact in manifest.artifacts)


def test_without_splits_every_video_is_tested_once_in_a_fold_without_its_group(tmp_path: Path) -> None:
    table = make_table(classes=4, groups=6, spread=1.5, split=False)
    make_export(tmp_path / "export", table)
    manifest = run(tmp_path)
    predictions = read(manifest, PREDICTIONS)
    assert manifest.results["protocol"] == "folds"
    assert manifest.results["queries"] == len(table.videos) == len(predictions)
    assert manifest.results["queries_seen"] == 12
    assert predictions["id"].tolist() == table.videos["id"].tolist()
    assert set(predictions["fold"]) == {1, 2, 3, 4, 5}
    assert (predictions["fold"].groupby(table.videos["group"]).nunique() == 1).all()
    assert (predictions["fold"].groupby(predictions["label"]).nunique() == 5).all()
    assert manifest.results["linear"]["top1"] > 0.4
    assert read(manifest, PROBE_SETTINGS).groupby(["probe", "fold"])["chosen"].sum().tolist() == [1] * 10


def test_a_group_told_apart_by_its_own_noise_alone_is_not_learned_by_heart(tmp_path: Path) -> None:
    # Every video is a copy of its group, and the class says nothing: only a leak between train and test could be right.
    rng = np.random.default_rng(0)
    table = make_table(classes=4, groups=10, videos=6, split=False)
    of_group = rng.normal(size=(len(set(table.group.tolist())), 6)).astype(np.float32)
    table.features[:] = of_group[table.group]
    make_export(tmp_path / "export", table)
    results = run(tmp_path).results
    assert results["knn"]["top1"] < 0.5
    assert results["linear"]["top1"] < 0.5


def test_classes_with_one_group_are_named_and_left_out_of_folds(tmp_path: Path) -> None:
    table = make_table(classes=4, groups=3, split=False)
    table.videos.loc[table.videos["label"] == 2, "group"] = "one recording"
    make_export(tmp_path / "export", table)
    listener = Listener()
    manifest = run(tmp_path, listener, probe="knn")
    assert manifest.results["queries"] == 27
    assert manifest.results["classes"] == 3
    assert listener.heard("warning: 1 of 4 classes have fewer than 2 groups, one to train and one to test on: left out (class 2).")
    assert 2 not in read(manifest, PREDICTIONS)["label"].tolist()


def test_a_class_that_train_lacks_counts_as_wrong_and_is_named(tmp_path: Path) -> None:
    table = make_table(classes=3, spread=0.1)
    table.videos.loc[(table.videos["label"] == 1) & (table.videos["split_1"] == "train"), "split_1"] = "unused"
    make_export(tmp_path / "export", table)
    listener = Listener()
    manifest = run(tmp_path, listener)
    results = manifest.results
    assert results["linear"]["top1"] == results["knn"]["top1"] == pytest.approx(2 / 3)
    assert results["classes"] == 2
    assert results["chance"]["top1"] == pytest.approx(1 / 3)
    assert listener.heard("6 test videos are of classes that train has no video of (class 1)")
    assert listener.heard("9 of 45 videos are neither train nor test in split 1")
    predictions = read(manifest, PREDICTIONS)
    assert predictions.loc[predictions["label"] == 1, "linear_rank"].isna().all()
    assert predictions.loc[predictions["label"] == 1, "knn_rank"].isna().all()


def test_videos_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    table = make_table(classes=3)
    table.videos.loc[[0, 1, 44], ["label", "label_name"]] = [-1, ""]
    make_export(tmp_path / "export", table)
    listener = Listener()
    assert run(tmp_path, listener, probe="knn").results["queries"] == 17
    assert listener.heard("3 videos of split 1 have no label: left out.")


def test_a_probe_on_an_augmented_gallery_says_so_at_every_look(tmp_path: Path) -> None:
    make_export(tmp_path / "export", make_table(), config={"gallery_augment": "reference", "split": "1"})
    for _ in range(2):
        listener = Listener()
        run(tmp_path, listener, probe="knn")
        assert listener.heard("warning: The train videos of")
    with pytest.raises(InputError) as caught:
        run(tmp_path, protocol="folds")
    refused(caught.value, "--gallery-augment", "--split 1")


def test_the_majority_is_that_of_train(tmp_path: Path) -> None:
    table = make_table(classes=3)
    table.videos.loc[(table.videos["label"] == 0) & (table.videos.index % 3 > 0), "split_1"] = "unused"
    make_export(tmp_path / "export", table)
    results = run(tmp_path, probe="knn").results
    # train holds 3 of class 0 and 9 each of 1 and 2; test 2 of class 0 and 6 each of 1 and 2.
    assert results["queries"] == 14
    assert results["chance"]["majority"] == pytest.approx(6 / 14)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "3"}, ["no split 3", "only split 1"]),
        ({"split": "1", "protocol": "folds"}, ["--split 1", "no effect"]),
    ],
)
def test_settings_that_cannot_be_met_are_refused_and_leave_nothing(tmp_path: Path, settings: dict[str, object], words: list[str]) -> None:
    make_export(tmp_path / "export", make_table())
    with pytest.raises(InputError) as error:
        run(tmp_path, **settings)
    refused(error.value, *words)
    assert not (tmp_path / "out").exists()


def test_sets_that_cannot_be_classified_are_refused(tmp_path: Path) -> None:
    unlabelled, one_class, one_group, no_labelled_test = (
        make_table(labelled=False),
        make_table(classes=1),
        make_table(split=False),
        make_table(),
    )
    one_group.videos["group"] = one_group.videos["label_name"]
    no_labelled_test.videos.loc[no_labelled_test.videos["split_1"] == "test", ["label", "label_name"]] = [-1, ""]
    cases = [
        (unlabelled, {}, ["no labels", "`rspnet eval-retrieval` still gives the neighbours"]),
        (one_class, {}, ["two classes"]),
        (one_class, {"protocol": "folds"}, ["two classes"]),
        (one_group, {}, ["two classes", "two groups"]),
        (no_labelled_test, {}, ["No test video", "label"]),
        (make_table(split=False), {"protocol": "split"}, ["no splits", "folds"]),
    ]
    for number, (table, settings, words) in enumerate(cases):
        make_export(tmp_path / str(number) / "export", table)
        with pytest.raises(InputError) as error:
            run(tmp_path / str(number), **settings)
        refused(error.value, *words)
        assert not (tmp_path / str(number) / "out").exists()


def test_equal_runs_have_equal_digests_and_another_seed_is_another_run(tmp_path: Path) -> None:
    table = make_table(classes=4, spread=2.5, split=False)
    for name in ("a", "b"):
        make_export(tmp_path / name / "export", table)
        run(tmp_path / name)
    first, second = (read_manifest(tmp_path / name / "out") for name in ("a", "b"))
    assert first.digest == second.digest
    assert [artifact.sha256 for artifact in first.artifacts] == [artifact.sha256 for artifact in second.artifacts]
    assert run(tmp_path / "a").created == first.created
    with pytest.raises(InputError) as error:
        run(tmp_path / "a", seed=1)
    refused(error.value, "seed was 0, now 1", "--force")
