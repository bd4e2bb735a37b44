"""The recorded graph: its nodes, hooks on several tensors at once, and hooks on what the tape saves."""

import contextlib
import functools
import weakref
from typing import NamedTuple

from .. import _C
from .._C import Node

__all__ = [
    "GradientEdge",
    "Node",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "save_on_cpu",
    "saved_tensors_hooks",
]


class GradientEdge(NamedTuple):
    """Where a tensor's gradient arrives: an output of a node.

    It takes a tensor's place in ``outputs`` and ``inputs`` of :func:`spool.autograd.grad` and
    :func:`spool.autograd.backward`, and does not keep the tensor's values.
    """

    node: Node
    output_nr: int


@_C._boundary
def get_gradient_edge(tensor):
    """Where ``tensor``'s gradient arrives.

    Parameters
    ----------
    tensor : Tensor
        Must require grad.

    Returns
    -------
    GradientEdge

    Raises
    ------
    SpoolError
        The tensor does not require grad.

    Examples
    --------
    >>> import spool
    >>> x = spool.tensor([1.0, 2.0], requires_grad=True)
    >>> y = x * 3
    >>> edge = spool.autograd.graph.get_gradient_edge(y)
    >>> spool.autograd.grad((y * y).sum(), edge)
    (tensor([ 6., 12.]),)
    """
    return GradientEdge(*_C._gradient_edge(tensor))


@_C._boundary
def increment_version(tensor):
    """Count one more in-place write to ``tensor``, or to each of several: values that the tape saved of it become unusable.

    For memory that other code has written.

    Parameters
    ----------
    tensor : Tensor or sequence of Tensor
    """
    for t in (tensor,) if isinstance(tensor, _C.Tensor) else tensor:
        _C._increment_version(t)


# ---- what the tape saves ---------------------------------------------------------------------------------------------------


class saved_tensors_hooks:
    """Context manager: what ops save for their gradients is kept in a form of the user's.

    Inside the block, and in this thread, ``pack_hook`` is called with each value that a recorded op saves; what it returns is
    kept instead. When a backward, or ``node._saved_x``, needs the value, ``unpack_hook`` is called with that. Of nested blocks
    the innermost counts. Both run with grad mode off; gradients of gradients work, because the history of the value is kept
    beside it. A value that was packed is not checked for in-place writes.

    Parameters
    ----------
    pack_hook : callable
        From a Tensor, which it must not write to, to any object.
    unpack_hook : callable
        From such an object to a Tensor of the same shape and dtype.

    Raises
    ------
    ShapeError
        From the backward: ``unpack_hook`` returned another shape or dtype.
    SpoolError
        ``pack_hook`` wrote to its tensor, or such hooks are disabled.

    Examples
    --------
    >>> import spool
    >>> x = spool.tensor([1.0, 2.0], requires_grad=True)
    >>> with spool.autograd.graph.saved_tensors_hooks(lambda t: t.tolist(), spool.tensor):
    ...     y = (x * x).sum()
    >>> y.backward()
    >>> x.grad
    tensor([2., 4.])
    """

    def __init__(self, pack_hook, unpack_hook):
        self._pair = (pack_hook, unpack_hook)

    def __enter__(self):
        _C._pack_push(self._pair)

    def __exit__(self, *exception):
        _C._pack_pop()


class save_on_cpu(saved_tensors_hooks):
    """Context manager: what ops save is moved to the CPU's memory, and back to its device when it is needed.

    Parameters
    ----------
    pin_memory : bool
        Accepted, and without effect: a CPU's memory is not pinned for the CPU.
    device_type : str
        Accepted, and without effect.

    Examples
    --------
    >>> import spool
    >>> x = spool.tensor([2.0], requires_grad=True)
    >>> with spool.autograd.graph.save_on_cpu():
    ...     y = x * x
    >>> y.backward()
    >>> x.grad
    tensor([4.])
    """

    def __init__(self, pin_memory=False, device_type="cuda"):
        super().__init__(lambda t: (t.device, t.to("cpu")), lambda packed: packed[1].to(packed[0]))


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message):
    """Context manager: entering :class:`saved_tensors_hooks` in this thread raises SpoolError with ``error_message``.

    Raises
    ------
    SpoolError
        Such hooks are set already.

    Examples
    --------
    >>> import spool
    >>> with spool.autograd.graph.disable_saved_tensors_hooks("not here"):
    ...     try:
    ...         with spool.autograd.graph.save_on_cpu():
    ...             pass
    ...     except spool.SpoolError as error:
    ...         print(error)
    not here
    """
    was = _C._pack_disable(error_message)
    try:
        yield
    finally:
        _C._pack_restore(was)


