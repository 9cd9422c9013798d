"""Settings that pretraining and fine-tuning share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rspnet_cli.config.base import RATE_TOLERANCE, Section, Unit

ADDED = {"clip.rate_tolerance": RATE_TOLERANCE, "optim.last_videos": "drop"}
"""Settings that came after the first results: a manifest without them means these values, and none holds them at these values."""


class AugmentConfig(Section):
    """Augmentation, drawn once per clip and the same for all its frames."""

    order: Literal["reference", "aug_plus"] = "reference"
    """reference: crop, grayscale, jitter, flip, as released. aug_plus (MoCo v2 style): crop, jitter, grayscale, blur, flip, with
    jitter [0.4, 0.4, 0.4, 0.1], jitter_p 0.8 and blur_p 0.5 unless they are set."""
    crop_area: tuple[float, float] = (0.4, 1.0)
    """Share of the frame's area that the random crop keeps: smallest, largest."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of the random crop: smallest, largest."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.4)
    """Strength of brightness, contrast, saturation (factors 1 +- x) and hue (shift +- x, at most 0.5, in turns)."""
    jitter_p: Unit = 1.0
    """Probability of the colour jitter."""
    grayscale: Unit = 0.2
    """Probability of grayscale."""
    flip: Unit = 0.5
    """Probability of a horizontal flip."""
    blur_p: Unit = 0.0
    """Probability of the 3x3 Gaussian blur (sigma 1.5); only with order aug_plus."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_order(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("order") == "aug_plus":
            return {"jitter": (0.4, 0.4, 0.4, 0.1), "jitter_p": 0.8, "blur_p": 0.5} | values
        return values

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError("augment.crop_area needs two shares, 0 < smallest <= largest <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError("augment.crop_ratio needs two ratios, 0 < smallest <= largest")
        if min(self.jitter) < 0 or max(self.jitter[:3]) > 1 or self.jitter[3] > 0.5:
            raise ValueError("augment.jitter needs brightness, contrast, saturation within 0 to 1 and hue within 0 to 0.5")
        if self.order == "reference" and self.blur_p > 0:
            raise ValueError("augment.blur_p has no effect with augment.order reference: set augment.order to aug_plus, or blur_p to 0")
        return self


class OptimSection(Section):
    """Optimisation, as far as every training has it."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""
    lr: float = Field(0.1, gt=0, le=100)
    """Learning rate for the global batch."""
    batch_size: int = Field(64, ge=1, le=1_000_000)
    """Global batch: videos per step, all processes together."""
    accumulate: int = Field(1, ge=1, le=100_000)
    """Passes over parts of a process' share of the batch, their gradients added: less memory. Batch norm sees one part at a time."""
    epochs: int = Field(200, ge=1, le=1_000_000)
    """Passes over the videos."""
    last_videos: Literal["drop", "repeat"] = "drop"
    """An epoch's last incomplete batch is dropped. repeat: before that so many of its first videos come again that all processes get
    equally many, as released."""
    sgd_momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(1e-4, ge=0, le=10)
    """Weight decay, of every parameter (batch norm and biases too, as released)."""
    warmup_epochs: int = Field(0, ge=0, le=1_000_000)
    """Epochs of linear warm-up before the schedule."""

    def videos_per_epoch(self, num_videos: int, processes: int) -> int:
        """How many videos stand in the order of an epoch, repeated ones and those of an incomplete batch included."""
        return -(-num_videos // processes) * processes if self.last_videos == "repeat" else num_videos

    def steps_per_epoch(self, num_videos: int, processes: int) -> int:
        """Whole global batches in an epoch."""
        return self.videos_per_epoch(num_videos, processes) // self.batch_size


class RunConfig(Section):
    """How the run is carried out."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the initial weights and of every draw."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 elsewhere."""
    compile: bool = False
    """torch.compile the encoders (the first steps then take a minute or so)."""
    checkpoint_activations: bool = False
    """Compute the activations of each block again in the backward pass instead of keeping them: less memory, more time, the same result."""
    workers: int | None = Field(None, ge=0, le=1024)
    """Processes that decode clips (None: one for each CPU core that the training leaves; changes no result)."""
    tracker: str | None = Field(None, pattern=r"^\w[\w.-]*$")
    """Where figures go beside metrics.csv: tensorboard, none, or an installed tracker's name (None: tensorboard where it is installed;
    changes no result)."""
    log_interval: int = Field(20, ge=1, le=1_000_000)
    """Steps between two rows of metrics.csv."""
    keep_every: int = Field(50, ge=0, le=1_000_000)
    """Keep a checkpoint every so many epochs (0: only last and best)."""


class TrainingConfig(Section):
    """All settings of a training, in sections; one of them is `run`."""

    def identity(self) -> dict[str, Any]:
        """What identifies a run: everything but worker count and tracker, which change no result. JSON values. See also `ADDED`."""
        values = self.model_dump(mode="json")
        del values["run"]["workers"], values["run"]["tracker"]
        for key, default in ADDED.items():
            section, _, name = key.partition(".")
            if values[section][name] == default:
                del values[section][name]
        return values
