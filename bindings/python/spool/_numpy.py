"""What NumPy's functions and operators do with tensors.

Operators with a number of NumPy's (``np.float32(2) * x``) are Spool's, so that history stays. An array and a tensor do not
mix: which of the two kinds the result should be is for the caller to say. Other functions (``np.sqrt(x)``) see the values.
"""

import operator

import numpy as np

from . import _C

_OPERATORS = {
    "add": ("+", operator.add),
    "subtract": ("-", operator.sub),
    "multiply": ("*", operator.mul),
    "true_divide": ("/", operator.truediv),
    "divide": ("/", operator.truediv),
    "power": ("**", operator.pow),
    "matmul": ("@", operator.matmul),
    "equal": ("==", operator.eq),
    "not_equal": ("!=", operator.ne),
    "less": ("<", operator.lt),
    "less_equal": ("<=", operator.le),
    "greater": (">", operator.gt),
    "greater_equal": (">=", operator.ge),
}


def _plain(value):
    """NumPy's numbers as Python's, which are weakly typed."""
    return (
        value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value
    )


def _values(value):
    return np.asarray(value) if isinstance(value, _C.Tensor) else value


@_C._boundary
def array_ufunc(ufunc, method, *inputs, **kwargs):
    """``Tensor.__array_ufunc__`` without its self."""
    if method == "__call__" and ufunc.__name__ in _OPERATORS and not kwargs:
        symbol, operation = _OPERATORS[ufunc.__name__]
        a, b = map(_plain, inputs)
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            names = " and ".join(f"'{type(value).__name__}'" for value in (a, b))
            raise TypeError(
                f"unsupported operand type(s) for {symbol}: {names}; wrap the array with "
                "spool.from_numpy(array), or take the tensor's values with .numpy()"
            )
        return operation(a, b)
    if "out" in kwargs:
        kwargs["out"] = tuple(map(_values, kwargs["out"]))
    return getattr(ufunc, method)(*map(_values, inputs), **kwargs)
