"""Initial values for parameters: functions that fill a tensor in place, without recording, and return it.

Random numbers are those of :func:`spool.manual_seed`.
"""

from __future__ import annotations

import math

from .. import _C

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "sigmoid") + tuple(
    f"conv_transpose{n}d" for n in (1, 2, 3)
)


def _checked(tensor, op):
    if not isinstance(tensor, _C.Tensor):
        raise TypeError(f"{op}: tensor must be a Tensor, not {type(tensor).__name__}")
    return tensor


def _floating(tensor, op):
    if not _checked(tensor, op).is_floating_point():
        raise _C.DTypeError(f"{op}: tensor must be floating point, found {tensor.dtype}")
    return tensor


def _put(tensor, values):
    with _C.no_grad():
        return tensor.copy_(values)


def _from_numpy(tensor, array):
    """Fills with an array computed in float64."""
    return _put(tensor, _C.from_numpy(array).to(tensor.dtype))


@_C._boundary
def calculate_gain(nonlinearity: str, param=None) -> float:
    """By how much the initial standard deviation is raised in front of a nonlinearity.

    Parameters
    ----------
    nonlinearity : str
        'linear', 'conv1d' (2d, 3d, transposed), 'sigmoid': 1; 'tanh': 5/3; 'relu': sqrt(2); 'leaky_relu':
        sqrt(2 / (1 + param**2)); 'selu': 3/4.
    param : float, optional
        The negative slope of 'leaky_relu', 0.01 by default.

    Raises
    ------
    ValueError
        There is no such nonlinearity, or ``param`` is no number.
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {slope} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
    if nonlinearity not in gains:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return gains[nonlinearity]


@_C._boundary
def constant_(tensor, val: float):
    """Fill with one number."""
    with _C.no_grad():
        return _checked(tensor, "constant_").fill_(val)


@_C._boundary
def ones_(tensor):
    """Fill with 1."""
    return constant_(tensor, 1)


@_C._boundary
def zeros_(tensor):
    """Fill with 0."""
    return constant_(tensor, 0)


@_C._boundary
def uniform_(tensor, a: float = 0.0, b: float = 1.0):
    """Fill with numbers uniformly distributed in [a, b).

    Raises
    ------
    DTypeError
        The tensor is not floating point.
    """
    shape, dtype = tuple(_floating(tensor, "uniform_").shape), tensor.dtype
    return _put(tensor, _C.rand(*shape, dtype=dtype) * (b - a) + a)


@_C._boundary
def normal_(tensor, mean: float = 0.0, std: float = 1.0):
    """Fill with numbers distributed normally.

    Raises
    ------
    ValueError
        ``std`` is negative.
    DTypeError
        The tensor is not floating point.
    """
    if std < 0:
        raise ValueError(f"normal_ expects std >= 0.0, but found std {std}")
    shape, dtype = tuple(_floating(tensor, "normal_").shape), tensor.dtype
    return _put(tensor, _C.randn(*shape, dtype=dtype) * std + mean)


@_C._boundary
def trunc_normal_(tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0):
    """Fill with numbers distributed normally, but drawn from [a, b] alone.

    Uniform numbers between the normal distribution's values at a and b, through its inverse.

    Raises
    ------
    ValueError
        ``std`` is not positive, or ``a`` is not below ``b``.
    DTypeError
        The tensor is not floating point.
    """
    import numpy as np

    _floating(tensor, "trunc_normal_")
    if not std > 0 or not a < b:
        raise ValueError(
            f"trunc_normal_ expects std > 0 and a < b, but found std {std}, a {a}, b {b}"
        )
    # In the upper tail both ends round to 1: mirror it to the lower one.
    mirrored = (a - mean) > (mean - b)
    low, high = (
        ((mean - b) / std, (mean - a) / std) if mirrored else ((a - mean) / std, (b - mean) / std)
    )
    ends = [0.5 * math.erfc(-end / math.sqrt(2)) for end in (low, high)]
    uniform = _C.rand(*tensor.shape, dtype=_C.float64).numpy()
    values = np.clip(_normal_inverse(ends[0] + uniform * (ends[1] - ends[0])), low, high)
    return _from_numpy(tensor, np.clip(mean + std * (-values if mirrored else values), a, b))


def _horner(coefficients, x):
    result = coefficients[0]
    for c in coefficients[1:]:
        result = result * x + c
    return result


def _normal_inverse(p):
    """The inverse of the normal distribution, to about 1e-16 (Wichura, Algorithm AS 241, Appl. Statist. 37, 1988)."""
    import numpy as np

    a = (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
         13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608)  # fmt: skip
    b = (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
         5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0)  # fmt: skip
    c = (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
         3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734)  # fmt: skip
    d = (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
         0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0)  # fmt: skip
    e = (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
         0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772)  # fmt: skip
    f = (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
         0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0)  # fmt: skip
    q = p - 0.5
    with np.errstate(divide="ignore"):
        tail = np.sqrt(-np.log(np.minimum(p, 1 - p)))
    inner = 0.180625 - np.minimum(q * q, 0.180625)
    near, far = np.minimum(tail, 5) - 1.6, np.maximum(np.minimum(tail, 40), 5) - 5
    outside = np.where(
        tail <= 5, _horner(c, near) / _horner(d, near), _horner(e, far) / _horner(f, far)
    )
    return np.where(
        np.abs(q) <= 0.425, q * _horner(a, inner) / _horner(b, inner), np.sign(q) * outside
    )


@_C._boundary
def eye_(tensor):
    """Fill a matrix with 1 on its diagonal and 0 elsewhere.

    Raises
    ------
    ValueError
        The tensor has not two dimensions.
    """
    if _checked(tensor, "eye_").ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    diagonal = _C.arange(rows).unsqueeze(1) == _C.arange(columns)
    return _put(tensor, diagonal.to(tensor.dtype))


@_C._boundary
def dirac_(tensor, groups: int = 1):
    """Fill a convolution's weight so that it passes its inputs through, as many as there are.

    Parameters
    ----------
    tensor : Tensor
        ``(out, in / groups, *kernel)`` with one to three kernel dimensions.
    groups : int
        Each group of outputs passes its own inputs.

    Raises
    ------
    ValueError
        The tensor has other dimensions, or ``out`` is not divisible by ``groups``.
    """
    shape = tuple(_checked(tensor, "dirac_").shape)
    if len(shape) not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    per_group = shape[0] // groups
    middle = tuple(size // 2 for size in shape[2:])
    with _C.no_grad():
        tensor.zero_()
        for group in range(groups):
            for d in range(min(per_group, shape[1])):
                tensor[(group * per_group + d, d, *middle)] = 1
    return tensor


def _fans(tensor, op):
    if tensor.ndim < 2:
        raise ValueError(
            f"{op}: fan in and fan out can not be computed for a tensor of shape {tuple(tensor.shape)}; it needs 2 "
            "dimensions or more"
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor, mode, op):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _fans(tensor, op)[mode == "fan_out"]


@_C._boundary
def xavier_uniform_(tensor, gain: float = 1.0):
    """Fill uniformly in ``±gain * sqrt(6 / (fan_in + fan_out))`` (Glorot, Bengio: AISTATS 2010).

    Raises
    ------
    ValueError
        The tensor has less than two dimensions.
    """
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor, "xavier_uniform_")))
    return uniform_(tensor, -bound, bound)


@_C._boundary
def xavier_normal_(tensor, gain: float = 1.0):
    """Fill normally with standard deviation ``gain * sqrt(2 / (fan_in + fan_out))`` (Glorot, Bengio: AISTATS 2010).

    Raises
    ------
    ValueError
        The tensor has less than two dimensions.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor, "xavier_normal_"))))


