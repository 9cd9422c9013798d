"""`rspnet visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Device, Out, Quiet, Replace, WorkDir, reporter, show_json, tell_failures


def visualize(
    pretrain: Annotated[
        Path | None, typer.Argument(metavar="[PRETRAIN]", help="Manifest or folder of a pretraining.", show_default="<work-dir>/pretrain")
    ] = None,
    videos: Annotated[
        list[str] | None,
        typer.Option(
            "--videos",
            metavar="ID|PATTERN|FILE ...",
            help="Videos of the set by id or pattern ('Kick*', in quotes), or any video files.",
            show_default="--count of the set",
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames",
            help="Manifest or folder of the extraction whose videos are meant.",
            show_default="the one that the pretraining read; of an imported encoder <work-dir>/extract",
        ),
    ] = None,
    clips: Annotated[int | None, typer.Option("--clips", help="Clips per video, evenly spaced.", show_default="4")] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", help="Pixels of the clips; larger ones give finer maps.", show_default="those of the training"),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="last, best, epoch_N, or initial (untrained).", show_default="last")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="Videos to show where none are named.", show_default="4")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the choice of these.", show_default="0")] = None,
    device: Device = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Replace = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw over the frames where two clips of a video are similar to the encoder: by appearance (A) and by motion (M).

    The similarity maps of the paper's supplement (C, equation 2): the channels of the last feature map of a clip, each weighted by what it
    adds to the cosine similarity with the embedding of the key, summed at every place and up-sampled over the frames. A is of the head of
    A-VID, M of that of RSP. The key of each clip is the video's next clip (of the last one the first), at the same speed, embedded by the
    same encoder. A map's mean is the similarity, but for the head's biases: at similarity 1, a place at 1 adds its even share. Colours
    have one scale for all frames and both maps of a video, stated in its files.

    Writes NAME.png, NAME.mp4 (8 frames a second) and NAME.json for each video into <work-dir>/visualize. --json prints a list of {"sheet",
    "film", "video", "definition", "pretrain_digest", "checkpoint", "backbone", "head", "clip", "places", "scale": {"low", "high"},
    "clips": [{"start_s", "end_s", "key", "similarity": {"A", "M"}}], "failure": null}, in the order typed. A video that cannot be shown is
    told with its reason, in that list as {"video", "failure": reason}; the others are drawn, and the exit code is 1.
    """
    from rspnet_cli.config import VisualizeConfig
    from rspnet_cli.errors import InputError
    from rspnet_cli.settings import flat_settings

    if videos and (count is not None or seed is not None):
        raise InputError("--count and --seed have no effect with --videos, which names the videos: leave them out.")
    flags = {"clips": clips, "size": size, "checkpoint": checkpoint, "count": count, "seed": seed, "device": device}
    settings = flat_settings(VisualizeConfig, flags=flags)
    from rspnet_cli.stages.visualize import visualize as stage  # torch waits until the arguments are known to be good

    shown = stage(
        settings,
        pretrain=pretrain or work_dir / "pretrain",
        videos=videos or (),
        out=out or work_dir / "visualize",
        frames=frames,
        default_frames=work_dir / "extract",
        force=force,
        report=reporter(quiet),
    )
    if as_json:
        show_json(shown)
    else:
        _show([video for video in shown if video["failure"] is None])
    tell_failures("Videos that are not shown", [(video["video"], video["failure"]) for video in shown])


def _show(videos: list[dict[str, Any]]) -> None:
    for video in videos:
        of = " and ".join(f"{task} {sum(clip['similarity'][task] for clip in video['clips']) / len(video['clips']):.4f}" for task in "AM")
        typer.echo(f"{video['video']}: similarity {of}\n  Contact sheet: {video['sheet']}\n  Film: {video['film']}")
