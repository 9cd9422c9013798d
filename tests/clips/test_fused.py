"""The whole batch as one function: equal to the plain loops as it is written, and as torch.compile makes few kernels of it."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor.config
from torch import Tensor
from torch._inductor import metrics

from rspnet_cli.clips import augment
from rspnet_cli.clips.augment import Augmentation, fault_of_fusing, pixels_of, resize_batch
from rspnet_cli.clips.crops import Crops
from rspnet_cli.clips.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ClipDraw
from rspnet_cli.clips.fused import resized_batch, tables_of, whole_batch
from rspnet_cli.videos.planes import Box, Planes
from tests.clips.test_augment import CPU, FRAMES, ORDERS, SIZE, TOLERANCE, batch_of, batch_of_planes, example, reference
from tests.crops import Crop, pack

UNCHANGED = ClipDraw((0, 0, SIZE, SIZE), False, (), (1.0, 1.0, 1.0, 0.0), False, False)


def at_once(crops: Crops, order: str, *, antialias: bool = False) -> Tensor:
    """What is compiled on a GPU, operation by operation."""
    tables = tables_of(crops, size=SIZE, order=order)
    if antialias:
        return resized_batch(resize_batch(crops, SIZE, antialias, CPU), tables[-1], order=order, dtype=torch.float32)
    return whole_batch(crops.pixels, *tables, planes=crops.full_range is not None, order=order, dtype=torch.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_every_clip_is_that_of_the_plain_loops(order: str) -> None:
    crops, draws = example(ORDERS[order])
    clips = at_once(batch_of(crops, draws), order)
    assert clips.shape == (len(crops), 3, FRAMES, SIZE, SIZE)
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    for clip, crop, draw in zip(clips.numpy(), crops, draws, strict=True):
        np.testing.assert_allclose(clip, reference(crop, draw, order), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_of_planes_gives_what_clip_by_clip_gives(order: str, antialias: bool) -> None:
    crops = batch_of_planes(order)
    expected = Augmentation(SIZE, antialias, order, CPU)(crops)
    torch.testing.assert_close(at_once(crops, order, antialias=antialias), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_every_choice_of_operations_has_its_places(order: str) -> None:
    chosen = [ops for count in range(5) for ops in itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION, HUE), count)]
    factors = (1.3, 0.7, 1.35, 0.2)  # far from 1, so that an operation in a wrong place would show
    draws = [
        replace(UNCHANGED, ops=ops, factors=factors, grayscale=grey, blur=blur and order == "aug_plus", flip=blur)
        for ops, grey, blur in itertools.product(chosen, (False, True), (False, True))
    ]
    crops = [np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)] * len(draws)
    expected = Augmentation(SIZE, False, order, CPU)(batch_of(crops, draws))
    torch.testing.assert_close(at_once(batch_of(crops, draws), order), expected, rtol=0, atol=TOLERANCE)
    assert len({clip.tobytes() for clip in expected.numpy()}) > 100


@pytest.mark.parametrize(("top", "left"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_planes_that_are_not_resized_have_the_whole_numbers_of_ffmpeg(top: int, left: int) -> None:
    draw, rng = replace(UNCHANGED, box=(top, left, SIZE, SIZE)), np.random.default_rng(2)
    crops = []
    for _ in range(2):
        planes = Planes.empty(40, Box(*draw.box).even)
        for part in (planes.luma, planes.chroma):
            part[...] = rng.integers(0, 256, part.shape)
        crops.append(Crop(planes, np.arange(40), draw))
    batch = pack(crops, [False, True])
    for clip, expected in zip(pixels_of(at_once(batch, "reference")), batch.unpacked(), strict=True):
        assert torch.equal(clip, expected)


@pytest.fixture
def _compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    metrics.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts, as its compiler imports them
@pytest.mark.parametrize("order", ORDERS)
def test_compiled_it_is_few_kernels_for_batches_of_any_size_and_the_same_clips(order: str) -> None:
    augmentation = Augmentation(SIZE, False, order, CPU, fused=True)
    kernels = []
    with torch._inductor.config.patch({"cpp.simdlen": 1}):  # vectors take as long to compile once more
        for count, frames, size in ((12, 3, (18, 22)), (12, 6, (18, 22)), (15, 4, (25, 14))):
            crops = batch_of_planes(order, count, frames=frames, size=size)
            expected = Augmentation(SIZE, False, order, CPU)(crops)
            clips = augmentation(crops)
            assert clips.is_contiguous(memory_format=torch.channels_last_3d)
            torch.testing.assert_close(clips, expected, rtol=0, atol=TOLERANCE)
            kernels.append(metrics.generated_kernel_count)
    assert kernels[0] == kernels[-1], "it was compiled anew for another size"
    # Of some 480 operations. A CPU's kernels end at a loop's bounds: of a GPU's there are 3, or 4 with the blur.
    assert kernels[0] <= 10


@pytest.mark.parametrize("order", ORDERS)
def test_what_a_compiler_makes_is_tried_before_it_is_trusted(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    augmentation = Augmentation(SIZE, False, order, CPU)

    def made(pixels: Tensor, *tables: Tensor, error: float, **how: Any) -> Tensor:
        return whole_batch(pixels, *tables, **how) + error

    def broken(*tables: Tensor, **how: Any) -> Tensor:
        raise RuntimeError("Triton is\nnot there.")

    faults = []
    for compiled in (partial(made, error=0.0), partial(made, error=0.1), broken):
        monkeypatch.setattr(augment, "compiled_whole_batch", compiled)
        faults.append(fault_of_fusing(augmentation))
    assert faults == ["", "its clips are off by up to 0.1", "Triton is"]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_compiled_for_a_gpu_it_gives_what_a_cpu_gives(order: str, antialias: bool, planes: bool, cuda: torch.device) -> None:
    crops = batch_of_planes(order) if planes else batch_of(*example(ORDERS[order], 40))
    expected = Augmentation(SIZE, antialias, order, CPU)(crops)
    clips = Augmentation(SIZE, antialias, order, cuda, fused=True)(crops)
    torch.testing.assert_close(clips.cpu(), expected, rtol=0, atol=TOLERANCE)
    rounded = Augmentation(SIZE, antialias, order, cuda, dtype=torch.bfloat16, fused=True)(crops)
    assert torch.equal(rounded, clips.bfloat16())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("order", "most"), [("reference", 3), ("aug_plus", 4)])
def test_on_a_gpu_a_batch_takes_few_kernels_and_no_copy(order: str, most: int, cuda: torch.device) -> None:
    augmentation = Augmentation(SIZE, False, order, cuda, fused=True)
    crops = augmentation.ready(batch_of_planes(order).pin_memory())
    augmentation(crops)
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        augmentation(crops)
        torch.cuda.synchronize()
    there = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    on_gpu = [event.name for event in there if not getattr(event, "is_user_annotation", False)]
    # Older versions of torch join the channels by another one.
    assert 0 < len(on_gpu) <= most + 1, on_gpu
