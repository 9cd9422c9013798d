"""Every video is one shard's, by the listing alone; bytes are shared out evenly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.shards import Shard
from rspnet_cli.videos.dealing import dealt, hash_of_listing
from rspnet_cli.videos.extraction import StoreLayout
from rspnet_cli.videos.listing import SourceFailure, VideoSource, VideoTable
from tests.sentences import refused

FLAT, FOLDERS = StoreLayout("h264", in_folders=False), StoreLayout("h264", in_folders=True)


def make_table(num_videos: int, *, of_frames: bool = False) -> VideoTable:
    """Sizes as those of real sets: most are small, a few are huge."""
    sizes = np.random.default_rng(num_videos).lognormal(10, 1.5, num_videos).astype(int).tolist()
    videos = tuple(
        VideoSource(f"v{i:06d}", f"v{i:06d}.mp4", 0 if of_frames else size, i, None, "", "", (), size if of_frames else None)
        for i, size in enumerate(sizes)
    )
    failures = (SourceFailure("gone", "gone.mp4", "", "is named in list.txt, but not there"),)
    return VideoTable(Path(), "plain", videos, failures, (), (), None)


@pytest.mark.parametrize("layout", [FLAT, FOLDERS], ids=["flat", "folders"])
@pytest.mark.parametrize("of_frames", [False, True])
def test_every_video_and_failure_is_one_shards(layout: StoreLayout, of_frames: bool) -> None:
    table = make_table(500, of_frames=of_frames)
    parts = [dealt(table, layout, Shard(index, 7)) for index in range(1, 8)]
    assert sorted((video for part in parts for video in part.videos), key=lambda video: video.path) == list(table.videos)
    assert all(list(part.videos) == sorted(part.videos, key=lambda video: video.path) for part in parts)  # in the order of the listing
    assert [part.failures for part in parts] == [table.failures] + [()] * 6
    sizes = [sum(video.bytes or video.num_frames or 0 for video in part.videos) for part in parts]
    assert max(sizes) - min(sizes) <= max(video.bytes or video.num_frames or 0 for video in table.videos)


def test_the_shards_of_a_large_store_share_no_folder_and_differ_by_little() -> None:
    table = make_table(20_000)
    parts = [dealt(table, FOLDERS, Shard(index, 5)) for index in range(1, 6)]
    folders = [{FOLDERS.folder(video.id) for video in part.videos} for part in parts]
    assert sum(map(len, folders)) == len(set.union(*folders)) > 4000
    sizes = [sum(video.bytes for video in part.videos) for part in parts]
    assert max(sizes) / min(sizes) < 1.03
    assert max(len(part.videos) for part in parts) / min(len(part.videos) for part in parts) < 1.1


def test_the_times_of_change_decide_nothing_and_all_else_of_the_listing_shows_in_its_hash() -> None:
    table = make_table(30)
    touched = replace(table, videos=tuple(replace(video, mtime_ns=video.mtime_ns + 1) for video in table.videos))
    assert hash_of_listing(touched) == hash_of_listing(table)
    ids = [video.id for video in dealt(table, FLAT, Shard(2, 4)).videos]
    assert [video.id for video in dealt(touched, FLAT, Shard(2, 4)).videos] == ids
    others = [
        replace(table, videos=table.videos[1:]),
        replace(table, videos=(replace(table.videos[0], bytes=1), *table.videos[1:])),
        replace(table, videos=(replace(table.videos[0], path="a.mp4"), *table.videos[1:])),
        replace(table, failures=()),
    ]
    assert len({hash_of_listing(other) for other in [table, *others]}) == 5


def test_more_shards_than_there_is_to_share_out_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        dealt(make_table(3), FLAT, Shard(1, 4))
    refused(caught.value, "--shard 1/4", "videos are 3")
    with pytest.raises(InputError) as caught:
        dealt(make_table(300), FOLDERS, Shard(1, 4097))
    refused(caught.value, "folders of the store")
