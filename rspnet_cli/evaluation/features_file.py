"""The features of an export, on disk: `features.safetensors` for the numbers, `videos.csv` for the words.

    features.safetensors  features       (V, C)    float32  one vector per video: the mean over its clips, not normalised
                          clip_features  (V, N, C) float32  one vector per clip
                          clip_times_s   (V, N, 2) float64  start and end of each clip in seconds of the source video
                          label          (V,)      int64    class number, -1 without a label
                          group          (V,)      int64    number of the video's group; a video without one is its own
                          video_index    (V,)      int64    row of the video in the extraction's videos.csv
    metadata (strings)    whatever the exporter states of encoder and clips, and `class_names`, a JSON list by label
    videos.csv            row i describes row i of the tensors; columns as in `rspnet_cli.tables.FEATURE_VIDEOS`

Whoever has pandas and safetensors can use the two alone. Reading trusts neither: a right hash says only that the files are the ones
that were written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.open_features import ADVICE, FEATURES, VIDEOS, check_features
from rspnet_cli.evaluation.videos import LabelledVideos, split_numbers
from rspnet_cli.files import atomic_path
from rspnet_cli.tables import FEATURE_VIDEOS
from rspnet_cli.tensors import InParts, check_shape, open_tensors, write_tensors
from rspnet_cli.videos.seen import num_seen

__all__ = ["FEATURES", "VIDEOS", "FeatureTable", "read_features", "read_videos", "write_features"]

SPLIT_PARTS = ["train", "test", "val", "unused", ""]


@dataclass(frozen=True)
class FeatureTable(LabelledVideos):
    """Features of V videos and what is known of them; shapes and columns as in the module docstring.

    `videos` has a RangeIndex; label is int64 with -1 for none, seen is boolean (NA: not known), frames int64, fps float64, everything
    else is str with "" for none. clip_features is None when it was not asked for.
    """

    features: np.ndarray
    clip_features: np.ndarray | None
    clip_times_s: np.ndarray
    video_index: np.ndarray
    metadata: dict[str, str]

    def num_seen(self, rows: np.ndarray) -> int | None:
        """How many of these rows' videos the encoder saw in training; None where that is not known (an imported encoder)."""
        return num_seen(self.videos["seen"].iloc[rows])


def write_features(folder: Path, table: FeatureTable, clip_features: InParts | None = None) -> None:
    """Write both files into a folder, each atomically. clip_features: in place of the table's. Raises DiskFullError."""
    num_videos, channels = table.features.shape
    of_clips = table.clip_features if clip_features is None else clip_features
    assert of_clips is not None, "an export has the features of every clip"
    assert of_clips.dtype == np.float32
    assert of_clips.shape == (num_videos, table.clip_times_s.shape[1], channels)
    assert table.clip_times_s.shape[::2] == (num_videos, 2)
    assert len(table.video_index) == len(table.videos) == num_videos
    tensors: dict[str, np.ndarray | InParts] = {
        "features": table.features.astype(np.float32, copy=False),
        "clip_features": of_clips,
        "clip_times_s": table.clip_times_s.astype(np.float64, copy=False),
        "label": table.label,
        "group": table.group,
        "video_index": table.video_index.astype(np.int64),
    }
    names = table.class_names
    listed = [names.get(label, "") for label in range(max(names, default=-1) + 1)]
    write_tensors(folder / FEATURES, tensors, table.metadata | {"class_names": json.dumps(listed)})
    label = pd.arrays.IntegerArray(table.label, table.label < 0)  # written as nothing where there is none
    with atomic_path(folder / VIDEOS) as temporary:
        table.videos[_header(table)].assign(label=label).to_csv(temporary, index=False, lineterminator="\n")


def _header(table: FeatureTable) -> list[str]:
    return FEATURE_VIDEOS.header([f"split_{number}" for number in table.splits])


def write_also(folder: Path, table: FeatureTable, forms: Iterable[str]) -> list[str]:
    """Write the features in further forms, "npy" and "parquet", each atomically; the names of the files. Raises DiskFullError."""
    names = []
    for form in sorted(set(forms)):
        names.append(f"features.{form}")
        with atomic_path(folder / names[-1]) as temporary:
            if form == "npy":
                np.save(temporary, table.features, allow_pickle=False)
            else:
                words = table.videos[_header(table)]
                words.assign(features=list(table.features)).to_parquet(temporary, engine="pyarrow", index=False)
    return names


