"""Files of `torch.save` that others made: read without running anything they hold, in memory bounded by the file's size.

Two walls: first the names in the file's pickle are listed without building anything, and one that a checkpoint does not need ends the
reading; then torch reads it with weights_only=True. Whatever a file is instead is one sentence and exit code 2.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rspnet_cli.errors import InputError
from rspnet_cli.files import write_atomic
from rspnet_cli.tables import plain_text

# The largest published network with its optimiser has 0.8 GB, its pickle 0.3 MB.
MAX_FILE_BYTES = 16 * 2**30
MAX_PICKLE_BYTES = 16 * 2**20

_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
# Dense tensors, the dicts around them, and numpy's scalars (numpy 2 moved them). No sparse tensors: torch loads those unchecked.
_NEEDED = {
    "collections.OrderedDict",
    "collections.Counter",  # the milestones of a schedule
    "_codecs.encode",  # bytes, as Python 3 spells them for Python 2
    "torch.Size",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"torch.{kind}Storage" for kind in _STORAGES),
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}
_MAX_WORDS = 160  # of a hostile file or another library in one of our sentences
_ADVICE = "name a checkpoint that torch.save wrote"
_ZIP = b"PK\x03\x04"
# A file of torch before 1.6: this number, a version, the writer's system, the content, the names of its storages, then the storages.
_LEGACY_PICKLES = 5
# numpy's code of a number -> that of the struct module.
_NUMPY_CODES = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "b1": "?"}


def read_torch_file(path: Path) -> dict[str, Any]:
    """The content of a file of torch.save, which must be a dict: tensors on the CPU, numpy scalars as Python's numbers.

    A file of torch 1.6 or later is mapped, not read: a tensor's memory is the file's. Raises InputError for any other file, one
    that is damaged, and one that holds more than dense tensors, numbers, text and the containers of them.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file: {_ADVICE}.")
        if status.st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has {status.st_size:,} bytes, more than any checkpoint (at most {MAX_FILE_BYTES:,}): {_ADVICE}.")
        with path.open("rb") as handle:
            is_zip = handle.read(4) == _ZIP
            handle.seek(0)
            _refuse_what_no_checkpoint_needs(
                path, _pickles_of_zip(path, handle) if is_zip else handle.read(MAX_PICKLE_BYTES), is_zip=is_zip
            )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {_ADVICE}.") from error
    allowed: list[Any] = [(_Dtype, "numpy.dtype"), (_scalar, "numpy.core.multiarray.scalar"), (_scalar, "numpy._core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(allowed):
            # Mapped, a storage that claims more than the file has cannot be built; read, torch would trust the claim.
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a hostile file can end an unpickler in any of them
        raise InputError(f"{path} is damaged: PyTorch cannot read it ({_first_words(error)}): {_ADVICE}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not the dict of a checkpoint: {_ADVICE}.")
    return content


def write_torch_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict as torch.save does, whole or not at all, with equal bytes for equal content. Raises DiskFullError."""
    # Through memory: torch's own writer turns a full disk into an error without words.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_atomic(path, buffer.getvalue())


def plain_numbers(tensor: Tensor) -> bool:
    """Whether a tensor of a file is dense, real, and no larger than the memory behind it (a view can repeat one value endlessly)."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _pickles_of_zip(path: Path, handle: BinaryIO) -> bytes:
    """The one pickle of a zip archive. Raises InputError for an archive that torch.save does not write: compressed or overlapping."""
    try:
        with zipfile.ZipFile(handle) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            pickles = [name for name in names if name.endswith("/data.pkl")]
            if any(name.endswith("/constants.pkl") for name in names):
                raise InputError(f"{path} is a TorchScript program, not a checkpoint: {_ADVICE}.")
            if len(pickles) != 1 or len(set(names)) != len(names):
                raise InputError(f"{path} is a zip archive, but none of torch.save: {_ADVICE}.")
            size = handle.seek(0, io.SEEK_END)
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > size:
                raise InputError(f"{path} is compressed inside, as torch.save never does: {_ADVICE}.")
            if archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
                raise InputError(f"{path} has a pickle of more than {MAX_PICKLE_BYTES:,} bytes, as no checkpoint has: {_ADVICE}.")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or cut short ({_first_words(error)}): get the whole file again.") from error


def _refuse_what_no_checkpoint_needs(path: Path, pickles: bytes, *, is_zip: bool) -> None:
    stream = io.BytesIO(pickles)
    try:
        names = sorted({name for _ in range(1 if is_zip else _LEGACY_PICKLES) for name in _names_in(stream)} - _NEEDED)
    except (ValueError, UnicodeDecodeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is no checkpoint that PyTorch can read, or cut short ({_first_words(error)}): {_ADVICE}.") from error
    if any("sparse" in name for name in names):
        raise InputError(f"{path} holds sparse tensors, which PyTorch loads unchecked and no encoder has: save it again with dense ones.")
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(
            f"{path} holds {names[0]}{more}, which is neither a tensor nor a number and could run code, so nothing of it was loaded: "
            "save it again with tensors, numbers and text only."
        )


def _names_in(stream: io.BytesIO) -> Iterator[str]:
    """ "module.name" of everything that the next pickle of a stream would import. Nothing is imported or built."""
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield plain_text(str(argument).replace(" ", "."))[:_MAX_WORDS]
        elif opcode.name == "STACK_GLOBAL" or (opcode.name == "PROTO" and argument != 2):
            raise pickle.UnpicklingError("its pickle protocol is not 2, the default of torch.save")


class _Dtype:
    """Takes the place of numpy.dtype in a pickle: the code of a number, such as "f8", and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = _NUMPY_CODES[code], "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(dtype: _Dtype, content: bytes) -> int | float | bool:
    """Takes the place of numpy's constructor of scalars: the number that the bytes are."""
    number: int | float | bool = struct.unpack(dtype.order + dtype.code, content)[0]
    return number


def _first_words(error: BaseException) -> str:
    """The first line of another library's words, short."""
    text = " ".join(str(error).partition("\n")[0].split())
    return plain_text(text or type(error).__name__)[:_MAX_WORDS]
