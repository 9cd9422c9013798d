"""`load_encoder`: a pretrained or fine-tuned encoder in one line, and the preprocessing of what it is given.

encoder = load_encoder("rspnet-run/pretrain", device="cuda")
features = encoder(clips)  # (B, 3, T, H, W), uint8 of any size or float as trained -> (B, C)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rspnet_cli.config import MEAN, STD, ClipConfig, FinetuneClipConfig, FinetuneModelConfig, ModelConfig
from rspnet_cli.config.base import RATE_TOLERANCE
from rspnet_cli.devices import resolve_device
from rspnet_cli.encoder.classifier import CLASSIFIER, Classifier
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.registry import build_backbone
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, checked_artifact, read_manifest
from rspnet_cli.settings import validated
from rspnet_cli.tensors import check_shape, open_tensors

# Before the names of the two encoders in a whole checkpoint.
QUERY, KEY = "query.", "key."
# The tensors of a classifier that are no part of its encoder.
_LAST_LAYER = frozenset({"fc.weight", "fc.bias"})


class TrainedAs(NamedTuple):
    """What an encoder is and what clips it was trained on, as its manifest says."""

    backbone: str
    width: float
    head: str | None
    """Kind of the projection heads; a fine-tuned encoder has none."""
    embedding_dim: int
    frames: int
    size: int
    antialias: bool
    frame_rate: float | None
    rate_tolerance: float
    sampling: str

    @classmethod
    def by_pretraining(cls, m: ModelConfig, c: ClipConfig) -> TrainedAs:
        """By a pretraining with these settings."""
        seen_at = (c.frame_rate, c.rate_tolerance)
        return cls(m.backbone, m.width, m.head, m.embedding_dim, c.frames, c.size, c.antialias, *seen_at, "consecutive")

    @classmethod
    def read(cls, manifest: Manifest) -> TrainedAs:
        """Of a pretraining or a fine-tuning. Raises InputError for a manifest that does not say it."""
        model, clip = manifest.config.get("model", {}), manifest.config.get("clip", {})
        if manifest.stage == "pretrain":
            return cls.by_pretraining(validated(ModelConfig, model), validated(ClipConfig, clip))
        # In these sections None is a default, or what an import does not know.
        model, clip = ({key: value for key, value in section.items() if value is not None} for section in (model, clip))
        tuned, seen = validated(FinetuneModelConfig, model), validated(FinetuneClipConfig, clip)
        if tuned.backbone is None or tuned.width is None or seen.frames is None or seen.size is None or seen.antialias is None:
            raise InputError(
                f"{manifest.path} does not say which network and which clips it trained: make it anew with `rspnet {manifest.command}`."
            )
        rate = seen.frame_rate or None  # 0: the videos' own
        tolerance = RATE_TOLERANCE if seen.rate_tolerance is None else seen.rate_tolerance
        return cls(tuned.backbone, tuned.width, None, 0, seen.frames, seen.size, seen.antialias, rate, tolerance, seen.sampling)


class PretrainedEncoder(Encoder):
    """An encoder that preprocesses uint8 clips itself, and knows what it was trained with.

    `channels` (C) and `embedding_dim` (D; 0 without heads) tell the sizes of what it returns, `frames` (T), `size` (S), `frame_rate`,
    `rate_tolerance` and `sampling` the clips it was trained on. It comes in evaluation mode, its parameters without gradient;
    `requires_grad_(True)` and `train()` change that.
    """

    def __init__(self, trained: TrainedAs) -> None:
        super().__init__(trained.backbone, width=trained.width, head=trained.head, embedding_dim=trained.embedding_dim)
        self.has_heads = trained.head is not None
        self.embedding_dim = trained.embedding_dim
        self.frames = trained.frames
        self.size = trained.size
        self.antialias = trained.antialias
        self.frame_rate = trained.frame_rate
        """Frames per second that its videos were resampled to; None: their own."""
        self.rate_tolerance = trained.rate_tolerance
        """The setting clip.rate_tolerance, which says when that takes every n-th frame."""
        self.sampling = trained.sampling
        """consecutive, or cover: its clips span the whole video."""

    @property
    def device(self) -> torch.device:
        """Where its parameters are; clips are moved there."""
        return next(self.parameters()).device

    def feature_map(self, clips: Tensor) -> Tensor:
        """The last feature map: clips (B, 3, T, H, W) -> (B, C, t, h, w) float.

        clips: uint8 RGB of any height and width (preprocessed here), or float, already of the size and normalisation of training. Raises
        InputError for anything else.
        """
        if not isinstance(clips, Tensor):
            raise InputError(f"clips are a {type(clips).__name__}: give a torch.Tensor (torch.from_numpy makes one of an array).")
        if clips.dim() != 5 or clips.shape[1] != 3 or not clips.numel():
            raise InputError(f"clips have the shape {tuple(clips.shape)}: give (B, 3, T, H, W), RGB, none of them 0.")
        clips = clips.to(self.device, non_blocking=True)
        if clips.dtype == torch.uint8:
            clips = preprocess(clips, self.size, antialias=self.antialias)
        elif not clips.is_floating_point():
            raise InputError(f"clips are {clips.dtype}: give uint8 RGB, or float that is already normalised.")
        clips = clips.to(next(self.parameters()).dtype)
        return super().feature_map(clips.contiguous(memory_format=torch.channels_last_3d))

    def project(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (A, M): clips as for `feature_map` -> two (B, D) float32, L2-normalised. Raises InputError without heads."""
        self.require_heads()
        return super().project(clips)

    def require_heads(self) -> None:
        """Raise InputError for an encoder that has no projection heads A and M."""
        if not self.has_heads:
            why = f"was {'fine-tuned' if self.embedding_dim == 0 else 'imported from a file'} without projection heads"
            raise InputError(f"This encoder {why}, so it has features but no embeddings: for those name a pretraining that has heads.")


