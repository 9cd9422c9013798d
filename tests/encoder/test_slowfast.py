"""What is particular to SlowFast: its two frame rates, the one map of both pathways, its initial weights."""

from __future__ import annotations

import pytest
import torch

from rspnet_cli.encoder.encoder import pool_features
from rspnet_cli.encoder.registry import build_backbone
from rspnet_cli.encoder.slowfast import slow_frames
from tests.encoder import reference
from tests.encoder.test_backbones import clips, narrow, randomised


@pytest.mark.parametrize("frames", [8, 24, 32, 40, 64, 120])
def test_the_slow_pathway_sees_an_eighth_of_the_frames_as_a_truncated_linspace_has_them(frames: int) -> None:
    numbered = torch.arange(frames).view(1, 1, frames, 1, 1)
    assert torch.equal(slow_frames(numbered).flatten(), torch.linspace(0, frames - 1, frames // 8).long())


def test_the_average_of_slowfasts_map_is_what_its_published_head_reads() -> None:
    backbone = randomised(narrow("slowfast-r50"), seed=6).eval()
    x = clips(2, 3, 24, 40, 56)
    with torch.no_grad():
        slow, fast = reference.slowfast_pathways(dict(backbone.state_dict()), x, None)
        feature_map = backbone(x)
    assert (slow.shape[2], fast.shape[2], feature_map.shape[2]) == (3, 24, 3)
    published = torch.cat((slow.mean((2, 3, 4)), fast.mean((2, 3, 4))), 1)
    torch.testing.assert_close(pool_features(feature_map, "avg"), published.float(), rtol=1e-6, atol=1e-6)


def test_slowfasts_blocks_start_as_their_shortcuts() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone("slowfast-r50", 0.125)
    zero = {key for key, value in backbone.named_parameters() if key.endswith("bn.weight") and not value.any()}
    assert len(zero) == 2 * 16
    assert zero == {key for key in backbone.state_dict() if key.endswith("branch2.c_bn.weight")}
