"""The one table of backbones: name -> builder, channels, default clip. Free of torch, so that `--help` can list it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

from rspnet_cli.errors import InputError

if TYPE_CHECKING:
    from rspnet_cli.encoder.conv import Backbone


class ClipSize(NamedTuple):
    """What a backbone was published with: `frames` frames (T) of `side` x `side` pixels."""

    frames: int
    side: int


class BackboneSpec(NamedTuple):
    """Where a backbone is built ("module:function") and the `channels` of its last feature map at width 1."""

    target: str
    channels: int
    clip: ClipSize


BACKBONES = {
    "c3d": BackboneSpec("rspnet_cli.encoder.c3d:c3d", channels=512, clip=ClipSize(frames=16, side=112)),
    "r3d18": BackboneSpec("rspnet_cli.encoder.r3d:r3d18", channels=512, clip=ClipSize(frames=16, side=112)),
    "r2plus1d": BackboneSpec("rspnet_cli.encoder.r2plus1d:r2plus1d", channels=512, clip=ClipSize(frames=16, side=112)),
    "s3dg": BackboneSpec("rspnet_cli.encoder.s3dg:s3dg", channels=1024, clip=ClipSize(frames=16, side=224)),
}


def build_backbone(name: str, width: float = 1.0) -> Backbone:
    """Build a freshly initialised backbone: (B, 3, T, H, W) float -> feature map (B, C, t, h, w).

    width multiplies every channel count (see `scale_channels`); 1.0 is the published network. The result tells its C as
    `.channels`. Raises InputError for an unknown name.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone '{name}' is unknown: choose one of {', '.join(BACKBONES)}.")
    module, function = BACKBONES[name].target.split(":")
    return cast("Backbone", getattr(import_module(module), function)(width=width))
