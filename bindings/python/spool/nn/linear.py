"""Layers without an activation of their own: Identity, Flatten, Unflatten, Linear, Bilinear."""

from __future__ import annotations

import math

from .. import _C
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Bilinear", "Flatten", "Identity", "Linear", "Unflatten"]


class Identity(Module):
    """Its argument, whatever it was made with."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, input):
        return input


class Flatten(Module):
    """Dimensions ``start_dim`` to ``end_dim`` as one.

    Shapes: ``(*, S_start, ..., S_end, *)`` to ``(*, S_start * ... * S_end, *)``. A view where the strides allow.

    Parameters
    ----------
    start_dim, end_dim : int
        Negative ones count from the end.

    Raises
    ------
    IndexError
        A dimension is out of range.
    ValueError
        ``start_dim`` is behind ``end_dim``.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input):
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Dimension ``dim`` as several of the sizes given; one may be -1.

    Parameters
    ----------
    dim : int
    unflattened_size : sequence of int

    Raises
    ------
    ShapeError
        The sizes do not fit the dimension.
    """

    def __init__(self, dim: int, unflattened_size):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input):
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self):
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Linear(Module):
    """``x @ weight.T + bias``.

    Shapes: ``(*, in_features)`` to ``(*, out_features)``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether there is one.
    device : str or device, optional
    dtype : dtype, optional
        Of the parameters, float32 by default.

    Attributes
    ----------
    weight : Parameter
        ``(out_features, in_features)``, from the start uniform in ``±1 / sqrt(in_features)``.
    bias : Parameter or None
        ``(out_features,)``, likewise.

    Examples
    --------
    >>> import spool
    >>> layer = spool.nn.Linear(20, 30)
    >>> layer(spool.randn(128, 20)).shape
    spool.Size([128, 30])
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(_C.empty(out_features, in_features, dtype=dtype, device=device))
        self.register_parameter(
            "bias", Parameter(_C.empty(out_features, dtype=dtype, device=device)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input):
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self):
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Bilinear(Module):
    """``x1 @ weight[k] @ x2 + bias[k]`` for every output feature k.

    Shapes: ``(*, in1_features)`` and ``(*, in2_features)`` to ``(*, out_features)``.

    Parameters
    ----------
    in1_features, in2_features, out_features : int
    bias : bool
    device : str or device, optional
    dtype : dtype, optional

    Attributes
    ----------
    weight : Parameter
        ``(out_features, in1_features, in2_features)``, from the start uniform in ``±1 / sqrt(in1_features)``.
    bias : Parameter or None
        ``(out_features,)``, likewise.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features = out_features
        self.weight = Parameter(
            _C.empty(out_features, in1_features, in2_features, dtype=dtype, device=device)
        )
        self.register_parameter(
            "bias", Parameter(_C.empty(out_features, dtype=dtype, device=device)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1, input2):
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self):
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
