"""Every backbone against the published sizes, and against the plain re-computation in tests/encoder/reference.py."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, scale_channels
from rspnet_cli.encoder.r3d import R3D, BasicBlock, Bottleneck
from rspnet_cli.encoder.registry import BACKBONES, build_backbone
from rspnet_cli.errors import InputError
from tests.encoder import reference

PUBLISHED = {  # name: parameters, map at 16 x 112 x 112
    "c3d": (27_661_440, (512, 2, 7, 7)),
    "r3d18": (33_203_904, (512, 1, 4, 4)),
    "r2plus1d": (14_365_303, (512, 2, 7, 7)),
    "s3dg": (8_675_744, (1024, 2, 3, 3)),
}
Reference = Callable[[reference.Params, Tensor, reference.Params | None], Tensor]


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """float64, with batch-norm parameters and statistics away from 0 and 1, where mistakes would hide."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(("running_var", "weight")) and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("running_mean", "bias")):
                tensor.uniform_(-0.3, 0.3, generator=generator)
            elif tensor.dtype == torch.float64:
                bound = (6 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=generator)
    return module


def narrow(name: str) -> Backbone:
    if name == "r3d50":
        return R3D(Bottleneck, blocks=(3, 4, 6, 3), width=0.125)
    return build_backbone(name, 0.125)


def clips(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_published_networks_have_their_published_size(name: str) -> None:
    parameters, shape = PUBLISHED[name]
    with torch.device("meta"):
        backbone = build_backbone(name)
        feature_map = backbone(torch.empty(2, 3, 16, 112, 112))
    assert num_parameters(backbone) == parameters
    assert feature_map.shape == (2, *shape)
    assert backbone.channels == BACKBONES[name].channels == shape[0]


@pytest.mark.parametrize(
    ("block", "blocks", "parameters", "channels"),
    [(BasicBlock, (3, 4, 6, 3), 63_513_536, 512), (Bottleneck, (3, 4, 6, 3), 46_198_976, 2048)],
)
def test_deeper_resnets_have_their_published_size(
    block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, ...], parameters: int, channels: int
) -> None:
    with torch.device("meta"):
        backbone = R3D(block, blocks=blocks, width=1.0)
        feature_map = backbone(torch.empty(1, 3, 16, 112, 112))
    assert num_parameters(backbone) == parameters
    assert feature_map.shape == (1, channels, 1, 4, 4)


def test_s3dg_at_the_published_clip_size_of_finetuning() -> None:
    with torch.device("meta"):
        assert build_backbone("s3dg")(torch.empty(1, 3, 64, 224, 224)).shape == (1, 1024, 8, 7, 7)


def test_planes_between_the_factors_of_r2plus1d() -> None:
    with torch.device("meta"):
        backbone = build_backbone("r2plus1d")
    planes = {name.removesuffix(".bn.weight"): len(p) for name, p in backbone.named_parameters() if name.endswith(".bn.weight")}
    assert planes == {
        "conv1": 83,
        "conv2.block1.conv1": 144,
        "conv2.block1.conv2": 144,
        "conv3.block1.downsampleconv": 42,  # 64 * 128 / (64 + 128), rounded down
        "conv3.block1.conv1": 230,
        "conv3.block1.conv2": 288,
        "conv4.block1.downsampleconv": 85,
        "conv4.block1.conv1": 460,
        "conv4.block1.conv2": 576,
        "conv5.block1.downsampleconv": 170,
        "conv5.block1.conv1": 921,
        "conv5.block1.conv2": 1152,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c3d", {"conv1.bias", "conv3a.weight", "bn5b.running_var", "conv5a.weight"}),
        (
            "r3d18",
            {"conv1.weight", "bn1.bias", "layer1.1.conv2.weight", "layer2.0.downsample.0.weight", "layer4.0.downsample.1.running_mean"},
        ),
        (
            "r2plus1d",
            {"conv1.spatial_conv.weight", "bn1.weight", "conv3.block1.downsampleconv.bn.bias", "conv5.block1.downsamplebn.weight"},
        ),
        (
            "s3dg",
            {
                "feature.sepConv1.sep_conv.0.conv3d.weight",
                "feature.basicConv3d.bn.weight",
                "feature.sep_conv2.excitation.bias",
                "feature.sepInc_4f.branch2.1.sep_conv.1.bn.running_var",
                "feature.sepInc_5c.branch3.1.conv3d.weight",
            },
        ),
    ],
)
def test_parameters_are_named_as_in_the_published_checkpoints(name: str, expected: set[str]) -> None:
    with torch.device("meta"):
        names = set(build_backbone(name).state_dict())
    assert expected <= names


