"""Activations as modules: each calls the function of its name in :mod:`spool.nn.functional`."""

from __future__ import annotations

from .. import _C
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _Inplace(Module):
    """An elementwise function, any shape, which can write to its argument.

    ``inplace`` saves the result's memory only where the function's derivative needs its result alone; the argument's values
    are kept otherwise.
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def _apply_to(self, input):
        raise NotImplementedError

    def forward(self, input):
        return input.copy_(self._apply_to(input.clone())) if self.inplace else self._apply_to(input)

    def _arguments(self):
        return []

    def extra_repr(self):
        return ", ".join([*self._arguments(), *(["inplace=True"] if self.inplace else [])])


class ReLU(_Inplace):
    """``max(x, 0)``, elementwise; any shape.

    Parameters
    ----------
    inplace : bool
        Write to the argument.
    """

    def forward(self, input):
        return input.relu_() if self.inplace else F.relu(input)


class ReLU6(_Inplace):
    """``min(max(x, 0), 6)``, elementwise; any shape."""

    def _apply_to(self, input):
        return F.relu6(input)


class SiLU(_Inplace):
    """``x * sigmoid(x)``, elementwise; any shape."""

    def _apply_to(self, input):
        return F.silu(input)


class Mish(_Inplace):
    """``x * tanh(softplus(x))``, elementwise; any shape."""

    def _apply_to(self, input):
        return F.mish(input)


class SELU(_Inplace):
    """``scale * (max(0, x) + min(0, alpha * (exp(x) - 1)))`` with the constants that keep mean 0 and variance 1; any shape."""

    def _apply_to(self, input):
        return F.selu(input)


class Hardswish(_Inplace):
    """``x * relu6(x + 3) / 6``, elementwise; any shape."""

    def _apply_to(self, input):
        return F.hardswish(input)

    def extra_repr(self):
        return ""


class Hardsigmoid(_Inplace):
    """``relu6(x + 3) / 6``, elementwise; any shape."""

    def _apply_to(self, input):
        return F.hardsigmoid(input)

    def extra_repr(self):
        return ""


class ELU(_Inplace):
    """x where it is positive, otherwise ``alpha * (exp(x) - 1)``; any shape.

    Parameters
    ----------
    alpha : float
    inplace : bool
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(inplace)
        self.alpha = alpha

    def _apply_to(self, input):
        return F.elu(input, self.alpha)

    def _arguments(self):
        return [f"alpha={self.alpha}"]


class CELU(ELU):
    """x where it is positive, otherwise ``alpha * (exp(x / alpha) - 1)``; any shape.

    Parameters
    ----------
    alpha : float
    inplace : bool
    """

    def _apply_to(self, input):
        return F.celu(input, self.alpha)


class LeakyReLU(_Inplace):
    """x where it is positive, otherwise ``negative_slope * x``; any shape.

    Parameters
    ----------
    negative_slope : float
    inplace : bool
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def _apply_to(self, input):
        return F.leaky_relu(input, self.negative_slope)

    def _arguments(self):
        return [f"negative_slope={self.negative_slope}"]


class Hardtanh(_Inplace):
    """x brought into ``[min_val, max_val]``; any shape.

    Parameters
    ----------
    min_val, max_val : float
    inplace : bool
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__(inplace)
        if not max_val > min_val:
            raise ValueError(f"Hardtanh: max_val, {max_val}, must be above min_val, {min_val}")
        self.min_val, self.max_val = min_val, max_val

    def _apply_to(self, input):
        return F.hardtanh(input, self.min_val, self.max_val)

    def _arguments(self):
        return [f"min_val={self.min_val}", f"max_val={self.max_val}"]


class Threshold(_Inplace):
    """x where it is above ``threshold``, otherwise ``value``; any shape.

    Parameters
    ----------
    threshold, value : float
    inplace : bool
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False):
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def _apply_to(self, input):
        return F.threshold(input, self.threshold, self.value)

    def _arguments(self):
        return [f"threshold={self.threshold}", f"value={self.value}"]


class Tanh(Module):
    """``tanh(x)``, elementwise; any shape."""

    def forward(self, input):
        return F.tanh(input)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``, elementwise; any shape."""

    def forward(self, input):
        return F.sigmoid(input)


class LogSigmoid(Module):
    """``log(1 / (1 + exp(-x)))``, elementwise; any shape."""

    def forward(self, input):
        return F.logsigmoid(input)


class Softsign(Module):
    """``x / (1 + abs(x))``, elementwise; any shape."""

    def forward(self, input):
        return F.softsign(input)


class Tanhshrink(Module):
    """``x - tanh(x)``, elementwise; any shape."""

    def forward(self, input):
        return F.tanhshrink(input)


class GELU(Module):
    """``x`` times the normal distribution's probability of less than ``x``, elementwise; any shape.

    Parameters
    ----------
    approximate : {'none', 'tanh'}
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input):
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``, and x where ``beta * x > threshold``; any shape.

    Parameters
    ----------
    beta, threshold : float
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input):
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self):
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardshrink(Module):
    """x where ``abs(x) > lambd``, otherwise 0; any shape.

    Parameters
    ----------
    lambd : float
    """

    def __init__(self, lambd: float = 0.5):
        super().__init__()
        self.lambd = lambd

    def forward(self, input):
        return F.hardshrink(input, self.lambd)

    def extra_repr(self):
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """x moved towards 0 by ``lambd``, and 0 where it would pass it; any shape.

    Parameters
    ----------
    lambd : float
    """

    def forward(self, input):
        return F.softshrink(input, self.lambd)


class PReLU(Module):
    """x where it is positive, otherwise x times a parameter ``weight``, one for all or one a channel (dimension 1).

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels.
    init : float
        The parameters' initial value.
    dtype : spool.dtype, optional
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype=None):
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(_C.full([num_parameters], init, dtype=dtype or _C.float32))

    def reset_parameters(self):
        """Set the parameters to ``init`` again."""
        init.constant_(self.weight, self.init)

    def forward(self, input):
        return F.prelu(input, self.weight)

    def extra_repr(self):
        return f"num_parameters={self.num_parameters}"


class GLU(Module):
    """The first half along a dimension times the sigmoid of the second.

    Parameters
    ----------
    dim : int
        A dimension of even size.
    """

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, input):
        return F.glu(input, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class _AlongDim(Module):
    """A function along a dimension; None: dimension 0 for 0, 1 and 3 dimensions, else 1."""

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = dim

    def _dim_of(self, input):
        if self.dim is not None:
            return self.dim
        return 0 if input.ndim in (0, 1, 3) else 1

    def extra_repr(self):
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """``exp(x) / sum(exp(x))`` along a dimension, computed without overflow; any shape.

    Parameters
    ----------
    dim : int
        The dimension whose elements add up to 1. None: dimension 0 for 0, 1 and 3 dimensions, else 1.
    """

    def forward(self, input):
        return F.softmax(input, self._dim_of(input))


class Softmin(_AlongDim):
    """:class:`Softmax` of ``-x``.

    Parameters
    ----------
    dim : int
        The dimension whose elements add up to 1. None: dimension 0 for 0, 1 and 3 dimensions, else 1.
    """

    def forward(self, input):
        return F.softmin(input, self._dim_of(input))


class LogSoftmax(_AlongDim):
    """``log(exp(x) / sum(exp(x)))`` along a dimension, computed without overflow; any shape.

    Parameters
    ----------
    dim : int
        The dimension whose exponentials add up to 1. None: dimension 0 for 0, 1 and 3 dimensions, else 1.
    """

    def forward(self, input):
        return F.log_softmax(input, self._dim_of(input))
