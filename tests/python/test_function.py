"""Custom functions: what PyTorch documents of torch.autograd.Function, and that nothing is silently zero.

Programs are written once and run with both libraries where PyTorch has the feature.
"""

import traceback

import numpy as np
import pytest
import torch
from functions import (
    BOTH,
    make_cube,
    make_double_,
    make_exp,
    make_once,
    make_reverse,
    make_scale,
    numbers,
    point,
)

import spool
from spool.autograd import Function, once_differentiable

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
