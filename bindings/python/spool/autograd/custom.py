"""A backward of one's own for a function or a module, by one decorator."""

import contextlib
import functools

from .. import _C
from .._tree import flatten, unflatten
from .function import Function

__all__ = ["custom_backward"]

_Tensor = _C.Tensor


# ---- trees with tensors in them ------------------------------------------------------------------------------------------


class _Tree:
    """The structure of a value with tensors in it, and what else is in it; not the tensors."""

    def __init__(self, value):
        leaves, self.structure = flatten(value)
        self.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, _Tensor)]
        self.others = [None if isinstance(leaf, _Tensor) else leaf for leaf in leaves]

    def filled(self, tensors, others=True):
        """The value with these tensors; without the others: None in their places."""
        leaves = list(self.others) if others else [None] * len(self.others)
        for place, tensor in zip(self.places, tensors):
            leaves[place] = tensor
        return unflatten(self.structure, leaves)


def _matched(value, gradient, found):
    """Appends a gradient, or None, for every tensor in value; false if the structures differ."""
    leaves = flatten(value)[0]
    if gradient is None:
        found.extend(None for leaf in leaves if isinstance(leaf, _Tensor))
        return True
    if len(leaves) == 1 and leaves[0] is value:
        if isinstance(value, _Tensor):
            found.append(gradient)
        return isinstance(value, _Tensor) and isinstance(gradient, _Tensor)
    if isinstance(value, dict):
        same = isinstance(gradient, dict) and gradient.keys() == value.keys()
        return same and all(_matched(value[key], gradient[key], found) for key in value)
    same = isinstance(gradient, (tuple, list)) and len(gradient) == len(value)
    return same and all(_matched(v, g, found) for v, g in zip(value, gradient))


def _gradients(name, inputs, gradients):
    """One for every tensor in inputs."""
    found = []
    if len(inputs) == 1 and not (isinstance(gradients, tuple) and len(gradients) == 1):
        gradients = (gradients,)
    if not isinstance(gradients, tuple) or len(gradients) != len(inputs):
        count = len(gradients) if isinstance(gradients, tuple) else 1
        raise RuntimeError(
            f"{name}: backward returned {count} gradients, expected {len(inputs)}: one for each argument"
        )
    for i, (value, gradient) in enumerate(zip(inputs, gradients)):
        if not _matched(value, gradient, found):
            raise RuntimeError(
                f"{name}: backward returned a {type(gradient).__name__} as the gradient of argument {i}, expected None or "
                "the structure of that argument, with Tensors"
            )
    return found


# ---- one call --------------------------------------------------------------------------------------------------------------


class _Call:
    """A call of a function: how its tensors stand in arguments and results."""

    parameters = ()

    def __init__(self, name, function, backward, args, kwargs):
        self.name, self.function, self.backward, self.kwargs = name, function, backward, kwargs
        self.inputs, self.output = _Tree(args), None

    def given(self, tensors):
        """The arguments, and a context in which the function may run."""
        return self.inputs.filled(tensors), contextlib.nullcontext()

    def compute(self, tensors):
        args, place = self.given(tensors)
        with place:
            value = self.function(*args, **self.kwargs)
        self.output = _Tree(value)
        return tuple(leaf for leaf in flatten(value)[0] if isinstance(leaf, _Tensor))

    def pull(self, tensors, outputs, gradients, wanted):
        """The gradients of tensors, of those of outputs."""
        args, place = self.given(tensors)
        with place:
            result = self.pulled(
                args,
                self.output.filled(outputs),
                self.output.filled(gradients, others=False),
                wanted,
            )
        return result

    def pulled(self, args, output, gradient, wanted):
        return _gradients(self.name, args, self.backward(args, output, gradient))


class _ModuleCall(_Call):
    """The same of a module's forward: its parameters are further inputs."""

    def __init__(self, name, function, backward, module, args, kwargs):
        super().__init__(name, functools.partial(function, module), backward, args, kwargs)
        named = dict(module.named_parameters())
        self.module, self.names = module, list(named)
        self.parameters = list(named.values())

    @contextlib.contextmanager
    def with_parameters(self, tensors):
        """The module has these in place of its parameters, wherever it has them."""
        new = {id(p): t for p, t in zip(self.parameters, tensors) if p is not t}
        changed = []
        if new:
            for part in self.module.modules():
                table = part.__dict__["_parameters"]
                for key, value in table.items():
                    if id(value) in new:
                        changed.append((table, key, value))
        try:
            for table, key, value in changed:
                table[key] = new[id(value)]
            yield
        finally:
            for table, key, value in changed:
                table[key] = value

    def given(self, tensors):
        n = len(self.inputs.places)
        return self.inputs.filled(tensors[:n]), self.with_parameters(tensors[n:])

    def pulled(self, args, output, gradient, wanted):
        result = self.backward(self.module, args, output, gradient)
        wanted = wanted[len(self.inputs.places) :]
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        if not pair and any(wanted):
            raise RuntimeError(
                f"{self.name}: backward returned no gradients for the parameters {self.names}; return (gradients, "
                "{name: gradient}), with an empty dict if they have none"
            )
        gradients, by_name = result if pair and self.names else (result, {})
        unknown = sorted(by_name.keys() - set(self.names))
        if unknown:
            raise RuntimeError(
                f"{self.name}: backward returned gradients for {unknown}, but the parameters are {self.names}"
            )
        return _gradients(self.name, args, gradients) + [by_name.get(n) for n in self.names]


