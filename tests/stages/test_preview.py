"""preview shows the very clips that pretrain's encoders are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from rspnet_cli.config import PretrainConfig
from rspnet_cli.encoder import moco
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages import preview as module
from rspnet_cli.stages.pretrain import pretrain
from rspnet_cli.stages.preview import Pair, preview
from rspnet_cli.training.fit import resolved_run
from rspnet_cli.training.paired_clips import training_rows
from rspnet_cli.videos.frames import read_frames
from tests.encode import read_numbers
from tests.extracted import NUM_FRAMES, first_number
from tests.sentences import refused

CPU = torch.device("cpu")
TINY: dict[str, dict[str, Any]] = {
    "model": {"width": 0.1, "embedding_dim": 8},
    "clip": {"frames": 4, "size": 16, "speeds": [2, 3]},
    "moco": {"queue_size": 8, "mask_same_video": True},
    "optim": {"batch_size": 4, "epochs": 3},
    "run": {"workers": 0, "seed": 5},
}
# Frames as they are: their numbers can be read.
PLAIN = {"crop_area": (1.0, 1.0), "crop_ratio": (1.25, 1.25), "jitter": (0.0, 0.0, 0.0, 0.0), "grayscale": 0.0, "flip": 0.0}


def settings(**sections: dict[str, Any]) -> PretrainConfig:
    return validated(PretrainConfig, {name: TINY.get(name, {}) | sections.get(name, {}) for name in TINY.keys() | sections.keys()})


def pairs_of(config: PretrainConfig, extracted: Manifest, step: int, count: int) -> list[Pair]:
    config = config.model_copy(update={"run": resolved_run(config.run, CPU)})
    table = read_frames(extracted)
    return module.drawn_pairs(config, table, training_rows(table, config), CPU, step=step, count=count)


def as_seen(clips: torch.Tensor) -> np.ndarray:
    """(B, 3, T, S, S) as the encoder gets it -> (B, T, S, S, 3) in 0 to 255."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return (clips.permute(0, 2, 3, 4, 1).numpy() * std + mean) * 255


