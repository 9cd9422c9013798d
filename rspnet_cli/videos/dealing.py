"""Which videos of a listing a shard extracts: a function of the listing and the shard's number, and of nothing else."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from dataclasses import replace

from rspnet_cli.errors import InputError
from rspnet_cli.shards import Shard
from rspnet_cli.videos.extraction import StoreLayout
from rspnet_cli.videos.listing import VideoTable
from rspnet_cli.videos.probe import size_of


def dealt(table: VideoTable, layout: StoreLayout, shard: Shard) -> VideoTable:
    """The part of a table that is a shard's; what can be no video goes to shard 1.

    Videos are dealt out by falling size, so that shards have as many of them and as many bytes as can be; where the store has folders,
    whole folders are, because `merge` moves those. Raises InputError where there are fewer videos or folders than shards.
    """
    weights: dict[str, int] = defaultdict(int)
    for video in table.videos:
        weights[_unit(video.id, layout)] += size_of(video)
    if shard.count > len(weights):
        what = "folders of the store" if layout.in_folders else "videos"
        raise InputError(f"--shard {shard}: the {what} are {len(weights):,}, fewer than the shards; use at most so many shards.")
    order = sorted(weights, key=lambda unit: (-weights[unit], unit))
    own = {unit for place, unit in enumerate(order) if shard.deals(place)}
    return replace(
        table,
        videos=tuple(video for video in table.videos if _unit(video.id, layout) in own),
        failures=table.failures if shard.index == 1 else (),
    )


def _unit(video_id: str, layout: StoreLayout) -> str:
    return layout.folder(video_id) if layout.in_folders else video_id


def hash_of_listing(table: VideoTable) -> str:
    """sha256 over what was found, but for the times of change, which decide nothing about the result."""
    digest = hashlib.sha256()
    for video in table.videos:
        digest.update(b"%s\0%d\0%d\n" % (os.fsencode(video.path), video.bytes, video.num_frames or 0))
    for failure in table.failures:
        digest.update(b"%s\0%s\n" % (os.fsencode(failure.path), failure.reason.encode("utf-8", "surrogateescape")))
    return digest.hexdigest()
