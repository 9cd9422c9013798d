import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import DiskFullError, RspnetError, Stopped
from rspnet_cli.files import (
    atomic_path,
    canonical_json,
    disk_full,
    is_disk_full,
    sha256_of,
    sha256_of_folder,
    sha256_of_json,
    temporary_folder,
    write_atomic,
)
from rspnet_cli.tensors import write_tensors
from tests.processes import kill_at_change
from tests.sentences import one_sentence

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_is_replaced_by_the_whole_new_content(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json"
    write_atomic(path, "first\r\nline é\n")
    assert path.read_bytes() == "first\r\nline é\n".encode()
    write_atomic(path, b"\x00second")
    assert path.read_bytes() == b"\x00second"
    assert names(path.parent) == ["file.json"]


def test_text_that_is_no_unicode_is_written_as_the_bytes_it_came_from(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", os.fsdecode(b"name-\xff"))
    assert (tmp_path / "file").read_bytes() == b"name-\xff"


def test_the_longest_name_fits_and_the_ending_is_kept_while_writing(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 247 + ".parquet")
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".parquet"
        temporary.write_text("content")
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = set()
    number = 0
    while True:
        write_atomic(path, "old")
        killed = kill_at_change(lambda: write_atomic(path, "new content"), number)
        seen.add(path.read_text())
        if not killed:
            break
        number += 1
    assert number >= 2  # at least before opening and before renaming
    assert seen == {"old", "new content"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_named_with_what_was_needed_where(tmp_path: Path, number: int) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(bytes(1234))
            raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFullError) as caught:
        write()
    one_sentence(caught.value, str(path), "needs more room", "same command")  # there is room for 1,234 bytes
    one_sentence(disk_full(path, 10**18), str(path), "at least 1,000,000,000,000,000,000 bytes", "are free there")
    assert caught.value.exit_code == 1
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk() -> None:
    assert not is_disk_full(OSError(errno.EACCES, "no"))
    assert not is_disk_full(ValueError("os error 28"))


def test_on_a_really_full_disk_writing_fails_clearly_and_leaves_the_old_files(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(256)
    write_atomic(folder / "text", "old")
    write_tensors(folder / "tensors.safetensors", {"a": np.zeros(4, np.float32)}, {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DiskFullError) as caught:
        write_atomic(folder / "text", bytes(400 * 1024))
    assert "409,600 bytes" in str(caught.value)
    with pytest.raises(DiskFullError):  # the safetensors library raises an exception of its own
        write_tensors(folder / "tensors.safetensors", {"a": np.zeros(200_000, np.float32)}, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("end", [None, ValueError, Stopped])
def test_a_temporary_folder_ends_with_its_block_however_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException] | None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with nullcontext() if end is None else pytest.raises(end), temporary_folder("rspnet-test-") as folder:
        assert folder.parent == tmp_path
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text("x")
        if end is not None:
            raise end(2)
    assert names(tmp_path) == []


def test_without_a_place_for_temporary_files_it_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(RspnetError) as error, temporary_folder("rspnet-test-"):
        pass
    one_sentence(error.value, "No temporary folder can be made", "TMPDIR")
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(DiskFullError), temporary_folder("rspnet-test-"):
        pass


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_hash_of_a_folder_is_over_its_sorted_lines(tmp_path: Path) -> None:
    for name, content in (("img_00002.jpg", b"two"), ("img_00001.jpg", b"one!")):
        (tmp_path / name).write_bytes(content)
    lines = "".join(
        f"{hashlib.sha256(content).hexdigest()} {name}\n" for name, content in (("img_00001.jpg", b"one!"), ("img_00002.jpg", b"two"))
    )
    assert sha256_of_folder(tmp_path) == (7, hashlib.sha256(lines.encode()).hexdigest())
    before = sha256_of_folder(tmp_path)
    (tmp_path / "img_00001.jpg").rename(tmp_path / "img_00003.jpg")
    assert sha256_of_folder(tmp_path)[1] != before[1]


@given(JSON)
def test_canonical_json_reads_back_equal_and_has_one_spelling(value: Any) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_the_order_of_keys_does_not_change_a_hash(value: dict[str, Any]) -> None:
    assert sha256_of_json(dict(reversed(value.items()))) == sha256_of_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, {"a": float("-inf")}]])
def test_what_json_cannot_say_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)
