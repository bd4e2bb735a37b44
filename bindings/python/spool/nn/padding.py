"""Padding layers: :func:`spool.nn.functional.pad` with the same padding for every call."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = [
    f"{kind}Pad{n}d"
    for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
    for n in (1, 2)
]


class _Pad(Module):
    """Padding of the last dimensions; negative numbers take elements away."""

    dims = 0
    mode = "constant"

    def __init__(self, padding):
        super().__init__()
        n = 2 * self.dims
        self.padding = (padding,) * n if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != n:
            raise ValueError(
                f"{type(self).__name__}: padding has {len(self.padding)} numbers, expected one or {n}"
            )

    def forward(self, input):
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self):
        return f"{self.padding}"


class ConstantPad1d(_Pad):
    """A number at both ends of the last dimension.

    Parameters
    ----------
    padding : int or pair
        How many, at the start and at the end.
    value : float
        The number.
    """

    dims = 1

    def __init__(self, padding, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input):
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self):
        return f"padding={self.padding}, value={self.value}"


class ConstantPad2d(ConstantPad1d):
    """A number around the last two dimensions; ``padding`` is one int or (left, right, top, bottom)."""

    dims = 2


class ZeroPad1d(ConstantPad1d):
    """Zeros at both ends of the last dimension; ``padding`` is an int or a pair."""

    def __init__(self, padding):
        super().__init__(padding, 0.0)

    def extra_repr(self):
        return f"{self.padding}"


class ZeroPad2d(ZeroPad1d):
    """Zeros around the last two dimensions; ``padding`` is one int or (left, right, top, bottom)."""

    dims = 2


class ReflectionPad1d(_Pad):
    """The elements next to each end of the last dimension in reverse, without the end itself; an int or a pair."""

    dims, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """:class:`ReflectionPad1d` of the last two dimensions; one int or (left, right, top, bottom)."""

    dims, mode = 2, "reflect"


class ReplicationPad1d(_Pad):
    """The elements at the ends of the last dimension, repeated; an int or a pair."""

    dims, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """:class:`ReplicationPad1d` of the last two dimensions; one int or (left, right, top, bottom)."""

    dims, mode = 2, "replicate"


class CircularPad1d(_Pad):
    """The elements of the other end of the last dimension, as if it were a ring; an int or a pair."""

    dims, mode = 1, "circular"


class CircularPad2d(_Pad):
    """:class:`CircularPad1d` of the last two dimensions; one int or (left, right, top, bottom)."""

    dims, mode = 2, "circular"
