"""Checkpoints: safetensors for weights, queue and optimiser state, JSON for the rest; nothing is ever unpickled.

    checkpoints/<name>-<position>.safetensors             weights and queue
    checkpoints/<name>-<position>.optimizer.safetensors   optimiser state
    checkpoints/index.json                                which of them are valid, their hashes, and where training stands

The index is written last: a kill between two files leaves the former checkpoint valid.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rspnet_cli.errors import InputError
from rspnet_cli.files import link_or_copy_file, sha256_of, write_atomic
from rspnet_cli.tensors import open_tensors, write_tensors

FOLDER = "checkpoints"
_INDEX = "index.json"


def state_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """A module's parameters and buffers as contiguous arrays on the host."""
    return {name: to_array(value) for name, value in module.state_dict().items()}


def to_array(value: Tensor) -> np.ndarray:
    """A tensor as a contiguous array on the host."""
    array: np.ndarray = value.detach().cpu().contiguous().numpy()
    return array


def load_state(module: nn.Module, arrays: dict[str, np.ndarray], path: Path, *, advice: str) -> None:
    """Put arrays into a module. Raises InputError naming what does not fit, ending in `advice`."""
    expected = module.state_dict()
    odd = sorted(expected.keys() ^ arrays.keys()) or [name for name in expected if tuple(expected[name].shape) != arrays[name].shape]
    if odd:
        raise InputError(f"{path} does not fit this encoder (first difference: {odd[0]}): {advice}.")
    module.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """The optimiser's tensors as `<parameter number>.<name>`; its hyper-parameters are the config's business."""
    return {
        f"{number}.{name}": to_array(torch.as_tensor(value))
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    """Put saved tensors back into an optimiser of the same parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        number, _, name = key.partition(".")
        tensor, like = torch.from_numpy(value), parameters[int(number)]
        if tensor.shape == like.shape:  # in the parameter's memory layout, which fused kernels insist on
            tensor = torch.empty_like(like, device="cpu", dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Checkpoints:
    """The checkpoints in a stage's unfinished folder."""

    def __init__(self, work: Path) -> None:
        self.folder = work / FOLDER
        # Not --force, which continues an unfinished run of the same settings.
        self._advice = f"remove {work} to start anew"
        self._index = self._read_index()

    @property
    def state(self) -> dict[str, Any] | None:
        """Where training stood at the last save; None when nothing was saved yet."""
        return None if self._index is None else self._index["state"]

    def save(
        self,
        state: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        position: int,
        best: bool = False,
        keep: str = "",
    ) -> None:
        """Save `last` (and the same weights as `best`, or under the name `keep`) and make them valid together.

        position: the number of steps done, part of the file names. Raises DiskFullError; the former checkpoint stays valid.
        """
        files = dict(self._index["files"]) if self._index else {}
        weights = state_arrays(model)
        files["last"] = self._write(f"last-{position}.safetensors", weights)
        files["last.optimizer"] = self._write(f"last-{position}.optimizer.safetensors", optimizer_arrays(optimizer))
        if best:
            files["best"] = self._write(f"best-{position}.safetensors", weights)
        if keep:
            files[keep] = self._write(f"{keep}.safetensors", weights)
        self._index = {"files": files, "state": state}
        write_atomic(self.folder / _INDEX, json.dumps(self._index, indent=1, allow_nan=False))
        valid = {name for name, _ in files.values()} | {_INDEX}
        for path in self.folder.iterdir():
            if path.name not in valid:
                path.unlink()

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Restore the last save. Raises InputError when a file is damaged."""
        load_state(model, self._read("last"), self.folder, advice=self._advice)
        load_optimizer(optimizer, self._read("last.optimizer"))

    def load_weights(self, model: nn.Module, name: str) -> None:
        """Put the weights of one of the saved checkpoints ("best", ...) into a model. Raises InputError when the file is damaged."""
        load_state(model, self._read(name), self.folder, advice=self._advice)

    def publish(self) -> list[str]:
        """Give the files their final names (`last.safetensors`, `best.safetensors`, ...): paths relative to the work folder.

        Copies by hard link, so that the index stays valid until the stage is finished.
        """
        assert self._index is not None
        published = []
        for name, (file, _) in self._index["files"].items():
            target = self.folder / f"{name}.safetensors"
            if target.name != file:
                target.unlink(missing_ok=True)
                link_or_copy_file(self.folder / file, target)
            published.append(f"{FOLDER}/{target.name}")
        return published

    def _write(self, name: str, arrays: dict[str, np.ndarray]) -> tuple[str, str]:
        path = self.folder / name
        write_tensors(path, arrays, {})
        return name, sha256_of(path)

    def _read(self, name: str) -> dict[str, np.ndarray]:
        assert self._index is not None
        file, digest = self._index["files"][name]
        path = self.folder / file
        if not path.is_file() or sha256_of(path) != digest:
            raise InputError(f"The checkpoint {path} is missing or damaged: {self._advice}.")
        with open_tensors(path, advice=self._advice) as view:
            return {key: view.get_tensor(key) for key in view.keys()}  # noqa: SIM118 (the view is no mapping)

    def _read_index(self) -> dict[str, Any] | None:
        path = self.folder / _INDEX
        if not path.exists():
            return None
        try:
            index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for file, digest in (index["files"][name] for name in ("last", "last.optimizer")):
                if not isinstance(digest, str) or Path(file).name != file:
                    raise TypeError
            if not isinstance(index["state"], dict):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {self._advice}.") from error
        return index
