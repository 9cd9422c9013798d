"""Projection heads and the encoder that holds them."""

from __future__ import annotations

import pytest
import torch

from rspnet_cli.encoder.encoder import Encoder, pool_features
from rspnet_cli.encoder.heads import HEADS, build_head
from rspnet_cli.errors import InputError
from tests.encoder import reference
from tests.encoder.test_backbones import clips, num_parameters, randomised

PARAMETERS = {  # of one head, C = 32, D = 24
    "linear": 32 * 24 + 24,
    "mlp": 32 * 32 + 32 + 32 * 24 + 24,
    "conv": 2 * (32 * 32 * 27 + 32) + 32 * 24 + 24,
    "convbn": (32 * 32 * 27 + 32) + 2 * 32 + 32 * 24 + 24,
}
NAMES = {
    "linear": {"2.weight", "2.bias"},
    "mlp": {"2.weight", "2.bias", "4.weight", "4.bias"},
    "conv": {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "linear.weight", "linear.bias"},
    "convbn": {"conv1.weight", "conv1.bias", "bn.weight", "bn.bias", "linear.weight", "linear.bias"},
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_heads_equal_the_plain_computation(kind: str, training: bool) -> None:
    head = randomised(build_head(kind, 32, 24), seed=1).train(training)
    assert num_parameters(head) == PARAMETERS[kind]
    assert {name for name, _ in head.named_parameters()} == NAMES[kind]
    params = {key: value.detach().clone() for key, value in head.state_dict().items()}
    for key in NAMES[kind]:
        params[key].requires_grad_()
    feature_map = clips(3, 32, 2, 3, 5)
    before = feature_map.clone()
    stats: reference.Params | None = {} if training else None
    expected = reference.head(kind, params, feature_map, stats)
    actual = head(feature_map)
    assert actual.shape == (3, 24)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(feature_map, before), "both heads read the same map: neither may write into it"
    actual.square().sum().backward()
    expected.square().sum().backward()
    for key, parameter in head.named_parameters():
        torch.testing.assert_close(parameter.grad, params[key].grad, rtol=1e-7, atol=1e-8)
    for key, value in (stats or {}).items():
        torch.testing.assert_close(head.state_dict()[key], value, rtol=1e-9, atol=1e-10)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match="projection head 'cone' is unknown: choose one of linear, mlp, conv, convbn"):
        build_head("cone", 8, 8)


def build_encoder(head: str = "linear") -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder("r3d18", width=0.125, head=head, embedding_dim=24)


def test_the_state_has_a_part_for_the_backbone_and_one_for_each_head() -> None:
    encoder = build_encoder("convbn")
    assert {key.partition(".")[0] for key in encoder.state_dict()} == {"backbone", "head_a", "head_m"}
    assert encoder.channels == 64
    assert not torch.equal(encoder.head_a.conv1.weight, encoder.head_m.conv1.weight)


def test_features_are_the_average_of_the_feature_map() -> None:
    encoder = build_encoder().eval()
    x = clips(2, 3, 8, 40, 40).float()
    feature_map = encoder.feature_map(x)
    assert feature_map.shape == (2, 64, 1, 2, 2)
    torch.testing.assert_close(encoder(x), feature_map.flatten(2).sum(2) / 4)


@pytest.mark.parametrize(("backbone", "shape", "limit"), [("c3d", (4, 40, 40), "clip.frames"), ("s3dg", (8, 40, 16), "clip.size")])
def test_clips_that_a_backbone_cannot_take_are_refused(backbone: str, shape: tuple[int, int, int], limit: str) -> None:
    encoder = Encoder(backbone, width=0.125)
    for method in (encoder.forward, encoder.feature_map, encoder.project):
        with pytest.raises(InputError, match=f"The backbone {backbone} cannot take clips of .*: {limit} must be at least"):
            method(torch.zeros(2, 3, *shape))


@pytest.mark.parametrize("head", HEADS)
def test_embeddings_come_from_one_map_through_two_heads_and_have_length_one(head: str) -> None:
    encoder = build_encoder(head).eval()
    x = clips(3, 3, 8, 40, 40).float()
    feature_map = encoder.feature_map(x)
    for embedding, projection in zip(encoder.project(x), (encoder.head_a, encoder.head_m), strict=True):
        assert embedding.shape == (3, 24)
        raw = projection(feature_map)
        torch.testing.assert_close(embedding, raw / raw.square().sum(1, keepdim=True).sqrt())
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_embeddings_and_features_are_float32_under_bfloat16_autocast() -> None:
    encoder = build_encoder("convbn").eval()
    x = clips(1, 3, 4, 16, 16).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(x).dtype == torch.float32
        appearance, motion = encoder.project(x)
    assert appearance.dtype == motion.dtype == torch.float32
    torch.testing.assert_close(appearance.norm(dim=1), torch.ones(1))


def test_pooling_is_over_time_and_space() -> None:
    feature_map = clips(2, 5, 3, 4, 2)
    flat = feature_map.reshape(2, 5, 24)
    torch.testing.assert_close(pool_features(feature_map, "avg"), (flat.sum(2) / 24).float())
    assert torch.equal(pool_features(feature_map, "max"), flat.max(2).values.float())
    assert pool_features(feature_map.bfloat16(), "max").dtype == torch.float32
    with pytest.raises(ValueError, match="'avg' or 'max'"):
        pool_features(feature_map, "mean")
