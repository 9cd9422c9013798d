"""Whether this machine can compile, asked before anything is begun."""

import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from rspnet_cli.devices import check_compiler
from rspnet_cli.errors import InputError
from tests.sentences import refused

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts, as its compiler imports them


@pytest.fixture(autouse=True)
def _nothing_compiled_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


def test_without_a_compiler_it_is_one_sentence() -> None:
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(InputError) as caught:
        check_compiler(CPU)
    refused(caught.value, "torch.compile does not work here", "no-such-compiler", "g++", "leave --compile")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_with_a_compiler_it_is_silent() -> None:
    check_compiler(CPU)
