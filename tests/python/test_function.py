"""Custom functions: what PyTorch documents of torch.autograd.Function, and that nothing is silently zero.

Programs are written once and run with both libraries where PyTorch has the feature.
"""

import gc
import threading
import traceback
import weakref

import numpy as np
import pytest
import torch

import spool
from spool.autograd import Function, once_differentiable

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


# ---- values, names, orders -------------------------------------------------------------------------------------------


@BOTH
def test_gradients_of_three_orders(lib):
    x = point(lib, [1.0, 2.0])
    y = make_cube(lib).apply(x)
    (first,) = lib.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = lib.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = lib.autograd.grad(second.sum(), x)
    assert [numbers(t) for t in (y, first, second, third)] == [[1, 8], [3, 12], [6, 12], [6, 6]]


@BOTH
def test_a_saved_result_has_its_history(lib):
    x = point(lib, [0.5, 1.0])
    grads = [make_exp(lib).apply(x).sum()]
    for _ in range(3):
        grads.append(lib.autograd.grad(grads[-1].sum(), x, create_graph=True)[0])
    for g in grads[1:]:
        np.testing.assert_allclose(g.detach().numpy(), np.exp([0.5, 1.0]))


@BOTH
def test_the_node(lib):
    x = point(lib, [1.0, 2.0])
    y, total, name = make_scale(lib).apply(x, 3.0, "label", point(lib, [1.0, 1.0], False))
    assert name == "label"
    assert y.grad_fn.name() == "ScaleBackward"
    assert y.grad_fn.name_given == "label"
    assert y.grad_fn.factor == 3.0
    edges = y.grad_fn.next_functions
    assert [n if n is None else n.name().split("::")[-1] for n, _ in edges][0] == "AccumulateGrad"
    assert "ScaleBackward" in repr(y)
    (y.sum() + total).backward()
    assert numbers(x.grad) == [5, 5]
    with pytest.raises(AttributeError):
        y.grad_fn.nothing


@BOTH
def test_arguments_of_any_kind(lib):
    class Pick(lib.autograd.Function):
        @staticmethod
        def forward(ctx, weights, table, key=None):
            ctx.key = key
            ctx.table = table
            return weights * table[key]

        @staticmethod
        def backward(ctx, g):
            return g * ctx.table[ctx.key], None, None

    w = point(lib, [1.0, 2.0])
    Pick.apply(w, {"a": 2.0, "b": 5.0}, "b").sum().backward()
    assert numbers(w.grad) == [5, 5]


@BOTH
def test_keywords_and_defaults_by_setup_context(lib):
    class Power(lib.autograd.Function):
        @staticmethod
        def forward(x, n=2, scale=1.0):
            return x**n * scale

        @staticmethod
        def setup_context(ctx, inputs, output):
            x, ctx.n, ctx.scale = inputs
            ctx.save_for_backward(x)

        @staticmethod
        def backward(ctx, g):
            return g * ctx.n * ctx.saved_tensors[0] ** (ctx.n - 1) * ctx.scale, None, None

    x = point(lib, [3.0])
    Power.apply(x).backward()
    Power.apply(x, scale=10.0, n=3).backward()
    assert numbers(x.grad) == [6 + 270]
    with pytest.raises(TypeError):
        Power.apply(x, nothing=1)


def test_keywords_need_a_setup_context():
    with pytest.raises(TypeError, match="Exp.apply: keyword arguments need a setup_context"):
        make_exp(spool).apply(x=point(spool, [1.0]))


