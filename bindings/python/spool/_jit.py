"""``spool.jit``, ``spool.explain`` and ``spool.hot``: running recorded op streams as compiled regions."""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, Dict, List, TypeVar, overload

from . import _C

__all__ = ["Explanation", "explain", "hot", "jit"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def jit(fn: F) -> F: ...


@overload
def jit(fn: None = None) -> Callable[[F], F]: ...


def jit(fn=None):
    """Run the tensor work of ``fn`` in compiled regions.

    Python runs every call of ``fn`` as ever. The first call is recorded; later ones are *followed*: while the ops are the
    recorded ones, nothing is computed, and when the call ends one compiled plan runs, forward, backward and optimizer
    alike. Results, side effects and exceptions are those of ``fn`` itself, bit for bit.

    What changes from call to call costs nothing if it is a number (a learning rate) and another recording if it is a
    shape, a dtype or the way through an ``if``. Reading a value (``item()``, ``numpy()``, printing) within the call makes
    the plan run up to there; :func:`explain` tells where that happens. Calls within other jitted calls join them.

    Parameters
    ----------
    fn : callable
        A function or method. Left out, ``jit`` can be used as ``@spool.jit()``.

    Returns
    -------
    callable
        With ``fn``'s name, signature and documentation. ``SPOOL_JIT=0`` in the environment makes it just call ``fn``.

    Examples
    --------
    >>> import spool
    >>> @spool.jit
    ... def f(x):
    ...     return (x * 2 + 1).sum()
    >>> [f(spool.tensor([1.0, float(n)])).item() for n in range(3)]
    [4.0, 6.0, 8.0]
    """
    if fn is None:
        return jit
    if isinstance(fn, _C.JitFunction):
        return fn
    if not callable(fn):
        raise TypeError(f"jit: fn must be callable, not {type(fn).__name__}")
    name = getattr(fn, "__qualname__", type(fn).__name__)
    # A callable object's attributes, a module's, stay its own.
    updated = functools.WRAPPER_UPDATES if hasattr(fn, "__name__") else ()
    jitted = _C.JitFunction(fn, name.replace("<locals>.", ""))
    return functools.update_wrapper(jitted, fn, updated=updated)


_NOTHING = {
    "graphs": 0,
    "ops": 0,
    "compiled_ops": 0,
    "breaks": 0,
    "rebuilds": 0,
    "calls": 0,
    "text": "",
    "ir": "",
}


class Explanation:
    """What became of a jitted function; printing it gives ``text``.

    Attributes
    ----------
    graphs : int
        Compiled plans. A call runs one for each of its regions; other shapes or ways through the function have their own.
    ops, compiled_ops : int
        Ops of the last call, and how many of them ran in plans.
    breaks : int
        How often, in the last call, a region ended before the call did.
    rebuilds : int
        Plans made anew because a call kept other results alive than the ones before.
    calls : int
        Calls so far.
    reasons : list of str
        Why not everything is in one plan, each with the user's line.
    fallbacks : dict of str to int
        Ops that ``vmap`` has run slice by slice in this process, for want of a batched rule, and how often.
    text, ir : str
        The same for people; and with the graphs of the plans.
    """

    graphs: int
    ops: int
    compiled_ops: int
    breaks: int
    rebuilds: int
    calls: int
    reasons: List[str]
    fallbacks: Dict[str, int]
    text: str
    ir: str

    def __init__(self, facts: dict):
        self.__dict__.update(_NOTHING, reasons=[], fallbacks=_C._vmap_fallbacks())
        self.__dict__.update(facts)
        for name, count in self.fallbacks.items():
            self.text += f"vmap ran {name} slice by slice, {count} times in this process\n"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return (
            f"Explanation(graphs={self.graphs}, ops={self.ops}, compiled_ops={self.compiled_ops}, "
            f"breaks={self.breaks}, rebuilds={self.rebuilds})"
        )


def explain(fn: Callable[..., Any] | None = None, *, quiet: bool = False) -> Explanation:
    """Tell what :func:`jit` did with ``fn``, and why; and which ops ``vmap`` could not run batched.

    Parameters
    ----------
    fn : callable, optional
        What ``spool.jit`` returned, or a method made of it. Without it, the ops that ``vmap`` ran slice by slice are all
        there is to tell.
    quiet : bool
        Do not print.

    Raises
    ------
    TypeError
        ``fn`` does not come from ``spool.jit``.

    Examples
    --------
    >>> import spool
    >>> f = spool.jit(lambda x: (x + 1) * 2)
    >>> for _ in range(3):
    ...     y = f(spool.ones(3))
    >>> spool.explain(f, quiet=True)
    Explanation(graphs=1, ops=2, compiled_ops=2, breaks=0, rebuilds=0)
    """
    facts = {} if fn is None else _C.jit_explain(getattr(fn, "__func__", fn))
    explanation = Explanation(facts)
    if fn is None and not explanation.fallbacks:
        explanation.text = "vmap ran no op slice by slice\n"
    if not quiet:
        sys.stdout.write(explanation.text)
    return explanation


class hot:
    """Switch the search for hot regions on or off for the calling thread.

    Loops that repeat the same ops are found and compiled without a decorator, where that pays. ``spool.hot(False)``
    switches that off for good, or, as a context manager, for a block. Off everywhere with ``SPOOL_HOT=0``.

    Examples
    --------
    >>> import spool
    >>> with spool.hot(False):
    ...     x = spool.ones(2) + 1
    """

    def __init__(self, on: bool):
        self._before = _C.hot_set(on)

    def __enter__(self) -> hot:
        return self

    def __exit__(self, *exception: object) -> None:
        _C.hot_set(self._before)
