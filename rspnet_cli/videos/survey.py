"""What a call of extract asks for: which videos, by which settings, and what tells its result from another's. Nothing is decoded here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import UNFINISHED
from rspnet_cli.shards import Shard
from rspnet_cli.videos.dealing import dealt, hash_of_listing
from rspnet_cli.videos.extraction import FRAMES_FOLDER, StoreLayout, resolved
from rspnet_cli.videos.listing import VideoTable
from rspnet_cli.videos.source_list import SourceList, source_list
from rspnet_cli.videos.sources import find_videos


@dataclass(frozen=True)
class Survey:
    """The videos and settings of a call. Only `identity` and what the sources are tells one result from another."""

    config: ExtractConfig
    """With everything filled in that videos and codec leave open."""
    videos: Path
    table: VideoTable
    sources: SourceList
    """Every source that was found, also those beyond the limit: which ones a limit takes depends on all."""
    layout: StoreLayout
    shard: Shard | None
    """Of which shard all of this is; None: the whole."""
    listing_sha256: str | None
    """Of the whole listing that a shard is a part of."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that a finished result is compared by. JSON values."""
        whole = self.config.identity() | {"annotations_sha256": self.table.annotations_sha256}
        return whole if self.shard is None else whole | {"shard": str(self.shard), "listing_sha256": self.listing_sha256}

    def share_of(self, shard: Shard) -> Self:
        """What of it is a shard's; sources beyond the limit are shard 1's. Raises InputError where there are too many shards."""
        table = dealt(self.table, self.layout, shard)
        sources = source_list(table.videos)
        if shard.index == 1:
            others = source_list(self.table.videos).keys() - sources.keys()
            sources = {source: stamp for source, stamp in self.sources.items() if source not in others}
        return replace(self, table=table, sources=sources, shard=shard, listing_sha256=hash_of_listing(self.table))


def survey(config: ExtractConfig, *, videos: Path, annotations: Path | None, out: Path, find_extra: bool = False) -> Survey:
    """Look at the videos and their lists. find_extra: as of `find_videos`. Raises InputError for what was asked or found."""
    _check_places(videos, out)
    table = find_videos(videos, dataset=config.dataset, annotations=annotations, exclude=out, find_extra=find_extra)
    sources = source_list(table.videos)
    if config.limit is not None:
        table = table.limited(config.limit)
    config = resolved(config, table)
    return Survey(config, videos, table, sources, StoreLayout.of(config, len(table.videos)), shard=None, listing_sha256=None)


def _check_places(videos: Path, out: Path) -> None:
    """Raises InputError where sources and result would be one folder."""
    real, target = Path(os.path.realpath(videos)), Path(os.path.realpath(out))  # resolve() raises where links lead in a circle
    if real == target or any(real.is_relative_to(target / name) for name in (FRAMES_FOLDER, UNFINISHED)):
        raise InputError(f"{out} would hold the result and holds the videos: choose another place with --out or --work-dir.")
