"""extract: every video of a folder becomes one file of frames, and each that cannot be extracted a row that says why.

videos.csv, failures.csv   the tables (`rspnet_cli.tables`)
frames/                    one .mp4, or one folder of JPEG files, per video; of many videos in folders (`StoreLayout`)
files.csv                  the index of these files
sources.csv                the sources as they were found; a log: a later run compares it with what it finds

A shard is the same of a part of the videos, in a folder of its own (`rspnet_cli.shards`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rspnet_cli.config import ExtractConfig
from rspnet_cli.devices import num_cpus
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.file_index import Entry
from rspnet_cli.files import TEMPORARY, sha256_of_json, write_atomic
from rspnet_cli.manifest import SHARD_SUFFIX, Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.shards import Shard, refuse_other_siblings
from rspnet_cli.stage import Stage, begin_stage, find_finished
from rspnet_cli.tables import FAILURES, VIDEOS, csv_bytes, plain_text, read_rows
from rspnet_cli.videos.dask_pool import DaskPool
from rspnet_cli.videos.extraction import FRAMES_FOLDER, extraction_task
from rspnet_cli.videos.extraction_tables import extracted_from_row, failure_rows, video_rows
from rspnet_cli.videos.journal import Journal, is_stored, link_or_copy
from rspnet_cli.videos.listing import counted
from rspnet_cli.videos.pool import WorkerPool
from rspnet_cli.videos.source_list import Known, check_sources, hash_of_sources, read_source_list, write_source_list
from rspnet_cli.videos.survey import Survey, survey
from rspnet_cli.videos.tasks import Extracted, ExtractionTask, Failed, Outcome

NAME = "extract"
_SOURCES, _JOURNAL = "sources.csv", "journal.jsonl"


@dataclass(frozen=True)
class Request(Survey):
    """One call of extract. What it has beside a survey is no part of the result's identity."""

    dask: str | None
    strict: bool
    retry_failed: bool
    verify_sources: bool
    force: bool
    report: Reporter

    @property
    def stage(self) -> str:
        """The stage's name in manifests."""
        return NAME if self.shard is None else NAME + SHARD_SUFFIX

    def check_sources(self, known: Known) -> None:
        """Whether the sources are those of an earlier run. Raises InputError naming what differs."""
        check_sources(self.videos, known, self.sources, retry_failed=self.retry_failed, verify=self.verify_sources, report=self.report)


def extract(
    config: ExtractConfig,
    *,
    videos: Path,
    annotations: Path | None = None,
    out: Path,
    shard: Shard | None = None,
    dask: str | None = None,
    force: bool = False,
    strict: bool = False,
    retry_failed: bool = False,
    verify_sources: bool = False,
    report: Reporter | None = None,
) -> Manifest:
    """Decode the videos below `videos` and store their frames in `out`.

    annotations: file or folder of the layout's lists. shard: do this part alone, in a folder beside `out`, for `merge`. dask: address of a
    scheduler whose workers take the place of processes here. strict: fail at the end if any video failed, the stage unfinished.
    retry_failed: try those again that failed before, also when the stage is finished. verify_sources: compare the content of sources that
    were extracted before, not their size and time. Raises InputError for what was asked or found, RspnetError if nothing could be
    extracted, DiskFullError, BusyError.
    """
    if dask is not None and config.workers is not None:
        raise InputError("--workers has no effect with --dask, whose workers are those of the cluster: leave one of the two out.")
    report = report or Reporter.silent()
    found = survey(config, videos=videos, annotations=annotations, out=out)
    request = Request(
        **vars(found),
        dask=dask,
        strict=strict,
        retry_failed=retry_failed,
        verify_sources=verify_sources,
        force=force,
        report=report,
    )
    if shard is not None:
        if not force and (merged := find_finished(NAME, request.identity, inputs={}, out=out)) is not None:
            _check_finished(merged, request)
            report.info(f"extract: shard {shard} is finished and part of {out} already; nothing to do (--force starts anew).")
            return merged
        request = request.share_of(shard)
        if not force:
            refuse_other_siblings(shard, out, request.identity, {})
        out = shard.folder(out)
    with begin_stage(request.stage, request.identity, inputs={}, out=out, force=force) as stage:
        if not stage.finished:
            return _run(stage, request)
    assert stage.manifest is not None
    _check_finished(stage.manifest, request)
    if retry_failed and stage.manifest.results["failed"]:
        # The old result stays until the new one is whole.
        with begin_stage(request.stage, request.identity, inputs={}, out=out, force=True) as again:
            return _run(again, request, before=stage.manifest)
    report.info(f"extract: finished already in {out} with the same settings and sources; nothing to do (--force starts anew).")
    _refuse_failures(stage.manifest.results, strict, stage.manifest.folder)
    return stage.manifest