@_C._boundary
def kaiming_uniform_(tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"):
    """Fill uniformly in ``±gain * sqrt(3 / fan)`` (He et al.: ICCV 2015).

    Parameters
    ----------
    tensor : Tensor
        Two dimensions or more, floating point.
    a : float
        The negative slope behind the layer, for 'leaky_relu'.
    mode : {'fan_in', 'fan_out'}
        What is kept from growing: the variance of values, or of gradients.
    nonlinearity : str
        What :func:`calculate_gain` takes.

    Raises
    ------
    ValueError
        The tensor has less than two dimensions, or there is no such mode or nonlinearity.
    """
    if 0 in tensor.shape:
        return tensor
    bound = math.sqrt(3.0 / _fan(tensor, mode, "kaiming_uniform_")) * calculate_gain(
        nonlinearity, a
    )
    return uniform_(tensor, -bound, bound)


@_C._boundary
def kaiming_normal_(tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"):
    """Fill normally with standard deviation ``gain / sqrt(fan)`` (He et al.: ICCV 2015).

    Parameters and errors are those of :func:`kaiming_uniform_`.
    """
    if 0 in tensor.shape:
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode, "kaiming_normal_"))
    return normal_(tensor, 0.0, std)


@_C._boundary
def orthogonal_(tensor, gain: float = 1):
    """Fill with ``gain`` times a random matrix of orthonormal rows or columns (Saxe et al., 2013).

    Parameters
    ----------
    tensor : Tensor
        Two dimensions or more; all but the first count as one.
    gain : float

    Raises
    ------
    ValueError
        The tensor has less than two dimensions.
    """
    import numpy as np

    if _floating(tensor, "orthogonal_").ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    flat = _C.randn(rows, tensor.numel() // rows, dtype=_C.float64).numpy()
    wide = flat.shape[0] < flat.shape[1]
    q, r = np.linalg.qr(flat.T if wide else flat)
    q = q * np.sign(np.diag(r))  # uniform over all orthogonal matrices
    values = np.ascontiguousarray(q.T if wide else q).reshape(tuple(tensor.shape))
    return _from_numpy(tensor, gain * values)


@_C._boundary
def sparse_(tensor, sparsity: float, std: float = 0.01):
    """Fill a matrix normally, but for a share ``sparsity`` of each column that is 0 (Martens: ICML 2010).

    Raises
    ------
    ValueError
        The tensor has not two dimensions.
    """
    import numpy as np

    if _floating(tensor, "sparse_").ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    order = np.argsort(_C.rand(rows, columns, dtype=_C.float64).numpy(), axis=0)
    keep = np.ones((rows, columns), bool)
    np.put_along_axis(keep, order[:zeros], False, axis=0)
    return _put(
        tensor, _C.randn(rows, columns, dtype=tensor.dtype) * std * _C.tensor(keep).to(tensor.dtype)
    )
