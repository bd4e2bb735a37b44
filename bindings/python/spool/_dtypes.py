"""What dtypes hold, and which dtype an operation on several of them yields.

Meanings are those of ``torch``, among them that a number counts only by its kind, and a tensor without dimensions only where
its kind is higher than that of every tensor that has some.
"""

import math

from . import _C
from ._C import Tensor, complex64, dtype, float32, float64, int64

__all__ = ["can_cast", "finfo", "iinfo", "is_tensor", "promote_types", "result_type"]

_INT, _FLOAT, _COMPLEX = 1, 2, 3  # kinds, as in tensor/dtype.h


def _checked(value, op, name="type"):
    if not isinstance(value, dtype):
        raise TypeError(f"{op}: {name} is {value!r}, expected a dtype (spool.float32, ...)")
    return value


class finfo:
    """Limits of a floating dtype, or of a complex one's parts: ``bits``, ``eps``, ``max``, ``min``, ``tiny`` (smallest normal number), ``resolution``.

    Raises
    ------
    TypeError
        ``type`` is no floating dtype.
    """

    def __init__(self, type: dtype = float32):
        kind, digits, exponent, _, _ = _checked(type, "finfo")._limits
        if kind not in (_FLOAT, _COMPLEX):
            raise TypeError(f"finfo: type is {type}, expected a floating dtype; see iinfo")
        if kind == _COMPLEX:
            type = float32 if type.itemsize == 8 else float64
        self.dtype = str(type).split(".")[-1]
        self.bits = 8 * type.itemsize
        self.eps = 2.0 ** (1 - digits)
        self.max = math.ldexp(2 - self.eps, exponent)
        self.min = -self.max
        self.tiny = self.smallest_normal = 2.0 ** (1 - exponent)
        self.resolution = 10.0 ** -math.floor((digits - 1) * math.log10(2))

    def __repr__(self):
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.tiny:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer dtype: ``bits``, ``min``, ``max``.

    Raises
    ------
    TypeError
        ``type`` is no integer dtype.
    """

    def __init__(self, type: dtype):
        kind, _, _, self.min, self.max = _checked(type, "iinfo")._limits
        if kind != _INT:
            raise TypeError(f"iinfo: type is {type}, expected an integer dtype; see finfo")
        self.dtype = str(type).split(".")[-1]
        self.bits = 8 * type.itemsize

    def __repr__(self):
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest dtype that holds both."""
    return _checked(type1, "promote_types", "type1")._promote(
        _checked(type2, "promote_types", "type2")
    )


def _of_number(value):
    if isinstance(value, bool):
        return _C.bool
    if isinstance(value, complex):
        return complex64
    return int64 if isinstance(value, int) else float32


def _highest(dtypes):
    found = None
    for each in dtypes:
        found = each if found is None else found._promote(each)
    return found


def result_type(tensor1, tensor2) -> dtype:
    """The dtype that arithmetic on the two, tensors or numbers, has.

    Raises
    ------
    TypeError
        An argument is neither a tensor nor a number.
    """
    groups = ([], [], [])  # with dimensions, without, numbers
    for value in (tensor1, tensor2):
        if isinstance(value, Tensor):
            groups[0 if value.ndim else 1].append(value.dtype)
        elif isinstance(value, (int, float, complex)):
            groups[2].append(_of_number(value))
        else:
            raise TypeError(f"result_type: {value!r} is neither a tensor nor a number")
    result = None
    for group in groups:
        found = _highest(group)
        if found and (result is None or found._limits[0] > result._limits[0]):
            parts = result is not None and found.is_complex and result.is_floating_point
            result = complex64._promote(result) if parts else found
    return result


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether a result of dtype ``from_`` may be written to a tensor of ``to``: not to one of a lower kind."""
    return (
        _checked(from_, "can_cast", "from_")._limits[0] <= _checked(to, "can_cast", "to")._limits[0]
    )


def is_tensor(obj) -> bool:
    """Whether ``obj`` is a tensor."""
    return isinstance(obj, Tensor)
