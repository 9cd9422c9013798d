"""export-features: an encoder and an extraction -> one vector per video."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli import distributed
from rspnet_cli.config import ExportConfig
from rspnet_cli.devices import default_workers, resolve_device, resolve_precision
from rspnet_cli.encoder.batch_norm import estimate_statistics
from rspnet_cli.encoder.load import PretrainedEncoder, default_checkpoint, load_encoder
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.evaluation.encoding import (
    autocast,
    clip_features,
    clips_of,
    input_of,
    read_statistics,
    video_features,
    write_statistics,
)
from rspnet_cli.evaluation.features import describe_videos, load_clips, split_shards, statistics_batches, statistics_clips
from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, FeatureTable, write_features
from rspnet_cli.evaluation.gallery import Gallery, reference_gallery, resolved_gallery
from rspnet_cli.evaluation.open_features import STATISTICS
from rspnet_cli.evaluation.videos import labelled_videos
from rspnet_cli.files import atomic_path
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import Stage, begin_stage
from rspnet_cli.tensors import check_shape, open_tensors, write_tensors
from rspnet_cli.videos.frames import FramesTable, frames_of, read_frames
from rspnet_cli.videos.seen import seen_videos, trained_videos

_AGAIN = "start anew with --force"
_SAMPLING = {
    "consecutive": "consecutive frames, starts evenly spaced from first to last possible; short videos are looped",
    "cover": "frames spread over the whole video, offsets evenly spaced",
}


def export_features(
    config: ExportConfig,
    *,
    pretrain: Path,
    out: Path,
    frames: Path | None = None,
    default_frames: Path | None = None,
    force: bool = False,
    report: Reporter | None = None,
) -> Manifest:
    """Describe every video by one vector: the mean over its clips of pooled last-layer features.

    pretrain, frames: folders or manifests of a pretraining (or fine-tuning) and of the extraction to describe (None: the one that it
    trained on, or default_frames for an imported encoder, which names none). out: this stage's folder. Under torchrun every rank calls it
    and does its part; the result is that of one process. Raises InputError for inputs that are not what they should be, RspnetError for
    features that are not finite.
    """
    report = report or Reporter.silent()
    if "parquet" in config.also and find_spec("pyarrow") is None:
        raise InputError("--also parquet needs the package pyarrow: install it with `pip install 'rspnet-cli[parquet]'`, or leave it out.")
    device = resolve_device(config.device)
    trained = read_manifest(pretrain, stage=ENCODER_STAGES, verify=False)
    if config.random_init and trained.stage != "pretrain":
        raise InputError(
            f"{trained.path} is of stage '{trained.stage}', which has no untrained encoder: name a pretraining, or leave out --random-init."
        )
    config = resolved_gallery(config).model_copy(
        update={
            "checkpoint": config.checkpoint or default_checkpoint(trained),
            "device": device.type,
            "precision": resolve_precision(config.precision, device),
            "workers": default_workers(device) if config.workers is None else config.workers,
            "reestimate_bn": config.reestimate_bn or config.random_init,
        }
    )
    inputs = {trained.stage: trained.path, "extract": frames or frames_of(trained, default_frames)}
    with (
        distributed.process_group(device.type),
        begin_stage("export-features", config.identity(), inputs=inputs, out=out, force=force, report=report) as stage,
    ):
        if stage.manifest is not None:
            return stage.manifest
        table = read_frames(stage.inputs["extract"])
        gallery = reference_gallery(config, table)
        encoder = load_encoder(trained.path, device=str(device), checkpoint="initial" if config.random_init else config.checkpoint)
        with distributed.may_fail_on_one_rank():
            num_statistics_clips = _prepare_batch_norm(config, stage, encoder, table, report) if config.reestimate_bn else 0
        _warn_of_enlarging(encoder, table, report)
        if stage.classes_differ:
            report.info("export-features: these videos have other classes than the encoder's; labels and splits are those of these videos.")
        if gallery is not None:
            report.info(
                f"export-features: {len(gallery.described):,} train videos of split {gallery.split} are cropped and flipped at random, and "
                f"{len(gallery.dropped)} left out, as in the released code."
            )
        with distributed.may_fail_on_one_rank():
            _describe(config, stage, encoder, table, gallery, report)
            distributed.barrier()  # all shards are there
        if distributed.is_main():
            _write_results(config, stage, encoder, table, gallery, num_statistics_clips)
        distributed.barrier()
        return stage.manifest or read_manifest(out, stage="export-features", verify=False)


def _describe(
    config: ExportConfig, stage: Stage, encoder: PretrainedEncoder, table: FramesTable, gallery: Gallery | None, report: Reporter
) -> None:
    """Write the shards that are not there yet; each rank every so-many-th of them, and rank 0 shows how far its own share is."""
    shards = split_shards(len(table), clips=config.clips, batch_size=config.batch_size)
    # What is missing is rank 0's word: the others may look when its first shard is there.
    missing = distributed.share([shard for shard in shards if not _shard_path(stage, shard).exists()])
    missing = missing[distributed.rank() :: distributed.world_size()]
    rows = [row for shard in missing for row in shard]
    done = len(table) - len(rows) if distributed.world_size() == 1 else 0
    clips = clips_of(encoder, table.files, config.clips, gallery)
    forward = partial(clip_features, encoder, config)
    with closing(load_clips(clips, rows, workers=config.workers or 0, pin_memory=encoder.device.type == "cuda")) as videos:
        tracked = report.track(videos, total=done + len(rows), unit="videos", name="export-features", start=done)
        described = describe_videos(
            forward,
            tracked,
            [len(shard) for shard in missing],
            batch_size=config.batch_size,
            clip_input=input_of(encoder),
        )
        for shard, (features, times_s) in zip(missing, described, strict=True):
            finite = np.isfinite(features).all(axis=(1, 2))
            if not finite.all():
                raise RspnetError(
                    f"The features of video {table.ids[shard[int(np.argmin(finite))]]} are not finite: the encoder has diverged or "
                    "overflows; name another --checkpoint, or --precision fp32."
                )
            write_tensors(_shard_path(stage, shard), {"clip_features": features, "clip_times_s": times_s}, {})
        for _ in tracked:  # lets the progress write its last line
            raise AssertionError("more videos than rows")


def _shard_path(stage: Stage, shard: range) -> Path:
    return stage.work / "shards" / f"{shard.start:08d}.safetensors"


def _read_shards(config: ExportConfig, stage: Stage, channels: int, num_videos: int) -> tuple[np.ndarray, np.ndarray]:
    """All clip features (V, N, C) float32 and clip times (V, N, 2) float64."""
    features = np.empty((num_videos, config.clips, channels), np.float32)
    times_s = np.empty((num_videos, config.clips, 2), np.float64)
    for shard in split_shards(num_videos, clips=config.clips, batch_size=config.batch_size):
        path = _shard_path(stage, shard)
        rows = slice(shard.start, shard.stop)
        with open_tensors(path, advice=_AGAIN) as view:
            for name, dtype, target in (("clip_features", "F32", features), ("clip_times_s", "F64", times_s)):
                check_shape(path, view, name, dtype=dtype, shape=target[rows].shape, advice=_AGAIN)
                target[rows] = view.get_tensor(name)
    return features, times_s


def _prepare_batch_norm(config: ExportConfig, stage: Stage, encoder: PretrainedEncoder, table: FramesTable, report: Reporter) -> int:
    """Estimate batch-norm statistics on clips of the train videos; the number of clips. A resumed run takes what it estimated before."""
    trained, rows = _train_videos(stage, table)
    chosen, count = statistics_clips(rows)
    path = stage.work / STATISTICS
    if distributed.is_main() and not path.exists():
        clips = clips_of(encoder, trained.files, count)
        with closing(load_clips(clips, chosen.tolist(), workers=config.workers or 0, pin_memory=False)) as videos:
            batches = statistics_batches(videos, num_clips=count * len(chosen), clip_input=input_of(encoder))
            with autocast(encoder, config):
                estimate_statistics(encoder.backbone, batches)
        write_statistics(path, encoder)
    distributed.barrier()
    read_statistics(path, encoder, advice=_AGAIN)
    what = "untrained encoder (--random-init)" if config.random_init else "encoder"
    report.info(f"export-features: {what}, batch-norm statistics estimated on {count * len(chosen)} clips of {len(chosen)} train videos.")
    return count * len(chosen)


def _encoder_manifest(stage: Stage) -> Manifest:
    """The pretraining or fine-tuning that the encoder is from."""
    return next(stage.inputs[name] for name in ENCODER_STAGES if name in stage.inputs)


def _train_videos(stage: Stage, table: FramesTable) -> tuple[FramesTable, np.ndarray]:
    """The videos that the encoder was trained on, as rows of their extraction.

    For an imported encoder they are the train videos of the extraction to describe (of its split 1, where it has splits): what a
    pretraining here would have trained on.
    """
    training = _encoder_manifest(stage)
    if training.is_imported:
        rows = table.rows_of_split("1", "train") if table.split_columns else np.arange(len(table))
        if not len(rows):
            raise InputError(f"{table.manifest.path} has no train videos in split 1, on whose clips batch norm could be estimated.")
        return table, rows
    extract = training.input("extract", verify=False)
    trained = table if extract.digest == table.manifest.digest else read_frames(extract)
    used = set(trained_videos(training).query("used")["id"])
    rows = np.array([row for row, name in enumerate(trained.ids) if name in used])
    if not len(rows):
        raise InputError(
            f"None of the videos that {training.path} trained on is in {extract.path}: put back the extraction it was made from."
        )
    return trained, rows


def _warn_of_enlarging(encoder: PretrainedEncoder, table: FramesTable, report: Reporter) -> None:
    small = int((table.rows[["width", "height"]].min(axis=1) < encoder.size).sum())
    if small:
        report.warn(f"{small} of {len(table)} videos are stored smaller than the {encoder.size} pixels of the encoder's clips: enlarged.")


def _write_results(
    config: ExportConfig,
    stage: Stage,
    encoder: PretrainedEncoder,
    table: FramesTable,
    gallery: Gallery | None,
    num_statistics_clips: int,
) -> None:
    described, clip_times_s = _read_shards(config, stage, encoder.channels, len(table))
    features = FeatureTable(
        features=video_features(described),
        clip_features=described,
        clip_times_s=clip_times_s,
        video_index=np.arange(len(table), dtype=np.int64),
        videos=_video_rows(config, stage, table, gallery),
        metadata=_metadata(config, stage, encoder, gallery, num_statistics_clips),
    )
    write_features(stage.work, features)
    artifacts = [FEATURES, VIDEOS, *([STATISTICS] if config.reestimate_bn else [])]
    if "npy" in config.also:
        artifacts.append("features.npy")
        with atomic_path(stage.work / artifacts[-1]) as temporary:
            np.save(temporary, features.features, allow_pickle=False)
    if "parquet" in config.also:
        artifacts.append("features.parquet")
        with atomic_path(stage.work / artifacts[-1]) as temporary:
            features.videos.assign(features=list(features.features)).to_parquet(temporary, engine="pyarrow", index=False)
    stage.finish(
        results={"videos": len(table), "channels": encoder.channels, "clips": config.clips},
        artifacts=artifacts,
        classes_sha256=stage.inputs["extract"].classes_sha256,
        environment={"device": str(encoder.device), "workers": config.workers},
    )


def _video_rows(config: ExportConfig, stage: Stage, table: FramesTable, gallery: Gallery | None) -> pd.DataFrame:
    """The columns of the export's videos.csv, typed as FeatureTable wants them."""
    videos = labelled_videos(table).videos
    if gallery is not None:
        videos.loc[gallery.dropped, f"split_{gallery.split}"] = "unused"
    # By the hash of the source: also true of another extraction, and of a copy of a video under another name.
    videos["seen"] = seen_videos(None if config.random_init else _encoder_manifest(stage), table.rows["sha256"])
    return videos


