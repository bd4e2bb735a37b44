"""What ``@spool.no_grad()`` and its like make of a function."""

import functools

from . import _C


def decorate(function, mode):
    """The function with grad mode set to ``mode`` during each call."""

    @functools.wraps(function)
    def in_mode(*args, **kwargs):
        before = _C._grad_mode(mode)
        try:
            return function(*args, **kwargs)
        finally:
            _C._grad_mode(before)

    return _C._boundary(in_mode)
