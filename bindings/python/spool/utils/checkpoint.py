"""Checkpointing: a part of a program keeps its arguments in place of what its gradient needs, and runs again for that.

The part runs inside ``saved_tensors_hooks``, and what its ops save becomes a numbered place. When a backward first asks for
the value of a place, the part runs once more, with the same arguments and random numbers, and what its ops save then, in the
same order, are the values. Each is given out once; so a second backward makes the part run a third time, and values are in
memory only while a backward is at this part. Histories are not touched: they are those of the first run.

Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost, 2016.
"""

import contextlib
import threading
import weakref

from .. import _C
from .._tree import flatten, unflatten
from ..autograd.graph import saved_tensors_hooks

__all__ = [
    "CheckpointError",
    "checkpoint",
    "checkpoint_sequential",
    "noop_context_fn",
    "set_checkpoint_early_stop",
]


class CheckpointError(_C.SpoolError):
    """The function did not do the same when it ran again."""


class _Done(BaseException):
    """Ends a run early: everything that is needed has been computed. No user's `except Exception` is to see it."""


class _State(threading.local):
    def __init__(self):
        self.parts = []  # the parts that run in this thread, the innermost last
        self.early_stop = None  # what set_checkpoint_early_stop() says


_state = _State()


class _Place:
    """What the tape holds of a saved value."""

    __slots__ = ("part", "value", "__weakref__")

    def __init__(self, part):
        self.part, self.value = part, None


class _Run:
    """One run of a part that gives places their values, for what its ops and the parts inside it save."""

    def __init__(self, part):
        self.part, self.given = part, []
        self.count = 0
        alive = [i for i, place in enumerate(part.places) if place() is not None]
        self.last = alive[-1] if alive else -1

    def pack(self, value):
        part, number = self.part, self.count
        self.count += 1
        if number >= len(part.described):
            if part.check:
                raise CheckpointError(
                    f"checkpoint: the function saved {len(part.described)} tensors for its gradient, and more when it ran "
                    "again for them; it must do the same each time"
                )
            return value
        if part.check and _description(value) != part.described[number]:
            raise CheckpointError(
                f"checkpoint: tensor {number} that the function saved for its gradient was {_text(part.described[number])}, "
                f"and {_text(_description(value))} when it ran again; it must do the same each time, and what it uses must "
                "not be written to in between"
            )
        place = part.places[number]()
        if place is not None:
            place.value = value
            self.given.append((number, value, value._version))
        if number == self.last and (part.early_stop or not part.complete):
            raise _Done
        return value

    def finish(self, done):
        part = self.part
        if not done and self.count < len(part.described):
            raise CheckpointError(
                f"checkpoint: the function saved {len(part.described)} tensors for its gradient, but {self.count} when it "
                "ran again for them; it must do the same each time"
            )
        for number, value, version in self.given:
            if value._version != version:
                raise CheckpointError(
                    f"checkpoint: tensor {number}, {_text(_description(value))}, was modified by an in-place operation after "
                    "the function had saved it for its gradient; write to a clone() instead, or out of place"
                )


class _Part:
    """One call of checkpoint(): how to run it again, and the places of what it saved."""

    def __init__(self, function, args, kwargs, preserve_rng_state, contexts, check, early_stop):
        self.function, self.check, self.early_stop = function, check, early_stop
        self.contexts = contexts
        self.random = _C.get_rng_state() if preserve_rng_state else None
        self.autocast = _C._autocast_now()
        self.complete = False
        self.described, self.places = [], []
        leaves, self.structure = flatten((args, kwargs))
        self.around = _state.parts[-1] if _state.parts else None
        self.arguments = [self._kept(leaf) for leaf in leaves]

    # Arguments: of a part inside another, they are for that one to keep or to compute again.

    def _kept(self, leaf):
        if not isinstance(leaf, _C.Tensor):
            return leaf, None
        kept = _without_history(leaf)
        return self.around.pack(kept) if self.around else kept, (leaf.requires_grad, leaf._version)

    def _argument(self, kept, how):
        if how is None:
            return kept
        requires_grad, version = how
        tensor = _unpack(kept) if isinstance(kept, _Place) else kept
        if tensor._version != version and self.check:
            raise CheckpointError(
                f"checkpoint: an argument, {_text(_description(tensor))}, was modified by an in-place operation after the "
                "function was called with it; pass a clone(), or write out of place"
            )
        return tensor if _C._of_level(tensor) else tensor.detach().requires_grad_(requires_grad)

    # The first run.

    def pack(self, value):
        place = _Place(self)
        self.described.append(_description(value))
        self.places.append(weakref.ref(place))
        return place

    def first_run(self, args, kwargs):
        with self.contexts[0], saved_tensors_hooks(self.pack, _unpack), _inside(self):
            result = self.function(*args, **kwargs)
        self.complete = True
        return result

    # Again.

    def run_again(self):
        args, kwargs = unflatten(
            self.structure, [self._argument(kept, how) for kept, how in self.arguments]
        )
        run = _Run(self)
        done = False
        with _random_numbers(self.random), _C.enable_grad(), _autocast(self.autocast):
            with self.contexts[1], saved_tensors_hooks(run.pack, _itself), _inside(run):
                try:
                    self.function(*args, **kwargs)
                except _Done:
                    done = True
        run.finish(done)


