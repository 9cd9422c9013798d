"""The network that is fine-tuned: pooled features through one linear layer, with the backbone trained or frozen."""

import copy

import pytest
import torch

from rspnet_cli.encoder.classifier import Classifier
from rspnet_cli.encoder.registry import build_backbone


def classifier(*, frozen: bool = False) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build_backbone("r3d18", 0.1), num_classes=5, frozen=frozen)


CLIPS = torch.randn(3, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def test_logits_are_one_linear_layer_on_the_mean_of_the_feature_map() -> None:
    net = classifier().eval()
    logits = net(CLIPS)
    for clip, found in zip(CLIPS, logits, strict=True):
        mean = net.backbone(clip[None])[0].flatten(1).mean(dim=1)  # (C,)
        expected = [sum(w * x for w, x in zip(row, mean, strict=True)) + b for row, b in zip(net.fc.weight, net.fc.bias, strict=True)]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert set(net.state_dict()) - {f"backbone.{name}" for name in net.backbone.state_dict()} == {"fc.weight", "fc.bias"}


def test_the_last_layer_works_in_float32_also_under_autocast() -> None:
    net = classifier().eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(CLIPS)
        features = net.backbone(CLIPS).mean((2, 3, 4), dtype=torch.float32)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, features @ net.fc.weight.T + net.fc.bias, rtol=1e-5, atol=1e-6)
    assert (logits != logits.bfloat16().float()).any(), "rounded to bfloat16"


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_backbone_stays_as_in_evaluation(frozen: bool) -> None:
    net = classifier(frozen=frozen)
    before = copy.deepcopy(net.state_dict())
    net.train()
    assert net.fc.training
    assert net.backbone.training is not frozen
    assert all(module.training is not frozen for module in net.backbone.modules())
    torch.nn.functional.cross_entropy(net(CLIPS), torch.tensor([0, 1, 2])).backward()
    assert all((parameter.grad is None) == frozen for parameter in net.backbone.parameters())
    assert net.fc.weight.grad is not None
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert bool(changed) is not frozen  # batch-norm statistics
    assert all("running" in name or "num_batches" in name for name in changed)
    assert not net.eval().backbone.training
