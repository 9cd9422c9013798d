"""Activations that are computed again instead of kept: the same result, statistics that move once, and far less memory."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone
from rspnet_cli.encoder.registry import BACKBONES, build_backbone

FRAMES, SIZE = 8, 24


def pass_and_back(backbone: nn.Module, clips: Tensor, *, precision: str = "fp32") -> tuple[Tensor, int]:
    """The feature map of a training pass, and the bytes that it kept for the way back, beside parameters and clips."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.data_ptr() != clips.data_ptr():
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    with autocast, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        feature_map = backbone(clips)
    feature_map.float().square().mean().backward()
    return feature_map.detach(), sum(kept.values())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_the_same_gradients_and_statistics_and_keeps_only_what_blocks_begin_with(name: str) -> None:
    plain = build_backbone(name, 0.1).train()
    sparing = copy.deepcopy(plain)
    sparing.checkpoint_activations = True
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE)
    random = torch.get_rng_state()
    for _ in range(2):  # statistics that moved before move on
        expected, kept = pass_and_back(plain, clips)
        actual, kept_sparing = pass_and_back(sparing, clips)
        # Equal bits, because on a CPU the same sums are made again in the same order.
        assert torch.equal(actual, expected)
    assert plain.state_dict().keys() == sparing.state_dict().keys()
    for (key, one), other in zip(plain.state_dict().items(), sparing.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    for (key, parameter), other in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, other.grad), key
    assert {int(value) for key, value in sparing.state_dict().items() if key.endswith("num_batches_tracked")} == {2}
    assert kept_sparing < 0.25 * kept
    assert torch.equal(torch.get_rng_state(), random)
    with torch.no_grad():  # nothing would be computed again
        assert torch.equal(sparing.eval()(clips), plain.eval()(clips))


def test_in_bfloat16_it_is_computed_again_in_bfloat16() -> None:
    plain = build_backbone("r3d18", 0.1).train()
    sparing = copy.deepcopy(plain)
    sparing.checkpoint_activations = True
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE)
    assert torch.equal(pass_and_back(plain, clips, precision="bf16")[0], pass_and_back(sparing, clips, precision="bf16")[0])
    for one, other in zip(plain.parameters(), sparing.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts, as dynamo imports them
def test_compiled_it_is_the_same() -> None:
    plain = build_backbone("c3d", 0.1).train()
    sparing = copy.deepcopy(plain)
    sparing.checkpoint_activations = True
    sparing.compile(backend="aot_eager")  # all of torch.compile but the generated code
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE)
    assert torch.equal(pass_and_back(plain, clips)[0], pass_and_back(sparing, clips)[0])
    for (key, one), other in zip(plain.state_dict().items(), sparing.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    for (key, parameter), other in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), key


class Noisy(Backbone):
    """Drops what it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self, clips: Tensor) -> Tensor:
        return self.run(lambda x: nn.functional.dropout(x * self.weight, 0.5), clips)


def test_what_is_drawn_in_a_block_is_drawn_again() -> None:
    noisy = Noisy()
    noisy.checkpoint_activations = True
    state = torch.get_rng_state()
    out = noisy(torch.ones(64))
    torch.rand(3)
    after = torch.get_rng_state()
    out.sum().backward()
    assert torch.equal(noisy.weight.grad, out.detach())
    assert 0 < math.fsum(out.tolist()) < 128, "nothing or everything was dropped"
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(after, state)