def _without_history(tensor):
    """What a run again takes. A transform's tensor as it is: detached, it would be a constant to all transforms below."""
    return tensor if _C._of_level(tensor) else tensor.detach()


def _itself(value):
    return value


def _unpack(place):
    if place.value is None:
        place.part.run_again()
    value, place.value = place.value, None
    if value is None:
        raise CheckpointError(
            "checkpoint: the function did not save as many tensors when it ran again; it must do the same each time"
        )
    return value


def _description(tensor):
    """What has to be the same again: a version tells of writes in between."""
    return tuple(tensor.shape), tensor.dtype, tensor._version


def _text(description):
    shape, dtype, version = description
    return f"{dtype} of shape {shape} (version {version})"


@contextlib.contextmanager
def _inside(part):
    _state.parts.append(part)
    try:
        yield
    finally:
        _state.parts.pop()


@contextlib.contextmanager
def _random_numbers(state):
    """Random numbers from that state on, and afterwards from where they were."""
    if state is None:
        yield
        return
    before = _C.get_rng_state()
    _C.set_rng_state(state)
    try:
        yield
    finally:
        _C.set_rng_state(before)


def _autocast(dtype):
    from ..amp import autocast

    if dtype is None:
        return autocast("cpu", enabled=False) if _C._autocast_now() else contextlib.nullcontext()
    return autocast("cpu", dtype=dtype)


def noop_context_fn():
    """The default of ``context_fn``: two contexts that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


@contextlib.contextmanager
def set_checkpoint_early_stop(enable):
    """Context manager: whether parts that are checkpointed inside, in this thread, stop early when they run again.

    Parameters
    ----------
    enable : bool
        Takes the place of ``early_stop`` of :func:`checkpoint`.
    """
    before, _state.early_stop = _state.early_stop, bool(enable)
    try:
        yield
    finally:
        _state.early_stop = before


@_C._boundary
def checkpoint(
    function,
    *args,
    use_reentrant=False,
    preserve_rng_state=True,
    context_fn=noop_context_fn,
    determinism_check="default",
    early_stop=True,
    **kwargs,
):
    """``function(*args, **kwargs)``, without keeping what its gradient needs: it runs again for that, in the backward.

    Parameters
    ----------
    function : callable
        Must do the same when it is called again: same ops, same values. Tensors that it uses may be arguments, in trees, too,
        or come by a closure.
    use_reentrant : bool
        Accepted, and without effect: there is one way, which does what both of PyTorch's can.
    preserve_rng_state : bool
        Random numbers are the same in both runs, and go on as if there had been one.
    context_fn : callable
        Returns two context managers, for the first run and for others.
    determinism_check : {'default', 'none'}
        Whether number, shapes, dtypes and versions of what is saved are compared. Not values.
    early_stop : bool
        A run in the backward ends when it has what is needed.

    Returns
    -------
    What ``function`` returns.

    Raises
    ------
    CheckpointError
        From the backward: the function did not do the same, or something was written to that it needs.
    ValueError
        ``determinism_check`` is neither of these.

    Examples
    --------
    >>> import spool
    >>> from spool.utils.checkpoint import checkpoint
    >>> x = spool.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: (x * x).tanh() * x, x).sum().backward()
    >>> x.grad
    tensor([1.6015, 1.0101])
    """
    if determinism_check not in ("default", "none"):
        raise ValueError(
            f"checkpoint: determinism_check must be 'default' or 'none', not {determinism_check!r}"
        )
    contexts = context_fn()
    if not _C.is_grad_enabled():
        with contexts[0]:
            return function(*args, **kwargs)
    if _state.early_stop is not None:
        early_stop = _state.early_stop
    check = determinism_check == "default"
    part = _Part(function, args, kwargs, preserve_rng_state, contexts, check, early_stop)
    return part.first_run(args, kwargs)


@_C._boundary
def checkpoint_sequential(functions, segments, input, use_reentrant=False, **kwargs):
    """Modules or functions one after the other, in that many segments, of which all but the last are checkpointed.

    Parameters
    ----------
    functions : Sequential, or sequence of callable
        Each takes what the one before returned.
    segments : int
    input : Tensor
    use_reentrant : bool
        As for :func:`checkpoint`.
    preserve_rng_state : bool
        As for :func:`checkpoint`.

    Returns
    -------
    What the last function returns.

    Examples
    --------
    >>> import spool
    >>> from spool.utils.checkpoint import checkpoint_sequential
    >>> layers = [spool.tanh, spool.exp, spool.sin, spool.cos]
    >>> x = spool.tensor([1.0], requires_grad=True)
    >>> checkpoint_sequential(layers, 2, x).backward()
    >>> x.grad
    tensor([0.3624])
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise TypeError(f"checkpoint_sequential: unexpected arguments {', '.join(kwargs)}")
    functions = list(functions.children() if hasattr(functions, "children") else functions)
    if not 1 <= segments <= max(1, len(functions)):
        raise ValueError(
            f"checkpoint_sequential: {segments} segments of {len(functions)} functions; expected 1 to {max(1, len(functions))}"
        )
    size = len(functions) // segments

    def run(part):
        def segment(x):
            for function in part:
                x = function(x)
            return x

        return segment

    for start in range(0, size * (segments - 1), size):
        segment = run(functions[start : start + size])
        input = checkpoint(segment, input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return run(functions[size * (segments - 1) :])(input)
