"""Every backbone against the published sizes, and against the plain re-computation in tests/encoder/reference.py."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from rspnet_cli.encoder.conv import Backbone, Conv3d, scale_channels
from rspnet_cli.encoder.registry import BACKBONES, ClipSize, build_backbone, check_clip_size
from rspnet_cli.errors import InputError
from tests.encoder import reference

# Parameters without the classifier, map at 16 x 112 x 112. With one for 400 classes tsm-r50 has 24.33 M, slowfast-r50 34.48 M and mfnet
# 8.00 M, as their authors count them (and PyTorchVideo's model zoo for SlowFast 4x16); tsm-r18 is torchvision's resnet18 without `fc`.
PUBLISHED = {
    "c3d": (27_661_440, (512, 2, 7, 7)),
    "r3d18": (33_203_904, (512, 1, 4, 4)),
    "r3d34": (63_513_536, (512, 1, 4, 4)),
    "r3d50": (46_198_976, (2048, 1, 4, 4)),
    "r2plus1d": (14_365_303, (512, 2, 7, 7)),
    "s3dg": (8_675_744, (1024, 2, 3, 3)),
    "tsm-r18": (11_176_512, (512, 16, 4, 4)),
    "tsm-r50": (23_508_032, (2048, 16, 4, 4)),
    "slowfast-r50": (33_558_216, (2304, 2, 4, 4)),
    "mfnet": (7_688_768, (768, 8, 4, 4)),
}
# Odd sizes: every pool and stride has a remainder to treat in its own way. Few frames where time stays whole, so that it remains fast.
ODD_FRAMES = {"r3d34": 9, "r3d50": 9, "tsm-r18": 3, "tsm-r50": 3, "slowfast-r50": 24, "mfnet": 5}


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


NAMES = {  # of published checkpoints; shapes where a wrong kernel or stride would not show in the number of parameters
    "c3d": {"conv1.bias": (64,), "conv3a.weight": (256, 128, 3, 3, 3), "bn5b.running_var": (512,), "conv5a.weight": (512, 512, 3, 3, 3)},
    "r3d18": {
        "conv1.weight": (64, 3, 7, 7, 7),
        "bn1.bias": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1, 1),
        "layer4.0.downsample.1.running_mean": (512,),
    },
    "r3d34": {"layer3.5.conv2.weight": (256, 256, 3, 3, 3), "layer4.2.bn2.bias": (512,)},
    "r3d50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1, 1),
        "layer3.5.conv3.weight": (1024, 256, 1, 1, 1),
        "layer4.2.bn3.running_var": (2048,),
    },
    "r2plus1d": {
        "conv1.spatial_conv.weight": (83, 3, 1, 7, 7),
        "bn1.weight": (64,),
        "conv3.block1.downsampleconv.bn.bias": (42,),
        "conv5.block1.downsamplebn.weight": (512,),
    },
    "s3dg": {
        "feature.sepConv1.sep_conv.0.conv3d.weight": (64, 3, 1, 7, 7),
        "feature.basicConv3d.bn.weight": (64,),
        "feature.sep_conv2.excitation.bias": (192,),
        "feature.sepInc_4f.branch2.1.sep_conv.1.bn.running_var": (128,),
        "feature.sepInc_5c.branch3.1.conv3d.weight": (128, 832, 1, 1, 1),
    },
    "tsm-r18": {
        "conv1.weight": (64, 3, 1, 7, 7),
        "layer1.1.conv2.weight": (64, 64, 1, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1, 1),
        "layer4.0.downsample.1.running_mean": (512,),
    },
    "tsm-r50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1, 1),
        "layer3.5.conv3.weight": (1024, 256, 1, 1, 1),
        "layer4.2.bn3.running_var": (2048,),
    },
    "slowfast-r50": {
        "s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7),
        "s1.pathway1_stem.conv.weight": (8, 3, 5, 7, 7),
        "s1.pathway1_stem.bn.bias": (8,),
        "s1_fuse.conv_f2s.weight": (16, 8, 5, 1, 1),
        "s1_fuse.bn.running_mean": (16,),
        "s2.pathway0_res0.branch1.weight": (256, 80, 1, 1, 1),
        "s2.pathway0_res0.branch2.a.weight": (64, 80, 1, 1, 1),
        "s2.pathway1_res2.branch2.a.weight": (8, 32, 3, 1, 1),
        "s3.pathway0_res3.branch2.a.weight": (128, 512, 1, 1, 1),
        "s4.pathway0_res0.branch1_bn.weight": (1024,),
        "s4.pathway0_res0.branch2.a.weight": (256, 640, 3, 1, 1),
        "s4_fuse.conv_f2s.weight": (256, 128, 5, 1, 1),
        "s5.pathway0_res2.branch2.b.weight": (512, 512, 1, 3, 3),
        "s5.pathway1_res2.branch2.c_bn.running_var": (256,),
    },
    "mfnet": {
        "conv1.conv.weight": (16, 3, 3, 5, 5),
        "conv1.bn.weight": (16,),
        "conv2.B01.conv_i1.conv.weight": (24, 16, 1, 1, 1),
        "conv2.B01.conv_m1.conv.weight": (96, 1, 3, 3, 3),
        "conv2.B01.conv_m2.conv.weight": (96, 96, 1, 1, 1),
        "conv2.B01.conv_w1.bn.running_mean": (16,),
        "conv4.B06.conv_m2.conv.weight": (384, 24, 1, 3, 3),
        "conv5.B03.conv_i2.conv.weight": (768, 192, 1, 1, 1),
        "tail.bn.bias": (768,),
    },
}


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_are_named_as_in_the_published_checkpoints(name: str) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in build_backbone(name).state_dict().items()}
    assert NAMES[name].items() <= shapes.items()


@pytest.mark.parametrize("name", BACKBONES)
def test_forward_gradients_and_running_statistics_equal_the_plain_network(name: str) -> None:
    backbone = randomised(narrow(name), seed=1).train()
    params = {key: value.detach().clone() for key, value in backbone.state_dict().items()}
    trained = {key for key, _ in backbone.named_parameters()}
    for key in trained:
        params[key].requires_grad_()
    x = clips(2, 3, ODD_FRAMES.get(name, 17), 67, 53)
    plain_x = x.clone().requires_grad_()
    x.requires_grad_()
    stats: reference.Params = {}
    expected = reference.BACKBONES[name](params, plain_x, stats)
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


@pytest.mark.parametrize("name", BACKBONES)
def test_evaluation_uses_the_running_statistics(name: str) -> None:
    backbone = randomised(narrow(name), seed=2).eval()
    params = dict(backbone.state_dict())
    x = clips(1, 3, 16, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), reference.BACKBONES[name](params, x, None), rtol=1e-9, atol=1e-9)
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
def test_the_smallest_clips_work_and_smaller_ones_are_refused(name: str) -> None:
    smallest, step = BACKBONES[name].smallest, BACKBONES[name].frames_step
    with torch.device("meta"):
        backbone = build_backbone(name, 0.125).eval()
    for frames, side in (smallest, (smallest.frames + step, smallest.side + 1), BACKBONES[name].clip):
        check_clip_size(name, frames=frames, side=side)
        assert all(backbone(torch.empty(1, 3, frames, side, side, device="meta")).shape)
    for size in {smallest._replace(frames=smallest.frames - 1), smallest._replace(side=smallest.side - 1), ClipSize(12, 64)}:
        if size == ClipSize(12, 64) and step == 1:
            continue
        with pytest.raises(
            InputError, match=rf"The backbone {name} cannot take clips of {size.frames} frames and {size.side} pixels: clip"
        ):
            check_clip_size(name, frames=size.frames, side=size.side)
        with pytest.raises(RuntimeError):  # the limits are not stricter than the network
            backbone(torch.empty(1, 3, *size, size.side, device="meta"))


def test_a_refused_clip_size_names_every_limit() -> None:
    with pytest.raises(InputError, match=r"4 frames and 8 pixels: clip.frames must be at least 8 and clip.size must be at least 16\.$"):
        check_clip_size("c3d", frames=4, side=8)
    with pytest.raises(InputError, match=r"20 frames and 112 pixels: clip.frames must be a multiple of 8\.$"):
        check_clip_size("slowfast-r50", frames=20, side=112)


@pytest.mark.parametrize("name", BACKBONES)
def test_no_parameter_is_without_gradient_in_float32(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(name, 0.25)
    for key, parameter in backbone.named_parameters():
        if key.endswith("c_bn.weight"):  # SlowFast's begin at 0, which lets no gradient through
            nn.init.ones_(parameter)
    backbone(clips(2, 3, 16, 64, 64).float()).square().mean().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        # A bias before batch norm has no effect, so its gradient is rounding noise; every other one is felt.
        if not (name == "c3d" and key.startswith("conv") and key.endswith("bias")):
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize(("name", "num_convolutions"), [("r3d18", 20), ("r3d50", 53), ("tsm-r18", 20), ("slowfast-r50", 110)])
def test_resnets_start_from_kaiming_normal_fan_out(name: str, num_convolutions: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(name, 0.5)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv3d)]
    assert len(convolutions) == num_convolutions
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
    with pytest.raises(InputError, match=r"no backbone 'r3d19': use one of c3d, r3d18, .*, mfnet\."):
        build_backbone("r3d19")


def test_the_table_of_backbones_does_not_import_torch() -> None:
    code = "import sys; from rspnet_cli.encoder.registry import BACKBONES; sys.exit('torch' in sys.modules or len(BACKBONES) != 10)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
