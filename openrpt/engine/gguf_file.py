"""What a GGUF file says: its metadata and where its tensors lie.

The format: a magic number, a version, two counts, the metadata (key, type, value), the table of
tensors (name, dimensions, type, offset), and from the next aligned byte on the tensors' data.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from openrpt.errors import UserError

if TYPE_CHECKING:
    import numpy as np


_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_LFS_POINTER = b"version https://git-lfs"
_ALIGNMENT = 32  # bytes, where the file names no other
# Metadata types by their number in the file; a string and an array have lengths of their own.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


class _CutError(Exception):
    """An error: the file ends before what its header announces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufTensor:
    """A tensor's place in the file, and how it is stored."""

    shape: tuple[int, ...]
    """The shape as torch has it: the dimension that runs fastest comes last."""
    kind: int
    """ggml's number of the quantization."""
    offset: int
    """Bytes from the file's beginning."""
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GgufFile:
    """A whole GGUF file: every tensor of its table lies inside it."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """The name of the architecture; empty where the file gives none."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The architecture's own keys, without its name before them."""
        prefix = f"{self.architecture}."
        return {k[len(prefix) :]: v for k, v in self.metadata.items() if k.startswith(prefix)}

    def refusal(self, what: str) -> UserError:
        """Returns the error for what the file says and a folder of transformers can't say."""
        return UserError(
            f"{self.path}: {what}, which OpenRPT can't carry over; use the model's safetensors"
            " folder"
        )

    def damage(self, what: str) -> UserError:
        """Returns the error for what contradicts itself."""
        return _damaged(self.path, what)

    def values(self, name: str) -> "np.ndarray":
        """Returns a tensor in float32. Raises UserError for a quantization that gguf can't undo."""
        import gguf
        import numpy as np

        tensor = self.tensors[name]
        kind = gguf.GGMLQuantizationType(tensor.kind)
        data = np.fromfile(self.path, dtype=np.uint8, count=tensor.num_bytes, offset=tensor.offset)
        rows = data.reshape(*tensor.shape[:-1], -1)
        try:
            return gguf.dequantize(rows, kind).reshape(tensor.shape)
        except NotImplementedError:
            raise self.refusal(f"the tensor {name} is stored as {kind.name}") from None


def read_gguf(path: Path) -> GgufFile:
    """Reads the file's metadata and table of tensors; their data is read later.

    Raises UserError for a file that is cut, a Git LFS pointer, or no GGUF of version 2 or 3 in
    little-endian order.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise UserError(
                f"{path}: a Git LFS pointer of {size} bytes, not the model; get it with: git lfs"
                " pull"
            )
        if start[: len(_MAGIC)] != _MAGIC:
            raise UserError(f"{path}: not a GGUF file (it begins with {start[:8]!r})")
        file.seek(len(_MAGIC))
        try:
            metadata, tensors = _read_header(file, path, size)
        except _CutError:
            raise UserError(
                f"{path}: the file is cut or damaged: its {size:,} bytes end inside the header; get"
                " it again"
            ) from None
    needed = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=0)
    if size < needed:
        raise UserError(
            f"{path}: the file is cut: it has {size:,} bytes, its tensors need {needed:,}; get it"
            " again"
        )
    return GgufFile(path=path, metadata=metadata, tensors=tensors)


def _read_header(
    file: BinaryIO, path: Path, size: int
) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    reader = _Reader(file, path, size)
    version = reader.number("I")
    if version not in _VERSIONS:
        raise UserError(f"{path}: GGUF of version {version}; OpenRPT reads versions 2 and 3")
    num_tensors, num_keys = reader.number("Q"), reader.number("Q")
    metadata = {}
    for _ in range(num_keys):
        key = reader.string()
        if key in metadata:
            raise _damaged(path, f"its key {key} stands there twice")
        metadata[key] = reader.value(reader.number("I"))
    table = {}
    for _ in range(num_tensors):
        name = reader.string()
        if name in table:
            raise _damaged(path, f"its tensor {name} stands there twice")
        shape = tuple(reversed(reader.numbers("Q", reader.number("I"))))
        table[name] = (shape, reader.number("I"), reader.number("Q"))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _damaged(path, f"general.alignment = {alignment}")
    start = -(-file.tell() // alignment) * alignment
    return metadata, {
        name: GgufTensor(
            shape=shape,
            kind=kind,
            offset=start + offset,
            num_bytes=_num_bytes(path, name, shape, kind),
        )
        for name, (shape, kind, offset) in table.items()
    }


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: damaged: {what}; get another file")


def _num_bytes(path: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    import gguf

    try:
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise UserError(
            f"{path}: the tensor {name} has ggml type {kind}, which the gguf package doesn't know;"
            " update it"
        ) from None
    return prod(shape) // block * block_bytes


@dataclass(frozen=True, slots=True)
class _Reader:
    """Values one after the other; raises _CutError where the file ends too early."""

    file: BinaryIO
    path: Path
    size: int

    def bytes(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise _CutError
        return self.file.read(count)

    def numbers(self, kind: str, count: int) -> tuple[Any, ...]:
        width = struct.calcsize(f"<{kind}")
        return struct.unpack(f"<{count}{kind}", self.bytes(width * count))

    def number(self, kind: str) -> Any:
        return self.numbers(kind, 1)[0]

    def string(self) -> str:
        return self.bytes(self.number("Q")).decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise _damaged(self.path, f"its metadata has a value of type {kind}")
        item, count = self.number("I"), self.number("Q")
        if item == _ARRAY:
            raise _damaged(self.path, "its metadata has arrays of arrays")
        if item in _NUMBERS:
            return list(self.numbers(_NUMBERS[item], count))
        if count > self.size:
            raise _CutError
        return [self.value(item) for _ in range(count)]
