"""The gradients of a batch, in passes over parts of it: less memory, the same sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rspnet_cli import distributed
from rspnet_cli.encoder.batch_norm import frozen_statistics
from rspnet_cli.timing import timed


def add_gradients(
    module: nn.Module, loss_of: Callable[[slice], tuple[Tensor, tuple[Tensor, ...]]], *, batch_size: int, passes: int
) -> tuple[Tensor, ...]:
    """Add the gradients of a batch's mean loss to those of a module's parameters, and return the batch's mean figures.

    module: what `loss_of` runs, as `distributed.data_parallel` gave it; ranks exchange gradients once, in the last pass. loss_of: rows of
    the batch -> their mean loss, shape () with gradient, and figures. passes: equal parts of this rank's batch_size rows.

    Batch norm normalises every pass by its own rows; its running statistics follow the first pass, as they follow rank 0 of several: one
    process with `passes` parts trains as `passes` processes do.
    """
    size = batch_size // passes
    figures = []
    for number in range(passes):
        last = number == passes - 1
        with frozen_statistics(module, frozen=number > 0), distributed.gradients_stay_here(module, here=not last):
            with timed("objective"):  # and within it the query's forward pass
                loss, of_rows = loss_of(slice(number * size, (number + 1) * size))
            with timed("backward"):
                (loss / passes).backward()  # type: ignore[no-untyped-call]
        figures.append(of_rows)
    return tuple(torch.stack(values).mean(0) for values in zip(*figures, strict=True))
