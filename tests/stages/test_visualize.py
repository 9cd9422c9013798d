"""visualize draws the maps of the encoder that is named, for the videos that are named, on one scale that it states."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from rspnet_cli import load_encoder
from rspnet_cli.config import VisualizeConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.heads import HEADS
from rspnet_cli.encoder.similarity import similarity_maps
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.pictures.colours import overlaid
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.stages.visualize import visualize
from rspnet_cli.stages.visualize.drawing import ShownClip
from rspnet_cli.stages.visualize.videos import chosen_videos
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.store import open_store
from tests import released
from tests.encode import make_video, read_number
from tests.extracted import first_number, make_extract
from tests.pretrained import make_pretrain
from tests.sentences import refused

FRAMES = (20, 24, 9, 16)
SETTINGS = {"model": {"backbone": "r3d18", "width": 0.125, "embedding_dim": 12}, "clip": {"frames": 4, "size": 64}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """An encoder, and four square videos that it can be shown on; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    make_extract(folder / "extract", num_frames=FRAMES, size=(32, 32), labelled=True)
    return make_pretrain(folder / "pretrain", inputs={"extract": folder / "extract"}, settings=SETTINGS)


def show(trained: Manifest, out: Path, *videos: str, report: Reporter | None = None, **settings: Any) -> list[dict[str, Any]]:
    return visualize(validated(VisualizeConfig, settings), pretrain=trained.folder, videos=videos, out=out, report=report)


def centre_clips(trained: Manifest, row: int, starts: list[int]) -> torch.Tensor:
    """uint8 clips (N, 3, T, H, W) of four frames each, read by hand."""
    table = read_frames(trained.input("extract"))
    with open_store(table.path(row)) as video:
        clips = np.stack([video.read(np.arange(start, start + 4)) for start in starts])
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)


