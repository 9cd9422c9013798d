"""Every setting: its default, range and unit. The docstring under a field is also its help text and its row in the README.

Settings of pretrain merge in one order: defaults < recipe < --config file < --set < explicit flag (`rspnet_cli.settings`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# ImageNet's mean and deviation of R, G, B in [0, 1]: what clips are normalised by in training and after it.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# What extract takes where nothing else is said: quality of the h264 store, and frames per second of folders of frames, which do not tell.
DEFAULT_CRF = 20
DEFAULT_FRAMES_FPS = 25.0

Unit = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of settings: immutable, and unknown names are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


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

    @model_validator(mode="after")
    def _check(self) -> ClipConfig:
        if not self.speeds or min(self.speeds) < 1 or max(self.speeds) < 2:
            raise ValueError(
                "clip.speeds needs whole numbers of at least 1, one of them above 1 (at speed 1 alone there is nothing to rank)"
            )
        if max(self.speeds) > 64:
            raise ValueError("clip.speeds above 64 would load thousands of frames a clip: use smaller ones")
        return self


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


class OptimConfig(Section):
    """Optimisation."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""
    lr: float = Field(0.1, gt=0, le=100)
    """Learning rate for the global batch (see lr_scale)."""
    lr_scale: Literal["none", "linear"] = "none"
    """linear: the recipe's lr is that of its batch size and is scaled to the actual one; a typed lr is not, unless this is typed too."""
    batch_size: int = Field(64, ge=1, le=1_000_000)
    """Global batch: videos per step, all processes together."""
    epochs: int = Field(200, ge=1, le=1_000_000)
    """Passes over the videos."""
    sgd_momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(1e-4, ge=0, le=10)
    """Weight decay, of every parameter (batch norm and biases too, as released)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: from lr to lr / 1000, a step per epoch, as released. constant: lr."""
    warmup_epochs: int = Field(0, ge=0, le=1_000_000)
    """Epochs of linear warm-up before the schedule."""


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
    workers: int | None = Field(None, ge=0, le=1024)
    """Processes that decode clips (None: one for each CPU core that the training leaves; changes no result)."""
    log_interval: int = Field(20, ge=1, le=1_000_000)
    """Steps between two rows of metrics.csv."""
    keep_every: int = Field(50, ge=0, le=1_000_000)
    """Keep a checkpoint every so many epochs (0: only last and best)."""


class PretrainConfig(Section):
    """All settings of pretrain."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    clip: ClipConfig = ClipConfig()
    augment: AugmentConfig = AugmentConfig()
    moco: MocoConfig = MocoConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    def identity(self) -> dict[str, Any]:
        """What identifies a run: everything but the worker count, which changes no result. JSON values."""
        values = self.model_dump(mode="json")
        del values["run"]["workers"]
        return values


class ExtractConfig(Section):
    """Settings of extract."""

    dataset: Literal["ucf101", "hmdb51", "kinetics400", "kinetics100", "ssv2", "folder", "plain", "csv", "list"] | None = None
    """Layout of the videos (None: inferred)."""
    short_side: int = Field(128, ge=16, le=4320)
    """Pixels of the shorter side of stored frames; smaller videos are not enlarged."""
    codec: Literal["h264", "jpeg"] = "h264"
    """Store: H.264 in MP4, or folders of JPEG frames."""
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
        if self.codec == "jpeg" and self.crf is not None:
            raise ValueError("crf has no effect with codec jpeg, whose quality is fixed: leave it out, or choose codec h264")
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
    random_init: bool = False
    """Export the untrained encoder, the baseline of every figure."""
    checkpoint: str = Field("last", pattern=r"^(last|best|epoch_\d+)$")
    """Which checkpoint: last, best or epoch_N."""
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
        if self.random_init and "checkpoint" in self.model_fields_set:
            raise ValueError("checkpoint has no effect with random_init, the weights before the first step")
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
