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

# Every backbone and every head once.
PAIRS = [("c3d", "conv"), ("r3d18", "convbn"), ("r2plus1d", "mlp"), ("s3dg", "linear")]
FRAMES, SIZE, BATCH, SPEED = 8, 32, 4, 2
MOMENTUM = 0.9  # far from 1, so that the key encoder moves


def imported(tmp_path: Path, backbone: str, head: str) -> tuple[Manifest, dict[str, Tensor]]:
    """A released checkpoint file of random tensors, imported; and the tensors."""
    state = released.pretrained(backbone, head, queue=3 * BATCH, seed=3)
    state["queue_ptr"] = torch.tensor([BATCH])
    torch.save(released.checkpoint(state, released.ARCH[backbone]), tmp_path / "model_best.pth.tar")
    manifest = import_checkpoint(tmp_path / "model_best.pth.tar", out=tmp_path / "pretrain", settings={"model.width": 0.125})
    return manifest, state


def doubled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in state.items()}


def assert_near(actual: Tensor, expected: Tensor, share: float) -> None:
    """Within a share of the largest value."""
    difference = (actual.double() - expected.double()).abs().max().item()
    assert difference <= share * expected.abs().max().item(), f"{difference} of {expected.abs().max().item()}"


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
def test_feature_maps_and_head_outputs_are_those_of_the_tensors(tmp_path: Path, backbone: str, head: str) -> None:
    manifest, state = imported(tmp_path, backbone, head)
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
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
    queue_size = manifest.config["moco"]["queue_size"]
    moco = MoCo(query, embedding_dim=model.embedding_dim, queue_size=queue_size, bn_splits=bn_splits)
    path = manifest.folder / "checkpoints" / "last.safetensors"
    with open_tensors(path, advice="") as view:
        load_state(moco, {name: view.get_tensor(name) for name in view.keys()}, path, advice="")  # noqa: SIM118
    return moco.train()


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_step_is_that_of_the_released_code(tmp_path: Path, backbone: str, head: str, ranks: int) -> None:
    manifest, state = imported(tmp_path, backbone, head)
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(BATCH, 3, SPEED * FRAMES, SIZE, SIZE, generator=generator) for _ in range(2))
    fast, shuffles = [True, False, False, True], [[2, 0, 3, 1], [1, 3, 0, 2]]
    expected = released_step(
        backbone,
        head,
        doubled(state),
        query.double(),
        key.double(),
        fast=fast,
        speed=SPEED,
        shuffles=shuffles,
        frames=FRAMES,
        ranks=ranks,
        momentum=MOMENTUM,
    )
    expected.loss.backward()

    moco = moco_of(manifest, ranks)
    config = validated(
        PretrainConfig,
        {
            "clip": {"frames": FRAMES, "size": SIZE, "speeds": [SPEED]},
            "moco": {"bn_splits": ranks, "queue_size": 3 * BATCH},
        },
    )
    offsets = torch.arange(SPEED * FRAMES).repeat(BATCH, 1)
    draw = StepDraw(fast=np.array(fast), speed=SPEED, shuffles=np.array(shuffles))
    project = query_projection(moco, torch.device("cpu"))
    clips = LoadedClips(query, offsets), LoadedClips(key, offsets)
    loss, figures = rspnet_step(moco, project, *clips, torch.arange(BATCH), draw, config, momentum=MOMENTUM)
    loss.backward()

    for actual, wanted in ((loss, expected.loss), (figures.loss_avid, expected.loss_avid), (figures.loss_rsp, expected.loss_rsp)):
        assert abs(actual.item() - wanted.item()) < 2e-4
    assert expected.loss_rsp > 0.1, "the ranking loss is idle"
    assert_near(moco.queue, expected.state["queue"], 1e-5)
    assert torch.equal(moco.queue_ptr, expected.state["queue_ptr"])
    names = PUBLISHED[backbone].spellings[0]
    for prefix, encoder in (("encoder_q.", moco.query), ("encoder_k.", moco.key)):
        gradients = {name: value.grad for name, value in encoder.named_parameters()}
        for name, value in encoder.state_dict().items():
            wanted = expected.state[prefix + published_name(name, names)]
            if name.endswith("num_batches_tracked"):
                continue
            assert_near(value, wanted.detach(), 1e-5)
            if gradients.get(name) is not None:
                assert wanted.grad is not None
                assert_near(gradients[name], wanted.grad, 2e-3)
    # Batch norm of the key encoder has moved, by both passes, and that of the query encoder by one.
    key_norm, query_norm = (next(m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm3d)) for encoder in (moco.key, moco.query))
    assert (int(key_norm.num_batches_tracked), int(query_norm.num_batches_tracked)) == (7 + 2 * ranks, 7 + ranks)