@pytest.mark.parametrize("name", [*BACKBONES, "r3d50"])
def test_forward_gradients_and_running_statistics_equal_the_plain_network(name: str) -> None:
    backbone = randomised(narrow(name), seed=1).train()
    params = {key: value.detach().clone() for key, value in backbone.state_dict().items()}
    trained = {key for key, _ in backbone.named_parameters()}
    for key in trained:
        params[key].requires_grad_()
    # Odd sizes: every pool and stride has a remainder to treat in its own way.
    x = clips(2, 3, 17, 67, 53)
    plain_x = x.clone().requires_grad_()
    x.requires_grad_()
    stats: reference.Params = {}
    plain: Reference = getattr(reference, name)
    expected = plain(params, plain_x, stats)
    actual = backbone(x)
    assert actual.shape == expected.shape
    # float64: both orders of summation agree to about 1e-13 of the values, and batch norm over few values costs some digits.
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)

    weights = clips(*actual.shape)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    assert plain_x.grad is not None
    torch.testing.assert_close(x.grad, plain_x.grad, rtol=1e-6, atol=1e-8)
    for key, parameter in backbone.named_parameters():
        gradient = params[key].grad
        assert gradient is not None
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            parameter.grad, gradient, rtol=1e-6, atol=1e-7 * max(scale, 1.0), msg=lambda text, key=key: f"{key}: {text}"
        )

    state = backbone.state_dict()
    assert {key for key in state if "running" in key} == set(stats)
    for key, value in stats.items():
        torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", [*BACKBONES, "r3d50"])
def test_evaluation_uses_the_running_statistics(name: str) -> None:
    backbone = randomised(narrow(name), seed=2).eval()
    params = dict(backbone.state_dict())
    x = clips(1, 3, 16, 48, 48)
    plain: Reference = getattr(reference, name)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), plain(params, x, None), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, params[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", BACKBONES)
def test_the_memory_format_changes_nothing_but_the_speed(name: str) -> None:
    backbone = randomised(narrow(name), seed=3).train()
    other = copy.deepcopy(backbone).to(memory_format=torch.channels_last_3d)
    x = clips(2, 3, 16, 48, 48)
    expected = backbone(x)
    actual = other(x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)
    expected.square().sum().backward()
    actual.square().sum().backward()
    for (key, first), (_, second) in zip(backbone.named_parameters(), other.named_parameters(), strict=True):
        assert first.grad is not None
        scale = float(first.grad.abs().max())
        torch.testing.assert_close(
            second.grad, first.grad, rtol=1e-6, atol=1e-7 * max(scale, 1.0), msg=lambda text, key=key: f"{key}: {text}"
        )


def test_s3dg_never_reads_odd_frames() -> None:
    backbone = randomised(narrow("s3dg"), seed=4).eval()
    x = clips(1, 3, 16, 64, 64)
    other = x.clone()
    other[:, :, 1::2] = 7.0
    with torch.no_grad():
        assert torch.equal(backbone(x), backbone(other))
        other[:, :, 2] = 7.0
        assert not torch.equal(backbone(x), backbone(other))


@pytest.mark.parametrize("name", BACKBONES)
def test_no_parameter_is_without_gradient_in_float32(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(name, 0.25)
    backbone(clips(2, 3, 16, 64, 64).float()).square().mean().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        # A bias before batch norm has no effect, so its gradient is rounding noise; every other one is felt.
        if not (name == "c3d" and key.startswith("conv") and key.endswith("bias")):
            assert parameter.grad.abs().max() > 0, key


def test_resnets_start_from_kaiming_normal_fan_out() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone("r3d18", 0.5)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv3d)]
    assert len(convolutions) == 20
    for module in convolutions:
        expected = (2 / (module.out_channels * module.weight[0, 0].numel())) ** 0.5
        spread = expected / (2 * module.weight.numel()) ** 0.5  # of the standard deviation, as estimated
        assert abs(float(module.weight.detach().std()) - expected) < 6 * spread
        assert module.bias is None


def test_s3dg_has_its_own_batch_norm_and_the_others_the_usual_one() -> None:
    for name in BACKBONES:
        with torch.device("meta"):
            norms = [module for module in build_backbone(name).modules() if isinstance(module, nn.BatchNorm3d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.001) if name == "s3dg" else (1e-5, 0.1)}


@pytest.mark.parametrize(("channels", "width", "expected"), [(64, 0.25, 16), (83, 1.0, 83), (24, 0.25, 8), (96, 0.3, 32), (512, 2.0, 1024)])
def test_narrow_channels_are_multiples_of_8(channels: int, width: float, expected: int) -> None:
    assert scale_channels(channels, width) == expected


@pytest.mark.parametrize("name", BACKBONES)
def test_width_scales_every_layer(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, 0.25)
        feature_map = backbone(torch.empty(1, 3, 16, 64, 64))
    assert backbone.channels == feature_map.shape[1] == BACKBONES[name].channels // 4
    assert num_parameters(backbone) < PUBLISHED[name][0] / 12
    assert all(parameter.shape[0] % 8 == 0 for key, parameter in backbone.named_parameters() if name != "r2plus1d" or "conv" not in key)
    if name == "r3d18":
        assert backbone.conv1.out_channels == 16


def test_every_convolution_is_the_one_that_is_right_in_bfloat16() -> None:
    for name in BACKBONES:
        with torch.device("meta"):
            backbone = build_backbone(name)
        assert all(isinstance(module, Conv3d) for module in backbone.modules() if isinstance(module, nn.Conv3d))


def test_an_unknown_backbone_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"backbone 'r3d19' is unknown: choose one of c3d, r3d18, r2plus1d, s3dg\."):
        build_backbone("r3d19")


def test_the_table_of_backbones_does_not_import_torch() -> None:
    code = "import sys; from rspnet_cli.encoder.registry import BACKBONES; sys.exit('torch' in sys.modules or len(BACKBONES) != 4)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
