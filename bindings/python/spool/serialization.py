"""Saving and loading objects with tensors: models' states, optimizers' states, checkpoints.

A file is a ZIP archive without compression. ``data.pkl`` is the object, pickled (protocol 4) with tensors left out; ``tensors/<n>``
are their bytes, row-major and little-endian. Tensors that are the same memory in the same geometry share one entry, and memory
again when they are loaded.

Invariant: with ``weights_only`` nothing of the file is run. Only opcodes that :func:`save` writes are admitted, and only the names
of a short list, none of which does anything but make a container.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import pickletools
import sys
import zipfile
from typing import Any, BinaryIO, Callable

from . import _C

__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "save"]

_PICKLE, _TENSORS, _VERSION = "data.pkl", "tensors/", "spool/1"
_PROTOCOL = 4

# What pickles of protocol 4 consist of; not what runs over the memo by numbers of its own, nor extensions.
_OPCODES = frozenset(
    "ADDITEMS APPEND APPENDS BINBYTES BINBYTES8 BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINUNICODE BINUNICODE8 "
    "EMPTY_DICT EMPTY_LIST EMPTY_SET EMPTY_TUPLE FRAME FROZENSET LONG1 LONG4 LONG_BINGET MARK MEMOIZE NEWFALSE "
    "NEWOBJ NEWOBJ_EX NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS SHORT_BINBYTES SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 POP POP_MARK".split()
)
_DTYPES = frozenset(name for name in dir(_C) if type(getattr(_C, name)) is _C.dtype)
_SAFE = {
    ("collections", "Counter"): collections.Counter,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "complex"): complex,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "set"): set,
    ("builtins", "slice"): slice,
    ("spool", "Size"): _C.Size,
    ("spool", "device"): _C.device,
    ("spool", "Tensor"): _C.Tensor,
}
_added: dict = {}
_REMEDY = (
    "If you trust the file, allow its classes by spool.serialization.add_safe_globals(), or load with weights_only=False, "
    "which may run any code"
)


def add_safe_globals(safe_globals: list[Callable[..., Any]]) -> None:
    """Let ``load(weights_only=True)`` make objects of these classes, too. Their code is then run on what a file says."""
    for item in safe_globals:
        _added[item.__module__, item.__qualname__] = item


def get_safe_globals() -> list:
    """What :func:`add_safe_globals` added."""
    return list(_added.values())


def clear_safe_globals() -> None:
    """Take back what :func:`add_safe_globals` added."""
    _added.clear()


def _little_endian(data):
    if sys.byteorder != "little":
        raise NotImplementedError(
            "save, load: only machines with little-endian memory are supported"
        )
    return data


# ---- writing


class _Pickler(pickle.Pickler):
    """Puts tensors into the archive, and a description in their place."""

    def __init__(self, file, archive):
        super().__init__(file, protocol=_PROTOCOL)
        self.archive = archive
        self.numbers: dict = {}  # id of a tensor: its number in the file
        self.entries: dict = {}  # memory and geometry: entry of the archive
        self.kept: list = []  # so that ids and addresses stay theirs

    def persistent_id(self, value):
        if not isinstance(value, _C.Tensor):
            return None
        number = self.numbers.setdefault(id(value), len(self.numbers))
        self.kept.append(value)
        extra = dict(value.__dict__) or None
        return (
            number,
            self._entry(value),
            type(value),
            str(value.dtype).split(".")[-1],
            tuple(value.shape),
            value.requires_grad,
            extra,
        )

    def _entry(self, value):
        key = (*_C._memory(value), value.dtype, tuple(value.shape), value.stride())
        if key not in self.entries:
            self.entries[key] = entry = len(self.entries)
            self.archive.writestr(f"{_TENSORS}{entry}", _little_endian(_C._bytes(value)))
        return self.entries[key]


@_C._boundary
def save(obj: Any, f: str | os.PathLike | BinaryIO) -> None:
    """Write an object and the tensors in it to a file.

    Containers, numbers, texts and tensors can be read back by :func:`load` as it is. Objects of other classes, whole modules for
    instance, are pickled: reading them takes ``weights_only=False`` and the same classes. Prefer ``module.state_dict()``.

    Parameters
    ----------
    obj : object
    f : str, path or binary file
        A file at a path is replaced once all is written.

    Raises
    ------
    pickle.PicklingError
        Something in ``obj`` cannot be pickled.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import io, spool
    >>> file = io.BytesIO()
    >>> spool.save({"w": spool.ones(2), "step": 3}, file)
    >>> file.seek(0)
    0
    >>> spool.load(file)
    {'w': tensor([1., 1.]), 'step': 3}
    """
    if hasattr(f, "write"):
        _write(obj, f)
        return
    path = os.fspath(f)
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            _write(obj, file)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def _write(obj, file):
    described = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr("version", _VERSION)
        _Pickler(described, archive).dump(obj)
        archive.writestr(_PICKLE, described.getvalue())


# ---- reading


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, archive, weights_only):
        super().__init__(file)
        self.archive, self.weights_only = archive, weights_only
        self.tensors: dict = {}
        self.entries: dict = {}

    def find_class(self, module, name):
        if not self.weights_only:
            return super().find_class(module, name)
        found = _added.get((module, name)) or _SAFE.get((module, name))
        if found is not None:
            return found
        if module in ("spool", "spool._C") and name in _DTYPES:
            return getattr(_C, name)
        if (module, name) == ("spool.nn.parameter", "Parameter"):
            from .nn import Parameter

            return Parameter
        raise _C.FormatError(
            f"load: the file refers to {module}.{name}, which weights_only=True does not admit. {_REMEDY}"
        )

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) != 7:
            raise _C.FormatError("load: a tensor's description is broken")
        number, entry, kind, dtype, shape, requires_grad, extra = pid
        if number in self.tensors:
            return self.tensors[number]
        if dtype not in _DTYPES or not isinstance(entry, int) or not isinstance(kind, type):
            raise _C.FormatError("load: a tensor's description is broken")
        dtype, shape, requires_grad = getattr(_C, dtype), tuple(shape), bool(requires_grad)
        known = self.entries.get(entry)
        if known is None:
            raw = self.archive.read(f"{_TENSORS}{entry}")
            if len(raw) != math.prod(shape) * dtype.itemsize:
                raise _C.FormatError(
                    f"load: {len(raw)} bytes for a tensor of shape {shape} and {dtype}"
                )
            known = _C._rebuild(_C.Tensor, dtype, shape, _little_endian(raw), False, None)
            self.entries[entry] = known
        if known.dtype != dtype or tuple(known.shape) != shape:
            raise _C.FormatError("load: two tensors in one place differ in shape or dtype")
        tensor = _C.Tensor.__new__(kind, known) if kind is not _C.Tensor else known.detach()
        tensor.requires_grad_(requires_grad)
        if extra is not None:
            tensor.__dict__.update(extra)
        self.tensors[number] = tensor
        return tensor


def _check_pickle(data):
    # BUILD sets attributes, those of classes, too: it is for objects of classes that were added.
    admitted = _OPCODES | {"BUILD"} if _added else _OPCODES
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name not in admitted:
            raise _C.FormatError(
                f"load: the file's pickle has {opcode.name} at byte {position}, which tensors, containers, numbers and texts "
                f"do not take, and which weights_only=True does not admit. {_REMEDY}"
            )
        if opcode.name == "PROTO" and argument > 5:
            raise _C.FormatError(f"load: the file's pickle has protocol {argument}")


def _read(file, weights_only):
    with zipfile.ZipFile(file) as archive:
        if sum(i.file_size for i in archive.infolist()) > file.seek(0, os.SEEK_END):
            raise _C.FormatError("load: the file is said to hold more bytes than it has")
        if any(
            i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 for i in archive.infolist()
        ):
            raise _C.FormatError("load: the file has compressed or encrypted entries")
        if len(set(archive.namelist())) != len(archive.namelist()):
            raise _C.FormatError("load: the file has two entries of one name")
        version = archive.read("version").decode()
        if version != _VERSION:
            raise _C.FormatError(
                f"load: the file has version {version[:40]!r}, expected {_VERSION!r}"
            )
        data = archive.read(_PICKLE)
        if weights_only:
            _check_pickle(data)
        return _Unpickler(io.BytesIO(data), archive, weights_only).load()


@_C._boundary
def load(
    f: str | os.PathLike | BinaryIO, map_location: Any = None, *, weights_only: bool = True
) -> Any:
    """Read what :func:`save` wrote.

    Parameters
    ----------
    f : str, path or binary file
        A file must be able to seek.
    map_location : str or device, optional
        Where tensors go: ``'cpu'``, the one device there is.
    weights_only : bool
        Admit tensors, parameters, containers, numbers and texts alone, so that files from elsewhere can be read. With False,
        a file may run any code: only for files that you trust.

    Returns
    -------
    object

    Raises
    ------
    FormatError
        The file is broken, not one of :func:`save`, or has what ``weights_only`` does not admit.
    OSError
        The file cannot be read.
    """
    if map_location is not None:
        _C.device(map_location)
    if not hasattr(f, "read"):
        with open(f, "rb") as file:
            return load(file, weights_only=weights_only)
    try:
        return _read(f, weights_only)
    except (_C.FormatError, OSError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        raise _C.FormatError(
            f"load: not a file of spool.save(), or a broken one: {error}"
        ) from None
    except Exception as error:
        if not weights_only:
            raise
        # A broken pickle fails in any way that Python can.
        raise _C.FormatError(
            f"load: the file is broken: {type(error).__name__}: {str(error)[:200]}"
        ) from None
