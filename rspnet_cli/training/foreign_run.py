"""What the released code's checkpoints say of their run: epoch, optimiser, schedule.

The optimiser's tensors are those that ours has, numbered by another order of parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.config import FinetuneOptimConfig, OptimConfig
from rspnet_cli.encoder.published import PUBLISHED, is_buffer, published_name, published_shape
from rspnet_cli.errors import InputError
from rspnet_cli.training.checkpoint import to_array
from rspnet_cli.training.optimiser import learning_rate

SOURCE = "source.json"
"""The artifact of an import that holds its `run_facts`."""
BEST_LOSS, BEST_ACC1 = "best_loss", "best_acc1"
"""What a pretraining and a fine-tuning call the figure of their best epoch."""
_OF_BOTH = ("epoch", "arch", "optimizer", "scheduler")
_FACTS = ("epoch", "arch", BEST_LOSS, BEST_ACC1, "optimizer", "scheduler")
_MAX_VALUES, _MAX_TEXT = 100_000, 1_000


def read_optimizer(
    optimizer: Any, state: Iterable[str], trained: Mapping[str, Tensor], backbone: str, *, prefix: str
) -> dict[str, np.ndarray] | None:
    """The optimiser's tensors as a checkpoint of ours names them: `<number of our parameter>.<name>`.

    optimizer: the file's optimiser state. state: names of the file's tensors, in its order, by which it numbers parameters. trained: the
    tensors of the query encoder or of the fine-tuned network under our names, which lie below `prefix` in the file. None where the file
    has no such state, or one that does not belong to these parameters.
    """
    names = [name for name in state if not is_buffer(name)]
    parameters = {name: value for name, value in trained.items() if not is_buffer(name)}
    numbers = {name: number for number, name in enumerate(_released_names(parameters, backbone, prefix))}
    shapes = [(value.shape, _released_shape(name, value.shape, backbone)) for name, value in parameters.items()]
    values, group = (optimizer.get("state"), group_of(optimizer)) if isinstance(optimizer, dict) else (None, {})
    places = group.get("params")
    if not isinstance(values, dict) or not isinstance(places, list) or len(places) != len(names):
        return None
    if not all(isinstance(place, int) for place in places):
        return None
    # torch before 1.5 named parameters by their address, later ones by their number: both stand in `params`, in order.
    name_of = dict(zip(places, names, strict=True))
    arrays = {}
    for place, tensors in values.items():
        if place not in name_of or not isinstance(tensors, dict):
            return None
        number = numbers.get(name_of[place])
        if number is None:  # of the unused layer, or of the key encoder
            continue
        ours, theirs = shapes[number]
        for key, tensor in tensors.items():
            if tensor is None:  # a momentum that was never used
                continue
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != theirs or not torch.isfinite(tensor).all():
                return None
            arrays[f"{number}.{key}"] = to_array(tensor.float().reshape(ours))
    return arrays or None


def optimizer_state(
    arrays: Mapping[str, np.ndarray],
    state: Iterable[str],
    trained: Iterable[str],
    backbone: str,
    group: Mapping[str, Any],
    *,
    prefix: str,
) -> dict[str, Any]:
    """The reverse: the state of one group of parameters, numbered by the order of `state`, the names of the file's tensors."""
    names = [name for name in state if not is_buffer(name)]
    parameters = [name for name in trained if not is_buffer(name)]
    theirs = _released_names(parameters, backbone, prefix)
    values: dict[int, dict[str, Tensor]] = {}
    for key, array in arrays.items():
        number, _, name = key.partition(".")
        shape = _released_shape(parameters[int(number)], array.shape, backbone)
        values.setdefault(names.index(theirs[int(number)]), {})[name] = torch.from_numpy(array).reshape(shape)
    return {"state": dict(sorted(values.items())), "param_groups": [{**group, "params": list(range(len(names)))}]}


