"""Settings: where each comes from, who wins, and what is said about a wrong one."""

import itertools
import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.config import ExportConfig, FinetuneConfig, PretrainConfig
from rspnet_cli.config.training import ADDED
from rspnet_cli.encoder.registry import BACKBONES, check_clip_size
from rspnet_cli.errors import InputError
from rspnet_cli.recipes import recipe_names
from rspnet_cli.settings import (
    finetune_settings,
    flat_settings,
    parse_value,
    pretrain_settings,
    read_recipe,
    setting_names,
    settings_table,
    validated,
)
from rspnet_cli.stage import describe_differences
from tests.sentences import refused


def refusal(*words: str, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        pretrain_settings(**how)
    return refused(caught.value, *words)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_later_sources_win_in_every_combination(tmp_path: Path) -> None:
    file = toml(tmp_path, "[optim]\nepochs = 11\n")
    sources: dict[str, dict[str, Any]] = {
        "config_file": {"config_file": file},
        "sets": {"sets": ["optim.epochs=12"]},
        "flags": {"flags": {"optim.epochs": 13}},
    }
    values = {"config_file": 11, "sets": 12, "flags": 13}
    for size in range(4):
        for chosen in itertools.combinations(sources, size):
            arguments = {key: value for name in chosen for key, value in sources[name].items()}
            expected = values[chosen[-1]] if chosen else read_recipe("pretrain", "small-cpu")["optim"]["epochs"]
            assert pretrain_settings(recipe="small-cpu", **arguments).optim.epochs == expected


def test_a_setting_no_source_names_has_its_default_and_an_untyped_flag_none() -> None:
    config = pretrain_settings(recipe="small-cpu", flags={"optim.epochs": None, "run.seed": None})
    assert config.moco.temperature == PretrainConfig().moco.temperature == 0.07
    assert config.optim.epochs == read_recipe("pretrain", "small-cpu")["optim"]["epochs"]
    assert config.run.seed == 0


def test_the_last_of_two_equal_sets_wins() -> None:
    assert pretrain_settings(sets=["run.seed=1", "run.seed=2"]).run.seed == 2


@pytest.mark.parametrize("name", recipe_names("pretrain"))
def test_every_recipe_is_valid_and_says_nothing_twice(name: str) -> None:
    config = pretrain_settings(recipe=name)
    text = (resources.files("rspnet_cli") / "recipes" / "pretrain" / f"{name}.toml").read_text()
    for section, content in tomllib.loads(text).items():
        for key, value in content.items():
            if key != "lr_scale":
                stored = getattr(getattr(config, section), key)
                assert (list(stored) if isinstance(stored, tuple) else stored) == value


# Backbone, T, size, global batch, learning rate for it, epochs: released configurations, after scaling to the GPUs of the published runs.
PUBLISHED = {
    "c3d": ("c3d", 16, 112, 128, 0.2, 200),
    "r3d18": ("r3d18", 16, 112, 256, 0.4, 200),
    "r3d50": ("r3d50", 16, 112, 128, 0.2, 200),
    "r2plus1d": ("r2plus1d", 16, 112, 192, 0.15, 200),
    "s3dg": ("s3dg", 16, 224, 256, 0.2, 200),
    "s3dg-1000": ("s3dg", 16, 224, 256, 0.2, 1000),
    "tsm-r18": ("tsm-r18", 8, 112, 256, 0.4, 200),
}
# Ours, for backbones without one.
OURS = {
    "r3d34": ("r3d34", 16, 112, 256, 0.4, 200),
    "tsm-r50": ("tsm-r50", 8, 112, 128, 0.2, 200),
    "slowfast-r50": ("slowfast-r50", 32, 112, 128, 0.2, 200),
    "mfnet": ("mfnet", 16, 112, 256, 0.4, 200),
}


def test_every_backbone_has_a_recipe() -> None:
    assert {*PUBLISHED, *OURS, "small-cpu"} == set(recipe_names("pretrain"))
    assert {backbone for backbone, *_ in (*PUBLISHED.values(), *OURS.values())} == set(BACKBONES)


@pytest.mark.parametrize("name", PUBLISHED | OURS)
def test_the_recipes_have_the_published_settings(name: str) -> None:
    config = pretrain_settings(recipe=name)
    backbone, frames, size, batch_size, lr, epochs = (PUBLISHED | OURS)[name]
    assert (config.model.backbone, config.model.width, config.clip.frames, config.clip.size) == (backbone, 1.0, frames, size)
    assert (config.optim.batch_size, config.optim.lr, config.optim.epochs) == (batch_size, lr, epochs)
    assert pretrain_settings(recipe=name, flags={"optim.batch_size": 64}).optim.lr == pytest.approx(lr * 64 / batch_size)
    check_clip_size(backbone, frames=frames, side=size)
    assert (config.optim.name, config.optim.sgd_momentum, config.optim.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (config.optim.schedule, config.optim.warmup_epochs) == ("cosine", 0)
    assert (config.moco.momentum, config.moco.temperature, config.moco.bn_splits, config.moco.mask_same_video) == (0.999, 0.07, 1, False)
    assert 16384 - batch_size < config.moco.queue_size - config.moco.queue_size % batch_size <= 16384
    assert (config.objective.margin, config.objective.avid_weight, config.objective.rsp_weight) == (2.0, 1.0, 1.0)
    assert (config.clip.speeds, config.clip.frame_rate, config.model.embedding_dim, config.model.head) == ((2,), None, 128, "linear")
    augment = config.augment
    assert (augment.order, augment.crop_area, augment.crop_ratio) == ("reference", (0.4, 1.0), (3 / 4, 4 / 3))
    assert (augment.jitter, augment.jitter_p, augment.grayscale, augment.flip) == ((0.4, 0.4, 0.4, 0.4), 1.0, 0.2, 0.5)


def test_aug_plus_brings_its_own_settings_unless_they_are_typed() -> None:
    augment = pretrain_settings(sets=["augment.order=aug_plus"]).augment
    assert (augment.jitter, augment.jitter_p, augment.grayscale, augment.blur_p, augment.flip) == ((0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5, 0.5)
    augment = pretrain_settings(sets=["augment.order=aug_plus", "augment.blur_p=0.25", "augment.jitter=[0.1, 0.1, 0.1, 0.0]"]).augment
    assert (augment.jitter, augment.jitter_p, augment.blur_p) == ((0.1, 0.1, 0.1, 0.0), 0.8, 0.25)


def test_linear_scaling_follows_the_batch_and_the_result_no_longer_asks_for_it() -> None:
    config = pretrain_settings(recipe="r3d18", flags={"optim.batch_size": 64})
    assert config.optim.lr == pytest.approx(0.1, rel=1e-12)
    assert config.optim.lr_scale == "none"
    assert pretrain_settings(recipe="r3d18", sets=["optim.lr_scale=none"], flags={"optim.batch_size": 64}).optim.lr == 0.4
    assert pretrain_settings(recipe="small-cpu", flags={"optim.batch_size": 64}).optim.lr == pretrain_settings(recipe="small-cpu").optim.lr


def test_a_typed_learning_rate_is_used_as_typed_unless_scaling_is_typed_too(tmp_path: Path) -> None:
    assert pretrain_settings(recipe="r3d18", flags={"optim.batch_size": 32, "optim.lr": 0.3}).optim.lr == 0.3
    assert pretrain_settings(recipe="r3d18", sets=["optim.lr=0.3", "optim.batch_size=32"]).optim.lr == 0.3
    assert pretrain_settings(recipe="r3d18", config_file=toml(tmp_path, "[optim]\nlr = 0.3\nbatch_size = 32\n")).optim.lr == 0.3
    scaled = pretrain_settings(recipe="r3d18", sets=["optim.lr=0.4", "optim.lr_scale=linear", "optim.batch_size=64"])
    assert scaled.optim.lr == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("optim.lrr=1", "optim.lr"),
        ("optm.lr=1", "optim.lr"),
        ("clip.frame=8", "clip.frames"),
        ("queue_size=8", "moco.queue_size"),
        ("moco.temprature=1", "moco.temperature"),
        ("run.sed=1", "run.seed"),
        ("augment.batch_size=4", "optim.batch_size"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(typed: str, nearest: str, tmp_path: Path) -> None:
    refusal(f"'{typed.partition('=')[0]}'", f"did you mean '{nearest}'?", sets=[typed])
    section, _, key = typed.partition("=")[0].rpartition(".")
    if section:
        refusal(f"did you mean '{nearest}'?", config_file=toml(tmp_path, f"[{section}]\n{key} = 1\n"))


def test_nonsense_has_no_nearest_name() -> None:
    assert "did you mean" not in refusal("'zzzzzz'", sets=["zzzzzz=1"])


@pytest.mark.parametrize("typed", ["optim.lr", "=3", "", "optim=", "."])
def test_a_set_that_is_no_setting_is_refused(typed: str) -> None:
    refusal(sets=[typed])


@pytest.mark.parametrize(
    "typed",
    [
        *("optim.lr=0", "optim.lr=-1", "optim.lr=nan", "optim.lr=inf", "optim.lr=fast", "optim.lr=", "optim.lr=none", "optim.lr=[1]"),
        *("optim.epochs=0", "optim.epochs=1.5", "optim.batch_size=0", "optim.name=lion", "optim.schedule=step", "optim.weight_decay=-1"),
        *("clip.frames=0", "clip.size=7", "clip.speeds=[]", "clip.speeds=[1]", "clip.speeds=[0, 2]", "clip.speeds=2", "clip.speeds=[2.5]"),
        *("clip.speeds=[-2, 4]", "clip.speeds=[65]", "clip.frame_rate=0", "model.width=0", "model.head=big", "model.embedding_dim=1"),
        *("augment.crop_area=[0.5, 0.4]", "augment.crop_area=[0, 1]", "augment.crop_area=[0.5, 1.1]", "augment.crop_area=[0.5]"),
        *("augment.crop_ratio=[0, 1]", "augment.crop_ratio=[2, 1]", "augment.jitter=[2, 0, 0, 0]", "augment.jitter=[0, 0, 0, 0.6]"),
        *("augment.jitter=[0, 0, 0]", "augment.jitter=[-0.1, 0, 0, 0]", "augment.flip=1.1", "augment.order=random", "augment.blur_p=0.5"),
        *("moco.queue_size=0", "moco.momentum=1", "moco.momentum=-0.1", "moco.temperature=0", "moco.bn_splits=0", "moco.mask_same_video=3"),
        *("objective.margin=0", "objective.avid_weight=-1", "run.seed=-1", "run.seed=2147483648", "run.workers=-1", "run.precision=fp16"),
        *("run.log_interval=0", "run.keep_every=-1", "run.compile=maybe", "data.split=true"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(typed: str) -> None:
    refusal(typed.partition("=")[0], sets=[typed])


def test_a_value_out_of_range_is_told_with_its_flag_where_one_was_typed() -> None:
    refusal("optim.batch_size (--batch-size) is 0: it should be greater than", flags={"optim.batch_size": 0})
    refusal("optim.batch_size is 0: it should be greater than", sets=["optim.batch_size=0"])
    refusal("clip.speeds is 2.5: it should be", sets=["clip.speeds=[2.5]"])


def test_a_split_may_be_typed_as_a_number() -> None:
    assert pretrain_settings(sets=["data.split=2"]).data.split == "2"


def test_nothing_to_learn_is_refused() -> None:
    refusal("objective.avid_weight", "objective.rsp_weight", sets=["objective.avid_weight=0", "objective.rsp_weight=0"])


@pytest.mark.parametrize(
    ("typed", "cause"),
    [
        (["optim.name=adamw", "optim.sgd_momentum=0.8"], "optim.sgd_momentum"),
        (["objective.avid_weight=0", "moco.queue_size=64"], "moco.queue_size"),
        (["objective.avid_weight=0", "moco.mask_same_video=true"], "moco.mask_same_video"),
        (["objective.rsp_weight=0", "objective.margin=1"], "objective.margin"),
        (["clip.rate_tolerance=0"], "clip.rate_tolerance"),
        (["augment.order=reference", "augment.blur_p=0.5"], "augment.blur_p"),
        (["augment.jitter_p=0", "augment.jitter=[0.1, 0.1, 0.1, 0.1]"], "augment.jitter"),
        (["augment.jitter=[0, 0, 0, 0]", "augment.jitter_p=0.5"], "augment.jitter_p"),
    ],
)
def test_a_typed_setting_without_effect_is_refused(typed: list[str], cause: str, tmp_path: Path) -> None:
    refusal(cause, "no effect", sets=typed)
    lines = []
    for text in typed:
        key, _, value = text.partition("=")
        lines.append(f'{key} = "{value}"' if re.fullmatch("[a-z_]+", value) and value != "true" else f"{key} = {value}")
    refusal(cause, "no effect", config_file=toml(tmp_path, "\n".join(lines)))


def test_a_recipes_idle_setting_is_no_mistake_of_the_users() -> None:
    assert pretrain_settings(recipe="small-cpu", sets=["objective.avid_weight=0"]).moco.queue_size == 256


def test_a_settings_file_that_is_none_is_refused(tmp_path: Path) -> None:
    refusal("settings.toml", "TOML", config_file=toml(tmp_path, "[optim\nlr = 1"))
    refusal("settings.toml", "'lr'", "section", config_file=toml(tmp_path, "lr = 1\n"))
    refusal("missing.toml", "cannot be read", config_file=tmp_path / "missing.toml")
    refusal(str(tmp_path), "cannot be read", config_file=tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    refusal("binary.toml", "UTF-8", config_file=tmp_path / "binary.toml")
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**30)
    refusal("huge.toml", "too large", config_file=tmp_path / "huge.toml")
    refusal(config_file=toml(tmp_path, "a = " + "[" * 20_000 + "]" * 20_000))
    refusal("optim.lr", config_file=toml(tmp_path, "[optim.lr]\nvalue = 1\n"))
    refusal("clip.speeds", config_file=toml(tmp_path, "[[clip.speeds]]\na = 1\n"))


def test_an_unknown_recipe_is_refused_with_the_nearest(tmp_path: Path) -> None:
    refusal("'r3d-18'", "did you mean 'r3d18'?", "small-cpu", recipe="r3d-18")
    refusal("../config", recipe="../config")
    assert "did you mean" not in refusal(recipe="")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("sgd", "sgd"),
        ('"2"', "2"),
        ("none", None),
        ("None", None),
        ("[0.4,0.4,0.4,0.1]", [0.4, 0.4, 0.4, 0.1]),
        ("a b", "a b"),
        ("1\nx = 2", "1\nx = 2"),
    ],
)
def test_a_typed_value_is_read_as_toml_or_as_a_word(text: str, value: object) -> None:
    read = parse_value(text)
    assert read == value
    assert type(read) is type(value)


def test_every_setting_has_a_name_and_a_meaning() -> None:
    names = setting_names(PretrainConfig)
    assert len(names) == len(set(names)) > 30
    for section, field in PretrainConfig.model_fields.items():
        assert field.annotation is not None
        for key, inner in field.annotation.model_fields.items():
            assert f"{section}.{key}" in names
            assert inner.description, f"{section}.{key} has no docstring"


def test_the_identity_of_a_run_is_everything_but_workers_and_tracker() -> None:
    config = pretrain_settings(flags={"run.workers": 3, "run.tracker": "none"})
    assert config.identity() == pretrain_settings(flags={"run.workers": 0}).identity()
    flat = {f"{section}.{key}" for section, values in config.identity().items() for key in values}
    assert flat == set(setting_names(PretrainConfig)) - {"run.workers", "run.tracker"} - ADDED.keys()


@pytest.mark.parametrize("read", [pretrain_settings, finetune_settings])
def test_settings_that_came_later_are_part_of_it_where_they_are_not_at_their_defaults(
    read: Callable[..., PretrainConfig | FinetuneConfig],
) -> None:
    at_rate = ["clip.frame_rate=25"]
    before = read(sets=[*at_rate, "clip.rate_tolerance=2e-4"]).identity()
    assert ("rate_tolerance" in before["clip"], "last_videos" in before["optim"]) == (False, False)
    now = read(sets=[*at_rate, "clip.rate_tolerance=0", "optim.last_videos=repeat"]).identity()
    differences = describe_differences(before, now, {}, {})
    assert differences == 'clip.rate_tolerance was null, now 0.0; optim.last_videos was null, now "repeat"'


def test_settings_cannot_be_changed_behind_the_manifests_back() -> None:
    config = pretrain_settings()
    with pytest.raises(ValueError):
        config.run.seed = 3  # type: ignore[misc]
    assert read_recipe("pretrain", "small-cpu") == read_recipe("pretrain", "small-cpu")
    assert validated(PretrainConfig, config.model_dump()) == config


def test_none_is_no_value_only_for_settings_that_can_have_none() -> None:
    assert flat_settings(ExportConfig, sets=["workers=none"]).workers is None
    with pytest.raises(InputError, match=r"clips is 'none': .*integer"):
        flat_settings(ExportConfig, sets=["clips=none"])


# finetune


@pytest.mark.parametrize("name", recipe_names("finetune"))
def test_every_recipe_of_finetune_is_valid_alone_and_for_the_linear_probe(name: str) -> None:
    values = read_recipe("finetune", name)
    for_linear = values.pop("linear")
    whole, linear = finetune_settings(recipe=name), finetune_settings(recipe=name, flags={"model.linear": True})
    for config, content in ((whole, values), (linear, {"optim": values["optim"] | for_linear["optim"]})):
        for section, settings in content.items():
            for key, value in settings.items():
                stored = getattr(getattr(config, section), key)
                assert (list(stored) if isinstance(stored, tuple) else stored) == value, f"{section}.{key}"
    assert linear.model_copy(update={"model": whole.model, "optim": whole.optim}) == whole


# The table of the published fine-tunings: backbone, frames, size, batch, lr, schedule, milestones, epochs, frames per second (0: the
# video's own; None: the clip covers the video), test clips.
COSINE, CONSTANT = ("cosine", ()), ("constant", ())
FINETUNED: dict[str, tuple[Any, ...]] = {
    "ucf101-c3d": ("c3d", 16, 112, 80, 0.005, COSINE, 30, 0, 10),
    "ucf101-r3d18": ("r3d18", 16, 112, 32, 0.1, COSINE, 30, 25, 10),
    "ucf101-r2plus1d": ("r2plus1d", 16, 112, 32, 0.1, COSINE, 30, 0, 10),
    "ucf101-s3dg": ("s3dg", 64, 224, 4, 0.005, COSINE, 50, 25, 10),
    "hmdb51-c3d": ("c3d", 16, 112, 12, 0.005, ("multistep", (50, 70, 90)), 100, 0, 10),
    "hmdb51-r3d18": ("r3d18", 16, 112, 64, 0.01, CONSTANT, 30, 0, 3),
    "hmdb51-r2plus1d": ("r2plus1d", 16, 112, 16, 0.1, COSINE, 30, 0, 10),
    "hmdb51-s3dg": ("s3dg", 64, 224, 4, 0.005, COSINE, 50, 0, 10),
    "ssv2-c3d": ("c3d", 16, 112, 64, 0.1, COSINE, 50, None, 2),
    "ssv2-r3d18": ("r3d18", 16, 112, 32, 0.01, ("multistep", (20, 40)), 50, None, 2),
    "ssv2-s3dg": ("s3dg", 16, 224, 16, 0.01, ("multistep", (20, 40)), 50, None, 2),
}


@pytest.mark.parametrize("name", FINETUNED)
def test_the_published_recipes_of_finetune_have_the_published_settings(name: str) -> None:
    backbone, frames, size, batch_size, lr, (schedule, milestones), epochs, fps, clips = FINETUNED[name]
    config = finetune_settings(recipe=name)
    clip, optim, augment = config.clip, config.optim, config.augment
    assert (config.model.backbone, clip.frames, clip.size, clip.antialias) == (backbone, frames, size, False)
    assert (clip.sampling, clip.frame_rate) == (("cover", None) if fps is None else ("consecutive", fps))
    assert (optim.batch_size, optim.lr, optim.epochs, config.test.clips) == (batch_size, lr, epochs, clips)
    assert (optim.schedule, optim.milestones, optim.warmup_epochs) == (schedule, milestones, 0)
    assert (optim.name, optim.sgd_momentum, optim.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (augment.crop_area, augment.crop_ratio, augment.flip) == ((0.25, 1.0), (3 / 4, 4 / 3), 0.0 if fps is None else 0.5)
    assert (max(augment.jitter), augment.grayscale, augment.blur_p) == (0.0, 0.0, 0.0)
    linear = finetune_settings(recipe=name, flags={"model.linear": True}).optim
    assert linear.batch_size == 512
    if fps is None:
        assert (linear.lr, linear.epochs, linear.schedule, linear.milestones) == (0.05, 16, "multistep", (10, 14))
    else:
        assert linear == optim.model_copy(update={"batch_size": 512})


def test_there_is_a_recipe_for_every_published_fine_tuning_and_one_for_cpus() -> None:
    assert set(recipe_names("finetune")) == {*FINETUNED, "small-cpu-finetune"}


def test_what_is_typed_is_stronger_than_a_recipe_also_than_its_part_for_the_linear_probe(tmp_path: Path) -> None:
    file = toml(tmp_path, "[model]\nlinear = true\n[optim]\nlr = 0.3\n")
    optim = finetune_settings(recipe="ssv2-c3d", config_file=file, flags={"optim.batch_size": 8}).optim
    assert (optim.lr, optim.batch_size, optim.epochs, optim.milestones) == (0.3, 8, 16, (10, 14))


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["optim.milestones=[10]"], "optim.milestones has no effect, because optim.schedule is not multistep"),
        (["optim.schedule=multistep"], "optim.milestones needs rising numbers of epochs"),
        (["optim.schedule=multistep", "optim.milestones=[20, 10]"], "optim.milestones needs rising"),
        (["optim.schedule=multistep", "optim.milestones=[0, 10]"], "optim.milestones needs rising"),
        (["clip.sampling=cover", "clip.frame_rate=25"], "clip.frame_rate has no effect with clip.sampling cover"),
        (["clip.frame_rate=0", "clip.rate_tolerance=0"], "clip.rate_tolerance has no effect, because clip.frame_rate is 0"),
        (["clip.sampling=cover", "clip.rate_tolerance=0"], "clip.rate_tolerance has no effect"),
        (["clip.rate_tolerance=-1"], "clip.rate_tolerance"),
        (["optim.last_videos=keep"], "optim.last_videos"),
        (["model.random_init=true", "model.checkpoint=best"], "model.checkpoint has no effect with model.random_init"),
        (["data.select_on=train"], "data.select_on"),
        (["model.checkpoint=newest"], "model.checkpoint"),
        (["test.clip=5"], "did you mean 'test.clips'"),
        (["moco.momentum=0.9"], "There is no setting 'moco.momentum'"),
        (["optim.lr_scale=linear"], "There is no setting 'optim.lr_scale'"),
        (["model.linear=true", "run.checkpoint_activations=true"], "run.checkpoint_activations has no effect, because with model.linear"),
        (["optim.accumulate=0"], "optim.accumulate"),
    ],
)
def test_settings_of_finetune_that_cannot_be_meant_are_one_sentence(sets: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        finetune_settings(sets=sets)
    refused(caught.value, words)


def test_a_recipe_of_the_other_stage_is_named_as_such() -> None:
    with pytest.raises(InputError) as caught:
        finetune_settings(recipe="small-cpu")
    refused(caught.value, "'small-cpu' is a recipe of pretrain, not of finetune", "ucf101-r3d18")
    with pytest.raises(InputError) as caught:
        pretrain_settings(recipe="ucf101-r3d18")
    refused(caught.value, "'ucf101-r3d18' is a recipe of finetune, not of pretrain")
    with pytest.raises(InputError) as caught:
        finetune_settings(recipe="ucf101-r3d")
    refused(caught.value, "did you mean 'ucf101-r3d18'?")


def test_every_setting_of_finetune_has_a_name_and_a_meaning() -> None:
    names = setting_names(FinetuneConfig)
    assert len(names) == len(set(names)) > 30
    table = settings_table(FinetuneConfig)
    assert all(f"| `{name}` |" in table for name in names)
    assert "|  |" not in table
