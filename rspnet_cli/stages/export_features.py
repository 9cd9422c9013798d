"""export-features: an encoder and an extraction -> one vector per video.

A shard is the same of a part of the videos, in a folder of its own (`rspnet_cli.shards`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli import distributed
from rspnet_cli.config import ExportConfig
from rspnet_cli.devices import default_workers, resolve_device, resolve_precision, warn_of_emulated_bf16
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
from rspnet_cli.evaluation.feature_facts import feature_facts
from rspnet_cli.evaluation.features import describe_videos, load_clips, split_pieces, statistics_batches, statistics_clips
from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, FeatureTable, write_also, write_features
from rspnet_cli.evaluation.gallery import Gallery, reference_gallery, resolved_gallery
from rspnet_cli.evaluation.open_features import STATISTICS
from rspnet_cli.manifest import ENCODER_STAGES, SHARD_SUFFIX, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.shards import Shard, refuse_other_siblings
from rspnet_cli.stage import Stage, begin_stage, find_finished
from rspnet_cli.tables.arrays import places
from rspnet_cli.tensors import check_shape, open_tensors, write_tensors
from rspnet_cli.videos.frames import FramesTable, frames_of, read_frames
from rspnet_cli.videos.seen import seen_videos, used_videos

NAME = "export-features"
_AGAIN = "delete it and type the same command again"


def export_features(
    config: ExportConfig,
    *,
    pretrain: Path,
    out: Path,
    frames: Path | None = None,
    default_frames: Path | None = None,
    shard: Shard | None = None,
    force: bool = False,
    report: Reporter | None = None,
) -> Manifest:
    """Describe every video by one vector: the mean over its clips of pooled last-layer features.

    pretrain, frames: folders or manifests of a pretraining (or fine-tuning) and of the extraction to describe (None: the one that it
    trained on, or default_frames for an imported encoder, which names none). out: this stage's folder. shard: describe this part of the
    videos alone, in a folder beside `out`, for `merge`. Under torchrun every rank calls it and does its part; the result is that of one
    process. Raises InputError for inputs that are not what they should be, RspnetError for
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
    paths = {trained.stage: trained.path, "extract": frames or frames_of(trained, default_frames)}
    inputs: Mapping[str, Path | Manifest] = paths
    name, identity = NAME, config.identity()
    with ExitStack() as run:
        run.enter_context(distributed.process_group(device.type))
        if shard is not None:
            inputs, merged = distributed.decide(partial(_check_shard, shard, identity, paths, out, force=force))
            if merged:
                report.info(f"{NAME}: shard {shard} is finished and part of {out} already; nothing to do (--force starts anew).")
                return read_manifest(out, stage=NAME, verify=False)
            name, identity, out = NAME + SHARD_SUFFIX, identity | {"shard": str(shard)}, shard.folder(out)
        stage = run.enter_context(begin_stage(name, identity, inputs=inputs, out=out, force=force, report=report))
        if stage.manifest is not None:
            return stage.manifest
        table = read_frames(stage.inputs["extract"])
        pieces = _pieces_of(config, table, shard)
        gallery = reference_gallery(config, table)
        encoder = load_encoder(trained.path, device=str(device), checkpoint="initial" if config.random_init else config.checkpoint)
        with distributed.may_fail_on_one_rank():
            num_statistics_clips = _prepare_batch_norm(config, stage, encoder, table, report) if config.reestimate_bn else 0
        _warn_of_enlarging(encoder, table, report)
        warn_of_emulated_bf16(config.precision, device, report)
        if stage.classes_differ:
            report.info("export-features: these videos have other classes than the encoder's; labels and splits are those of these videos.")
        if gallery is not None:
            report.info(
                f"export-features: {len(gallery.described):,} train videos of split {gallery.split} are cropped and flipped at random, and "
                f"{len(gallery.dropped)} left out, as in the released code."
            )
        with distributed.may_fail_on_one_rank():
            _describe(config, stage, encoder, table, pieces, gallery, report)
            distributed.barrier()  # all pieces are there
        if distributed.is_main():
            _write_results(config, stage, encoder, table, pieces, gallery, num_statistics_clips)
        distributed.barrier()
        return stage.manifest or read_manifest(out, stage=name, verify=False)


def _check_shard(
    shard: Shard, identity: dict[str, Any], inputs: Mapping[str, Path], out: Path, *, force: bool
) -> tuple[dict[str, Manifest], bool]:
    """The inputs, checked, and whether the shard is part of a merged result already. Raises InputError where it does not fit the others."""
    read = {stage: read_manifest(path, stage=stage) for stage, path in inputs.items()}
    if force:
        return read, False
    if find_finished(NAME, identity, inputs=read, out=out) is not None:
        return read, True
    refuse_other_siblings(shard, out, identity | {"shard": str(shard)}, read)
    return read, False


def _pieces_of(config: ExportConfig, table: FramesTable, shard: Shard | None) -> list[range]:
    """The rows to describe, in pieces; a shard's are whole pieces in a row. Raises InputError where there are fewer than shards."""
    pieces = split_pieces(len(table), clips=config.clips, batch_size=config.batch_size)
    if shard is None:
        return pieces
    if shard.count > len(pieces):
        raise InputError(
            f"--shard {shard}: {len(table):,} videos, described {len(pieces[0])} at a time, make {len(pieces):,} shards at most: use "
            f"--shard i/{len(pieces)}, or fewer shards."
        )
    return [pieces[place] for place in shard.part(len(pieces))]


