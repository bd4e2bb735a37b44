"""``grad(..., is_grads_batched=True)``: the tape's backward under a vmap level."""

from .. import _C
from .._tree import flatten


def grad(
    outputs,
    inputs,
    grad_outputs=None,
    retain_graph=None,
    create_graph=False,
    allow_unused=None,
    is_grads_batched=True,
    materialize_grads=False,
):
    """What each row of ``grad_outputs`` gives, stacked. Parameters are those of ``spool.autograd.grad``."""
    from ..func import vmap

    if grad_outputs is None:
        raise ValueError("grad: is_grads_batched=True needs grad_outputs, whose rows it maps over")
    rows = (grad_outputs,) if isinstance(grad_outputs, _C.Tensor) else tuple(grad_outputs)
    given = [i for i, row in enumerate(rows) if row is not None]
    if not given:
        raise ValueError("grad: is_grads_batched=True needs at least one of grad_outputs")
    used = []

    def one(*weights):
        full = [None] * len(rows)
        for i, weight in zip(given, weights):
            full[i] = weight
        grads = _C.grad(
            outputs,
            inputs,
            full,
            retain_graph,
            create_graph,
            allow_unused,
            False,
            materialize_grads,
        )
        used[:] = [i for i, g in enumerate(grads) if g is not None]
        used.append(len(grads))
        return tuple(grads[i] for i in used[:-1])

    grads = flatten(vmap(one, randomness="different")(*[rows[i] for i in given]))[0]
    count = used.pop()
    result = [None] * count
    for i, g in zip(used, grads):
        result[i] = g
    return tuple(result)
