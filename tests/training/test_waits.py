"""A training step waits for no GPU: it reads nothing back, and what it sends travels from page-locked memory."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rspnet_cli.clips import augment, colour, crops, fused, yuv
from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.clips.dataset import ClipBatch
from rspnet_cli.clips.draws import draw_step
from rspnet_cli.clips.prefetch import prefetched
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import to_device
from rspnet_cli.encoder import moco as momentum_contrast
from rspnet_cli.encoder.classifier import Classifier
from rspnet_cli.encoder.moco import query_projection
from rspnet_cli.encoder.registry import build_backbone
from rspnet_cli.training import step as training_step
from rspnet_cli.training.classification import classification_step
from rspnet_cli.training.loop import take_step
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.pretraining import build_moco, ready_to_train
from rspnet_cli.training.step import LoadedClips, rspnet_step
from tests.clips.test_augment import ORDERS, batch_of, batch_of_planes, example
from tests.training.test_step import settings

# A device whose values do not exist: whatever would have to know one raises.
META = torch.device("meta")
BATCH, FRAMES, SIZE, STEPS = 8, 4, 16, 3


class Waits(AssertionError):
    pass


class Sends(TorchDispatchMode):
    """Raises for what goes to the device from memory that is not page-locked, as `to_device` alone has it."""

    allowed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()}
        result = func(*args, **(kwargs or {}))
        found |= {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        if len(found) > 1 and not Sends.allowed:
            raise Waits(f"{func.name()} sends what is not page-locked")
        return result


class Makes(TorchFunctionMode):
    """Raises for tensors of the host's numbers that are made on the device, which sends them too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor) and result.device.type == "meta":
            raise Waits(f"{func.__name__} sends what is not page-locked")
        return result


@pytest.fixture
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a device without values needs, and `to_device` as the one that may send to it."""

    def sending(tensor: Tensor, device: torch.device) -> Tensor:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(Sends, "allowed", True)
            return to_device(tensor, device)

    for module in (augment, colour, crops, momentum_contrast, training_step, yuv):
        monkeypatch.setattr(module, "to_device", sending)
    monkeypatch.setattr(torch, "autocast", lambda *how, **more: nullcontext())
    # What torch.compile would make kernels of.
    monkeypatch.setattr(augment, "compiled_whole_batch", fused.whole_batch)
    monkeypatch.setattr(augment, "compiled_resized_batch", fused.resized_batch)


def batches(order: str, *, planes: bool, count: int, clips: int) -> Iterator[ClipBatch]:
    """Batches as the loader has them: every frame of the span is there."""
    for _ in range(count):
        one = batch_of_planes(order, BATCH, frames=2 * FRAMES) if planes else batch_of(*long_example(order))
        yield ClipBatch((one,) * clips, torch.arange(BATCH))


def long_example(order: str) -> tuple[list[np.ndarray], Any]:
    arrays, draws = example(ORDERS[order], BATCH)
    return [np.repeat(array, FRAMES, 0) for array in arrays], draws


def pretrain(device: torch.device, config: PretrainConfig, augmentation: Augmentation, *, planes: bool) -> None:
    """Steps of pretraining, from the loader's batches to the renewed weights."""
    moco = ready_to_train(build_moco(config), config, device)
    optimizer, project = build_optimizer(config.optim, moco.query), query_projection(moco, device, passes=config.optim.accumulate)

    def gradients(batch: ClipBatch, number: int) -> tuple[Tensor, ...]:
        query, key = (LoadedClips(augmentation(one), one.offsets) for one in batch.clips)
        draw = draw_step(BATCH, speeds=(2,), sub_batches=config.moco.bn_splits, seed=0, epoch=0, step=number)
        return rspnet_step(moco, project, query, key, batch.videos, draw, config, momentum=0.9)

    source = batches(augmentation.order, planes=planes, count=STEPS, clips=2)
    train(source, augmentation, gradients, moco, optimizer)


