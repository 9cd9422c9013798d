"""RSPNet's training step once more, on the tensors of a released checkpoint under their own names: nothing of ours is in it.

From method.md's facts ("One training step"). Batch norm of several ranks is played one after the other: the running statistics are
those of rank 0, as distributed data parallel broadcasts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.encoder import reference

Params = dict[str, Tensor]
Embed = Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]]


@dataclass
class Outcome:
    """What a step gives: its loss and parts, and what it leaves in the state (parameters of the query encoder with their gradient)."""

    loss: Tensor
    loss_avid: Tensor
    loss_rsp: Tensor
    state: Params


def part_of(params: Params, prefix: str) -> Params:
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def feature_map(backbone: str, params: Params, clips: Tensor, stats: Params | None) -> Tensor:
    """params: those of one encoder, `encoder.*`; stats: as in reference.py."""
    found: Params | None = None if stats is None else {}
    tensors = part_of(params, "encoder.")
    if backbone.startswith("tsm"):  # an image network, inside of another
        tensors = {name.removeprefix("base_model.").replace(".net.", "."): value for name, value in tensors.items()}
        tensors = {name: value.unsqueeze(2) if value.dim() == 4 else value for name, value in tensors.items()}
    features = reference.BACKBONES[backbone](tensors, clips, found)
    if stats is not None and found is not None:
        stats.update({f"encoder.{name}": value for name, value in found.items()})
    return features


def head_outputs(kind: str, params: Params, features: Tensor, stats: Params | None) -> tuple[Tensor, Tensor]:
    """(A, M), not normalised."""
    outputs = []
    for name in ("fc1", "fc2"):
        found: Params | None = None if stats is None else {}
        outputs.append(reference.head(kind, part_of(params, f"{name}."), features, found))
        if stats is not None and found is not None:
            stats.update({f"{name}.{key}": value for key, value in found.items()})
    return outputs[0], outputs[1]


def normalised(rows: Tensor) -> list[Tensor]:
    return [row / torch.clamp((row * row).sum().sqrt(), min=1e-12) for row in rows]


def played(clip: Tensor, fast: bool, speed: int, frames: int) -> Tensor:
    """(3, L, S, S) -> (3, T, S, S): frames 0, 1, 2, ... or 0, s, 2s, ..."""
    return torch.stack([clip[:, t * speed if fast else t] for t in range(frames)], 1)


def embed(backbone: str, kind: str, params: Params, clips: list[Tensor], order: list[int], ranks: int) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings of clips in their own order; rank r sees the r-th part of `order`. Rank 0's statistics go into params."""
    appearance: dict[int, Tensor] = {}
    motion: dict[int, Tensor] = {}
    share = len(clips) // ranks
    kept: Params = {}
    for rank in range(ranks):
        members = order[rank * share : (rank + 1) * share]
        stats: Params = {}
        a, m = head_outputs(kind, params, feature_map(backbone, params, torch.stack([clips[i] for i in members]), stats), stats)
        appearance |= dict(zip(members, normalised(a), strict=True))
        motion |= dict(zip(members, normalised(m), strict=True))
        kept = kept or stats
    params |= kept
    return [appearance[i] for i in range(len(clips))], [motion[i] for i in range(len(clips))]


def released_step(
    backbone: str,
    kind: str,
    state: Params,
    query: Tensor,
    key: Tensor,
    *,
    fast: list[bool],
    speed: int,
    shuffles: list[list[int]],
    frames: int,
    ranks: int = 1,
    momentum: float = 0.999,
    temperature: float = 0.07,
    margin: float = 2.0,
) -> Outcome:
    """One step on clips query and key (B, 3, L, S, S) from a state dict `encoder_q.*`, `encoder_k.*`, `queue`, `queue_ptr`."""
    size = len(query)
    trained = {name: value.clone() for name, value in part_of(state, "encoder_q.").items()}
    for name, value in trained.items():
        value.requires_grad_(name.rpartition(".")[2] in ("weight", "bias"))
    # 1. The key encoder follows: parameters only.
    follower = dict(part_of(state, "encoder_k."))
    for name, value in trained.items():
        if value.requires_grad:
            follower[name] = momentum * follower[name] + (1 - momentum) * value.detach()
    # 2. Who plays at which speed; k- is the same key clip at the other one.
    own = [played(query[i], fast[i], speed, frames) for i in range(size)]
    same = [played(key[i], fast[i], speed, frames) for i in range(size)]
    other = [played(key[i], not fast[i], speed, frames) for i in range(size)]
    # 3. k-, then k+, each shuffled over the ranks; then the queries, not shuffled.
    with torch.no_grad():
        other_a, other_m = embed(backbone, kind, follower, other, shuffles[0], ranks)
        same_a, same_m = embed(backbone, kind, follower, same, shuffles[1], ranks)
    own_a, own_m = embed(backbone, kind, trained, own, list(range(size)), ranks)
    # 4. The losses, with the queue as it was.
    columns = list(state["queue"].T)
    avid, rsp = torch.zeros((), dtype=query.dtype), torch.zeros((), dtype=query.dtype)
    for i in range(size):
        negatives = [own_a[i] @ column / temperature for column in columns]
        for positive in (same_a[i], other_a[i]):
            logits = torch.stack([own_a[i] @ positive / temperature, *negatives])
            avid = avid + (torch.logsumexp(logits, 0) - logits[0]) / size
        gap = (own_m[i] @ same_m[i] - own_m[i] @ other_m[i]) / temperature
        rsp = rsp + torch.clamp(margin - gap, min=0) / size
    # 5. The other-speed keys take the oldest places.
    queue, place = state["queue"].clone(), int(state["queue_ptr"])
    for i in range(size):
        queue[:, place + i] = other_a[i]
    left = {f"encoder_q.{name}": value for name, value in trained.items()} | {
        f"encoder_k.{name}": value for name, value in follower.items()
    }
    left |= {"queue": queue, "queue_ptr": torch.tensor([(place + size) % queue.shape[1]])}
    return Outcome(avid + rsp, avid.detach(), rsp.detach(), left)
