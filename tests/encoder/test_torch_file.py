"""Files of torch.save from anybody: what a checkpoint needs is read, anything else is a sentence and nothing of it is run."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rspnet_cli.encoder import torch_file
from rspnet_cli.encoder.torch_file import plain_numbers, read_torch_file, write_torch_file
from rspnet_cli.errors import InputError
from tests.sentences import refused

VALUES = torch.arange(1000, dtype=torch.float32)


def old_format(content: Any, path: Path) -> None:
    """As torch before 1.6 wrote it."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def numpy_1(content: Any, path: Path) -> None:
    """As numpy before 2 named its scalars."""
    old_format(content, path)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))


@pytest.mark.parametrize("write", [torch.save, old_format, numpy_1, lambda content, path: write_torch_file(path, content)])
def test_tensors_containers_and_numpy_scalars_read_back(tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    content = {
        "model": OrderedDict(weight=VALUES, parameter=torch.nn.Parameter(VALUES.clone()), half=VALUES.half(), ptr=torch.tensor([3])),
        "optimizer": {"state": {0: {"momentum_buffer": VALUES + 1}}, "param_groups": [{"lr": 0.1, "params": [0], "nesterov": False}]},
        "scheduler": {"milestones": Counter([50, 70]), "none": None},
        "numbers": [np.float64(1.5), np.float32(0.1), np.int64(-3), np.bool_(True), np.uint8(200)],
        "view": VALUES.view(10, 100).T[2:5],
    }
    path = tmp_path / "a.pth.tar"
    write(content, path)
    found = read_torch_file(path)
    assert found.keys() == content.keys()
    assert all(torch.equal(found["model"][name], value) for name, value in content["model"].items())
    assert torch.equal(found["optimizer"]["state"][0]["momentum_buffer"], VALUES + 1)
    assert found["optimizer"]["param_groups"] == content["optimizer"]["param_groups"]
    assert found["scheduler"] == content["scheduler"]
    assert found["numbers"] == [1.5, float(np.float32(0.1)), -3, True, 200]
    assert [type(number) for number in found["numbers"]] == [float, float, int, bool, int]
    assert torch.equal(found["view"], content["view"])


def test_equal_content_is_written_as_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.pth.tar", "b.pth.tar"):
        write_torch_file(tmp_path / name, {"model": OrderedDict(a=VALUES, b=VALUES.clone()), "epoch": 3})
    assert (tmp_path / "a.pth.tar").read_bytes() == (tmp_path / "b.pth.tar").read_bytes()


class RunsCode:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, ("import pathlib; pathlib.Path('was-run').touch()",)


SMALL = {"model": OrderedDict(a=VALUES)}


def saved(content: Any, write: Callable[[Any, Any], None] = torch.save) -> bytes:
    buffer = io.BytesIO()
    write(content, buffer)
    return buffer.getvalue()


def old_saved(content: Any) -> bytes:
    return saved(content, lambda value, buffer: torch.save(value, buffer, _use_new_zipfile_serialization=False))


def rezipped(content: bytes, change: Callable[[bytes], bytes] = lambda pickled: pickled, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The archive once more, with another pickle or compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, change(source.read(name)) if name.endswith("data.pkl") else source.read(name))
    return buffer.getvalue()


def claim_more(pickled: bytes) -> bytes:
    """1000 values (BININT2) become 2 ** 30 (BININT)."""
    assert b"M\xe8\x03" in pickled
    return pickled.replace(b"M\xe8\x03", b"J\x00\x00\x00\x40")


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


HOSTILE = {
    "empty": (lambda: b"", "no checkpoint that PyTorch can read"),
    "text": (lambda: b"weights\n" * 50, "no checkpoint that PyTorch can read"),
    "random bytes": (lambda: np.random.default_rng(0).bytes(5000), "no checkpoint that PyTorch can read"),
    "a real tar file": (tarred, "no checkpoint that PyTorch can read"),
    "a plain pickle": (lambda: pickle.dumps(SMALL, protocol=2), "no checkpoint that PyTorch can read"),
    "a newer pickle": (lambda: saved(SMALL, lambda value, buffer: torch.save(value, buffer, pickle_protocol=4)), "protocol is not 2"),
    "another zip": (lambda: zipped("readme.txt"), "a zip archive, but none of torch.save"),
    "a TorchScript program": (lambda: zipped("net/data.pkl", "net/constants.pkl"), "is a TorchScript program"),
    "a cut zip": (lambda: saved(SMALL)[:3000], "damaged or cut short"),
    "a cut old file": (lambda: old_saved(SMALL)[:3000], "is damaged"),
    "an old file cut in its pickle": (lambda: old_saved(SMALL)[:150], "cut short"),
    "a compressed zip": (lambda: rezipped(saved(SMALL), compression=zipfile.ZIP_DEFLATED), "compressed inside"),
    "code": (lambda: saved({"model": RunsCode()}), "holds __builtin__.exec, which is neither a tensor nor a number and could run code"),
    "code in an old file": (lambda: old_saved({"model": RunsCode()}), "holds __builtin__.exec"),
    "a numpy array": (lambda: saved({"model": np.zeros(3)}), "holds numpy"),
    "sparse tensors": (lambda: saved({"model": {"a": torch.eye(3).to_sparse()}}), "holds sparse tensors"),
    "a tensor larger than the file": (lambda: rezipped(saved(SMALL), claim_more), "is damaged"),
    "the same in an old file": (lambda: claim_more(old_saved(SMALL)), "is damaged"),
    "a tensor of 2 ** 48 values": (lambda: old_saved(SMALL).replace(b"M\xe8\x03", b"\x8a\x07\0\0\0\0\0\0\1"), "is damaged"),
    "a list": (lambda: saved([VALUES]), "holds a list, not the dict of a checkpoint"),
    "a numpy scalar of another kind": (lambda: saved({"a": np.complex64(1j)}), "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_none_is_one_sentence_and_runs_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = HOSTILE[name]
    path = tmp_path / "a.pth.tar"
    path.write_bytes(content())
    with pytest.raises(InputError) as caught:
        read_torch_file(path)
    refused(caught.value, "a.pth.tar", words)
    assert not (tmp_path / "was-run").exists()


def test_the_hostile_code_would_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth.tar").write_bytes(saved({"model": RunsCode()}))
    torch.load(tmp_path / "a.pth.tar", weights_only=False)
    assert (tmp_path / "was-run").exists()


def test_what_torch_itself_would_refuse_is_refused_without_our_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch_file, "_refuse_what_no_checkpoint_needs", lambda *_, **__: None)
    (tmp_path / "a.pth.tar").write_bytes(saved({"model": RunsCode()}))
    with pytest.raises(InputError, match="PyTorch cannot read it"):
        read_torch_file(tmp_path / "a.pth.tar")
    assert not (tmp_path / "was-run").exists()


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth.tar"
    torch.save(SMALL, path)
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(InputError, match="has a pickle of more than 100 bytes"):
        read_torch_file(path)
    monkeypatch.setattr(torch_file, "MAX_FILE_BYTES", 4000)
    with pytest.raises(InputError, match=re.escape(f"{path} has {path.stat().st_size:,} bytes, more than any checkpoint")):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_what_is_no_file_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        read_torch_file(tmp_path / name)
    refused(caught.value, str(tmp_path / name))


def test_a_tensor_that_repeats_its_memory_is_no_plain_one() -> None:
    assert plain_numbers(VALUES)
    assert plain_numbers(VALUES.view(10, 100).T)
    assert plain_numbers(torch.tensor(3))
    assert not plain_numbers(torch.zeros(1).expand(10**12))
    assert not plain_numbers(torch.eye(3).to_sparse())
    assert not plain_numbers(torch.zeros(3, dtype=torch.complex64))
