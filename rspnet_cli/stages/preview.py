"""preview: the clips that an encoder is given in pretraining, as pictures to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rspnet_cli.clips.augment import pixels_of
from rspnet_cli.clips.draws import ClipDraw
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import resolve_device
from rspnet_cli.encoder.registry import check_clip_size
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import read_manifest
from rspnet_cli.pictures.files import refuse_foreign, show
from rspnet_cli.pictures.layout import FAINT, Picture, below, beside, fitted, framed, text
from rspnet_cli.progress import Reporter
from rspnet_cli.training.fit import check_num_videos, resolve, warn_of_looped
from rspnet_cli.training.paired_clips import PairedClips, training_rows
from rspnet_cli.training.step import play
from rspnet_cli.videos.frames import FramesTable, read_frames

RATE = Fraction(8)
"""Frames of the film a second: slow enough to see what speed does to 16 frames."""
ROUNDS = 3
"""How often the film plays the clips."""
_STRIP_FRAMES = 16
_SHEET_SIDE, _FILM_SIDE = 112, 192


@dataclass(frozen=True)
class Clip:
    """One clip as the encoder gets it, but for the normalisation. name: query, key or other key (the key at the other speed)."""

    name: str
    speed: int
    frames: np.ndarray
    """(T, S, S, 3) uint8 RGB."""
    draw: ClipDraw


@dataclass(frozen=True)
class Pair:
    """The clips of one video at one step of a pretraining, which counts from 1."""

    video_id: str
    step: int
    clips: tuple[Clip, Clip, Clip]


def preview(
    config: PretrainConfig,
    *,
    frames: Path,
    out: Path,
    step: int = 1,
    count: int = 8,
    force: bool = False,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Show the clips of the first `count` videos that a pretraining with these settings meets from a step on.

    They come through its own loader, draws and augmentation; of several processes, BN parts or steps it is the first. frames: an
    extraction. step: from 1, as in metrics.csv. Writes step-N.png (every frame), step-N.mp4 (the clips playing) and step-N.json into
    `out`, and returns what --json prints. Raises InputError for settings that do not fit the videos.
    """
    report = report or Reporter.silent()
    name = f"step-{step}"
    if not force:
        refuse_foreign(out, [name], "preview")
    device = resolve_device(config.run.device)
    check_clip_size(config.model.backbone, frames=config.clip.frames, side=config.clip.size)
    config = resolve(config, device)
    table = read_frames(read_manifest(frames, stage="extract"))
    table.refuse_larger(config.clip.size)
    rows = training_rows(table, config)
    check_num_videos(len(rows), config.optim, parts=config.moco.bn_splits)
    if config.clip.frame_rate is None:
        warn_of_looped(table, rows, max(config.clip.speeds) * config.clip.frames, report)
    pairs = drawn_pairs(config, table, rows, device, step=step, count=count)
    return show(
        *(out, name, "preview"),
        sheet=_sheet(pairs, config),
        film=_film(pairs),
        rate=RATE,
        record={
            "extract_digest": table.manifest.digest,
            "config": {key: config.identity()[key] for key in ("data", "clip", "augment")},
            "seed": config.run.seed,
            "batch_size": config.optim.batch_size,
            "step": step,
            "videos": [_described(pair) for pair in pairs],
        },
    )


