"""A log is read while it is being written; what is no log is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.report.found import read_log
from tests.sentences import refused


@pytest.mark.parametrize("cut", range(12))
def test_a_line_without_its_end_does_not_count(tmp_path: Path, cut: int) -> None:
    whole = "step,loss\n1,0.5\n2,\n3,0.25\n"
    path = tmp_path / "metrics.csv"
    path.write_text(whole[: len(whole) - cut])
    expected = [{"step": 1.0, "loss": 0.5}, {"step": 2.0, "loss": None}, {"step": 3.0, "loss": 0.25}]
    assert read_log(path) == expected[: whole[: len(whole) - cut].count("\n") - 1]


def test_nothing_yet_is_no_rows(tmp_path: Path) -> None:
    assert read_log(tmp_path / "metrics.csv") == []
    for text in ("", "ste", "step,loss\n"):
        (tmp_path / "metrics.csv").write_text(text)
        assert read_log(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize("content", [b"step,loss\n1,<b>\n", b"step,loss\n1\n", b"step\n\xff\n"])
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_log(tmp_path / "metrics.csv")
    refused(caught.value, "metrics.csv")
