"""Dropout as modules: nothing while evaluating."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d"]


class _Dropout(Module):
    """
    Parameters
    ----------
    p : float
        The probability with which something is dropped.
    inplace : bool
        Write to the argument.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be a probability, got {p}")
        self.p, self.inplace = p, inplace

    def _drop(self, input):
        raise NotImplementedError

    def forward(self, input):
        if not self.training:
            return input
        return input.copy_(self._drop(input)) if self.inplace else self._drop(input)

    def extra_repr(self):
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    __doc__ = "Elements become 0 with probability p, the others are divided by 1 - p.\n" + (
        _Dropout.__doc__ or ""
    )

    def _drop(self, input):
        return F.dropout(input, self.p, True)


class Dropout1d(_Dropout):
    __doc__ = (
        "Channels of (N, C, L) or (C, L) become 0 with probability p, the others are divided by 1 - p.\n"
        + (_Dropout.__doc__ or "")
    )

    def _drop(self, input):
        return F.dropout1d(input, self.p, True)


class Dropout2d(_Dropout):
    __doc__ = (
        "Channels of (N, C, H, W) or (C, H, W) become 0 with probability p, the others are divided by 1 - p.\n"
        + (_Dropout.__doc__ or "")
    )

    def _drop(self, input):
        return F.dropout2d(input, self.p, True)


class AlphaDropout(_Dropout):
    __doc__ = "Dropout that keeps mean 0 and variance 1, for networks with SELU.\n" + (
        _Dropout.__doc__ or ""
    )

    def _drop(self, input):
        return F.alpha_dropout(input, self.p, True)
