"""What is done to many parameters or their gradients at once."""

from __future__ import annotations

import math
from typing import Iterable, Union

from .. import _C
from .._C import Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def _list(parameters) -> list:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _grads(parameters) -> list:
    return [p.grad for p in _list(parameters) if p.grad is not None]


@_C._boundary
def get_total_norm(
    tensors: Union[Tensor, Iterable[Tensor]],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors taken together as one vector: one number, in the widest of their dtypes.

    Parameters
    ----------
    tensors : Tensor or iterable of Tensor
        Floating point, of any shapes.
    norm_type : float
        The p of the p-norm; ``inf`` for the largest absolute value.
    error_if_nonfinite : bool
        Raise if the norm is infinite or NaN; that waits for its value.
    foreach : bool, optional
        Taken for PyTorch's sake: each tensor is read once, whatever it is.

    Raises
    ------
    SpoolError
        The norm is infinite or NaN, and ``error_if_nonfinite`` is set.
    """
    p = float(norm_type)
    parts = [_C.vector_norm(x, p) for x in _list(tensors) if x.numel() or 0.0 <= p < math.inf]
    if not parts:
        return _C.tensor(0.0)
    total = _C.vector_norm(_C.stack(parts), p)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise _C.SpoolError(
            f"The total norm of order {p} for gradients is non-finite, so it cannot be clipped. To disable this error "
            "and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return total


@_C._boundary
def clip_grads_with_norm_(
    parameters: Union[Tensor, Iterable[Tensor]],
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale the gradients in place by ``min(1, max_norm / (total_norm + 1e-6))``.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    max_norm : float
    total_norm : Tensor
        What :func:`get_total_norm` returned for the gradients.
    foreach : bool, optional
        Taken for PyTorch's sake.
    """
    with _C.no_grad():
        factor = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)  # NaN stays
        for grad in _grads(parameters):
            grad.mul_(factor)


@_C._boundary
def clip_grad_norm_(
    parameters: Union[Tensor, Iterable[Tensor]],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale gradients in place so that their norm, taken together as one vector, is at most ``max_norm``.

    No value is waited for: under ``spool.jit`` it is part of the plan.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    max_norm : float
    norm_type : float
        The p of the p-norm; ``inf`` for the largest absolute value.
    error_if_nonfinite : bool
        Raise if the norm is infinite or NaN; that waits for its value.
    foreach : bool, optional
        Taken for PyTorch's sake.

    Returns
    -------
    Tensor
        The norm before clipping: one number.

    Raises
    ------
    SpoolError
        The norm is infinite or NaN, and ``error_if_nonfinite`` is set.
    """
    parameters = _list(parameters)
    with _C.no_grad():
        total = get_total_norm(_grads(parameters), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, total)
    return total


@_C._boundary
def clip_grad_value_(
    parameters: Union[Tensor, Iterable[Tensor]], clip_value: float, foreach: bool | None = None
) -> None:
    """Bring each element of each gradient into ``[-clip_value, clip_value]``, in place; NaN stays.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    clip_value : float
    foreach : bool, optional
        Taken for PyTorch's sake.
    """
    bound = float(clip_value)
    with _C.no_grad():
        for grad in _grads(parameters):
            grad.clamp_(-bound, bound)


@_C._boundary
def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters, one after the other, as one vector; gradients pass.

    Parameters
    ----------
    parameters : iterable of Tensor
        One or more; dtypes are promoted.

    Returns
    -------
    Tensor
        As long as all of them together.
    """
    parameters = _list(parameters)
    if not parameters:
        raise ValueError("parameters_to_vector: there are no parameters")
    return _C.cat([p.ravel() for p in parameters])


@_C._boundary
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Give each parameter its part of a vector, as :func:`parameters_to_vector` orders them.

    The parameters become views of ``vec``, as in PyTorch.

    Parameters
    ----------
    vec : Tensor
        One dimension, as long as all parameters together.
    parameters : iterable of Tensor

    Raises
    ------
    TypeError
        ``vec`` is no Tensor.
    ShapeError
        It is not as long as the parameters.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a Tensor, got {type(vec).__name__}")
    parameters = _list(parameters)
    total = sum(p.numel() for p in parameters)
    if vec.ndim != 1 or vec.numel() != total:
        raise _C.ShapeError(
            f"vector_to_parameters: vec has shape {tuple(vec.shape)}; the parameters have {total} elements together"
        )
    at = 0
    for p in parameters:
        p.data = vec[at : at + p.numel()].reshape(*p.shape).data
        at += p.numel()
