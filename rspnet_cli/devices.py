"""Which device and precision a run uses, and how data and settings get there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rspnet_cli import distributed
from rspnet_cli.errors import InputError

if TYPE_CHECKING:
    import torch

    from rspnet_cli.progress import Reporter

# Importing torch takes seconds, in which a CPU core does this many multiplications of a search; the result is the same everywhere.
GPU_MULTIPLICATIONS = 1e12


def resolve_device(name: str) -> torch.device:
    """auto: this rank's GPU, else Apple's, else the CPU. Raises InputError for a device that is not there."""
    import torch

    if name == "auto":
        name = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() and distributed.world_size() == 1 else "cpu"
        )
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, number = name.partition(":")
    if kind not in there or (number and not number.isdigit()):
        raise InputError(f"--device {name}: use auto, cpu, cuda or mps.")
    if not there[kind]:
        raise InputError(
            f"--device {name}: PyTorch {torch.__version__} finds no such device here; use --device cpu, or install a build for it."
        )
    if kind != "cuda":
        return torch.device(kind)
    index = int(number) if number else distributed.local_rank()
    if index >= torch.cuda.device_count():
        raise InputError(f"--device {name}: there are {torch.cuda.device_count()} GPUs here, and GPU {index} was asked for.")
    return torch.device("cuda", index)


def resolve_precision(name: str, device: torch.device) -> str:
    """auto: bf16 on a GPU that computes it, fp32 elsewhere (on CPUs it is slower or no faster for most)."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and computes_bf16(device) else "fp32"


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16 (an unknown one counts as if).

    Without them a CPU takes 30 times as long as in float32 for a 3D convolution (64 channels, 8 x 28 x 28), 200 times for a larger one.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private, but nothing else says what oneDNN will do; builds without oneDNN do not have it.
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None) if device.type == "cpu" else None
    return check is None or bool(check())


def warn_of_emulated_bf16(precision: str, device: torch.device, report: Reporter, *, advice: str = "use --precision fp32") -> None:
    """Say once that bfloat16 is slow on a device without instructions for it, and what to do."""
    if precision == "bf16" and not computes_bf16(device):
        kind = "CPU" if device.type == "cpu" else "GPU"
        slower = "takes 30 times as long as in fp32, or more" if device.type == "cpu" else "may take longer than in fp32"
        report.warn_once(f"this {kind} has no instructions for bfloat16, in which it {slower}: {advice}.")


def clip_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What clips are given to the network as: on a GPU the type it computes in, to which autocast would round them all the same."""
    import torch

    return torch.bfloat16 if precision == "bf16" and device.type == "cuda" else torch.float32


def search_device(wanted: str, multiplications: float) -> str:
    """ "cpu" (numpy), or the torch device to search features on. auto stays on the CPU for what it does in seconds."""
    if wanted == "cpu" or (wanted == "auto" and multiplications < GPU_MULTIPLICATIONS):
        return "cpu"
    return str(resolve_device(wanted))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device. To a GPU it travels from page-locked memory, in turn on the current stream: the host waits for nothing.

    From any other memory a copy to a GPU is waited for, `non_blocking` or not: every small tensor that a step needs goes this way.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def exact_products() -> Iterator[None]:
    """In the block a GPU multiplies float32 matrices as such, also where somebody allowed TF32, whose 11 bits are 1/1000 of a colour."""
    import torch

    wanted = torch.backends.cuda.matmul.fp32_precision
    if wanted != "tf32":
        yield
        return
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:  # allowed by the newer of torch's two settings, which the older cannot tell
        legacy = None
    torch.set_float32_matmul_precision("highest")  # both: they may not contradict each other while something is multiplied
    try:
        yield
    finally:
        if legacy is None:
            torch.backends.cuda.matmul.fp32_precision = wanted
        else:
            torch.set_float32_matmul_precision(legacy)


def check_compiler(device: torch.device) -> None:
    """Raise InputError where torch.compile does not work for a device: then nothing has been begun yet."""
    fault = compiler_fault(device)
    if fault:
        raise InputError(f"{fault}, or leave --compile and run.compile out.")


def compiler_fault(device: torch.device) -> str:
    """What keeps torch.compile from making something tiny, which takes a few seconds, and what to install; empty where nothing does."""
    import torch

    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # each of the compiler's parts has classes of its own
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        needs = "triton and a C compiler (gcc)" if device.type == "cuda" else "a C++ compiler (g++ or clang++; CXX names another)"
        return f"torch.compile does not work here ({reason}): install {needs}"
    return ""


def tune_convolutions(device: torch.device) -> None:
    """Let cuDNN time its algorithms once for every shape, and keep the fastest: the steps of a training are all of one shape."""
    import torch

    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def default_workers(device: torch.device) -> int:
    """Decoding processes: beside a GPU one per core (shared by the machine's ranks), beside training on the CPU a quarter of them."""
    cores = num_cpus()
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, cores // ranks_here) if device.type != "cpu" else cores // (4 * ranks_here))


def num_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