def drawn_pairs(config: PretrainConfig, table: FramesTable, rows: np.ndarray, device: torch.device, *, step: int, count: int) -> list[Pair]:
    """The first `count` pairs from a step on (from 1). config: resolved. Raises InputError for a step that the training does not have."""
    clips = PairedClips(config, table, rows, device)
    steps = config.optim.epochs * clips.steps_per_epoch
    if not 1 <= step <= steps:
        raise InputError(
            f"There is no step {step}: {len(rows)} videos in batches of {config.optim.batch_size} make {steps:,} steps of "
            f"{config.optim.epochs} epochs; name one of them."
        )
    pairs: list[Pair] = []
    # Of a batch no more than is shown: what becomes of a clip does not depend on the others.
    wanted = -(-count // config.optim.batch_size)
    requests = [batch[:count] for batch in islice(clips.order(divmod(step - 1, clips.steps_per_epoch)), wanted)]
    asked = [request.row for batch in requests for request in batch]
    ids = dict(zip(asked, table.ids_of(asked), strict=True))
    with closing(clips.load(requests)) as batches:
        for number, batch in enumerate(batches, start=step - 1):
            draw = clips.draw(*divmod(number, clips.steps_per_epoch))
            fast = torch.from_numpy(draw.fast[: len(batch.videos)]).to(device)
            query, key = (clips.augmented(crops) for crops in batch.clips)
            played = [
                pixels_of(play(source, who, speed=draw.speed, frames=config.clip.frames)).cpu().numpy()
                for source, who in ((query, fast), (key, fast), (key, ~fast))
            ]  # each (b, T, S, S, 3)
            for place, row in enumerate(batch.videos.tolist()):
                own, other = (draw.speed, 1) if draw.fast[place] else (1, draw.speed)
                draws = [batch.clips[side].draws[place] for side in (0, 1, 1)]
                named = zip(("query", "key", "other key"), (own, own, other), [frames[place] for frames in played], draws, strict=True)
                first, second, third = (Clip(*parts) for parts in named)
                pairs.append(Pair(ids[row], number + 1, (first, second, third)))
    return pairs[:count]


def _sheet(pairs: list[Pair], config: PretrainConfig) -> Picture:
    """Every clip as a strip of its frames, three strips a video."""
    clip, speeds = config.clip, sorted({1, *config.clip.speeds})
    head = [
        text(f"rspnet preview: what the encoder gets at step {pairs[0].step}, seed {config.run.seed}", scale=3),
        text(
            f"{clip.frames} frames of {clip.size} x {clip.size} pixels, speeds {', '.join(map(str, speeds))}. The key is the same clip at "
            "both speeds;",
            colour=FAINT,
        ),
        text("RSP: the query is to be nearer to the key at its own speed. A-VID: to both, among other videos.", colour=FAINT),
    ]
    return framed(below([*head, *(_block(pair) for pair in pairs)], gap=14), margin=16)


def _block(pair: Pair) -> Picture:
    parts = [text(pair.video_id)]
    for clip in pair.clips:
        shown = np.unique(np.linspace(0, len(clip.frames) - 1, _STRIP_FRAMES).round().astype(np.int64))
        words = _words(clip) + (f", {len(shown)} of {len(clip.frames)} frames" if len(shown) < len(clip.frames) else "")
        parts += [text(words, colour=FAINT), beside([fitted(clip.frames[frame], _SHEET_SIDE) for frame in shown], gap=2)]
    return below(parts, gap=4)


def _film(pairs: list[Pair]) -> Iterator[Picture]:
    """The clips of all pairs playing side by side."""
    columns = max(1, round(math.sqrt(0.6 * len(pairs))))  # about as wide as a screen
    for frame in [*range(len(pairs[0].clips[0].frames))] * ROUNDS:
        cells = [_cell(pair, frame) for pair in pairs]
        rows = [beside(cells[start : start + columns], gap=24) for start in range(0, len(cells), columns)]
        count = text(f"frame {frame + 1} of {len(pairs[0].clips[0].frames)}", colour=FAINT)
        yield framed(below([count, *rows], gap=16), margin=16)


def _cell(pair: Pair, frame: int) -> Picture:
    tiles = []
    for clip in pair.clips:
        tile = fitted(clip.frames[frame], _FILM_SIDE)
        tiles.append(below([tile, text(f"{clip.name} x{clip.speed}", width=_FILM_SIDE)], gap=4))
    clips = beside(tiles, gap=6)
    return below([text(pair.video_id, width=clips.shape[1]), clips], gap=4)


def _words(clip: Clip) -> str:
    changes = [word for word, made in (("flipped", clip.draw.flip), ("grey", clip.draw.grayscale), ("blurred", clip.draw.blur)) if made]
    return ", ".join([f"{clip.name}: speed {clip.speed}{' (fast)' if clip.speed > 1 else ''}", *changes])


def _described(pair: Pair) -> dict[str, Any]:
    operations = ("brightness", "contrast", "saturation", "hue")  # in the order of their numbers
    return {
        "id": pair.video_id,
        "step": pair.step,
        "clips": [
            {
                "name": clip.name,
                "speed": clip.speed,
                "fast": clip.speed > 1,
                "crop": dict(zip(("top", "left", "height", "width"), clip.draw.box, strict=True)),
                "flip": clip.draw.flip,
                "grayscale": clip.draw.grayscale,
                "blur": clip.draw.blur,
                "jitter": {operations[op]: clip.draw.factors[op] for op in clip.draw.ops},
            }
            for clip in pair.clips
        ],
    }
