"""The list of recipes: what each sets, and what was published with it."""

from __future__ import annotations

import tomllib

import pytest

from rspnet_cli.config import PretrainConfig
from rspnet_cli.errors import InputError
from rspnet_cli.recipes import STAGES, recipe_names, recipe_text
from rspnet_cli.settings import pretrain_settings
from rspnet_cli.stages.recipes import list_recipes, recipe_toml
from tests.sentences import refused


def test_every_recipe_is_listed_with_its_settings() -> None:
    rows = {(row["stage"], row["name"]): row for row in list_recipes()}
    assert list(rows) == [(stage, name) for stage in STAGES for name in recipe_names(stage)]
    row = rows["pretrain", "r3d18"]
    assert {key: row[key] for key in ("backbone", "frames", "size", "batch_size", "lr", "epochs", "origin", "cost")} == {
        **{"backbone": "r3d18", "frames": 16, "size": 112, "batch_size": 256, "lr": 0.4, "epochs": 200},
        **{"origin": "published", "cost": {"gpus": 4, "hours": 140}},
    }
    assert [result["name"] for result in row["published"]] == ["ucf101-r3d18", "hmdb51-r3d18", "ssv2-r3d18", "ucf101-retrieval-r3d18"]
    assert row["published"][3]["figures"]["1"] == 0.411
    tuned = rows["finetune", "ucf101-s3dg"]["published"]
    assert [(result["pretraining"], result["epochs"], result["figures"]) for result in tuned] == [
        ("s3dg", 200, {"top1": 0.899}),
        ("s3dg-1000", 1000, {"top1": 0.937}),
    ]


@pytest.mark.parametrize(
    ("name", "origin"), [("r3d50", "released"), ("tsm-r18", "released"), ("r3d34", "ours"), ("mfnet", "ours"), ("small-cpu", "ours")]
)
def test_a_recipe_without_a_figure_says_whose_it_is(name: str, origin: str) -> None:
    row = next(row for row in list_recipes() if row["name"] == name)
    assert (row["origin"], row["published"], row["cost"]) == (origin, [], None)
    assert "no published number" in recipe_toml(name).splitlines()[0]


def test_a_recipe_is_printed_with_its_figures_above_and_can_be_read() -> None:
    text = recipe_toml("hmdb51-s3dg")
    assert text.splitlines()[:2] == [
        "# hmdb51-s3dg: top1 59.6, published after 200 epochs of s3dg.",
        "# hmdb51-s3dg-1000: top1 64.7, published after 1,000 epochs of s3dg-1000.",
    ]
    for stage in STAGES:
        for name in recipe_names(stage):
            assert tomllib.loads(recipe_toml(name)) == tomllib.loads(recipe_text(stage, name))


def test_figures_stand_in_no_recipe_file() -> None:
    assert not any("top-1" in recipe_text(stage, name) for stage in STAGES for name in recipe_names(stage))


def test_the_released_best_epoch_is_a_setting() -> None:
    assert PretrainConfig().optim.best_from == "full_queue"
    assert pretrain_settings(sets=["optim.best_from=start"]).optim.best_from == "start"


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError) as error:
        recipe_toml("r3d-18")
    refused(error.value, "'r3d-18'", "did you mean 'r3d18'?", "rspnet recipes")
