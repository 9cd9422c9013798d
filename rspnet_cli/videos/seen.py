"""Which videos an encoder was trained on: by the hash of the source, so also those of another extraction, under another name."""

from __future__ import annotations

import pandas as pd

from rspnet_cli.manifest import ENCODER_STAGES, Manifest
from rspnet_cli.tables import FINETUNE_VIDEOS, PRETRAIN_VIDEOS, read_table


def trained_videos(manifest: Manifest) -> pd.DataFrame:
    """The videos of the extraction that a pretraining or fine-tuning read: id, used (bool), sha256 of the source. Raises InputError."""
    table = FINETUNE_VIDEOS if manifest.stage == "finetune" else PRETRAIN_VIDEOS
    return read_table(manifest.artifact_path(table.file), table)[["id", "used", "sha256"]]


def seen_hashes(manifest: Manifest) -> set[str]:
    """sha256 of every source that an encoder has seen: in this training and in those that it went on from. Raises InputError."""
    seen = set(trained_videos(manifest).query("used")["sha256"])
    for ref in manifest.inputs:
        if ref.stage in ENCODER_STAGES:
            seen |= seen_hashes(manifest.read_input(ref, verify=False))
    return seen
