"""Safetensors files as we write them."""

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rspnet_cli.errors import InputError
from rspnet_cli.tensors import InParts, check_shape, open_tensors, write_tensors


def test_what_is_written_reads_back_with_its_shapes_and_types(tmp_path: Path) -> None:
    tensors = {"matrix": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scalar": np.array(7), "times": np.array([0.5])}
    write_tensors(tmp_path / "a.safetensors", tensors, {"b": "2", "a": "é"})
    with open_tensors(tmp_path / "a.safetensors", advice="x") as view:
        assert view.metadata() == {"a": "é", "b": "2"}
        for name, value in tensors.items():
            np.testing.assert_array_equal(view.get_tensor(name), value)
            assert (view.get_tensor(name).shape, view.get_tensor(name).dtype) == (value.shape, value.dtype)


KINDS = ["uint64", "int64", "float64", "float32", "uint32", "int32", "float16", "uint16", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("metadata", [{}, {"clé": 'a "value"'}], ids=["bare", "with metadata"])
def test_the_bytes_are_those_that_the_library_writes(tmp_path: Path, metadata: dict[str, str]) -> None:
    tensors: dict[str, np.ndarray] = {f"{kind}{size}": np.ones((size, 3), kind) for kind in KINDS for size in (2, 0)}
    tensors |= {"scalar": np.array(7.5), "é": np.arange(6, dtype=">f4").reshape(2, 3).T}
    write_tensors(tmp_path / "ours.safetensors", tensors, metadata)
    save_file(
        {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}, tmp_path / "theirs", metadata or None
    )
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_tensor_in_parts_is_the_whole_one_and_is_drawn_part_by_part(tmp_path: Path) -> None:
    whole = np.arange(30, dtype=np.float32).reshape(10, 3)
    write_tensors(tmp_path / "whole.safetensors", {"a": whole, "b": np.ones(2)}, {})
    alive: list[weakref.ref[np.ndarray]] = []

    def parts() -> Iterator[np.ndarray]:
        for start in (0, 4, 8):
            assert sum(part() is not None for part in alive) <= 1, "a part that is written is still in memory"
            part = whole[start : start + 4].copy()
            alive.append(weakref.ref(part))
            yield part
            del part

    write_tensors(tmp_path / "parts.safetensors", {"a": InParts((10, 3), np.dtype(np.float32), parts()), "b": np.ones(2)}, {})
    assert len(alive) == 3
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    with pytest.raises(AssertionError, match="parts of a"):
        write_tensors(tmp_path / "less.safetensors", {"a": InParts((10, 3), np.dtype(np.float32), [whole[:9]])}, {})
    assert not (tmp_path / "less.safetensors").exists()


def test_equal_content_has_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from rspnet_cli.tensors import write_tensors;"
        "write_tensors(Path(sys.argv[1]), {k: np.ones(3) for k in 'cab'}, {k: k for k in 'qwertyuiop'})"
    )
    for number in range(3):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{number}.safetensors")], check=True)
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(3)}) == 1


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "a.safetensors", {"a": np.ones(1)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "sentence"),
    [
        ("b", "F32", (2, 3), "has no tensor 'b': do x."),
        ("a", "F64", (2, 3), r"tensor 'a' is F32 \[2, 3\] instead of F64 \[2, 3\]: do x\."),
        ("a", "F32", (2, None, None), r"instead of F32 \[2, any, any\]"),
        ("a", "F32", (None, 4), r"instead of F32 \[any, 4\]"),
        ("empty", "F32", (None, 3), r"is F32 \[0, 3\]"),
    ],
)
def test_a_tensor_of_another_kind_is_named(tmp_path: Path, name: str, dtype: str, shape: tuple[int | None, ...], sentence: str) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": np.zeros((2, 3), np.float32), "empty": np.zeros((0, 3), np.float32)}, {})
    with open_tensors(path, advice="do x") as view:
        assert check_shape(path, view, "a", dtype="F32", shape=(2, None), advice="do x") == (2, 3)
        with pytest.raises(InputError, match=sentence):
            check_shape(path, view, name, dtype=dtype, shape=shape, advice="do x")
