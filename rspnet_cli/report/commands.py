"""The command line behind a result, put together from its manifest: typed again, it gives the same settings."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rspnet_cli.config import ClassificationConfig, ExportConfig, ExtractConfig, FinetuneConfig
from rspnet_cli.errors import InputError
from rspnet_cli.lineage import flatten
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, read_manifest
from rspnet_cli.recipes import recipe_names
from rspnet_cli.settings import finetune_settings, pretrain_settings

DEFAULT_WORK_DIR = "rspnet-run"
# Of the machine rather than of the experiment: resolved from "auto", so no recipe says them.
_OF_THE_MACHINE = ("run.device", "run.precision", "run.processes", "run.workers")
# A folder per stage is the rule; an evaluation of untrained features goes to one of their own.
_INPUT = {
    "pretrain": ("extract",),
    "export-features": ENCODER_STAGES,
    "finetune": ENCODER_STAGES,
    "eval-retrieval": ("export-features",),
    "eval-classification": ("export-features",),
}


@dataclass(frozen=True)
class Recipe:
    """The packaged recipe nearest to a run's settings. differing: "section.key" -> (the recipe's value, the run's)."""

    name: str
    differing: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Run:
    """What a command line is put together from, known of a finished result and of a stage that has only begun."""

    stage: str
    command: str
    """What of rspnet makes it: the stage's name, or import-checkpoint."""
    folder: Path
    config: Mapping[str, Any]
    inputs: Sequence[tuple[str, Path]]
    """Stage and manifest file of each, in the order in which they are read."""
    class_names: bool = False
    """Whether an import was told the names of the classes."""

    @classmethod
    def of(cls, manifest: Manifest) -> Run:
        """That of a finished result."""
        inputs = [(ref.stage, manifest.place_of(ref)) for ref in manifest.inputs]
        named = bool(manifest.environment.get("classes"))
        return cls(manifest.stage, manifest.command, manifest.folder, manifest.config, inputs, named)

    def input(self, *stages: str) -> Path | None:
        """The manifest file of the first input of these stages."""
        return next((place for stage, place in self.inputs if stage in stages), None)


