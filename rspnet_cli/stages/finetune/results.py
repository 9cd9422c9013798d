"""What a fine-tuning of one split writes down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli.config import FinetuneConfig
from rspnet_cli.encoder.classifier import CLASSIFIER
from rspnet_cli.encoder.load import checkpoint_file
from rspnet_cli.evaluation.outcomes import Outcome, summary, write_outcomes
from rspnet_cli.evaluation.parts import chance
from rspnet_cli.evaluation.task import Task
from rspnet_cli.files import link_or_copy_file, write_atomic
from rspnet_cli.manifest import ENCODER_STAGES, Manifest
from rspnet_cli.stage import Stage
from rspnet_cli.tables import (
    CLASSES,
    EPOCHS,
    FINETUNE_METRICS,
    FINETUNE_PER_CLASS,
    FINETUNE_PREDICTIONS,
    FINETUNE_VIDEOS,
    TIMINGS,
    csv_bytes,
)
from rspnet_cli.training.checkpoint import Checkpoints
from rspnet_cli.training.plan import Position
from rspnet_cli.training.trackers import TRACKERS
from rspnet_cli.videos.frames import FramesTable
from rspnet_cli.videos.seen import num_seen, seen_videos, write_trained_videos


def encoder_of(stage: Stage) -> Manifest | None:
    """The pretraining or fine-tuning that a stage goes on from; None: random weights."""
    return next((stage.inputs[name] for name in ENCODER_STAGES if name in stage.inputs), None)


def write_videos(stage: Stage, table: FramesTable, task: Task) -> pd.Series:
    """Note which videos are for what, before they are used. Returns whether the encoder saw them before, (V,) boolean (`seen_videos`)."""
    seen = seen_videos(encoder_of(stage), (piece["sha256"] for piece in table.pieces("sha256")))
    used = np.full(len(table), b"False")
    used[task.train] = b"True"
    known = np.array([b"False", b"True", b""])[seen.to_numpy(np.int8, na_value=2)]
    write_trained_videos(stage.work, FINETUNE_VIDEOS, table, {"used": used, "part": task.parts(), "seen": known})
    return seen


def write_results(config: FinetuneConfig, stage: Stage, task: Task, seen: pd.Series, position: Position, logits: np.ndarray) -> None:
    """Name what came of a fine-tuning: figures, tables, classes, the network; and finish the stage.

    seen: of `write_videos`. logits: (Q, K) of the test videos.
    """
    videos, rows = task.videos, task.part.test
    encoder = encoder_of(stage)
    outcome = Outcome.nothing(len(rows))
    outcome.fill(np.arange(len(rows)), task.only_known(logits), task.columns[rows], task.labels)
    results: dict[str, Any] = {
        "protocol": task.protocol,
        "split": config.data.split,
        "videos": len(task.train),
        "classes": len(np.unique(task.columns[task.part.train])),
        "epochs": position.epoch,
        "selected_on": config.data.select_on if position.epoch else None,
        "selection_videos": len(task.selection),
        "selection_top1": -position.best_score[0] if position.best_score else None,
        "best_epoch": position.best_epoch,
        "queries": len(rows),
        "queries_seen": num_seen(seen.iloc[rows]),
        "clips": config.test.clips,
        **summary(outcome, videos.label[rows], videos.group[rows]),
        "chance": chance(videos, [task.part]),
    }
    artifacts = write_outcomes(
        stage.work,
        videos,
        [task.part],
        rows,
        {"finetune": outcome},
        predictions=FINETUNE_PREDICTIONS,
        per_class=FINETUNE_PER_CLASS,
    )
    classes = ({"label": label, "label_name": videos.class_names[label]} for label in task.labels.tolist())
    write_atomic(stage.work / CLASSES.file, csv_bytes(CLASSES.header(), classes))
    if position.epoch:
        trained = [FINETUNE_METRICS.file, EPOCHS.file, *Checkpoints(stage.work).publish()]
        best = stage.work / "checkpoints/best.safetensors"
    else:
        assert encoder is not None
        trained, best = [], encoder.folder / checkpoint_file(encoder, str(config.model.checkpoint))[0]
    (stage.work / CLASSIFIER).unlink(missing_ok=True)  # of a run that was killed here
    link_or_copy_file(best, stage.work / CLASSIFIER)
    stage.finish(
        results=results,
        artifacts=[*artifacts, CLASSIFIER, CLASSES.file, FINETUNE_VIDEOS.file, *trained],
        logs=[TIMINGS.file, TRACKERS],
        classes_sha256=stage.inputs["extract"].classes_sha256,
        environment={"device": config.run.device, "workers": config.run.workers, "tracker": config.run.tracker},
    )
