"""Layouts of published state dicts: read whole and under the right names, or refused with the tensor's name; and written back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rspnet_cli.encoder.foreign import (
    finetuned_state,
    is_finetuned,
    is_pretrained,
    pretrained_state,
    read_classifier,
    read_encoder,
    state_of,
)
from rspnet_cli.encoder.heads import HEADS
from rspnet_cli.errors import InputError
from tests import released
from tests.released import is_unused
from tests.sentences import refused

PATH = Path("a.pth.tar")
State = dict[str, Tensor]


def assert_equal(first: State, second: State) -> None:
    assert list(first) == list(second)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", released.BACKBONES)
def test_a_pretraining_is_read_whole_and_written_back_as_it_was(backbone: str, head: str) -> None:
    state = released.pretrained(backbone, head)
    assert is_pretrained(state)
    assert not is_finetuned(state)
    encoder = read_encoder(state, PATH, 0.125)
    assert encoder.model.model_dump() == {"backbone": backbone, "width": 0.125, "head": head, "embedding_dim": 6}
    assert encoder.has_heads
    assert len(encoder.notes) == 2, encoder.notes
    assert all(note.startswith("encoder_") and note.endswith(", an unused layer, was left out") for note in encoder.notes)
    # Every tensor of the file is under its name, and nothing else.
    assert encoder.key is not None
    assert encoder.queue is not None
    theirs = {"backbone": "encoder", "head_a": "fc1", "head_m": "fc2"}
    for prefix, tensors in (("encoder_q.", encoder.query), ("encoder_k.", encoder.key)):
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if backbone.startswith("tsm") and part == "backbone":  # blocks wrap their first convolution
                rest = "base_model." + (rest.replace(".conv1.", ".conv1.net.") if rest.startswith("layer") else rest)
            file_name = f"{prefix}{theirs[part]}.{rest}"
            assert torch.equal(value.squeeze(), state[file_name].squeeze()), file_name
    assert len(encoder.query) + len(encoder.key) + len(encoder.queue) == sum(not is_unused(name) for name in state)
    written = pretrained_state(encoder)
    assert_equal(written, {name: torch.zeros_like(value) if is_unused(name) else value for name, value in state.items()})


@pytest.mark.parametrize("backbone", released.BACKBONES)
def test_a_fine_tuning_is_read_whole_and_written_back_as_it_was(backbone: str) -> None:
    state = released.finetuned(backbone, classes=5)
    assert is_finetuned(state)
    network = read_classifier(state, PATH, 0.125)
    assert (network.backbone, network.width) == (backbone, 0.125)
    assert network.tensors["fc.weight"].shape == (5, released.channels_of(backbone, 0.125))
    assert_equal(finetuned_state(network), {name: torch.zeros_like(value) if is_unused(name) else value for name, value in state.items()})


@pytest.mark.parametrize("backbone", released.BACKBONES)
def test_a_backbone_alone_keeps_what_it_has(backbone: str) -> None:
    whole = released.filled(released.BACKBONES[backbone](released.scaled(0.125)), torch.Generator().manual_seed(0))
    encoder = read_encoder(whole, PATH, 0.125)
    assert encoder.model.backbone == backbone
    assert (encoder.has_heads, encoder.key, encoder.queue) == (False, None, None)
    assert len(encoder.query) == len(whole) - 2
    assert "was left out" in encoder.notes[0]
    # And the released code takes it from `encoder_q.` alone: so it is written, and read again.
    again = read_encoder(pretrained_state(encoder), PATH, 0.125)
    assert_equal(again.query, encoder.query)
    assert (again.has_heads, again.key, again.queue) == (False, None, None)


def test_the_last_layer_may_be_a_classifier_or_not_there() -> None:
    state = released.filled(released.BACKBONES["r3d18"](released.scaled(0.125)), torch.Generator().manual_seed(0))
    trained = state | {"fc.weight": torch.zeros(400, 64), "fc.bias": torch.zeros(400)}
    assert read_encoder(trained, PATH, 0.125).notes == ["fc, a classifier of 400 classes, was left out"]
    without = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert read_encoder(without, PATH, 0.125).notes == []


def other_layouts() -> dict[str, tuple[str, State, list[str]]]:
    """Where a network comes from -> (our backbone, its state dict, what is said of it)."""
    c, generator = released.scaled(0.125), torch.Generator().manual_seed(0)
    image = released.filled(released.resnet(c, (3, 4, 6, 3), bottleneck=True, axes=2), generator)
    tsm = {f"module.{name}": value for name, value in released.filled(released.tsm(c, (3, 4, 6, 3), bottleneck=True), generator).items()}
    fibers = released.filled(released.mfnet(c), generator)
    slowfast = released.filled(released.slowfast(c), generator)
    hara = released.filled(released.resnet(c, (3, 4, 6, 3)), generator)
    return {
        "torchvision's resnet50": ("tsm-r50", image | {"fc.weight": torch.zeros(1000, 256), "fc.bias": torch.zeros(1000)}, ["fc"]),
        "TSM's authors": ("tsm-r50", tsm | {"module.new_fc.weight": torch.zeros(400, 256)}, ["new_fc"]),
        "MF-Net's authors": (
            "mfnet",
            {name.replace("fc.", "classifier.") if name.startswith("fc.") else name: value for name, value in fibers.items()},
            ["classifier"],
        ),
        "PySlowFast": ("slowfast-r50", slowfast | {"head.projection.weight": torch.zeros(400, 288)}, ["head.projection"]),
        "3D-ResNets-PyTorch": ("r3d34", {f"module.{name}": value for name, value in hara.items()}, ["fc"]),
    }


@pytest.mark.parametrize("whose", other_layouts())
def test_state_dicts_of_other_projects_are_read_whole(whose: str) -> None:
    backbone, state, left_out = other_layouts()[whose]
    encoder = read_encoder(state_of({"state_dict": state}, PATH), PATH, 0.125)
    assert encoder.model.backbone == backbone
    assert [note.partition(",")[0] for note in encoder.notes] == left_out
    taken = [value for name, value in state.items() if name.removeprefix("module.").rpartition(".")[0] not in left_out]
    assert len(taken) == len(encoder.query)
    assert all(torch.equal(value.flatten(), found.flatten()) for value, found in zip(taken, encoder.query.values(), strict=True))


def test_slowfast_8x8_is_not_taken_for_4x16() -> None:
    state = released.filled(released.slowfast(released.scaled(1.0)), torch.Generator().manual_seed(0))
    for name, value in state.items():
        if name.endswith("conv_f2s.weight"):
            state[name] = value.repeat(1, 1, 2, 1, 1)[:, :, :7]
    with pytest.raises(InputError, match=r"'s1_fuse\.conv_f2s\.weight' has the shape \[16, 8, 7, 1, 1\], where a slowfast-r50 of width"):
        read_encoder(state, PATH)


def test_what_old_versions_lack_and_parallel_training_adds_makes_no_difference() -> None:
    state = released.pretrained("r3d18", "convbn")
    expected = read_encoder(state, PATH, 0.125)
    wrapped = state_of({"epoch": 3, "model": {f"module.module.{name}": value for name, value in state.items()}}, PATH)
    assert_equal(read_encoder(wrapped, PATH, 0.125).query, expected.query)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    found = read_encoder(old, PATH, 0.125).query
    assert list(found) == list(expected.query)
    assert all(torch.equal(value, torch.tensor(0) if name.endswith("tracked") else expected.query[name]) for name, value in found.items())


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state", None])
def test_the_state_dict_is_found_under_the_usual_names(key: str | None) -> None:
    state = {"a": torch.zeros(1)}
    assert state_of({key: state, "epoch": 1} if key else state, PATH) == state


def test_other_types_of_numbers_are_converted_and_said() -> None:
    state = released.pretrained("r3d18", "linear")
    half = {name: value.half() if value.is_floating_point() else value.int() for name, value in state.items()}
    encoder = read_encoder(half, PATH, 0.125)
    assert all(value.dtype in (torch.float32, torch.int64) for value in encoder.query.values())
    assert torch.equal(encoder.query["head_a.2.weight"], state["encoder_q.fc1.2.weight"].half().float())
    assert {"float16 tensors were converted to float32", "int32 tensors were converted to int64"} < set(encoder.notes)


def changed(**changes: Tensor | None) -> Callable[[], State]:
    """A small pretraining with some tensors replaced, added, or (None) taken away; `__` stands for a dot."""

    def make() -> State:
        state: dict[str, Tensor | None] = dict(released.pretrained("r3d18", "linear"))
        state |= {name.replace("__", "."): value for name, value in changes.items()}
        return {name: value for name, value in state.items() if value is not None}

    return make


NAN = torch.tensor([float("nan")] * 6)
REFUSED = {
    "a tensor of the key encoder missing": (changed(encoder_k__encoder__bn1__bias=None), "lacks 'encoder_k.encoder.bn1.bias'"),
    "a head's tensor missing": (changed(encoder_q__fc2__2__bias=None), "projection head of no known kind"),
    "one head missing": (changed(encoder_q__fc2__2__bias=None, encoder_q__fc2__2__weight=None), "projection head of no known kind"),
    "heads of two kinds": (
        changed(encoder_q__fc2__4__weight=torch.zeros(6, 64), encoder_q__fc2__4__bias=torch.zeros(6)),
        "two kinds (linear, mlp)",
    ),
    "a head of one value, as SpeedNet's": (
        changed(encoder_q__fc2__2__weight=torch.zeros(1, 64), encoder_q__fc2__2__bias=torch.zeros(1)),
        "'encoder_q.fc2.2.weight' has the shape [1, 64] instead of [6, 64]",
    ),
    "an unknown tensor": (
        changed(encoder_q__encoder_fuse__weight=torch.zeros(1)),
        "has 'encoder_q.encoder_fuse.weight' beside its network",
    ),
    "an unknown tensor in the backbone": (changed(encoder_q__encoder__gate=torch.zeros(1)), "has the unknown 'gate'"),
    "not a number": (changed(encoder_q__fc1__2__bias=NAN), "'encoder_q.fc1.2.bias' holds values that no encoder has"),
    "infinite": (changed(encoder_q__fc1__2__bias=1 / torch.zeros(6)), "'encoder_q.fc1.2.bias' holds values"),
    "a negative variance": (
        changed(encoder_q__encoder__bn1__running_var=-torch.ones(8)),
        "'encoder_q.encoder.bn1.running_var' holds values",
    ),
    "another shape": (
        changed(encoder_k__encoder__bn1__weight=torch.ones(16)),
        "'encoder_k.encoder.bn1.weight' has the shape [16] instead of [8]",
    ),
    "whole numbers for weights": (changed(encoder_q__fc1__2__bias=torch.ones(6).long()), "'encoder_q.fc1.2.bias' is torch.int64"),
    "truth values for weights": (changed(encoder_q__fc1__2__bias=torch.ones(6).bool()), "'encoder_q.fc1.2.bias' is torch.bool"),
    "a queue of other dimensions": (changed(queue=torch.zeros(5, 12)), "'queue' has the shape [5, 12] instead of [6, 12]"),
    "an empty queue": (changed(queue=torch.zeros(6, 0)), "no place in a queue of 0 keys"),
    "a pointer beyond the queue": (changed(queue_ptr=torch.tensor([12])), "'queue_ptr' is 12, no place in a queue of 12 keys"),
    "a queue without its pointer": (changed(queue_ptr=None), "lacks 'queue_ptr'"),
    "a scalar where a matrix must be": (changed(queue=torch.tensor(1.0)), "'queue' has the shape []"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        read_encoder(make(), PATH, 0.125)
    refused(caught.value, "a.pth.tar", words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no state dict"),
        ({"model": {}}, "holds no state dict"),
        ({"model": {1: torch.zeros(1)}}, "holds no state dict"),
        ({"model": {"a\x1b[31m": torch.zeros(1)}}, "holds no state dict"),
        ({"model": {"a": 3}}, "'a' is no dense tensor of real numbers (of type int), in 'model'"),
        (
            {"epoch": 3, "net": {"a": torch.zeros(1)}},
            "'epoch' is no dense tensor of real numbers (of type int), and there is no model, state_dict or model_state",
        ),
        ({"model": {"a": torch.zeros(1).expand(10**12)}}, "'a' is no dense tensor"),
    ],
)
def test_what_is_no_state_dict_is_a_sentence(content: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        state_of(content, PATH)
    refused(caught.value, "a.pth.tar", words)


def test_a_classifier_needs_its_layer_and_two_classes() -> None:
    state = released.finetuned("r3d18", classes=5)
    del state["fc.weight"]
    with pytest.raises(InputError, match=r"lacks 'fc\.weight'"):
        read_classifier(state, PATH, 0.125)
    with pytest.raises(InputError, match="a classifier of 1 classes"):
        read_classifier(released.finetuned("r3d18", classes=1), PATH, 0.125)
    with pytest.raises(InputError, match=r"has 'extra' beside its network"):
        read_classifier(released.finetuned("r3d18", classes=3) | {"extra": torch.zeros(1)}, PATH, 0.125)
