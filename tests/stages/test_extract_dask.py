"""extract on a dask cluster gives what it gives on one machine."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import read_manifest
from rspnet_cli.settings import validated
from rspnet_cli.shards import Shard
from rspnet_cli.stages.extract import extract
from rspnet_cli.stages.merge import merge
from tests.encode import make_video, not_a_video, truncated
from tests.sentences import refused

SETTINGS = {"short_side": 32}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good videos and two broken ones."""
    root = tmp_path_factory.mktemp("sources") / "videos"
    for number in range(4):
        make_video(root / f"v{number}.mp4", 8 + number, start=100 * number)
    truncated(make_video(root.parent / "long.avi", 60, "mpeg4"), root / "cut.avi")
    not_a_video(root / "noise.mp4")
    return root


def test_the_result_is_that_of_worker_processes_and_so_are_its_shards(videos: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    config = validated(ExtractConfig, SETTINGS)
    expected = extract(validated(ExtractConfig, SETTINGS | {"workers": 1}), videos=videos, out=tmp_path / "processes")
    assert (expected.results["videos"], expected.results["failed"]) == (4, 2)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50) as cluster:
        whole = extract(config, videos=videos, out=tmp_path / "dask", dask=cluster.scheduler_address)
        for index in (1, 2):
            extract(config, videos=videos, out=tmp_path / "extract", shard=Shard(index, 2), dask=cluster.scheduler_address)
    assert whole.environment["workers"] == 2
    for manifest in (whole, merge("extract", out=tmp_path / "extract")):
        assert manifest.digest == expected.digest
        assert list(read_manifest(manifest.folder, verify_all=True).hashes()) == list(expected.hashes())


def test_workers_of_this_machine_have_no_part_in_it(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        extract(validated(ExtractConfig, SETTINGS | {"workers": 1}), videos=videos, out=tmp_path / "out", dask="tcp://127.0.0.1:9")
    refused(caught.value, "--workers has no effect with --dask")
    assert not (tmp_path / "out").exists()
