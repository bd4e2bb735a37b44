"""Spool: tensors that compute eagerly, remember how (a tape), and can be compiled and shipped (a graph).

    import spool

    x = spool.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x * x).sum().backward()
    print(x.grad)  # tensor([2., 4., 6.])

Names and meanings follow PyTorch. What is not loaded at once (``spool.nn``, ``spool.optim``, ``spool.data``, ``spool.save``,
``spool.linalg``, ``spool.func``, ``spool.onnx``) is loaded when it is first used.
"""

import importlib as _importlib
import os as _os

from . import _C

_C._set_package(_os.path.dirname(_os.path.abspath(__file__)) + _os.sep)

from . import autograd, launch  # noqa: E402
from ._C import *  # noqa: E402, F403
from ._C import __version__  # noqa: E402

TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from . import amp, data, func, linalg, nn, onnx, optim, safetensors, serialization, utils
    from ._dtypes import can_cast, finfo, iinfo, is_tensor, promote_types, result_type
    from ._jit import Explanation, explain, hot, jit
    from .amp import autocast, get_autocast_dtype, is_autocast_enabled
    from .autograd import stop_gradient
    from .autograd.drawing import graph_of
    from .serialization import load, save

_LAZY_MODULES = (
    "amp",
    "data",
    "func",
    "linalg",
    "nn",
    "onnx",
    "optim",
    "safetensors",
    "serialization",
    "utils",
)
_LAZY_NAMES = {
    "Explanation": "_jit",
    "autocast": "amp",
    "can_cast": "_dtypes",
    "explain": "_jit",
    "finfo": "_dtypes",
    "get_autocast_dtype": "amp",
    "graph_of": "autograd.drawing",
    "hot": "_jit",
    "iinfo": "_dtypes",
    "is_autocast_enabled": "amp",
    "is_tensor": "_dtypes",
    "jit": "_jit",
    "load": "serialization",
    "promote_types": "_dtypes",
    "result_type": "_dtypes",
    "save": "serialization",
    "stop_gradient": "autograd",
}


def __getattr__(name):
    if name in _LAZY_MODULES:
        return _importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY_NAMES:
        found = getattr(_importlib.import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'spool' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY_MODULES, *_LAZY_NAMES})
