"""Transforms of functions: ``grad``, ``vjp``, ``jvp``, ``vmap``, Jacobians and Hessians.

Arguments and results may be trees (tuples, lists, dicts) of tensors. All transforms nest in any order, with themselves, too:
each call is a level of its own, and a tensor carries its level, so that nested derivatives are not confused.

>>> import spool
>>> def f(x):
...     return (x * x * x).sum()
>>> spool.func.vmap(spool.func.grad(spool.func.grad(f)))(spool.tensor([1.0, 2.0]))
tensor([ 6., 12.])
"""

import functools

from .. import _C
from .._tree import broadcast_prefix, flatten, tree_map, unflatten
from .fallbacks import vmap_fallbacks

__all__ = [
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "vjp",
    "vmap",
    "vmap_fallbacks",
]

_Tensor = _C.Tensor


def _transform(function):
    """Decorates what a transform returns: the wrapped function's name, and no frames of ours in tracebacks."""

    def decorate(wrapper):
        if hasattr(function, "__name__"):
            wrapper = functools.wraps(function)(wrapper)
        return _C._boundary(wrapper)

    return decorate


def _tensors(values, op, what):
    for value in values:
        if not isinstance(value, _Tensor):
            raise TypeError(
                f"{op}: {what} must be Tensors or trees of them, found {type(value).__name__}"
            )


def _floating(values, op, what):
    _tensors(values, op, what)
    for value in values:
        if not (value.is_floating_point() or value.is_complex()):
            raise _C.DTypeError(
                f"{op}: {what} must be floating point, found {value.dtype}; convert it with .float()"
            )


def _split_aux(result, has_aux, op):
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"{op}: with has_aux the function must return (output, aux)")
    return result


def _selected(args, argnums, op):
    """The arguments to differentiate by, as a tree, and a function that puts others in their place."""
    single = isinstance(argnums, int)
    numbers = (argnums,) if single else tuple(argnums)
    places = []
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise IndexError(
                f"{op}: argnums has {number}, but there are {len(args)} positional arguments"
            )
        places.append(number % len(args))

    def put(values):
        full = list(args)
        for place, value in zip(places, (values,) if single else values):
            full[place] = value
        return full

    return args[places[0]] if single else tuple(args[place] for place in places), put


# ---- reverse mode ----------------------------------------------------------------------------------------------------------


def _grad_run(func, tree, cotangents, has_aux, op):
    """Runs func(tree) at a grad level; returns gradients (in tree's structure), output and aux, one level down.

    cotangents is a function of the output's leaves, at the level below, that yields their weights; None: the output is one
    tensor of one element.
    """
    leaves, structure = flatten(tree)
    _floating(leaves, op, "what is differentiated by")
    level = _C._level_push("grad")
    try:
        inputs = tuple(_C._grad_wrap(level, leaf, True) for leaf in leaves)
        output, aux = _split_aux(func(unflatten(structure, inputs)), has_aux, op)
        outputs, out_structure = flatten(output)
        _tensors(outputs, op, "results")
        if cotangents is None:
            if len(outputs) != 1 or outputs[0] is not output:
                raise TypeError(
                    f"{op}: the function must return one Tensor, not {type(output).__name__}"
                )
            if output.numel() != 1:
                raise _C.ShapeError(
                    f"{op}: the function must return one element, not shape {tuple(output.shape)}; use vjp or jacrev"
                )
            weights = [None]
        else:
            weights = cotangents([_C._grad_unwrap(level, o) for o in outputs], out_structure)
        grads = _sum_of_grads(level, outputs, weights, inputs)
        values = unflatten(out_structure, [_C._grad_unwrap(level, o) for o in outputs])
        aux = tree_map(lambda a: _C._grad_unwrap(level, a) if isinstance(a, _Tensor) else a, aux)
    finally:
        _C._level_pop(level)
    return unflatten(structure, grads), values, aux


