"""Published names, shapes and widths of the backbones, against lists written from the facts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.heads import HEADS
from rspnet_cli.encoder.published import (
    PUBLISHED,
    backbone_tensors,
    find_backbone,
    find_head,
    find_width,
    is_buffer,
    published_name,
)
from rspnet_cli.encoder.registry import BACKBONES
from rspnet_cli.errors import InputError
from tests import released
from tests.sentences import refused


def meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def published(backbone: str, width: float = 1.0) -> dict[str, torch.Tensor]:
    """A backbone's tensors as the released code names them, with the unused last layer."""
    return meta(released.shapes(released.BACKBONES[backbone](released.scaled(width))))


def test_every_backbone_has_a_row_and_every_row_a_list_to_compare_with() -> None:
    assert PUBLISHED.keys() == BACKBONES.keys() == released.BACKBONES.keys()
    assert {name: row.arch for name, row in PUBLISHED.items()} == released.ARCH


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", PUBLISHED)
def test_names_shapes_and_order_are_those_of_the_released_code(backbone: str, head: str) -> None:
    with torch.device("meta"):
        encoder = Encoder(backbone, head=head)
    spelling = PUBLISHED[backbone].spellings[0]
    state = {published_name(name, spelling): tuple(value.shape) for name, value in encoder.state_dict().items()}
    layer = PUBLISHED[backbone].last_layers[0]
    expected = {f"encoder.{name}": tuple(value.shape) for name, value in published(backbone).items() if not name.startswith(f"{layer}.")}
    for part in ("fc1.", "fc2."):
        expected |= released.prefixed(released.shapes(released.head(head, encoder.channels, 128)), part)
    if backbone.startswith("tsm"):  # kernels without a time axis
        state = {
            name: (*shape[:2], *shape[3:]) if name.startswith("encoder.") and len(shape) == 5 else shape for name, shape in state.items()
        }
    assert list(state.items()) == list(expected.items())
    # The optimiser numbers parameters in this order.
    assert [name for name, _ in encoder.named_parameters()] == [name for name in encoder.state_dict() if not is_buffer(name)]


@pytest.mark.parametrize("backbone", PUBLISHED)
@pytest.mark.parametrize("width", [1.0, 0.3])
def test_a_backbone_and_its_width_are_found_by_names_and_shapes(backbone: str, width: float) -> None:
    tensors = published(backbone, width)
    found, spelling = find_backbone(tensors, "a.pth")
    assert found == backbone
    assert find_width(backbone, tensors, spelling, None, "a.pth") == width
    assert find_width(backbone, tensors, spelling, width, "a.pth") == width


@given(width=st.floats(0.05, 3.0))
@settings(max_examples=8)
def test_the_found_width_gives_the_same_network(width: float) -> None:
    tensors = {name: value for name, value in backbone_tensors("r2plus1d", width).items() if not name.endswith("num_batches_tracked")}
    _, spelling = find_backbone(tensors, "a.pth")
    found = find_width("r2plus1d", tensors, spelling, None, "a.pth")
    assert {name: value.shape for name, value in backbone_tensors("r2plus1d", found).items() if name in tensors} == {
        name: value.shape for name, value in tensors.items()
    }


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_found_by_its_names(kind: str) -> None:
    names = released.shapes(released.head(kind, 16, 4))
    assert find_head(names, "a.pth") == kind
    assert find_head([name for name in names if not name.endswith("num_batches_tracked")], "a.pth") == kind
    with pytest.raises(InputError) as caught:
        find_head([*names, "5.weight"], "a.pth")
    refused(caught.value, "a.pth has a projection head of no known kind", *HEADS)


def without(tensors: dict[str, torch.Tensor], *parts: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            lambda: without(published("r3d18"), "downsample"),
            ("nearest to the backbone r3d18", "lacks 'layer2.0.downsample.0.weight' and 14 more"),
        ),
        (lambda: published("r3d18") | meta({"nonlocal.weight": (1,)}), ("has the unknown 'nonlocal.weight'", "cannot be imported")),
        (lambda: meta({"stem.0.weight": (64, 3, 3, 7, 7)}), ("torchvision's r3d_18", "no max-pool")),
        (lambda: meta({"features.0.0.0.weight": (64, 3, 1, 7, 7)}), ("torchvision's s3d has no gates",)),
        (lambda: meta({"conv1.weight": (64, 3, 3, 3, 3), "fc6.weight": (4096, 8192)}), ("no batch norm",)),
        (lambda: meta({"classifier.weight": (3, 3)}), ("holds no backbone known here", "'classifier.weight'")),
        (lambda: {}, ("holds no backbone known here",)),
    ],
)
def test_another_network_is_named_or_described(tensors: object, words: tuple[str, ...]) -> None:
    assert callable(tensors)
    with pytest.raises(InputError) as caught:
        find_backbone(tensors(), "a.pth")
    refused(caught.value, "a.pth", *words)


def test_shapes_that_fit_no_width_are_named() -> None:
    tensors = published("r3d18", 0.5)
    tensors["layer3.1.conv2.weight"] = torch.empty(128, 128, 3, 3, 1, device="meta")
    with pytest.raises(InputError) as caught:
        find_width("r3d18", tensors, PUBLISHED["r3d18"].spellings[0], None, "a.pth")
    refused(caught.value, "is another network")
    with pytest.raises(InputError) as caught:
        find_width("r3d18", published("r3d18", 0.5), PUBLISHED["r3d18"].spellings[0], 0.25, "a.pth")
    refused(
        caught.value,
        "'conv1.weight' has the shape [32, 3, 7, 7, 7], where a r3d18 of width 0.25 has [16, 3, 7, 7, 7]",
        "leave model.width out",
    )
