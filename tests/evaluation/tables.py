"""Feature tables and finished export-features stages with features of a known kind, for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, FeatureTable, write_features
from rspnet_cli.manifest import Manifest
from rspnet_cli.stage import begin_stage


def make_table(
    *,
    classes: int = 3,
    groups: int = 5,
    videos: int = 3,
    channels: int = 6,
    spread: float = 0.5,
    seed: int = 0,
    split: bool = True,
    labelled: bool = True,
) -> FeatureTable:
    """`videos` videos in each of `groups` groups of each of `classes` classes; the last two groups of a class are for test.

    Features are the class's random centre plus noise of size `spread`, half of it shared by the group.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, channels))
    rows: list[dict[str, Any]] = []
    clip_features = []
    for label in range(classes):
        for group in range(groups):
            shared = rng.normal(size=channels) * spread / 2
            for video in range(videos):
                clip_features.append(centres[label] + shared + rng.normal(size=(2, channels)) * spread / 2)
                name = f"c{label}_g{group}_{video}"
                row = {"id": name, "source": f"{name}.mp4", "label": label if labelled else -1}
                row |= {"label_name": f"class {label}" if labelled else "", "group": f"c{label}_g{group}"}
                row |= {"split_1": "test" if group >= groups - 2 else "train"} if split else {}
                rows.append(row | {"frames": 50, "fps": 25.0, "seen": group == 0})
    clips = np.array(clip_features, np.float32)
    return FeatureTable(
        features=clips.mean(axis=1),
        clip_features=clips,
        clip_times_s=np.tile(np.array([[0.0, 0.64], [1.0, 1.64]]), (len(rows), 1, 1)),
        video_index=np.arange(len(rows)),
        videos=pd.DataFrame(rows),
        metadata={"backbone": "none", "clips": "2"},
    )


def make_export(out: Path, table: FeatureTable, *, config: dict[str, Any] | None = None, inputs: dict[str, Path] | None = None) -> Manifest:
    """A finished export-features stage that holds the table."""
    with begin_stage("export-features", config or {"random_init": False}, inputs=inputs or {}, out=out) as stage:
        write_features(stage.work, table)
        results = {"videos": len(table.videos), "channels": table.features.shape[1], "clips": 2}
        return stage.finish(results=results, artifacts=[FEATURES, VIDEOS], classes_sha256="c" * 64)