@BOTH
def test_vjp_is_another_name_of_backward(lib):
    class Double(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def vjp(ctx, g):
            return g * 2

    x = point(lib, [3.0])
    Double.apply(x).backward()
    assert numbers(x.grad) == [2]

    class Torn(Double):
        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(RuntimeError):
        Torn.apply(x).backward()


@BOTH
def test_grad_mode_inside(lib):
    seen = []

    class Look(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append((lib.is_grad_enabled(), (x * 2).requires_grad, x.requires_grad))
            return x * 1

        @staticmethod
        def backward(ctx, g):
            seen.append(lib.is_grad_enabled())
            return g

    x = point(lib, [1.0])
    y = Look.apply(x)
    lib.autograd.grad(y, x, retain_graph=True)
    lib.autograd.grad(y, x, create_graph=True)
    assert seen == [(False, False, True), False, True]
    with lib.no_grad():
        assert not Look.apply(x).requires_grad
    assert not Look.apply(x.detach()).requires_grad
    assert lib.is_grad_enabled()


# ---- what ctx says -----------------------------------------------------------------------------------------------------


@BOTH
def test_materialized_zeros_and_none(lib):
    seen = []

    def make(on):
        class Split(lib.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                if not on:
                    ctx.set_materialize_grads(False)
                return x * 2, x * 3

            @staticmethod
            def backward(ctx, a, b):
                seen.append((numbers(a), numbers(b)))
                return a * 2 if b is None else a * 2 + b * 3

        return Split

    for on in (True, False):
        x = point(lib, [1.0, 2.0])
        make(on).apply(x)[0].sum().backward()
        assert numbers(x.grad) == [2, 2]
    assert seen == [([1, 1], [0, 0]), ([1, 1], None)]


@BOTH
def test_non_differentiable_results(lib):
    class Sort(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            values, index = x.sort()
            rank = index.to(x.dtype)
            ctx.mark_non_differentiable(index, rank)
            ctx.save_for_backward(index)
            return values, index, rank

        @staticmethod
        def backward(ctx, g, g_index, g_rank):
            (index,) = ctx.saved_tensors
            assert numbers(g_rank) == [0, 0, 0]
            return g.new_zeros(3).scatter(0, index, g)

    x = point(lib, [3.0, 1.0, 2.0])
    values, index, rank = Sort.apply(x)
    assert values.requires_grad and not index.requires_grad and not rank.requires_grad
    (values * point(lib, [1.0, 2.0, 3.0], False)).sum().backward()
    assert numbers(x.grad) == [3, 1, 2]


@BOTH
def test_integer_results_have_no_history(lib):
    class Argmax(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.argmax(), x * 2

        @staticmethod
        def backward(ctx, g_index, g):
            return g * 2

    x = point(lib, [3.0, 1.0])
    index, y = Argmax.apply(x)
    assert not index.requires_grad and y.requires_grad
    y.sum().backward()
    assert numbers(x.grad) == [2, 2]


@BOTH
def test_none_may_be_saved(lib):
    class Affine(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, b):
            ctx.save_for_backward(x, b, w)
            return x * w if b is None else x * w + b

        @staticmethod
        def backward(ctx, g):
            x, b, w = ctx.saved_tensors
            return g * w, g * x, None if b is None else g

    x, w, b = (point(lib, [v]) for v in (2.0, 3.0, 4.0))
    Affine.apply(x, w, None).backward()
    Affine.apply(x, w, b).backward()
    assert [numbers(t.grad) for t in (x, w, b)] == [[6], [4], [1]]


@BOTH
def test_needs_input_grad(lib):
    seen = []

    class Product(lib.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            seen.append(ctx.needs_input_grad)
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.needs_input_grad)
            a, b = ctx.saved_tensors
            return tuple(g * t if n else None for t, n in zip((b, a), ctx.needs_input_grad))

    a, b = point(lib, [2.0]), point(lib, [3.0])
    y = Product.apply(a, b)
    assert numbers(lib.autograd.grad(y, b)[0]) == [2]
    Product.apply(a, b.detach()).backward()
    assert numbers(a.grad) == [3]
    selected = (lib is torch, True)  # PyTorch does not look at what grad() was asked for
    assert seen == [(True, True), selected, (True, False), (True, False)]


# ---- results that are no new tensors ------------------------------------------------------------------------------------


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


@BOTH
def test_writing_in_place(lib):
    x = point(lib, [1.0, 2.0])
    y = x * 3
    z = make_double_(lib).apply(y)
    assert z is y
    assert y.grad_fn.name() == "DoubleBackward"
    (y * y).sum().backward()
    assert numbers(y) == [6, 12]
    assert numbers(x.grad) == [72, 144]


@BOTH
def test_writing_a_view_in_place(lib):
    x = point(lib, [1.0, 2.0, 3.0])
    base = x * 1
    make_double_(lib).apply(base[1:])
    assert numbers(base) == [1, 4, 6]
    (base * base).sum().backward()
    assert numbers(x.grad) == [2, 16, 24]


@BOTH
@pytest.mark.parametrize("part", [lambda y: y, lambda y: y[1:]], ids=["whole", "view"])
def test_a_result_that_was_written_is_saved(lib, part):
    class Exp(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.exp_()
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y

    x = point(lib, [0.5, 1.0, 1.5])
    y = x * 1
    Exp.apply(part(y))
    (g,) = lib.autograd.grad((y * y).sum(), x, create_graph=True)
    (second,) = lib.autograd.grad(g.sum(), x)
    e, at = np.exp(2 * np.array([0.5, 1.0, 1.5])), np.array([0.5, 1.0, 1.5])
    first = [2 * e[0] if part(y).numel() == 3 else 2 * at[0], 2 * e[1], 2 * e[2]]
    np.testing.assert_allclose(numbers(g), first)
    np.testing.assert_allclose(
        numbers(second), [4 * e[0] if part(y).numel() == 3 else 2, 4 * e[1], 4 * e[2]]
    )


@BOTH
def test_writing_a_leaf_in_place_is_refused(lib):
    with pytest.raises(RuntimeError, match="leaf"):
        make_double_(lib).apply(point(lib, [1.0]))


@BOTH
def test_what_is_marked_dirty_must_be_returned(lib):
    class Forgets(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises((RuntimeError, ValueError)):
        Forgets.apply(point(lib, [1.0]) * 1)


def make_reverse(lib, view):
    class Reverse(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return view(x)

        @staticmethod
        def backward(ctx, g):
            return -g

    return Reverse


@BOTH
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.view_as(x)], ids=["itself", "view"])
def test_a_result_may_be_an_argument(lib, view):
    x = point(lib, [1.0, 2.0])
    y = x * 3
    z = make_reverse(lib, view).apply(y)
    assert z is not y and z.grad_fn.name() == "ReverseBackward"
    assert z.data_ptr() == y.data_ptr()
    (z * z).sum().backward()
    assert numbers(x.grad) == [-18, -36]
    with pytest.raises(RuntimeError):
        z.mul_(2)
        z.grad_fn  # noqa: B018 - PyTorch notices here
    y = x * 3
    z = make_reverse(lib, view).apply(y)
    y.mul_(2)
    with pytest.raises(RuntimeError):
        z.sum().backward()


@BOTH
def test_a_tensor_returned_twice(lib):
    class Twice(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2
            return y, y

        @staticmethod
        def backward(ctx, a, b):
            return (a + b) * 2

    x = point(lib, [1.0])
    a, b = Twice.apply(x)
    if lib is spool:  # PyTorch's second mention takes over the first
        (a + 3 * b).backward()
        assert numbers(x.grad) == [8]


def test_a_result_with_a_history_of_its_own_keeps_it():
    w = point(spool, [5.0])

    class Other(Function):
        @staticmethod
        def forward(ctx, x):
            return w

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = point(spool, [1.0])
    y = Other.apply(x)
    assert y is not w and w.grad_fn is None
    y.backward()
    assert numbers(x.grad) == [7] and w.grad is None


# ---- errors ----------------------------------------------------------------------------------------------------------------


def backward_returns(lib, value, n_args=1):
    class Odd(lib.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            return args[0] * 1

        @staticmethod
        def backward(ctx, g):
            return value(g)

    return Odd


def test_wrong_gradients_are_named():
    x = point(spool, [1.0, 2.0])
    with pytest.raises(
        RuntimeError, match=r"Odd: backward returned 1 gradients, expected 2: one for each argument"
    ):
        backward_returns(spool, lambda g: g).apply(x, 3).sum().backward()
    with pytest.raises(RuntimeError, match="Odd: backward returned 2 gradients, expected 1"):
        backward_returns(spool, lambda g: (g, g)).apply(x).sum().backward()
    with pytest.raises(
        TypeError, match="Odd: backward returned a float at place 0, expected a Tensor"
    ):
        backward_returns(spool, lambda g: 1.0).apply(x).sum().backward()
    with pytest.raises(TypeError, match="place 1, expected None: what stands there is no Tensor"):
        backward_returns(spool, lambda g: (g, g)).apply(x, 3).sum().backward()
    with pytest.raises(
        spool.ShapeError,
        match=r"OddBackward: returned a gradient of shape \(3,\) for an input of shape \(2,\)",
    ):
        backward_returns(spool, lambda g: spool.ones(3)).apply(x).sum().backward()
    assert x.grad is None
    backward_returns(spool, lambda g: (g, None, None)).apply(x).sum().backward()
    assert numbers(x.grad) == [1, 1]


@BOTH
def test_gradients_are_summed_and_cast_to_fit(lib):
    x = lib.tensor([[1.0], [2.0]], requires_grad=True)
    backward_returns(lib, lambda g: lib.ones(4, 2, 3, dtype=lib.float64)).apply(x).sum().backward()
    assert x.grad.dtype == lib.float32
    assert numbers(x.grad) == [[12], [12]]


@BOTH
def test_exceptions_arrive_with_their_frames(lib):
    class Fails(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, early):
            if early:
                raise KeyError("in forward")
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise LookupError("in backward")

    def user_line(early):
        Fails.apply(x, early).sum().backward()

    x = point(lib, [1.0])
    for early, error in ((True, KeyError), (False, LookupError)):
        with pytest.raises(error) as caught:
            user_line(early)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "user_line" in names
        assert names[-1] == ("forward" if early else "backward")
        if lib is spool:
            assert names == [names[0], "user_line", names[-1]]
    assert lib.is_grad_enabled()
    y = make_cube(lib).apply(x)
    y.backward()
    assert numbers(x.grad) == [3]


def test_a_failing_backward_leaves_the_graph_usable():
    fails = [True]

    class Sometimes(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            if fails[0]:
                raise ValueError("not yet")
            return g * 2

    x = point(spool, [1.0])
    y = Sometimes.apply(x)
    with pytest.raises(ValueError, match="not yet"):
        y.backward()
    fails[0] = False
    y.backward()
    assert numbers(x.grad) == [2]


@BOTH
def test_saved_values_are_released(lib):
    x = point(lib, [1.0])
    y = make_cube(lib).apply(x)
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    with pytest.raises(RuntimeError):
        y.grad_fn.saved_tensors  # noqa: B018
    assert numbers(x.grad) == [6]


@BOTH
def test_a_saved_value_that_was_written(lib):
    x = point(lib, [1.0])
    z = x * 2
    y = make_cube(lib).apply(z)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an in-?place operation"):
        y.backward()


def test_ctx_refuses_what_is_no_tensor():
    class Saves(Function):
        @staticmethod
        def forward(ctx, x, what):
            getattr(ctx, what)(3)
            return x

    for what in ("save_for_backward", "save_for_forward", "mark_dirty", "mark_non_differentiable"):
        with pytest.raises(TypeError, match=f"{what}: each argument must be a Tensor, not int"):
            Saves.apply(point(spool, [1.0]), what)


def test_results_that_hide_tensors_are_refused():
    class Lists(Function):
        @staticmethod
        def forward(ctx, x):
            return [x * 2, x * 3]

    with pytest.raises(TypeError, match="Lists: forward must return a Tensor or a tuple of them"):
        Lists.apply(point(spool, [1.0]))


def test_missing_methods_are_named():
    class Empty(Function):
        pass

    class Halfway(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

    x = point(spool, [1.0])
    with pytest.raises(NotImplementedError, match="forward"):
        Empty.apply(x)
    with pytest.raises(NotImplementedError, match="backward"):
        Halfway.apply(x).backward()
    with pytest.raises(
        NotImplementedError, match="Halfway: has no forward-mode derivative; define a jvp"
    ):
        spool.func.jvp(Halfway.apply, (x,), (x,))
    with pytest.raises(
        NotImplementedError, match="Halfway: vmap cannot look into it; define a vmap"
    ):
        spool.func.vmap(Halfway.apply)(x)


def test_ctx_after_its_graph():
    kept = []

    class Keeps(Function):
        @staticmethod
        def forward(ctx, x):
            kept.append(ctx)
            ctx.note = 3
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    Keeps.apply(point(spool, [1.0])).backward()
    (ctx,) = kept
    assert ctx.note == 3
    for use in (lambda: ctx.saved_tensors, lambda: ctx.needs_input_grad, lambda: ctx.mark_dirty()):
        with pytest.raises(RuntimeError, match="ctx: the graph that it belongs to is gone"):
            use()


# ---- second derivatives: right, or an error -----------------------------------------------------------------------------


def test_a_value_from_on_the_way_has_no_second_derivative():
    class Tanh(Function):
        @staticmethod
        def forward(ctx, x, constant):
            e = (2 * x).exp()
            ctx.constant = constant
            ctx.save_for_backward(e)
            return (e - 1) / (e + 1)

        @staticmethod
        def backward(ctx, g):
            (e,) = ctx.saved_tensors
            e = e.detach() if ctx.constant else e
            return g * 4 * e / (e + 1) ** 2, None

    x = point(spool, [0.5])
    (g,) = spool.autograd.grad(Tanh.apply(x, False), x, create_graph=True)
    np.testing.assert_allclose(numbers(g), 1 - np.tanh(0.5) ** 2)
    with pytest.raises(spool.SpoolError, match="Tanh: a second derivative needs that of a value"):
        g.backward()
    (g,) = spool.autograd.grad(Tanh.apply(x, True), x, create_graph=True)
    assert not g.requires_grad


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


@BOTH
def test_once_differentiable(lib):
    x = point(lib, [0.5])
    y = make_once(lib).apply(x)
    y.backward(retain_graph=True)
    np.testing.assert_allclose(numbers(x.grad), np.cos(0.5))
    weight = point(lib, [1.0])
    (g,) = lib.autograd.grad(y, x, weight, create_graph=True)
    assert g.requires_grad
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.backward()


def test_once_differentiable_is_never_a_silent_zero():
    """PyTorch's gives up where grad_outputs need no gradient: the second derivative is then left out of a sum."""
    x = point(spool, [0.5])
    (g,) = spool.autograd.grad(make_once(spool).apply(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (g + x).backward()

    class Plain(Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

        @staticmethod
        def jvp(ctx, t):
            return 2 * t * ctx.saved_tensors[0]

    at = spool.tensor(3.0)
    assert spool.func.grad(Plain.apply)(at).item() == 6
    for nested in (
        lambda: spool.func.grad(spool.func.grad(Plain.apply))(at),
        lambda: spool.func.jvp(spool.func.grad(Plain.apply), (at,), (at,)),
    ):
        with pytest.raises(RuntimeError, match="Plain: its backward is once_differentiable"):
            nested()


# ---- transforms ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("number", range(len(NESTED)))
def test_transforms_nest_as_torchs(number):
    build = NESTED[number]
    f = composed(make_cube(spool), spool)
    got = build(spool.func, f)(spool.tensor(POINT)).numpy()
    at = torch.tensor(POINT)
    np.testing.assert_allclose(got, build(torch.func, plain(torch))(at).numpy(), rtol=1e-9)
    if number != 10:  # the second jvp of a Function is 0 in PyTorch 2.13
        torch_f = composed(make_cube(torch), torch)
        np.testing.assert_allclose(got, build(torch.func, torch_f)(at).numpy(), rtol=1e-9)
    rows = spool.func.vmap(build(spool.func, f))(spool.tensor(ROWS)).numpy()
    for row, at in zip(rows, ROWS):
        np.testing.assert_allclose(row, build(spool.func, f)(spool.tensor(at)).numpy(), rtol=1e-9)


@pytest.mark.parametrize("outer", ["grad", "jvp"])
@pytest.mark.parametrize("inner", ["grad", "jvp"])
def test_perturbations_are_not_confused(outer, inner):
    def derivative(how, function, at):
        if how == "grad":
            return spool.func.grad(function)(at)
        return spool.func.jvp(function, (at,), (at * 0 + 1,))[1]

    class Sum(make_cube(spool)):
        @staticmethod
        def forward(x, y):
            return x * y + y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g * y, g * x + g

        @staticmethod
        def jvp(ctx, tx, ty):
            x, y = ctx.saved_tensors
            return tx * y + ty * x + ty

    x = spool.tensor(3.0)

    def program(x):
        return x * derivative(inner, lambda y: Sum.apply(x, y), spool.tensor(1.0))

    assert derivative(outer, program, x).item() == 7  # x (x + 1)


def test_the_tape_below_a_transform():
    cube = make_cube(spool)
    x = point(spool, [1.0, 2.0])
    spool.func.grad(lambda v: cube.apply(v * x).sum())(x).sum().backward()
    y = point(spool, [1.0, 2.0])
    spool.func.grad(lambda v: (v**3 * y**3).sum())(y).sum().backward()
    np.testing.assert_allclose(numbers(x.grad), numbers(y.grad))


def test_forward_with_ctx_in_one_transform():
    """PyTorch asks for setup_context here; one transform does without."""
    exp = make_exp(spool)
    x = spool.tensor(POINT)
    np.testing.assert_allclose(
        spool.func.grad(lambda v: exp.apply(v).sum())(x).numpy(), np.exp(POINT)
    )
    np.testing.assert_allclose(np.diag(spool.func.jacrev(exp.apply)(x).numpy()), np.exp(POINT))
    nested = spool.func.grad(lambda v: spool.func.grad(lambda w: exp.apply(w).sum())(v).sum())
    with pytest.raises(NotImplementedError, match="Exp: forward keeps .* define setup_context"):
        nested(x)
    with pytest.raises(NotImplementedError, match="define setup_context"):
        spool.func.grad(lambda v: exp.apply(v).sum())(point(spool, POINT))


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 0)])
def test_a_vmap_of_its_own(in_dims):
    seen = []

    def make(lib):
        class Scale(lib.autograd.Function):
            @staticmethod
            def forward(x, k, text):
                return x * k, x + k

            @staticmethod
            def setup_context(ctx, inputs, output):
                ctx.save_for_backward(*inputs[:2])

            @staticmethod
            def backward(ctx, g, h):
                x, k = ctx.saved_tensors
                return g * k + h, (g * x + h).sum(), None

            @staticmethod
            def vmap(info, in_dims, x, k, text):
                seen.append((info.batch_size, info.randomness, [d is None for d in in_dims], text))
                x = x if in_dims[0] is None else x.movedim(in_dims[0], 0)
                k = k if in_dims[1] is None else k.unsqueeze(-1)
                return Scale.apply(x, k, text), (0, 0)

        return Scale

    def run(lib):
        xs = lib.tensor(ROWS if in_dims[0] != 1 else ROWS.T.copy())
        xs = lib.tensor(POINT) if in_dims[0] is None else xs
        ks = lib.tensor(2.0, dtype=lib.float64) if in_dims[1] is None else lib.arange(4).double()
        function = make(lib)
        return lib.func.vmap(lambda x, k: function.apply(x, k, "text"), in_dims)(xs, ks)

    for got, wanted in zip(run(spool), run(torch)):
        np.testing.assert_allclose(got.numpy(), wanted.numpy())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0)])
def test_a_generated_vmap_sums_what_examples_share(in_dims):
    class Dot(make_cube(spool)):
        @staticmethod
        def forward(x, w):
            return (x * w).sum(), w * 2

        @staticmethod
        def backward(ctx, g, h):
            x, w = ctx.saved_tensors
            return g * w, g * x + 2 * h

        @staticmethod
        def jvp(ctx, tx, tw):
            x, w = ctx.saved_tensors
            return (tx * w + x * tw).sum(), tw * 2

    def plain(x, w):
        return (x * w).sum(), w * 2

    args = [spool.tensor(ROWS if d == 0 else POINT) for d in in_dims]
    tangents = tuple(a.cos() for a in args)

    def loss(function):
        def total(x, w):
            dots, doubled = spool.func.vmap(function, in_dims)(x, w)
            return (dots * dots).sum() + (doubled.exp()).sum()

        return total

    for build in (
        lambda f: spool.func.grad(f, argnums=(0, 1))(*args),
        lambda f: spool.func.jvp(f, tuple(args), tangents)[1:],
        lambda f: spool.func.jvp(spool.func.grad(f), tuple(args), tangents)[1:],
    ):
        for got, wanted in zip(build(loss(Dot.apply)), build(loss(plain))):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-9)


@BOTH
def test_both_vmaps_are_refused(lib):
    class Torn(make_cube(lib)):
        @staticmethod
        def vmap(info, in_dims, x):
            return x, 0

    with pytest.raises(RuntimeError):
        lib.func.vmap(Torn.apply)(lib.tensor(POINT))


def test_vmap_that_returns_nonsense():
    def make(value):
        class Odd(Function):
            @staticmethod
            def vmap(info, in_dims, x):
                return value(x)

        return Odd

    x = spool.tensor(ROWS)
    for value, error, message in (
        (lambda x: x, TypeError, r"Odd: vmap must return \(output, out_dims\)"),
        (lambda x: (x, 5), IndexError, "out_dims has 5"),
        (lambda x: (x, 1), ValueError, "counts the 4 examples"),
        (lambda x: ((x, x), (0,)), ValueError, "1 out_dims for 2 results"),
        (lambda x: (x, "a"), TypeError, "out_dims"),
    ):
        with pytest.raises(error, match=message):
            spool.func.vmap(make(value).apply)(x)
    assert spool.func.vmap(make(lambda x: (x, -2)).apply)(x).shape == (4, 3)


def test_jvp_that_returns_nonsense():
    def make(value):
        class Odd(make_cube(spool)):
            @staticmethod
            def jvp(ctx, t):
                return value(t)

        return Odd

    x = spool.tensor(POINT)
    for value, error, message in (
        (lambda t: (t, t), RuntimeError, "Odd: jvp returned 2 tangents, expected 1"),
        (lambda t: 3, TypeError, "Odd: jvp returned a int at place 0"),
        (lambda t: t[:1], spool.ShapeError, r"Odd: jvp returned a tangent of shape \(1,\)"),
    ):
        with pytest.raises(error, match=message):
            spool.func.jvp(make(value).apply, (x,), (x,))
    assert numbers(spool.func.jvp(make(lambda t: None).apply, (x,), (x,))[1]) == [0, 0, 0]


def test_jvp_sees_zeros_or_none():
    seen = []

    class Product(Function):
        @staticmethod
        def forward(ctx, a, b, text, zeros):
            ctx.set_materialize_grads(zeros)
            ctx.save_for_forward(a, b)
            return a * b

        @staticmethod
        def jvp(ctx, ta, tb, t_text, t_zeros):
            a, b = ctx.saved_tensors
            seen.append((numbers(tb), t_text))
            return ta * b

    a, b = spool.tensor(2.0), spool.tensor(3.0)
    for zeros in (True, False):
        out, t = spool.func.jvp(lambda v: Product.apply(v, b, "x", zeros), (a,), (a,))
        assert (out.item(), t.item()) == (6, 6)
    assert seen == [(0, None), (None, None)]


def test_writing_in_place_inside_transforms():
    class Double(Function):
        @staticmethod
        def forward(x):
            return x.mul_(2)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.mark_dirty(*inputs)

        @staticmethod
        def backward(ctx, g):
            return g * 2

        @staticmethod
        def jvp(ctx, t):
            return t * 2

    def f(x):
        y = x * 3
        assert Double.apply(y) is y
        return (y * y).sum()

    x = spool.tensor([1.0, 2.0])
    assert numbers(spool.func.grad(f)(x)) == [72, 144]
    assert numbers(spool.func.hessian(f)(x)) == [[72, 0], [0, 72]]
    assert spool.func.jvp(f, (x,), (x,))[1].item() == 360

    def g(x):
        y = x * 3
        Double.apply(y[1:])
        return (y * y).sum()

    assert numbers(spool.func.grad(g)(x)) == [18, 144]
    assert spool.func.jvp(g, (x,), (x,))[1].item() == 18 + 288
    with pytest.raises(RuntimeError):
        spool.func.grad(lambda v: Double.apply(x) * v)(x)


@pytest.mark.parametrize("mode", ["grad", "jvp"])
def test_results_that_share_memory_inside_transforms(mode):
    class Same(Function):
        @staticmethod
        def forward(x):
            return x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, g):
            return -g

        @staticmethod
        def jvp(ctx, t):
            return -t

    def derivative(f, x):
        if mode == "grad":
            return spool.func.grad(f)(x)
        return spool.func.jvp(f, (x,), (x * 0 + 1,))[1]

    x = spool.tensor(3.0)
    assert derivative(lambda v: Same.apply(v * v), x).item() == -6

    def writes_result(v):
        y = Same.apply(v * v)
        y.mul_(v)
        return y

    def writes_argument(v):
        a = v * v
        y = Same.apply(a)
        a.mul_(v)
        return y * 1

    for f in (writes_result, writes_argument):
        with pytest.raises(RuntimeError, match="shares memory"):
            derivative(f, x)


def test_a_failing_method_leaves_no_level_behind():
    def make(which):
        class Fails(make_cube(spool)):
            pass

        def fails(*args):
            raise KeyError(which)

        setattr(Fails, which, staticmethod(fails))
        return Fails

    x = spool.tensor(POINT)
    for which in ("forward", "setup_context", "backward", "jvp"):
        f = make(which).apply
        for nested in (
            lambda: spool.func.vmap(spool.func.grad(f))(x),
            lambda: spool.func.vmap(lambda v: spool.func.jvp(f, (v,), (v,)))(x),
        ):
            try:
                nested()
            except KeyError as error:
                assert error.args == (which,)
        assert numbers(x * 2) == (POINT * 2).tolist()
    assert spool.is_grad_enabled()


# ---- modules, jit, autocast --------------------------------------------------------------------------------------------


def test_inside_jit():
    cube, exp = make_cube(spool), make_exp(spool)

    class Host(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return spool.tensor(np.sqrt(x.detach().numpy()))

        @staticmethod
        def backward(ctx, g):
            return g / (2 * ctx.saved_tensors[0].sqrt())

    def step(w, x):
        y = cube.apply(w * x) + exp.apply(w).tanh()
        loss = (Host.apply(y * y + 1) * x).sum()
        loss.backward()
        grad = w.grad * 1
        w.grad = None
        return loss.detach(), grad

    jitted = spool.jit(step)
    for i in range(6):
        w = spool.tensor(POINT * (i + 1) / 3, requires_grad=True)
        x = spool.tensor(POINT + i)
        for got, wanted in zip(jitted(w, x), step(w, x)):
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())


def test_training_under_jit():
    cube = make_cube(spool)

    def make():
        w = spool.tensor(POINT, requires_grad=True)
        opt = spool.optim.SGD([w], lr=0.01)

        def step():
            loss = (cube.apply(w) ** 2).sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss.detach()

        return step

    eager, jitted = make(), spool.jit(make())
    assert [eager().item() for _ in range(8)] == [jitted().item() for _ in range(8)]


def test_autocast_reaches_forward():
    class Product(Function):
        @staticmethod
        def forward(a, b):
            return a @ b

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return g.to(a.dtype) @ b.T, a.T @ g.to(a.dtype)

    a = spool.ones(2, 2, requires_grad=True)
    with spool.autocast("cpu", dtype=spool.bfloat16):
        y = Product.apply(a, a)
        assert y.dtype == spool.bfloat16
        inside = spool.func.grad(lambda v: Product.apply(v, v).sum())(a.detach())
    y.sum().backward()
    assert a.grad.dtype == spool.float32
    assert numbers(a.grad) == numbers(inside) == [[4, 4], [4, 4]]


# ---- threads, memory, rings ------------------------------------------------------------------------------------------------


def test_threads():
    shared = point(spool, [1.0, 2.0])
    product = make_cube(spool)
    together = product.apply(shared)
    problems = []

    def work(k):
        try:
            for _ in range(30):
                own = point(spool, [float(k)])
                product.apply(own).backward()
                assert numbers(own.grad) == [3.0 * k * k]
                (g,) = spool.autograd.grad(together.sum(), shared, retain_graph=True)
                assert numbers(g) == [3, 12]
        except BaseException as problem:  # noqa: BLE001 - handed to the main thread
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


class Marker:
    pass


@BOTH
def test_ctx_dies_with_its_graph(lib):
    alive = []

    class Notes(make_exp(lib)):
        @staticmethod
        def forward(ctx, x):
            ctx.marker = Marker()
            alive.append(weakref.ref(ctx.marker))
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = point(lib, [1.0])
    y = Notes.apply(x)
    z = y.sum()
    del y
    z.backward()
    gc.collect()
    assert alive[-1]() is not None
    del z
    gc.collect()
    assert alive[-1]() is None
    with lib.no_grad():
        Notes.apply(x)
    gc.collect()
    assert alive[-1]() is None


def test_inputs_are_not_kept_by_the_node():
    x = point(spool, [1.0])
    big = spool.ones(10)
    kept = weakref.ref(big)

    class Ignores(Function):
        @staticmethod
        def forward(ctx, x, other, marker):
            return x * other.sum()

        @staticmethod
        def backward(ctx, g):
            return g, None, None

    marker = Marker()
    gone = weakref.ref(marker)
    y = Ignores.apply(x, big, marker)
    del big, marker
    assert kept() is None and gone() is None
    y.backward()


@pytest.mark.parametrize("how", ["result", "result of two", "ctx", "class"])
def test_rings_through_ctx_are_collected(how):
    alive = []

    def make():
        class Ring(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.marker = Marker()
                alive.append(weakref.ref(ctx.marker))
                y = x * 2
                if how == "ctx":
                    ctx.myself = ctx
                elif how != "class":
                    ctx.y = y
                return (y, x * 3) if how == "result of two" else y

            @staticmethod
            def backward(ctx, *g):
                return g[0] * 2

        y = Ring.apply(point(spool, [1.0]))
        if how == "class":
            Ring.last = y
        (y[0] if how == "result of two" else y).sum().backward()

    gc.collect()
    before = spool.memory_stats()["live_blocks"]
    make()
    gc.collect()
    assert alive[0]() is None
    assert spool.memory_stats()["live_blocks"] <= before


def test_memory_is_flat():
    cube, exp, double = make_cube(spool), make_exp(spool), make_double_(spool)
    x = point(spool, [0.5, 1.0])

    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise KeyError

    def program():
        y = cube.apply(double.apply(exp.apply(x) * 1))
        (g,) = spool.autograd.grad(y.sum(), x, create_graph=True)
        g.sum().backward()
        spool.func.vmap(spool.func.grad(spool.func.grad(cube.apply)))(x.detach())
        spool.func.hessian(lambda v: cube.apply(v).sum())(x.detach())
        with pytest.raises(KeyError):
            Fails.apply(x).sum().backward()
        with pytest.raises(RuntimeError):
            make_once(spool).apply(x).sum().backward(create_graph=True)
            x.grad.sum().backward()
        x.grad = None

    def live():
        gc.collect()
        spool.synchronize()
        return spool.memory_stats()["live_blocks"]

    with spool.hot(False):
        program()
        before = live()
        for _ in range(20):
            program()
        assert live() <= before


def test_a_deep_tape():
    """Thousands of functions neither overflow the stack when run nor when freed."""
    exp = make_reverse(spool, lambda x: x * 1)
    x = point(spool, [1.0])
    y = x
    for _ in range(20_000):
        y = exp.apply(y)
    y.backward()
    assert numbers(x.grad) == [1]


# ---- a backward of one's own, by one decorator ---------------------------------------------------------------------------


def test_custom_backward_of_a_function():
    seen = []

    def backward(inputs, output, grad):
        x, pair, scale = inputs
        seen.append((numbers(x), [numbers(t) for t in pair["pair"]], scale, numbers(output[1])))
        total = grad[0]["sum"] * 10
        return total, {"pair": (total * 2, None)}, None

    @spool.autograd.custom_backward(backward)
    def combine(x, pair, scale=2.0):
        """Its doc."""
        return {"sum": (x + pair["pair"][0]) * scale}, pair["pair"][1] * 1

    x, a, b = (point(spool, [v]) for v in (1.0, 2.0, 3.0))
    out = combine(x, {"pair": (a, b)}, scale=4.0)
    assert combine.__name__ == "combine" and combine.__doc__ == "Its doc."
    assert out[0]["sum"].grad_fn.name() == "combineBackward"
    (out[0]["sum"] + out[1]).backward()
    assert [numbers(t.grad) for t in (x, a)] == [[10], [20]]
    assert b.grad is None or numbers(b.grad) == [0]
    assert seen == [([1], [[2], [3]], 4.0, [3])]


def test_custom_backward_in_every_transform():
    def backward(inputs, output, grad):
        (x,) = inputs
        return grad * 3 * x * x

    @spool.autograd.custom_backward(backward)
    def cube(x):
        return x * x * x

    class Cube:
        apply = staticmethod(cube)

    for build in NESTED:
        got = build(spool.func, composed(Cube, spool))(spool.tensor(POINT)).numpy()
        wanted = build(spool.func, plain(spool))(spool.tensor(POINT)).numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-9)


def make_linear(backward):
    @spool.autograd.custom_backward(backward)
    class Linear(spool.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = spool.nn.Parameter(spool.tensor([[1.0, 2.0]]))
            self.inner = spool.nn.Linear(2, 2)
            self.tied = self.inner

        def forward(self, x, *, bias=0.0):
            return self.inner(x) @ self.weight.T + bias

    return Linear


def linear_backward(module, inputs, output, grad):
    (x,) = inputs
    w, v = module.weight, module.inner.weight
    return grad @ w @ v, {
        "weight": grad.T @ module.tied(x),
        "inner.weight": (grad @ w).T @ x,
        "inner.bias": (grad @ w).sum(0),
    }


def test_custom_backward_of_a_module():
    net = make_linear(linear_backward)()
    x = spool.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)

    def grads(forward):
        net.zero_grad()
        x.grad = None
        forward(x).sin().sum().backward()
        return [t.grad.numpy().copy() for t in (x, *net.parameters())]

    wanted = grads(lambda v: net.inner(v) @ net.weight.T + 1.5)
    for got, want in zip(grads(lambda v: net(v, bias=1.5)), wanted):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    jitted = spool.jit(lambda v: net(v, bias=1.5))
    for _ in range(3):
        for got, want in zip(grads(jitted), wanted):
            np.testing.assert_allclose(got, want, rtol=1e-5)
    (first,) = spool.autograd.grad(net(x).sin().sum(), x, create_graph=True)
    second = spool.autograd.grad(first.sum(), net.weight)[0]
    (first,) = spool.autograd.grad((net.inner(x) @ net.weight.T).sin().sum(), x, create_graph=True)
    np.testing.assert_allclose(
        second.numpy(), spool.autograd.grad(first.sum(), net.weight)[0].numpy(), rtol=1e-4
    )


def test_custom_backward_of_a_module_whose_parameters_are_transformed():
    net = make_linear(linear_backward)()
    x = spool.tensor([[1.0, 2.0], [3.0, -1.0]])
    table = net._parameters
    weight = table["weight"]

    def loss(w, forward):
        table["weight"] = w
        try:
            return forward(x).sin().sum()
        finally:
            table["weight"] = weight

    def plain_forward(v):
        return net.inner(v) @ net.weight.T

    start = weight.detach()
    for build in (spool.func.grad, spool.func.hessian):
        got = build(lambda w: loss(w, net))(start)
        wanted = build(lambda w: loss(w, plain_forward))(start)
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4)
    rows = spool.stack([start, start * 2])
    got = spool.func.vmap(spool.func.grad(lambda w: loss(w, net)))(rows)
    wanted = spool.func.vmap(spool.func.grad(lambda w: loss(w, plain_forward)))(rows)
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4)
    assert net.weight is weight


def test_what_custom_backward_returns_is_checked():
    x = point(spool, [1.0, 2.0])

    def check(backward, *args, match):
        function = spool.autograd.custom_backward(backward)(lambda *a: a[0] * 1)
        with pytest.raises(RuntimeError, match=match):
            function(*args).sum().backward()

    check(lambda i, o, g: g, x, x, match="backward returned 1 gradients, expected 2")
    check(lambda i, o, g: (g, g, g), x, x, match="backward returned 3 gradients, expected 2")
    check(lambda i, o, g: (g, [g]), x, (x, x), match="a list as the gradient of argument 1")
    check(lambda i, o, g: (g, g), x, [x, x], match="a Tensor as the gradient of argument 1")
    check(lambda i, o, g: (g, g), x, 3, match="a Tensor as the gradient of argument 1")
    data = spool.ones(2, 2, requires_grad=True)
    with pytest.raises(
        RuntimeError, match="Linear: backward returned no gradients for the parameters"
    ):
        make_linear(lambda m, i, o, g: (g @ m.weight,))()(data).sum().backward()
    with pytest.raises(RuntimeError, match=r"Linear: backward returned gradients for \['other'\]"):
        make_linear(lambda m, i, o, g: ((g,), {"other": g}))()(data).sum().backward()
    make_linear(lambda m, i, o, g: (g @ m.weight, {}))()(data).sum().backward()
    assert numbers(data.grad) == [[1, 2], [1, 2]]
    with pytest.raises(TypeError, match="custom_backward: backward must be callable, not int"):
        spool.autograd.custom_backward(3)
    with pytest.raises(TypeError, match="decorates functions and Module classes, not int"):
        spool.autograd.custom_backward(linear_backward)(int)
    keyword = spool.autograd.custom_backward(linear_backward)(lambda *, x: x)
    with pytest.raises(TypeError, match="the Tensor x= can be given by keyword alone"):
        keyword(x=x)


def test_forward_mode_outside_of_a_transform():
    cube = make_cube(spool)
    fwd, torch_fwd = spool.autograd.forward_ad, torch.autograd.forward_ad
    with fwd.dual_level():
        dual = fwd.make_dual(spool.tensor(POINT), spool.tensor(POINT + 1))
        value, tangent = fwd.unpack_dual(cube.apply(dual))
    with torch_fwd.dual_level():
        dual = torch_fwd.make_dual(torch.tensor(POINT), torch.tensor(POINT + 1))
        wanted = torch_fwd.unpack_dual(make_cube(torch).apply(dual))
    np.testing.assert_allclose(value.numpy(), wanted.primal.numpy())
    np.testing.assert_allclose(tangent.numpy(), wanted.tangent.numpy())


def test_gradcheck_of_functions():
    x = point(spool, POINT)
    cube = make_cube(spool).apply
    assert spool.autograd.gradcheck(cube, x, check_forward_ad=True)
    assert spool.autograd.gradgradcheck(cube, x)
    wrong = make_reverse(spool, lambda t: t * 1).apply
    with pytest.raises(spool.autograd.GradcheckError):
        spool.autograd.gradcheck(wrong, x)


@pytest.mark.parametrize("which", ["tape", "transforms"])
def test_every_allocation_may_fail(which):
    cube, exp, double = make_cube(spool), make_exp(spool), make_double_(spool)
    x = point(spool, [0.5, 1.0])
    at = x.detach()

    def program():
        if which == "tape":
            y = cube.apply(double.apply(exp.apply(x) * 1))
            (g,) = spool.autograd.grad(y.sum(), x, create_graph=True)
            g.sum().backward()
            x.grad = None
        else:
            spool.func.vmap(spool.func.grad(spool.func.grad(cube.apply)))(at)
            spool.func.vmap(lambda v: spool.func.jvp(cube.apply, (v,), (v,)))(at)

    def live():
        gc.collect()
        spool.synchronize()
        return spool.memory_stats()["live_blocks"]

    with spool.hot(False):
        program()
        before = live()
        for nth in range(1, 2000):
            spool._C._memory_fail_nth(nth)
            try:
                program()
                done = True
            except MemoryError:
                done = False
            finally:
                spool._C._memory_fail_nth(0)
            x.grad = None
            if done:
                break
        assert done
        assert live() <= before


# ---- Taylor mode -----------------------------------------------------------------------------------------------------------


class Square(Function):
    """Two results, one of which it saves, and a constant."""

    @staticmethod
    def forward(x, y, power):
        return (x * y) ** power, x.exp(), x > 0

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.power = inputs
        ctx.save_for_forward(x, y, output[1])

    @staticmethod
    def jvp(ctx, tx, ty, t_power):
        x, y, e = ctx.saved_tensors
        slope = ctx.power * (x * y) ** (ctx.power - 1)
        return slope * (tx * y + x * ty), tx * e, None


def square_plain(x, y, power):
    return (x * y) ** power, x.exp(), x > 0


@pytest.mark.parametrize("order", [1, 2, 5])
def test_taylor_coefficients(order):
    x, y = spool.tensor(POINT), spool.tensor(POINT + 2)
    series = ([spool.tensor(POINT * k - 0.5) for k in range(order)], [spool.tensor(POINT / 2)])

    def run(function):
        return spool.func.jet(lambda a, b: function(a, b, 3)[:2], (x, y), series)

    got, wanted = run(Square.apply), run(square_plain)
    for g, w in zip(got[0], wanted[0]):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-12)
    for g, w in zip(got[1], wanted[1]):
        for a, b in zip(g, w):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)


def test_taylor_mode_nests():
    cube = make_cube(spool).apply
    x = spool.tensor(POINT)

    def coefficient(function):
        one = spool.ones_like(x)
        return lambda v: spool.func.jet(function, (v,), ([one, v, one],))[1][2]

    for outer in (
        lambda f: spool.func.grad(lambda v: f(v).sum())(x),
        lambda f: spool.func.jvp(f, (x,), (x,))[1],
        lambda f: spool.func.vmap(f)(x.unsqueeze(0).expand(2, 3)),
        lambda f: spool.func.jet(f, (x,), ([x, x],))[1][1],
    ):
        got = outer(coefficient(lambda v: cube(v.tanh())))
        wanted = outer(coefficient(lambda v: v.tanh() ** 3))
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-9)


def test_taylor_mode_needs_a_setup_context():
    class Old(make_exp(spool)):
        @staticmethod
        def jvp(ctx, t):
            return t * ctx.saved_tensors[0]

    x = spool.tensor(POINT)
    with pytest.raises(NotImplementedError, match="Old: inside jet it needs a setup_context"):
        spool.func.jet(Old.apply, (x,), ([x, x],))
    _, (first,) = spool.func.jet(Old.apply, (x,), ([x],))
    np.testing.assert_allclose(first.numpy(), POINT * np.exp(POINT))
