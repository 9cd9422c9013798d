"""Which of our networks a published state dict is, and what its tensors are called there.

The backbones' modules keep the published names of their parameters, so a backbone is one row here. Around them the released code has
names of its own: `encoder.` for the backbone, `fc1.` and `fc2.` for the heads A and M, and after every backbone a last layer that
RSPNet never uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rspnet_cli.encoder.heads import HEADS, build_head
from rspnet_cli.encoder.registry import build_backbone
from rspnet_cli.errors import InputError

Spelling = Callable[[str], str]
"""Our name of a backbone's tensor -> a file's."""


def _same(name: str) -> str:
    return name


def _shifted(name: str) -> str:
    """TSM's way: the image network in `base_model`, whose blocks wrap their first convolution in the shift."""
    return "base_model." + re.sub(r"^(layer\d+\.\d+\.conv1)\.", r"\1.net.", name)


class Published(NamedTuple):
    """What a backbone is called elsewhere."""

    arch: str
    """In the released code: `arch` of its checkpoints."""
    last_layers: tuple[str, ...]
    """The layer after the pooling, the released code's name first: no part of the backbone."""
    spellings: tuple[Spelling, ...] = (_same,)
    """How files name its tensors, the released code's way first."""
    is_2d: bool = False
    """Files have its kernels without the time axis, which is 1."""


PUBLISHED = {
    "c3d": Published("c3d", ("linear",)),
    "r3d18": Published("resnet18", ("fc",)),
    "r3d34": Published("resnet34", ("fc",)),
    "r3d50": Published("resnet50", ("fc",)),
    "r2plus1d": Published("r2plus1d-vcop", ("linear",)),
    "s3dg": Published("s3dg", ("fc",)),
    # Names without `base_model` are those of torchvision's resnet18 and resnet50.
    "tsm-r18": Published("tsm", ("new_fc", "base_model.fc", "fc"), (_shifted, _same), is_2d=True),
    "tsm-r50": Published("tsm", ("new_fc", "base_model.fc", "fc"), (_shifted, _same), is_2d=True),
    "slowfast-r50": Published("SLOWFAST_4x16_R50", ("head.projection",)),
    "mfnet": Published("mfnet", ("fc", "classifier")),
}

# Networks that look like ours and are not: a name that they have -> whose they are and what differs.
_OTHERS = {
    "stem.0.weight": "torchvision's r3d_18, mc3_18 and r2plus1d_18 have another stem (no max-pool) and are other networks",
    "features.0.0.0.weight": "torchvision's s3d has no gates after its convolutions",
    "blocks.0.conv.weight": "PyTorchVideo's networks have names and blocks of their own",
    "blocks.0.multipathway_blocks.0.conv.weight": "PyTorchVideo's SlowFast has names of its own (PySlowFast's checkpoints can be imported)",
    "fc6.weight": "the C3D of Sports-1M has no batch norm",
}
# Our part of an encoder (or of a fine-tuned network) -> the released code's.
_PARTS = {"backbone.": "encoder.", "head_a.": "fc1.", "head_m.": "fc2.", "fc.": "fc."}
_COUNTER = ".num_batches_tracked"
_USUAL_WIDTHS = (1.0, 0.5, 0.25)
_MAX_WIDTH = 4.0
_WIDTH_STEPS = 9


def published_shape(shape: Iterable[int], backbone: str) -> tuple[int, ...]:
    """The shape that a backbone's tensor has in files."""
    ours = tuple(shape)
    return (*ours[:2], *ours[3:]) if PUBLISHED[backbone].is_2d and len(ours) == 5 else ours


def published_name(name: str, spelling: Spelling) -> str:
    """Our name of an encoder's tensor -> the released code's, such as `head_a.2.weight` -> `fc1.2.weight`."""
    part, theirs = next((part, theirs) for part, theirs in _PARTS.items() if name.startswith(part))
    rest = name.removeprefix(part)
    return theirs + (spelling(rest) if part == "backbone." else rest)


def is_counter(name: str) -> bool:
    """Whether a tensor only counts batches: files of old versions lack it, and nothing that we compute depends on it."""
    return name.endswith(_COUNTER)


def is_buffer(name: str) -> bool:
    """Whether a tensor is no parameter, by its name: batch norm's statistics, the queue."""
    return is_counter(name) or name.endswith((".running_mean", ".running_var")) or name in ("queue", "queue_ptr")


@lru_cache(maxsize=64)
def backbone_tensors(backbone: str, width: float) -> Mapping[str, Tensor]:
    """The state of a backbone without memory behind it: names, shapes and types."""
    with torch.device("meta"):
        return build_backbone(backbone, width).state_dict()


