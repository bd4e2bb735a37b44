"""Custom functions inside transforms of every kind and nesting, beside PyTorch and beside plain functions."""

import numpy as np
import pytest
import torch
from functions import (
    BOTH,
    NESTED,
    POINT,
    ROWS,
    composed,
    make_cube,
    make_exp,
    make_reverse,
    numbers,
    plain,
    point,
)

import spool
from spool.autograd import Function

# ---- transforms ------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(NotImplementedError, match="define setup_context"):
        spool.func.vmap(spool.func.grad(exp.apply))(x)
    exp.generate_vmap_rule = True
    for build in (
        lambda f: spool.func.vmap(spool.func.grad(f)),
        lambda f: spool.func.grad(lambda v: spool.func.vmap(f)(v).sum()),
    ):
        np.testing.assert_allclose(build(exp.apply)(x).numpy(), np.exp(POINT))
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


# ---- what else spool.func has ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda t, f, x: sum(pull(x * 0 + k)[0] for pull in [t.vjp(f, x)[1]] for k in (1, 2)),
        lambda t, f, x: t.linearize(f, x)[1](x + 1),
        lambda t, f, x: t.hvp(lambda v: f(v).sum(), (x,), (x,))[1],
        lambda t, f, x: t.nth_derivative(f, 4)(x),
        lambda t, f, x: t.laplacian(lambda v: f(v).sum())(x),
        lambda t, f, x: t.vmap(f, chunk_size=2)(x),
    ],
    ids=["vjp", "linearize", "hvp", "nth_derivative", "laplacian", "chunks"],
)
def test_other_transforms(build):
    cube = make_cube(spool).apply
    x = spool.tensor(POINT)
    got = build(spool.func, lambda v: cube(v.tanh()) * v, x)
    wanted = build(spool.func, lambda v: v.tanh() ** 3 * v, x)
    np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), rtol=1e-9)


def test_functions_of_complex_numbers():
    def make(lib):
        class Square(lib.autograd.Function):
            @staticmethod
            def forward(z):
                return z * z

            @staticmethod
            def setup_context(ctx, inputs, output):
                ctx.save_for_backward(*inputs)
                ctx.save_for_forward(*inputs)

            @staticmethod
            def backward(ctx, g):
                return g * 2 * ctx.saved_tensors[0].conj()

            @staticmethod
            def jvp(ctx, t):
                return 2 * t * ctx.saved_tensors[0]

        return Square

    def run(lib):
        z = lib.tensor([1 + 2j, 0.5 - 1j], requires_grad=True)
        (g,) = lib.autograd.grad(make(lib).apply(z).abs().sum(), z, create_graph=True)
        (h,) = lib.autograd.grad(g.abs().sum(), z)
        t = lib.func.jvp(make(lib).apply, (z.detach(),), (z.detach() + 1j,))[1]
        return [v.detach().resolve_conj() if lib is torch else v.detach() for v in (g, h, t)]

    for got, wanted in zip(run(spool), run(torch)):
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-5)