def _sum_of_grads(level, outputs, weights, inputs):
    total = None
    for i, (output, weight) in enumerate(zip(outputs, weights)):
        if not (output.is_floating_point() or output.is_complex()):
            continue
        part = _C._grad_of(level, output, weight, inputs, i < len(outputs) - 1)
        if total is not None:  # the sum is the level's, as all that is computed in it
            part = [_C._grad_unwrap(level, a + b) for a, b in zip(total, part)]
        total = part
    return [_C.zeros_like(_C._grad_unwrap(level, x)) for x in inputs] if total is None else total


def grad_and_value(func, argnums=0, has_aux=False):
    """A function that returns ``(gradient, value)`` of ``func``, or ``(gradient, (value, aux))``.

    Parameters are those of :func:`grad`.

    >>> import spool
    >>> spool.func.grad_and_value(lambda x: (x * x).sum())(spool.tensor([1.0, 3.0]))
    (tensor([2., 6.]), tensor(10.))
    """

    @_transform(func)
    def wrapper(*args, **kwargs):
        tree, put = _selected(args, argnums, "grad")
        grads, value, aux = _grad_run(
            lambda t: func(*put(t), **kwargs), tree, None, has_aux, "grad"
        )
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

    @_transform(func)
    def wrapper(*args, **kwargs):
        tree, put = _selected(args, argnums, "grad")
        grads, _, aux = _grad_run(lambda t: func(*put(t), **kwargs), tree, None, has_aux, "grad")
        return (grads, aux) if has_aux else grads

    return wrapper


def _check_cotangents(given, outputs, structure):
    leaves, got = flatten(given)
    _tensors(leaves, "vjp", "cotangents")
    if got != structure or any(c.shape != o.shape for c, o in zip(leaves, outputs)):
        shapes = [tuple(o.shape) for o in outputs]
        raise _C.ShapeError(
            f"vjp: cotangents must have the results' structure and shapes {shapes}, not "
            f"{[tuple(c.shape) for c in leaves]}"
        )
    return leaves


def _pull_back(func, primals):
    def pull(*cotangents):
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        return _grad_run(
            lambda t: func(*t),
            primals,
            lambda outs, s: _check_cotangents(given, outs, s),
            False,
            "vjp",
        )[0]

    return pull


@_C._boundary
def vjp(func, *primals, has_aux=False):
    """``func(*primals)`` and the function that takes cotangents of the result to those of the primals.

    Returns
    -------
    (output, vjp_fn) or (output, vjp_fn, aux)
        ``vjp_fn(cotangents)`` returns a tuple, one entry a primal. It runs ``func`` again, which must therefore be a pure
        function.

    >>> import spool
    >>> output, pull = spool.func.vjp(lambda x: x * x, spool.tensor([1.0, 3.0]))
    >>> pull(spool.tensor([1.0, 10.0]))
    (tensor([ 2., 60.]),)
    """
    _floating(flatten(primals)[0], "vjp", "primals")
    output, aux = _split_aux(func(*primals), has_aux, "vjp")
    pure = (lambda *p: func(*p)[0]) if has_aux else func
    pull = _C._boundary(_pull_back(pure, primals))
    return (output, pull, aux) if has_aux else (output, pull)


# ---- forward mode ----------------------------------------------------------------------------------------------------------


def _jvp_run(func, primals, tangents, has_aux):
    leaves, structure = flatten(primals)
    along, along_structure = flatten(tangents)
    _floating(leaves, "jvp", "primals")
    _tensors(along, "jvp", "tangents")
    if along_structure != structure:
        raise ValueError("jvp: tangents must have the structure of primals")
    for p, t in zip(leaves, along):
        if p.shape != t.shape:
            raise _C.ShapeError(
                f"jvp: a tangent of shape {tuple(t.shape)} for a primal of shape {tuple(p.shape)}"
            )
    level = _C._level_push("jvp")
    try:
        duals = [_C._dual(level, p, t) for p, t in zip(leaves, along)]
        output, aux = _split_aux(func(*unflatten(structure, duals)), has_aux, "jvp")
        outputs, out_structure = flatten(output)
        _tensors(outputs, "jvp", "results")
        pairs = [_C._undual(level, o) for o in outputs]
        aux = tree_map(lambda a: _C._undual(level, a)[0] if isinstance(a, _Tensor) else a, aux)
    finally:
        _C._level_pop(level)
    return (
        unflatten(out_structure, [p[0] for p in pairs]),
        unflatten(out_structure, [p[1] for p in pairs]),
        aux,
    )


