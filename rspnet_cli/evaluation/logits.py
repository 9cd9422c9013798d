"""What a classifier says of whole videos: its logits, averaged over the clips of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from rspnet_cli import distributed
from rspnet_cli.errors import RspnetError
from rspnet_cli.evaluation.features import ClipInput, UniformClips, describe_videos, load_clips
from rspnet_cli.progress import Reporter


def video_logits(
    classify: Callable[[Tensor], Tensor],
    clips: UniformClips,
    rows: np.ndarray,
    *,
    num_classes: int,
    batch_size: int,
    clip_input: ClipInput,
    workers: int,
    report: Reporter | None = None,
) -> np.ndarray:
    """Logits of the videos `rows` (n,), the mean over their clips: (n, K) float32, equal on every rank, which share the work.

    classify: clips (b, 3, T, S, S) -> (b, K) float32. report: shows how far it is. Raises RspnetError for a video that cannot be read, and
    for logits that are not finite.
    """
    # Passes of whole videos: which rank does which, and how many there are, changes nothing about a pass.
    videos_per_pass = max(1, batch_size // clips.count)
    passes = [np.arange(start, min(start + videos_per_pass, len(rows))) for start in range(0, len(rows), videos_per_pass)]
    mine = passes[distributed.rank() :: distributed.world_size()]
    own_rows = [int(rows[place]) for places in mine for place in places]
    logits = np.zeros((len(rows), num_classes), np.float32)
    with closing(load_clips(clips, own_rows, workers=workers, pin_memory=clip_input.device.type == "cuda")) as videos:
        tracked = (report or Reporter.silent()).track(videos, total=len(own_rows), unit="videos", name="test")
        described = describe_videos(classify, tracked, [len(places) for places in mine], batch_size=batch_size, clip_input=clip_input)
        for places, (of_clips, _) in zip(mine, described, strict=True):
            logits[places] = of_clips.mean(axis=1, dtype=np.float64)
        for _ in tracked:  # lets the progress write its last line
            raise AssertionError("more videos than rows")
    gathered: np.ndarray = distributed.sum_over_ranks(torch.from_numpy(logits).to(clip_input.device)).cpu().numpy()
    if not np.isfinite(gathered).all():
        video = clips.files.path(int(rows[int(np.argmin(np.isfinite(gathered).all(axis=1)))])).name
        raise RspnetError(f"The logits of video {video} are not finite: lower optim.lr, or use --precision fp32 if it was not.")
    return gathered
