"""Where settings come from, merged in one place: defaults < recipe < --config file < --set < explicit flag."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rspnet_cli.config import FinetuneConfig, PretrainConfig, Section, TrainingConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.recipes import STAGES, recipe_names, recipe_text

Config = TypeVar("Config", bound=BaseModel)
_STAGE_OF: dict[type[TrainingConfig], str] = {PretrainConfig: "pretrain", FinetuneConfig: "finetune"}
_MAX_CONFIG_BYTES = 2**20


def read_recipe(stage: str, name: str) -> dict[str, dict[str, Any]]:
    """The settings of a packaged recipe of a stage. Raises InputError naming the nearest one, or the stage that it is for."""
    names = recipe_names(stage)
    if name not in names:
        other = next((other for other in STAGES if other != stage and name in recipe_names(other)), None)
        if other is not None:
            raise InputError(f"'{name}' is a recipe of {other}, not of {stage}: the recipes of {stage} are {', '.join(names)}.")
        raise InputError(f"There is no recipe '{name}'{nearest(name, names)} The recipes of {stage} are {', '.join(names)}.")
    return _sections(tomllib.loads(recipe_text(stage, name)), f"recipe {name}")


def pretrain_settings(
    *,
    recipe: str = "r3d18",
    config_file: Path | None = None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """The resolved settings of pretrain.

    sets: "section.key=value" as typed. flags: "section.key" -> value of the flags that were typed; None: not typed. Raises InputError
    for an unknown key (with the nearest name), a value out of range, and a typed setting that has no effect.
    """
    merged = read_recipe("pretrain", recipe)
    typed = _typed(PretrainConfig, config_file, sets, flags)
    recipe_batch = merged.get("optim", {}).get("batch_size")
    config = validated(PretrainConfig, _overlaid(merged, _nested(typed)), flags=_typed_flags(flags))
    _refuse_without_effect(config, typed)
    if config.optim.lr_scale == "linear" and recipe_batch:
        # A typed rate is meant as typed, unless the scaling was typed as well.
        scaled = "optim.lr" not in typed or "optim.lr_scale" in typed
        lr = config.optim.lr * config.optim.batch_size / recipe_batch if scaled else config.optim.lr
        # The resolved config holds the rate that is used, and no longer the wish to scale it.
        config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": lr, "lr_scale": "none"})})
    return config


def finetune_settings(
    *,
    recipe: str | None = None,
    config_file: Path | None = None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> FinetuneConfig:
    """The settings of finetune; arguments as of `pretrain_settings`. recipe None: the defaults. Raises InputError."""
    merged = read_recipe("finetune", recipe) if recipe is not None else {}
    for_linear = merged.pop("linear", {})  # further sections, for the linear probe alone
    typed = _typed(FinetuneConfig, config_file, sets, flags)
    config = validated(FinetuneConfig, _overlaid(merged, _nested(typed)), flags=_typed_flags(flags))
    if config.model.linear:
        config = validated(FinetuneConfig, _overlaid(_overlaid(merged, for_linear), _nested(typed)))
    _refuse_without_effect(config, typed)
    return config


def finetune_recipe_for(encoder: Manifest) -> str | None:
    """The recipe of finetune that goes with an encoder, where none is named: UCF101's, or for narrow networks that for CPUs."""
    model = encoder.config.get("model", {})
    name = f"ucf101-{model.get('backbone')}" if model.get("width") == 1 else "small-cpu-finetune"
    return name if name in recipe_names("finetune") else None


def _typed(model: type[TrainingConfig], config_file: Path | None, sets: Iterable[str], flags: Mapping[str, Any] | None) -> dict[str, Any]:
    """ "section.key" -> value of everything that was typed, later sources over earlier ones. Raises InputError for unknown keys."""
    typed: dict[str, Any] = {}
    if config_file is not None:
        typed |= _flatten(_read_config(config_file))
    typed |= typed_settings(model, sets)
    typed |= _typed_flags(flags)
    for key in typed:
        _known(model, key)
    return typed


def _typed_flags(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (flags or {}).items() if value is not None}


def typed_settings(model: type[TrainingConfig], sets: Iterable[str]) -> dict[str, Any]:
    """Settings of a training as typed, "section.key=value" -> {"section.key": value}. Raises InputError for an unknown key."""
    typed = {}
    for text in sets:
        key, value = _parse_set(text)
        typed[key] = _value_of(value, _known(model, key))
    return typed


