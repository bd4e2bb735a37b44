"""Parameters: tensors that a module counts as its own."""

from __future__ import annotations

from .._C import Tensor

__all__ = ["Parameter"]


class Parameter(Tensor):
    """A tensor that becomes a parameter of the module it is assigned to.

    It shares memory with ``data``, has no history, and requires gradients from the start. What is computed from it is a plain
    Tensor.

    Parameters
    ----------
    data : Tensor, optional
        Any shape; floating point if ``requires_grad``. Anything that :func:`spool.tensor` takes is copied. Left out: an empty
        float32 tensor.
    requires_grad : bool

    Raises
    ------
    SpoolError
        ``requires_grad`` with a dtype that has no gradients.

    Examples
    --------
    >>> import spool
    >>> spool.nn.Parameter(spool.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data=None, requires_grad=True):
        self = Tensor.__new__(cls) if data is None else Tensor.__new__(cls, data)
        return self.requires_grad_(requires_grad)

    def __repr__(self):
        return "Parameter containing:\n" + Tensor.__repr__(self)
