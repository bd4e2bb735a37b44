"""Switching the tape on and off: context managers that are decorators, too."""

import functools

from . import _C


class _GradMode:
    """Sets the calling thread's grad mode for a ``with`` block or for calls of a function."""

    __slots__ = ("_mode", "_before")

    def __init__(self, mode):
        self._mode = mode
        self._before = []

    def __enter__(self):
        self._before.append(_C._grad_mode(self._mode))

    def __exit__(self, *error):
        _C._grad_mode(self._before.pop())

    def __call__(self, function):
        mode = self._mode

        @functools.wraps(function)
        def in_mode(*args, **kwargs):
            before = _C._grad_mode(mode)
            try:
                return function(*args, **kwargs)
            finally:
                _C._grad_mode(before)

        return _C._boundary(in_mode)


class no_grad(_GradMode):
    """Nothing is recorded: ``with spool.no_grad():``, or ``@spool.no_grad()`` above a function.

    >>> import spool
    >>> x = spool.ones(2, requires_grad=True)
    >>> with spool.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """

    __slots__ = ()

    def __new__(cls, function=None):
        self = super().__new__(cls)
        if function is None:
            return self
        _GradMode.__init__(self, cls._on)
        return self(function)

    def __init__(self, function=None):
        super().__init__(self._on)

    _on = False


class enable_grad(no_grad):
    """Ops are recorded, inside ``no_grad``, too; used like ``no_grad``."""

    __slots__ = ()
    _on = True


class set_grad_enabled(_GradMode):
    """Sets grad mode at once, as a call; as a context manager it sets it back at the end of the block."""

    __slots__ = ()

    def __init__(self, mode):
        super().__init__(mode)
        self._before.append(_C._grad_mode(mode))

    def __enter__(self):
        if len(self._before) > 1 or not self._before:
            super().__enter__()

    def __call__(self, function):
        _C._grad_mode(self._before.pop())
        return super().__call__(function)
