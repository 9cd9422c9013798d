"""The gallery as the released code makes it: train videos seen through training's random crop and flip, the last batch left out.

There retrieval describes the train videos by the loader of fine-tuning: shuffled, one random crop (a quarter to all of the frame) and one
flip for all clips of a video, incomplete batch dropped; queries are centre squares. It is here to compare with the published figures, not
because it is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rspnet_cli.clips.draws import ClipDraw, draw_clip, gallery_order, gallery_rng
from rspnet_cli.config import AugmentConfig, ExportConfig, FinetuneConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.videos.frames import FramesTable

RELEASED_BATCH = 8
"""Videos per batch of the released retrieval."""
AUGMENT: AugmentConfig = FinetuneConfig().augment
"""Crop and flip alone: the released settings of retrieval are those of fine-tuning."""


@dataclass(frozen=True)
class Gallery:
    """The train videos of a split, as rows of the extraction's table."""

    split: str
    seed: int
    described: np.ndarray
    """(n,) int64, ascending rows: cropped and flipped."""
    dropped: np.ndarray
    """(m,) int64, ascending rows of the last incomplete batch: no part of the gallery."""

    def draw(self, row: int, height: int, width: int) -> ClipDraw | None:
        """How all clips of a video of height x width pixels are cropped and flipped; None for a video that is not in the gallery."""
        place = np.searchsorted(self.described, row)
        if place == len(self.described) or self.described[place] != row:
            return None
        return draw_clip(height, width, AUGMENT, gallery_rng(self.seed, row))

    def words(self) -> str:
        """What it is, for a reader of the features alone."""
        low, high = AUGMENT.crop_area
        return (
            f"reference: in place of the centre square, the {len(self.described)} train videos of split {self.split} show a random crop "
            f"({low:g} to {high:g} of the frame, shape 3/4 to 4/3, resized to a square) and are flipped with probability {AUGMENT.flip:g}, "
            f"one draw per video, seed {self.seed}; {len(self.dropped)} of the last incomplete batch are marked unused"
        )


def resolved_gallery(config: ExportConfig) -> ExportConfig:
    """The settings with every None of the gallery replaced by what it comes to."""
    if config.gallery_augment == "none":
        return config
    own = {"split": config.split or "1", "gallery_batch": config.gallery_batch or RELEASED_BATCH, "seed": config.seed or 0}
    return config.model_copy(update=own)


def reference_gallery(config: ExportConfig, table: FramesTable) -> Gallery | None:
    """The gallery that resolved settings ask for. Raises InputError for a split that is not there or does not fill a batch."""
    if config.gallery_augment == "none":
        return None
    assert config.split is not None
    assert config.gallery_batch is not None
    assert config.seed is not None
    train = table.rows_of_split(config.split, "train")
    count = len(train) - len(train) % config.gallery_batch
    if count == 0:
        raise InputError(
            f"Split {config.split} has {len(train)} train videos, fewer than a batch of {config.gallery_batch}, so nothing would be left "
            "of the gallery: set a smaller gallery_batch."
        )
    shuffled = train[gallery_order(len(train), seed=config.seed)]
    return Gallery(config.split, config.seed, np.sort(shuffled[:count]), np.sort(shuffled[count:]))


def gallery_kind(export: Manifest) -> str | None:
    """How the gallery of an export is cropped: centre, or reference (this module); None where the manifest does not say."""
    kind = export.config.get("gallery_augment")
    return "centre" if kind == "none" else kind


def refuse_other_split(export: Manifest, split: int | None) -> None:
    """Raise InputError where features with an augmented gallery are evaluated by another split than the gallery's (None: by none)."""
    if gallery_kind(export) == "reference" and export.config.get("split") != str(split):
        own = export.config.get("split")
        raise InputError(
            f"{export.path} has randomly cropped features of the train videos of split {own} (--gallery-augment reference), so only that "
            f"split can be evaluated with it: use --protocol split --split {own}, or make features without --gallery-augment."
        )
