"""The only module that knows there are ranks (processes started by torchrun). With one process everything here is the identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rspnet_cli.errors import InputError, RspnetError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")

_host_group: Any = None  # beside nccl, for what is decided on the host
_last_group: Any = None


def rank() -> int:
    """This process' number, 0 to world_size() - 1."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """How many processes torchrun started together (1 without it)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process' number on its machine: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Connect the ranks for the block: nccl between GPUs, gloo on CPU. Nothing to do with one process."""
    if world_size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    global _host_group
    timeout = timedelta(minutes=30)
    if device.startswith("cuda"):
        torch.cuda.set_device(local_rank())
        dist.init_process_group("nccl", timeout=timeout)
        _host_group = dist.new_group(backend="gloo", timeout=timeout)
    else:
        dist.init_process_group("gloo", timeout=timeout)
    # DDP keeps the group beyond the block. Were it the last one to, a failed run could end in its destructor, which holds Python's lock
    # (GIL) and waits for gloo's thread, while that waits for the lock to let go of what the broken collective was given.
    global _last_group
    _last_group = dist.group.WORLD
    try:
        yield
    finally:
        _host_group = None
        dist.destroy_process_group()


@contextmanager
def may_fail_on_one_rank() -> Iterator[None]:
    """Errors of the block are said by the rank that met them; all others happen on every rank alike, and rank 0 says them.

    The other ranks, whose connection breaks, say no more than that. Raises RspnetError.
    """
    try:
        yield
    except RspnetError as error:
        error.of_this_rank = True
        raise
    except RuntimeError as error:
        if world_size() > 1 and _is_broken_connection(error):
            raise RspnetError("Another process of this run has failed, see what it says: the same command continues the run.") from error
        raise


def _is_broken_connection(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "/gloo/" in str(error)  # gloo raises the plain class


def share(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def decide(action: Callable[[], T]) -> T:
    """What rank 0's action returns, on every rank. Its InputError is raised on every rank, and rank 0 says it."""
    result: T | None = None
    if is_main():
        try:
            result = action()
        except InputError as error:
            share((None, str(error)))
            raise
    result, message = share((result, ""))
    if message:
        raise InputError(message)
    return cast("T", result)


def largest(value: int) -> int:
    """The largest of the ranks' values, on every rank. From host to host: no GPU is waited for."""
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor([int(value)])
    dist.all_reduce(box, dist.ReduceOp.MAX, group=_host_group)
    return int(box)


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


def all_gather_rows(rows: Tensor) -> Tensor:
    """Every rank's rows (b, ...) one after the other in rank order: (world_size * b, ...). No gradient flows."""
    if world_size() == 1:
        return rows
    import torch
    import torch.distributed as dist

    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over ranks, on every rank."""
    return sum_over_ranks(value) / world_size()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over ranks, on every rank."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    value = value.clone()
    dist.all_reduce(value)
    return value


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module; under torchrun wrapped so that gradients are averaged over ranks.

    Batch norm is per rank, and rank 0's running statistics are those that count, as released. There they are broadcast before each
    pass; nothing in training reads them, so here they are not (`share_buffers` does it before an evaluation).
    """
    if world_size() == 1:
        return module
    from torch.nn.parallel import DistributedDataParallel

    parallel = DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)
    parallel.broadcast_buffers = False  # as an argument it has another name from torch 2.13 on
    return parallel


def gradients_stay_here(module: nn.Module, *, here: bool) -> AbstractContextManager[None]:
    """Passes and their backward in the block add to this rank's gradients alone; those of the next one outside average the sums.

    module: as `data_parallel` gave it. here false: nothing is different in the block.
    """
    no_sync = getattr(module, "no_sync", None)
    return no_sync() if here and no_sync is not None else nullcontext()


def share_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank 0 (batch-norm statistics)."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)
