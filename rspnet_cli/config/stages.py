"""Settings of the stages around the trainings; they have no sections."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rspnet_cli.codecs import Codec
from rspnet_cli.config.base import CHECKPOINT, Section


class ExtractConfig(Section):
    """Settings of extract."""

    dataset: Literal["ucf101", "hmdb51", "kinetics400", "kinetics100", "ssv2", "folder", "plain", "csv", "list"] | None = None
    """Layout of the videos (None: inferred)."""
    short_side: int = Field(128, ge=16, le=4320)
    """Pixels of the shorter side of stored frames; smaller videos are not enlarged."""
    codec: Codec = "h264"
    """Store: H.264 in MP4, folders of JPEG frames, or raw pixels, the fastest and by far the largest."""
    crf: int | None = Field(None, ge=0, le=51)
    """Quality of h264, lower is better (None: 20)."""
    keep_partial: bool = False
    """Keep what decodes before the damage of a truncated video."""
    max_pixels: int = Field(64_000_000, ge=1, le=2**31 - 1)
    """Largest frame, in pixels; a video with a larger one is a failure."""
    frames_fps: float | None = Field(None, gt=0, le=1000)
    """Frames per second of sources that are folders of frames (None: 25)."""
    video_timeout_s: float = Field(600.0, gt=0, le=1_000_000)
    """Seconds after which a video is given up."""
    limit: int | None = Field(None, ge=1)
    """At most so many videos, evenly spaced over the list sorted by path."""
    workers: int | None = Field(None, ge=1, le=1024)
    """Processes (None: one for each CPU core; changes no result)."""

    @model_validator(mode="after")
    def _check(self) -> ExtractConfig:
        if self.codec != "h264" and self.crf is not None:
            raise ValueError(f"crf has no effect with codec {self.codec}, whose quality is fixed: leave it out, or choose codec h264")
        return self

    def identity(self) -> dict[str, Any]:
        """What identifies a run: everything but the worker count, which changes no result. JSON values."""
        return self.model_dump(mode="json", exclude={"workers"})


class ExportConfig(Section):
    """Settings of export-features."""

    clips: int = Field(10, ge=1, le=10_000)
    """Clips per video, evenly spaced."""
    pool: Literal["avg", "max"] = "avg"
    """How the last layer's map becomes a feature (avg: released code; max: the paper's supplement)."""
    gallery_augment: Literal["none", "reference"] = "none"
    """none: clips are centre squares. reference: as in the released code, the train videos of a split are cropped and flipped at random,
    one draw per video, and those of their last incomplete batch are left out of the split."""
    split: str | None = Field(None, coerce_numbers_to_str=True)
    """The split whose train videos gallery_augment is for (None: 1)."""
    gallery_batch: int | None = Field(None, ge=1, le=100_000)
    """Videos per batch of that gallery, of which the last incomplete one is left out (None: 8, as released)."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Seed of that gallery's order, crops and flips (None: 0)."""
    random_init: bool = False
    """Export the untrained encoder, the baseline of every figure."""
    checkpoint: str | None = Field(None, pattern=CHECKPOINT)
    """Which checkpoint: last, best or epoch_N (None: last of a pretraining, best of a fine-tuning)."""
    reestimate_bn: bool = False
    """Estimate batch-norm statistics anew on train clips (always done for random_init; helps short s3dg runs, whose own lag behind)."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Precision of the forward pass."""
    batch_size: int = Field(32, ge=1, le=100_000)
    """Clips per forward pass."""
    workers: int | None = Field(None, ge=0, le=1024)
    """Processes that decode clips (None: one for each CPU core that the encoder leaves; changes no result)."""
    also: tuple[Literal["npy", "parquet"], ...] = ()
    """Further formats to write beside safetensors."""

    @model_validator(mode="after")
    def _check(self) -> ExportConfig:
        if self.random_init and self.checkpoint is not None:
            raise ValueError("checkpoint has no effect with random_init, the weights before the first step")
        for name in ("split", "gallery_batch", "seed"):
            if self.gallery_augment == "none" and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect without gallery_augment: leave it out, or use gallery_augment reference")
        return self

    def identity(self) -> dict[str, Any]:
        """What identifies a run: everything but the worker count, which changes no result. JSON values."""
        return self.model_dump(mode="json", exclude={"workers"})


class RetrievalConfig(Section):
    """Settings of eval-retrieval."""

    topk: tuple[int, ...] | None = None
    """Ranks to report recall at (None: those of 1, 5, 10, 20, 50 that the gallery is large enough for)."""
    split: str = "1"
    """Test videos of this split query its train videos."""
    protocol: Literal["split", "leave-one-out"] | None = None
    """None: split where there are split columns, leave-one-out elsewhere."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


class ClassificationConfig(Section):
    """Settings of eval-classification."""

    split: str = "1"
    """Train and test videos of this split."""
    protocol: Literal["split", "folds"] | None = None
    """None: split where there are split columns, group-aware 5-fold cross-validation elsewhere."""
    probe: Literal["linear", "knn", "both"] = "both"
    """Classifiers on the frozen features."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of folds and validation parts."""


class VisualizeConfig(Section):
    """Settings of visualize."""

    checkpoint: str | None = Field(None, pattern=r"^(last|best|initial|epoch_\d+)$")
    """Of the pretraining: last, best, initial (before the first step) or epoch_N (None: last)."""
    clips: int = Field(4, ge=1, le=64)
    """Clips per video, evenly spaced; each is compared with the next one, the last with the first."""
    size: int | None = Field(None, ge=8, le=1024)
    """Height and width of a clip, in pixels (None: as trained). Larger clips give finer maps, at a scale that was not trained."""
    count: int = Field(4, ge=1, le=1000)
    """Videos to show where none are named."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the choice of these videos."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