def run_facts(content: Mapping[str, Any], best: str) -> dict[str, Any]:
    """What a checkpoint says beside its tensors, as JSON values: epoch, arch, best_loss or best_acc1, the optimiser's settings, the
    schedule.

    best: BEST_LOSS or BEST_ACC1.
    """
    group = {key: value for key, value in group_of(content.get("optimizer")).items() if key != "params"}
    left = [_MAX_VALUES]
    return {key: _json(group if key == "optimizer" else content.get(key), left) for key in _FACTS if key in (best, *_OF_BOTH)}


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that an import kept in SOURCE. Raises InputError."""
    try:
        # Keys that are numbers (the milestones of a schedule) are text in JSON.
        facts = json.loads(path.read_text(encoding="utf-8"), object_hook=lambda d: {int(k) if k.isdigit() else k: v for k, v in d.items()})
        if not isinstance(facts, dict):
            raise TypeError
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: restore it, or import its checkpoint again with --force.") from error
    return {key: facts.get(key) for key in _FACTS}


def sgd_group(config: OptimConfig | FinetuneOptimConfig, epoch: int) -> dict[str, Any]:
    """What torch's SGD says of its parameters after so many epochs."""
    return {
        "lr": learning_rate(config, epoch),
        "momentum": config.sgd_momentum,
        "dampening": 0,
        "weight_decay": config.weight_decay,
        "nesterov": False,
        "initial_lr": config.lr,
    }


def cosine_state(config: OptimConfig | FinetuneOptimConfig, epoch: int) -> dict[str, Any]:
    """The state of torch's CosineAnnealingLR after so many epochs, with the released code's lowest rate, lr / 1000."""
    rate = learning_rate(config, epoch)
    return {
        "T_max": config.epochs,
        "eta_min": config.lr / 1000,
        "base_lrs": [config.lr],
        "last_epoch": epoch,
        "_step_count": epoch + 1,
        "_last_lr": [rate],
    }


def known_optim(content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `optim` that a checkpoint's optimiser and schedule tell: rate (after scaling), momentum, decay, planned epochs."""
    known: dict[str, Any] = {}
    group = group_of(content.get("optimizer"))
    if "momentum" in group and "dampening" in group:
        known["name"] = "sgd"
        known |= _numbers(group, {"initial_lr": "lr", "momentum": "sgd_momentum", "weight_decay": "weight_decay"})
    schedule = content.get("scheduler")
    if isinstance(schedule, dict) and "T_max" in schedule and "eta_min" in schedule:
        known["schedule"] = "cosine"
        known |= _numbers(schedule, {"T_max": "epochs"})
    return known


def _released_names(names: Iterable[str], backbone: str, prefix: str) -> list[str]:
    """What the released code calls tensors of the encoder (and classifier) below a prefix."""
    return [prefix + published_name(name, PUBLISHED[backbone].spellings[0]) for name in names]


def _released_shape(name: str, shape: Iterable[int], backbone: str) -> tuple[int, ...]:
    """The shape of a network's tensor, named our way, in the released code."""
    return published_shape(shape, backbone) if name.startswith("backbone.") else tuple(shape)


def group_of(optimizer: Any) -> dict[str, Any]:
    """The one group of parameters of an optimiser's state; empty where there is not one."""
    groups = optimizer.get("param_groups") if isinstance(optimizer, dict) else None
    return groups[0] if isinstance(groups, list) and len(groups) == 1 and isinstance(groups[0], dict) else {}


def _numbers(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    found = {ours: values[theirs] for theirs, ours in names.items() if theirs in values}
    return {name: value for name, value in found.items() if type(value) in (int, float) and math.isfinite(value)}


def _json(value: Any, left: list[int], depth: int = 0) -> Any:
    """A value as JSON has it; None for what it has not, and beyond what a checkpoint's facts can be."""
    left[0] -= 1
    if left[0] < 0 or depth > 8:
        return None
    if isinstance(value, Tensor):
        return _json(value.item(), left, depth) if value.numel() == 1 and not value.is_complex() else None
    if isinstance(value, dict):
        return {str(key): _json(item, left, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, left, depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isprintable() and len(value) <= _MAX_TEXT else None
    return value if isinstance(value, bool | int) else None
