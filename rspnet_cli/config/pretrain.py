"""Settings of pretrain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rspnet_cli.config.base import RATE_TOLERANCE, Section
from rspnet_cli.config.training import AugmentConfig, OptimSection, RunConfig, TrainingConfig


class DataConfig(Section):
    """Which videos train the encoder."""

    split: str = Field("1", coerce_numbers_to_str=True)
    """Train on the train videos of this split; "all": every video. Sets without split columns always use every video."""


class ModelConfig(Section):
    """The encoder."""

    backbone: str = "r3d18"
    """Network before pooling: c3d, r3d18, r3d34, r3d50, r2plus1d, s3dg, tsm-r18, tsm-r50, slowfast-r50 or mfnet."""
    width: float = Field(1.0, gt=0, le=4)
    """Multiplies the number of channels of every layer (1: the published network)."""
    head: Literal["linear", "mlp", "conv", "convbn"] = "linear"
    """Projection heads A (appearance) and M (motion): both of this kind."""
    embedding_dim: int = Field(128, ge=2, le=4096)
    """Dimensions of the heads' output (D)."""


class ClipConfig(Section):
    """The clips that the encoder sees."""

    frames: int = Field(16, ge=1, le=1024)
    """Frames of a clip that reach the encoder (T)."""
    size: int = Field(112, ge=8, le=1024)
    """Height and width of a clip, in pixels (S)."""
    antialias: bool = False
    """Average over all pixels of the frame that a pixel of a smaller clip covers (false: bilinear, as released, which skips some where
    the crop is more than twice the clip's size)."""
    speeds: tuple[int, ...] = (2,)
    """Playback speeds other than 1; a clip spans max(speeds) * T frames and one speed is drawn for each step."""
    load: Literal["played", "all"] = "played"
    """played: only the frames that reach the encoder are converted and augmented; all: the whole span, as released (the contrast jitter's
    mean grey is then that of the whole span: no other difference)."""
    frame_rate: float | None = Field(None, gt=0, le=1000)
    """Frames per second that videos are resampled to before clips are cut (None: their own)."""
    rate_tolerance: float = Field(RATE_TOLERANCE, ge=0, le=0.1)
    """A video's rate over clip.frame_rate counts as a whole number where it differs from one by less than this share (0: never, as
    released)."""

    @model_validator(mode="after")
    def _check(self) -> ClipConfig:
        if not self.speeds or min(self.speeds) < 1 or max(self.speeds) < 2:
            raise ValueError(
                "clip.speeds needs whole numbers of at least 1, one of them above 1 (at speed 1 alone there is nothing to rank)"
            )
        if max(self.speeds) > 64:
            raise ValueError("clip.speeds above 64 would load thousands of frames a clip: use smaller ones")
        return self


class MocoConfig(Section):
    """Momentum contrast: key encoder and queue."""

    queue_size: int = Field(16384, ge=1, le=10_000_000)
    """Negatives kept in the queue (K), trimmed to a multiple of the global batch."""
    momentum: float = Field(0.999, ge=0, lt=1)
    """EMA rate of the key encoder: key = momentum * key + (1 - momentum) * query, at every step."""
    momentum_end: float | None = Field(None, ge=0, lt=1)
    """EMA rate that the last step comes to, from momentum along half a cosine (None: momentum at every step, as released)."""
    temperature: float = Field(0.07, gt=0, le=10)
    """Similarities are divided by it (tau)."""
    bn_splits: int = Field(1, ge=1, le=1024)
    """Batch-norm statistics over this many parts of each process' batch, keys shuffled over the parts (1: the whole batch)."""
    mask_same_video: bool = False
    """Leave older keys of the query's own video out of the negatives."""


class ObjectiveConfig(Section):
    """The loss: avid_weight * L_A + rsp_weight * L_M."""

    margin: float = Field(2.0, gt=0, le=1000)
    """Margin of the ranking loss, on similarities already divided by the temperature."""
    avid_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of video instance discrimination (A-VID)."""
    rsp_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of relative speed perception (RSP)."""

    @model_validator(mode="after")
    def _check(self) -> ObjectiveConfig:
        if self.avid_weight == 0 and self.rsp_weight == 0:
            raise ValueError("objective.avid_weight and objective.rsp_weight are both 0: nothing would be learned")
        return self


class OptimConfig(OptimSection):
    """Optimisation."""

    lr: float = Field(0.1, gt=0, le=100)
    """Learning rate for the global batch (see lr_scale)."""
    lr_scale: Literal["none", "linear"] = "none"
    """linear: the recipe's lr is that of its batch size and is scaled to the actual one; a typed lr is not, unless this is typed too."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: from lr to lr / 1000, a step per epoch, as released. constant: lr."""
    best_from: Literal["full_queue", "start"] = "full_queue"
    """The best epoch is that of the lowest loss. full_queue: among those that began with a queue of real keys, because random ones make the
    loss small. start: among all, as released."""


class PretrainConfig(TrainingConfig):
    """All settings of pretrain."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    clip: ClipConfig = ClipConfig()
    augment: AugmentConfig = AugmentConfig()
    moco: MocoConfig = MocoConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()
