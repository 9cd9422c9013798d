"""Which videos an encoder was trained on: by the hash of the source, so also those of another extraction, under another name."""

from __future__ import annotations

import pandas as pd

from rspnet_cli.manifest import ENCODER_STAGES, Manifest
from rspnet_cli.tables import FINETUNE_VIDEOS, PRETRAIN_VIDEOS, read_table


def trained_videos(manifest: Manifest) -> pd.DataFrame:
    """The videos of the extraction that a pretraining or fine-tuning read: id, used (bool), sha256 of the source. Raises InputError."""
    table = FINETUNE_VIDEOS if manifest.stage == "finetune" else PRETRAIN_VIDEOS
    return read_table(manifest.artifact_path(table.file), table)[["id", "used", "sha256"]]


def seen_videos(encoder: Manifest | None, sources: pd.Series) -> pd.Series:
    """Whether an encoder has seen videos in its training or in one that this went on from: (V,) boolean.

    encoder: None: untrained. sources: sha256 of their source files. NA: not known, as one of the trainings was imported. Raises InputError.
    """
    seen = pd.Series(False, index=sources.index, dtype="boolean")
    if encoder is None:
        return seen
    hashes, complete = _seen_hashes(encoder)
    if not complete:
        seen[:] = None  # NA
    seen[sources.isin(hashes)] = True
    return seen


def num_seen(seen: pd.Series) -> int | None:
    """How many of these videos were seen; None where that is not known of one."""
    return None if seen.isna().any() else int(seen.sum())


def _seen_hashes(encoder: Manifest) -> tuple[set[str], bool]:
    """sha256 of the sources that an encoder is known to have seen, and whether these are all."""
    if encoder.is_imported:
        return set(), False
    seen, complete = set(trained_videos(encoder).query("used")["sha256"]), True
    for ref in encoder.inputs:
        if ref.stage in ENCODER_STAGES:
            before, known = _seen_hashes(encoder.read_input(ref, verify=False))
            seen, complete = seen | before, complete and known
    return seen, complete