def nearest_recipe(stage: str, config: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a training stage that differs in the fewest settings; None where the settings are none that this version knows, and
    for a test without training.

    A recipe's learning rate is that for the run's batch, its queue trimmed to whole batches, and what it leaves to the encoder is the
    encoder's, as the stages resolve them.
    """
    ours = {key: value for key, value in flatten(dict(config)).items() if key not in _OF_THE_MACHINE}
    batch = ours.get("optim.batch_size")
    if not isinstance(batch, int) or batch < 1 or ours.get("optim.epochs") == 0:
        return None
    best: Recipe | None = None
    for name in recipe_names(stage):
        try:
            theirs = _pretrain_recipe(name, batch) if stage == "pretrain" else _finetune_recipe(name, ours)
        except InputError:
            continue
        differing = {key: (theirs.get(key), value) for key, value in ours.items() if theirs.get(key) != value}
        if best is None or len(differing) < len(best.differing):
            best = Recipe(name, differing)
    return best


def _pretrain_recipe(name: str, batch: int) -> dict[str, Any]:
    theirs = flatten(pretrain_settings(recipe=name, flags={"optim.batch_size": batch}).identity())
    theirs["moco.queue_size"] = theirs["moco.queue_size"] // batch * batch or theirs["moco.queue_size"]
    theirs["optim.batch_size"] = pretrain_settings(recipe=name).optim.batch_size
    return theirs


def _finetune_recipe(name: str, ours: Mapping[str, Any]) -> dict[str, Any]:
    linear = ours.get("model.linear") is True
    theirs = flatten(finetune_settings(recipe=name, flags={"model.linear": linear}).identity())
    known = {key: value for key, value in theirs.items() if value is not None}
    return dict(ours) | known | {"model.linear": False}


def command_of(manifest: Manifest, work_dir: Path) -> str:
    """The command that makes this result in this work directory, as one would type it. Sources are called VIDEOS, LISTS, FILE, CLASSES.

    Empty for features that no encoder of ours gave: some other program wrote them.
    """
    run = Run.of(manifest)
    return "" if run.stage == "export-features" and run.input(*ENCODER_STAGES) is None else command_line(run, work_dir)


def command_line(run: Run, work_dir: Path) -> str:
    """The command of a run, finished or not. What an unfinished one has not noted (yet) is left out."""
    words = ["rspnet", *run.command.split()]
    processes = flatten(dict(run.config)).get("run.processes")
    if isinstance(processes, int) and processes > 1:
        words = ["torchrun", "--nproc-per-node", str(processes), "-m", "rspnet_cli", run.stage]
    if run.command == "import-checkpoint":
        words += _imported(run.config) + (["--classes", "CLASSES"] if run.class_names else [])
    elif not run.command.startswith("merge "):
        words += _positional(run, work_dir) + _settings(run.stage, run.config)
    if run.folder.resolve() != _default_folder(run, work_dir).resolve():
        words += ["--out", _shown(run.folder, work_dir)]
    return shlex.join(words + work_dir_option(work_dir))


def work_dir_option(work_dir: Path) -> list[str]:
    """`--work-dir`, where it is not the default one."""
    return [] if os.path.normpath(work_dir) == DEFAULT_WORK_DIR else ["--work-dir", str(work_dir)]


def _shown(folder: Path, work_dir: Path) -> str:
    """A folder as one would type it: below the work directory as that was typed, elsewhere relative to where one stands."""
    place, root = folder.resolve(), work_dir.resolve()
    return str(work_dir / place.relative_to(root)) if place.is_relative_to(root) else os.path.relpath(place)


def _default_folder(run: Run, work_dir: Path) -> Path:
    model = run.config.get("model")
    if run.config.get("random_init") is True or (isinstance(model, dict) and model.get("random_init") is True):
        return work_dir / "random-init" / run.stage
    if run.stage.startswith("eval-") and _of_untrained(run):
        return work_dir / "random-init" / run.stage
    return work_dir / run.stage  # an import is a pretraining


def _of_untrained(run: Run) -> bool:
    features = run.input("export-features")
    try:
        return features is not None and read_manifest(features, verify=False).config.get("random_init") is True
    except InputError:
        return False


def _positional(run: Run, work_dir: Path) -> list[str]:
    if run.stage == "extract":
        return ["VIDEOS"]
    words = []
    source = run.input(*_INPUT.get(run.stage, ()))
    if source is not None:
        words = _other_than(work_dir / _INPUT[run.stage][0], source.parent, work_dir)
    frames = run.input("extract")
    # Another encoder may have read another extraction than the one of this work directory.
    if (
        frames is not None
        and run.stage in ("export-features", "finetune")
        and (words or _other_than(work_dir / "extract", frames.parent, work_dir))
    ):
        words += ["--frames", _shown(frames.parent, work_dir)]
    return words


def _other_than(default: Path, folder: Path, work_dir: Path) -> list[str]:
    return [] if folder.resolve() == default.resolve() else [_shown(folder, work_dir)]


def _imported(config: Mapping[str, Any]) -> list[str]:
    """What import-checkpoint was told: the settings of clips that it did not assume."""
    assumed = config["import"].get("assumed", [])
    told = {f"clip.{key}": value for key, value in config.get("clip", {}).items() if f"clip.{key}" not in assumed}
    return ["FILE", *(word for key, value in told.items() for word in ("--set", f"{key}={_typed(value)}"))]


def _settings(stage: str, config: Mapping[str, Any]) -> list[str]:
    if stage in ENCODER_STAGES:
        recipe = nearest_recipe(stage, config)
        if recipe is None:
            return _of_test(config)
        sets = [word for key, (_, value) in recipe.differing.items() for word in ("--set", f"{key}={_typed(value)}")]
        return ["--recipe", recipe.name, *sets]
    if stage == "extract":
        lists = ["--annotations", "LISTS"] if config.get("annotations_sha256") else []
        return lists + _flags(ExtractConfig, config, {"video_timeout_s": "--video-timeout"}, leave=())
    if stage == "export-features":
        leave = ("device", *(["checkpoint"] if config.get("checkpoint") == "last" else []))
        return _flags(ExportConfig, config, {"reestimate_bn": "--set reestimate_bn=true"}, leave)
    words = []
    if config.get("topk"):
        words += ["--topk", *(str(k) for k in config["topk"])]
    if config.get("protocol"):
        words += ["--protocol", str(config["protocol"])]
    if config.get("split") is not None:
        words += ["--split", str(config["split"])]
    return words + (_flags(ClassificationConfig, config, {}, leave=("split", "protocol")) if stage == "eval-classification" else [])


def _of_test(config: Mapping[str, Any]) -> list[str]:
    """What was typed for a fine-tuned network to be tested as it is; empty for any other settings."""
    settings, defaults = flatten(dict(config)), flatten(FinetuneConfig().identity())
    if settings.get("optim.epochs") != 0:
        return []
    told = [key for key in settings if key.startswith(("clip.", "test.", "data.split")) and settings[key] != defaults.get(key)]
    return ["--epochs", "0", *(word for key in told for word in ("--set", f"{key}={_typed(settings[key])}"))]


def _flags(model: type[BaseModel], config: Mapping[str, Any], special: Mapping[str, str], leave: tuple[str, ...]) -> list[str]:
    """`--key value` of every setting that is not the default; true is the flag alone."""
    words: list[str] = []
    defaults = model().model_dump(mode="json")
    for key, default in defaults.items():
        value = config.get(key, default)
        # The resolved crf of the h264 store stands for none typed.
        if key in leave or value == default or (key == "crf" and value == 20):
            continue
        flag = special.get(key, "--" + key.replace("_", "-"))
        if value is True:
            words += flag.split()
        else:
            words += [*flag.split(), ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return words


def _typed(value: Any) -> str:
    """A value as `--set` takes it: TOML, and `none` for no value."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
