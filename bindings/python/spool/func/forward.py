"""Forward mode: ``jvp``, ``linearize``, ``hvp``."""

from .. import _C
from .._tree import flatten, tree_map, unflatten
from .arguments import (
    Tensor,
    check_alike,
    check_floating,
    check_tensors,
    check_tuple,
    split_aux,
)
from .reverse import gradient, vjp

__all__ = ["hvp", "jvp", "linearize", "push_forward"]


def push_forward(func, leaves, structure, along, has_aux, op):
    """func on the unflattened leaves, with a tangent for each (None: zero).

    Returns the output's leaves, their tangents, its structure, and aux.
    """
    level = _C._level_push("jvp")
    try:
        duals = _C._dual_all(level, leaves, along)
        output, aux = split_aux(func(*unflatten(structure, duals)), has_aux, op)
        outputs, out_structure = flatten(output)
        check_tensors(outputs, op, "results")
        values, tangents = _C._undual_all(level, outputs)
        if has_aux:
            aux = tree_map(
                lambda a: _C._undual_all(level, (a,))[0][0] if isinstance(a, Tensor) else a, aux
            )
    finally:
        _C._level_pop(level)
    return values, tangents, out_structure, aux


def _moving(primals, tangents, op):
    """Leaves of the primals, their structure, leaves of the tangents."""
    check_tuple(primals, op, "primals")
    check_tuple(tangents, op, "tangents")
    leaves, structure = flatten(primals)
    check_floating(leaves, op, "primals")
    along = flatten(tangents)
    check_alike(along, (leaves, structure), op, "tangents")
    return leaves, structure, along[0]


@_C._boundary
def jvp(func, primals, tangents, *, has_aux=False):
    """``func(*primals)`` and its derivative along ``tangents``: ``(output, tangent)`` or ``(output, tangent, aux)``.

    Parameters
    ----------
    func : callable
    primals, tangents : tuple
        Trees of floating point tensors, of equal structure and shapes.
    has_aux : bool
        ``func`` returns ``(output, aux)``.

    Raises
    ------
    ShapeError
        Tangents that do not have the structure and shapes of the primals.

    >>> import spool
    >>> spool.func.jvp(lambda x: x * x, (spool.tensor([1.0, 3.0]),), (spool.tensor([1.0, 10.0]),))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    leaves, structure, along = _moving(primals, tangents, "jvp")
    values, moved, shape, aux = push_forward(func, leaves, structure, along, has_aux, "jvp")
    result = unflatten(shape, values), unflatten(shape, moved)
    return (*result, aux) if has_aux else result


@_C._boundary
def linearize(func, *primals):
    """``func(*primals)`` and the linear function that takes tangents of the primals to that of the result.

    Returns
    -------
    (output, jvp_fn)
        ``jvp_fn(*tangents)`` does not run ``func`` again. Where one tangent is pushed forward, :func:`jvp` takes less.

    Notes
    -----
    The pull-back of the pull-back: the tape of a function that is linear in the cotangents, read backwards.

    >>> import spool
    >>> output, push = spool.func.linearize(lambda x: x * x, spool.tensor([1.0, 3.0]))
    >>> push(spool.tensor([1.0, 0.0])), push(spool.tensor([0.0, 1.0]))
    (tensor([2., 0.]), tensor([0., 6.]))
    """
    output, pull = vjp(func, *primals)
    wanted = flatten(primals)
    _, push = vjp(pull, tree_map(_C.zeros_like, output))

    @_C._boundary
    def jvp_fn(*tangents):
        check_alike(flatten(tangents), wanted, "linearize", "tangents")
        return push(tangents)[0]

    return output, jvp_fn


@_C._boundary
def hvp(func, primals, tangents):
    """The Hessian of ``func`` at ``primals``, times ``tangents``, without the Hessian: forward over reverse mode.

    Parameters
    ----------
    func : callable
        Returns a tensor of one element.
    primals, tangents : tuple
        Trees of floating point tensors, of equal structure and shapes.

    Returns
    -------
    tree
        Like ``primals``; like its only entry where it has one.

    Raises
    ------
    ShapeError
        A result of more than one element, or tangents that do not have the structure and shapes of the primals.

    >>> import spool
    >>> x, v = spool.tensor([1.0, 3.0]), spool.tensor([1.0, 10.0])
    >>> spool.func.hvp(lambda x: (x * x * x).sum(), (x,), (v,))
    tensor([  6., 180.])
    """
    leaves, structure, along = _moving(primals, tangents, "hvp")
    numbers = 0 if len(primals) == 1 else tuple(range(len(primals)))
    _, moved, shape, _ = push_forward(
        lambda *args: gradient(func, args, {}, numbers, False)[0],
        leaves,
        structure,
        along,
        False,
        "hvp",
    )
    return unflatten(shape, moved)
