"""`load_encoder` and its preprocessing: as in training, and nothing but a sentence for files that are not what they should be."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import rspnet_cli
from rspnet_cli import load_encoder
from rspnet_cli.clips import augment
from rspnet_cli.clips.draws import ClipDraw
from rspnet_cli.config import PretrainConfig
from rspnet_cli.encoder import load
from rspnet_cli.encoder.load import preprocess
from rspnet_cli.errors import InputError
from rspnet_cli.settings import validated
from tests.crops import Crop, pack
from tests.pretrained import SMALL, arrays, make_encoder, make_pretrain


@pytest.fixture(scope="module")
def pretrain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrain(tmp_path_factory.mktemp("run") / "pretrain").folder


def random_clips(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def plain_preprocess(clip: np.ndarray, size: int) -> np.ndarray:
    """One clip (3, T, H, W) uint8 -> (3, T, size, size) float64, pixel by pixel from the definition."""
    channels, frames, height, width = clip.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = clip[:, :, top : top + side, left : left + side] / 255
    out = np.empty((channels, frames, size, size))
    for row in range(size):
        for column in range(size):
            y, x = (min(max((index + 0.5) * side / size - 0.5, 0), side - 1) for index in (row, column))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, side - 1), min(x0 + 1, side - 1)
            upper = square[:, :, y0, x0] * (1 - (x - x0)) + square[:, :, y0, x1] * (x - x0)
            lower = square[:, :, y1, x0] * (1 - (x - x0)) + square[:, :, y1, x1] * (x - x0)
            out[:, :, row, column] = upper * (1 - (y - y0)) + lower * (y - y0)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return (out - mean[:, None, None, None]) / std[:, None, None, None]


@pytest.mark.parametrize(("height", "width", "size"), [(30, 47, 24), (51, 24, 24), (24, 24, 24), (9, 13, 24), (25, 40, 12)])
def test_preprocessing_is_centre_square_bilinear_and_imagenet(height: int, width: int, size: int) -> None:
    clips = random_clips(2, 3, 3, height, width)
    actual = preprocess(clips, size, antialias=False)
    assert actual.shape == (2, 3, 3, size, size)
    assert actual.dtype == torch.float32
    for clip, result in zip(clips.numpy(), actual.numpy(), strict=True):
        np.testing.assert_allclose(result, plain_preprocess(clip, size), atol=2e-5)  # float32 weights of the resize


def test_uint8_clips_are_resized_as_the_training_clips_were(tmp_path: Path) -> None:
    clips = random_clips(1, 3, 4, 60, 60)
    draw = ClipDraw((0, 0, 60, 60), False, (), (1, 1, 1, 0), False, False)
    crops = pack([Crop(clips[0].permute(1, 2, 3, 0).numpy(), np.arange(4), draw)])
    for antialias in (False, True):
        settings = SMALL | {"clip": SMALL["clip"] | {"antialias": antialias}}
        encoder = load_encoder(make_pretrain(tmp_path / str(antialias), settings=settings).folder)
        as_trained = augment.Augmentation(24, antialias, "reference", torch.device("cpu"))(crops)
        torch.testing.assert_close(encoder(clips), encoder(as_trained), rtol=1e-4, atol=1e-5)
    smooth, sharp = (preprocess(clips, 24, antialias=antialias).std() for antialias in (True, False))
    assert smooth < 0.8 * sharp


def test_normalisation_is_that_of_training() -> None:
    assert (load.MEAN, load.STD) == (augment.MEAN, augment.STD)


def test_features_are_those_of_the_network_that_was_saved(pretrain: Path) -> None:
    encoder = load_encoder(pretrain)
    original = make_encoder(validated(PretrainConfig, SMALL), 1).eval()
    clips = random_clips(3, 3, 4, 30, 36)
    ready = preprocess(clips, 24, antialias=False)
    with torch.no_grad():
        expected, embeddings = original(ready), original.project(ready)
    assert expected.std() > 0.01
    torch.testing.assert_close(encoder(clips), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(ready), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.project(clips), embeddings, rtol=1e-4, atol=1e-5)
    assert encoder.feature_map(clips).shape == (3, 64, 1, 1, 1)
    assert (encoder.channels, encoder.embedding_dim, encoder.frames, encoder.size, encoder.frame_rate) == (64, 12, 4, 24, None)
    assert encoder.rate_tolerance == 2e-4  # of a manifest that does not name it


def test_it_comes_in_evaluation_mode_without_gradient_and_can_be_trained_on(pretrain: Path) -> None:
    encoder = load_encoder(str(pretrain / "manifest.json"), device="auto" if not torch.cuda.is_available() else "cpu")
    clips = random_clips(2, 3, 4, 24, 24)
    assert not encoder.training
    assert not encoder(clips).requires_grad
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(clips)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    encoder.requires_grad_(True).train()
    encoder(clips).sum().backward()
    assert encoder.backbone.conv1.weight.grad is not None


def test_loading_draws_no_random_numbers(pretrain: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        load_encoder(pretrain)
        found = torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(found, torch.rand(1))


@pytest.mark.parametrize(("checkpoint", "seed"), [("last", 1), ("initial", 2), ("best", 3), ("epoch_2", 4)])
def test_every_checkpoint_can_be_had(pretrain: Path, checkpoint: str, seed: int) -> None:
    state = load_encoder(pretrain, checkpoint=checkpoint).state_dict()
    for name, value in arrays(make_encoder(validated(PretrainConfig, SMALL), seed)).items():
        np.testing.assert_array_equal(state[name].numpy(), value, err_msg=name)


@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [
        ("epoch_9", r"has no checkpoint 'epoch_9' \(kept: best, epoch_2\)"),
        ("../x", r"no checkpoint '\.\./x': name last, best, initial or epoch_N"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_named(pretrain: Path, checkpoint: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_encoder(pretrain, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("clips", "sentence"),
    [
        (torch.zeros(3, 4, 24, 24), r"shape \(3, 4, 24, 24\): give \(B, 3, T, H, W\)"),
        (torch.zeros(1, 4, 3, 24, 24), "give"),
        (torch.zeros(0, 3, 4, 24, 24), "none of them 0"),
        (torch.zeros(1, 3, 4, 24, 24, dtype=torch.int64), "clips are torch.int64: give uint8 RGB, or float"),
        (np.zeros((1, 3, 4, 24, 24), dtype=np.uint8), r"clips are a ndarray: give a torch.Tensor"),
    ],
)
def test_what_is_no_clip_is_refused(pretrain: Path, clips: torch.Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_encoder(pretrain)(clips)


def test_float_clips_may_have_any_precision(pretrain: Path) -> None:
    encoder = load_encoder(pretrain)
    clips = torch.randn(2, 3, encoder.frames, encoder.size, encoder.size)
    expected = encoder(clips)
    assert torch.equal(encoder(clips.double()), expected)
    assert encoder(clips.half()).dtype == expected.dtype == torch.float32
    torch.testing.assert_close(encoder(clips.half()), expected, rtol=1e-2, atol=1e-2)


def test_a_device_that_is_not_there_is_refused(pretrain: Path) -> None:
    with pytest.raises(InputError, match="--device gpu: use auto, cpu, cuda or mps"):
        load_encoder(pretrain, device="gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_features_on_a_gpu_are_those_of_the_cpu(pretrain: Path) -> None:
    clips = random_clips(3, 3, 4, 30, 36)
    on_gpu = load_encoder(pretrain, device="cuda")(clips)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), load_encoder(pretrain)(clips), rtol=2e-2, atol=2e-2)  # TF32 convolutions


def test_another_stage_is_refused(tmp_path: Path) -> None:
    with rspnet_cli.stage.begin_stage("extract", {}, inputs={}, out=tmp_path / "extract") as stage:
        stage.finish(results={})
    with pytest.raises(InputError, match="is of stage 'extract', not 'pretrain'"):
        load_encoder(tmp_path / "extract")


def good_tensors() -> dict[str, np.ndarray]:
    return arrays(make_encoder(validated(PretrainConfig, SMALL), 1))


def replaced(name: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    tensors = good_tensors()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return tensors


WEIGHT = "backbone.layer1.0.conv1.weight"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (WEIGHT, None, f"lacks tensor {WEIGHT}"),
        ("head_x.weight", np.zeros((2, 2), np.float32), "has the unknown tensor head_x.weight"),
        (WEIGHT, np.zeros((8, 8, 3, 3), np.float32), rf"tensor '{WEIGHT}' is F32 \[8, 8, 3, 3\] instead of F32 \[8, 8, 3, 3, 3\]"),
        (WEIGHT, np.zeros((8, 8, 3, 3, 3), np.float64), "is F64"),
        (WEIGHT, np.full((8, 8, 3, 3, 3), np.nan, np.float32), "values that no encoder has"),
        ("backbone.bn1.running_var", np.full(8, -1, np.float32), "negative variance"),
        ("head_m.2.bias", np.full(12, np.inf, np.float32), "head_m.2.bias holds values"),
    ],
)
def test_a_file_with_a_right_hash_and_wrong_tensors_is_one_sentence(
    tmp_path: Path, name: str, value: np.ndarray | None, sentence: str
) -> None:
    folder = make_pretrain(tmp_path / "pretrain", tensors=replaced(name, value)).folder
    with pytest.raises(InputError, match=sentence) as caught:
        load_encoder(folder)
    text = str(caught.value)
    assert "encoder.safetensors" in text
    assert text.endswith("make it anew with `rspnet pretrain --force`.")
    assert "\n" not in text


def header(content: object, length: int | None = None) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors at all",
        header({}, length=2**63),
        header({}, length=200_000_000),
        header({WEIGHT: {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}),
        header({WEIGHT: {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}),  # no data follow
        header({WEIGHT: {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
        header({"__metadata__": {"a": 1}}),
        header([1, 2]),
        header({}),
    ],
)
def test_a_hostile_header_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    folder = make_pretrain(tmp_path / "pretrain", files={"encoder.safetensors": content}).folder
    with pytest.raises(InputError, match=r"encoder\.safetensors (is not a readable safetensors file|lacks tensor)") as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)


def test_a_changed_or_missing_file_is_found_before_it_is_read(tmp_path: Path) -> None:
    folder = make_pretrain(tmp_path / "pretrain").folder
    file = folder / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"encoder\.safetensors .*restore it, or make it anew"):
        load_encoder(folder)
    load_encoder(folder, checkpoint="best")  # the others are not touched by it
    file.unlink()
    with pytest.raises(InputError, match=r"encoder\.safetensors is missing"):
        load_encoder(folder)


def test_the_package_offers_it_without_importing_torch() -> None:
    assert rspnet_cli.load_encoder is load.load_encoder
    with pytest.raises(AttributeError, match="no attribute 'load_decoder'"):
        _ = rspnet_cli.load_decoder