def load_encoder(path: str | Path, device: str = "cpu", checkpoint: str | None = None) -> PretrainedEncoder:
    """Load the encoder of a pretraining or a fine-tuning, in evaluation mode and without gradient.

    path: the folder or the manifest of a pretrain or finetune stage. device: "cpu", "cuda", "cuda:1", "mps" or "auto". checkpoint: "last",
    "best", "epoch_N" (one that was kept), or "initial", the untrained encoder that a pretraining began with; None: the last of a
    pretraining, the best of a fine-tuning. Raises InputError: no such stage, checkpoint or device, or a file that is not the encoder the
    manifest describes.
    """
    manifest = read_manifest(Path(path), stage=ENCODER_STAGES, verify=False)
    target = resolve_device(device)
    checkpoint = checkpoint or default_checkpoint(manifest)
    name, prefix = checkpoint_file(manifest, checkpoint)
    checked_artifact(manifest, name)  # the other checkpoints are not read, so only this one is hashed
    trained = TrainedAs.read(manifest)
    with torch.device("meta"):  # no memory, no random numbers: every value comes from the file
        encoder = PretrainedEncoder(trained)
    state = read_state(manifest, name, encoder.state_dict(), prefix)
    encoder.load_state_dict(state, assign=True)
    if manifest.is_imported and manifest.config["import"].get("heads") == "initial" and checkpoint != "initial":
        encoder.has_heads = False
    return ready_to_encode(encoder, target)


def ready_to_encode(encoder: PretrainedEncoder, device: torch.device) -> PretrainedEncoder:
    """The encoder on a device, in evaluation mode, without gradient, in the memory layout that is fastest."""
    encoder = encoder.eval().requires_grad_(False).to(device)
    # The faster layout of 3D convolutions, on CPUs (measured: half the time for a narrow r3d18) and on GPUs.
    for parameter in encoder.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return encoder


def load_classifier(manifest: Manifest, checkpoint: str, *, num_classes: int) -> Classifier:
    """The whole network of a fine-tuning, backbone and last layer, on the CPU. Raises InputError as `load_encoder` does."""
    name, prefix = checkpoint_file(manifest, checkpoint)
    checked_artifact(manifest, name)
    trained = TrainedAs.read(manifest)
    with torch.device("meta"):
        classifier = Classifier(build_backbone(trained.backbone, trained.width), num_classes=num_classes)
    classifier.load_state_dict(read_state(manifest, name, classifier.state_dict(), prefix), assign=True)
    return classifier


def preprocess(clips: Tensor, size: int, *, antialias: bool) -> Tensor:
    """uint8 RGB (B, 3, T, H, W) -> float32 (B, 3, T, size, size): the largest centre square, resized, ImageNet-normalised."""
    height, width = clips.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_and_normalise(clips[..., top : top + side, left : left + side], size, antialias=antialias)


