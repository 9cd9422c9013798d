"""One RSPNet training step up to the gradients: play both clips at their speeds, embed, compare, renew the queue."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rspnet_cli import distributed
from rspnet_cli.clips.draws import StepDraw
from rspnet_cli.config import PretrainConfig
from rspnet_cli.devices import to_device
from rspnet_cli.encoder.moco import MoCo
from rspnet_cli.timing import timed
from rspnet_cli.training.gradients import add_gradients
from rspnet_cli.training.objective import Figures, instance_loss, ranking_loss, rsp_accuracy, top_k_accuracy


class LoadedClips(NamedTuple):
    """Clips from which those of one or both speeds can be played."""

    frames: Tensor
    """(b, 3, F, S, S) float: augmented frames."""
    offsets: Tensor
    """(b, F) int64, ascending: which frames of the clip's span they are."""


def play(clips: LoadedClips, fast: Tensor, *, speed: int, frames: int) -> Tensor:
    """Play loaded clips at their speeds: (b, 3, T, S, S).

    Speed 1 is the first T frames of the span, `speed` (where `fast`) the frames 0, s, 2s, ...: both start on the same frame.
    """
    with timed("augmentation"):
        steps = torch.arange(frames, device=fast.device)
        wanted = steps * torch.where(fast, speed, 1)[:, None]  # (b, T)
        places = torch.searchsorted(clips.offsets, wanted)
        rows = torch.arange(len(places), device=fast.device)[:, None]
        # Through (b, F, S, S, 3), the layout in memory, so that a frame is copied in one piece and the result is channels_last_3d.
        return clips.frames.permute(0, 2, 3, 4, 1)[rows, places].permute(0, 4, 1, 2, 3)


def rspnet_step(
    moco: MoCo,
    project: nn.Module,
    query: LoadedClips,
    key: LoadedClips,
    videos: Tensor,
    draw: StepDraw,
    config: PretrainConfig,
    *,
    momentum: float,
) -> Figures:
    """Add the gradients of a batch's loss to the query encoder's, renew key encoder and queue, and return the batch's figures.

    project: `query_projection` of `optim.accumulate` passes. query, key: clips of b videos of this rank, holding the frames that `draw`
    plays. videos: (b,) int64. draw: of the global batch. momentum: this step's EMA rate. The order of the passes is that of the released
    code.

    With optim.accumulate the queries alone pass in parts. The key encoder moves once; the keys of the whole batch, which keep no
    activations, are embedded before the first part; every part meets the queue as it was before the step; and all keys enter it after
    the last part, in the order of the batch. So the result is that of one pass with the same moco.bn_splits.
    """
    own_share = slice(distributed.rank() * len(videos), (distributed.rank() + 1) * len(videos))
    fast = to_device(torch.from_numpy(draw.fast[own_share]), videos.device)
    frames, temperature = config.clip.frames, config.moco.temperature

    def autocast() -> torch.autocast:
        return torch.autocast(videos.device.type, dtype=torch.bfloat16, enabled=config.run.precision == "bf16")

    with timed("EMA and queue"):
        moco.update_key_encoder(momentum)
    with autocast(), timed("key forwards"):
        # k' first, then k: batch norm of the key encoder sees them in this order.
        other_a, other_m = moco.embed_keys(play(key, ~fast, speed=draw.speed, frames=frames), draw.shuffles[0])
        key_a, key_m = moco.embed_keys(play(key, fast, speed=draw.speed, frames=frames), draw.shuffles[1])

    def loss_of(rows: slice) -> tuple[Tensor, Figures]:
        with autocast(), timed("query forward"):
            clips = LoadedClips(query.frames[rows], query.offsets[rows])
            query_a, query_m = project(play(clips, fast[rows], speed=draw.speed, frames=frames))
        # Similarities in float32: autocast would round those to the queue's keys to the 8 bits of bfloat16 and divide them by 0.07.
        own = moco.queue_videos[None] == videos[rows, None] if config.moco.mask_same_video else None
        loss_avid, logits, logits_other = instance_loss(query_a, key_a[rows], other_a[rows], moco.queue, temperature=temperature, own=own)
        loss_rsp = ranking_loss(query_m, key_m[rows], other_m[rows], temperature=temperature, margin=config.objective.margin)
        loss = config.objective.avid_weight * loss_avid + config.objective.rsp_weight * loss_rsp
        with torch.no_grad():
            return loss, Figures(
                loss=loss.detach(),
                loss_avid=loss_avid.detach(),
                loss_rsp=loss_rsp.detach(),
                avid_top1=top_k_accuracy(logits, 1),
                avid_top5=top_k_accuracy(logits, 5),
                avid_other_top1=top_k_accuracy(logits_other, 1),
                avid_other_top5=top_k_accuracy(logits_other, 5),
                rsp_accuracy=rsp_accuracy(query_m, key_m[rows], other_m[rows]),
            )

    figures = Figures(*add_gradients(project, loss_of, batch_size=len(videos), passes=config.optim.accumulate))
    with timed("EMA and queue"):
        moco.enqueue(other_a, videos)  # the other-speed keys, as released; after backward, which needs the queue
    return figures
