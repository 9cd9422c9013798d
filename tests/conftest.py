"""What all tests share: one thread, restored random states, one small extraction, a disk that is soon full."""

import os

# Before torch is imported, here and in every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("RSPNET_WORK_DIR", None)

import random
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from rspnet_cli.manifest import Manifest
from tests.extracted import make_extract

torch.set_num_threads(1)

# No deadline: machines are shared. Derandomised: a failure is there again in the next run.
hypothesis.settings.register_profile("rspnet", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("rspnet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: those of whole stages and commands come last."""
    items.sort(key=lambda item: ("stages", "cli").index(item.path.parent.name) if item.path.parent.name in ("stages", "cli") else -1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """No test depends on, or changes, the random state that another one left."""
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return (yield)
        finally:
            random.setstate(state)


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Ten extracted videos of 40 x 32 pixels, every frame showing its number; not to be written to."""
    return make_extract(tmp_path_factory.mktemp("shared") / "extract")


@pytest.fixture
def cuda() -> torch.device:
    """The GPU; skips where there is none, and fails where one is promised (RSPNET_TEST_GPU=1)."""
    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("RSPNET_TEST_GPU") == "1" else pytest.skip)("no CUDA device here")
    return torch.device("cuda")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts an empty file system of so many KiB and gives its folder; skips where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
