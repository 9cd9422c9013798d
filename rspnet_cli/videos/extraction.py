"""Where the frames of videos lie, and the tasks that settings make of videos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rspnet_cli.codecs import DEFAULT_CRF, DEFAULT_FRAMES_FPS, ENDINGS, Codec
from rspnet_cli.config import ExtractConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.videos.listing import VideoSource, VideoTable
from rspnet_cli.videos.tasks import ExtractionTask, StoredInfo

FRAMES_FOLDER = "frames"
# More videos lie in folders by a hash of their ids. One folder of millions of files is slow on every file system and more than some can
# hold (ext4: about ten million names), and `rspnet merge` can then move the folders of a shard instead of its files.
FLAT_VIDEOS = 50_000
# 4,096 folders: 60 videos in each of Kinetics-400, 2,400 of ten million.
_FOLDER_DIGITS = 3


@dataclass(frozen=True)
class StoreLayout:
    """Where the frames of videos lie below the stage's folder: a function of the codec and of how many videos there are in all."""

    codec: Codec
    in_folders: bool

    @classmethod
    def of(cls, config: ExtractConfig, num_videos: int) -> StoreLayout:
        return cls(config.codec, num_videos > FLAT_VIDEOS)

    def folder(self, video_id: str) -> str:
        """The folder of a video, such as "frames/a3f"."""
        return f"{FRAMES_FOLDER}/{hashlib.sha256(video_id.encode()).hexdigest()[:_FOLDER_DIGITS]}" if self.in_folders else FRAMES_FOLDER

    def name(self, video_id: str) -> str:
        """Its file, or folder of pictures, as videos.csv names it."""
        return f"{self.folder(video_id)}/{video_id}{ENDINGS[self.codec]}"

    def artifact(self, video_id: str) -> str:
        """The same as an artifact: a folder of pictures ends with a slash."""
        return self.name(video_id) + ("" if ENDINGS[self.codec] else "/")


def resolved(config: ExtractConfig, table: VideoTable) -> ExtractConfig:
    """The settings with what the sources and the codec leave open filled in. Raises InputError for one that has no effect."""
    if config.frames_fps is not None and not table.of_frames:
        raise InputError("--frames-fps has no effect: the sources are video files, which tell their times themselves; leave it out.")
    crf = DEFAULT_CRF if config.crf is None and config.codec == "h264" else config.crf
    frames_fps = config.frames_fps or (DEFAULT_FRAMES_FPS if table.of_frames else None)
    return config.model_copy(update={"dataset": table.dataset, "crf": crf, "frames_fps": frames_fps})


def extraction_task(video: VideoSource, config: ExtractConfig, layout: StoreLayout, *, root: Path, folder: Path) -> ExtractionTask:
    """The task for a video of the table of `root` by the resolved settings, its frames to be written below `folder`."""
    return ExtractionTask(
        id=video.id,
        source=os.path.abspath(root / video.path),  # noqa: PTH100 (keeps links as they are)
        target=str((folder / layout.name(video.id)).absolute()),
        bytes=video.bytes,
        mtime_ns=video.mtime_ns,
        num_frames=video.num_frames,
        **store_settings(config),
    )


def settings_of(extract: Manifest) -> ExtractConfig:
    """The resolved settings by which an extraction stored its videos, for storing others alike. Raises InputError."""
    return validated(ExtractConfig, {key: value for key, value in extract.config.items() if key in ExtractConfig.model_fields})


def store_settings(config: ExtractConfig) -> dict[str, Any]:
    """The fields of a StoreTask that resolved settings decide."""
    return {name: getattr(config, name) for name in ("frames_fps", "short_side", "codec", "crf", "keep_partial", "max_pixels")}


class StoredFiles:
    """Files that were stored a moment ago, as a table of videos (`StoredVideos` of rspnet_cli.evaluation.features)."""

    def __init__(self, paths: Sequence[Path], infos: Sequence[StoredInfo]) -> None:
        self.frames = np.array([info.frames for info in infos], np.int64)
        self.fps = np.array([info.fps for info in infos], np.float64)
        self.height, self.width = (np.array([getattr(info, side) for info in infos], np.int32) for side in ("height", "width"))
        self._paths = paths

    def path(self, row: int) -> Path:
        """The store of a row."""
        return self._paths[row]

    def check_file(self, row: int) -> None:
        """Nobody can have changed it."""
