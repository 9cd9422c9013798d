"""Where and in what precision an encoder runs: what `auto` means on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from rspnet_cli import distributed
from rspnet_cli.errors import InputError

Precision = Literal["fp32", "bf16"]


def resolve_device(wanted: str) -> torch.device:
    """ "auto" (the first of cuda, mps, cpu that is there), "cpu", "cuda", "cuda:1", "mps" -> a device that is there.

    Under torchrun each process gets the GPU of its local rank. Raises InputError.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise InputError(f"there is no device '{wanted}': name auto, cpu, cuda or mps.") from error
    if device.type == "cuda":
        index = distributed.local_rank() if device.index is None else device.index
        if index >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise InputError(
                f"device '{wanted}' is not there (CUDA devices that torch {torch.__version__} sees: {found}): use --device cpu."
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not there: use --device cpu.")
    if device.type not in ("cpu", "mps"):
        raise InputError(f"device '{wanted}' is not supported: name auto, cpu, cuda or mps.")
    return device


def resolve_precision(wanted: str, device: torch.device) -> Precision:
    """ "auto" -> bf16 on a GPU that computes in it, fp32 elsewhere; "fp32" and "bf16" as they are."""
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if wanted == "bf16" else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context to run an encoder in: bfloat16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