def _describe(
    config: ExportConfig,
    stage: Stage,
    encoder: PretrainedEncoder,
    table: FramesTable,
    pieces: list[range],
    gallery: Gallery | None,
    report: Reporter,
) -> None:
    """Write the pieces that are not there yet; each rank every so-many-th of them, and rank 0 shows how far its own share is."""
    # What is missing is rank 0's word: the others may look when its first piece is there.
    missing = distributed.share([piece for piece in pieces if not _piece_path(stage, piece).exists()])
    missing = missing[distributed.rank() :: distributed.world_size()]
    rows = [row for piece in missing for row in piece]
    done = pieces[-1].stop - pieces[0].start - len(rows) if distributed.world_size() == 1 else 0
    clips = clips_of(encoder, table.files, config.clips, gallery)
    forward = partial(clip_features, encoder, config)
    with closing(load_clips(clips, rows, workers=config.workers or 0, pin_memory=encoder.device.type == "cuda")) as videos:
        tracked = report.track(videos, total=done + len(rows), unit="videos", name=NAME, start=done)
        described = describe_videos(
            forward,
            tracked,
            [len(piece) for piece in missing],
            batch_size=config.batch_size,
            clip_input=input_of(encoder),
        )
        for piece, (features, times_s) in zip(missing, described, strict=True):
            finite = np.isfinite(features).all(axis=(1, 2))
            if not finite.all():
                (video_id,) = table.ids_of([piece[int(np.argmin(finite))]])
                raise RspnetError(
                    f"The features of video {video_id} are not finite: the encoder has diverged or overflows; name another --checkpoint, "
                    "or --precision fp32."
                )
            write_tensors(_piece_path(stage, piece), {"clip_features": features, "clip_times_s": times_s}, {})
        for _ in tracked:  # lets the progress write its last line
            raise AssertionError("more videos than rows")


def _piece_path(stage: Stage, piece: range) -> Path:
    return stage.work / "pieces" / f"{piece.start:08d}-{piece.stop:08d}.safetensors"


def _read_pieces(config: ExportConfig, stage: Stage, channels: int, pieces: list[range]) -> tuple[np.ndarray, np.ndarray]:
    """All clip features (V, N, C) float32 and clip times (V, N, 2) float64."""
    first, num_videos = pieces[0].start, pieces[-1].stop - pieces[0].start
    features = np.empty((num_videos, config.clips, channels), np.float32)
    times_s = np.empty((num_videos, config.clips, 2), np.float64)
    for piece in pieces:
        path = _piece_path(stage, piece)
        rows = slice(piece.start - first, piece.stop - first)
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
    rows = np.flatnonzero(places(trained.array("id"), used_videos(training, "id")) >= 0)
    if not len(rows):
        raise InputError(
            f"None of the videos that {training.path} trained on is in {extract.path}: put back the extraction it was made from."
        )
    return trained, rows


def _warn_of_enlarging(encoder: PretrainedEncoder, table: FramesTable, report: Reporter) -> None:
    small = int((np.minimum(table.files.width, table.files.height) < encoder.size).sum())
    if small:
        report.warn(f"{small} of {len(table)} videos are stored smaller than the {encoder.size} pixels of the encoder's clips: enlarged.")


def _write_results(
    config: ExportConfig,
    stage: Stage,
    encoder: PretrainedEncoder,
    table: FramesTable,
    pieces: list[range],
    gallery: Gallery | None,
    num_statistics_clips: int,
) -> None:
    rows = slice(pieces[0].start, pieces[-1].stop)
    origins = {"training": _encoder_manifest(stage), "extract": stage.inputs["extract"]}
    described, clip_times_s = _read_pieces(config, stage, encoder.channels, pieces)
    features = FeatureTable(
        features=video_features(described),
        clip_features=described,
        clip_times_s=clip_times_s,
        video_index=np.arange(rows.start, rows.stop, dtype=np.int64),
        videos=_video_rows(config, stage, table, rows, gallery),
        metadata=feature_facts(config, encoder, gallery, num_statistics_clips, **origins),
    )
    write_features(stage.work, features)
    statistics = [STATISTICS] if config.reestimate_bn else []
    also = write_also(stage.work, features, config.also) if stage.name == NAME else []  # of shards, merge writes them
    stage.finish(
        results={"videos": len(described), "channels": encoder.channels, "clips": config.clips},
        artifacts=[FEATURES, VIDEOS, *statistics, *also],
        classes_sha256=stage.inputs["extract"].classes_sha256,
        environment={"device": str(encoder.device), "workers": config.workers},
    )


def _video_rows(config: ExportConfig, stage: Stage, table: FramesTable, rows: slice, gallery: Gallery | None) -> pd.DataFrame:
    """The columns of the export's videos.csv, typed as FeatureTable wants them."""
    # By the hash of the source: also true of another extraction, and of a copy of a video under another name.
    sources = (piece["sha256"] for piece in table.pieces("sha256", rows=rows))
    seen = seen_videos(None if config.random_init else _encoder_manifest(stage), sources)
    videos = table.read("id", "source", "label", "label_name", "group", *table.split_columns, rows=rows)
    videos["label"] = videos["label"].to_numpy(np.int64, na_value=-1)
    if gallery is not None:
        videos.loc[np.isin(np.arange(rows.start, rows.stop), gallery.dropped), f"split_{gallery.split}"] = "unused"
    videos["frames"], videos["fps"], videos["seen"] = table.frames[rows], table.fps[rows], seen
    return videos
