"""The network that a fine-tuning begins with: an encoder with a new last layer, or a whole one, to be tested as it is."""

from __future__ import annotations

import torch

from rspnet_cli.config import FinetuneConfig
from rspnet_cli.encoder.classifier import Classifier
from rspnet_cli.encoder.load import load_classifier, load_encoder
from rspnet_cli.encoder.registry import build_backbone
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.task import Task
from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.progress import Reporter
from rspnet_cli.tables import CLASSES, read_table


def first_classifier(config: FinetuneConfig, encoder: Manifest | None, task: Task, report: Reporter) -> Classifier:
    """The network before the first step: the encoder's backbone, or random weights, and a last layer that is a function of the seed alone.

    Without an epoch of training it is the fine-tuned network of `encoder`. The caller's random state is left as it was. Raises InputError
    where the classes of that network are not those of the task's videos.
    """
    model, num_classes = config.model, len(task.labels)
    if not config.optim.epochs:
        assert encoder is not None
        assert model.checkpoint is not None
        _check_classes(encoder, task, report)
        return load_classifier(encoder, model.checkpoint, num_classes=num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        assert model.backbone is not None
        if encoder is None:
            backbone = build_backbone(model.backbone, model.width or 1.0)
        else:
            backbone = load_encoder(encoder.path, checkpoint=model.checkpoint).backbone
        return Classifier(backbone, num_classes=num_classes, frozen=model.linear)


def _check_classes(tuned: Manifest, task: Task, report: Reporter) -> None:
    """Rows of the last layer must stand for the classes of the videos, in their order."""
    known = read_table(checked_artifact(tuned, CLASSES.file), CLASSES)["label_name"].tolist()
    names = [task.videos.class_names[label] for label in task.labels.tolist()]
    if len(known) != len(names):
        raise InputError(
            f"{tuned.path} tells {len(known):,} classes apart, and these videos are of {len(names):,}: "
            "name an extraction of its own classes with --frames, or train on these with --epochs 1 or more."
        )
    if tuned.classes_sha256 is None:
        report.warn(f"{tuned.path} does not name its classes: they are taken for those of these videos, in the order of their labels.")
        return
    differing = [(own, name) for own, name in zip(known, names, strict=True) if own != name]
    if differing:
        own, name = differing[0]
        raise InputError(
            f"{tuned.path} has other classes than these videos ({len(differing):,}, such as '{own}' in the place of '{name}'): "
            "name an extraction of its own classes with --frames, or train on these with --epochs 1 or more."
        )
