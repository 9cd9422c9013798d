"""An index of files says what was written, and names what is in a folder and not in it, or the other way round."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import Entry, compare_with_folder, read_index, sample_index, write_index
from tests.sentences import refused

SHA = "0123456789abcdef" * 4
# Names that sort around the slash of a folder: '-' and '.' before it, '0' after it.
PARTS = st.text("ab-.0_", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: "frames/" + "/".join(parts))


def entries_of(paths: set[str]) -> list[Entry]:
    return [Entry(path, number, SHA) for number, path in enumerate(sorted(paths))]


@given(st.sets(PATHS, max_size=30))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "files.csv"
    entries = entries_of(paths)
    assert write_index(path, iter(entries)) == (len(entries), sum(entry.bytes for entry in entries))
    assert list(read_index(path)) == entries
    assert set(sample_index(path, 7)) <= set(entries)
    assert set(sample_index(path, 3000)) == set(entries)  # a place in every line


def test_a_sample_is_spread_over_the_index(tmp_path: Path) -> None:
    entries = entries_of({f"frames/{number:04d}.mp4" for number in range(1000)})
    write_index(tmp_path / "files.csv", entries)
    chosen = [entries.index(entry) for entry in sample_index(tmp_path / "files.csv", 10)]
    assert chosen[0] == 0
    assert all(95 <= after - before <= 105 for before, after in pairwise(chosen))


@given(st.sets(PATHS, max_size=20), st.sets(PATHS, max_size=20), st.sets(PATHS, max_size=4))
def test_a_folder_and_its_index_are_compared_name_by_name(
    tmp_path_factory: pytest.TempPathFactory, there: set[str], listed: set[str], folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    made: set[str] = set()
    whole: set[Path] = set()
    for name in sorted(there):  # a name may be taken as a folder already, or lie below a file
        path = root / name
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            made.add(name)
    for name in sorted(folders):  # folders that count as one file, with something in them
        path = root / name
        if not path.exists() and not any(parent.is_file() or parent in whole for parent in path.parents):
            path.mkdir(parents=True)
            (path / "img_00001.jpg").touch()
            whole.add(path)
    entries = entries_of(listed | {f"{path.relative_to(root).as_posix()}/" for path in whole})
    expected = {(name, False) for name in made - listed} | {(name, True) for name in listed - made}
    assert set(compare_with_folder(root, "frames/", entries)) == expected


def test_a_folder_that_is_not_there_lacks_everything(tmp_path: Path) -> None:
    assert list(compare_with_folder(tmp_path, "frames/", entries_of({"frames/a"}))) == [("frames/a", True)]


def test_an_unreadable_index_is_one_sentence(tmp_path: Path) -> None:
    for read in (read_index, lambda path: sample_index(path, 3)):
        with pytest.raises(InputError) as caught:
            list(read(tmp_path / "files.csv"))
        refused(caught.value, str(tmp_path / "files.csv"))
    (tmp_path / "files.csv").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError) as caught:
        list(read_index(tmp_path / "files.csv"))
    refused(caught.value, "line 1")
