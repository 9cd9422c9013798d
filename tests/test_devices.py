"""Whether this machine can compile, asked before anything is begun; which precision it is quick in; how tensors get to a device."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from rspnet_cli.clips.augment import Augmentation
from rspnet_cli.devices import (
    check_compiler,
    clip_dtype,
    computes_bf16,
    exact_products,
    resolve_precision,
    to_device,
    warn_of_emulated_bf16,
)
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.training import fit
from tests.listener import Listener
from tests.sentences import one_sentence, refused

CPU = torch.device("cpu")
compiling = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts, as its compiler imports them


def flags() -> set[str]:
    """What the processor says of itself."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split())
    return set()


@pytest.mark.skipif(not flags(), reason="this system does not tell the instructions of its x86 processor")
def test_a_processor_without_instructions_for_bfloat16_is_known() -> None:
    emulated = {"avx512_bf16", "avx512bw", "avx_ne_convert"}.isdisjoint(flags())  # oneDNN is quick with any of these
    assert computes_bf16(CPU) is not emulated


def test_auto_is_float32_on_a_gpu_that_only_emulates_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    gpu, listener = torch.device("cuda", 0), Listener()
    assert resolve_precision("auto", gpu) == "fp32"
    warn_of_emulated_bf16("bf16", gpu, listener)
    (said,) = listener.said
    one_sentence(RspnetError(said), "this GPU", "--precision fp32")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolve_precision("auto", gpu) == "bf16"


def test_a_device_of_which_nothing_is_known_is_not_warned_of() -> None:
    listener = Listener()
    warn_of_emulated_bf16("bf16", torch.device("meta"), listener)
    assert listener.said == []


def test_clips_are_rounded_only_where_a_gpu_computes_in_bfloat16() -> None:
    gpu = torch.device("cuda", 0)
    assert (clip_dtype("bf16", gpu), clip_dtype("fp32", gpu), clip_dtype("bf16", CPU)) == (torch.bfloat16, torch.float32, torch.float32)


def test_to_a_cpu_nothing_is_copied() -> None:
    tensor = torch.ones(3)
    assert to_device(tensor, CPU) is tensor


@pytest.mark.gpu
def test_to_a_gpu_a_tensor_travels_without_a_wait(cuda: torch.device) -> None:
    tensor = torch.arange(1000)
    there = to_device(tensor, cuda)
    assert torch.equal(there.cpu(), tensor)
    assert to_device(there, cuda) is there


def allow_tf32_by_the_newer_setting() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "allow",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        allow_tf32_by_the_newer_setting,
    ],
)
def test_whoever_allowed_tf32_products_that_must_be_exact_are(allow: Callable[[], None]) -> None:
    matmul = torch.backends.cuda.matmul
    try:
        allow()
        before = matmul.fp32_precision
        with suppress(KeyError), exact_products():
            assert matmul.fp32_precision != "tf32"
            assert not matmul.allow_tf32  # raises where torch's two settings contradict each other
            raise KeyError
        assert matmul.fp32_precision == before
    finally:
        matmul.fp32_precision = "ieee"
        torch.set_float32_matmul_precision("highest")


def test_where_a_gpu_cannot_compile_it_is_said_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu, on_cpu = (Augmentation(8, False, "reference", device) for device in (torch.device("cuda", 0), CPU))
    no_compiler = "torch.compile does not work here (no gcc): install triton and a C compiler (gcc)"
    for fault, wrong, words in (
        (no_compiler, "", (no_compiler, "augmentation")),
        ("", "its clips are off by up to 0.3", ("off by up to 0.3", "another version of torch")),
        ("", "", ()),
    ):
        monkeypatch.setattr(fit, "compiler_fault", lambda device, fault=fault: fault)
        monkeypatch.setattr(fit, "fault_of_fusing", lambda augmentation, wrong=wrong: wrong)
        listener = Listener()
        assert fit.compiles_augmentation("pretrain", on_gpu, listener) is not bool(words)
        announced, *warned = listener.said
        one_sentence(RspnetError(announced), "pretrain: compiling the augmentation")
        assert len(warned) == bool(words)
        for said in warned:
            one_sentence(RspnetError(said.removeprefix("warning: ")), *words)
        assert not fit.compiles_augmentation("pretrain", on_cpu, listener)
        assert len(listener.said) == 1 + len(warned)


@pytest.fixture
def _nothing_compiled_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


@compiling
@pytest.mark.usefixtures("_nothing_compiled_before")
def test_without_a_compiler_it_is_one_sentence() -> None:
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(InputError) as caught:
        check_compiler(CPU)
    refused(caught.value, "torch.compile does not work here", "no-such-compiler", "g++", "leave --compile")


@compiling
@pytest.mark.usefixtures("_nothing_compiled_before")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_with_a_compiler_it_is_silent() -> None:
    check_compiler(CPU)
