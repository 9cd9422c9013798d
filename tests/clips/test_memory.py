"""Loader workers share their parent's memory: what they are given of a video lies in arrays, and nothing makes them write to the rest."""

import gc
import pickle
import pickletools
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rspnet_cli.clips.dataset import ClipPairs, SingleClips
from rspnet_cli.clips.loader import read_ahead
from rspnet_cli.clips.slots import Room
from rspnet_cli.config import AugmentConfig, ClipConfig
from rspnet_cli.evaluation.features import UniformClips
from rspnet_cli.evaluation.gallery import Gallery
from rspnet_cli.manifest import Manifest
from rspnet_cli.videos.frames import FrameFiles, read_frames
from tests.extracted import make_extract

DATASETS = {
    "pretrain": lambda files: ClipPairs(files, ClipConfig(), AugmentConfig(), seed=0),
    "finetune": lambda files: SingleClips(files, AugmentConfig(), frames=4, sampling="cover", frame_rate=None, seed=0),
    "features": lambda files: UniformClips(files, frames=4, count=2, frame_rate=None, gallery=gallery_of_all(files)),
}


def gallery_of_all(files: FrameFiles) -> Gallery:
    return Gallery("1", 0, np.arange(len(files.frames)), np.arange(0))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_extract(tmp_path_factory.mktemp("three") / "extract", num_frames=(9, 12, 10))


@pytest.mark.parametrize("kind", DATASETS)
def test_a_worker_is_given_no_python_object_per_video(kind: str, extracted: Manifest, three: Manifest) -> None:
    few, many = (DATASETS[kind](read_frames(manifest).files) for manifest in (three, extracted))
    assert len(few.files.frames) < len(many.files.frames)
    objects, sizes = [], []
    for dataset in (few, many):
        pickled = pickle.dumps(dataset, protocol=5)
        objects.append(sum(1 for _ in pickletools.genops(pickled)))
        sizes.append(len(pickled))
    assert objects[0] == objects[1], "every list, string or number is an operation of its own"
    per_video = (sizes[1] - sizes[0]) / (len(many.files.frames) - len(few.files.frames))
    assert per_video < 100  # 32 of a hash, 4 or 8 of each number, and the path


class FrozenObjects:
    """How many objects the garbage collector leaves alone where an item is made."""

    def read(self, job: int, room: Room) -> int:
        return gc.get_freeze_count()


def test_a_worker_does_not_look_through_its_parents_objects_for_garbage() -> None:
    for workers in (0, 1):
        source = read_ahead(FrozenObjects(), [0], workers=workers, prefetch=1, item_bytes=1, pin_memory=False)
        with closing(source) as items:
            assert (next(items) > 10_000) == bool(workers)


def test_a_path_is_the_file_that_the_table_names(extracted: Manifest) -> None:
    table = read_frames(extracted)
    assert [table.path(row) for row in range(len(table))] == [extracted.folder / name for name in table.read()["frames_file"]]
    assert all(table.path(row).is_file() for row in range(len(table)))
    assert isinstance(table.path(0), Path)
