"""``vmap``: a function of one example, for a batch of them."""

from .. import _C
from .._tree import broadcast_prefix, flatten, unflatten
from .arguments import transformed

__all__ = ["check_chunk_size", "map_rows", "vmap"]


def _run(func, leaves, dims, structure, out_dims, randomness):
    """Results of one batch: leaves, where the mapped dimension is in each, structure."""
    level, mapped = _C._vmap_enter(leaves, dims, randomness)
    try:
        args, kwargs = unflatten(structure, mapped)
        output = func(*args, **kwargs)
        outputs, out_structure = flatten(output)
        places = broadcast_prefix(out_dims, output, "vmap: out_dims")
        results = _C._vmap_unwrap_all(level, outputs, places)
    finally:
        _C._level_pop(level)
    return results, places, out_structure


def check_chunk_size(op, size):
    if size is not None and not (isinstance(size, int) and size > 0):
        raise ValueError(f"{op}: chunk_size must be None or an int above 0, not {size!r}")


def map_rows(func, rows, out_dim=0, randomness="error"):
    """func's results, a sequence of tensors, for the rows of one tensor; the mapped dimension goes to out_dim."""
    level, mapped = _C._vmap_enter([rows], [0], randomness)
    try:
        results = func(*mapped)
        return _C._vmap_unwrap_all(level, list(results), [out_dim] * len(results))
    finally:
        _C._level_pop(level)


def _run_chunks(func, leaves, dims, structure, out_dims, size, randomness, chunk_size):
    parts = []
    for start in range(0, max(size, 1), chunk_size):
        count = min(chunk_size, size - start)
        some = [x if dim is None else x.narrow(dim, start, count) for x, dim in zip(leaves, dims)]
        parts.append(_run(func, some, dims, structure, out_dims, randomness))
    _, places, out_structure = parts[0]
    columns = zip(*(part[0] for part in parts))
    results = [
        column[0] if place is None else _C.cat(list(column), place)
        for column, place in zip(columns, places)
    ]
    return results, out_structure


def vmap(func, in_dims=0, out_dims=0, randomness="error", *, chunk_size=None):
    """The function that maps ``func`` over a dimension of its arguments, as one batched computation.

    Parameters
    ----------
    func : callable
        Written for one example.
    in_dims : int, None, or a tuple of these and of trees
        The dimension of each argument to map over; None: the same for every example. Keyword arguments are mapped over
        dimension 0.
    out_dims : int, None, or tree of these
        Where the mapped dimension goes in each result; None: nowhere, for a result that is the same for every example.
    randomness : {'error', 'different', 'same'}
        What random numbers do: raise, differ from example to example, or agree.
    chunk_size : int or None
        How many examples are computed at a time; None: all. Less memory, more calls of ``func``.

    Raises
    ------
    ShapeError
        The mapped dimensions differ in size.
    IndexError
        A tensor has no such dimension.
    ValueError
        Nothing is mapped over, or ``out_dims`` is None for a result that differs between examples.

    >>> import spool
    >>> dot = lambda a, b: (a * b).sum()
    >>> spool.func.vmap(dot, in_dims=(0, None))(spool.tensor([[1.0, 2.0], [3.0, 4.0]]), spool.tensor([1.0, 10.0]))
    tensor([21., 43.])
    """
    check_chunk_size("vmap", chunk_size)

    @transformed(func)
    def wrapper(*args, **kwargs):
        leaves, structure = flatten((args, kwargs))
        dims = broadcast_prefix(in_dims, args, "vmap: in_dims")
        dims += [0] * (len(leaves) - len(dims))
        size = 0 if chunk_size is None else _C._vmap_size(leaves, dims)
        if chunk_size is None or chunk_size >= size:
            results, _, out_structure = _run(func, leaves, dims, structure, out_dims, randomness)
        else:
            results, out_structure = _run_chunks(
                func, leaves, dims, structure, out_dims, size, randomness, chunk_size
            )
        return unflatten(out_structure, results)

    return wrapper
