"""Video files -> features, exactly as an export made those of its set: through extract into a temporary store, then through the encoder."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rspnet_cli.config import ExportConfig, ExtractConfig
from rspnet_cli.devices import num_cpus, warn_of_emulated_bf16
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.evaluation.open_features import STATISTICS
from rspnet_cli.evaluation.search import Described
from rspnet_cli.files import temporary_folder
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, checked_artifact
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages.search.queries import Query
from rspnet_cli.videos.extraction import FRAMES_FOLDER, StoredFiles, StoreLayout, settings_of, store_settings
from rspnet_cli.videos.frame_files import NoFrames, frame_files
from rspnet_cli.videos.pool import WorkerPool
from rspnet_cli.videos.tasks import Failed, StoreTask

if TYPE_CHECKING:
    from rspnet_cli.encoder.load import PretrainedEncoder

_IDS = "videos of the set (id:NAME) can be asked for without it"


@dataclass(frozen=True)
class Makers:
    """What made the features of an export: the encoder, the extraction whose videos it described, and how."""

    export: Manifest
    trained: Manifest
    config: ExportConfig
    extraction: ExtractConfig


def makers_of(export: Manifest) -> Makers:
    """All that it takes to describe a further video. Raises InputError for what is not there any more, and features of other programs."""
    stage = next((ref.stage for ref in export.inputs if ref.stage in ENCODER_STAGES), None)
    if stage is None:
        raise InputError(
            f"{export.path} has features that no encoder of rspnet made, so no other video can be described as they are: ask for videos of "
            "the set (id:NAME)."
        )
    try:
        trained, extract = export.input(stage, verify=False), export.input("extract", verify=False)
    except InputError as error:
        fault = str(error).rstrip(".")
        raise InputError(f"A file cannot be described as the videos of {export.path} were: {fault}; {_IDS}.") from error
    # Resolved settings name a checkpoint also for the untrained encoder, where none can be asked for.
    untrained = export.config.get("random_init") is True
    config = validated(ExportConfig, export.config | ({"checkpoint": None} if untrained else {}))
    if config.reestimate_bn and not any(artifact.path == STATISTICS for artifact in export.artifacts):
        raise InputError(
            f"{export.path} was made by an earlier version, which did not keep the batch-norm statistics that it estimated: make it anew "
            f"with the same command and --force; {_IDS}."
        )
    return Makers(export, trained, config, settings_of(extract))


def describe_files(
    queries: Mapping[int, Query], makers: Makers, *, device: str, workers: int | None, report: Reporter
) -> Generator[tuple[int, Described | str, Path]]:
    """(key of the query, its features or the reason why there are none, its frame store) as they are done, in no particular order.

    The store is there until the next one is asked for. Close the generator: what is temporary ends with it. Raises InputError for an
    encoder that cannot be loaded, DiskFullError.
    """
    from rspnet_cli.videos.extract_video import store_video  # loads the decoder

    with temporary_folder("rspnet-search-") as folder, ThreadPoolExecutor(1) as aside:
        (folder / FRAMES_FOLDER).mkdir()
        # Importing torch takes as long as decoding some videos.
        encoder = aside.submit(_load, makers, device, report)
        num_workers = min(workers or num_cpus(), len(queries))
        with WorkerPool(store_video, num_workers=num_workers, timeout_s=makers.extraction.video_timeout_s) as pool:
            outcomes = pool.outcomes(_tasks(queries, makers.extraction, folder))
            for outcome in report.track(outcomes, total=len(queries), unit="videos", name="search"):
                key, store = int(outcome.task.id), Path(outcome.task.target)
                result = outcome.result or Failed(str(outcome.failure))
                if isinstance(result, Failed):
                    yield key, result.reason, store
                else:
                    yield key, _describe(encoder.result(), makers.config, StoredFiles([store], [result])), store


def _tasks(queries: Mapping[int, Query], config: ExtractConfig, folder: Path) -> Iterator[StoreTask]:
    layout = StoreLayout(config.codec, in_folders=False)
    for key, query in queries.items():
        assert query.source is not None
        yield StoreTask(
            id=str(key),
            source=os.path.abspath(query.source),  # noqa: PTH100 (keeps links as they are)
            target=str((folder / layout.name(str(key))).absolute()),
            num_frames=_num_frames(query.source) if config.frames_fps is not None else None,
            span=query.span,
            **store_settings(config),
        )


def _num_frames(source: Path) -> int | None:
    """Of a folder of frames, where the set's own videos are such; None for anything else."""
    if not os.path.isdir(source):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        return None
    try:
        return len(frame_files(source))
    except NoFrames:
        return 1  # any number: whoever opens it says why


def _load(makers: Makers, device: str, report: Reporter) -> PretrainedEncoder:
    """The encoder as it was when it described the set. Raises InputError."""
    from rspnet_cli.encoder.load import load_encoder
    from rspnet_cli.evaluation.encoding import read_statistics

    config, export = makers.config, makers.export
    encoder = load_encoder(makers.trained.path, device=device, checkpoint="initial" if config.random_init else config.checkpoint)
    warn_of_emulated_bf16(config.precision, encoder.device, report, advice="search features that were exported with --precision fp32")
    if config.reestimate_bn:
        read_statistics(checked_artifact(export, STATISTICS), encoder, advice=export.advice)
    return encoder


def _describe(encoder: PretrainedEncoder, config: ExportConfig, video: StoredFiles) -> Described | str:
    """Features of a stored video, or the reason why there are none."""
    from rspnet_cli.evaluation.encoding import clip_features, clips_of, input_of, video_features
    from rspnet_cli.evaluation.features import describe_videos

    clips = clips_of(encoder, video, config.clips).read(0)
    if isinstance(clips, RspnetError):
        return f"cannot be read back: {clips}"
    forward = partial(clip_features, encoder, config)
    ((features, times_s),) = describe_videos(forward, [clips], [1], batch_size=config.batch_size, clip_input=input_of(encoder))
    if not np.isfinite(features).all():
        return "has features that are not finite: the encoder has diverged or overflows on it"
    return Described(video_features(features)[0], features[0], times_s[0])
