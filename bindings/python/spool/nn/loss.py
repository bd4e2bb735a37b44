"""Losses as modules: each calls the function of its name in :mod:`spool.nn.functional`."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = ["CrossEntropyLoss", "NLLLoss"]

_REDUCTIONS = ("none", "mean", "sum")


class _Loss(Module):
    """A loss with a reduction: 'none', 'mean' or 'sum'."""

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"{type(self).__name__}: reduction must be one of {_REDUCTIONS}, not {reduction!r}"
            )
        self.reduction = reduction


class NLLLoss(_Loss):
    """Negative log likelihood of classes, of log-probabilities: ``-input[i, target[i]]``, reduced.

    Shapes: input ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``, target int64 of that shape without C. The result has the target's
    shape for 'none', otherwise it is one number.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.nll_loss(input, target, reduction=self.reduction)


class CrossEntropyLoss(_Loss):
    """Cross entropy of unnormalised scores and classes: ``NLLLoss`` of ``log_softmax`` over the classes.

    Shapes: input ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``, target int64 of that shape without C. The result has the target's
    shape for 'none', otherwise it is one number.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}

    Examples
    --------
    >>> import spool
    >>> spool.nn.CrossEntropyLoss()(spool.zeros(3, 2), spool.tensor([0, 1, 1]))
    tensor(0.6931)
    """

    def forward(self, input, target):
        return F.cross_entropy(input, target, reduction=self.reduction)
