"""Clips of a video, and the features of many, against a plain computation that does one clip at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli import load_encoder
from rspnet_cli.clips.sampling import FrameRate
from rspnet_cli.encoder.batch_norm import estimate_statistics
from rspnet_cli.encoder.encoder import pool_features
from rspnet_cli.encoder.load import PretrainedEncoder, resize_and_normalise
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.encoding import clips_of as encoded_clips
from rspnet_cli.evaluation.features import (
    ClipInput,
    UniformClips,
    VideoClips,
    clip_batches,
    describe_videos,
    load_clips,
    split_pieces,
    statistics_batches,
)
from rspnet_cli.videos.frames import FramesTable, read_frames
from rspnet_cli.videos.store import open_store
from tests.encode import read_numbers
from tests.extracted import make_extract
from tests.pretrained import SMALL, make_pretrain


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FramesTable:
    folder = tmp_path_factory.mktemp("run")
    return read_frames(make_extract(folder / "extract", num_frames=(9, 12, 40, 3), size=(36, 32)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PretrainedEncoder:
    return load_encoder(make_pretrain(tmp_path_factory.mktemp("run") / "pretrain").folder)


def clips_of(dataset: UniformClips, row: int) -> VideoClips:
    item = dataset.read(row)
    assert isinstance(item, VideoClips)
    return item


def test_clips_are_evenly_spaced_and_know_their_frames_and_times(table: FramesTable) -> None:
    video = clips_of(UniformClips(table.files, frames=4, count=3, frame_rate=None), 1)  # 12 frames at 25 per second, numbered from 100
    numbers = np.array(read_numbers(video.frames.numpy()))
    assert numbers[video.clips.numpy()].tolist() == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109, 110, 111]]
    np.testing.assert_allclose(video.times_s.numpy(), [[0, 0.16], [0.16, 0.32], [0.32, 0.48]], atol=1e-9)


def test_overlapping_clips_share_their_frames(table: FramesTable) -> None:
    video = clips_of(UniformClips(table.files, frames=4, count=10, frame_rate=None), 0)  # 9 frames
    assert video.frames.shape[0] == 9
    assert video.clips.shape == (10, 4)
    assert video.clips.min() == 0
    assert video.clips.max() == 8


@pytest.mark.parametrize(("tolerance", "last"), [(2e-4, [32, 34, 36, 38]), (0.0, [30, 32, 34, 36])])
def test_an_encoders_rate_and_its_tolerance_decide_the_frames(
    table: FramesTable, tmp_path: Path, tolerance: float, last: list[int]
) -> None:
    # 40 frames at 25 per second, taken at 12.499: every second one of them, or as released 19 with steps of 2.00016.
    clip = SMALL["clip"] | {"frame_rate": 12.499, "rate_tolerance": tolerance}
    encoder = load_encoder(make_pretrain(tmp_path / "pretrain", settings=SMALL | {"clip": clip}).folder)
    video = clips_of(encoded_clips(encoder, table.files, 2), 2)
    numbers = np.array(read_numbers(video.frames.numpy()))[video.clips.numpy()]
    assert numbers.tolist() == [[200, 202, 204, 206], [200 + number for number in last]]


def test_the_frame_rate_is_applied_before_clips_are_cut(table: FramesTable) -> None:
    video = clips_of(UniformClips(table.files, frames=4, count=2, frame_rate=FrameRate(12.5, 0.0)), 2)  # 40 frames at 25 per second
    numbers = np.array(read_numbers(video.frames.numpy()))
    assert numbers[video.clips.numpy()].tolist() == [[200, 202, 204, 206], [232, 234, 236, 238]]
    np.testing.assert_allclose(video.times_s.numpy(), [[0, 0.28], [1.28, 1.56]], atol=1e-9)


def test_cover_clips_span_the_whole_video(table: FramesTable) -> None:
    video = clips_of(
        UniformClips(table.files, frames=4, count=2, frame_rate=None, sampling="cover"), 2
    )  # 40 frames: step 10, offsets 0 and 5
    numbers = np.array(read_numbers(video.frames.numpy()))
    assert numbers[video.clips.numpy()].tolist() == [[200, 210, 220, 230], [205, 215, 225, 235]]
    np.testing.assert_allclose(video.times_s.numpy(), [[0, 1.24], [0.2, 1.44]], atol=1e-9)


def test_a_short_video_is_looped_and_its_clip_ends_with_it(table: FramesTable) -> None:
    video = clips_of(UniformClips(table.files, frames=4, count=2, frame_rate=None), 3)  # 3 frames
    numbers = np.array(read_numbers(video.frames.numpy()))
    assert numbers[video.clips.numpy()].tolist() == [[300, 301, 302, 300]] * 2
    np.testing.assert_allclose(video.times_s.numpy(), [[0, 0.12]] * 2, atol=1e-9)


def test_the_crop_is_the_largest_centre_square(table: FramesTable) -> None:
    video = clips_of(UniformClips(table.files, frames=4, count=2, frame_rate=None), 0)
    with open_store(table.path(0)) as stored:
        whole = stored.read(np.arange(9))
        assert whole.shape == (9, 32, 36, 3)
    np.testing.assert_array_equal(video.frames.numpy(), whole[[0, 1, 2, 3, 5, 6, 7, 8], :, 2:34])


def input_of(encoder: PretrainedEncoder) -> ClipInput:
    return ClipInput(encoder.size, encoder.antialias, encoder.device)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 10**9])  # the last is more than any memory holds, and than there are clips
def test_batches_are_the_clips_one_by_one_preprocessed(batch_size: int, antialias: bool) -> None:
    rng = np.random.default_rng(0)
    videos = []
    for num_frames, height, width in ((5, 30, 30), (21, 24, 24), (8, 40, 33), (17, 24, 24)):  # as stored, smaller than stored, cropped
        frames = torch.from_numpy(rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8))
        videos.append(VideoClips(frames, torch.from_numpy(rng.integers(0, num_frames, (3, 4))), torch.zeros(3, 2)))
    sizes, seen = [], []
    for batch in clip_batches(videos, batch_size, ClipInput(24, antialias, torch.device("cpu"))):
        assert batch.is_contiguous(memory_format=torch.channels_last_3d)
        sizes.append(len(batch))
        seen.append(batch.clone())  # a batch's memory is that of the next one
    assert sizes == [batch_size] * (12 // batch_size) + [12 % batch_size] * (12 % batch_size > 0)
    whole = [video.frames[clip].permute(3, 0, 1, 2)[None] for video in videos for clip in video.clips]
    expected = torch.cat([resize_and_normalise(clip, 24, antialias=antialias) for clip in whole])
    assert torch.equal(torch.cat(seen), expected)


def described_by(
    encoder: PretrainedEncoder, videos: list[VideoClips], piece_sizes: list[int], *, pool: str, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    def describe(clips: torch.Tensor) -> torch.Tensor:
        return pool_features(encoder.feature_map(clips), pool)

    return describe_videos(describe, videos, piece_sizes, batch_size=batch_size, clip_input=input_of(encoder))


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_features_are_those_of_each_clip_alone(table: FramesTable, encoder: PretrainedEncoder, pool: str) -> None:
    dataset = UniformClips(table.files, frames=4, count=3, frame_rate=None)
    videos = [clips_of(dataset, row) for row in range(4)]
    described = list(described_by(encoder, videos, [3, 1], pool=pool, batch_size=4))
    assert [features.shape for features, _ in described] == [(3, 3, 64), (1, 3, 64)]
    features = np.concatenate([features for features, _ in described])
    times_s = np.concatenate([times_s for _, times_s in described])
    for row in range(4):
        with open_store(table.path(row)) as stored:
            starts = {0: [0, 2, 5], 1: [0, 4, 8], 2: [0, 18, 36], 3: [0, 0, 0]}[row]
            for clip, start in enumerate(starts):
                frames = stored.read((start + np.arange(4)) % stored.num_frames)
                feature_map = encoder.feature_map(torch.from_numpy(frames).permute(3, 0, 1, 2)[None])[0]
                expected = feature_map.flatten(1).mean(1) if pool == "avg" else feature_map.flatten(1).max(1).values
                np.testing.assert_allclose(features[row, clip], expected.numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(times_s[row], videos[row].times_s.numpy())


def test_features_of_one_clip_do_not_depend_on_its_batch(table: FramesTable, encoder: PretrainedEncoder) -> None:
    dataset = UniformClips(table.files, frames=4, count=3, frame_rate=None)
    videos = [clips_of(dataset, row) for row in range(4)]
    results = [np.concatenate([f for f, _ in described_by(encoder, videos, [4], pool="avg", batch_size=size)]) for size in (1, 5, 100)]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results[2], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_give_the_same_clips_in_the_same_order(table: FramesTable, workers: int) -> None:
    dataset = UniformClips(table.files, frames=4, count=2, frame_rate=None)
    rows = [2, 0, 3, 1] * 3  # more than a worker's memory holds at once
    for row, video in zip(rows, load_clips(dataset, rows, workers=workers, pin_memory=False), strict=True):
        expected = clips_of(dataset, row)
        assert all(torch.equal(a, b) for a, b in zip(video, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_frame_file_is_one_sentence(tmp_path: Path, workers: int) -> None:
    manifest = make_extract(tmp_path / "extract", num_frames=(9, 12, 20, 6))
    file = manifest.folder / "frames" / "v001.mp4"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    dataset = UniformClips(read_frames(manifest).files, frames=4, count=2, frame_rate=None)
    videos = load_clips(dataset, range(4), workers=workers, pin_memory=False)
    next(videos)
    with pytest.raises(InputError, match=r"v001\.mp4 .*rspnet extract --force") as caught:
        next(videos)
    assert "\n" not in str(caught.value)


@given(videos=st.integers(1, 10_000), clips=st.integers(1, 40), batch_size=st.integers(1, 2_000))
def test_pieces_cover_every_video_once_and_are_as_many_as_the_videos_or_64(videos: int, clips: int, batch_size: int) -> None:
    pieces = split_pieces(videos, clips=clips, batch_size=batch_size)
    assert [row for piece in pieces for row in piece] == list(range(videos))
    assert all(len(first) == len(pieces[0]) for first, _ in pairwise(pieces))
    assert len(pieces) >= min(videos, 64)


@pytest.mark.parametrize(("clips", "batch_size", "size"), [(10, 32, 32), (1, 32, 128), (10, 256, 102)])
def test_pieces_of_a_large_set_fill_some_batches(clips: int, batch_size: int, size: int) -> None:
    assert {len(piece) for piece in split_pieces(100 * size, clips=clips, batch_size=batch_size)} == {size}
    assert size * clips >= 3.9 * batch_size


def test_batch_norm_statistics_are_averages_over_batches(table: FramesTable, encoder: PretrainedEncoder) -> None:
    dataset = UniformClips(table.files, frames=4, count=5, frame_rate=None)
    videos = [clips_of(dataset, row) for row in range(4)]  # 20 clips
    batches = list(statistics_batches(videos, num_clips=20, batch_size=6, clip_input=input_of(encoder)))
    assert [len(batch) for batch in batches] == [7, 7, 6]
    singles = torch.cat([batch.clone() for batch in clip_batches(videos, 1, input_of(encoder))])
    assert torch.equal(torch.cat(batches), singles)

    fresh = copy.deepcopy(encoder)
    heads = {name: value.clone() for name, value in fresh.state_dict().items() if name.startswith("head")}
    estimate_statistics(fresh.backbone, batches)
    assert not any(module.training for module in fresh.modules())
    # The first layer's statistics by hand: its input does not depend on other statistics.
    means, variances = [], []
    for batch in batches:
        out = fresh.backbone.conv1(batch).double()  # (b, C, T, H, W)
        means.append(out.mean((0, 2, 3, 4)))
        variances.append(out.transpose(0, 1).flatten(1).var(1))
    torch.testing.assert_close(fresh.backbone.bn1.running_mean.double(), sum(means) / 3, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fresh.backbone.bn1.running_var.double(), sum(variances) / 3, rtol=1e-4, atol=1e-5)
    assert fresh.backbone.bn1.momentum == 0.1
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in heads.items())
    # Under these statistics every layer's output is normalised, so the last map is neither dead nor exploding.
    with torch.no_grad():
        before = []
        hook = fresh.backbone.layer4[1].bn1.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
        fresh.feature_map(singles)
        hook.remove()
    bn = fresh.backbone.layer4[1].bn1
    normalised = (before[0].transpose(0, 1).flatten(1) - bn.running_mean[:, None]) / bn.running_var[:, None].sqrt()
    assert 0.3 < float(normalised.std()) < 3
