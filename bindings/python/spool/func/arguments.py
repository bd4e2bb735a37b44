"""What transforms ask of the functions, arguments and results that they are given."""

import functools
from types import FunctionType

from .. import _C

Tensor = _C.Tensor


_KEPT = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")


def transformed(function):
    """Decorates what a transform returns: the function's name and documentation, and no frames of ours in tracebacks."""

    def decorate(wrapper):
        if (
            type(function) is FunctionType
        ):  # functools.wraps, without what a plain function does not need
            for name in _KEPT:
                setattr(wrapper, name, getattr(function, name))
            wrapper.__wrapped__ = function
        elif hasattr(function, "__name__"):
            wrapper = functools.wraps(function)(wrapper)
        return _C._boundary(wrapper)

    return decorate


def check_tensors(values, op, what):
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{op}: {what} must be Tensors or trees of them, found {type(value).__name__}"
            )


def check_floating(values, op, what):
    check_tensors(values, op, what)
    for value in values:
        if not (value.is_floating_point() or value.is_complex()):
            raise _C.DTypeError(
                f"{op}: {what} must be floating point, found {value.dtype}; convert it with .float()"
            )


def check_alike(given, wanted, op, what):
    """Trees that were flattened to (leaves, structure): the same structure, and leaves of the same shapes."""
    check_tensors(given[0], op, what)
    if given[1] != wanted[1] or any(a.shape != b.shape for a, b in zip(given[0], wanted[0])):
        raise _C.ShapeError(
            f"{op}: {what} must have the structure and shapes {[tuple(t.shape) for t in wanted[0]]}, "
            f"not {[tuple(t.shape) for t in given[0]]}"
        )


def check_tuple(value, op, what):
    if not isinstance(value, tuple):
        raise TypeError(f"{op}: {what} must be a tuple, one entry an argument")


def split_aux(result, has_aux, op):
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"{op}: with has_aux the function must return (output, aux)")
    return result


def selected(args, argnums, op):
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
    if len(set(places)) != len(places):
        raise ValueError(f"{op}: argnums {numbers} has an argument twice")

    def put(values):
        full = list(args)
        for place, value in zip(places, (values,) if single else values):
            full[place] = value
        return full

    return args[places[0]] if single else tuple(args[place] for place in places), put
