"""Logits of whole videos: the mean over their clips, whichever batches they were in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rspnet_cli.encoder.load import preprocess
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.evaluation.features import ClipInput, UniformClips
from rspnet_cli.evaluation.logits import video_logits
from rspnet_cli.videos.frames import FramesTable, read_frames
from rspnet_cli.videos.store import open_store
from tests.extracted import make_extract
from tests.sentences import one_sentence, refused

INPUT = ClipInput(16, antialias=False, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FramesTable:
    return read_frames(make_extract(tmp_path_factory.mktemp("run") / "extract", num_frames=(9, 12, 20, 3, 8), size=(36, 32)))


def classify(clips: Tensor) -> Tensor:
    """Two made-up classes: the first and the last red pixel of the clip's last frame."""
    return torch.stack([clips[:, 0, -1, 0, 0], clips[:, 0, -1, -1, -1] ** 2], dim=1)


def logits(table: FramesTable, rows: list[int], *, count: int, batch_size: int, workers: int = 0) -> np.ndarray:
    clips = UniformClips(table.files, frames=4, count=count, frame_rate=None)
    return video_logits(classify, clips, np.array(rows), num_classes=2, batch_size=batch_size, clip_input=INPUT, workers=workers)


@pytest.mark.parametrize("count", [1, 3])
def test_they_are_the_mean_over_the_clips_of_each_video_alone(table: FramesTable, count: int) -> None:
    rows = [4, 0, 2, 3]
    expected = []
    for row in rows:
        with open_store(table.path(row)) as video:
            of_clips = []
            last = video.num_frames - 4
            for clip in range(count):
                start = last // 2 if count == 1 else round(clip * last / (count - 1))
                indices = np.arange(start, start + 4) if last >= 0 else np.arange(4) % video.num_frames
                frames = torch.from_numpy(video.read(indices))[None].permute(0, 4, 1, 2, 3)
                of_clips.append(classify(preprocess(frames, 16, antialias=False))[0].double())
            expected.append(torch.stack(of_clips).mean(dim=0).numpy())
    for batch_size in (1, 4, 100):
        found = logits(table, rows, count=count, batch_size=batch_size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (logits(table, rows, count=count, batch_size=4, workers=2) == logits(table, rows, count=count, batch_size=4)).all()


def test_logits_that_are_no_numbers_name_the_video(table: FramesTable) -> None:
    calls = []

    def diverging(clips: Tensor) -> Tensor:
        calls.append(len(clips))
        return torch.full((len(clips), 2), torch.nan if len(calls) == 3 else 1.0)

    clips = UniformClips(table.files, frames=4, count=2, frame_rate=None)
    with pytest.raises(RspnetError) as caught:
        video_logits(diverging, clips, np.array([1, 4, 2, 0]), num_classes=2, batch_size=2, clip_input=INPUT, workers=0)
    one_sentence(caught.value, "video v002", "optim.lr")


def test_a_video_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    table = read_frames(make_extract(tmp_path / "extract", num_frames=(9, 9)))
    table.path(1).write_bytes(bytes(table.path(1).stat().st_size))
    with pytest.raises(InputError) as caught:
        logits(table, [0, 1], count=1, batch_size=4)
    refused(caught.value, str(table.path(1)))