def test_they_are_what_pretrain_gives_its_encoders(extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []  # per step: other key, key, query
    for owner, name in ((moco.MoCo, "embed_keys"), (moco._Projection, "forward")):
        real = getattr(owner, name)

        def spy(self: torch.nn.Module, clips: torch.Tensor, *rest: Any, real: Any = real) -> Any:
            given.append(clips.detach().clone())
            return real(self, clips, *rest)

        monkeypatch.setattr(owner, name, spy)
    pretrain(settings(), frames=extracted.folder, out=tmp_path / "pretrain")
    steps = [given[start : start + 3] for start in range(0, len(given), 3)]
    assert len(steps) == 6  # ten videos in batches of four, three epochs
    speeds = set()
    for step in (1, 2, 5):
        pairs = pairs_of(settings(), extracted, step, count=4)
        for place, name in enumerate(("other key", "key", "query")):
            clips = [next(clip for clip in pair.clips if clip.name == name) for pair in pairs]
            np.testing.assert_allclose(np.stack([clip.frames for clip in clips]), as_seen(steps[step - 1][place]), atol=0.501)
        speeds |= {clip.speed for pair in pairs for clip in pair.clips}
    assert {1, 2, 3} >= speeds > {1}


def test_speeds_and_names_are_those_of_the_frames(extracted: Manifest) -> None:
    table = read_frames(extracted)
    fast = 0
    for pair in pairs_of(settings(augment=PLAIN, clip={"size": 32}), extracted, 3, count=8):
        video = table.ids.index(pair.video_id)
        query, key, other = (read_numbers(clip.frames) for clip in pair.clips)
        for numbers, clip in zip((query, key, other), pair.clips, strict=True):
            first = first_number(video)
            if NUM_FRAMES[video] > 3 * 4:  # shorter ones are looped
                assert np.diff(numbers).tolist() == [clip.speed] * 3
            assert all(first <= number < first + NUM_FRAMES[video] for number in numbers)
        assert key[0] == other[0]
        query_clip, key_clip, other_clip = pair.clips
        assert query_clip.speed == key_clip.speed != other_clip.speed
        assert 1 in (key_clip.speed, other_clip.speed)
        fast += query_clip.speed > 1
    assert fast == 4  # half of each batch


def test_more_videos_than_a_batch_come_from_the_steps_after_it(extracted: Manifest) -> None:
    pairs = pairs_of(settings(), extracted, 2, count=7)
    assert [pair.step for pair in pairs] == [2] * 4 + [3] * 3
    alone = pairs_of(settings(), extracted, 3, count=2)
    assert [pair.video_id for pair in alone] == [pair.video_id for pair in pairs[4:6]]
    for one, other in zip(alone, pairs[4:6], strict=True):
        for a, b in zip(one.clips, other.clips, strict=True):
            assert (a.frames == b.frames).all()
    assert len(pairs_of(settings(), extracted, 6, count=9)) == 4  # the last step


def test_sheet_and_film_show_every_clip(extracted: Manifest, tmp_path: Path) -> None:
    config = settings(augment=PLAIN, clip={"size": 32})
    shown = preview(config, frames=extracted.folder, out=tmp_path, step=2, count=3)
    assert list(shown) == ["sheet", "film", "extract_digest", "config", "seed", "batch_size", "step", "videos"]
    assert (shown["sheet"], shown["film"]) == (str(tmp_path / "step-2.png"), str(tmp_path / "step-2.mp4"))
    pairs = pairs_of(config, extracted, 2, count=3)
    assert [video["id"] for video in shown["videos"]] == [pair.video_id for pair in pairs]
    assert [[clip["speed"] for clip in video["clips"]] for video in shown["videos"]] == [
        [clip.speed for clip in pair.clips] for pair in pairs
    ]
    clip = shown["videos"][0]["clips"][0]
    assert clip["crop"] == {"top": 0, "left": 0, "height": 32, "width": 40}
    assert (clip["flip"], clip["grayscale"], clip["blur"], clip["jitter"]) == (False, False, False, {})
    (sheet,), film = pictures(tmp_path / "step-2.png"), pictures(tmp_path / "step-2.mp4")
    for pair in pairs:
        for clip in pair.clips:
            strip = clip.frames.repeat(3, axis=1).repeat(3, axis=2)  # 32 pixels fit three times into a tile
            assert holds_strip(sheet, strip)
    assert len(film) == 4 * module.ROUNDS
    for number, picture in enumerate(film):
        # One column of three tiles, 192 pixels each: below a margin and two lines of text with their gaps, then every 252 pixels.
        tiles = [picture[72 + 252 * row : 264 + 252 * row, 16 + 198 * place : 208 + 198 * place] for row in range(3) for place in range(3)]
        assert read_numbers(tiles) == read_numbers([clip.frames[number % 4] for pair in pairs for clip in pair.clips])


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def holds_strip(sheet: np.ndarray, strip: np.ndarray) -> bool:
    """Whether the frames (T, h, w, 3) stand side by side, two pixels apart, somewhere below the upper margin."""
    height, width = strip.shape[1:3]
    lefts = [16 + place * (width + 2) for place in range(len(strip))]
    return any(
        all((sheet[top : top + height, left : left + width] == frame).all() for left, frame in zip(lefts, strip, strict=True))
        for top in range(16, len(sheet) - height)
    )


def test_clips_of_many_frames_are_shown_in_part_and_said_so(extracted: Manifest, tmp_path: Path) -> None:
    config = settings(clip={"frames": 20, "speeds": [2]})
    preview(config, frames=extracted.folder, out=tmp_path, count=1)
    assert pictures(tmp_path / "step-1.png")[0].shape[1] < 2200
    assert len(pictures(tmp_path / "step-1.mp4")) == 20 * module.ROUNDS


@pytest.mark.parametrize(
    ("sections", "step", "words"),
    [
        ({}, 7, ["no step 7", "10 videos in batches of 4", "6 steps"]),
        ({"clip": {"size": 64}}, 1, ["clip.size 64", "rspnet extract"]),
        ({"optim": {"batch_size": 12}, "moco": {"queue_size": 24}}, 1, ["10 videos to train on", "--batch-size 10"]),
        ({"data": {"split": "2"}}, 1, ["no splits"]),
        ({"model": {"backbone": "c3d"}}, 1, ["c3d", "clip.frames"]),
    ],
)
def test_what_pretrain_refuses_is_refused_and_nothing_is_written(
    extracted: Manifest, tmp_path: Path, sections: dict[str, Any], step: int, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        preview(settings(**sections), frames=extracted.folder, out=tmp_path / "new", step=step)
    refused(caught.value, *words)
    assert not (tmp_path / "new").exists()


def test_somebody_elses_picture_stays(extracted: Manifest, tmp_path: Path) -> None:
    (tmp_path / "step-1.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        preview(settings(), frames=extracted.folder, out=tmp_path, count=1)
    assert (tmp_path / "step-1.png").read_bytes() == b"mine"
    preview(settings(), frames=extracted.folder, out=tmp_path, count=1, force=True)
    first = (tmp_path / "step-1.png").read_bytes()
    preview(settings(run={"seed": 6}), frames=extracted.folder, out=tmp_path, count=1)  # our own is replaced
    assert (tmp_path / "step-1.png").read_bytes() != first
