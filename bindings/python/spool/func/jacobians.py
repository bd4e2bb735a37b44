"""All derivatives of a function: ``jacrev``, ``jacfwd``, ``hessian``, ``laplacian``."""

from .. import _C
from .._tree import flatten, unflatten
from .arguments import check_floating, selected, transformed
from .batching import check_chunk_size, map_rows
from .forward import push_forward
from .reverse import Recording

__all__ = ["basis", "hessian", "jacfwd", "jacrev"]


def basis(x):
    """The unit tensors of x's shape, along a new first dimension."""
    count = x.numel()
    rows = _C.eye(count, dtype=x.dtype)
    return rows if x.ndim == 1 else rows.reshape([count, *x.shape])


# ---- reverse mode ----------------------------------------------------------------------------------------------------------


def _in_chunks(pull, units, size):
    """pull's results for all units, `size` of them at a time."""
    if size is None or size >= len(units):
        return map_rows(pull, units)
    parts = [map_rows(pull, part) for part in units.split(size)]
    return [_C.cat(list(of)) for of in zip(*parts)]


def _rows(run, number, chunk_size):
    """The derivatives of output leaf `number` by every input leaf: shape of the output, then shape of the input."""
    output = run.values[number]

    def pull(cotangent):
        given = [None] * len(run.outputs)
        given[number] = cotangent
        return run.pull(given)

    if output.numel() == 0:
        return [_C.zeros([*output.shape, *x.shape], dtype=x.dtype) for x in run.inputs]
    if run.grads is not None:
        rows = run.grads
    elif output.numel() == 1:
        rows = pull(_C.ones_like(output))
    else:
        rows = _in_chunks(pull, basis(output), chunk_size)
    if output.ndim == (0 if output.numel() == 1 else 1):
        return list(rows)
    return [r.reshape([*output.shape, *x.shape]) for r, x in zip(rows, run.inputs)]


def jacrev(func, argnums=0, *, has_aux=False, chunk_size=None):
    """The function that computes the Jacobian of ``func`` in reverse mode: best where there are fewer outputs than inputs.

    ``func`` runs once; the unit cotangents are pulled back through its tape as one batch.

    Parameters
    ----------
    func : callable
    argnums : int or tuple of int
        The positional arguments (trees of floating point tensors) to differentiate by.
    has_aux : bool
        ``func`` returns ``(output, aux)``; the result is then ``(jacobian, aux)``.
    chunk_size : int or None
        How many elements of the result are differentiated at a time; None: all.

    Returns
    -------
    callable
        The Jacobian of a result of shape ``s`` by an argument of shape ``t`` has shape ``s + t``; for trees it is the result's
        tree of the argument's trees.

    >>> import spool
    >>> spool.func.jacrev(lambda x: x * x)(spool.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """

    check_chunk_size("jacrev", chunk_size)

    @transformed(func)
    def wrapper(*args, **kwargs):
        tree, put = selected(args, argnums, "jacrev")
        run = Recording(lambda t: func(*put(t), **kwargs), tree, has_aux, "jacrev", True)
        check_floating(run.outputs, "jacrev", "results")
        rows = [
            unflatten(run.structure, _rows(run, i, chunk_size)) for i in range(len(run.outputs))
        ]
        result = unflatten(run.out_structure, rows)
        return (result, run.aux) if has_aux else result

    return wrapper


# ---- forward mode ----------------------------------------------------------------------------------------------------------


class _Columns:
    """The derivatives of a function's output leaves by its input leaves, one input at a time."""

    def __init__(self, func, leaves, structure, has_aux, randomness):
        self.func, self.leaves, self.structure = func, leaves, structure
        self.has_aux, self.randomness = has_aux, randomness
        self.out_structure = self.aux = None

    def _push(self, along):
        values, moved, self.out_structure, aux = push_forward(
            self.func, self.leaves, self.structure, along, self.has_aux, "jacfwd"
        )
        check_floating(values, "jacfwd", "results")
        return moved, aux

    def by(self, number):
        """One block an output leaf: shape of the output, then shape of the input."""
        leaf = self.leaves[number]
        along = [None] * len(self.leaves)

        def column(tangent):
            along[number] = tangent
            moved, aux = self._push(along)
            self.aux = aux
            return moved

        if leaf.numel() == 0:
            moved, self.aux = self._push(along)
            return [_C.zeros([*m.shape, *leaf.shape], dtype=m.dtype) for m in moved]
        if leaf.numel() == 1:
            columns = [m.unsqueeze(-1) for m in column(_C.ones_like(leaf))]
        else:
            columns = map_rows(column, basis(leaf), -1, self.randomness)
        if leaf.ndim == 1:
            return columns
        return [c.reshape([*c.shape[:-1], *leaf.shape]) for c in columns]


def jacfwd(func, argnums=0, has_aux=False, *, randomness="error"):
    """The function that computes the Jacobian of ``func`` in forward mode: best where there are fewer inputs than outputs.

    The result is that of :func:`jacrev`. ``func`` runs once for each tensor that is differentiated by, with all unit tangents as
    one batch.

    Parameters
    ----------
    func, argnums, has_aux
        As for :func:`jacrev`.
    randomness : {'error', 'different', 'same'}
        What random numbers in ``func`` do from one tangent to the next, as for :func:`vmap`.

    >>> import spool
    >>> spool.func.jacfwd(lambda x: x * x)(spool.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """

    @transformed(func)
    def wrapper(*args, **kwargs):
        tree, put = selected(args, argnums, "jacfwd")
        leaves, structure = flatten((tree,))
        check_floating(leaves, "jacfwd", "what is differentiated by")
        run = _Columns(lambda t: func(*put(t), **kwargs), leaves, structure, has_aux, randomness)
        blocks = [run.by(i) for i in range(len(leaves))]
        per_output = [unflatten(structure, list(of))[0] for of in zip(*blocks)]
        result = unflatten(run.out_structure, per_output)
        return (result, run.aux) if has_aux else result

    return wrapper


def hessian(func, argnums=0):
    """The function that computes the matrix of second derivatives of ``func``: ``jacfwd(jacrev(func))``.

    Parameters
    ----------
    func : callable
    argnums : int or tuple of int
        As for :func:`jacrev`.

    Returns
    -------
    callable
        The second derivatives of a result of shape ``s`` by arguments of shapes ``t`` and ``u`` have shape ``s + t + u``.

    >>> import spool
    >>> spool.func.hessian(lambda x: (x * x * x).sum())(spool.tensor([1.0, 3.0]))
    tensor([[ 6.,  0.],
            [ 0., 18.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)
