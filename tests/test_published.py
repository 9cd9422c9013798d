"""The published numbers, against the papers' and the release's tables as they stand there."""

from __future__ import annotations

import pytest

from rspnet_cli.published import published
from rspnet_cli.recipes import recipe_names

# Architecture, epochs of pretraining: UCF101, HMDB51, Something-Something v2 (release README), hours and V100s (authors, issue 1).
TABLE = {
    "s3dg-1000": (93.7, 64.7, None, None, None),
    "s3dg": (89.9, 59.6, 55.03, 166, 4),
    "r2plus1d": (81.1, 44.6, None, 187, 6),
    "r3d18": (74.3, 41.8, 44.02, 140, 4),
    "c3d": (76.7, 44.6, 47.76, 150, 4),
}
RETRIEVAL = {"r3d18": [41.1, 59.4, 68.4, 77.8, 88.7], "c3d": [36.0, 56.7, 66.5, 76.3, 87.7]}


def test_the_figures_and_costs_are_those_that_were_published() -> None:
    known = published()
    assert known.pretrainings.keys() == TABLE.keys()
    expected: dict[str, dict[str, float]] = {}
    for name, (*figures, hours, gpus) in TABLE.items():
        pretraining = known.pretrainings[name]
        assert (pretraining.hours, pretraining.gpus, pretraining.dataset) == (hours, gpus, "kinetics400")
        for dataset, figure in zip(("ucf101", "hmdb51", "ssv2"), figures, strict=True):
            if figure is not None:
                expected[f"{dataset}-{name}"] = {"top1": figure}
    for name, recalls in RETRIEVAL.items():
        expected[f"ucf101-retrieval-{name}"] = dict(zip(("1", "5", "10", "20", "50"), recalls, strict=True))
    assert {name: result.percent for name, result in known.results.items()} == expected
    assert known.results["ucf101-retrieval-r3d18"].shares()["10"] == 0.684


def test_every_name_in_the_file_means_something() -> None:
    known = published()
    for name, result in known.results.items():
        assert name.startswith(result.dataset)
        assert result.dataset in known.datasets
        assert result.pretraining in known.pretrainings
        assert result.source in known.sources
        assert (result.recipe in recipe_names("finetune")) == (result.task == "finetune")
    assert known.pretrainings.keys() <= set(recipe_names("pretrain"))
    assert set(known.configurations.without_result) <= set(recipe_names("pretrain")) - known.pretrainings.keys()


@pytest.mark.parametrize(("dataset", "videos"), [("ucf101", 13_320), ("hmdb51", 5_100)])
def test_every_split_of_a_data_set_is_of_the_same_videos(dataset: str, videos: int) -> None:
    splits = published().datasets[dataset].splits
    assert list(splits) == ["1", "2", "3"]
    assert {sides.train + sides.test for sides in splits.values()} == {videos}
