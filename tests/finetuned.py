"""Labelled extractions and tiny fine-tunings of them, for the tests of the stage and of its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rspnet_cli.config import FinetuneConfig
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.settings import validated
from rspnet_cli.videos.frames import read_frames
from tests.extracted import make_extract
from tests.pretrained import make_pretrain

LENGTHS = (10, 14, 9, 12, 11, 7, 13, 10, 12, 9, 10, 11, 8, 12)
"""Frames of each video. Classes even and odd; videos 2n and 2n + 1 are a group."""
PARTS = ("train",) * 10 + ("test",) * 4
SEEN = ("v000", "v011")
"""Videos that the pretraining saw: one of train, one of test."""
TINY: dict[str, dict[str, Any]] = {
    "optim": {"batch_size": 2, "epochs": 3, "lr": 0.02},
    "test": {"clips": 3, "batch_size": 4},
    "run": {"log_interval": 1, "keep_every": 2, "workers": 0},
}


def settings(**sections: dict[str, Any]) -> FinetuneConfig:
    return validated(FinetuneConfig, {name: TINY.get(name, {}) | sections.get(name, {}) for name in TINY.keys() | sections.keys()})


def make_labelled(out: Path, *, parts: tuple[str, ...] | None = PARTS, **how: Any) -> Manifest:
    """Fourteen extracted videos of 40 x 32 pixels with classes and groups, and one split or none."""
    return make_extract(out, num_frames=LENGTHS, parts=parts, labelled=True, **how)


def make_encoder_of(extract: Manifest, out: Path) -> Manifest:
    """A finished pretraining of SEEN: r3d18 at an eighth of its width, 4 frames of 24 pixels."""
    hashes = read_frames(read_manifest(extract.folder)).read().set_index("id")["sha256"].to_dict()
    return make_pretrain(out, inputs={"extract": extract.folder}, used={name: hashes[name] for name in SEEN})
