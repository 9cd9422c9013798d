"""What a process has used, where the Linux kernel tells it."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rspnet_cli.usage import Usage, forget_peak, peak_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="the books of the Linux kernel")


def test_the_peak_covers_what_was_held() -> None:
    forget_peak()
    before = peak_bytes()
    assert before is not None
    held = np.ones(64 * 2**20, np.uint8)
    after = peak_bytes()
    assert after is not None
    assert after - before > 0.8 * held.nbytes


@linux
def test_a_process_that_is_gone_has_no_peak() -> None:
    assert peak_bytes(2**22 + 1) is None


def test_working_is_no_waiting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(2**20))
    before, began = Usage.now(), time.process_time()
    while time.process_time() - began < 0.1:
        pass
    (tmp_path / "file").read_bytes()
    used = Usage.now().since(before)
    assert 0.1 <= used.cpu_s <= used.seconds + 0.05
    assert used.read_bytes is None or used.read_bytes >= 2**20
    assert 0 <= used.queued_share <= 1


@pytest.mark.parametrize(
    ("usage", "share"),
    [
        (Usage(10, 2, 1.0, 100, 90), 0.7),
        (Usage(10, 2, 1.0, 100, 40), 0.0),  # most came from memory: no disk is waited for
        (Usage(10, 2, None, 100, 90), 0.8),
        (Usage(10, 12, 0.0, 100, 90), 0.0),  # several threads
        (Usage(10, 2, 1.0, None, None), 0.0),
        (Usage(10, 2, 1.0, 0, 0), 0.0),
    ],
)
def test_the_disk_is_waited_for_where_neither_work_nor_others_explain_the_time(usage: Usage, share: float) -> None:
    assert usage.disk_share == pytest.approx(share)
