"""The features of all shards -> one file, read and written shard by shard: those of all clips are never in memory together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FEATURES, FeatureTable, read_features, write_features
from rspnet_cli.evaluation.open_features import STATISTICS
from rspnet_cli.files import link_or_copy_file
from rspnet_cli.manifest import Manifest
from rspnet_cli.tensors import InParts, check_shape, open_tensors

_ADVICE = "make the features of this shard anew with `rspnet export-features --shard i/N --force`"


def merge_features(folders: Iterable[Path], work: Path) -> FeatureTable:
    """Write the features of shards, in the order of their rows, into `work` as one run would. Raises InputError, DiskFullError.

    Returns the table, without the features of clips.
    """
    read = {folder: read_features(folder) for folder in folders}
    parts = list(read.values())
    facts = [{key: value for key, value in part.metadata.items() if key != "class_names"} for part in parts]
    table = FeatureTable(
        features=np.concatenate([part.features for part in parts]),
        clip_features=None,
        clip_times_s=np.concatenate([part.clip_times_s for part in parts]),
        video_index=np.concatenate([part.video_index for part in parts]),
        videos=pd.concat([part.videos for part in parts], ignore_index=True),
        metadata=facts[0],
    )
    if any(other != facts[0] for other in facts) or not np.array_equal(table.video_index, np.arange(len(table.videos))):
        raise InputError(f"The shards beside {work.parent} are not the parts of one run: make all of them anew, with --force.")
    num_videos, clips, _ = table.clip_times_s.shape
    shape = (num_videos, clips, table.features.shape[1])
    write_features(work, table, InParts(shape, np.dtype(np.float32), _clip_features(list(read), shape[1:])))
    return table


def merge_statistics(shards: Sequence[Manifest], work: Path) -> list[str]:
    """Keep the batch-norm statistics that every shard estimated; the names of the files, none where none were estimated.

    Raises InputError where two shards described their videos with other ones, DiskFullError.
    """
    hashes = [next((file.sha256 for file in manifest.artifacts if file.path == STATISTICS), None) for manifest in shards]
    for manifest, found in zip(shards, hashes, strict=True):
        if found != hashes[0]:
            raise InputError(
                f"{manifest.folder} and {shards[0].folder} hold features by other batch-norm statistics ({STATISTICS} differs), as "
                "processors of different kinds estimate them: make all shards anew on one kind of machine, with --force."
            )
    if hashes[0] is None:
        return []
    link_or_copy_file(shards[0].folder / STATISTICS, work / STATISTICS)
    return [STATISTICS]


def _clip_features(folders: Sequence[Path], shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Those of each shard, (n, N, C) float32, checked."""
    for folder in folders:
        path = folder / FEATURES
        with open_tensors(path, advice=_ADVICE) as view:
            check_shape(path, view, "clip_features", dtype="F32", shape=(None, *shape), advice=_ADVICE)
            values = view.get_tensor("clip_features")
        if not np.isfinite(values).all():
            raise InputError(f"{path}: tensor 'clip_features' holds values that are not finite: {_ADVICE}.")
        yield values
