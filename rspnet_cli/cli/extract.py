"""`rspnet extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Force, Out, Quiet, ShardOf, WorkDir, reporter, show_figures, show_json
from rspnet_cli.errors import InputError


def extract(
    videos: Annotated[Path, typer.Argument(metavar="VIDEOS", help="Folder that holds the videos.", show_default=False)],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Layout: ucf101, hmdb51, kinetics400, kinetics100, ssv2, folder (a class per sub-folder), plain, csv, "
            "or list (those of other toolkits).",
            show_default="inferred",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            help="Folder or file of the layout's lists; for csv a file path[,label][,split][,group].",
            show_default="found in or beside VIDEOS",
        ),
    ] = None,
    short_side: Annotated[
        int | None, typer.Option("--short-side", help="Pixels of the shorter side; smaller videos are not enlarged.", show_default="128")
    ] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", help="Store: h264 (smallest), jpeg (folders), or raw (fastest).", show_default="h264")
    ] = None,
    crf: Annotated[int | None, typer.Option("--crf", help="Quality of h264, 0 to 51, lower is better.", show_default="20")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="At most so many videos, evenly spaced over the list.", show_default="all")
    ] = None,
    keep_partial: Annotated[bool, typer.Option("--keep-partial", help="Keep what decodes of truncated videos.")] = False,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", help="A video with larger frames is a failure.", show_default="64000000")
    ] = None,
    video_timeout: Annotated[
        float | None, typer.Option("--video-timeout", help="Seconds after which a video is a failure.", show_default="600")
    ] = None,
    frames_fps: Annotated[
        float | None, typer.Option("--frames-fps", help="Frames per second of sources that are folders of frames.", show_default="25")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: count videos by class and split, and estimate disk and time.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any video failed, after all were tried.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try videos again that failed before.")] = False,
    verify_sources: Annotated[
        bool, typer.Option("--verify-sources", help="Compare the content of videos extracted before, not their size and time.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; changes no result.", show_default="one for each CPU core")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            metavar="tcp://HOST:PORT",
            help="Extract on the workers of this dask scheduler (one you trust, all machines with the same shared folders) instead of "
            "processes here.",
            show_default=False,
        ),
    ] = None,
    shard: ShardOf = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Decode a folder of videos once and store their frames for fast random access.

    A video that cannot be decoded is a row of failures.csv with the reason; it stops nothing.

    With --dry-run, --json prints {"dataset", "out", "out_holds", "videos", "failed", "splits": {split: {part: videos}}, "classes":
    [{"name", "label", "videos", "failed", "splits"}], "missing", "extra", "repeated", "failures": {source: reason}, "notes", "warnings",
    "estimate": {"probed", "failures", "workers", "bytes": {"value", "low", "high"}, "seconds": {the same}}, "free_bytes"}.
    """
    from rspnet_cli.config import ExtractConfig
    from rspnet_cli.settings import flat_settings
    from rspnet_cli.shards import Shard

    part = None if shard is None else Shard.parse(shard)
    for name, value in (("--shard", shard), ("--dask", dask)):
        if value is not None and dry_run:
            raise InputError(f"{name} has no effect with --dry-run, which looks at all videos from here: leave it out.")
    flags = {
        "dataset": dataset,
        "short_side": short_side,
        "codec": codec,
        "crf": crf,
        "limit": limit,
        "keep_partial": keep_partial,
        "max_pixels": max_pixels,
        "frames_fps": frames_fps,
        "video_timeout_s": video_timeout,
        "workers": workers,
    }
    config = flat_settings(ExtractConfig, flags=flags)
    out = out or work_dir / "extract"
    if dry_run:
        from rspnet_cli.stages.plan_extract import plan_extract

        plan = plan_extract(config, videos=videos, annotations=annotations, out=out, report=reporter(quiet))
        if as_json:
            from dataclasses import asdict

            show_json(asdict(plan))
        else:
            from rspnet_cli.cli.extract_plan import show_plan

            show_plan(plan)
        return
    from rspnet_cli.stages.extract import extract as stage

    manifest = stage(
        config,
        videos=videos,
        annotations=annotations,
        out=out,
        shard=part,
        dask=dask,
        force=force,
        strict=strict,
        retry_failed=retry_failed,
        verify_sources=verify_sources,
        report=reporter(quiet),
    )
    if as_json:
        show_json(manifest.results)
        return
    show_figures(manifest.results)
    if manifest.results["failed"]:
        from rspnet_cli.videos.extraction_tables import failures_by_class

        _show_failures(failures_by_class(manifest.folder), manifest.folder / "failures.csv")


def _show_failures(by_class: dict[str, tuple[int, int]], table: Path) -> None:
    """How many videos of each class failed, the most first."""
    typer.echo(f"\nfailed, by class (reasons: {table})")
    for name, (failed, total) in sorted(by_class.items(), key=lambda item: (-item[1][0], item[0])):
        typer.echo(f"  {name or '(no class)'}  {failed:,} of {total:,}")
