"""Tools around a training step: :mod:`spool.utils.checkpoint`."""

import importlib

__all__ = ["checkpoint"]


def __getattr__(name):
    if name in __all__:  # loaded when it is first used
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
