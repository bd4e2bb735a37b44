"""The tape: ``backward`` and ``grad`` for several tensors at once, and what a recorded op looks like from Python."""

import importlib

from .. import _C
from .._C import Node, RemovableHandle, enable_grad, grad, no_grad, set_grad_enabled
from .anomaly import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
from .gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = [
    "Function",
    "GradcheckError",
    "Node",
    "RemovableHandle",
    "backward",
    "custom_backward",
    "detect_anomaly",
    "enable_grad",
    "forward_ad",
    "function",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "is_anomaly_enabled",
    "no_grad",
    "once_differentiable",
    "set_detect_anomaly",
    "set_grad_enabled",
    "stop_gradient",
]


TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from . import forward_ad, function, graph
    from .custom import custom_backward
    from .function import Function, once_differentiable

_LAZY_MODULES = ("forward_ad", "function", "graph")
_LAZY_NAMES = {
    "Function": "function",
    "custom_backward": "custom",
    "once_differentiable": "function",
}


def __getattr__(name):
    """What is loaded when it is first used."""
    if name in _LAZY_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY_NAMES:
        found = getattr(importlib.import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@_C._boundary
def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None):
    """Add the derivative of the sum of ``tensors`` to the ``grad`` of every leaf they were computed from.

    All of them are one run: a hook sees the sum of what comes from each.

    Parameters
    ----------
    tensors : Tensor or sequence of Tensor
    grad_tensors : Tensor, None, or a sequence of these, optional
        What weighs each of ``tensors``; may be left out for tensors of one element.
    retain_graph : bool, optional
        Keep what the tape saved, for another backward. Default: ``create_graph``.
    create_graph : bool
        Record the computation, so that it can be differentiated again.
    inputs : Tensor, GradientEdge, or a sequence of these, optional
        The only tensors whose ``grad`` is added to. They need not be leaves.

    Raises
    ------
    SpoolError
        A tensor has no history, or its graph was consumed.

    Examples
    --------
    >>> import spool
    >>> x = spool.tensor([1.0, 2.0], requires_grad=True)
    >>> spool.autograd.backward([(x * x).sum(), x.sum()])
    >>> x.grad
    tensor([3., 5.])
    """
    _C._backward(tensors, grad_tensors, retain_graph, create_graph, inputs)


@_C._boundary
def stop_gradient(x):
    """``x`` as a constant: the same values, which no gradient passes. A function for ``x.detach()``.

    Parameters
    ----------
    x : Tensor
        Of any dtype.

    Returns
    -------
    Tensor
        A view of ``x``.

    Examples
    --------
    >>> import spool
    >>> x = spool.tensor([2.0, 3.0], requires_grad=True)
    >>> (x * spool.stop_gradient(x)).sum().backward()
    >>> x.grad
    tensor([2., 3.])
    """
    return _C.detach(x)
