"""What is known of videos that are evaluated: labels, groups, splits."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rspnet_cli.videos.frames import FramesTable

_SPLIT = re.compile(r"split_([1-9]\d*)")


@dataclass(frozen=True)
class LabelledVideos:
    """V videos. `videos` has a RangeIndex and the columns id, label (int64, -1 for none), label_name, group, split_N (str, "" for none)."""

    videos: pd.DataFrame

    @property
    def label(self) -> np.ndarray:
        """(V,) int64, -1 without a label."""
        return self.videos["label"].to_numpy(dtype=np.int64)

    @property
    def group(self) -> np.ndarray:
        """(V,) int64: equal numbers are one group, in order of first appearance; a video without one has its own."""
        return group_numbers(self.videos)

    @property
    def splits(self) -> list[int]:
        """The numbers of the splits there are."""
        return split_numbers(self.videos)

    @property
    def class_names(self) -> dict[int, str]:
        """Label -> class name, of the labels that occur."""
        labelled = self.videos[self.videos["label"] >= 0].drop_duplicates("label").sort_values("label")
        return dict(zip(labelled["label"].tolist(), labelled["label_name"].tolist(), strict=True))


def labelled_videos(table: FramesTable) -> LabelledVideos:
    """The videos of an extraction, row by row; beside the columns of LabelledVideos also source, frames and fps."""
    rows = table.rows
    videos = rows[["id", "source", "label_name", "group", *table.split_columns]].astype("str").reset_index(drop=True)
    videos["label"] = rows["label"].fillna(-1).to_numpy(np.int64)
    videos["frames"], videos["fps"] = table.frames, table.fps
    return LabelledVideos(videos)


def group_numbers(videos: pd.DataFrame) -> np.ndarray:
    """(V,) int64 group of every video, numbered by first appearance; a video without a group is a group by itself."""
    # The prefixes keep a group from meeting a video whose id happens to be the group's name.
    names = ("group " + videos["group"]).where(videos["group"] != "", "video " + videos["id"])
    return pd.factorize(names)[0].astype(np.int64)


def split_numbers(videos: pd.DataFrame) -> list[int]:
    """The N of the split_N columns, ascending."""
    return sorted(int(match[1]) for name in videos.columns if (match := _SPLIT.fullmatch(name)))