@_C._boundary
def jvp(func, primals, tangents, *, has_aux=False):
    """``func(*primals)`` and its derivative along ``tangents``: ``(output, tangent)`` or ``(output, tangent, aux)``.

    Parameters
    ----------
    primals, tangents : tuple
        Trees of floating point tensors, of equal structure and shapes.

    >>> import spool
    >>> spool.func.jvp(lambda x: x * x, (spool.tensor([1.0, 3.0]),), (spool.tensor([1.0, 10.0]),))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise TypeError("jvp: primals and tangents must be tuples, one entry an argument")
    output, tangent, aux = _jvp_run(func, primals, tangents, has_aux)
    return (output, tangent, aux) if has_aux else (output, tangent)


# ---- vmap ------------------------------------------------------------------------------------------------------------------


def _batch_size(leaves, dims):
    sizes = {}
    for leaf, dim in zip(leaves, dims):
        if dim is None:
            continue
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise TypeError(f"vmap: in_dims must hold ints and None, not {type(dim).__name__}")
        if not isinstance(leaf, _Tensor):
            raise TypeError(
                f"vmap: in_dims maps over an argument of type {type(leaf).__name__}; pass None for it"
            )
        if not -leaf.ndim <= dim < leaf.ndim:
            raise IndexError(f"vmap: in_dims has {dim} for a tensor of shape {tuple(leaf.shape)}")
        sizes[leaf.shape[dim]] = tuple(leaf.shape)
    if not sizes:
        raise ValueError("vmap: in_dims maps over no argument")
    if len(sizes) > 1:
        raise _C.ShapeError(f"vmap: the mapped dimensions differ in size: {sorted(sizes)}")
    return next(iter(sizes))


def _unwrap_mapped(level, value, dim):
    if not isinstance(value, _Tensor):
        raise TypeError(
            f"vmap: results must be Tensors or trees of them, found {type(value).__name__}"
        )
    if dim is None:
        raise ValueError("vmap: out_dims has None; every result gets the mapped dimension")
    return _C._vmap_unwrap(level, value, dim)


def vmap(func, in_dims=0, out_dims=0, randomness="error"):
    """The function that maps ``func`` over a dimension of its arguments, as one batched computation.

    Parameters
    ----------
    func : callable
        Written for one example.
    in_dims : int, None, or a tuple of these and of trees
        The dimension of each argument to map over; None: the same for every example. Keyword arguments are mapped over
        dimension 0.
    out_dims : int or tree of ints
        Where the mapped dimension goes in each result.
    randomness : {'error', 'different', 'same'}
        What random numbers do: raise, differ from example to example, or agree.

    >>> import spool
    >>> dot = lambda a, b: (a * b).sum()
    >>> spool.func.vmap(dot, in_dims=(0, None))(spool.tensor([[1.0, 2.0], [3.0, 4.0]]), spool.tensor([1.0, 10.0]))
    tensor([21., 43.])
    """

    @_transform(func)
    def wrapper(*args, **kwargs):
        leaves, structure = flatten((args, kwargs))
        dims = broadcast_prefix(in_dims, args, "vmap: in_dims") + [0] * len(flatten(kwargs)[0])
        level = _C._level_push_vmap(_batch_size(leaves, dims), randomness)
        try:
            mapped = [
                x if dim is None else _C._vmap_wrap(level, x, dim) for x, dim in zip(leaves, dims)
            ]
            one_args, one_kwargs = unflatten(structure, mapped)
            output = func(*one_args, **one_kwargs)
            outputs, out_structure = flatten(output)
            places = broadcast_prefix(out_dims, output, "vmap: out_dims")
            results = [_unwrap_mapped(level, o, dim) for o, dim in zip(outputs, places)]
        finally:
            _C._level_pop(level)
        return unflatten(out_structure, results)

    return wrapper


# ---- Jacobians -------------------------------------------------------------------------------------------------------------


def _basis(x):
    """The unit tensors of x's shape, along a new first dimension."""
    count = x.numel()
    places = _C.arange(count)
    return (places.unsqueeze(1) == places).to(x.dtype).reshape(count, *x.shape)


