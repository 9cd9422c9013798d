"""The backbones and heads once more, written from the paper's tables with loops over kernel positions: slow and plain.

Everything works on a dict of parameters under their published names and shares no code with the package: no torch.nn, no torch
convolution, pooling or batch norm. `stats` collects what the running statistics must be afterwards (None: evaluation mode).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor

Params = dict[str, Tensor]


def conv(x: Tensor, weight: Tensor, *, stride: tuple[int, int, int], padding: tuple[int, int, int], bias: Tensor | None = None) -> Tensor:
    """Cross-correlation as a sum over kernel positions: (B, C, T, H, W), weight (O, C / groups, kt, kh, kw)."""
    groups = x.shape[1] // weight.shape[1]
    if groups > 1:
        parts = zip(x.chunk(groups, 1), weight.chunk(groups), strict=True)
        return torch.cat([conv(part, kernel, stride=stride, padding=padding) for part, kernel in parts], 1)
    padded = pad(x, padding, 0.0)
    sizes = out_sizes(x, weight.shape[2:], stride, padding)
    out = x.new_zeros(x.shape[0], weight.shape[0], *sizes)
    for dt, dh, dw in product(*map(range, weight.shape[2:])):
        out = out + torch.einsum("oc,bcthw->bothw", weight[:, :, dt, dh, dw], window(padded, (dt, dh, dw), sizes, stride))
    return out if bias is None else out + bias.view(1, -1, 1, 1, 1)


def max_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: tuple[int, int, int] = (0, 0, 0)) -> Tensor:
    padded = pad(x, padding, float("-inf"))
    sizes = out_sizes(x, kernel, stride, padding)
    windows = [window(padded, offset, sizes, stride) for offset in product(*map(range, kernel))]
    out = windows[0]
    for values in windows[1:]:
        out = torch.maximum(out, values)
    return out


def out_sizes(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((size + 2 * p - k) // s + 1 for size, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True))


def pad(x: Tensor, padding: tuple[int, ...], value: float) -> Tensor:
    shape = [size + 2 * p for size, p in zip(x.shape[2:], padding, strict=True)]
    out = x.new_full((*x.shape[:2], *shape), value)
    (pt, ph, pw), (t, h, w) = padding, x.shape[2:]
    out[:, :, pt : pt + t, ph : ph + h, pw : pw + w] = x
    return out


def window(x: Tensor, offset: tuple[int, ...], sizes: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    t, h, w = (slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, sizes, stride, strict=True))
    return x[:, :, t, h, w]


def batch_norm(x: Tensor, p: Params, name: str, stats: Params | None, *, eps: float = 1e-5, momentum: float = 0.1) -> Tensor:
    axes = (0, 2, 3, 4)
    if stats is None:
        mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    else:
        mean = x.mean(axes)
        variance = ((x - mean.view(1, -1, 1, 1, 1)) ** 2).mean(axes)
        count = x.numel() / x.shape[1]
        for kind, value in (("mean", mean), ("var", variance * count / (count - 1))):
            key = f"{name}.running_{kind}"
            stats[key] = ((1 - momentum) * p[key] + momentum * value).detach()
    scale = p[f"{name}.weight"] / torch.sqrt(variance + eps)
    return (x - mean.view(1, -1, 1, 1, 1)) * scale.view(1, -1, 1, 1, 1) + p[f"{name}.bias"].view(1, -1, 1, 1, 1)


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def c3d(p: Params, x: Tensor, stats: Params | None) -> Tensor:
    """Eight 3x3x3 convolutions with bias + BN + ReLU; max-pools (1,2,2), then (2,2,2) three times; no fifth pool."""

    def unit(name: str, x: Tensor) -> Tensor:
        x = conv(x, p[f"conv{name}.weight"], stride=(1, 1, 1), padding=(1, 1, 1), bias=p[f"conv{name}.bias"])
        return relu(batch_norm(x, p, f"bn{name}", stats))

    x = max_pool(unit("1", x), (1, 2, 2), (1, 2, 2))
    x = max_pool(unit("2", x), (2, 2, 2), (2, 2, 2))
    x = max_pool(unit("3b", unit("3a", x)), (2, 2, 2), (2, 2, 2))
    x = max_pool(unit("4b", unit("4a", x)), (2, 2, 2), (2, 2, 2))
    return unit("5b", unit("5a", x))


def resnet(p: Params, x: Tensor, stats: Params | None, *, blocks: tuple[int, ...], bottleneck: bool) -> Tensor:
    """7x7x7 stem stride (1,2,2); max-pool 3/2/1; stages with strides 1, 2, 2, 2; shortcut B; ReLU after the sum."""
    x = relu(batch_norm(conv(x, p["conv1.weight"], stride=(1, 2, 2), padding=(3, 3, 3)), p, "bn1", stats))
    x = max_pool(x, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    for stage, (count, stage_stride) in enumerate(zip(blocks, (1, 2, 2, 2), strict=True), start=1):
        for index in range(count):
            name = f"layer{stage}.{index}"
            stride = stage_stride if index == 0 else 1
            # In a bottleneck the stride sits on the 3x3x3, elsewhere on the first convolution.
            plan = [(1, 1, 0), (2, stride, 1), (3, 1, 0)] if bottleneck else [(1, stride, 1), (2, 1, 1)]
            out = x
            for number, s, padding in plan:
                out = conv(out, p[f"{name}.conv{number}.weight"], stride=(s, s, s), padding=(padding,) * 3)
                out = batch_norm(out, p, f"{name}.bn{number}", stats)
                if number != plan[-1][0]:
                    out = relu(out)
            if f"{name}.downsample.0.weight" in p:
                x = conv(x, p[f"{name}.downsample.0.weight"], stride=(stride,) * 3, padding=(0, 0, 0))
                x = batch_norm(x, p, f"{name}.downsample.1", stats)
            x = relu(out + x)
    return x


def r2plus1d(p: Params, x: Tensor, stats: Params | None) -> Tensor:
    """Stem (3,7,7) stride (1,2,2), no pool; one block per stage; every convolution in two factors, BN + ReLU between them."""

    def factors(name: str, x: Tensor, stride: tuple[int, int, int]) -> Tensor:
        spatial, temporal = p[f"{name}.spatial_conv.weight"], p[f"{name}.temporal_conv.weight"]
        kernel = (temporal.shape[2], *spatial.shape[3:])
        assert spatial.shape[2] == 1
        assert temporal.shape[3:] == (1, 1)
        x = conv(x, spatial, stride=(1, *stride[1:]), padding=(0, kernel[1] // 2, kernel[2] // 2))
        x = relu(batch_norm(x, p, f"{name}.bn", stats))
        return conv(x, temporal, stride=(stride[0], 1, 1), padding=(kernel[0] // 2, 0, 0))

    x = relu(batch_norm(factors("conv1", x, (1, 2, 2)), p, "bn1", stats))
    for stage, s in ((2, 1), (3, 2), (4, 2), (5, 2)):
        name = f"conv{stage}.block1"
        out = relu(batch_norm(factors(f"{name}.conv1", x, (s, s, s)), p, f"{name}.bn1", stats))
        out = batch_norm(factors(f"{name}.conv2", out, (1, 1, 1)), p, f"{name}.bn2", stats)
        if stage > 2:
            x = batch_norm(factors(f"{name}.downsampleconv", x, (s, s, s)), p, f"{name}.downsamplebn", stats)
        x = relu(out + x)
    return x


def s3dg(p: Params, x: Tensor, stats: Params | None) -> Tensor:
    """S3D-G: units with BN eps 1e-3, momentum 0.001; gates after the separable convolutions only."""

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = p[f"{name}.conv3d.weight"]
        x = conv(x, weight, stride=(stride,) * 3, padding=tuple((k - 1) // 2 for k in weight.shape[2:]))
        return relu(batch_norm(x, p, f"{name}.bn", stats, eps=1e-3, momentum=0.001))

    def separable(name: str, x: Tensor, stride: int = 1) -> Tensor:
        x = unit(f"{name}.sep_conv.1", unit(f"{name}.sep_conv.0", x, stride))
        squeezed = x.sum((2, 3, 4)) / (x.shape[2] * x.shape[3] * x.shape[4])
        gate = squeezed @ p[f"{name}.excitation.weight"][:, :, 0, 0, 0].T + p[f"{name}.excitation.bias"]
        return x / (1 + torch.exp(-gate.view(*gate.shape, 1, 1, 1)))

    def inception(name: str, x: Tensor) -> Tensor:
        name = f"feature.sepInc_{name}"
        branches = [
            unit(f"{name}.branch0", x),
            separable(f"{name}.branch1.1", unit(f"{name}.branch1.0", x)),
            separable(f"{name}.branch2.1", unit(f"{name}.branch2.0", x)),
            unit(f"{name}.branch3.1", max_pool(x, (3, 3, 3), (1, 1, 1), (1, 1, 1))),
        ]
        return torch.cat(branches, 1)

    x = separable("feature.sepConv1", x, stride=2)
    x = max_pool(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = separable("feature.sep_conv2", unit("feature.basicConv3d", x))
    x = max_pool(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = inception("3c", inception("3b", x))
    x = max_pool(x, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    for name in ("4b", "4c", "4d", "4e", "4f"):
        x = inception(name, x)
    x = max_pool(x, (2, 2, 2), (2, 2, 2))
    return inception("5c", inception("5b", x))


def tsm(p: Params, x: Tensor, stats: Params | None, *, blocks: tuple[int, ...], bottleneck: bool) -> Tensor:
    """A 2D ResNet; before the first convolution of every block an eighth of the channels is that of t+1, an eighth that of t-1."""

    def conv2d(name: str, x: Tensor, stride: int) -> Tensor:
        weight = p[f"{name}.weight"]
        return conv(x, weight, stride=(1, stride, stride), padding=(0, weight.shape[3] // 2, weight.shape[4] // 2))

    def shifted(x: Tensor) -> Tensor:
        frames, eighth = x.shape[2], x.shape[1] // 8
        nothing = torch.zeros_like(x[:, :eighth, 0])
        out = []
        for t in range(frames):
            after = x[:, :eighth, t + 1] if t + 1 < frames else nothing
            before = x[:, eighth : 2 * eighth, t - 1] if t > 0 else nothing
            out.append(torch.cat((after, before, x[:, 2 * eighth :, t]), 1))
        return torch.stack(out, 2)

    x = relu(batch_norm(conv2d("conv1", x, 2), p, "bn1", stats))
    x = max_pool(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, (count, stage_stride) in enumerate(zip(blocks, (1, 2, 2, 2), strict=True), start=1):
        for index in range(count):
            name = f"layer{stage}.{index}"
            stride = stage_stride if index == 0 else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            out = shifted(x)
            for number, s in enumerate(strides, start=1):
                out = batch_norm(conv2d(f"{name}.conv{number}", out, s), p, f"{name}.bn{number}", stats)
                if number < len(strides):
                    out = relu(out)
            if f"{name}.downsample.0.weight" in p:
                x = batch_norm(conv2d(f"{name}.downsample.0", x, stride), p, f"{name}.downsample.1", stats)
            x = relu(out + x)
    return x


def slowfast_pathways(p: Params, x: Tensor, stats: Params | None) -> tuple[Tensor, Tensor]:
    """Both pathways of SlowFast 4x16 R50 after res5, (B, C, T/8, h, w) and (B, C', T, h, w)."""

    def unit(conv_name: str, bn_name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = p[f"{conv_name}.weight"]
        kt, kh, kw = weight.shape[2:]
        return batch_norm(conv(x, weight, stride=stride, padding=(kt // 2, kh // 2, kw // 2)), p, bn_name, stats)

    def lateral(name: str, slow: Tensor, fast: Tensor) -> Tensor:
        assert p[f"{name}.conv_f2s.weight"].shape[2:] == (5, 1, 1)
        return torch.cat((slow, relu(unit(f"{name}.conv_f2s", f"{name}.bn", fast, (8, 1, 1)))), 1)

    def block(name: str, x: Tensor, stride: int) -> Tensor:
        out = relu(unit(f"{name}.branch2.a", f"{name}.branch2.a_bn", x))
        out = relu(unit(f"{name}.branch2.b", f"{name}.branch2.b_bn", out, (1, stride, stride)))
        out = unit(f"{name}.branch2.c", f"{name}.branch2.c_bn", out)
        if f"{name}.branch1.weight" in p:
            x = unit(f"{name}.branch1", f"{name}.branch1_bn", x, (1, stride, stride))
        return relu(out + x)

    frames = x.shape[2]
    places = torch.linspace(0, frames - 1, frames // 8).long().tolist()
    paths = [torch.stack([x[:, :, place] for place in places], 2), x]
    for pathway in (0, 1):
        name = f"s1.pathway{pathway}_stem"
        out = relu(unit(f"{name}.conv", f"{name}.bn", paths[pathway], (1, 2, 2)))
        paths[pathway] = max_pool(out, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, (count, stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, 2)), start=2):
        paths[0] = lateral(f"s{stage - 1}_fuse", paths[0], paths[1])
        for pathway in (0, 1):
            for index in range(count):
                paths[pathway] = block(f"s{stage}.pathway{pathway}_res{index}", paths[pathway], stride if index == 0 else 1)
    return paths[0], paths[1]


def slowfast(p: Params, x: Tensor, stats: Params | None) -> Tensor:
    """The slow pathway and, in each of its steps, the mean of 8 frames of the fast one."""
    slow, fast = slowfast_pathways(p, x, stats)
    means = [fast[:, :, 8 * step : 8 * step + 8].mean(2) for step in range(slow.shape[2])]
    return torch.cat((slow, torch.stack(means, 2)), 1)


def mfnet(p: Params, x: Tensor, stats: Params | None) -> Tensor:
    """MF-Net; the groups of a convolution follow from the shape of its weight."""

    def unit(name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = p[f"{name}.conv.weight"]
        kt, kh, kw = weight.shape[2:]
        return conv(relu(batch_norm(x, p, f"{name}.bn", stats)), weight, stride=stride, padding=(kt // 2, kh // 2, kw // 2))

    x = relu(batch_norm(conv(x, p["conv1.conv.weight"], stride=(1, 2, 2), padding=(1, 2, 2)), p, "conv1.bn", stats))
    x = max_pool(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, count, first_stride in ((2, 3, (2, 1, 1)), (3, 4, (1, 2, 2)), (4, 6, (1, 2, 2)), (5, 3, (1, 2, 2))):
        for index in range(count):
            name = f"conv{stage}.B{index + 1:02d}"
            stride = first_stride if index == 0 else (1, 1, 1)
            mixed = x + unit(f"{name}.conv_i2", unit(f"{name}.conv_i1", x))
            out = unit(f"{name}.conv_m2", unit(f"{name}.conv_m1", mixed, stride))
            x = out + (unit(f"{name}.conv_w1", x, stride) if index == 0 else x)
    return relu(batch_norm(x, p, "tail.bn", stats))


BACKBONES: dict[str, Callable[[Params, Tensor, Params | None], Tensor]] = {
    "c3d": c3d,
    "r3d18": partial(resnet, blocks=(2, 2, 2, 2), bottleneck=False),
    "r3d34": partial(resnet, blocks=(3, 4, 6, 3), bottleneck=False),
    "r3d50": partial(resnet, blocks=(3, 4, 6, 3), bottleneck=True),
    "r2plus1d": r2plus1d,
    "s3dg": s3dg,
    "tsm-r18": partial(tsm, blocks=(2, 2, 2, 2), bottleneck=False),
    "tsm-r50": partial(tsm, blocks=(3, 4, 6, 3), bottleneck=True),
    "slowfast-r50": slowfast,
    "mfnet": mfnet,
}


def head(kind: str, p: Params, x: Tensor, stats: Params | None) -> Tensor:
    """Projection heads, (B, C, t, h, w) -> (B, D)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def conv3(name: str, x: Tensor) -> Tensor:
        return conv(x, p[f"{name}.weight"], stride=(1, 1, 1), padding=(1, 1, 1), bias=p[f"{name}.bias"])

    if kind == "linear":
        return linear("2", x.mean((2, 3, 4)))
    if kind == "mlp":
        return linear("4", relu(linear("2", x.mean((2, 3, 4)))))
    if kind == "conv":
        return linear("linear", conv3("conv2", relu(conv3("conv1", x))).mean((2, 3, 4)))
    assert kind == "convbn"
    return linear("linear", relu(batch_norm(conv3("conv1", x), p, "bn", stats)).mean((2, 3, 4)))
