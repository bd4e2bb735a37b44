"""Forward mode without a transform: tensors that carry a tangent, inside a ``dual_level()``.

>>> import spool
>>> from spool.autograd import forward_ad
>>> with forward_ad.dual_level():
...     x = forward_ad.make_dual(spool.tensor([1.0, 3.0]), spool.tensor([1.0, 10.0]))
...     print(forward_ad.unpack_dual(x * x))
UnpackedDualTensor(primal=tensor([1., 9.]), tangent=tensor([ 2., 60.]))

A dual level is a level like those of ``spool.func``: it belongs to the thread that entered it, levels nest (the tangent of a
tangent is a second derivative), and they mix with ``func.grad``, ``func.vmap`` and the tape. What is made inside, duals or
not, is not to be used after it has ended: what ``unpack_dual()`` returns is.
"""

import contextlib
import threading
from typing import NamedTuple, Optional

from .. import _C

__all__ = [
    "UnpackedDualTensor",
    "dual_level",
    "enter_dual_level",
    "exit_dual_level",
    "make_dual",
    "unpack_dual",
]


class UnpackedDualTensor(NamedTuple):
    """What :func:`unpack_dual` returns."""

    primal: _C.Tensor
    tangent: Optional[_C.Tensor]


class _Entered(threading.local):
    """The ids of this thread's dual levels, the innermost last; a level's number is its place."""

    def __init__(self):
        self.ids = []


_entered = _Entered()


def _id_of(level, op):
    ids = _entered.ids
    if level is None:
        level = len(ids) - 1
    elif not isinstance(level, int) or isinstance(level, bool):
        raise TypeError(f"{op}: level must be an int or None, not {type(level).__name__}")
    if not ids:
        raise _C.SpoolError(
            f"{op}: no dual level was entered in this thread; use it inside `with dual_level():`"
        )
    if not 0 <= level < len(ids):
        raise ValueError(
            f"{op}: there is no level {level}; the levels entered are 0 to {len(ids) - 1}"
        )
    return ids[level]


@_C._boundary
def enter_dual_level():
    """Enter a dual level, as :class:`dual_level` does, and return its number.

    >>> import spool
    >>> spool.autograd.forward_ad.enter_dual_level()
    0
    >>> spool.autograd.forward_ad.exit_dual_level()
    """
    _entered.ids.append(_C._dual_enter())
    return len(_entered.ids) - 1


@_C._boundary
def exit_dual_level(*, level=None):
    """Leave the innermost dual level. What was made inside must not be used any more.

    Parameters
    ----------
    level : int, optional
        What :func:`enter_dual_level` returned; must be the innermost.

    Raises
    ------
    SpoolError
        There is no dual level, ``level`` is not the innermost, or a transform that was entered inside still runs.
    """
    ident = _id_of(level, "exit_dual_level")
    if ident != _entered.ids[-1]:
        raise _C.SpoolError(
            f"exit_dual_level: level {level} is not the innermost, which is {len(_entered.ids) - 1}; leave that first"
        )
    _C._dual_exit(ident)
    _entered.ids.pop()


class dual_level(contextlib.ContextDecorator):  # noqa: N801 - PyTorch's name
    """A context (or decorator) in which tensors can carry tangents; ``as`` gives its number.

    >>> import spool
    >>> from spool.autograd import forward_ad as fw
    >>> with fw.dual_level():
    ...     with fw.dual_level():
    ...         inner = fw.make_dual(fw.make_dual(spool.tensor(3.0), spool.tensor(1.0), level=0), spool.tensor(1.0))
    ...         first = fw.unpack_dual(inner**3).tangent
    ...     second = fw.unpack_dual(first).tangent
    >>> second
    tensor(18.)
    """

    @_C._boundary
    def __enter__(self):
        return enter_dual_level()

    @_C._boundary
    def __exit__(self, *error):
        exit_dual_level()


def _check(tensor, tangent):
    for what, value in (("tensor", tensor), ("tangent", tangent)):
        if not isinstance(value, _C.Tensor):
            raise TypeError(f"make_dual: {what} must be a Tensor, not {type(value).__name__}")
        if not (value.is_floating_point() or value.is_complex()):
            raise _C.DTypeError(
                f"make_dual: {what} is {value.dtype}, expected floating point or complex numbers; convert it with .float()"
            )
    if tensor.shape != tangent.shape:
        raise _C.ShapeError(
            f"make_dual: a tangent of shape {tuple(tangent.shape)} for a tensor of shape {tuple(tensor.shape)}; "
            "they must be equal"
        )
    if tensor.dtype != tangent.dtype:
        raise _C.DTypeError(
            f"make_dual: a tangent of {tangent.dtype} for a tensor of {tensor.dtype}; convert it with .to({tensor.dtype})"
        )


@_C._boundary
def make_dual(tensor, tangent, *, level=None):
    """``tensor`` with a tangent, on which ops compute derivatives along it.

    Parameters
    ----------
    tensor, tangent : Tensor
        Floating point or complex, of equal shape and dtype. The result shares ``tensor``'s memory and, on the tape, its
        history: both derivatives of what is computed from it can be differentiated in reverse mode.
    level : int, optional
        The dual level; the innermost by default.

    Raises
    ------
    SpoolError
        No dual level was entered; ``tensor`` has a tangent at this level already, or belongs to a transform entered inside
        it.
    ShapeError, DTypeError
        The tangent does not fit.

    >>> import spool
    >>> from spool.autograd import forward_ad
    >>> with forward_ad.dual_level():
    ...     dual = forward_ad.make_dual(spool.tensor([2.0]), spool.tensor([1.0]))
    ...     print(forward_ad.unpack_dual(spool.exp(dual)).tangent)
    tensor([7.3891])
    """
    ident = _id_of(level, "make_dual")
    _check(tensor, tangent)
    return _C._dual_make(ident, tensor, tangent)


@_C._boundary
def unpack_dual(tensor, *, level=None):
    """``(primal, tangent)`` of a tensor at a dual level; the tangent is None where nothing has one.

    Both are tensors from outside of the level, and may be kept after it. Without a dual level the result is
    ``(tensor, None)``.

    Parameters
    ----------
    tensor : Tensor
    level : int, optional
        The dual level; the innermost by default.

    Raises
    ------
    SpoolError
        The tensor was made inside a dual level that has ended, or belongs to a transform entered inside the level.
    """
    ident = _id_of(level, "unpack_dual") if _entered.ids or level is not None else 0
    return UnpackedDualTensor(*_C._dual_unpack(ident, tensor))
