"""The tape: ``backward`` and ``grad`` for several tensors at once, and what a recorded op looks like from Python."""

import importlib

from .. import _C
from .._C import Node, RemovableHandle, enable_grad, grad, no_grad, set_grad_enabled
from .gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = [
    "Function",
    "GradcheckError",
    "Node",
    "RemovableHandle",
    "backward",
    "custom_backward",
    "enable_grad",
    "forward_ad",
    "function",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "no_grad",
    "once_differentiable",
    "set_grad_enabled",
]


TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from . import forward_ad, function
    from .custom import custom_backward
    from .function import Function, once_differentiable

_LAZY_MODULES = ("forward_ad", "function")
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
def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False):
    """Add the derivative of the sum of ``tensors`` to the ``grad`` of every leaf they were computed from.

    Parameters
    ----------
    tensors : Tensor or sequence of Tensor
    grad_tensors : Tensor, None, or a sequence of these, optional
        What weighs each of ``tensors``; may be left out for tensors of one element.
    retain_graph : bool, optional
        Keep what the tape saved, for another backward. Default: ``create_graph``.
    create_graph : bool
        Record the computation, so that it can be differentiated again.

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
    tensors = [tensors] if isinstance(tensors, _C.Tensor) else list(tensors)
    if grad_tensors is None or isinstance(grad_tensors, _C.Tensor):
        grad_tensors = [grad_tensors] * len(tensors) if grad_tensors is None else [grad_tensors]
    grad_tensors = list(grad_tensors)
    if len(grad_tensors) != len(tensors):
        raise ValueError(f"backward: {len(grad_tensors)} grad_tensors for {len(tensors)} tensors")
    retain = create_graph if retain_graph is None else retain_graph
    for i, (tensor, weight) in enumerate(zip(tensors, grad_tensors)):
        if not isinstance(tensor, _C.Tensor):
            raise TypeError(f"backward: tensors must be Tensors, not {type(tensor).__name__}")
        # Graphs may share parts: only the last run lets go of them.
        tensor.backward(weight, retain or i < len(tensors) - 1, create_graph)
