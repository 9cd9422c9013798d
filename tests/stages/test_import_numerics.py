"""An imported encoder computes what the released code does with the same tensors: maps, head outputs, and a whole training step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rspnet_cli import load_encoder
from rspnet_cli.clips.draws import StepDraw
from rspnet_cli.config import ModelConfig, PretrainConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.heads import HEADS
from rspnet_cli.encoder.moco import MoCo, query_projection
from rspnet_cli.encoder.published import PUBLISHED, published_name
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages.import_checkpoint import import_checkpoint
from rspnet_cli.tensors import open_tensors
from rspnet_cli.training.checkpoint import load_state
from rspnet_cli.training.step import LoadedClips, rspnet_step
from tests import released
from tests.training.released_step import feature_map, head_outputs, part_of, released_step

# The backbones that the released code can train, and every head once: with frames large enough that batch norm sees more than a few
# values per channel, without which float32 itself has no right digits left; on one rank or two.
STEPS = [("c3d", "conv", 32, 1), ("r3d18", "convbn", 64, 2), ("r2plus1d", "mlp", 32, 2), ("s3dg", "linear", 96, 1)]
FRAMES, BATCH, SPEED = 8, 4, 2
MOMENTUM = 0.9  # far from 1, so that the key encoder moves


def imported(tmp_path: Path, backbone: str, head: str) -> tuple[Manifest, dict[str, Tensor]]:
    """A released checkpoint file of random tensors, imported; and the tensors."""
    state = released.pretrained(backbone, head, dim=64, queue=3 * BATCH, seed=3)
    state["queue_ptr"] = torch.tensor([BATCH])
    torch.save(released.checkpoint(state, released.ARCH[backbone]), tmp_path / "model_best.pth.tar")
    manifest = import_checkpoint(tmp_path / "model_best.pth.tar", out=tmp_path / "pretrain", settings={"model.width": 0.125})
    return manifest, state


def doubled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in state.items()}


def assert_near(actual: Tensor, expected: Tensor, share: float, *, of: float | None = None) -> None:
    """Within a share of the largest value, or of `of`."""
    difference = (actual.double() - expected.double()).abs().max().item()
    scale = expected.abs().max().item() if of is None else of
    assert difference <= share * scale, f"{difference} of {scale}"


@pytest.mark.parametrize(("backbone", "head"), [(name, HEADS[number % len(HEADS)]) for number, name in enumerate(released.BACKBONES)])
def test_feature_maps_and_head_outputs_are_those_of_the_tensors(tmp_path: Path, backbone: str, head: str) -> None:
    manifest, state = imported(tmp_path, backbone, head)
    clips = torch.randn(2, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(1))
    query = part_of(doubled(state), "encoder_q.")
    features = feature_map(backbone, query, clips.double(), None)
    a, m = head_outputs(head, query, features, None)
    assert min(value.std() for value in (features, a, m)) > 1e-3, "nothing to compare"
    encoder = load_encoder(manifest.folder)
    assert_near(encoder.feature_map(clips), features, 1e-5)
    for actual, expected in zip(encoder.project(clips), (a, m), strict=True):
        assert_near(actual, expected / expected.norm(dim=1, keepdim=True), 1e-5)
    encoder.double()
    exact = encoder.feature_map(clips.double())
    assert_near(exact, features, 1e-9)
    assert_near(encoder.head_a(exact), a, 1e-9)
    assert_near(encoder.head_m(exact), m, 1e-9)


def moco_of(manifest: Manifest, bn_splits: int) -> MoCo:
    """Query and key encoder and queue of a pretraining, as its last checkpoint has them."""
    model = validated(ModelConfig, manifest.config["model"])
    query = Encoder(model.backbone, width=model.width, head=model.head, embedding_dim=model.embedding_dim)
    moco = MoCo(query, embedding_dim=model.embedding_dim, queue_size=manifest.config["moco"]["queue_size"], bn_splits=bn_splits)
    path = manifest.folder / "checkpoints" / "last.safetensors"
    with open_tensors(path, advice="") as view:
        load_state(moco, {name: view.get_tensor(name) for name in view.keys()}, path, advice="")  # noqa: SIM118
    return moco.train()


@pytest.mark.parametrize(("backbone", "head", "size", "ranks"), STEPS)
def test_a_training_step_is_that_of_the_released_code(tmp_path: Path, backbone: str, head: str, size: int, ranks: int) -> None:
    manifest, state = imported(tmp_path, backbone, head)
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(BATCH, 3, SPEED * FRAMES, size, size, generator=generator).double() for _ in range(2))
    fast, shuffles = [True, False, False, True], [[2, 0, 3, 1], [1, 3, 0, 2]]
    expected = released_step(
        backbone,
        head,
        doubled(state),
        query,
        key,
        fast=fast,
        speed=SPEED,
        shuffles=shuffles,
        frames=FRAMES,
        ranks=ranks,
        momentum=MOMENTUM,
    )
    expected.loss.backward()
    assert expected.loss_rsp > 0.1, "the ranking loss is idle"

    config = validated(
        PretrainConfig, {"clip": {"frames": FRAMES, "size": size, "speeds": [SPEED]}, "moco": {"bn_splits": ranks, "queue_size": 3 * BATCH}}
    )
    offsets = torch.arange(SPEED * FRAMES).repeat(BATCH, 1)
    draw = StepDraw(fast=np.array(fast), speed=SPEED, shuffles=np.array(shuffles))
    # Embeddings are compared in float32 also in a float64 network, which limits its loss.
    for dtype, loss_tolerance, state_tolerance, key_tolerance, gradient_tolerance in (
        (torch.float64, 2e-5, 1e-6, 1e-6, 1e-5),
        (torch.float32, 2e-4, 1e-5, 1e-4, 2e-3),
    ):
        moco = moco_of(manifest, ranks).to(dtype)
        moco.queue = moco.queue.float()
        clips = LoadedClips(query.to(dtype), offsets), LoadedClips(key.to(dtype), offsets)
        project = query_projection(moco, torch.device("cpu"))
        figures = rspnet_step(moco, project, *clips, torch.arange(BATCH), draw, config, momentum=MOMENTUM)
        for name in ("loss", "loss_avid", "loss_rsp"):
            assert abs(getattr(figures, name).item() - getattr(expected, name).item()) < loss_tolerance
        assert_near(moco.queue, expected.state["queue"], key_tolerance)
        assert torch.equal(moco.queue_ptr, expected.state["queue_ptr"])
        names = PUBLISHED[backbone].spellings[0]
        wanted_gradients = {name: value.grad for name, value in expected.state.items() if value.grad is not None}
        largest = max(gradient.abs().max().item() for gradient in wanted_gradients.values())
        for prefix, encoder in (("encoder_q.", moco.query), ("encoder_k.", moco.key)):
            for name, value in encoder.state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    assert_near(value, expected.state[prefix + published_name(name, names)].detach(), state_tolerance)
        for name, parameter in moco.query.named_parameters():
            assert parameter.grad is not None
            assert_near(parameter.grad, wanted_gradients["encoder_q." + published_name(name, names)], gradient_tolerance, of=largest)
        # Batch norm of the key encoder has moved, by both passes, and that of the query encoder by one, as rank 0 counts them.
        key_norm, query_norm = (
            next(m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm3d)) for encoder in (moco.key, moco.query)
        )
        assert (int(key_norm.num_batches_tracked), int(query_norm.num_batches_tracked)) == (7 + 2, 7 + 1)
