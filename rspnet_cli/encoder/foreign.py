"""The released code's checkpoints, and plain state dicts of the same backbones, as encoders of ours and back.

A pretraining's state holds `encoder_q.` and `encoder_k.` (backbone and heads each), `queue` and `queue_ptr`; a fine-tuning's `encoder.`
(the backbone) and `fc.` (the classifier); anything else is taken for a backbone alone. `module.`, which (distributed) data parallel
puts before every name, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rspnet_cli.config import ModelConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.published import (
    PUBLISHED,
    Spelling,
    backbone_tensors,
    channels_of,
    find_backbone,
    find_head,
    find_width,
    is_counter,
    published_name,
    published_shape,
)
from rspnet_cli.encoder.torch_file import plain_numbers
from rspnet_cli.errors import InputError
from rspnet_cli.settings import validated

# Where the state lies in a checkpoint: the released code's, most others', PySlowFast's.
_STATE_KEYS = ("model", "state_dict", "model_state")
QUERY, KEY = "encoder_q.", "encoder_k."
_MAX_TENSORS, _MAX_NAME = 100_000, 300


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder from elsewhere under our names (`backbone.*`, `head_a.*`, `head_m.*`), and what its file has beside it."""

    model: ModelConfig
    query: dict[str, Tensor]
    key: dict[str, Tensor] | None
    queue: dict[str, Tensor] | None
    """queue (D, K) float32 and queue_ptr (1,) int64."""
    notes: list[str] = field(default_factory=list)
    """What was left out or converted, in words."""

    @property
    def has_heads(self) -> bool:
        """Whether the file has projection heads (`model` then tells theirs)."""
        return any(not name.startswith("backbone.") for name in self.query)


