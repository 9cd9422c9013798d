"""Whether this machine can compile, asked before anything is begun; and which precision it is quick in."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from rspnet_cli.devices import check_compiler, computes_bf16, resolve_precision, warn_of_emulated_bf16
from rspnet_cli.errors import InputError, RspnetError
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
