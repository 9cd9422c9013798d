"""The command in a report, typed again, means the settings of the result."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from rspnet_cli.config import ExportConfig, PretrainConfig
from rspnet_cli.manifest import read_manifest
from rspnet_cli.recipes import recipe_names
from rspnet_cli.report.commands import Run, command_line, command_of, nearest_recipe
from rspnet_cli.report.found import find_unfinished
from rspnet_cli.settings import finetune_settings, pretrain_settings, validated
from rspnet_cli.stage import begin_stage
from rspnet_cli.training.fit import resolve
from tests.evaluation.tables import make_export, make_table
from tests.extracted import make_extract
from tests.pretrained import make_pretrain


@pytest.mark.parametrize("name", recipe_names("pretrain"))
def test_a_recipes_own_settings_are_found_to_be_its(name: str) -> None:
    config = resolved(pretrain_settings(recipe=name))
    recipe = nearest_recipe("pretrain", config)
    assert recipe is not None
    assert recipe.differing == {}
    # Recipes of equal settings cannot be told apart.
    assert resolved(pretrain_settings(recipe=recipe.name)) == config


def typed_for(stage: str, config: dict[str, object]) -> list[str]:
    """The words of the command for these settings alone, in the default work directory."""
    work_dir = Path("rspnet-run")
    return shlex.split(command_line(Run(stage, stage, work_dir / stage, config, ()), work_dir))


def sets_of(words: list[str]) -> list[str]:
    """What is typed behind every --set."""
    return [value for flag, value in pairwise(words) if flag == "--set"]


def resolved(config: PretrainConfig) -> dict[str, object]:
    return resolve(config, torch.device("cpu")).identity()


@pytest.mark.parametrize(
    "typed",
    [
        ["--recipe", "small-cpu", "--set", "optim.epochs=7", "--set", "clip.frame_rate=12.5"],
        ["--recipe", "small-cpu", "--set", "moco.momentum_end=none", "--set", "clip.speeds=[4,2,1]", "--set", "model.head=mlp"],
        ["--recipe", "r3d18", "--set", "optim.batch_size=64", "--set", "run.seed=3"],
        ["--recipe", "r3d18", "--set", "optim.batch_size=64", "--set", "optim.lr=0.3"],
        ["--recipe", "s3dg", "--set", "augment.order=aug_plus", "--set", "run.compile=true", "--set", "data.split=all"],
    ],
)
def test_a_pretrainings_command_gives_its_settings_again(typed: list[str]) -> None:
    def settings(words: list[str]) -> dict[str, object]:
        return resolved(pretrain_settings(recipe=words[words.index("--recipe") + 1], sets=sets_of(words)))

    config = settings(typed)
    words = typed_for("pretrain", config)
    assert words[:2] == ["rspnet", "pretrain"]
    assert settings(words[2:]) == config
    if "augment.order=aug_plus" not in typed:  # which changes the defaults of others, so they are named too
        assert len(words) <= 2 + len(typed), "nothing is typed that the recipe says"


def test_the_lr_of_a_recipe_is_that_for_the_batch() -> None:
    recipe = nearest_recipe("pretrain", resolved(pretrain_settings(recipe="r3d18", flags={"optim.batch_size": 64})))
    assert recipe is not None
    assert (recipe.name, recipe.differing) == ("r3d18", {"optim.batch_size": (256, 64)})


@pytest.mark.parametrize("recipe", recipe_names("finetune"))
@pytest.mark.parametrize("changed", [{}, {"model.linear": True}, {"optim.epochs": 7, "model.random_init": True}])
def test_a_finetunings_command_gives_its_settings_again(recipe: str, changed: dict[str, object]) -> None:
    config = finetune_settings(recipe=recipe, flags=changed).identity()
    nearest = nearest_recipe("finetune", config)
    assert nearest is not None
    assert {key: value for key, (_, value) in nearest.differing.items()} == changed
    words = typed_for("finetune", config)
    assert words[:4] == ["rspnet", "finetune", "--recipe", nearest.name]
    assert finetune_settings(recipe=nearest.name, sets=sets_of(words)).identity() == config


def test_the_command_of_an_import_says_what_was_told(tmp_path: Path) -> None:
    facts = {"assumed": ["clip.size", "clip.speeds"]}
    with begin_stage(
        "pretrain", {"import": facts, "clip": {"frames": 32, "size": 112, "speeds": [2]}}, inputs={}, out=tmp_path / "x"
    ) as stage:
        made = stage.finish(results={})
    command = command_of(made, Path("rspnet-run"))
    assert command.startswith("rspnet import-checkpoint FILE --set clip.frames=32 --out ")


def test_settings_of_another_version_have_no_recipe() -> None:
    assert nearest_recipe("pretrain", {}) is None
    assert nearest_recipe("pretrain", {"optim": {"batch_size": "many"}}) is None


def test_the_commands_of_a_chain_name_what_is_not_the_default(extracted_chain: Path) -> None:
    found = {
        name: command_of(read_manifest(extracted_chain / name), extracted_chain)
        for name in ("extract", "export-features", "random-init/export-features", "histogram/export-features")
    }
    where = ["--work-dir", str(extracted_chain)]
    assert shlex.split(found["extract"]) == ["rspnet", "extract", "VIDEOS", "--dataset", "plain", "--short-side", "32", *where]
    assert shlex.split(found["export-features"]) == ["rspnet", "export-features", "--clips", "3", "--pool", "max", *where]
    assert shlex.split(found["random-init/export-features"]) == ["rspnet", "export-features", "--random-init", *where]
    assert found["histogram/export-features"] == "", "another program made it"


@pytest.mark.parametrize(
    ("stage", "inputs", "positional"),
    [
        ("extract", {}, ["VIDEOS"]),
        ("pretrain", {"extract": "other/extract"}, ["other/extract"]),
        ("pretrain", {"extract": "work/extract"}, []),
        ("finetune", {"pretrain": "other/pretrain", "extract": "other/extract"}, ["other/pretrain", "--frames", "other/extract"]),
        ("finetune", {"pretrain": "work/pretrain", "extract": "other/extract"}, ["--frames", "other/extract"]),
        ("export-features", {"pretrain": "other/pretrain", "extract": "work/extract"}, ["other/pretrain", "--frames", "work/extract"]),
        ("eval-retrieval", {"export-features": "other/export-features"}, ["other/export-features"]),
        ("eval-classification", {"export-features": "work/export-features"}, []),
    ],
)
def test_the_command_of_an_unfinished_stage_is_that_of_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, inputs: dict[str, str], positional: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in inputs.items():
        with begin_stage(name, {}, inputs={}, out=Path(folder)) as made:
            made.finish(results={})
    settings: dict[str, object] = {}
    if stage == "pretrain":
        settings = resolved(pretrain_settings(recipe="small-cpu", sets=["optim.epochs=200"]))
    elif stage == "finetune":
        settings = finetune_settings(recipe="ucf101-r3d18", flags={"optim.epochs": 7}).identity()
    work = Path("work")
    with begin_stage(stage, settings, inputs={name: Path(folder) for name, folder in inputs.items()}, out=work / stage) as begun:
        unfinished = find_unfinished(work / stage, stage)
        assert unfinished is not None
        assert unfinished.running
        command = command_line(unfinished.begun, work)
        result = begun.finish(results={})
    assert command == command_of(result, work)
    typed = shlex.split(command)
    assert typed[: 2 + len(positional)] == ["rspnet", stage, *positional]
    assert ("optim.epochs=200" in typed) == (stage == "pretrain")
    assert typed[-2:] == ["--work-dir", "work"]


def test_the_command_of_an_unfinished_merge_or_import_is_theirs(tmp_path: Path) -> None:
    with begin_stage("extract", {}, inputs={}, out=tmp_path / "extract", command="merge extract"):
        merge = find_unfinished(tmp_path / "extract", "extract")
    with begin_stage("pretrain", {"import": {}, "clip": {"frames": 8}}, inputs={}, out=tmp_path / "pretrain"):
        imported = find_unfinished(tmp_path / "pretrain", "pretrain")
    assert merge is not None
    assert imported is not None
    where = ["--work-dir", str(tmp_path)]
    assert shlex.split(command_line(merge.begun, tmp_path)) == ["rspnet", "merge", "extract", *where]
    assert shlex.split(command_line(imported.begun, tmp_path)) == ["rspnet", "import-checkpoint", "FILE", "--set", "clip.frames=8", *where]


def test_a_stage_that_has_noted_nothing_yet_has_its_bare_command(tmp_path: Path) -> None:
    (tmp_path / "pretrain" / "unfinished").mkdir(parents=True)
    for state in (None, "{", "[]", '{"config": 3}', '{"config": {}, "places": 3}'):
        if state is not None:
            (tmp_path / "pretrain" / "unfinished" / "state.json").write_text(state)
        unfinished = find_unfinished(tmp_path / "pretrain", "pretrain")
        assert unfinished is not None
        assert (dict(unfinished.config), unfinished.running) == ({}, False)
        assert shlex.split(command_line(unfinished.begun, tmp_path)) == ["rspnet", "pretrain", "--work-dir", str(tmp_path)]


@pytest.fixture
def extracted_chain(tmp_path: Path) -> Path:
    make_extract(tmp_path / "extract", num_frames=(9, 10))
    make_pretrain(tmp_path / "pretrain", inputs={"extract": tmp_path / "extract"})
    inputs = {stage: tmp_path / stage for stage in ("pretrain", "extract")}
    make_export(tmp_path / "histogram" / "export-features", make_table(), inputs={"extract": tmp_path / "extract"})
    for folder, config in (("", {"clips": 3, "pool": "max"}), ("random-init", {"random_init": True})):
        identity = validated(ExportConfig, config).identity() | {"device": "cpu"}
        make_export(tmp_path / folder / "export-features", make_table(), config=identity, inputs=inputs)
    return tmp_path
