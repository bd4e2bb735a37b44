"""Hooks of modules: where they are kept, and how those on gradients are tied to the tape.

Invariants
----------
1. A module without hooks has no table of them (``Module._hooks`` is None), so that calling it asks once.
2. Hooks run in the order of their registration; ``prepend`` puts one in front.
3. Hooks on gradients are tied anew at each call, to aliases of the tensors going in and coming out. They see whole gradients:
   of the aliases, not of one use of the tensor.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Callable, Dict, Tuple

from .. import _C

__all__ = ["HookHandle", "HookTable"]

_numbers = itertools.count()


class HookHandle:
    """What takes a hook off again, at ``remove()`` or at the end of a ``with`` block. Removing twice does nothing."""

    def __init__(self, table: HookTable, kind: str, number: int):
        self._table = weakref.ref(table)
        self._kind, self._number = kind, number

    def remove(self) -> None:
        """Take the hook off."""
        table = self._table()
        if table is not None:
            getattr(table, self._kind).pop(self._number, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class HookTable:
    """The hooks of one module, by kind: dicts from a number to (function, options)."""

    def __init__(self) -> None:
        self.before: Dict[int, Tuple[Callable[..., Any], bool]] = {}
        self.after: Dict[int, Tuple[Callable[..., Any], bool, bool]] = {}
        self.before_backward: Dict[int, Tuple[Callable[..., Any]]] = {}
        self.after_backward: Dict[int, Tuple[Callable[..., Any]]] = {}

    def add(self, kind: str, entry: tuple, prepend: bool) -> HookHandle:
        if not callable(entry[0]):
            raise TypeError(f"hook: a hook must be callable, not {type(entry[0]).__name__}")
        number = next(_numbers)
        table = getattr(self, kind)
        if prepend:
            setattr(self, kind, {number: entry, **table})
        else:
            table[number] = entry
        return HookHandle(self, kind, number)

    # ---- forward

    def call(self, module, args, kwargs):
        """``module.forward`` with what stands before and after it."""
        for function, with_kwargs in tuple(self.before.values()):
            args, kwargs = _replaced_arguments(function, with_kwargs, module, args, kwargs)
        tied = _BackwardHooks(module, self) if self.before_backward or self.after_backward else None
        if tied is not None:
            args = tied.inputs(args)
        always = [f for f in self.after.values() if f[2]]
        try:
            result = module.forward(*args, **kwargs)
        except BaseException:
            for function, with_kwargs, _ in always:
                _call_after(function, with_kwargs, module, args, kwargs, None)
            raise
        for function, with_kwargs, _ in tuple(self.after.values()):
            replaced = _call_after(function, with_kwargs, module, args, kwargs, result)
            if replaced is not None:
                result = replaced
        return result if tied is None else tied.outputs(result)


def _replaced_arguments(function, with_kwargs, module, args, kwargs):
    if not with_kwargs:
        result = function(module, args)
        if result is not None:
            args = result if isinstance(result, tuple) else (result,)
        return args, kwargs
    result = function(module, args, kwargs)
    if result is None:
        return args, kwargs
    if not isinstance(result, tuple) or len(result) != 2:
        raise RuntimeError(
            "forward pre-hook: with_kwargs=True must return None or a tuple (new args, new kwargs), not "
            f"{type(result).__name__}"
        )
    return result


def _call_after(function, with_kwargs, module, args, kwargs, result):
    return function(module, args, kwargs, result) if with_kwargs else function(module, args, result)


# ---- backward


class _BackwardHooks:
    """One call of a module whose gradients hooks look at.

    The outputs' gradients are collected first; then, as those of the inputs come in, the hooks are called with both. A hook may
    replace the gradient of a single differentiable input: of several, the first ones have gone on when the last one comes.
    """

    def __init__(self, module, table):
        self.module = module
        self.before = tuple(f for (f,) in table.before_backward.values())
        self.after = tuple(f for (f,) in table.after_backward.values())
        self.grad_input: list = []
        self.grad_output: list = []
        self.waits_in: set = set()
        self.waits_out: set = set()
        self.watched: list = []

    def inputs(self, args):
        if not self.after:
            return args
        self.grad_input = [None] * len(args)
        self.watched = [
            i
            for i, x in enumerate(args)
            if isinstance(x, _C.Tensor) and x.requires_grad and _C.is_grad_enabled()
        ]
        self.waits_in = set(self.watched)
        return tuple(
            self._watch_input(i, x) if i in self.waits_in else x for i, x in enumerate(args)
        )

    def _watch_input(self, i, x):
        seen = _C.alias(x)
        seen.register_hook(lambda grad: self._input_came(i, grad))
        return seen

    def outputs(self, result):
        single = isinstance(result, _C.Tensor)
        if not single and not isinstance(result, (tuple, list)):
            raise TypeError(
                "full backward hook: forward must return a Tensor or a tuple of Tensors, not "
                f"{type(result).__name__}"
            )
        results = [result] if single else list(result)
        self.grad_output = [None] * len(results)
        self.watched_out = [
            i for i, y in enumerate(results) if isinstance(y, _C.Tensor) and y.requires_grad
        ]
        self.waits_out = set(self.watched_out)
        for i in self.watched_out:
            results[i] = self._watch_output(i, results[i])
        return results[0] if single else type(result)(results)

    def _watch_output(self, i, y):
        seen = _C.alias(y)
        seen.register_hook(lambda grad: self._output_came(i, grad))
        return seen

    def _output_came(self, i, grad):
        self.grad_output[i] = grad
        self.waits_out.discard(i)
        if self.waits_out:
            return None
        self.waits_out = set(self.watched_out)  # for another backward through the same call
        for hook in self.before:
            replaced = hook(self.module, tuple(self.grad_output))
            if replaced is not None:
                self.grad_output = list(self._checked(replaced, self.grad_output, "grad_output"))
                self._only_one(self.watched_out, "grad_output")
        if not self.waits_in:
            self._call_after()
        return self.grad_output[i]

    def _input_came(self, i, grad):
        self.grad_input[i] = grad
        self.waits_in.discard(i)
        if self.waits_in:
            return None
        self.waits_in = set(self.watched)
        self._call_after()
        return self.grad_input[i]

    def _call_after(self):
        for hook in self.after:
            replaced = hook(self.module, tuple(self.grad_input), tuple(self.grad_output))
            if replaced is not None:
                self.grad_input = list(self._checked(replaced, self.grad_input, "grad_input"))
                self._only_one(self.watched, "grad_input")

    def _checked(self, replaced, grads, name):
        replaced = replaced if isinstance(replaced, tuple) else (replaced,)
        if len(replaced) != len(grads):
            raise RuntimeError(
                f"full backward hook: returned {len(replaced)} gradients for {len(grads)} in {name}"
            )
        return replaced

    def _only_one(self, watched, name):
        if len(watched) != 1:
            raise NotImplementedError(
                f"full backward hook: {name} can be replaced where one tensor has a gradient; here {len(watched)} have. "
                "Use Tensor.register_hook on each"
            )
