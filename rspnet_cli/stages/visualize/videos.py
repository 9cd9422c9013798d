"""Which videos are meant: ids of the set, patterns of ids, files, or a seeded few; files go through extract's own settings."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from rspnet_cli.config import ExtractConfig, VisualizeConfig
from rspnet_cli.devices import num_cpus
from rspnet_cli.encoder.load import TrainedAs
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features import StoredVideos
from rspnet_cli.evaluation.videos import labelled_videos
from rspnet_cli.manifest import Manifest, manifest_file, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.report.choose import balanced
from rspnet_cli.settings import nearest, validated
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.extract_video import extract_video
from rspnet_cli.videos.extraction import Extracted, ExtractionTask, Failed, StoreLayout
from rspnet_cli.videos.frames import FramesTable, frames_of, read_frames
from rspnet_cli.videos.ids import make_ids
from rspnet_cli.videos.pool import WorkerPool


@dataclass(frozen=True)
class ChosenVideo:
    """A video to show: a row of a table. name: of its output files; told: as it is called to the user."""

    name: str
    told: str
    table: StoredVideos
    row: int


@contextmanager
def chosen_videos(
    typed: Sequence[str],
    config: VisualizeConfig,
    trained: Manifest,
    *,
    frames: Path | None,
    default_frames: Path | None,
    report: Reporter,
) -> Iterator[list[ChosenVideo]]:
    """The videos, each once, in the order typed; what files were made into is there until the block ends.

    typed: an id, a pattern of ids (`*`, `?`, `[...]`), or a file, in this order; none: `config.count` videos of the set, balanced over
    classes. Raises InputError for what is none of these, and for a file that cannot be decoded.
    """
    table = _table(trained, frames, default_frames, needed=not typed)
    ids = table.ids if table is not None else []
    if table is not None and not typed:
        rows = balanced(labelled_videos(table).label, config.count, config.seed).tolist()
        yield [ChosenVideo(ids[row], ids[row], table, row) for row in rows]
        return
    wanted: dict[str | Path, None] = {}  # ids and files, each once
    for text in typed:
        wanted |= dict.fromkeys(_meant(text, ids))
    files = [item for item in wanted if isinstance(item, Path)]
    names = _names(files, {item for item in wanted if isinstance(item, str)})
    with tempfile.TemporaryDirectory(prefix="rspnet-visualize-", ignore_cleanup_errors=True) as folder:
        stored = _store(files, _extraction(table, trained), Path(folder), report)
        chosen = []
        for item in wanted:
            if isinstance(item, Path):
                chosen.append(ChosenVideo(names[item], plain_text(str(item)), stored, files.index(item)))
            elif table is not None:
                chosen.append(ChosenVideo(item, item, table, ids.index(item)))
        yield chosen


def _table(trained: Manifest, frames: Path | None, default_frames: Path | None, *, needed: bool) -> FramesTable | None:
    """The extraction's videos. Files alone need none where an imported encoder names none and none is at hand."""
    at_hand = default_frames is not None and os.path.exists(manifest_file(default_frames))  # noqa: PTH110
    if trained.is_imported and frames is None and not at_hand and not needed:
        return None
    return read_frames(read_manifest(frames or frames_of(trained, default_frames), stage="extract"))


def _extraction(table: FramesTable | None, trained: Manifest) -> ExtractConfig:
    """How files are to be stored: as the set was; without one at extract's defaults, large enough for the encoder."""
    if table is None:
        return ExtractConfig(short_side=max(ExtractConfig().short_side, TrainedAs.read(trained).size))
    return validated(ExtractConfig, {key: value for key, value in table.manifest.config.items() if key in ExtractConfig.model_fields})


def _meant(text: str, ids: Sequence[str]) -> list[str | Path]:
    if text in ids:
        return [text]
    matching = [video_id for video_id in ids if fnmatchcase(video_id, text)]
    if matching:
        return [*matching]
    if os.path.exists(text):  # noqa: PTH110 (Path.exists raises for a name that is too long)
        return [Path(text)]
    raise InputError(
        f"--videos {plain_text(text)} is neither a video of the set nor a pattern that one matches nor a file{nearest(text, ids)} Name ids "
        "as in videos.csv of the extraction, or files."
    )


def _names(files: Sequence[Path], taken: set[str]) -> dict[Path, str]:
    """A name for the output of each file: its own, or where others have that too the whole path, as extract makes ids of them."""
    times = Counter(file.stem.casefold() for file in files) + Counter(video_id.casefold() for video_id in taken)
    paths = {file: file.name if times[file.stem.casefold()] == 1 else os.path.abspath(file).lstrip("/") for file in files}  # noqa: PTH100
    made = make_ids(paths.values())
    return {file: made[path] for file, path in paths.items()}


@dataclass(frozen=True)
class _Stored:
    """Files that were stored a moment ago, as a table."""

    ids: list[str]
    paths: list[Path]
    frames: np.ndarray
    fps: np.ndarray

    def path(self, row: int) -> Path:
        return self.paths[row]

    def check_file(self, row: int) -> None:
        """Nobody can have changed it."""


def _store(files: Sequence[Path], config: ExtractConfig, folder: Path, report: Reporter) -> _Stored:
    """Store the files as extract stores videos, in worker processes. Raises InputError naming the first that fails."""
    found: dict[str, Extracted] = {}
    layout = StoreLayout(config.codec, in_folders=False)
    with WorkerPool(extract_video, num_workers=max(1, min(num_cpus(), len(files))), timeout_s=config.video_timeout_s) as pool:
        outcomes = pool.outcomes([_task(str(place), file, config, folder / layout.name(str(place))) for place, file in enumerate(files)])
        for outcome in report.track(outcomes, total=len(files), unit="files", name="visualize") if files else ():
            result = outcome.result or Failed(str(outcome.failure))
            if isinstance(result, Failed):
                raise InputError(f"{plain_text(outcome.task.source)} {result.reason}: name another video.")
            found[outcome.task.id] = result
    infos = [found[str(place)] for place in range(len(files))]
    return _Stored(
        ids=[str(file) for file in files],
        paths=[folder / layout.name(str(place)) for place in range(len(files))],
        frames=np.array([info.frames for info in infos], np.int64),
        fps=np.array([info.fps for info in infos], np.float64),
    )


def _task(name: str, file: Path, config: ExtractConfig, target: Path) -> ExtractionTask:
    try:
        status = file.stat()
    except OSError as error:
        raise InputError(f"{plain_text(str(file))} cannot be read ({error.strerror}): name another video.") from error
    return ExtractionTask(
        id=name,
        source=os.path.abspath(file),  # noqa: PTH100 (keeps links as they are)
        target=str(target),
        bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        num_frames=None,
        frames_fps=None,
        short_side=config.short_side,
        codec=config.codec,
        crf=config.crf,
        keep_partial=config.keep_partial,
        max_pixels=config.max_pixels,
    )