def _run(stage: Stage, request: Request, *, before: Manifest | None = None) -> Manifest:
    """Extract what is not done yet and finish. before: the finished result whose failed videos are tried again."""
    table, layout, report = request.table, request.layout, request.report
    frames = stage.work / FRAMES_FOLDER
    frames.mkdir(exist_ok=True)
    for left in frames.glob(f"*/{TEMPORARY}*" if layout.in_folders else f"{TEMPORARY}*"):  # a killed worker's
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    with Journal(stage.work / _JOURNAL) as journal:
        _check_resumed(stage, request, journal)
        if before is not None:
            _take_over(before, stage, request, journal)
        journal.forget(
            [
                video_id
                for video_id, outcome in journal.outcomes.items()
                if (request.retry_failed if isinstance(outcome, Failed) else not is_stored(stage.work / layout.name(video_id), outcome))
            ]
        )
        todo = [video for video in table.videos if video.id not in journal.outcomes]
        num_done = len(table.videos) - len(todo)
        _report_start(stage, request, num_done)
        num_failed = len(table.failures) + sum(isinstance(journal.outcomes.get(video.id), Failed) for video in table.videos)
        with _pool(stage, request, len(todo)) as pool:
            tasks = (extraction_task(video, request.config, layout, root=request.videos, folder=stage.work) for video in todo)
            outcomes = pool.outcomes(tasks)
            for outcome in report.track(outcomes, total=len(table.videos), start=num_done, unit="videos", name=NAME):
                hint = " (--video-timeout)" if outcome.timed_out else ""
                result = outcome.result or Failed(f"{outcome.failure}{hint}")
                journal.add(outcome.task.id, result)
                num_failed += isinstance(result, Failed)
                report.figures(failed=num_failed)
        by_id = {video.id: journal.outcomes[video.id] for video in table.videos}
    return _finish(stage, request, by_id, before=before, num_workers=pool.num_workers)


def _pool(stage: Stage, request: Request, num_tasks: int) -> WorkerPool[ExtractionTask, Outcome] | DaskPool[ExtractionTask, Outcome]:
    """The workers: processes of this machine, or of a dask cluster."""
    from rspnet_cli.videos.extract_video import extract_video  # loads the decoder

    timeout_s = request.config.video_timeout_s
    if request.dask is not None:
        return DaskPool(request.dask, extract_video, timeout_s=timeout_s, folder=stage.work / FRAMES_FOLDER)
    return WorkerPool(extract_video, num_workers=min(request.config.workers or num_cpus(), max(num_tasks, 1)), timeout_s=timeout_s)


def _finish(stage: Stage, request: Request, outcomes: dict[str, Outcome], *, before: Manifest | None, num_workers: int) -> Manifest:
    """Write the tables and the manifest. Raises RspnetError where too much failed."""
    table, layout = request.table, request.layout
    extracted = {video_id: outcome for video_id, outcome in outcomes.items() if isinstance(outcome, Extracted)}
    videos = video_rows(table, outcomes, layout)
    failures = failure_rows(table, outcomes)
    write_atomic(stage.work / VIDEOS.file, csv_bytes(VIDEOS.header(table.split_names), videos))
    write_atomic(stage.work / FAILURES.file, csv_bytes(FAILURES.header(), failures))
    if not extracted and request.shard is None:  # the videos of a shard may happen to be broken, all of them
        raise RspnetError(
            f"None of the {counted(len(failures), 'video')} in {request.videos} could be extracted (the first: {failures[0]['source']} "
            f"{failures[0]['reason']}): {stage.work / FAILURES.file} lists the reasons; type the command again with --retry-failed when "
            "they are gone, or with other settings and --force."
        )
    results = {
        "videos": len(extracted),
        "failed": len(failures),
        "frames": sum(outcome.frames for outcome in extracted.values()),
        "bytes": sum(outcome.bytes for outcome in extracted.values()),
        "classes": len({row["label"] for row in videos if row["label"] is not None}),
        "splits": len(table.split_names),
    }
    if before is not None and _same_tables(stage.work, before.folder):
        shutil.rmtree(stage.work)
        request.report.info(f"extract: {counted(len(failures), 'failed video')} tried again, with the same outcome; nothing was changed.")
        _refuse_failures(before.results, request.strict, before.folder)
        return before
    _refuse_failures(results, request.strict, stage.work)
    frames = sorted(Entry(layout.artifact(video_id), outcome.bytes, outcome.sha256) for video_id, outcome in extracted.items())
    manifest = stage.finish(
        results=results,
        artifacts=[VIDEOS.file, FAILURES.file],
        indexed=(f"{FRAMES_FOLDER}/", frames),
        logs=[_SOURCES],
        classes_sha256=sha256_of_json(list(table.classes)) if table.classes else None,
        environment={
            "workers": num_workers,
            "videos": plain_text(str(request.videos.absolute())),
            "sources_sha256": hash_of_sources(request.sources.items()),
            "notes": [*table.notes, *table.warnings],
        },
    )
    _report_end(request.report, manifest, extracted)
    if request.shard is not None:
        request.report.info(f"extract: shard {request.shard} is done; `rspnet merge extract` puts all together once they are.")
    return manifest