class _Given(Function):
    """The function of a call and its tensors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call, *tensors):
        return call.compute(tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, ctx.n = inputs[0], len(inputs) - 1
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    def backward(ctx, *gradients):
        saved, n = ctx.saved_tensors, ctx.n
        wanted = ctx.needs_input_grad[1:]
        return (None, *ctx.call.pull(saved[:n], saved[n:], gradients, wanted))

    @staticmethod
    def jvp(ctx, _, *tangents):
        """backward is linear in the gradients: its own derivative by them, along the tangents."""
        from ..func import vjp

        saved, n, along = ctx.saved_tensors, ctx.n, []

        def pulled(*gradients):
            found = ctx.call.pull(saved[:n], saved[n:], gradients, (True,) * n)
            along[:] = [t for t, g in zip(tangents, found) if g is not None and t is not None]
            return tuple(g for t, g in zip(tangents, found) if g is not None and t is not None)

        _, pull = vjp(pulled, *(_C.zeros_like(t) for t in saved[n:]))
        return pull(tuple(along))


def custom_backward(backward):
    """Decorates a function, or a Module class, whose gradients ``backward`` computes.

    Parameters
    ----------
    backward : callable
        For a function ``backward(inputs, output, grad_output)``, for a module
        ``backward(module, inputs, output, grad_output)``: ``inputs`` are the arguments of the call as a tuple, ``output``
        what it returned, ``grad_output`` of the same structure, with zeros where there is no gradient. It returns the
        gradients of the inputs, one each, None for what needs none; of an input that is a tuple, list or dict one of the
        same structure. A module that has parameters returns ``(gradients, {name: gradient})`` with those by the names of
        ``named_parameters()``; what the dict leaves out gets none.

    Returns
    -------
    callable
        A decorator. What it decorates is called as before, works inside ``spool.func``'s transforms if it and ``backward``
        are made of ops (``jvp`` follows from ``backward``, which is linear in ``grad_output``), and under ``spool.jit``.

    Raises
    ------
    RuntimeError
        In backward: not one gradient an input, or none for the parameters of a module.

    Notes
    -----
    Nothing is recorded while the function runs. Tensors that it finds elsewhere than in its arguments and a module's
    parameters get no gradients. A module in the ``inputs`` of its own backward is its current self.

    Examples
    --------
    >>> import spool
    >>> @spool.autograd.custom_backward(lambda inputs, output, grad: (grad.clamp(-1, 1),))
    ... def clip_gradient(x):
    ...     return x
    >>> x = spool.tensor([1.0, 2.0], requires_grad=True)
    >>> (clip_gradient(x) * spool.tensor([5.0, 0.5])).sum().backward()
    >>> x.grad
    tensor([1.0000, 0.5000])

    >>> def linear_backward(module, inputs, output, grad):
    ...     (x,) = inputs
    ...     return (grad @ module.weight,), {"weight": grad.T @ x}
    >>> @spool.autograd.custom_backward(linear_backward)
    ... class Linear(spool.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = spool.nn.Parameter(spool.ones(1, 2))
    ...
    ...     def forward(self, x):
    ...         return x @ self.weight.T
    >>> net = Linear()
    >>> net(spool.tensor([[1.0, 2.0]])).sum().backward()
    >>> net.weight.grad
    tensor([[1., 2.]])
    """
    if not callable(backward):
        raise TypeError(
            f"custom_backward: backward must be callable, not {type(backward).__name__}"
        )

    def decorate(target):
        if not isinstance(target, type):
            return _decorated(target, target.__name__, backward, _Call)
        if not hasattr(target, "named_parameters"):
            raise TypeError(
                f"custom_backward: decorates functions and Module classes, not {target.__name__}"
            )
        forward = _decorated(target.forward, target.__name__, backward, _ModuleCall)
        target.forward = forward
        return target

    return decorate


def _decorated(function, name, backward, call_type):
    kind = type(name, (_Given,), {"__module__": function.__module__})
    n_self = int(call_type is _ModuleCall)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if kwargs:
            args, kwargs = _by_place(name, function, args, kwargs)
        call = call_type(name, function, backward, *args[:n_self], args[n_self:], kwargs)
        leaves = flatten(args[n_self:])[0]
        tensors = [leaf for leaf in leaves if isinstance(leaf, _Tensor)]
        output = kind.apply(call, *tensors, *call.parameters)
        return call.output.filled(output)

    return wrapper if n_self else _C._boundary(wrapper)


def _by_place(name, function, args, kwargs):
    """Keywords of parameters that may stand by place, put there."""
    import inspect  # costs as much as the rest of the package

    bound = inspect.signature(function).bind(*args, **kwargs)
    for key, value in bound.kwargs.items():
        if any(isinstance(leaf, _Tensor) for leaf in flatten(value)[0]):
            raise TypeError(
                f"{name}: the Tensor {key}= can be given by keyword alone, and would get no gradient; make it a parameter "
                "that may stand by place"
            )
    return bound.args, bound.kwargs