def find_backbone(tensors: Mapping[str, Tensor], source: str) -> tuple[str, Spelling]:
    """The backbone whose published names these are, the last layer there or not, and how they are spelled.

    source: how to begin a sentence about the file. Raises InputError naming what is missing or unknown beside the nearest backbone.
    """
    for name, words in _OTHERS.items():
        if name in tensors:
            raise InputError(f"{source} holds '{name}': {words}, so nothing here can take its weights.")
    nearest, fewest, faults = "", len(tensors) + 1, ""
    for backbone, published in PUBLISHED.items():
        found = {name for name in tensors if not is_counter(name) and name.rpartition(".")[0] not in published.last_layers}
        ours = {
            name: len(published_shape(value.shape, backbone))
            for name, value in backbone_tensors(backbone, 1.0).items()
            if not is_counter(name)
        }
        for spelling in published.spellings:
            expected = {spelling(name): dims for name, dims in ours.items()}
            missing, unknown = expected.keys() - found, found - expected.keys()
            if not missing and not unknown and all(tensors[name].dim() == dims for name, dims in expected.items()):
                return backbone, spelling
            if len(missing) + len(unknown) < fewest:
                nearest, fewest = backbone, len(missing) + len(unknown)
                faults = " and ".join(_listed(word, names) for word, names in (("lacks", missing), ("has the unknown", unknown)) if names)
    if not nearest or fewest > len(tensors) / 2:
        first = f" (its first tensor is '{next(iter(tensors))}')" if tensors else ""
        raise InputError(f"{source} holds no backbone known here{first}: there are {', '.join(PUBLISHED)}.")
    raise InputError(
        f"{source} comes nearest to the backbone {nearest}, but {faults or 'its tensors have other numbers of dimensions'}: "
        "it is another network, which cannot be imported."
    )


def find_width(backbone: str, tensors: Mapping[str, Tensor], spelling: Spelling, wanted: float | None, source: str) -> float:
    """The width multiplier at which a backbone has tensors of these shapes: the simplest fraction that does, or `wanted`.

    Raises InputError naming the first tensor that does not fit.
    """

    def shapes_of(width: float) -> dict[str, tuple[int, ...]]:
        tensors = backbone_tensors(backbone, width)
        return {spelling(name): published_shape(value.shape, backbone) for name, value in tensors.items() if not is_counter(name)}

    def size(shapes: Mapping[str, tuple[int, ...]]) -> int:
        return sum(math.prod(shape) for shape in shapes.values())

    given = {name: tuple(tensors[name].shape) for name in shapes_of(1.0)}
    width = wanted or next((usual for usual in _USUAL_WIDTHS if shapes_of(usual) == given), 0.0)
    if not width:
        # Parameters grow in steps with the width, about as its square: those that fit are an interval near the root, or a single
        # number at which some channel count is rounded up and another one down.
        target = size(given)
        near = math.sqrt(target / size(shapes_of(1.0)))
        low = _edge(lambda w: size(shapes_of(w)) >= target, near)
        high = _edge(lambda w: size(shapes_of(w)) > target, near)
        fits = [_simplest(low[0], high[1]), _simplest(low[1], high[0])]
        width = next((found for found in fits if shapes_of(found) == given), fits[0])
    for name, shape in shapes_of(width).items():
        if given[name] != shape:
            raise InputError(
                f"{source}: tensor '{name}' has the shape {list(given[name])}, where a {backbone} of width {width:g} has {list(shape)}: "
                f"{'it is another network' if wanted is None else 'leave model.width out, and it is inferred'}."
            )
    return width


def channels_of(backbone: str, width: float) -> int:
    """Channels of a backbone's feature map."""
    with torch.device("meta"):
        return build_backbone(backbone, width).channels


def find_head(names: Iterable[str], source: str) -> str:
    """The kind of projection head that has these names, such as `2.weight`. Raises InputError."""
    found = {name for name in names if not is_counter(name)}
    for kind in HEADS:
        if found == {name for name in head_tensors(kind, 8, 8) if not is_counter(name)}:
            return kind
    tensors = ", ".join(sorted(found)[:6]) or "none"
    raise InputError(f"{source} has a projection head of no known kind (its tensors: {tensors}): there are {', '.join(HEADS)}.")


def head_tensors(kind: str, channels: int, embedding_dim: int) -> dict[str, Tensor]:
    """The state of a projection head without memory behind it."""
    with torch.device("meta"):
        head: nn.Module = build_head(kind, channels, embedding_dim)
        return head.state_dict()


def _edge(is_above: Callable[[float], bool], near: float) -> tuple[float, float]:
    """Two widths close together, the lower one not above, the higher one above."""
    low, high = 0.75 * near, 1.25 * near
    while is_above(low):
        low /= 2
    while not is_above(high) and high < _MAX_WIDTH:
        high *= 1.5
    for _ in range(_WIDTH_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return low, high


def _simplest(low: float, high: float) -> float:
    """The fraction with the smallest denominator from low to high; what lies between them where there is none below 1000."""
    middle = Fraction((low + high) / 2)
    return float(next((found for d in range(1, 1000) if low <= (found := middle.limit_denominator(d)) <= high), middle))


def _listed(words: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 1} more" if len(ordered) > 1 else ""
    return f"{words} '{ordered[0]}'{more}"
