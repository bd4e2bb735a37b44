"""Neural networks: so far the functions, in :mod:`spool.nn.functional`."""

from . import functional

__all__ = ["functional"]
