"""Reverse mode: ``grad``, ``grad_and_value``, ``vjp``."""

from .. import _C
from .._tree import flatten, tree_map, unflatten
from .arguments import (
    Tensor,
    check_alike,
    check_floating,
    check_tensors,
    selected,
    split_aux,
    transformed,
)

__all__ = ["Recording", "grad", "grad_and_value", "gradient", "vjp"]


class Recording:
    """One run of a function at a grad level of its own, and the tape of it.

    The level is on the stack while the function runs and while gradients are pulled back, any number of times; in between only
    its number is kept.

    Attributes
    ----------
    inputs, structure : tuple of Tensor, and their tree
        What is differentiated by, as the level sees it.
    outputs, values, out_structure, aux
        What came out, as the level sees it, and one level down, as ``aux`` is.
    grads : tuple of Tensor, or None
        The gradients of the only result, where they were asked for and it is one real number: the tape is used up then.
    """

    def __init__(self, func, tree, has_aux, op, at_once=False):
        leaves, self.structure = flatten(tree)
        check_floating(leaves, op, "what is differentiated by")
        self.op = op
        level = _C._level_push("grad")
        try:
            self.id = _C._level_id(level)
            self.inputs = _C._grad_wrap_all(level, leaves)
            output, aux = split_aux(func(unflatten(self.structure, self.inputs)), has_aux, op)
            self.outputs, self.out_structure = flatten(output)
            check_tensors(self.outputs, op, "results")
            self.grads = None
            if at_once and _is_number(self.outputs):
                self.grads = _C._grad_of(level, self.outputs, None, self.inputs, False)
            self.values = _C._grad_unwrap_all(level, self.outputs)
            self.aux = aux if aux is None else tree_map(lambda a: _unwrapped(level, a), aux)
        finally:
            _C._level_pop(level)

    def value(self):
        """The function's result, one level down."""
        return unflatten(self.out_structure, self.values)

    def pull(self, cotangents):
        """The inputs' cotangents, in order, from one a result (None: zero)."""
        level = _C._level_push_again(self.id)
        try:
            return _C._grad_of(level, self.outputs, cotangents, self.inputs, True)
        finally:
            _C._level_pop(level)


def _is_number(outputs):
    return len(outputs) == 1 and outputs[0].numel() == 1 and outputs[0].is_floating_point()


def _unwrapped(level, value):
    return _C._grad_unwrap(level, value) if isinstance(value, Tensor) else value


def gradient(func, args, kwargs, argnums, has_aux):
    """The gradient, as the tree that argnums selects, the value, and aux."""
    tree, put = selected(args, argnums, "grad")
    leaves, structure = flatten(tree)
    check_floating(leaves, "grad", "what is differentiated by")
    level = _C._level_push("grad")
    try:
        inputs = _C._grad_wrap_all(level, leaves)
        output, aux = split_aux(func(*put(unflatten(structure, inputs)), **kwargs), has_aux, "grad")
        if not isinstance(output, Tensor):
            raise TypeError(
                f"grad: the function must return one Tensor, not {type(output).__name__}"
            )
        grads = _C._grad_of(level, (output,), None, inputs, False)
        value = _C._grad_unwrap(level, output)
        if has_aux:
            aux = tree_map(lambda a: _unwrapped(level, a), aux)
    finally:
        _C._level_pop(level)
    return unflatten(structure, grads), value, aux


def grad_and_value(func, argnums=0, has_aux=False):
    """A function that returns ``(gradient, value)`` of ``func``, or ``(gradient, (value, aux))``.

    Parameters are those of :func:`grad`.

    >>> import spool
    >>> spool.func.grad_and_value(lambda x: (x * x).sum())(spool.tensor([1.0, 3.0]))
    (tensor([2., 6.]), tensor(10.))
    """

    @transformed(func)
    def wrapper(*args, **kwargs):
        grads, value, aux = gradient(func, args, kwargs, argnums, has_aux)
        return grads, (value, aux) if has_aux else value

    return wrapper


def grad(func, argnums=0, has_aux=False):
    """The function that computes the gradient of ``func``, which must return a tensor of one element.

    Parameters
    ----------
    func : callable
    argnums : int or tuple of int
        The positional arguments (trees of floating point tensors) to differentiate by. A tuple yields a tuple of gradients.
    has_aux : bool
        ``func`` returns ``(output, aux)``; the result is then ``(gradient, aux)``.

    Raises
    ------
    ShapeError
        The output has more than one element.
    DTypeError
        An argument to differentiate by is not floating point.

    >>> import spool
    >>> spool.func.grad(lambda x: (x * x).sum())(spool.tensor([1.0, 3.0]))
    tensor([2., 6.])
    """

    @transformed(func)
    def wrapper(*args, **kwargs):
        grads, _, aux = gradient(func, args, kwargs, argnums, has_aux)
        return (grads, aux) if has_aux else grads

    return wrapper


@_C._boundary
def vjp(func, *primals, has_aux=False):
    """``func(*primals)`` and the function that takes cotangents of the result to those of the primals.

    Parameters
    ----------
    func : callable
    primals
        Trees of floating point tensors.
    has_aux : bool
        ``func`` returns ``(output, aux)``.

    Returns
    -------
    (output, vjp_fn) or (output, vjp_fn, aux)
        ``vjp_fn(cotangents)`` takes a tree like ``output`` and returns a tuple, one entry a primal. It does not run ``func``
        again: the tape of the one run lives as long as ``vjp_fn``, which can be called any number of times, mapped by
        :func:`vmap`, and differentiated, as long as the transforms that ``vjp`` was called in have not ended.

    Raises
    ------
    ShapeError
        Cotangents that do not have the structure and shapes of the result.
    RuntimeError
        ``vjp_fn`` is called after a transform that it was made in has ended.

    >>> import spool
    >>> output, pull = spool.func.vjp(lambda x: x * x, spool.tensor([1.0, 3.0]))
    >>> pull(spool.tensor([1.0, 10.0]))
    (tensor([ 2., 60.]),)
    """
    run = Recording(lambda t: func(*t), primals, has_aux, "vjp")

    @_C._boundary
    def vjp_fn(*cotangents):
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        leaves, structure = flatten(given)
        check_alike((leaves, structure), (run.outputs, run.out_structure), "vjp", "cotangents")
        return unflatten(run.structure, run.pull(leaves))

    return (run.value(), vjp_fn, run.aux) if has_aux else (run.value(), vjp_fn)
