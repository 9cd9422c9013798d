"""Which videos are meant: ids of the set, patterns of ids, files, or a seeded few; files go through extract's own settings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rspnet_cli.config import ExtractConfig, VisualizeConfig
from rspnet_cli.devices import num_cpus
from rspnet_cli.encoder.load import TrainedAs
from rspnet_cli.evaluation.features import StoredVideos
from rspnet_cli.files import temporary_folder
from rspnet_cli.manifest import Manifest, manifest_file, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.report.choose import balanced
from rspnet_cli.settings import nearest
from rspnet_cli.tables import plain_text
from rspnet_cli.videos.extract_video import store_video
from rspnet_cli.videos.extraction import StoredFiles, StoreLayout, settings_of, store_settings
from rspnet_cli.videos.frames import FramesTable, frames_of, read_frames
from rspnet_cli.videos.ids import make_ids
from rspnet_cli.videos.pool import WorkerPool
from rspnet_cli.videos.tasks import Failed, StoreTask


@dataclass(frozen=True)
class ChosenVideo:
    """A video to show: a row of a table. name: of its output files; told: as it is called to the user."""

    name: str
    told: str
    table: StoredVideos
    row: int


@dataclass(frozen=True)
class NotShown:
    """What was asked for and cannot be shown. told: as it is called to the user; reason: why, in words that follow this."""

    told: str
    reason: str


@contextmanager
def chosen_videos(
    typed: Sequence[str],
    config: VisualizeConfig,
    trained: Manifest,
    *,
    frames: Path | None,
    default_frames: Path | None,
    report: Reporter,
) -> Iterator[list[ChosenVideo | NotShown]]:
    """The videos, each once, in the order typed; what files were made into is there until the block ends.

    typed: an id, a pattern of ids (`*`, `?`, `[...]`), or a file, in this order; none: `config.count` videos of the set, balanced over
    classes. What is none of these, and a file that cannot be decoded, is there with the reason. Raises InputError.
    """
    table = _table(trained, frames, default_frames, needed=not typed)
    if table is not None and not typed:
        rows = balanced(table.array("label"), config.count, config.seed).tolist()
        yield [ChosenVideo(video_id, video_id, table.files, row) for video_id, row in zip(table.ids_of(rows), rows, strict=True)]
        return
    ids = table.ids if table is not None else []
    wanted: dict[str | Path | NotShown, None] = {}  # ids, files and failures, each once
    for text in typed:
        wanted |= dict.fromkeys(_meant(text, ids))
    files = [item for item in wanted if isinstance(item, Path)]
    names = _names(files, {item for item in wanted if isinstance(item, str)})
    with temporary_folder("rspnet-visualize-") as folder:
        stored = _store(files, _extraction(table, trained), folder, report)
        chosen: list[ChosenVideo | NotShown] = []
        for item in wanted:
            if isinstance(item, NotShown):
                chosen.append(item)
            elif isinstance(item, Path):
                made, told = stored[item], plain_text(str(item))
                chosen.append(NotShown(told, made.reason) if isinstance(made, Failed) else ChosenVideo(names[item], told, made, 0))
            elif table is not None:
                chosen.append(ChosenVideo(item, item, table.files, ids.index(item)))
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
    return settings_of(table.manifest)


def _meant(text: str, ids: Sequence[str]) -> list[str | Path | NotShown]:
    if text in ids:
        return [text]
    matching = [video_id for video_id in ids if fnmatchcase(video_id, text)]
    if matching:
        return [*matching]
    if os.path.exists(text):  # noqa: PTH110 (Path.exists raises for a name that is too long)
        return [Path(text)]
    told, hint = plain_text(text) or '""', nearest(text, ids).removesuffix(".")
    return [NotShown(told, f"is neither a video of the set nor a pattern that one matches nor a file{hint}")]


def _names(files: Sequence[Path], taken: set[str]) -> dict[Path, str]:
    """A name for the output of each file: its own, or where others have that too the whole path, as extract makes ids of them."""
    times = Counter(file.stem.casefold() for file in files) + Counter(video_id.casefold() for video_id in taken)
    paths = {file: file.name if times[file.stem.casefold()] == 1 else os.path.abspath(file).lstrip("/") for file in files}  # noqa: PTH100
    made = make_ids(paths.values())
    return {file: made[path] for file, path in paths.items()}


def _store(files: Sequence[Path], config: ExtractConfig, folder: Path, report: Reporter) -> dict[Path, StoredFiles | Failed]:
    """Store each file as extract stores videos, in worker processes."""
    found: dict[Path, StoredFiles | Failed] = {}
    layout = StoreLayout(config.codec, in_folders=False)
    tasks = [
        StoreTask(
            id=str(place),
            source=os.path.abspath(file),  # noqa: PTH100 (keeps links as they are)
            target=str(folder / layout.name(str(place))),
            num_frames=None,
            **store_settings(config),
        )
        for place, file in enumerate(files)
    ]
    with WorkerPool(store_video, num_workers=max(1, min(num_cpus(), len(files))), timeout_s=config.video_timeout_s) as pool:
        for outcome in report.track(pool.outcomes(tasks), total=len(files), unit="files", name="visualize") if files else ():
            result = outcome.result or Failed(str(outcome.failure))
            stored = result if isinstance(result, Failed) else StoredFiles([Path(outcome.task.target)], [result])
            found[files[int(outcome.task.id)]] = stored
    return found
