"""The safetensors format: named tensors, and nothing that could run.

    8 bytes   n, little-endian
    n bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {...}}
    the rest  the tensors' bytes, row-major and little-endian, without gaps; offsets count from here

Source: the public description of the format. Everything a file says is checked before memory is asked for.
"""

from __future__ import annotations

import json
import math
import os
import struct
from typing import BinaryIO

from . import _C

__all__ = ["load", "load_file", "load_metadata", "save", "save_file"]

_MAX_HEADER = 100_000_000  # the format's own limit
# Bytes an element, the dtype of that name, and what a dtype that is not there is widened to.
_FORMATS = {
    "BOOL": (1, "bool", None),
    "U8": (1, "uint8", "int64"),
    "I8": (1, "int8", "int64"),
    "I16": (2, "int16", "int64"),
    "U16": (2, "uint16", "int64"),
    "I32": (4, "int32", "int64"),
    "U32": (4, "uint32", "int64"),
    "I64": (8, "int64", None),
    "F16": (2, "float16", "float32"),
    "BF16": (2, "bfloat16", "float32"),
    "F32": (4, "float32", None),
    "F64": (8, "float64", None),
    "C64": (8, "complex64", None),
}
_NAMES = {dtype: name for name, (_, dtype, _) in _FORMATS.items()}


def _fail(text):
    return _C.FormatError(f"safetensors: {text}")


# ---- writing


def _header(tensors, metadata):
    header: dict = {}
    if metadata is not None:
        for key, value in metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError("safetensors: metadata must map texts to texts")
        header["__metadata__"] = dict(metadata)
    at = 0
    for name, t in tensors:
        dtype = str(t.dtype).split(".")[-1]
        if dtype not in _NAMES:
            raise _C.DTypeError(f"safetensors: {name!r} is {dtype}, which the format does not have")
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(t.shape),
            "data_offsets": [at, at + t.nbytes],
        }
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


def _parts(tensors, metadata):
    if not isinstance(tensors, dict):
        raise TypeError(f"safetensors: expected a dict of tensors, got {type(tensors).__name__}")
    for name, t in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"safetensors: {name!r} cannot name a tensor")
        if not isinstance(t, _C.Tensor):
            raise TypeError(f"safetensors: {name!r} is a {type(t).__name__}, expected a Tensor")
    # Large elements first, so that all are aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header = _header(ordered, metadata)
    yield struct.pack("<Q", len(header)) + header
    for _, t in ordered:
        yield _C._bytes(t)


@_C._boundary
def save(tensors: dict[str, _C.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file.

    Parameters
    ----------
    tensors : dict of str to Tensor
    metadata : dict of str to str, optional

    Raises
    ------
    TypeError, ValueError
        Something is no tensor, or a name is no text.
    DTypeError
        The format does not have a tensor's dtype.
    """
    return b"".join(_parts(tensors, metadata))


@_C._boundary
def save_file(
    tensors: dict[str, _C.Tensor],
    filename: str | os.PathLike,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a safetensors file, in place of one that is there once all is written.

    Parameters and errors are those of :func:`save`, and OSError.
    """
    path = os.fspath(filename)
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            for data in _parts(tensors, metadata):
                file.write(data)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


# ---- reading


def _once(pairs):
    """A dict of JSON's pairs, without names that come twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _fail("a name comes twice in the header")
    return found


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _checked_entry(name, entry):
    """(name, dtype, shape, begin, end) of a header entry."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _fail(f"the entry of {name!r} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _FORMATS:
        raise _fail(f"{name!r} has dtype {dtype!r}, expected one of {', '.join(_FORMATS)}")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise _fail(f"{name!r} has shape {shape!r}, expected a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise _fail(f"{name!r} has data_offsets {offsets!r}, expected [begin, end]")
    begin, end = offsets
    if end - begin != math.prod(shape) * _FORMATS[dtype][0]:
        raise _fail(f"{name!r} has {end - begin} bytes for shape {shape} of {dtype}")
    return name, dtype, shape, begin, end


def _read_header(file: BinaryIO, size: int):
    """Entries in the order of their bytes, metadata, and where bytes start."""
    head = file.read(8)
    if len(head) < 8:
        raise _fail(f"a file of {size} bytes has no header")
    (n,) = struct.unpack("<Q", head)
    if n > _MAX_HEADER or n > size - 8:
        raise _fail(f"the header is said to have {n} bytes, in a file of {size}")
    try:
        header = json.loads(file.read(n).decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, _C.FormatError):
            raise
        raise _fail(f"the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _fail("the header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _fail("__metadata__ must map texts to texts")
    entries = sorted((_checked_entry(*item) for item in header.items()), key=lambda e: e[3:])
    at = 0
    for name, _, _, begin, end in entries:
        if begin != at:
            raise _fail(
                f"{name!r} begins at byte {begin}, expected {at}: tensors may not overlap, nor leave gaps"
            )
        at = end
    if at != size - 8 - n:
        raise _fail(f"tensors take {at} bytes, the file has {size - 8 - n} for them")
    return entries, metadata


def _tensor(raw, dtype, shape):
    _, name, wide = _FORMATS[dtype]
    if hasattr(_C, name):
        return _C._rebuild(_C.Tensor, getattr(_C, name), tuple(shape), raw, False, None)
    import numpy as np

    if name == "bfloat16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, np.dtype(name).newbyteorder("<")).astype(wide)
    return _C.tensor(values.reshape(shape))


def _read(file, size):
    entries, _ = _read_header(file, size)
    if any(len(shape) > 64 for _, _, shape, _, _ in entries):
        raise _fail("a tensor has more than 64 dimensions")
    return {
        name: _tensor(file.read(end - begin), dtype, shape)
        for name, dtype, shape, begin, end in entries
    }


@_C._boundary
def load(data: bytes) -> dict[str, _C.Tensor]:
    """The tensors of the bytes of a safetensors file.

    Dtypes that Spool lacks are widened where every value fits: float16 and bfloat16 to float32, small integers to int64.

    Raises
    ------
    FormatError
        The bytes are no safetensors file; the message says what is wrong.
    ShapeError
        A tensor has more dimensions than Spool's can have.
    """
    import io

    return _read(io.BytesIO(data), len(data))


@_C._boundary
def load_file(filename: str | os.PathLike) -> dict[str, _C.Tensor]:
    """The tensors of a safetensors file; see :func:`load`, and OSError."""
    with open(filename, "rb") as file:
        return _read(file, os.fstat(file.fileno()).st_size)


@_C._boundary
def load_metadata(filename: str | os.PathLike) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors."""
    with open(filename, "rb") as file:
        return _read_header(file, os.fstat(file.fileno()).st_size)[1]