# What was there before


def _check_finished(manifest: Manifest, request: Request) -> None:
    """Whether a finished result is still that of the sources. Raises InputError naming what differs."""
    sources = read_source_list(manifest.folder / _SOURCES)
    if sources is None:  # the log was removed; its hash in the manifest still tells
        if manifest.environment.get("sources_sha256") != hash_of_sources(request.sources.items()):
            raise InputError(
                f"The videos in {request.videos} are not those of the finished extract in {manifest.folder} (its {_SOURCES} is missing, so "
                "which ones differ is not known): add --force to extract anew, or --out DIR to keep both."
            )
        sources = request.sources
    hashes = {row["source"]: row["sha256"] for row in read_rows(manifest.folder / VIDEOS.file)}
    failed = frozenset(row["source"] for row in read_rows(manifest.folder / FAILURES.file))
    request.check_sources(Known(f"the finished extract in {manifest.folder}", sources, hashes, failed))


def _check_resumed(stage: Stage, request: Request, journal: Journal) -> None:
    """Compare the sources with those an interrupted run found, and note them. Under --force other ones are done anew. Raises InputError."""
    sources = read_source_list(stage.work / _SOURCES)
    if sources is not None and (sources != request.sources or request.verify_sources):
        names = {video.id: plain_text(video.path) for video in request.table.videos}
        known = [(names[video_id], outcome) for video_id, outcome in journal.outcomes.items() if video_id in names]
        failed = {source for source, outcome in known if isinstance(outcome, Failed)}
        failed |= {row["source"] for row in read_rows(stage.work / FAILURES.file)}  # a run that ended with --strict left them
        hashes = {source: outcome.source_sha256 for source, outcome in known if isinstance(outcome, Extracted)}
        try:
            request.check_sources(Known(f"the unfinished extract in {stage.folder}", sources, hashes, frozenset(failed)))
        except InputError:
            if not request.force:
                raise
            journal.forget(list(journal.outcomes))
    if sources != request.sources:
        write_source_list(stage.work / _SOURCES, request.sources)


def _take_over(before: Manifest, stage: Stage, request: Request, journal: Journal) -> None:
    """Take the extracted videos of a finished result into an unfinished one, by hard links where the disk has them."""
    videos = {plain_text(video.path): video for video in request.table.videos}
    hashes = {path.rstrip("/"): sha256 for path, sha256 in before.hashes()}
    for row in read_rows(before.folder / VIDEOS.file):
        video = videos.get(row["source"])
        if video is None or isinstance(journal.outcomes.get(video.id), Extracted):
            continue
        link_or_copy(before.folder / row["frames_file"], stage.work / request.layout.name(video.id))
        journal.add(video.id, extracted_from_row(row, store_sha256=hashes[row["frames_file"]]))


def _same_tables(first: Path, second: Path) -> bool:
    names = [name for name in (VIDEOS.file, FAILURES.file, _SOURCES) if (second / name).exists()]
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def _refuse_failures(results: dict[str, Any], strict: bool, folder: Path) -> None:
    """Raises RspnetError under --strict if a video failed."""
    if strict and results["failed"]:
        raise RspnetError(
            f"{counted(results['failed'], 'video')} failed and --strict was given: {folder / FAILURES.file} lists the reasons; "
            "the same command without --strict finishes with the others, --retry-failed tries these again."
        )


# Words


def _report_start(stage: Stage, request: Request, num_done: int) -> None:
    for note in request.table.notes:
        request.report.info(f"extract: {note}")
    for warning in request.table.warnings:
        request.report.warn(warning)
    if stage.resumed:
        request.report.info(
            f"extract: continuing the unfinished run in {stage.folder} ({num_done:,} of {len(request.table.videos):,} videos done)."
        )


def _report_end(report: Reporter, manifest: Manifest, extracted: dict[str, Extracted]) -> None:
    kinds = (
        (sum(outcome.partial for outcome in extracted.values()), "truncated, what decodes of it kept (--keep-partial)"),
        (sum(outcome.corrupt_frames > 0 for outcome in extracted.values()), "with damaged frames, kept"),
        (sum(outcome.repaired_timestamps > 0 for outcome in extracted.values()), "with times out of order, repaired"),
    )
    for number, what in kinds:
        if number:
            report.info(f"extract: {counted(number, 'video')} {what}; {VIDEOS.file} says which.")
    if manifest.results["failed"]:
        report.warn(f"{counted(manifest.results['failed'], 'video')} failed: {manifest.folder / FAILURES.file} lists the reasons.")
