"""Columns of large tables read and written as arrays say what the tables say, a piece at a time, and find what is there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rspnet_cli.tables.table as module
from rspnet_cli.errors import InputError
from rspnet_cli.tables import Column, Table, csv_bytes, read_table
from rspnet_cli.tables.arrays import joined, places, read_pieces, write_arrays
from tests.sentences import refused

WORDS = Table("words.csv", "extract", "a pair", (Column("first", "text", "a word"), Column("second", "text", "another")))
ALL = Table(
    "all.csv",
    "extract",
    "a row",
    (
        Column("id", "text", "a name"),
        Column("count", "int", "how many"),
        Column("rate", "float", "how fast"),
        Column("used", "bool", "whether"),
    ),
)
CELLS = st.text(st.sampled_from('ab,"\n é\\'), max_size=5)


@pytest.fixture(autouse=True)
def three_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)


def table_of_all(path: Path, count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"id": f"v{row}", "count": None if row % 3 == 1 else 10**15 + row, "rate": None if row % 4 == 2 else row / 7, "used": row % 2 == 0}
        for row in range(count)
    ]
    path.write_bytes(csv_bytes(ALL.header(), rows))
    return rows


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=10))
def test_words_are_written_as_in_every_table_and_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "words.csv"
    cells = [np.array([row[side].encode() for row in rows]) for side in range(2)]
    write_arrays(path, WORDS.header(), [[part[:4] for part in cells], [part[4:] for part in cells]])
    assert path.read_bytes() == csv_bytes(WORDS.header(), [{"first": first, "second": second} for first, second in rows])
    read = joined(read_pieces(path, WORDS, WORDS.header()))
    assert [tuple(cell.decode() for cell in pair) for pair in zip(*(read[name].tolist() for name in WORDS.header()), strict=True)] == rows


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_numbers_are_exact_and_an_empty_cell_is_none(tmp_path: Path, count: int) -> None:
    rows = table_of_all(tmp_path / "all.csv", count)
    read = joined(read_pieces(tmp_path / "all.csv", ALL, ("rate", "id", "count", "used")))
    assert {name: values.dtype.kind for name, values in read.items()} == {"rate": "f", "id": "S", "count": "i", "used": "b"}
    assert read["id"].tolist() == [str(row["id"]).encode() for row in rows]
    assert read["count"].tolist() == [-1 if row["count"] is None else row["count"] for row in rows]
    np.testing.assert_array_equal(read["rate"], [math.nan if row["rate"] is None else row["rate"] for row in rows])
    assert read["used"].tolist() == [row["used"] for row in rows]


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (0, 2), (2, 7), (3, 6), (7, 8)])
def test_some_rows_are_those_of_the_whole_table(tmp_path: Path, start: int, stop: int) -> None:
    table_of_all(tmp_path / "all.csv", 8)
    whole, rows = read_table(tmp_path / "all.csv", ALL), slice(start, stop)
    some = read_table(tmp_path / "all.csv", ALL, ("id", "count"), rows=rows)
    assert some.equals(whole[["id", "count"]].iloc[rows].reset_index(drop=True))
    assert joined(read_pieces(tmp_path / "all.csv", ALL, ("id",), rows))["id"].tolist() == [name.encode() for name in whole["id"][rows]]


def test_categories_say_what_the_text_says(tmp_path: Path) -> None:
    rows = [{"first": name, "second": ""} for name in ("b", "b", "", "c", "b", "a", "NA")]
    (tmp_path / "words.csv").write_bytes(csv_bytes(WORDS.header(), rows))
    read = read_table(tmp_path / "words.csv", WORDS, categories=("first",))
    assert read["first"].dtype == "category"
    assert read["first"].tolist() == [row["first"] for row in rows]


def test_a_word_is_refused_rather_than_cut(tmp_path: Path) -> None:
    for length in (127, 128, 200):
        (tmp_path / "words.csv").write_bytes(csv_bytes(WORDS.header(), [{"first": "é", "second": "x" * length}]))
        pieces = read_pieces(tmp_path / "words.csv", WORDS, ("second",))
        if length == 127:
            assert next(pieces)["second"].tolist() == [b"x" * length]
            continue
        with pytest.raises(InputError) as caught:
            next(pieces)
        refused(caught.value, str(tmp_path / "words.csv"), "second", "rspnet extract --force")


def test_what_is_wrong_further_down_is_told_when_it_is_read(tmp_path: Path) -> None:
    table_of_all(tmp_path / "all.csv", 8)
    with (tmp_path / "all.csv").open("a") as file:
        file.write("v8,many,1.5,True\n")
    pieces = read_pieces(tmp_path / "all.csv", ALL, ("count",))
    assert next(pieces)["count"].tolist() == [10**15, -1, 10**15 + 2]
    with pytest.raises(InputError) as caught:
        list(pieces)
    refused(caught.value, str(tmp_path / "all.csv"), "many", "rspnet extract --force")
    with pytest.raises(InputError) as caught:
        list(read_pieces(tmp_path / "all.csv", ALL, ("id", "split_1")))
    refused(caught.value, "has no column split_1")


NAMES = st.binary(max_size=4).filter(lambda name: not name.endswith(b"\0"))


@given(st.lists(NAMES), st.sets(NAMES))
def test_places_are_those_of_a_plain_search(values: list[bytes], known: set[bytes]) -> None:
    ascending = sorted(known)
    expected = [ascending.index(value) if value in known else -1 for value in values]
    assert places(np.array(values, np.bytes_), np.array(ascending, np.bytes_)).tolist() == expected
