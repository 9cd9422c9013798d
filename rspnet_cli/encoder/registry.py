"""The one table of backbones: name -> builder, channels, default clip. Free of torch, so that `--help` can list it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

from rspnet_cli.errors import InputError

if TYPE_CHECKING:
    from rspnet_cli.encoder.conv import Backbone


class ClipSize(NamedTuple):
    """`frames` frames (T) of `side` x `side` pixels."""

    frames: int
    side: int


class BackboneSpec(NamedTuple):
    """Where a backbone is built ("module:function"), the `channels` of its last feature map at width 1, and the clips it takes."""

    target: str
    channels: int
    clip: ClipSize
    """What it was published with."""
    smallest: ClipSize = ClipSize(frames=1, side=1)
    """Below it a pool has nothing left to read."""
    frames_step: int = 1
    """T must be a multiple of this."""


BACKBONES = {
    "c3d": BackboneSpec("rspnet_cli.encoder.c3d:c3d", channels=512, clip=ClipSize(16, 112), smallest=ClipSize(8, 16)),
    "r3d18": BackboneSpec("rspnet_cli.encoder.r3d:r3d18", channels=512, clip=ClipSize(16, 112)),
    "r3d34": BackboneSpec("rspnet_cli.encoder.r3d:r3d34", channels=512, clip=ClipSize(16, 112)),
    "r3d50": BackboneSpec("rspnet_cli.encoder.r3d:r3d50", channels=2048, clip=ClipSize(16, 112)),
    "r2plus1d": BackboneSpec("rspnet_cli.encoder.r2plus1d:r2plus1d", channels=512, clip=ClipSize(16, 112)),
    "s3dg": BackboneSpec("rspnet_cli.encoder.s3dg:s3dg", channels=1024, clip=ClipSize(16, 224), smallest=ClipSize(5, 17)),
    "tsm-r18": BackboneSpec("rspnet_cli.encoder.tsm:tsm_r18", channels=512, clip=ClipSize(8, 224)),
    "tsm-r50": BackboneSpec("rspnet_cli.encoder.tsm:tsm_r50", channels=2048, clip=ClipSize(8, 224)),
    "slowfast-r50": BackboneSpec(
        "rspnet_cli.encoder.slowfast:slowfast_r50", channels=2304, clip=ClipSize(32, 224), smallest=ClipSize(8, 1), frames_step=8
    ),
    "mfnet": BackboneSpec("rspnet_cli.encoder.mfnet:mfnet", channels=768, clip=ClipSize(16, 224)),
}


def build_backbone(name: str, width: float = 1.0) -> Backbone:
    """Build a freshly initialised backbone: (B, 3, T, H, W) float -> feature map (B, C, t, h, w).

    width multiplies every channel count (see `scale_channels`); 1.0 is the published network. The result tells its C as
    `.channels`. Raises InputError for an unknown name.
    """
    module, function = _spec(name).target.split(":")
    return cast("Backbone", getattr(import_module(module), function)(width=width))


def check_clip_size(name: str, *, frames: int, side: int) -> None:
    """Raise InputError for an unknown backbone, and for clips of `frames` frames (T) and `side` pixels that it cannot take."""
    spec = _spec(name)
    limits = []
    if frames < spec.smallest.frames or frames % spec.frames_step:
        wanted = f"a multiple of {spec.frames_step}" if spec.frames_step > 1 else f"at least {spec.smallest.frames}"
        limits.append(f"clip.frames must be {wanted}")
    if side < spec.smallest.side:
        limits.append(f"clip.size must be at least {spec.smallest.side}")
    if limits:
        raise InputError(f"The backbone {name} cannot take clips of {frames} frames and {side} pixels: {' and '.join(limits)}.")


def published_clip(name: str) -> ClipSize:
    """The clips that a backbone was published with. Raises InputError for an unknown name."""
    return _spec(name).clip


def _spec(name: str) -> BackboneSpec:
    if name not in BACKBONES:
        raise InputError(f"There is no backbone '{name}': use one of {', '.join(BACKBONES)}.")
    return BACKBONES[name]