def checked_settings(model: type[TrainingConfig], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Single settings of a training, "section.key" -> value as JSON has it. Raises InputError for one that is unknown or out of range."""
    for key in typed:
        _known(model, key)
    values = validated(model, _nested(typed)).model_dump(mode="json")
    return {key: values[key.partition(".")[0]][key.partition(".")[2]] for key in typed}


def flat_settings(model: type[Config], *, sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None) -> Config:
    """The settings of a stage whose settings have no sections: defaults < --set < explicit flag.

    sets: "key=value" as typed. flags: key -> value, None: not typed. Raises InputError as `pretrain_settings` does.
    """
    values: dict[str, Any] = {}
    for text in sets:
        key, value = _parse_set(text, example="clips=5")
        if key not in model.model_fields:
            raise InputError(f"There is no setting '{key}'{nearest(key, model.model_fields)} There are {', '.join(model.model_fields)}.")
        values[key] = _value_of(value, model.model_fields[key])
    typed = _typed_flags(flags)
    return validated(model, values | typed, flags=typed)


def validated(model: type[Config], values: Mapping[str, Any], *, flags: Iterable[str] = ()) -> Config:
    """Build a config; what pydantic finds becomes one sentence. flags: the settings that were typed as flags. Raises InputError."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(part for part in first["loc"] if isinstance(part, str))
        if first["type"] == "extra_forbidden":
            raise InputError(f"There is no setting '{where}'{nearest(where, setting_names(model))}") from error
        if first["type"] == "value_error":  # a sentence of our own, which names its setting where several play a part
            message = first["msg"].removeprefix("Value error, ")
            label = "" if "." in message.split(" ", 1)[0] or not where else f"{where}: "
            raise InputError(f"{label}{message}.") from error
        flag = f" (--{where.rpartition('.')[2].replace('_', '-')})" if where in flags else ""
        raise InputError(f"{where}{flag} is {first['input']!r}: {first['msg'].replace('Input should', 'it should', 1)}.") from error


def setting_names(model: type[BaseModel]) -> list[str]:
    """Every "section.key" of a training's config, or every key of a config without sections."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        section = _section_class(field.annotation)
        names += [f"{name}.{key}" for key in section.model_fields] if section else [name]
    return names


def _section_class(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _known(model: type[TrainingConfig], key: str) -> FieldInfo:
    """The field of a "section.key". Raises InputError."""
    names = setting_names(model)
    if key not in names:
        stage = _STAGE_OF[model]
        raise InputError(f"There is no setting '{key}'{nearest(key, names)} `rspnet {stage} --help` and the README list those of {stage}.")
    section, _, name = key.partition(".")
    found = _section_class(model.model_fields[section].annotation)
    assert found is not None
    return found.model_fields[name]


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "; did you mean ...?", or a full stop where no name is like it."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:  # the key alone, its section forgotten or wrong
        near = difflib.get_close_matches(name.rpartition(".")[2], [item.rpartition(".")[2] for item in names], n=1, cutoff=0.6)
        near = [item for item in names if near and item.rpartition(".")[2] == near[0]][:1]
    return f"; did you mean '{near[0]}'?" if near else "."


def _parse_set(text: str, example: str = "optim.lr=0.05") -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: write it as key=value, for example --set {example}.")
    return key.strip(), value.strip()


def _value_of(text: str, field: FieldInfo) -> Any:
    """A value typed for a setting: `none` is no value where the setting can have none, else the word, as in optim.lr_scale=none."""
    if text.lower() == "none" and type(None) not in get_args(field.annotation):
        return text.lower()
    return parse_value(text)


def parse_value(text: str) -> Any:
    """A typed value: TOML where it is (numbers, true, [lists], "text"), `none` for no value, and a bare word for itself."""
    if text.lower() in ("none", "null"):
        return None
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text  # more than one: the text had lines of its own


def _read_config(path: Path) -> dict[str, dict[str, Any]]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError(f"{path} is too large for a settings file: name a TOML file of settings.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise InputError(f"The settings file {path} cannot be read ({reason}): name a TOML file with sections such as [optim].") from error
    try:
        return _sections(tomllib.loads(text), str(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML ({error}): correct it.") from error


def _sections(values: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    for section, content in values.items():
        if not isinstance(content, dict):
            raise InputError(f"{source}: '{section}' stands outside a section: put it below one, such as [optim] or [clip].")
    return {section: dict(content) for section, content in values.items()}


def _flatten(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, content in values.items() for key, value in content.items()}


def _nested(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The other way round: "section.key" -> value, as sections."""
    nested: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = value
    return nested


def _overlaid(below: Mapping[str, dict[str, Any]], above: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {section: below.get(section, {}) | above.get(section, {}) for section in below.keys() | above.keys()}


def _refuse_without_effect(config: PretrainConfig | FinetuneConfig, typed: Mapping[str, Any]) -> None:
    """A setting that was typed and cannot matter in the chosen mode is a mistake worth stopping for."""
    without_effect = {
        "optim.sgd_momentum": (config.optim.name != "sgd", "optim.name is not sgd"),
        "augment.jitter": (config.augment.jitter_p == 0, "augment.jitter_p is 0"),
        "augment.jitter_p": (max(config.augment.jitter) == 0, "augment.jitter is 0 throughout"),
    }
    if isinstance(config, PretrainConfig):
        without_effect |= {
            "moco.queue_size": (config.objective.avid_weight == 0, "objective.avid_weight is 0"),
            "moco.mask_same_video": (config.objective.avid_weight == 0, "objective.avid_weight is 0"),
            "objective.margin": (config.objective.rsp_weight == 0, "objective.rsp_weight is 0"),
            "clip.rate_tolerance": (config.clip.frame_rate is None, "clip.frame_rate is not set"),
        }
    else:
        of_training = [key for key in typed if key.startswith(("optim.", "augment.")) or key in ("data.select_on", "model.linear")]
        without_effect |= {key: (config.optim.epochs == 0, "optim.epochs is 0") for key in of_training if key != "optim.epochs"}
        own_rate = config.clip.frame_rate == 0 or config.clip.sampling == "cover"
        without_effect |= {
            "clip.rate_tolerance": (own_rate, "clip.frame_rate is 0 or clip.sampling cover"),
            "optim.milestones": (config.optim.schedule != "multistep", "optim.schedule is not multistep"),
            "run.checkpoint_activations": (
                config.model.linear or config.optim.epochs == 0,
                "with model.linear, or without training, no activations of the backbone are kept",
            ),
        }
    for key, (idle, why) in without_effect.items():
        if key in typed and idle:
            raise InputError(f"{key} has no effect, because {why}: leave it out, or change the other setting.")


def settings_table(model: type[TrainingConfig]) -> str:
    """The README's table of a training's settings: a Markdown row per setting, from the config classes."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for key in setting_names(model):
        setting = _known(model, key)
        default = setting.get_default()
        value = "none" if default is None else str(list(default) if isinstance(default, tuple) else default).lower()
        meaning = " ".join((setting.description or "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {value} | {meaning} |")
    return "\n".join(lines)
