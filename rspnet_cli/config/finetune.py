"""Settings of finetune. What is None here is taken from the pretraining; the manifest holds what it came to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rspnet_cli.config.base import CHECKPOINT, Section, Unit
from rspnet_cli.config.training import AugmentConfig, OptimSection, RunConfig, TrainingConfig


class FinetuneDataConfig(Section):
    """Which videos are learned from, chosen on and tested on."""

    split: str = Field("1", coerce_numbers_to_str=True)
    """Train and test on this split's videos; "all": each split in turn, and their mean. Sets without split columns are dealt into five
    folds of whole groups, of which fold N is tested."""
    select_on: Literal["validation", "test", "last"] = "validation"
    """What chooses the best epoch. validation: the split's val videos, or where it has none a fifth of train, held out in whole groups.
    test: the test videos, as published. last: nothing; the last epoch is taken."""


class FinetuneModelConfig(Section):
    """The network: backbone, global average pool, one linear layer."""

    backbone: str | None = None
    """Network before pooling (None: the pretraining's)."""
    width: float | None = Field(None, gt=0, le=4)
    """Multiplies the number of channels of every layer (None: the pretraining's)."""
    checkpoint: str | None = Field(None, pattern=CHECKPOINT)
    """Of the pretraining: last, best or epoch_N (None: last; of an earlier fine-tuning best)."""
    random_init: bool = False
    """Start from random weights instead: the baseline of every figure."""
    linear: bool = False
    """Train the last layer alone, on the frozen backbone in evaluation mode: the linear probe."""

    @model_validator(mode="after")
    def _check(self) -> FinetuneModelConfig:
        if self.random_init and self.checkpoint is not None:
            raise ValueError("model.checkpoint has no effect with model.random_init, which starts from no checkpoint")
        return self


class FinetuneClipConfig(Section):
    """The clips that the network sees, in training and in the test."""

    frames: int | None = Field(None, ge=1, le=1024)
    """Frames of a clip (T; None: the pretraining's)."""
    size: int | None = Field(None, ge=8, le=1024)
    """Height and width of a clip, in pixels (S; None: the pretraining's)."""
    antialias: bool | None = None
    """Average over all pixels of the frame that a pixel of a smaller clip covers (None: as in the pretraining; false: as released)."""
    sampling: Literal["consecutive", "cover"] = "consecutive"
    """consecutive: T frames in a row. cover: T frames spread over the whole video, as released for Something-Something."""
    frame_rate: float | None = Field(None, ge=0, le=1000)
    """Frames per second that videos are resampled to before clips are cut (0: their own; None: as in the pretraining)."""
    rate_tolerance: float | None = Field(None, ge=0, le=0.1)
    """A video's rate over clip.frame_rate counts as a whole number where it differs from one by less than this share (0: never, as
    released; None: as in the pretraining)."""

    @model_validator(mode="after")
    def _check(self) -> FinetuneClipConfig:
        if self.sampling == "cover" and self.frame_rate:
            raise ValueError("clip.frame_rate has no effect with clip.sampling cover, which takes its frames from the whole video")
        return self


class FinetuneAugmentConfig(AugmentConfig):
    """Augmentation, drawn once per clip and the same for all its frames: crop and flip alone unless more is set."""

    crop_area: tuple[float, float] = (0.25, 1.0)
    """Share of the frame's area that the random crop keeps: smallest, largest."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strength of brightness, contrast, saturation (factors 1 +- x) and hue (shift +- x, at most 0.5, in turns)."""
    grayscale: Unit = 0.0
    """Probability of grayscale."""
    flip: Unit = 0.5
    """Probability of a horizontal flip (0 where left and right are part of the classes' names)."""


class FinetuneOptimConfig(OptimSection):
    """Optimisation. The learning rate is never scaled by the batch."""

    batch_size: int = Field(32, ge=1, le=1_000_000)
    """Global batch: videos per step, all processes together."""
    epochs: int = Field(30, ge=0, le=1_000_000)
    """Passes over the train videos. 0: none; a fine-tuned network is tested as it is, by its own last layer."""
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    """cosine: from lr to lr / 1000, a step per epoch. multistep: lr, a tenth of it from each milestone on. constant: lr."""
    milestones: tuple[int, ...] = ()
    """Epochs after which multistep divides the learning rate by 10."""

    @model_validator(mode="after")
    def _check(self) -> FinetuneOptimConfig:
        rising = all(low < high for low, high in zip((0, *self.milestones), self.milestones, strict=False))
        if not rising or (self.schedule == "multistep" and not self.milestones):
            raise ValueError("optim.milestones needs rising numbers of epochs, such as [20, 40], for optim.schedule multistep")
        return self


class FinetuneTestConfig(Section):
    """The test of the chosen epoch: logits averaged over the clips of a video."""

    clips: int = Field(10, ge=1, le=10_000)
    """Clips per video, evenly spaced, centre crop. (Epochs are chosen by one centre clip per video.)"""
    batch_size: int = Field(32, ge=1, le=100_000)
    """Clips per forward pass."""


class FinetuneConfig(TrainingConfig):
    """All settings of finetune."""

    data: FinetuneDataConfig = FinetuneDataConfig()
    model: FinetuneModelConfig = FinetuneModelConfig()
    clip: FinetuneClipConfig = FinetuneClipConfig()
    augment: FinetuneAugmentConfig = FinetuneAugmentConfig()
    optim: FinetuneOptimConfig = FinetuneOptimConfig()
    test: FinetuneTestConfig = FinetuneTestConfig()
    run: RunConfig = RunConfig()
