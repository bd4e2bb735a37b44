"""Taylor mode: ``jet``, ``nth_derivative``, ``laplacian``."""

import math

from .. import _C
from .._tree import flatten, unflatten
from .arguments import (
    check_floating,
    check_tensors,
    check_tuple,
    selected,
    transformed,
)
from .batching import map_rows
from .jacobians import basis

__all__ = ["jet", "laplacian", "nth_derivative"]


def expand_along(func, leaves, structure, series, order):
    """func's output leaves, each as (value, coefficient 1, ..., coefficient order), and their structure."""
    level = _C._level_push_jet(order)
    try:
        curves = [
            x if coefficients is None else _C._series(level, x, coefficients)
            for x, coefficients in zip(leaves, series)
        ]
        outputs, out_structure = flatten(func(*unflatten(structure, curves)))
        check_tensors(outputs, "jet", "results")
        return [_C._unseries(level, o) for o in outputs], out_structure
    finally:
        _C._level_pop(level)


def _order(series):
    """Of a tree whose leaves are replaced by lists of coefficients: the longest list."""
    longest = max((len(part) for part in series), default=0)
    if longest == 0:
        raise ValueError("jet: series must hold at least one coefficient for some primal")
    return longest


def _coefficients(series, structure):
    """One list or tuple of coefficients a leaf, out of a tree that has such lists for leaves."""
    lists = []

    def walk(part, shape):
        if shape is None:
            return
        if not isinstance(shape, tuple):
            if not isinstance(part, (list, tuple)):
                raise TypeError(
                    f"jet: series must hold a list of coefficients for each primal, found {type(part).__name__}"
                )
            lists.append(list(part))
            return
        inner = shape[2] if shape[0] is dict else shape[1]
        keys = shape[1] if shape[0] is dict else range(len(inner))
        if len(part) != len(inner):
            raise ValueError("jet: series must have the structure of primals")
        for key, below in zip(keys, inner):
            walk(part[key], below)

    walk(series, structure)
    check_tensors([c for part in lists for c in part], "jet", "coefficients")
    return lists


@_C._boundary
def jet(func, primals, series):
    """Taylor mode: the coefficients of ``func(x(t))`` from those of ``x(t)``.

    ``x(t) = primal + c1 t + c2 t^2 + ... + cK t^K`` in, ``y(t) = output + d1 t + d2 t^2 + ... + dK t^K`` out, up to the
    order ``K`` of the longest list. Coefficients are normalised: ``dk`` is the ``k``-th derivative of ``y`` divided by ``k!``,
    so that they neither grow nor overflow as derivatives do. (JAX's ``jet`` takes and returns the derivatives themselves.)

    Parameters
    ----------
    func : callable
    primals : tuple
        Trees of floating point tensors.
    series : tuple
        For each primal, its tree with a list of coefficients in the place of each tensor: of the tensor's shape and dtype.
        Lists that are shorter than others end in zeros.

    Returns
    -------
    (output, series_out)
        ``series_out`` is the output's tree with a list of ``K`` coefficients in the place of each tensor.

    Raises
    ------
    ShapeError
        A coefficient of another shape or dtype than its primal.
    ValueError
        No coefficients, or more than 64.

    Notes
    -----
    The cost grows with the square of the order: products are Cauchy's, functions follow the recurrence of the differential
    equation that they solve, or integrate their derivative (Griewank and Walther, Evaluating Derivatives, 2008, chapter 13).

    >>> import spool
    >>> one, zero = spool.tensor(1.0), spool.tensor(0.0)
    >>> spool.func.jet(spool.exp, (zero,), ([one, zero],))
    (tensor(1.), [tensor(1.), tensor(0.5000)])
    """
    check_tuple(primals, "jet", "primals")
    check_tuple(series, "jet", "series")
    leaves, structure = flatten(primals)
    check_floating(leaves, "jet", "primals")
    lists = _coefficients(series, structure)
    order = _order(lists)
    padded = [part + [None] * (order - len(part)) for part in lists]
    outputs, out_structure = expand_along(func, leaves, structure, padded, order)
    values = unflatten(out_structure, [o[0] for o in outputs])
    return values, unflatten(out_structure, [list(o[1:]) for o in outputs])


def nth_derivative(func, n):
    """The function that computes the ``n``-th derivative of ``func``, for functions of one number.

    By Taylor mode along a step of all elements at once, so that the cost is polynomial in ``n``; a nested :func:`grad` doubles
    it with every order.

    Parameters
    ----------
    func : callable
        Takes a tensor, and further arguments that are not differentiated by. A function of one number; or of many, each point
        by itself: an elementwise function of a tensor of any shape, a network of points ``(N, 1)``. (Of a function that mixes
        elements, the result is the ``n``-th derivative of ``func(x + t)`` by the number ``t``.)
    n : int
        0 to 64.

    Returns
    -------
    callable
        Its result has the tree and shapes of ``func``'s.

    Raises
    ------
    ValueError
        ``n`` is out of range.
    DTypeError
        The argument is not floating point.

    >>> import spool
    >>> spool.func.nth_derivative(lambda x: x**5, 3)(spool.tensor([1.0, 2.0]))
    tensor([ 60., 240.])
    """
    if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= 64:
        raise ValueError(f"nth_derivative: n must be an int from 0 to 64, not {n!r}")

    @transformed(func)
    def wrapper(x, *args, **kwargs):
        if n == 0:
            return func(x, *args, **kwargs)
        check_floating((x,), "nth_derivative", "the first argument")
        step = [_C.ones_like(x)] + [None] * (n - 1)
        outputs, structure = expand_along(
            lambda t: func(t, *args, **kwargs), [x], flatten((x,))[1], [step], n
        )
        factor = float(math.factorial(n))
        return unflatten(structure, [o[n] * factor for o in outputs])

    return wrapper


def laplacian(func, argnums=0):
    """The function that computes the sum of the unmixed second derivatives of ``func``.

    By second order Taylor mode along each element, all as one batch: no Hessian is made.

    Parameters
    ----------
    func : callable
    argnums : int or tuple of int
        The positional arguments (trees of floating point tensors) to differentiate by.

    Returns
    -------
    callable
        Its result has the tree and shapes of ``func``'s.

    >>> import spool
    >>> spool.func.laplacian(lambda x: (x * x * x).sum())(spool.tensor([1.0, 3.0]))
    tensor(24.)
    """

    @transformed(func)
    def wrapper(*args, **kwargs):
        tree, put = selected(args, argnums, "laplacian")
        leaves, structure = flatten((tree,))
        check_floating(leaves, "laplacian", "what is differentiated by")
        total, shape = None, None

        def along(number, step):
            nonlocal shape
            series = [None] * len(leaves)
            series[number] = [step, None]
            outputs, shape = expand_along(
                lambda t: func(*put(t), **kwargs), leaves, structure, series, 2
            )
            return [o[2] for o in outputs]

        for number, leaf in enumerate(leaves):
            if leaf.numel() == 0:
                parts = [p * 0 for p in along(number, _C.zeros_like(leaf))]
            else:
                steps = basis(leaf)
                parts = [p.sum(0) for p in map_rows(lambda s, i=number: along(i, s), steps)]
            total = parts if total is None else [a + b for a, b in zip(total, parts)]
        return unflatten(shape, [2 * t for t in total])

    return wrapper