def _jacobian_rows(func, tree, outputs, structure, number):
    """The derivative of output leaf `number` by every leaf of tree: shape of the output, then shape of the leaf."""
    output = outputs[number]
    leaves = flatten(tree)[0]
    if output.numel() == 0:
        return [_C.zeros(*output.shape, *leaf.shape, dtype=leaf.dtype) for leaf in leaves]

    def row(cotangent):
        weights = [cotangent if i == number else _C.zeros_like(o) for i, o in enumerate(outputs)]
        return flatten(_grad_run(func, tree, lambda outs, s: weights, False, "jacrev")[0])[0]

    rows = vmap(row)(_basis(output))
    return [r.reshape(*output.shape, *leaf.shape) for r, leaf in zip(rows, leaves)]


def jacrev(func, argnums=0, has_aux=False):
    """The function that computes the Jacobian of ``func`` in reverse mode: best where there are fewer outputs than inputs.

    The Jacobian of a result of shape ``s`` by an argument of shape ``t`` has shape ``s + t``; for trees it is the result's
    tree of the argument's trees. Parameters are those of :func:`grad`.

    >>> import spool
    >>> spool.func.jacrev(lambda x: x * x)(spool.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """

    @_transform(func)
    def wrapper(*args, **kwargs):
        tree, put = _selected(args, argnums, "jacrev")
        output, aux = _split_aux(func(*args, **kwargs), has_aux, "jacrev")
        outputs, structure = flatten(output)
        _floating(outputs, "jacrev", "results")

        def pure(values):
            result = func(*put(values), **kwargs)
            return result[0] if has_aux else result

        tree_structure = flatten(tree)[1]
        rows = [_jacobian_rows(pure, tree, outputs, structure, i) for i in range(len(outputs))]
        result = unflatten(structure, [unflatten(tree_structure, r) for r in rows])
        return (result, aux) if has_aux else result

    return wrapper


def _jacobian_columns(func, leaves, structure, number):
    """The derivatives of every output leaf by input leaf `number`."""
    leaf = leaves[number]

    def column(tangent):
        along = [tangent if i == number else _C.zeros_like(x) for i, x in enumerate(leaves)]
        _, out, _ = _jvp_run(
            func, (unflatten(structure, leaves),), (unflatten(structure, along),), False
        )
        return flatten(out)[0]

    if leaf.numel() == 0:
        outputs = flatten(func(unflatten(structure, leaves)))[0]
        return [_C.zeros(*o.shape, *leaf.shape, dtype=o.dtype) for o in outputs]
    columns = vmap(column, out_dims=-1)(_basis(leaf))
    return [c.reshape(*c.shape[:-1], *leaf.shape) for c in columns]


def jacfwd(func, argnums=0, has_aux=False):
    """The function that computes the Jacobian of ``func`` in forward mode: best where there are fewer inputs than outputs.

    The result is that of :func:`jacrev`.

    >>> import spool
    >>> spool.func.jacfwd(lambda x: x * x)(spool.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """

    @_transform(func)
    def wrapper(*args, **kwargs):
        tree, put = _selected(args, argnums, "jacfwd")
        leaves, structure = flatten(tree)
        _floating(leaves, "jacfwd", "what is differentiated by")
        output, aux = _split_aux(func(*args, **kwargs), has_aux, "jacfwd")

        def pure(values):
            result = func(*put(values), **kwargs)
            return result[0] if has_aux else result

        out_structure = flatten(output)[1]
        columns = [_jacobian_columns(pure, leaves, structure, i) for i in range(len(leaves))]
        per_output = [unflatten(structure, blocks) for blocks in zip(*columns)]
        result = unflatten(out_structure, per_output)
        return (result, aux) if has_aux else result

    return wrapper


def hessian(func, argnums=0):
    """The function that computes the matrix of second derivatives of ``func``: ``jacfwd(jacrev(func))``.

    >>> import spool
    >>> spool.func.hessian(lambda x: (x * x * x).sum())(spool.tensor([1.0, 3.0]))
    tensor([[ 6.,  0.],
            [ 0., 18.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)
