"""Resizing in weighted sums of lines against torch's interpolation; test_augment.py has the reference of plain loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rspnet_cli.clips.resize import resized_chunks

SIZES = [(3, 4, 7), (7, 7, 7), (16, 13, 7), (128, 171, 32), (90, 131, 112), (1, 1, 5), (5, 6, 1)]


def resized(crop: torch.Tensor, size: int, *, antialias: bool, lengths: tuple[int, ...]) -> torch.Tensor:
    chunks = [torch.full((3, length, size, size), torch.nan) for length in lengths]
    return torch.cat(list(resized_chunks(crop, size, antialias=antialias, into=chunks)), 1)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_a_crop_is_that_of_torch(height: int, width: int, size: int, antialias: bool) -> None:
    crop = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8))
    before = crop.clone()
    # In double precision: in single precision torch rounds the positions of lines, which shows in the fifth decimal place.
    planes = crop.permute(0, 3, 1, 2).double() / 255
    expected = F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=antialias).transpose(0, 1)
    ours = resized(crop, size, antialias=antialias, lengths=(2, 2, 1))
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=1e-6)
    assert torch.equal(ours, resized(crop, size, antialias=antialias, lengths=(5,)))
    assert torch.equal(crop, before)
