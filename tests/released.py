"""Checkpoint files as the released code writes them, made from the facts alone: names, shapes and order of tensors, none of our modules.

A backbone is a list of layers in the order in which the released code registers them; `width` scales channels as `model.width` says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

Layer = tuple[str, str, tuple[int, ...]]
"""(kind, name, shape of its weight): kinds conv, conv+bias, bn, linear."""
Scale = Callable[..., int]


def scaled(width: float) -> Scale:
    def scale(channels: int, multiple: int = 8) -> int:
        return channels if width == 1 else max(multiple, multiple * round(channels * width / multiple))

    return scale


def c3d(c: Scale) -> Iterator[Layer]:
    before = 3
    for name, channels in (("1", 64), ("2", 128), ("3a", 256), ("3b", 256), ("4a", 512), ("4b", 512), ("5a", 512), ("5b", 512)):
        yield "conv+bias", f"conv{name}", (c(channels), before, 3, 3, 3)
        yield "bn", f"bn{name}", (c(channels),)
        before = c(channels)
    yield "linear", "linear", (1, before)


def resnet(c: Scale, blocks: tuple[int, ...], *, bottleneck: bool = False, axes: int = 3) -> Iterator[Layer]:
    """axes: 2 for torchvision's image networks."""
    yield "conv", "conv1", (c(64), 3, *[7] * axes)
    yield "bn", "bn1", (c(64),)
    before = c(64)
    for stage, count in enumerate(blocks):
        planes = c(64 * 2**stage)
        for index in range(count):
            name = f"layer{stage + 1}.{index}"
            plan = ((1, 1), (2, 3), (3, 1)) if bottleneck else ((1, 3), (2, 3))
            inner = before
            for number, kernel in plan:
                after = 4 * planes if number == 3 else planes
                yield "conv", f"{name}.conv{number}", (after, inner, *[kernel] * axes)
                yield "bn", f"{name}.bn{number}", (after,)
                inner = after
            if index == 0 and (stage > 0 or inner != before):
                yield "conv", f"{name}.downsample.0", (inner, before, *[1] * axes)
                yield "bn", f"{name}.downsample.1", (inner,)
            before = inner
    yield "linear", "fc", (1, before)


def r2plus1d(c: Scale) -> Iterator[Layer]:
    def factors(name: str, before: int, after: int, time: int, side: int) -> Iterator[Layer]:
        middle = (time * side * side * before * after) // (side * side * before + time * after)
        yield "conv", f"{name}.spatial_conv", (middle, before, 1, side, side)
        yield "bn", f"{name}.bn", (middle,)
        yield "conv", f"{name}.temporal_conv", (after, middle, time, 1, 1)

    yield from factors("conv1", 3, c(64), 3, 7)
    yield "bn", "bn1", (c(64),)
    before = c(64)
    for stage, channels in ((2, 64), (3, 128), (4, 256), (5, 512)):
        name, after = f"conv{stage}.block1", c(channels)
        if stage > 2:
            yield from factors(f"{name}.downsampleconv", before, after, 1, 1)
            yield "bn", f"{name}.downsamplebn", (after,)
        yield from factors(f"{name}.conv1", before, after, 3, 3)
        yield "bn", f"{name}.bn1", (after,)
        yield from factors(f"{name}.conv2", after, after, 3, 3)
        yield "bn", f"{name}.bn2", (after,)
        before = after
    yield "linear", "linear", (1, before)


INCEPTION = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def s3dg(c: Scale) -> Iterator[Layer]:
    def unit(name: str, before: int, after: int, kernel: tuple[int, int, int] = (1, 1, 1)) -> Iterator[Layer]:
        yield "conv", f"{name}.conv3d", (after, before, *kernel)
        yield "bn", f"{name}.bn", (after,)

    def separable(name: str, before: int, after: int, kernel: int) -> Iterator[Layer]:
        yield from unit(f"{name}.sep_conv.0", before, after, (1, kernel, kernel))
        yield from unit(f"{name}.sep_conv.1", after, after, (kernel, 1, 1))
        yield "conv+bias", f"{name}.excitation", (after, after, 1, 1, 1)

    yield from separable("feature.sepConv1", 3, c(64), 7)
    yield from unit("feature.basicConv3d", c(64), c(64))
    yield from separable("feature.sep_conv2", c(64), c(192), 3)
    before = c(192)
    for name, channels in INCEPTION.items():
        direct, reduced1, out1, reduced2, out2, pooled = (c(count) for count in channels)
        block = f"feature.sepInc_{name}"
        yield from unit(f"{block}.branch0", before, direct)
        yield from unit(f"{block}.branch1.0", before, reduced1)
        yield from separable(f"{block}.branch1.1", reduced1, out1, 3)
        yield from unit(f"{block}.branch2.0", before, reduced2)
        yield from separable(f"{block}.branch2.1", reduced2, out2, 3)
        yield from unit(f"{block}.branch3.1", before, pooled)
        before = direct + out1 + out2 + pooled
    yield "linear", "fc", (1, before)


