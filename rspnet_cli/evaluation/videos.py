"""What is known of videos that are evaluated: labels, groups, splits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rspnet_cli.videos.frames import FramesTable

_SPLIT = re.compile(r"split_([1-9]\d*)")


@dataclass(frozen=True)
class LabelledVideos:
    """V videos. `videos` has a RangeIndex and the columns id, label (int64, -1 for none), label_name, group, split_N (str, "" for none).

    Of an extraction, which may be of millions, label_name and split_N are categories and group is its number.
    """

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

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Label -> class name, of the labels that occur."""
        first = self.videos["label"].drop_duplicates().sort_values()
        labels = first[first >= 0]
        return dict(zip(labels.tolist(), self.videos["label_name"].loc[labels.index].tolist(), strict=True))


def labelled_videos(table: FramesTable) -> LabelledVideos:
    """The videos of an extraction, row by row."""
    groups = group_numbers(table.read("group"))  # by itself: half the memory at the peak
    repeated = ["label_name", *table.split_columns]
    videos = table.read("id", "label", *repeated, categories=repeated)
    return LabelledVideos(videos.assign(label=videos["label"].to_numpy(np.int64, na_value=-1), group=groups))


def group_numbers(videos: pd.DataFrame) -> np.ndarray:
    """(V,) int64 group of every video, numbered by first appearance; a video without a group is a group by itself."""
    if videos["group"].dtype == np.int64:  # they are numbers already
        return videos["group"].to_numpy()
    alone = (videos["group"] == "").to_numpy()
    numbers = pd.factorize(videos["group"])[0].astype(np.int64)
    numbers[alone] = len(videos) + np.arange(np.count_nonzero(alone))  # beyond those of all groups
    return np.asarray(pd.factorize(numbers)[0], np.int64)


def split_numbers(videos: pd.DataFrame) -> list[int]:
    """The N of the split_N columns, ascending."""
    return sorted(int(match[1]) for name in videos.columns if (match := _SPLIT.fullmatch(name)))
