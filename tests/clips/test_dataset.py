"""From the frame store to batches of uint8 clips: the right frames, in an order that no worker and no rank changes."""

import itertools
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.clips.dataset import BatchOrder, ClipBatch, ClipPairs, batches, collate
from rspnet_cli.clips.draws import clip_rng
from rspnet_cli.clips.sampling import frames_at_rate, random_clip
from rspnet_cli.config import AugmentConfig, ClipConfig
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.videos.frames import FramesTable, read_frames
from rspnet_cli.videos.store import open_store
from tests.encode import read_numbers
from tests.extracted import NUM_FRAMES, SIZE, first_number
from tests.sentences import refused

WHOLE_FRAME = AugmentConfig(crop_area=(1.0, 1.0), crop_ratio=(SIZE[0] / SIZE[1], SIZE[0] / SIZE[1]))
CLIP = ClipConfig(frames=6, speeds=(2, 3), size=16)
LENGTH = 18  # max(speeds) * frames


def pairs(manifest: Manifest, augment: AugmentConfig = WHOLE_FRAME, *, clip: ClipConfig = CLIP, seed: int = 0) -> ClipPairs:
    return ClipPairs(read_frames(manifest), clip, augment, seed=seed)


def crops_of(item: Any) -> list[tuple[np.ndarray, Any]]:
    assert not isinstance(item, RspnetError), str(item)
    return item[1]


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_videos_two_clips_are_the_frames_that_sampling_says(extracted: Manifest, epoch: int) -> None:
    dataset = pairs(extracted)
    for row, num_frames in enumerate(NUM_FRAMES):
        clips = crops_of(dataset[epoch, row])
        assert len(clips) == 2
        for number, (frames, draw) in enumerate(clips):
            assert frames.shape == (LENGTH, SIZE[1], SIZE[0], 3)
            assert frames.dtype == np.uint8
            assert draw.box == (0, 0, SIZE[1], SIZE[0])
            expected = random_clip(num_frames, frames=LENGTH, rng=clip_rng(0, epoch, row, number))
            assert read_numbers(frames) == (first_number(row) + expected).tolist()


def test_clips_are_cut_anew_in_every_epoch_for_every_seed_and_for_query_and_key(extracted: Manifest) -> None:
    row = int(np.argmax(NUM_FRAMES))
    starts = {
        (seed, epoch, number): read_numbers(frames[:1])[0]
        for seed in range(2)
        for epoch in range(12)
        for number, (frames, _) in enumerate(crops_of(pairs(extracted, seed=seed)[epoch, row]))
    }
    places = NUM_FRAMES[row] - LENGTH + 1
    assert len(set(starts.values())) > places / 2
    assert [starts[0, epoch, 0] for epoch in range(12)] != [starts[0, epoch, 1] for epoch in range(12)]
    assert [starts[0, epoch, 0] for epoch in range(12)] != [starts[1, epoch, 0] for epoch in range(12)]


def test_a_crop_is_its_box_of_the_stored_frames(extracted: Manifest) -> None:
    table = read_frames(extracted)
    for frames, draw in crops_of(pairs(extracted, AugmentConfig(crop_area=(0.1, 0.6)))[0, 1]):
        top, left, height, width = draw.box
        assert frames.shape == (LENGTH, height, width, 3)
        assert (height, width) != SIZE[::-1]
        with open_store(table.path(1)) as video:
            whole = video.read(np.arange(video.num_frames))
        cut = [whole[start : start + LENGTH, top : top + height, left : left + width] for start in range(len(whole) - LENGTH + 1)]
        assert any((frames == candidate).all() for candidate in cut)


def test_a_frame_rate_thins_the_video_before_clips_are_cut(extracted: Manifest) -> None:
    clip = ClipConfig(frames=3, speeds=(2,), size=16, frame_rate=10.0)
    for row in (3, 6):
        for number, (frames, _) in enumerate(crops_of(pairs(extracted, clip=clip)[0, row])):
            kept = frames_at_rate(NUM_FRAMES[row], fps=25.0, frame_rate=10.0)
            assert kept[:4].tolist() == [0, 2, 5, 7]
            expected = kept[random_clip(len(kept), frames=6, rng=clip_rng(0, 0, row, number))]
            assert read_numbers(frames) == (first_number(row) + expected).tolist()


