"""visualize: where in a clip its similarity to another clip of the video comes from, for both tasks, drawn over its frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rspnet_cli.config import VisualizeConfig
from rspnet_cli.devices import resolve_device
from rspnet_cli.encoder.load import PretrainedEncoder, TrainedAs, default_checkpoint, load_encoder, resize_and_normalise
from rspnet_cli.encoder.similarity import similarity_maps
from rspnet_cli.errors import RspnetError
from rspnet_cli.evaluation.encoding import clips_of
from rspnet_cli.manifest import ENCODER_STAGES, Manifest, read_manifest
from rspnet_cli.pictures.files import refuse_foreign, show
from rspnet_cli.progress import Reporter
from rspnet_cli.stages.visualize.drawing import RATE, ShownClip, draw_film, draw_sheet
from rspnet_cli.stages.visualize.videos import ChosenVideo, NotShown, chosen_videos

# Feature maps of so many clips at once: 224 pixels and 64 frames fit into a small GPU.
_BATCH = 8
_COARSE = 3
_DEFINITION = (
    "Supplement C, equation 2: the channels of the clip's last feature map, each weighted by what it adds to the cosine similarity with "
    "the embedding of the key, summed at every place. A map's mean is the similarity, but for what the head's biases add."
)


def visualize(
    config: VisualizeConfig,
    *,
    pretrain: Path,
    videos: Sequence[str],
    out: Path,
    frames: Path | None = None,
    default_frames: Path | None = None,
    force: bool = False,
    report: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw the similarity maps of both tasks over the frames of videos: NAME.png, NAME.mp4 and NAME.json in `out` for each.

    pretrain: folder or manifest of a pretraining. videos: ids of the extraction, patterns of ids, or files; none: a seeded few of the set.
    frames, default_frames: the extraction, as of export_features. Of every clip (evenly spaced, centre square) the key is the next clip
    of its video, at the same speed. Returns what --json prints, in the order typed: of what is neither an id nor a file, and of a video
    that cannot be decoded, the reason as "failure". Raises InputError for an encoder without heads, and files that are not ours.
    """
    report = report or Reporter.silent()
    trained = read_manifest(pretrain, stage=ENCODER_STAGES, verify=False)
    device = resolve_device(config.device)
    checkpoint = config.checkpoint or default_checkpoint(trained)
    encoder = load_encoder(trained.path, device=str(device), checkpoint=checkpoint)
    encoder.require_heads()
    shown: list[dict[str, Any]] = []
    with chosen_videos(videos, config, trained, frames=frames, default_frames=default_frames, report=report) as chosen:
        if not force:
            refuse_foreign(out, [video.name for video in chosen if isinstance(video, ChosenVideo)], "visualize")
        size, told_coarse = config.size or encoder.size, False
        for video in report.track(chosen, total=len(chosen), unit="videos", name="visualize"):
            clips = video.reason if isinstance(video, NotShown) else _clips_with_maps(encoder, video, size, config.clips)
            if isinstance(video, NotShown) or isinstance(clips, str):
                shown.append({"video": video.told, "failure": clips})
                continue
            cells = tuple(clips[0].maps.shape[1:])
            if max(cells[1:]) < _COARSE and not told_coarse:
                told_coarse = True
                report.warn(
                    f"the encoder's feature map of {size}-pixel clips has {cells[1]} x {cells[2]} places only, so its maps are coarse: "
                    f"--size {4 * size // max(cells[1:])} gives finer ones, at a scale that was not trained."
                )
            low, high = min(float(clip.maps.min()) for clip in clips), max(float(clip.maps.max()) for clip in clips)
            record = {
                "video": video.told,
                "definition": _DEFINITION,
                **_encoder_facts(trained, checkpoint),
                "clip": {"frames": encoder.frames, "size": size, "trained_size": encoder.size},
                "places": dict(zip(("time", "height", "width"), cells, strict=True)),
                "scale": {"low": low, "high": high},
                "clips": [clip.described() for clip in clips],
            }
            sheet, film = draw_sheet(video.told, clips, (low, high), size), draw_film(video.told, clips, (low, high))
            files = show(out, video.name, "visualize", sheet=sheet, film=film, rate=RATE, record=record)
            shown.append({**files, "failure": None})
    return shown


def _encoder_facts(trained: Manifest, checkpoint: str) -> dict[str, Any]:
    model = TrainedAs.read(trained)
    return {"pretrain_digest": trained.digest, "checkpoint": checkpoint, "backbone": model.backbone, "head": model.head}


@torch.no_grad()
def _clips_with_maps(encoder: PretrainedEncoder, video: ChosenVideo, size: int, count: int) -> list[ShownClip] | str:
    """The clips of a video, each with its maps A and M; or why it cannot be shown, in words that follow its name."""
    read = clips_of(encoder, video.table, count).read(video.row)
    if isinstance(read, RspnetError):
        return f"cannot be read back: {read}"
    pixels = read.frames.to(encoder.device).permute(3, 0, 1, 2)[None]  # (1, 3, U, h, w)
    ready = resize_and_normalise(pixels, size, antialias=encoder.antialias)[0]  # (3, U, S, S)
    batches = _batches(ready, read.clips.to(encoder.device))
    query_maps = torch.cat([encoder.feature_map(batch) for batch in batches])  # (N, C, t, h, w)
    found = similarity_maps(encoder, query_maps, query_maps.roll(-1, 0))
    maps = torch.stack([task.values for task in found], dim=1).cpu()  # (N, 2, t, h, w)
    similarities = torch.stack([task.similarity for task in found], dim=1).tolist()  # N pairs
    return [
        ShownClip(
            number=place + 1,
            key=(place + 1) % count + 1,
            frames=read.frames[clip].numpy(),
            times_s=(times[0], times[1]),
            maps=maps[place],
            similarity=(similarities[place][0], similarities[place][1]),
        )
        for place, (clip, times) in enumerate(zip(read.clips, read.times_s.tolist(), strict=True))
    ]


def _batches(ready: torch.Tensor, clips: torch.Tensor) -> Iterator[torch.Tensor]:
    """Clips (N, T) of the frames (3, U, S, S), a few at a time: (b, 3, T, S, S)."""
    for some in torch.split(clips, _BATCH):
        yield ready[:, some].transpose(0, 1)