def read_features(folder: Path, *, with_clips: bool = False) -> FeatureTable:
    """Read and check an export: kinds, shapes, finite values, row counts, labels and groups that agree.

    with_clips: also load clip_features. Raises InputError, in one sentence.
    """
    videos = read_videos(folder / VIDEOS)
    path = folder / FEATURES
    rows = len(videos)
    with open_tensors(path, advice=ADVICE) as view:
        check_features(path, view, rows)
        for name in ("label", "group", "video_index"):
            check_shape(path, view, name, dtype="I64", shape=(rows,), advice=ADVICE)
        names = ["features", "clip_times_s", "label", "group", "video_index", *(["clip_features"] if with_clips else [])]
        tensors = {name: view.get_tensor(name) for name in names}
        metadata = dict(view.metadata() or {})
    for name in ("features", "clip_times_s", "clip_features"):
        if name in tensors and not np.isfinite(tensors[name]).all():
            raise InputError(f"{path}: tensor {name!r} holds values that are not finite: {ADVICE}.")
    table = FeatureTable(
        features=tensors["features"],
        clip_features=tensors.get("clip_features"),
        clip_times_s=tensors["clip_times_s"],
        video_index=tensors["video_index"],
        videos=videos,
        metadata=metadata,
    )
    for name, expected in (("label", table.label), ("group", table.group)):
        if not np.array_equal(tensors[name], expected):
            raise InputError(f"{path} and {folder / VIDEOS} disagree about the {name} of a video: {ADVICE}.")
    return table


def read_videos(path: Path) -> pd.DataFrame:
    """Read and check the videos.csv of an export; types as in FeatureTable. Raises InputError, in one sentence."""
    try:
        # Everything as text: pandas would take a class named "NA" or "None" for a missing value.
        text = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    except (OSError, ValueError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not a readable table ({reason}): {ADVICE}.") from error
    missing = [name for name in FEATURE_VIDEOS.header() if name not in text.columns]
    if missing:
        raise InputError(f"{path} lacks the column {missing[0]!r}: {ADVICE}.")
    if text.empty:
        raise InputError(f"{path} lists no videos: {ADVICE}.")
    if (text["id"] == "").any() or text["id"].duplicated().any():
        raise InputError(f"{path}: the ids of its videos are not all there and different: {ADVICE}.")
    videos = text.copy()
    videos["label"] = _numbers(path, text["label"].where(text["label"] != "", "-1"), "label", np.int64)
    videos["frames"] = _numbers(path, text["frames"], "frames", np.int64)
    videos["fps"] = _numbers(path, text["fps"], "fps", np.float64)
    if not text["seen"].isin(["True", "False", ""]).all():
        raise InputError(f"{path}: column 'seen' holds something else than True and False: {ADVICE}.")
    videos["seen"] = text["seen"].map({"True": True, "False": False}).astype("boolean")
    _check_labels(path, videos, text["label"])
    for number in split_numbers(videos):
        unknown = videos.loc[~videos[f"split_{number}"].isin(SPLIT_PARTS), f"split_{number}"]
        if len(unknown):
            raise InputError(f"{path}: column split_{number} holds {unknown.iloc[0]!r}, none of train, test, val and unused: {ADVICE}.")
    return videos


def _check_labels(path: Path, videos: pd.DataFrame, words: pd.Series) -> None:
    """Labels are numbers from 0, and one number has one name."""
    label = videos["label"]
    if ((label < 0) & (words != "")).any():
        raise InputError(f"{path}: column 'label' holds a negative number: {ADVICE}.")
    if ((label < 0) & (videos["label_name"] != "")).any():
        raise InputError(f"{path}: a video has a class name and no label: {ADVICE}.")
    pairs = videos.loc[label >= 0, ["label", "label_name"]].drop_duplicates()
    if pairs["label"].duplicated().any() or pairs["label_name"].duplicated().any():
        raise InputError(f"{path}: labels and class names do not belong together one to one: {ADVICE}.")


def _numbers(path: Path, words: pd.Series, name: str, kind: type[np.int64] | type[np.float64]) -> np.ndarray:
    try:
        numbers = words.to_numpy(dtype=object).astype(str).astype(kind)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: column {name!r} holds something else than numbers: {ADVICE}.") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"{path}: column {name!r} holds a number that is not finite: {ADVICE}.")
    return numbers