def test_a_batch_holds_all_queries_and_then_all_keys_each_with_its_draw(extracted: Manifest) -> None:
    dataset = pairs(extracted, AugmentConfig())
    items = [dataset[2, row] for row in (4, 1, 7)]
    batch = collate(items)
    assert isinstance(batch, ClipBatch)
    assert batch.videos.tolist() == [4, 1, 7]
    assert batch.videos.dtype == torch.int64
    expected = [crops_of(item)[number] for number in range(2) for item in items]
    assert batch.draws == tuple(draw for _, draw in expected)
    assert batch.num_frames == LENGTH
    padded = batch.padded(torch.device("cpu"))
    assert padded.shape == (6, LENGTH, max(d.box[2] for d in batch.draws), max(d.box[3] for d in batch.draws), 3)
    for index, (frames, _) in enumerate(expected):
        assert (batch.crops()[index].numpy() == frames).all()
        height, width = frames.shape[1:3]
        assert (padded[index, :, :height, :width].numpy() == frames).all()
        assert padded[index, :, height:].sum() == padded[index, :, :, width:].sum() == 0


def content(batch: ClipBatch) -> tuple[object, ...]:
    return (batch.videos.tolist(), batch.draws, batch.pixels.numpy().tobytes())


def load(manifest: Manifest, *, workers: int = 0, start: tuple[int, int] = (0, 0), **how: int) -> list[tuple[object, ...]]:
    rows = np.arange(len(NUM_FRAMES))
    order = BatchOrder(rows, batch_size=4, epochs=3, seed=5, start=start, **how)
    return [content(batch) for batch in batches(pairs(manifest, AugmentConfig(), seed=5), order, workers=workers)]


def test_no_number_of_workers_changes_a_batch(extracted: Manifest) -> None:
    expected = load(extracted)
    assert len(expected) == 3 * 2
    assert len(set(map(str, expected))) == 6
    for workers in (1, 3):
        assert load(extracted, workers=workers) == expected


def test_loading_leaves_the_callers_random_state_alone(extracted: Manifest) -> None:
    before = torch.get_rng_state()
    load(extracted, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_start_in_the_middle_gives_the_rest_of_the_same_batches(extracted: Manifest) -> None:
    expected = load(extracted)
    for epoch in range(3):
        for step in range(2):
            assert load(extracted, start=(epoch, step)) == expected[2 * epoch + step :]


@given(st.integers(2, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_ranks_share_every_global_batch_and_no_video_comes_twice_in_an_epoch(num: int, share: int, ranks: int, seed: int) -> None:
    rows = np.arange(num) * 3 + 1
    batch_size = share * ranks
    orders = [BatchOrder(rows, batch_size=batch_size, epochs=2, seed=seed, start=(0, 0), rank=r, world_size=ranks) for r in range(ranks)]
    alone = BatchOrder(rows, batch_size=batch_size, epochs=2, seed=seed, start=(0, 0))
    together = [list(itertools.chain(*parts)) for parts in zip(*orders, strict=True)]
    assert together == list(alone)
    assert alone.steps_per_epoch == num // batch_size
    for epoch in range(2):
        keys = [key for batch in together for key in batch if key[0] == epoch]
        assert len(keys) == len(set(keys)) == num // batch_size * batch_size
        assert {row for _, row in keys} <= set(rows.tolist())


def copy_of(manifest: Manifest, folder: Path) -> Manifest:
    shutil.copytree(manifest.folder, folder)
    return read_manifest(folder, stage="extract")


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF  # the same size
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_frame_file_is_one_sentence_also_out_of_a_worker(extracted: Manifest, tmp_path: Path, workers: int) -> None:
    copy = copy_of(extracted, tmp_path / "copy")
    damage(copy.folder / "frames" / "v003.mp4")
    with pytest.raises(InputError) as caught:
        load(copy, workers=workers)
    refused(caught.value, str(copy.folder / "frames" / "v003.mp4"), "--force")


def test_a_frame_file_is_checked_when_it_is_first_used_even_after_the_first_epoch(extracted: Manifest, tmp_path: Path) -> None:
    """A video dropped with the first epoch's last batch, or a run that is resumed, comes to its first use later."""
    copy = copy_of(extracted, tmp_path / "copy")
    damage(copy.folder / "frames" / "v003.mp4")
    item = pairs(copy)[2, 3]
    assert isinstance(item, InputError)
    refused(item, "v003.mp4", "sha256")
    (copy.folder / "frames" / "v004.mp4").unlink()
    missing = pairs(copy)[1, 4]
    assert isinstance(missing, InputError)
    refused(missing, "v004.mp4", "missing")


def test_a_frame_file_is_hashed_once(extracted: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    check = FramesTable.check_file
    monkeypatch.setattr(FramesTable, "check_file", lambda table, row: (seen.append(row), check(table, row))[1])
    dataset = pairs(extracted)
    for epoch in range(3):
        for row in (1, 2):
            crops_of(dataset[epoch, row])
    assert seen == [1, 2]


def test_workers_end_with_the_loop_that_used_them(extracted: Manifest) -> None:
    order = BatchOrder(np.arange(10), batch_size=2, epochs=50, seed=0, start=(0, 0))
    source = batches(pairs(extracted), order, workers=2)
    next(source)
    assert len(multiprocessing.active_children()) == 2
    source.close()
    assert multiprocessing.active_children() == []