def _metadata(
    config: ExportConfig, stage: Stage, encoder: PretrainedEncoder, gallery: Gallery | None, num_statistics_clips: int
) -> dict[str, str]:
    """What a reader of the features file alone must know, as safetensors metadata (text)."""
    training = _encoder_manifest(stage)
    antialias = "with" if encoder.antialias else "without"
    values: dict[str, Any] = {
        "format": "rspnet features 1",
        "tensors": "features (V, C): mean over clips; clip_features (V, N, C); clip_times_s (V, N, 2): start, end in source seconds; "
        "label, group, video_index (V,); row i is row i of videos.csv",
        "backbone": encoder.backbone_name,
        "width": training.config["model"]["width"],
        "checkpoint": "initial (untrained)" if config.random_init else config.checkpoint,
        "batch_norm": f"estimated on {num_statistics_clips} train clips" if num_statistics_clips else "running averages of training",
        "layer": "last feature map, before any projection head; not normalised",
        "pool": config.pool,
        "clips": config.clips,
        "clip_frames": encoder.frames,
        "clip_size": encoder.size,
        "frame_rate": "that of the video" if encoder.frame_rate is None else encoder.frame_rate,
        "clip_sampling": _SAMPLING[encoder.sampling],
        "preprocessing": f"largest centre square, bilinear resize {antialias} antialias, RGB / 255, ImageNet mean and deviation",
        "gallery": "preprocessed as all other videos, complete" if gallery is None else gallery.words(),
        "precision": config.precision,
        f"{training.stage}_digest": training.digest,
        "extract_digest": stage.inputs["extract"].digest,
    }
    return {key: str(value) for key, value in values.items()}
