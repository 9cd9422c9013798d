"""How an export's settings and its encoder describe a video: the same for the videos of the set and for one that is searched with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rspnet_cli.clips.sampling import FrameRate
from rspnet_cli.config import ExportConfig
from rspnet_cli.encoder.encoder import pool_features
from rspnet_cli.encoder.load import PretrainedEncoder
from rspnet_cli.evaluation.features import ClipInput, StoredVideos, UniformClips
from rspnet_cli.evaluation.gallery import Gallery
from rspnet_cli.tensors import check_shape, open_tensors, write_tensors
from rspnet_cli.timing import timed


def clip_features(encoder: PretrainedEncoder, config: ExportConfig, clips: Tensor) -> Tensor:
    """Pooled features of the last layer: clips (b, 3, T, S, S) float32, normalised -> (b, C) float."""
    with timed("forward"), autocast(encoder, config):
        return pool_features(encoder.feature_map(clips), config.pool)


def autocast(encoder: PretrainedEncoder, config: ExportConfig) -> torch.autocast:
    """The precision that the settings ask for."""
    return torch.autocast(encoder.device.type, torch.bfloat16, enabled=config.precision == "bf16")


def video_features(clips: np.ndarray) -> np.ndarray:
    """What stands for a video: the mean over its clips, (V, N, C) -> (V, C) float32."""
    return np.asarray(clips.mean(axis=1, dtype=np.float64), np.float32)


def clips_of(encoder: PretrainedEncoder, videos: StoredVideos, count: int, gallery: Gallery | None = None) -> UniformClips:
    """`count` clips of each video, as the encoder takes them."""
    rate = FrameRate.of(encoder.frame_rate, encoder.rate_tolerance)
    return UniformClips(videos, frames=encoder.frames, count=count, frame_rate=rate, sampling=encoder.sampling, gallery=gallery)


def input_of(encoder: PretrainedEncoder) -> ClipInput:
    """How the encoder takes clips."""
    return ClipInput(encoder.size, encoder.antialias, encoder.device)


def write_statistics(path: Path, encoder: PretrainedEncoder) -> None:
    """Keep batch-norm statistics that were estimated anew. Raises DiskFullError."""
    write_tensors(path, {name: encoder.get_buffer(name).cpu().numpy() for name in _statistics(encoder)}, {})


def read_statistics(path: Path, encoder: PretrainedEncoder, *, advice: str) -> None:
    """Put the statistics that were kept into the encoder. Raises InputError, ending in `advice`."""
    with open_tensors(path, advice=advice) as view:
        for name in _statistics(encoder):
            buffer = encoder.get_buffer(name)
            kind = "I64" if buffer.dtype == torch.int64 else "F32"
            check_shape(path, view, name, dtype=kind, shape=tuple(buffer.shape), advice=advice)
            buffer.copy_(torch.from_numpy(view.get_tensor(name)))


def _statistics(encoder: PretrainedEncoder) -> list[str]:
    return [name for name, _ in encoder.named_buffers() if name.startswith("backbone.")]
