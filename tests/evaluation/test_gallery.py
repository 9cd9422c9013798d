"""The released code's gallery: who is in it, how it is cropped, and which evaluations may use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rspnet_cli.config import ExportConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.gallery import Gallery, reference_gallery, refuse_other_split, resolved_gallery
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.videos.frames import FramesTable, read_frames
from tests.evaluation.tables import make_export, make_table
from tests.extracted import make_extract
from tests.sentences import refused


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FramesTable:
    parts = ["train", "test", "train", "train", "test", "train", "train", "", "train", "train"]
    return read_frames(make_extract(tmp_path_factory.mktemp("run") / "extract", num_frames=(4,) * 10, parts=parts, labelled=True))


def gallery_of(table: FramesTable, **settings: Any) -> Gallery:
    config = validated(ExportConfig, {"gallery_augment": "reference"} | settings)
    gallery = reference_gallery(resolved_gallery(config), table)
    assert gallery is not None
    return gallery


TRAIN = {0, 2, 3, 5, 6, 8, 9}


def test_the_last_incomplete_batch_is_left_out_and_the_seed_says_who_is_in_it(table: FramesTable) -> None:
    for batch, kept in ((1, 7), (2, 6), (3, 6), (4, 4), (5, 5), (7, 7)):
        gallery = gallery_of(table, gallery_batch=batch)
        assert len(gallery.described) == kept
        assert sorted([*gallery.described, *gallery.dropped]) == sorted(TRAIN)
        assert all(np.diff(rows).min(initial=1) > 0 for rows in (gallery.described, gallery.dropped)), "ascending"
    dropped = [set(gallery_of(table, gallery_batch=4, seed=seed).dropped.tolist()) for seed in range(20)]
    assert set(gallery_of(table, gallery_batch=4, seed=7).dropped.tolist()) == dropped[7]
    assert set().union(*dropped) == TRAIN  # anybody can be last


def test_unset_settings_are_those_of_the_released_code(table: FramesTable) -> None:
    config = resolved_gallery(ExportConfig(gallery_augment="reference"))
    assert (config.split, config.gallery_batch, config.seed) == ("1", 8, 0)
    with pytest.raises(InputError) as error:
        reference_gallery(config, table)
    refused(error.value, "7 train videos", "batch of 8", "gallery_batch")
    assert reference_gallery(resolved_gallery(ExportConfig()), table) is None


def test_one_draw_per_video_within_the_released_ranges(table: FramesTable) -> None:
    """Area a quarter to all, shape 3/4 to 4/3, half of them flipped; never for a query or a video that was left out."""
    everyone = replace(gallery_of(table, gallery_batch=1), described=np.arange(2000))
    draws = [everyone.draw(row, 240, 320) for row in range(2000)]
    boxes = np.array([draw.box for draw in draws if draw is not None], float)
    assert len(boxes) == 2000
    top, left, height, width = boxes.T
    share, shape = height * width / (240 * 320), width / height
    assert 0.245 < share.min() < 0.27
    assert 0.9 < share.max() <= 1.001
    assert 0.74 < shape.min() < 0.76
    assert 1.32 < shape.max() < 1.35
    assert (top + height).max() <= 240
    assert (left + width).max() <= 320
    assert 0.45 < np.mean([draw.flip for draw in draws if draw is not None]) < 0.55
    assert not any(draw.ops or draw.grayscale or draw.blur for draw in draws if draw is not None)
    assert everyone.draw(3, 240, 320) == draws[3]
    assert replace(everyone, seed=1).draw(3, 240, 320) != draws[3]
    gallery = gallery_of(table, gallery_batch=4)
    assert [row for row in range(10) if gallery.draw(row, 32, 40) is not None] == gallery.described.tolist()


def test_a_split_that_is_not_there_is_refused(table: FramesTable) -> None:
    with pytest.raises(InputError) as error:
        gallery_of(table, split=2)
    refused(error.value, "no split 2")


@pytest.mark.parametrize("setting", [{"split": "1"}, {"gallery_batch": 4}, {"seed": 0}])
def test_settings_of_a_gallery_that_is_not_asked_for_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        validated(ExportConfig, setting)
    refused(error.value, next(iter(setting)), "no effect", "gallery_augment")


def make(folder: Path, **config: str) -> Manifest:
    return make_export(folder, make_table(), config=config)


def test_an_augmented_gallery_serves_its_own_split_alone(tmp_path: Path) -> None:
    export = make(tmp_path / "export", gallery_augment="reference", split="2")
    refuse_other_split(export, 2)
    for split in (1, None):
        with pytest.raises(InputError) as error:
            refuse_other_split(export, split)
        refused(error.value, "split 2", "--gallery-augment")
    plain = make(tmp_path / "plain", gallery_augment="none")
    refuse_other_split(plain, 1)
    refuse_other_split(plain, None)
