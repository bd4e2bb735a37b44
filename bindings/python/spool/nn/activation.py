"""Activations as modules: each calls the function of its name in :mod:`spool.nn.functional`."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = ["LogSoftmax", "ReLU", "Tanh"]


class ReLU(Module):
    """``max(x, 0)``, elementwise; any shape.

    Parameters
    ----------
    inplace : bool
        Write to the argument.
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input):
        return input.relu_() if self.inplace else F.relu(input)

    def extra_repr(self):
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """``tanh(x)``, elementwise; any shape."""

    def forward(self, input):
        return F.tanh(input)


class LogSoftmax(Module):
    """``log(exp(x) / sum(exp(x)))`` along a dimension, computed without overflow; any shape.

    Parameters
    ----------
    dim : int
        The dimension whose exponentials add up to 1. None: dimension 0 for 0, 1 and 3 dimensions, else 1.
    """

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = dim

    def forward(self, input):
        dim = self.dim
        if dim is None:
            dim = 0 if input.ndim in (0, 1, 3) else 1
        return F.log_softmax(input, dim)

    def extra_repr(self):
        return f"dim={self.dim}"
