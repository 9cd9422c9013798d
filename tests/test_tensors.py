"""Safetensors files as we write them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.tensors import check_shape, open_tensors, write_tensors


def test_what_is_written_reads_back_with_its_shapes_and_types(tmp_path: Path) -> None:
    tensors = {"matrix": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scalar": np.array(7), "times": np.array([0.5])}
    write_tensors(tmp_path / "a.safetensors", tensors, {"b": "2", "a": "é"})
    with open_tensors(tmp_path / "a.safetensors", advice="x") as view:
        assert view.metadata() == {"a": "é", "b": "2"}
        for name, value in tensors.items():
            np.testing.assert_array_equal(view.get_tensor(name), value)
            assert (view.get_tensor(name).shape, view.get_tensor(name).dtype) == (value.shape, value.dtype)


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