def resize_and_normalise(clips: Tensor, size: int, *, antialias: bool) -> Tensor:
    """uint8 RGB (B, 3, T, H, W) -> float32 (B, 3, T, size, size), whatever the shape of H x W.

    The resize is bilinear, align_corners=False, on values in [0, 1] that are not rounded afterwards, as in training.
    """
    batch, _, frames, height, width = clips.shape
    planes = clips.transpose(1, 2).flatten(0, 1).float().div_(255)  # (B * T, 3, H, W)
    resized = (
        planes
        if height == width == size
        else F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=antialias)
    )
    # Whole pictures, laid out as the frames are: three values alone, broadcast over pixels of three, take a CPU 7 times as long.
    mean, std = (torch.empty_like(resized[:1]).copy_(resized.new_tensor(values).view(3, 1, 1)) for values in (MEAN, STD))
    return resized.sub_(mean).div_(std).view(batch, frames, 3, size, size).transpose(1, 2)


def default_checkpoint(manifest: Manifest) -> str:
    """The checkpoint that is meant where none is named: the last of a pretraining, the best of a fine-tuning."""
    return "best" if manifest.stage == "finetune" else "last"


def checkpoint_file(manifest: Manifest, checkpoint: str, *, whole: bool = False) -> tuple[str, str]:
    """(artifact, prefix of the encoder's names in it). whole: of a pretraining the one that has the key encoder and the queue too.

    Raises InputError for a checkpoint that was not kept.
    """
    if not re.fullmatch(r"last|best|initial|epoch_\d+", checkpoint):
        raise InputError(f"there is no checkpoint '{checkpoint}': name last, best, initial or epoch_N.")
    if manifest.stage == "finetune":
        slim, within = {"best": CLASSIFIER}, ""
    else:
        slim, within = {} if whole else {"last": "encoder.safetensors", "initial": "initial.safetensors"}, QUERY
    name, prefix = (slim[checkpoint], "") if checkpoint in slim else (f"checkpoints/{checkpoint}.safetensors", within)
    if not any(artifact.path == name for artifact in manifest.artifacts):
        if manifest.stage == "finetune" and manifest.results.get("split") == "all":
            one = manifest.place_of(manifest.inputs[-1])  # after its own inputs come the splits
            raise InputError(
                f"{manifest.path} is the mean over several splits and has no encoder of its own: name one split's, such as {one}."
            )
        kept = [artifact.path for artifact in manifest.artifacts if re.fullmatch(r"checkpoints/\w+\.safetensors", artifact.path)]
        names = ", ".join(path.removeprefix("checkpoints/").removesuffix(".safetensors") for path in kept) or "none"
        why = " No epoch began with a queue of real keys, so none is the best." if checkpoint == "best" else ""
        raise InputError(f"{manifest.path} has no checkpoint '{checkpoint}' (kept: {names}): name one of these.{why}")
    return name, prefix


def read_state(manifest: Manifest, name: str, expected: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """An encoder's tensors from an artifact, where they are named `prefix` + name.

    Each is checked for its name, shape, type (those of `expected`) and finiteness before it is used; a classifier's last layer that is
    not expected is passed over. Raises InputError.
    """
    path, advice = manifest.folder / name, manifest.advice
    state: dict[str, Tensor] = {}
    with open_tensors(path, advice=advice) as view:
        found = {name.removeprefix(prefix) for name in view.keys() if name.startswith(prefix)}  # noqa: SIM118
        found -= _LAST_LAYER - expected.keys()
        for fault, names in (("lacks", expected.keys() - found), ("has the unknown", found - expected.keys())):
            if names:
                first, more = min(names), f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise InputError(f"{path} {fault} tensor {prefix}{first}{more}, so it is no encoder of its manifest's model: {advice}.")
        for name, value in expected.items():
            kind = "I64" if value.dtype == torch.int64 else "F32"
            check_shape(path, view, prefix + name, dtype=kind, shape=tuple(value.shape), advice=advice)
            state[name] = torch.from_numpy(view.get_tensor(prefix + name))
            if not torch.isfinite(state[name]).all() or (name.endswith("running_var") and state[name].min() < 0):
                fault = "holds values that no encoder has (not finite, or a negative variance)"
                raise InputError(f"{path}: tensor {prefix}{name} {fault}: {advice}.")
    return state