def tsm(c: Scale, blocks: tuple[int, ...], *, bottleneck: bool = False) -> Iterator[Layer]:
    """An image network inside, whose blocks shift what their first convolution (`net`) sees; its own last layer is a dropout."""
    for kind, name, shape in resnet(c, blocks, bottleneck=bottleneck, axes=2):
        if kind == "linear":
            yield "linear", "new_fc", shape
        elif name.startswith("layer") and name.endswith(".conv1"):
            yield kind, f"base_model.{name}.net", shape
        else:
            yield kind, f"base_model.{name}", shape


def slowfast(c: Scale) -> Iterator[Layer]:
    """PySlowFast's 4x16 of depth 50: pathway 0 is the slow one; `s1_fuse` to `s4_fuse` lead the fast one into it."""
    paths = [c(64), c(8)]
    for path, time in ((0, 1), (1, 5)):
        yield "conv", f"s1.pathway{path}_stem.conv", (paths[path], 3, time, 7, 7)
        yield "bn", f"s1.pathway{path}_stem.bn", (paths[path],)
    for stage, (count, planes, slow_time) in enumerate(((3, 64, 1), (4, 128, 1), (6, 256, 3), (3, 512, 3)), start=2):
        fused = 2 * paths[1]
        yield "conv", f"s{stage - 1}_fuse.conv_f2s", (fused, paths[1], 5, 1, 1)
        yield "bn", f"s{stage - 1}_fuse.bn", (fused,)
        paths[0] += fused
        for path, time, share in ((0, slow_time, 1), (1, 3, 8)):
            inner, after = c(planes // share), c(4 * planes // share)
            for index in range(count):
                name = f"s{stage}.pathway{path}_res{index}"
                if index == 0:
                    yield "conv", f"{name}.branch1", (after, paths[path], 1, 1, 1)
                    yield "bn", f"{name}.branch1_bn", (after,)
                yield "conv", f"{name}.branch2.a", (inner, paths[path], time, 1, 1)
                yield "bn", f"{name}.branch2.a_bn", (inner,)
                yield "conv", f"{name}.branch2.b", (inner, inner, 1, 3, 3)
                yield "bn", f"{name}.branch2.b_bn", (inner,)
                yield "conv", f"{name}.branch2.c", (after, inner, 1, 1, 1)
                yield "bn", f"{name}.branch2.c_bn", (after,)
                paths[path] = after
    yield "linear", "head.projection", (1, sum(paths))


def mfnet(c: Scale) -> Iterator[Layer]:
    """A batch norm belongs to the convolution after it; 16 groups in `conv_m1`, and in `conv_m2` where it is no 1x1x1."""
    groups = 16

    def unit(name: str, before: int, after: int, kernel: tuple[int, int, int] = (1, 1, 1), groups: int = 1) -> Iterator[Layer]:
        yield "bn", f"{name}.bn", (before,)
        yield "conv", f"{name}.conv", (after, before // groups, *kernel)

    before = c(16, groups)
    yield "conv", "conv1.conv", (before, 3, 3, 5, 5)
    yield "bn", "conv1.bn", (before,)
    for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3)):
        channels = 96 * 2 ** (stage - 2)
        after, squeezed = c(channels, groups), c(channels // 4)
        for index in range(1, count + 1):
            name = f"conv{stage}.B{index:02d}"
            yield from unit(f"{name}.conv_i1", before, squeezed)
            yield from unit(f"{name}.conv_i2", squeezed, before)
            yield from unit(f"{name}.conv_m1", before, after, (3, 3, 3), groups)
            if index == 1:
                yield from unit(f"{name}.conv_m2", after, after)
                yield from unit(f"{name}.conv_w1", before, after)
            else:
                yield from unit(f"{name}.conv_m2", after, after, (1, 3, 3), groups)
            before = after
    yield "bn", "tail.bn", (before,)
    yield "linear", "fc", (1, before)


BACKBONES: dict[str, Callable[[Scale], Iterator[Layer]]] = {
    "c3d": c3d,
    "r3d18": lambda c: resnet(c, (2, 2, 2, 2)),
    "r3d34": lambda c: resnet(c, (3, 4, 6, 3)),
    "r3d50": lambda c: resnet(c, (3, 4, 6, 3), bottleneck=True),
    "r2plus1d": r2plus1d,
    "s3dg": s3dg,
    "tsm-r18": lambda c: tsm(c, (2, 2, 2, 2)),
    "tsm-r50": lambda c: tsm(c, (3, 4, 6, 3), bottleneck=True),
    "slowfast-r50": slowfast,
    "mfnet": mfnet,
}
ARCH = {
    "c3d": "c3d",
    "r3d18": "resnet18",
    "r3d34": "resnet34",
    "r3d50": "resnet50",
    "r2plus1d": "r2plus1d-vcop",
    "s3dg": "s3dg",
    "tsm-r18": "tsm",
    "tsm-r50": "tsm",
    "slowfast-r50": "SLOWFAST_4x16_R50",
    "mfnet": "mfnet",
}
UNUSED = ("fc", "linear", "new_fc", "head.projection")
"""What the layer after a backbone's pooling is called."""


def is_unused(name: str) -> bool:
    """Whether a tensor of a pretraining's, fine-tuning's or backbone's state is of that layer."""
    return any(name.startswith(f"{prefix}encoder.{layer}.") for prefix in ("encoder_q.", "encoder_k.", "") for layer in UNUSED)


def head(kind: str, channels: int, dim: int) -> Iterator[Layer]:
    if kind == "mlp":
        yield "linear", "2", (channels, channels)
        yield "linear", "4", (dim, channels)
    elif kind == "linear":
        yield "linear", "2", (dim, channels)
    else:
        yield "conv+bias", "conv1", (channels, channels, 3, 3, 3)
        yield from [("bn", "bn", (channels,))] if kind == "convbn" else [("conv+bias", "conv2", (channels, channels, 3, 3, 3))]
        yield "linear", "linear", (dim, channels)


def shapes(layers: Iterator[Layer]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of layers, as a state dict orders them."""
    found: dict[str, tuple[int, ...]] = {}
    for kind, name, shape in layers:
        found[f"{name}.weight"] = shape
        if kind != "conv":
            found[f"{name}.bias"] = shape[:1]
        if kind == "bn":
            found |= {f"{name}.running_mean": shape, f"{name}.running_var": shape, f"{name}.num_batches_tracked": ()}
    return found


def filled(layers: Iterator[Layer], generator: torch.Generator) -> dict[str, Tensor]:
    """Tensors of these layers with values under which every mistake shows and signals neither die nor explode."""
    values: dict[str, Tensor] = {}
    for name, shape in shapes(layers).items():
        random = torch.rand(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            values[name] = torch.tensor(7)
        elif len(shape) > 1:
            values[name] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(("bias", "running_mean")):
            values[name] = 0.4 * random - 0.2
        else:
            values[name] = 0.5 + random
    return values


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def channels_of(backbone: str, width: float) -> int:
    return list(BACKBONES[backbone](scaled(width)))[-1][2][1]


def pretrained(backbone: str, kind: str, *, width: float = 0.125, dim: int = 6, queue: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a pretraining: queue, query and key encoder (different ones)."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(dim, queue, generator=generator)
    state = {"queue": columns / (columns**2).sum(0).sqrt(), "queue_ptr": torch.tensor([queue // 2])}
    channels = channels_of(backbone, width)
    for prefix in ("encoder_q.", "encoder_k."):
        state |= prefixed(filled(BACKBONES[backbone](scaled(width)), generator), f"{prefix}encoder.")
        for number in (1, 2):
            state |= prefixed(filled(head(kind, channels, dim), generator), f"{prefix}fc{number}.")
    return state


def finetuned(backbone: str, classes: int, *, width: float = 0.125, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a fine-tuned network."""
    generator = torch.Generator().manual_seed(seed)
    state = prefixed(filled(BACKBONES[backbone](scaled(width)), generator), "encoder.")
    return state | filled(iter([("linear", "fc", (classes, channels_of(backbone, width)))]), generator)


def is_parameter(name: str) -> bool:
    return not name.startswith("queue") and name.rpartition(".")[2] in ("weight", "bias")


def checkpoint(state: dict[str, Tensor], arch: str) -> dict[str, Any]:
    """All that a checkpoint of a training holds, after 3 of 200 epochs: SGD's momenta, a cosine schedule, a numpy scalar."""
    names = [name for name in state if is_parameter(name)]
    used = [name for name in names if not name.startswith("encoder_k.") and not is_unused(name)]
    momenta = {names.index(name): {"momentum_buffer": torch.full_like(state[name], 1 + number)} for number, name in enumerate(used)}
    group = {"lr": 0.39, "momentum": 0.9, "dampening": 0, "weight_decay": 1e-4, "nesterov": False, "initial_lr": 0.4}
    return {
        "epoch": 3,
        "arch": arch,
        "model": OrderedDict(state),
        "best_acc1" if "fc.weight" in state else "best_loss": np.float64(7.25),
        "optimizer": {"state": momenta, "param_groups": [{**group, "params": list(range(len(names)))}]},
        "scheduler": {"T_max": 200, "eta_min": 0.0004, "base_lrs": [0.4], "last_epoch": 3, "_step_count": 4, "_last_lr": [0.39]},
    }
