"""Losses as modules: each calls the function of its name in :mod:`spool.nn.functional`."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = [
    "CrossEntropyLoss",
    "HuberLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
]

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


class MSELoss(_Loss):
    """The mean (or sum) of ``(input - target)**2``; shapes are equal.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The mean (or sum) of ``abs(input - target)``; shapes are equal.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """With ``d = abs(input - target)``: ``d**2 / (2 * beta)`` below ``beta``, ``d - beta / 2`` from there on.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    beta : float
        Where the parabola ends; 0 for none.
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input, target):
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """With ``d = abs(input - target)``: ``d**2 / 2`` up to ``delta``, ``delta * (d - delta / 2)`` from there on (Huber, 1964).

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    delta : float
        Where the parabola ends, positive.
    """

    def __init__(self, *, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input, target):
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)
