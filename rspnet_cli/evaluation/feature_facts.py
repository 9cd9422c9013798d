"""What a reader of a features file alone must know of encoder and clips: its metadata."""

from __future__ import annotations

from typing import Any

from rspnet_cli.config import ExportConfig
from rspnet_cli.encoder.load import PretrainedEncoder
from rspnet_cli.evaluation.gallery import Gallery
from rspnet_cli.manifest import Manifest

_SAMPLING = {
    "consecutive": "consecutive frames, starts evenly spaced from first to last possible; short videos are looped",
    "cover": "frames spread over the whole video, offsets evenly spaced",
}


def feature_facts(
    config: ExportConfig,
    encoder: PretrainedEncoder,
    gallery: Gallery | None,
    num_statistics_clips: int,
    *,
    training: Manifest,
    extract: Manifest,
) -> dict[str, str]:
    """As safetensors metadata, which is text. num_statistics_clips: those that batch norm was estimated on, 0 for none."""
    antialias = "with" if encoder.antialias else "without"
    values: dict[str, Any] = {
        "format": "rspnet features 1",
        "tensors": "features (V, C): mean over clips; clip_features (V, N, C); clip_times_s (V, N, 2): start, end in source seconds; "
        "label, group, video_index (V,); row i is row i of videos.csv",
        "backbone": encoder.backbone_name,
        "width": training.config["model"]["width"],
        "checkpoint": "initial (untrained)" if config.random_init else config.checkpoint,
        "batch_norm": f"estimated on {num_statistics_clips} train clips" if num_statistics_clips else "running averages of training",
        "layer": "last feature map, before any projection head; not normalised",
        "pool": config.pool,
        "clips": config.clips,
        "clip_frames": encoder.frames,
        "clip_size": encoder.size,
        "frame_rate": "that of the video" if encoder.frame_rate is None else encoder.frame_rate,
        "clip_sampling": _SAMPLING[encoder.sampling],
        "preprocessing": f"largest centre square, bilinear resize {antialias} antialias, RGB / 255, ImageNet mean and deviation",
        "gallery": "preprocessed as all other videos, complete" if gallery is None else gallery.words(),
        "precision": config.precision,
        f"{training.stage}_digest": training.digest,
        "extract_digest": extract.digest,
    }
    return {key: str(value) for key, value in values.items()}
