"""Custom functions that the tests use, written for Spool and PyTorch alike: ``lib`` is the library."""

import numpy as np
import pytest
import torch

import spool

BOTH = pytest.mark.parametrize("lib", [spool, torch], ids=["spool", "torch"])


def numbers(t):
    return None if t is None else t.detach().numpy().tolist()


def point(lib, values, grad=True):
    return lib.tensor(values, dtype=lib.float64, requires_grad=grad)


# ---- functions written for either library ----------------------------------------------------------------------------


def make_cube(lib):
    """By setup_context, with everything the transforms ask for."""

    class Cube(lib.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x * x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

        @staticmethod
        def jvp(ctx, t):
            (x,) = ctx.saved_tensors
            return t * 3 * x * x

    return Cube


def make_exp(lib):
    """By forward(ctx), saving its result."""

    class Exp(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y

    return Exp


def make_scale(lib):
    """Arguments of all kinds: a tensor, a number, a text, a tensor that needs no gradient."""

    class Scale(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor, name, shift):
            ctx.factor, ctx.name_given = factor, name
            ctx.set_materialize_grads(False)
            return x * factor + shift, x.sum() * 2, name

        @staticmethod
        def backward(ctx, g, g_sum, g_name):
            assert g_name is None
            assert ctx.needs_input_grad == (True, False, False, False)
            total = 0 if g is None else g * ctx.factor
            return total + (0 if g_sum is None else g_sum * 2), None, None, None

    return Scale


def make_double_(lib):
    class Double(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    return Double


def make_reverse(lib, view):
    class Reverse(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return view(x)

        @staticmethod
        def backward(ctx, g):
            return -g

    return Reverse


def make_once(lib):
    class Sine(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return lib.tensor(np.sin(x.detach().numpy()))

        @staticmethod
        @lib.autograd.function.once_differentiable
        def backward(ctx, g):
            assert not lib.is_grad_enabled()
            (x,) = ctx.saved_tensors
            return g * lib.tensor(np.cos(x.detach().numpy()))

    return Sine


POINT = np.array([0.3, -0.7, 1.1])
ROWS = np.stack([POINT, -POINT, POINT * 0.5, POINT + 0.2])

NESTED = [
    lambda t, f: t.grad(f),
    lambda t, f: t.grad(lambda x: (t.grad(f)(x) ** 2).sum()),
    lambda t, f: t.grad(lambda x: t.grad(lambda y: (t.grad(f)(y) ** 2).sum())(x).sum()),
    lambda t, f: t.jacrev(t.grad(f)),
    lambda t, f: t.jacfwd(t.grad(f)),
    lambda t, f: t.jacrev(t.jacfwd(f)),
    lambda t, f: t.hessian(f),
    lambda t, f: lambda x: t.vjp(f, x)[1](f(x))[0],
    lambda t, f: lambda x: t.jvp(t.grad(f), (x,), (x * 0 + 1,))[1],
    lambda t, f: t.grad(lambda y: t.jvp(f, (y,), (y * 0 + 1,))[1]),
    lambda t, f: lambda x: t.jvp(lambda y: t.jvp(f, (y,), (y * 0 + 1,))[1], (x,), (x * 2,))[1],
    lambda t, f: t.grad(lambda x: t.vmap(lambda a: f(a.unsqueeze(0)))(x).sum()),
]


def composed(cube, lib):
    def function(x):
        y = cube.apply(x.tanh()) * x
        return (y * lib.exp(y)).sum() + cube.apply(x.sum())

    return function


def plain(lib):
    def function(x):
        y = x.tanh() ** 3 * x
        return (y * lib.exp(y)).sum() + x.sum() ** 3

    return function