def finetune(device: torch.device, augmentation: Augmentation, *, planes: bool) -> None:
    """Steps of fine-tuning."""
    config = settings(optim={"batch_size": BATCH}).optim
    classifier = Classifier(build_backbone("r3d18", 0.1), num_classes=3).to(device)
    classes = torch.arange(BATCH, device=device) % 3

    def gradients(batch: ClipBatch, number: int) -> tuple[Tensor, ...]:
        (one,) = batch.clips
        return classification_step(classifier, augmentation(one), classes[batch.videos], passes=2)

    train(
        batches(augmentation.order, planes=planes, count=STEPS, clips=1),
        augmentation,
        gradients,
        classifier,
        build_optimizer(config, classifier),
    )


def train(source: Any, augmentation: Augmentation, gradients: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    device = augmentation.device
    pinned = (batch.pin_memory() if device.type == "cuda" else batch for batch in source)
    taken = 0
    with nullcontext() if device.type == "cuda" else Sends(), nullcontext() if device.type == "cuda" else Makes():
        for number, batch in enumerate(prefetched(pinned, augmentation.ready_batch, device, ahead=True)):
            take_step(lambda batch=batch, number=number: gradients(batch, number), model, optimizer, rate=0.1)
            if device.type == "cuda":  # the first step sets up libraries and compiles; from then on a wait raises
                torch.cuda.set_sync_debug_mode("error")
            taken += 1
    assert taken == STEPS


PARTS = {"optim": {"batch_size": BATCH, "accumulate": 2, "name": "adamw"}, "run": {"checkpoint_activations": True}}
CASES = {
    "plain": settings(optim={"batch_size": BATCH}, moco={"queue_size": 16}),
    "parts": settings(moco={"queue_size": 16, "bn_splits": 4, "mask_same_video": True}, **PARTS),
}


@pytest.mark.usefixtures("_no_device")
@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_a_pretraining_step_waits_for_nothing(config: PretrainConfig) -> None:
    pretrain(META, config, Augmentation(SIZE, False, "reference", META, fused=True), planes=True)


@pytest.mark.usefixtures("_no_device")
def test_a_fine_tuning_step_waits_for_nothing() -> None:
    finetune(META, Augmentation(SIZE, False, "reference", META, fused=True), planes=True)


@pytest.mark.usefixtures("_no_device")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_augmentation_waits_for_nothing(order: str, antialias: bool, planes: bool, fused: bool) -> None:
    augmentation = Augmentation(SIZE, antialias, order, META, fused=fused)
    for batch in batches(order, planes=planes, count=1, clips=2):
        with Sends(), Makes():
            for crops in augmentation.ready_batch(batch).clips:
                assert augmentation(crops).shape == (BATCH, 3, 2 * FRAMES, SIZE, SIZE)


def test_a_step_that_waits_would_be_found() -> None:
    there, here, places = torch.empty(4, device=META), torch.empty(4), torch.tensor([1, 2])
    for read in (there.sum().item, there.tolist, there.cpu, there.nonzero, lambda: there[there > 0], lambda: bool(there.any())):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
    made = (lambda: torch.tensor([1, 2], device=META), lambda: there.new_tensor([1.0]))
    for send in (lambda: here.to(META), lambda: there.copy_(here), lambda: there[places], *made):
        with Sends(), Makes(), pytest.raises(Waits):
            send()


@pytest.fixture
def quiet_gpu(cuda: torch.device) -> Iterator[torch.device]:
    """The GPU; waits that a test forbids are allowed again after it."""
    yield cuda
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_on_a_gpu_pretraining_steps_wait_for_nothing(config: PretrainConfig, fused: bool, quiet_gpu: torch.device) -> None:
    run = config.run.model_copy(update={"precision": "bf16"})
    augmentation = Augmentation(SIZE, False, "reference", quiet_gpu, dtype=torch.bfloat16, fused=fused)
    pretrain(quiet_gpu, config.model_copy(update={"run": run}), augmentation, planes=True)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode", "ignore::DeprecationWarning")
@pytest.mark.parametrize("fused", [False, True])
def test_on_a_gpu_fine_tuning_steps_wait_for_nothing(fused: bool, quiet_gpu: torch.device) -> None:
    finetune(quiet_gpu, Augmentation(SIZE, False, "reference", quiet_gpu, fused=fused), planes=True)
