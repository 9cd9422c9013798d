"""merge: the results of all shards of a stage -> the result that one run would have made, byte for byte and digest for digest.

Frames are moved, never copied: a set of ten million videos is renamed folder by folder (`StoreLayout`), 4,096 in all, one of 50,000
file by file. Hard links would cost as much as moving every file, and not all shared file systems have them; references from the result
into the folders of shards would leave artifacts outside their stage's folder. Features are written anew, as one file, with those of
one shard's clips in memory.

It can be killed at any moment. Tables and manifests of the shards stay until the new result is whole and in its place, so the same
command makes the tables again and moves the frames that are not moved yet. Only then are the folders of the shards removed: of them,
what their manifests list. The result says in its environment which shards it is of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.locks import LOCK, hold_lock
from rspnet_cli.manifest import MANIFEST, UNFINISHED, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settling import is_settled, remove_result
from rspnet_cli.shards import OWN_SETTINGS, read_shards, shard_folders
from rspnet_cli.stage import Stage, begin_stage


def merge(
    stage_name: str,
    *,
    out: Path,
    shards: Sequence[Path] = (),
    force: bool = False,
    report: Reporter | None = None,
) -> Manifest:
    """Make one result of all shards of a stage, in any order, and remove their folders.

    stage_name: extract or export-features. out: the result's folder. shards: their folders (none: those beside `out`). Raises InputError
    naming shards that are missing, unfinished, there twice or of different runs, BusyError where one is still at work, RspnetError where
    none has a video.
    """
    if stage_name not in _COMBINE:
        raise InputError(f"There are no shards of '{stage_name}': merge puts together those of {' or '.join(_COMBINE)}.")
    report = report or Reporter.silent()
    folders = list(shards) or shard_folders(out)
    merged = _merged_before(stage_name, out, folders)
    if merged is not None:
        report.info(f"merge: finished already in {out}; nothing to do.")
        return merged
    manifests = read_shards(stage_name, folders)
    if not any(manifest.results["videos"] for manifest in manifests):
        failed = sum(manifest.results["failed"] for manifest in manifests)
        raise RspnetError(
            f"None of the {failed:,} videos could be extracted: failures.csv in the shards' folders lists the reasons; extract the shards "
            "again with --retry-failed when they are gone, or with other settings and --force."
        )
    config = {key: value for key, value in manifests[0].config.items() if key not in OWN_SETTINGS}
    inputs = {ref.stage: manifests[0].read_input(ref) for ref in manifests[0].inputs}
    with begin_stage(stage_name, config, inputs=inputs, out=out, force=force, report=report, command=f"merge {stage_name}") as stage:
        if not stage.finished:
            for manifest in manifests:
                with hold_lock(manifest.folder):  # nobody is at work there
                    pass
            _COMBINE[stage_name](stage, manifests, report)
    result = _merged_before(stage_name, out, [manifest.folder for manifest in manifests])
    if result is None:
        raise InputError(
            f"{out} holds a finished {stage_name} with the settings of these shards that was not made of them: add --force to replace it, "
            "or --out DIR to keep both."
        )
    return result


def _merged_before(stage_name: str, out: Path, folders: Sequence[Path]) -> Manifest | None:
    """The finished result that the shards in all these folders are part of, with what was left of them removed; else None."""
    if not is_settled(out) or not (out / MANIFEST).exists() or any((folder / UNFINISHED).is_dir() for folder in folders):
        return None
    result = read_manifest(out, stage=stage_name, verify=False)
    parts = result.environment.get("shards")
    digests = {part.get("digest") for part in parts if isinstance(part, dict)} if isinstance(parts, list) else set()
    left = [read_manifest(folder, verify=False) for folder in folders if (folder / MANIFEST).exists()]
    if not digests or not {manifest.digest for manifest in left} <= digests:
        return None
    for manifest in left:
        remove_result(manifest.folder, manifest)
        manifest.path.unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):
            if os.listdir(folder) == [LOCK]:  # what else lies there is not ours
                (folder / LOCK).unlink()
            folder.rmdir()
    return read_manifest(out, stage=stage_name)


def _environment(shards: Sequence[Manifest]) -> dict[str, Any]:
    """Which shards a result is of, and what each of them took."""
    facts = ("host", "seconds", "workers", "device")
    return {
        "shards": [
            {"shard": manifest.config["shard"], "digest": manifest.digest}
            | {key: manifest.environment[key] for key in facts if key in manifest.environment}
            for manifest in shards
        ]
    }


def _merge_extractions(stage: Stage, shards: Sequence[Manifest], report: Reporter) -> None:
    from rspnet_cli.tables import FAILURES, SOURCES, VIDEOS
    from rspnet_cli.videos.listing import counted
    from rspnet_cli.videos.merging import check_frames, hash_of_merged_sources, merge_tables, merged_index, move_frames

    check_frames(shards, stage.work)
    results = merge_tables(shards, stage.work)
    move_frames(report.track(shards, total=len(shards), unit="shards", name="merge"), stage.work)
    stage.finish(
        results=results,
        artifacts=[VIDEOS.file, FAILURES.file],
        indexed=("frames/", merged_index(shards)),
        logs=[SOURCES.file],
        classes_sha256=shards[0].classes_sha256,
        environment=_environment(shards)
        | {"sources_sha256": hash_of_merged_sources(stage.work)}
        | {key: shards[0].environment[key] for key in ("videos", "notes") if key in shards[0].environment},
    )
    if results["failed"]:
        report.warn(f"{counted(results['failed'], 'video')} failed: {stage.folder / FAILURES.file} lists the reasons.")


def _merge_features(stage: Stage, shards: Sequence[Manifest], report: Reporter) -> None:
    from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, write_also
    from rspnet_cli.evaluation.merging import merge_features, merge_statistics

    tracked = report.track(shards, total=len(shards), unit="shards", name="merge")
    statistics = merge_statistics(shards, stage.work)
    table = merge_features((manifest.folder for manifest in tracked), stage.work)
    stage.finish(
        results=dict(shards[0].results) | {"videos": len(table.features)},
        artifacts=[FEATURES, VIDEOS, *statistics, *write_also(stage.work, table, stage.config["also"])],
        classes_sha256=shards[0].classes_sha256,
        environment=_environment(shards),
    )


_COMBINE: dict[str, Callable[[Stage, Sequence[Manifest], Reporter], None]] = {
    "extract": _merge_extractions,
    "export-features": _merge_features,
}