@dataclass(frozen=True)
class PublishedClassifier:
    """A fine-tuned network from elsewhere under our names: `backbone.*`, `fc.weight` (classes, C), `fc.bias` (classes,)."""

    backbone: str
    width: float
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def state_of(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file's content, without `module.`. Raises InputError where there is none, or one of other things."""
    key = next((key for key in _STATE_KEYS if isinstance(content.get(key), dict)), None)
    state = content if key is None else content[key]
    if not 0 < len(state) <= _MAX_TENSORS or not all(_is_name(name) for name in state):
        raise InputError(f"{path} holds no state dict (the names of a network's tensors): name a checkpoint of a network.")
    for name, value in state.items():
        if not isinstance(value, Tensor) or not plain_numbers(value):
            what = f"a tensor of layout {value.layout}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
            where = f"in '{key}'" if key else f"and there is no {', '.join(_STATE_KEYS[:-1])} or {_STATE_KEYS[-1]} in the file"
            raise InputError(f"{path}: '{name}' is no dense tensor of real numbers ({what}), {where}: name a checkpoint with a state dict.")
    while all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def is_pretrained(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of a pretraining: query encoder, and usually key encoder and queue."""
    return any(name.startswith((QUERY, KEY)) for name in state)


def is_finetuned(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of a fine-tuned network: backbone and classifier."""
    return not is_pretrained(state) and any(name.startswith("encoder.") for name in state)


def read_encoder(state: Mapping[str, Tensor], path: Path, width: float | None = None) -> PublishedEncoder:
    """The encoder of a pretraining's state, or of that of a backbone alone. width: None infers it from the shapes.

    Raises InputError for what is missing, unknown, of another shape, or no number.
    """
    rest = _Rest(state, path)
    wrapped = is_pretrained(state)
    network = _find(rest, QUERY + "encoder." if wrapped else "", width)
    heads = _find_heads(state, path)
    config = validated(ModelConfig, {"backbone": network.backbone, "width": network.width, **heads})
    with torch.device("meta"):
        expected = Encoder(config.backbone, width=config.width, head=config.head, embedding_dim=config.embedding_dim).state_dict()
    if not heads:
        expected = {name: value for name, value in expected.items() if name.startswith("backbone.")}
    query = rest.take(expected, network.names(QUERY) if wrapped else lambda name: network.spelling(name.removeprefix("backbone.")))
    key = None
    if any(name.startswith(KEY) for name in state):
        rest.drop_last_layer(KEY + "encoder.", network.backbone)
        key = rest.take(expected, network.names(KEY))
    queue = _take_queue(rest, config) if heads and ("queue" in state or "queue_ptr" in state) else None
    rest.finish()
    return PublishedEncoder(config, query, key, queue, rest.notes)


def read_classifier(state: Mapping[str, Tensor], path: Path, width: float | None = None) -> PublishedClassifier:
    """The network of a fine-tuning's state. width: None infers it from the shapes. Raises InputError as `read_encoder` does."""
    rest = _Rest(state, path)
    network = _find(rest, "encoder.", width)
    layer = state.get("fc.weight")
    classes = len(layer) if layer is not None and layer.dim() else 0
    expected = {f"backbone.{name}": value for name, value in backbone_tensors(network.backbone, network.width).items()}
    expected["fc.weight"] = torch.empty(classes, channels_of(network.backbone, network.width), device="meta")
    expected["fc.bias"] = torch.empty(classes, device="meta")
    tensors = rest.take(expected, network.names(""))
    if classes < 2:
        raise InputError(f"{path} has a classifier of {classes} classes, where there must be two at least.")
    rest.finish()
    return PublishedClassifier(network.backbone, network.width, tensors, rest.notes)


def pretrained_state(encoder: PublishedEncoder) -> dict[str, Tensor]:
    """The state dict of a pretraining as the released code saves it, in its order; what is None is left out.

    The backbone's unused last layer, without which that code refuses to resume, is there as zeros.
    """
    state = dict(encoder.queue or {})
    for prefix, tensors in ((QUERY, encoder.query), (KEY, encoder.key)):
        if tensors is not None:
            state |= _released(tensors, prefix, encoder.model.backbone, encoder.model.width)
    return state


def finetuned_state(network: PublishedClassifier) -> dict[str, Tensor]:
    """The state dict of a fine-tuning as the released code saves it, in its order, with the unused last layer as zeros."""
    return _released(network.tensors, "", network.backbone, network.width)


def _released(tensors: Mapping[str, Tensor], prefix: str, backbone: str, width: float) -> dict[str, Tensor]:
    """Backbone, its unused layer to one value, then heads or classifier, under the released code's names."""
    published = PUBLISHED[backbone]
    names = Network(backbone, width, published.spellings[0]).names(prefix)
    layer = f"{prefix}encoder.{published.last_layers[0]}"
    first = {
        names(name): value.reshape(published_shape(value.shape, backbone))
        for name, value in tensors.items()
        if name.startswith("backbone.")
    }
    unused = {f"{layer}.weight": torch.zeros(1, channels_of(backbone, width)), f"{layer}.bias": torch.zeros(1)}
    return first | unused | {names(name): value for name, value in tensors.items() if not name.startswith("backbone.")}


class Network(NamedTuple):
    """A backbone as a file has it."""

    backbone: str
    width: float
    spelling: Spelling

    def names(self, prefix: str) -> Callable[[str], str]:
        """Our name of an encoder's tensor -> the file's, below `encoder_q.`, `encoder_k.` or nothing."""
        return lambda name: prefix + published_name(name, self.spelling)


class _Rest:
    """A state dict from which tensors are taken, checked; whatever is left at the end is refused."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self.left, self.path = dict(state), path
        self.notes: list[str] = []

    def take(self, expected: Mapping[str, Tensor], name_of: Callable[[str], str]) -> dict[str, Tensor]:
        """The tensors that `name_of` names, under the names of `expected`, which has their shapes and types. Raises InputError."""
        missing = [name_of(name) for name in expected if not is_counter(name) and name_of(name) not in self.left]
        if missing:
            raise InputError(f"{self.path} lacks {_named(missing)}: name the whole checkpoint.")
        taken = {}
        for name, like in expected.items():
            found = self.left.pop(name_of(name), None)
            taken[name] = torch.zeros_like(like, device="cpu") if found is None else self._checked(name_of(name), found, like)
        return taken

    def _checked(self, name: str, value: Tensor, like: Tensor) -> Tensor:
        shape = list(value.shape)
        if value.dim() == 4 and like.dim() == 5:  # a kernel of a 2D convolution: its time axis is 1
            value = value.unsqueeze(2)
        if value.shape != like.shape:
            raise InputError(f"{self.path}: tensor '{name}' has the shape {shape} instead of {list(like.shape)}.")
        if value.is_floating_point() != like.is_floating_point() or value.dtype == torch.bool:
            raise InputError(f"{self.path}: tensor '{name}' is {value.dtype}, where {like.dtype} must be.")
        if value.dtype != like.dtype:
            note = f"{str(value.dtype).removeprefix('torch.')} tensors were converted to {str(like.dtype).removeprefix('torch.')}"
            self.notes += [note] if note not in self.notes else []
        value = value.detach().to(like.dtype).contiguous()
        if not torch.isfinite(value).all() or (name.endswith("running_var") and value.min() < 0):
            raise InputError(f"{self.path}: tensor '{name}' holds values that no encoder has (not finite, or a negative variance).")
        return value

    def drop_last_layer(self, prefix: str, backbone: str) -> None:
        """Leave out the layer after the pooling, saying so."""
        for layer in PUBLISHED[backbone].last_layers:
            weight = self.left.pop(f"{prefix}{layer}.weight", None)
            bias = self.left.pop(f"{prefix}{layer}.bias", None)
            if weight is not None or bias is not None:
                size = len(weight) if weight is not None and weight.dim() else 1
                what = "an unused layer" if size == 1 else f"a classifier of {size} classes"
                self.notes.append(f"{prefix}{layer}, {what}, was left out")

    def finish(self) -> None:
        """Raises InputError when a tensor is left."""
        if self.left:
            raise InputError(f"{self.path} has {_named(self.left)} beside its network, which nothing here knows: it is no such checkpoint.")


def _find(rest: _Rest, prefix: str, width: float | None) -> Network:
    """The backbone below a prefix; its last layer is dropped."""
    tensors = {name.removeprefix(prefix): value for name, value in rest.left.items() if name.startswith(prefix)}
    backbone, spelling = find_backbone(tensors, str(rest.path))
    rest.drop_last_layer(prefix, backbone)
    return Network(backbone, find_width(backbone, tensors, spelling, width, str(rest.path)), spelling)


def _find_heads(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """{"head": kind, "embedding_dim": D} of a pretraining's state; empty where it has no heads."""
    names = [[name.removeprefix(part) for name in state if name.startswith(part)] for part in (f"{QUERY}fc1.", f"{QUERY}fc2.")]
    if not any(names):
        return {}
    kinds = {find_head(part, str(path)) for part in names}
    if len(kinds) > 1:
        raise InputError(f"{path} has projection heads of two kinds ({', '.join(sorted(kinds))}): both must be of one.")
    kind = kinds.pop()
    last = {"linear": "2", "mlp": "4"}.get(kind, "linear")
    return {"head": kind, "embedding_dim": state[f"{QUERY}fc1.{last}.bias"].numel()}


def _take_queue(rest: _Rest, config: ModelConfig) -> dict[str, Tensor]:
    size = rest.left["queue"].shape[-1] if "queue" in rest.left and rest.left["queue"].dim() else 0
    queue = {
        "queue": torch.empty(config.embedding_dim, size, device="meta"),
        "queue_ptr": torch.empty(1, dtype=torch.int64, device="meta"),
    }
    taken = rest.take(queue, lambda name: name)
    if not 0 <= int(taken["queue_ptr"]) < size:
        raise InputError(f"{rest.path}: 'queue_ptr' is {int(taken['queue_ptr'])}, no place in a queue of {size} keys.")
    return taken


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isprintable() and len(name) <= _MAX_NAME


def _named(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    ordered = list(names)
    return f"'{ordered[0]}'" + (f" and {len(ordered) - 1} more tensors" if len(ordered) > 1 else "")
