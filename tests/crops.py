"""Crops for tests: packed from arrays, and read out of an open store."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rspnet_cli.clips.crops import CropRows, Crops
from rspnet_cli.clips.draws import ClipDraw
from rspnet_cli.clips.slots import own_room
from rspnet_cli.videos.h264_store import H264Video
from rspnet_cli.videos.planes import Cut, Planes
from rspnet_cli.videos.store import StoredVideo


class Crop(NamedTuple):
    """One clip: frames (F, h, w, 3) uint8 RGB, or their planes; which frames of the clip's span they are (F,); its augmentation."""

    frames: np.ndarray | Planes
    offsets: np.ndarray
    draw: ClipDraw


def pack(crops: Sequence[Crop], full_range: Sequence[bool] | None = None) -> Crops:
    """The clips as the loader hands them over; full_range of planes."""
    draws = tuple(crop.draw for crop in crops)
    rows, places = CropRows.of(draws, len(crops[0].offsets), planes=full_range is not None, room=own_room)
    for crop, place in zip(crops, places, strict=True):
        for frames, into in zip(crop.frames, place, strict=True):  # of each plane; of each frame
            into[:] = frames
    ranges = None if full_range is None else tuple(full_range)
    return Crops(torch.from_numpy(rows), draws, torch.from_numpy(np.stack([crop.offsets for crop in crops])), ranges)


def read_cuts(video: StoredVideo, cuts: Sequence[Cut]) -> list[np.ndarray]:
    """Of each cut its boxes as RGB."""
    frames = [np.empty((len(cut.indices), cut.box.height, cut.box.width, 3), np.uint8) for cut in cuts]
    video.read_cuts(cuts, frames)
    return frames


def read_planes(video: StoredVideo, cuts: Sequence[Cut]) -> list[Planes]:
    """Of each cut its boxes as planes."""
    assert isinstance(video, H264Video)
    planes = [Planes.empty(len(cut.indices), cut.box.even) for cut in cuts]
    video.read_planes(cuts, planes)
    return planes
