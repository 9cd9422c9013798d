"""Tables read back as what was written, whatever the names in them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.tables import TABLES, VIDEOS, csv_bytes, from_plain_text, plain_text, read_rows, read_table
from tests.sentences import refused

NAMES = st.binary(min_size=1, max_size=30).map(os.fsdecode)


@given(NAMES, NAMES)
def test_names_of_files_become_text_and_can_be_told_apart_and_got_back(first: str, second: str) -> None:
    text = plain_text(first)
    text.encode("utf-8")  # no surrogates are left
    assert not set(text) & set("\n\r\t\0\x1b\x9b")
    assert from_plain_text(text) == first
    assert (plain_text(first) == plain_text(second)) == (first == second)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("walk/v_é.mp4", "walk/v_é.mp4"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("a\nb", "a\\nb"),
        ("a\\nb", "a\\\\nb"),
        ("\x85\u202e\x1b[31m", "\\u0085\\u202e\\x1b[31m"),
        ("一\u3000二", "一\u3000二"),
    ],
)
def test_what_needs_no_escape_is_left_as_it_is(name: str, text: str) -> None:
    assert plain_text(name) == text
    assert from_plain_text(text) == name


def row(**values: object) -> dict[str, object]:
    return {
        "id": "01",
        "frames_file": "frames/01.mp4",
        "source": 'a, "b".mp4',
        "label": None,
        "label_name": "NA",
        "group": "",
        "split_1": "train",
        "frames": 3,
        "fps": 0.1 + 0.2,
        "width": 4,
        "height": 2,
        "bytes": 5,
        "sha256": "0" * 64,
        "repaired_timestamps": 0,
        "corrupt_frames": 0,
        "partial": False,
    } | values


def test_text_stays_text_and_numbers_are_exact(tmp_path: Path) -> None:
    rows = [row(), row(id="02", label=7, label_name="None", partial=True, fps=30000 / 1001)]
    (tmp_path / "videos.csv").write_bytes(csv_bytes(VIDEOS.header(["split_1"]), rows))
    table = read_table(tmp_path / "videos.csv", VIDEOS)
    assert list(table["id"]) == ["01", "02"]
    assert list(table["label_name"]) == ["NA", "None"]
    assert list(table["group"]) == ["", ""]
    assert table["label"].isna().tolist() == [True, False]
    assert table["label"][1] == 7
    assert list(table["fps"]) == [0.1 + 0.2, 30000 / 1001]
    assert list(table["partial"]) == [False, True]
    assert [line["source"] for line in read_rows(tmp_path / "videos.csv")] == ['a, "b".mp4'] * 2


def test_a_file_that_is_another_table_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"id,source\n1,a\n", b"\xff\xfe", csv_bytes(VIDEOS.header(), [row(frames="many")])):
        (tmp_path / "videos.csv").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_table(tmp_path / "videos.csv", VIDEOS)
        refused(caught.value, str(tmp_path / "videos.csv"), "rspnet extract --force")
    with pytest.raises(InputError):
        read_table(tmp_path / "gone.csv", VIDEOS)
    assert read_rows(tmp_path / "gone.csv") == []


def test_every_column_is_documented_once() -> None:
    for table in TABLES:
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert all(column.meaning for column in table.columns)