# ---- hooks on several tensors ----------------------------------------------------------------------------------------------


class _Handles:
    """What takes several hooks off again."""

    def __init__(self, handles):
        self._handles = tuple(handles)

    def remove(self):
        """Take the hooks off; again does nothing."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()


def _weak_edge(tensor):
    """A function that yields the node where tensor's gradient arrives, or None once that is gone. A hook that kept the node
    itself would keep itself."""
    node, _ = _C._gradient_edge(tensor)
    if node.variable is None:
        return weakref.ref(node)
    leaf = weakref.ref(node.variable)

    def find():
        variable = leaf()
        return None if variable is None else _C._gradient_edge(variable)[0]

    return find


class _All:
    """Collects the gradients of several tensors, for each backward."""

    def __init__(self, tensors, function):
        self.function = function
        self.edges = [_weak_edge(t) if t.requires_grad else None for t in tensors]
        self.runs = {}

    def begin(self, run):
        found = [(i, edge()) for i, edge in enumerate(self.edges) if edge is not None]
        alive = [(i, node) for i, node in found if node is not None]
        reached = _C._backward_reaches(tuple(node for _, node in alive))
        waits = {i for (i, _), comes in zip(alive, reached) if comes}
        self.runs[run] = ([None] * len(self.edges), waits)
        _C._backward_at_end(lambda: self.finish(run))

    def came(self, i, grad):
        run = _C._backward_id()
        if run not in self.runs:
            self.begin(run)
        grads, waits = self.runs[run]
        grads[i] = grad
        waits.discard(i)
        if not waits:
            self.finish(run)

    def finish(self, run):
        """Also at the end of a run: what it would have reached may have had no gradient."""
        grads, _ = self.runs.pop(run, (None, None))
        if grads is not None:
            self.function(grads)


def _once_each_run(function):
    """function, but for all calls after the first one in a backward."""
    last = [0]

    @functools.wraps(function)
    def hook(grad):
        run = _C._backward_id()
        if run == last[0]:
            return
        last[0] = run
        function(grad)

    return _C._boundary(hook)


@_C._boundary
def register_multi_grad_hook(tensors, fn, *, mode="all"):
    """Call ``fn`` when a backward has computed the gradients of several tensors.

    Parameters
    ----------
    tensors : sequence of Tensor
        Those that do not require grad are left alone.
    fn : callable
        With ``mode='all'``: ``fn(grads)``, when the last of those that the backward reaches has its gradient; None stands for
        those that got none. With ``mode='any'``: ``fn(grad)``, with the first gradient of each backward.
    mode : {'all', 'any'}
        When to call.

    Returns
    -------
    handle
        With ``remove()``; also a context manager.

    Raises
    ------
    ValueError
        Another ``mode``.

    Examples
    --------
    >>> import spool
    >>> a, b = (spool.tensor([float(k)], requires_grad=True) for k in (2, 3))
    >>> handle = spool.autograd.graph.register_multi_grad_hook([a, b], print)
    >>> (a * b).backward()
    [tensor([3.]), tensor([2.])]
    """
    if mode not in ("all", "any"):
        raise ValueError(f"register_multi_grad_hook: mode must be 'all' or 'any', not {mode!r}")
    tensors = tuple(tensors)
    if mode == "any":
        hook = _once_each_run(fn)
        return _Handles([t.register_hook(hook) for t in tensors if t.requires_grad])
    every = _All(tensors, fn)
    return _Handles(
        [
            t.register_hook(_C._boundary(functools.partial(every.came, i)))
            for i, t in enumerate(tensors)
            if t.requires_grad
        ]
    )