def pictures(path: str | Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_figures_and_scale_are_those_of_the_encoder_and_its_clips(trained: Manifest, tmp_path: Path) -> None:
    (shown,) = show(trained, tmp_path, "v001", clips=3)
    encoder = load_encoder(trained.folder)
    clips = centre_clips(trained, 1, [0, 10, 20])  # 24 frames
    appearance, motion = encoder.project(clips)
    for task, embeddings in (("A", appearance), ("M", motion)):
        expected = (embeddings * embeddings[[1, 2, 0]]).sum(1)
        assert [clip["similarity"][task] for clip in shown["clips"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [clip["key"] for clip in shown["clips"]] == [2, 3, 1]
    assert [clip["start_s"] for clip in shown["clips"]] == pytest.approx([0, 0.4, 0.8])
    assert [clip["end_s"] for clip in shown["clips"]] == pytest.approx([0.16, 0.56, 0.96])
    feature_maps = encoder.feature_map(clips)
    values = torch.stack([task.values for task in similarity_maps(encoder, feature_maps, feature_maps[[1, 2, 0]])])
    assert shown["scale"] == pytest.approx({"low": float(values.min()), "high": float(values.max())}, abs=1e-5)
    assert shown["places"] == dict(zip(("time", "height", "width"), feature_maps.shape[2:], strict=True))
    assert shown["pretrain_digest"] == trained.digest
    assert shown["clip"] == {"frames": 4, "size": 64, "trained_size": 64}
    record = json.loads((tmp_path / "v001.json").read_text())
    beside = ("sheet", "film", "failure")
    assert {key: value for key, value in shown.items() if key not in beside} == {key: record[key] for key in shown if key not in beside}


def test_the_film_plays_every_clip_beside_its_maps(trained: Manifest, tmp_path: Path) -> None:
    (shown,) = show(trained, tmp_path, "v000", clips=2)
    film = pictures(shown["film"])
    # Below a margin, two lines of 18 pixels and the tile's own, with their gaps of 8 and 4.
    tiles = [picture[16 + 2 * 26 + 22 :, 16:304][:288] for picture in film]
    first = first_number(0)
    assert [read_number(tile) for tile in tiles] == [first + frame for frame in (0, 1, 2, 3, 16, 17, 18, 19)]
    for picture in film:  # the maps: the same frame in grey under colours
        colourful = np.ptp(picture[90:378, 310:598].astype(int), axis=-1).mean()
        assert colourful > 30 > np.ptp(picture[90:378, 16:304].astype(int), axis=-1).mean()
    (sheet,) = pictures(shown["sheet"])
    assert sheet.shape[0] > 2 * 3 * 112


def test_a_map_is_drawn_where_it_is_when_it_is_on_the_scale_that_is_given() -> None:
    maps = torch.zeros(2, 2, 2, 2)
    maps[0, 0, 0, 1] = 4.0  # A: at first, top right
    maps[1, 1, 1, 0] = 2.0  # M: in the end, bottom left
    clip = ShownClip(1, 2, np.full((4, 16, 16, 3), 100, np.uint8), (0.0, 1.0), maps, (0.5, 0.25))
    first, last = clip.panels(0, 64, (0.0, 4.0)), clip.panels(3, 64, (0.0, 4.0))
    lowest, half, highest = (overlaid(np.full((1, 1, 3), 100, np.uint8), np.full((1, 1), value))[0, 0] for value in (0, 0.5, 1))

    def shows(pixel: np.ndarray, colour: np.ndarray) -> bool:
        return bool(np.abs(pixel.astype(int) - colour).max() <= 3)  # the frame's grey is resized, too

    assert shows(first[1][0, -1], highest)
    assert shows(first[1][-1, 0], lowest)
    assert shows(last[1], lowest)
    assert shows(first[2], lowest)
    assert shows(last[2][-1, 0], half)
    assert shows(first[0], np.full(3, 100))
    assert clip.words() == "clip 1, 0.00-1.00 s; similarity to clip 2: A 0.5000, M 0.2500"
    middle = clip.panels(1, 64, (0.0, 4.0))[1][0, -1]
    assert lowest.sum() < middle.sum() < highest.sum(), "between two places in time"


@pytest.mark.parametrize("head", HEADS)
def test_every_kind_of_heads_has_maps(tmp_path: Path, trained: Manifest, head: str) -> None:
    settings = SETTINGS | {"model": SETTINGS["model"] | {"head": head}}
    encoder = make_pretrain(tmp_path / head, inputs={"extract": trained.input("extract").folder}, settings=settings)
    (shown,) = show(encoder, tmp_path / "out", "v000", clips=1)
    assert (shown["head"], shown["clips"][0]["key"]) == (head, 1)
    assert shown["clips"][0]["similarity"] == pytest.approx({"A": 1, "M": 1}, abs=1e-5)
    assert shown["scale"]["high"] > shown["scale"]["low"]


def test_videos_are_ids_patterns_or_files_each_once_in_the_order_typed(
    trained: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = trained.input("extract").folder.parent / "extract-sources" / "v000.mp4"
    shutil.copy(source, "other name.mp4")
    (tmp_path / "sub").mkdir()
    shutil.copy(source, "sub/v003.mp4")
    shutil.copy(source, f"{'long ' * 45}.mp4")
    shown = show(trained, tmp_path / "out", "v00[23]", "./other name.mp4", "v002", "v000", "sub/v003.mp4", clips=2)
    assert [video["video"] for video in shown] == ["v002", "v003", "other name.mp4", "v000", "sub/v003.mp4"]
    names = [Path(video["sheet"]).stem for video in shown]
    assert len(set(names)) == 5
    assert names[0:2] == ["v002", "v003"]
    assert names[2].startswith("other_name-")
    assert "v003" in names[4]
    (long,) = show(trained, tmp_path / "out", f"{'long ' * 45}.mp4", clips=1)
    assert pictures(long["sheet"])[0].shape[1] == pictures(shown[0]["sheet"])[0].shape[1], "its name is cut"
    # A file goes through the extraction's own settings, so it is shown as the video of the set that was made of it.
    in_set, file = shown[3], shown[2]
    for key in ("clips", "scale", "places"):
        assert file[key] == in_set[key]
    assert Path(file["film"]).read_bytes() != Path(in_set["film"]).read_bytes(), "their titles differ"


def test_without_names_it_shows_a_seeded_few_of_every_class(trained: Manifest, tmp_path: Path) -> None:
    shown = show(trained, tmp_path, count=2, seed=3, clips=1)
    chosen = {}
    for seed in range(6):
        config = VisualizeConfig(count=2, seed=seed)
        with chosen_videos((), config, trained, frames=None, default_frames=None, report=Reporter.silent()) as videos:
            chosen[seed] = [video.told for video in videos]
        assert {int(name[1:]) % 2 for name in chosen[seed]} == {0, 1}, "the classes even and odd"
    assert len({tuple(names) for names in chosen.values()}) > 1
    assert [video["video"] for video in shown] == chosen[3]


def test_larger_clips_have_finer_maps_and_coarse_ones_are_warned_of(
    trained: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (coarse,) = show(trained, tmp_path / "a", "v000", clips=1, report=Reporter())
    said = capsys.readouterr().err
    assert "2 x 2 places" in said
    assert "--size 128" in said
    (fine,) = show(trained, tmp_path / "b", "v000", clips=1, size=128, report=Reporter())
    assert "places" not in capsys.readouterr().err
    assert coarse["places"] == {"time": 1, "height": 2, "width": 2}
    assert fine["places"] == {"time": 1, "height": 4, "width": 4}
    assert fine["clip"] == {"frames": 4, "size": 128, "trained_size": 64}


def test_another_checkpoint_has_other_maps(trained: Manifest, tmp_path: Path) -> None:
    scales = [show(trained, tmp_path / name, "v000", clips=2, checkpoint=name)[0]["scale"] for name in ("last", "best", "initial")]
    assert len({scale["high"] for scale in scales}) == 3


def test_an_imported_encoder_needs_no_extraction_for_files(tmp_path: Path) -> None:
    torch.save(released.checkpoint(released.pretrained("r3d18", "convbn"), "resnet18"), tmp_path / "model.pth.tar")
    settings = {"model.width": 0.125, "clip.frames": 4, "clip.size": 64}
    imported = import_checkpoint(tmp_path / "model.pth.tar", out=tmp_path / "pretrain", settings=settings)
    video = make_video(tmp_path / "walk.mp4", 12, size=(64, 48), start=7)
    config = validated(VisualizeConfig, {"clips": 2})
    how = {"pretrain": imported.folder, "out": tmp_path / "out", "default_frames": tmp_path / "extract"}
    (shown,) = visualize(config, videos=[str(video)], **how)
    assert Path(shown["sheet"]).name == "walk.png"
    (unknown,) = visualize(config, videos=["v000"], **how)
    assert unknown["failure"].startswith("is neither")
    with pytest.raises(InputError) as caught:
        visualize(config, videos=[], **how)
    refused(caught.value, "extract")


def test_what_cannot_be_shown_is_told_and_the_others_are_drawn(trained: Manifest, tmp_path: Path) -> None:
    broken, playlist, cut = (tmp_path / name for name in ("broken.mp4", "playlist.mp4", "cut.mp4"))
    broken.write_bytes(b"no video")
    playlist.write_text("ffconcat version 1.0\nfile 'v000.mp4'\n")
    cut.symlink_to(tmp_path / "nowhere")
    bad = ["v0", "x*", "a" * 300, "", str(broken), str(playlist), str(cut), str(tmp_path)]
    shown = show(trained, tmp_path / "out", *bad[:4], "v003", *bad[4:], "v000", "x*", clips=1)
    assert [video["video"] for video in shown] == [*bad[:3], '""', "v003", *bad[4:], "v000"]
    reasons = {video["video"]: video["failure"] for video in shown}
    assert [name for name, reason in reasons.items() if reason is None] == ["v003", "v000"]
    assert all(list(video) == ["video", "failure"] for video in shown if video["failure"] is not None)
    assert reasons["v0"].startswith("is neither a video of the set nor a pattern that one matches nor a file; did you mean 'v00")
    assert reasons["x*"] == "is neither a video of the set nor a pattern that one matches nor a file"
    assert reasons[str(broken)].startswith("is not a video file")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"{name}.{kind}" for name in ("v000", "v003") for kind in ("json", "mp4", "png")}
    assert [video["failure"] is None for video in show(trained, tmp_path / "none", *bad)] == [False] * len(bad)
    assert not (tmp_path / "none").exists()


def test_a_video_of_the_set_that_is_damaged_is_told_too(trained: Manifest, tmp_path: Path) -> None:
    shutil.copytree(trained.folder.parent, tmp_path / "copy")
    frames = read_frames(read_manifest(tmp_path / "copy" / "extract"))
    whole = frames.path(1).read_bytes()
    frames.path(1).write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    damaged, drawn = show(read_manifest(tmp_path / "copy" / "pretrain"), tmp_path / "out", "v001", "v002", clips=1)
    assert damaged["failure"].startswith("cannot be read back: ")
    assert drawn["failure"] is None


def test_files_that_are_not_ours_are_not_replaced(trained: Manifest, tmp_path: Path) -> None:
    (tmp_path / "v000.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        show(trained, tmp_path, "v000", "nothing")
    assert (tmp_path / "v000.mp4").read_bytes() == b"mine"


def test_an_encoder_without_heads_is_refused(trained: Manifest, tmp_path: Path) -> None:
    backbone = {"state_dict": released.filled(released.BACKBONES["r3d18"](released.scaled(0.125)), torch.Generator())}
    torch.save(backbone, tmp_path / "backbone.pth")
    torch.save(released.checkpoint(released.finetuned("r3d18", 2), released.ARCH["r3d18"]), tmp_path / "tuned.pth.tar")
    settings = {"clip.size": 64, "clip.frames": 4}
    encoders = [
        import_checkpoint(tmp_path / "backbone.pth", out=tmp_path / "pretrain", settings=settings | {"model.width": 0.125}),
        import_checkpoint(tmp_path / "tuned.pth.tar", out=tmp_path / "finetune", settings=settings),
    ]
    frames = trained.input("extract").folder
    for encoder, why in zip(encoders, ("imported from a file", "fine-tuned"), strict=True):
        with pytest.raises(InputError) as caught:
            visualize(VisualizeConfig(), pretrain=encoder.folder, videos=["v000"], out=tmp_path / "out", frames=frames)
        refused(caught.value, f"was {why} without projection heads", "name a pretraining")
    assert not (tmp_path / "out").exists()


def test_the_encoder_is_left_as_it_was(trained: Manifest, tmp_path: Path) -> None:
    def hashes() -> dict[str, str]:
        return {artifact.path: artifact.sha256 for artifact in read_manifest(trained.folder, verify_all=True).artifacts}

    before = hashes()
    assert isinstance(load_encoder(trained.folder), Encoder)
    show(trained, tmp_path, "v000", clips=1)
    assert hashes() == before
