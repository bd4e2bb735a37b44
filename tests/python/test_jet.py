"""Taylor mode: every sample of every op along a curve, against nested forward mode; its interface, nesting, writes and errors."""

import math

import numpy as np
import pytest
import torch
from samples import load
from test_samples import case_of

import spool

SAMPLES = [s for s in load() if s.differentiable]
ORDER = 4


def derivatives(function, order):
    """function and its derivatives at 0, by nested forward mode."""
    zero, one = spool.tensor(0.0, dtype=spool.float64), spool.tensor(1.0, dtype=spool.float64)
    found = []
    for _ in range(order + 1):
        found.append(function(zero).item())
        function = (lambda f: lambda t: spool.func.jvp(f, (t,), (one,))[1])(function)
    return found


@pytest.mark.parametrize("sample", SAMPLES, ids=[s.id for s in SAMPLES])
def test_series_are_nested_derivatives(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    rng = np.random.default_rng(3)
    points = [spool.tensor(p) for p in points]
    curves = [
        [spool.tensor(d * scale) for scale in (0.5, -0.3, 0.2, 0.1) for d in (directions[i],)]
        for i in range(len(points))
    ]
    for curve in curves:
        curve[1] = curve[1] * spool.tensor(rng.standard_normal(curve[1].shape))

    def along(t):
        return function(
            *(
                p + sum(c * t ** (k + 1) for k, c in enumerate(curve))
                for p, curve in zip(points, curves)
            )
        )

    wanted = derivatives(along, ORDER)
    value, series = spool.func.jet(function, tuple(points), tuple(curves))
    np.testing.assert_allclose(value.item(), function(*points).item(), rtol=1e-12, atol=1e-14)
    for k, got in enumerate(series, 1):
        expected = wanted[k] / math.factorial(k)
        np.testing.assert_allclose(got.item(), expected, rtol=1e-8, atol=1e-8, err_msg=f"order {k}")


# ---- the interface ---------------------------------------------------------------------------------------------------------


def number(value):
    return spool.tensor(value, dtype=spool.float64)


def row(*values):
    return spool.tensor(list(values), dtype=spool.float64)


def test_trees_and_short_lists():
    def f(tree, b):
        return {"p": tree["a"] * b, "q": [tree["l"][0].exp(), spool.ones(2), spool.tensor(3)]}

    a, b, c = row(1.0, 2.0), row(3.0, 4.0), number(0.0)
    one = row(1.0, 1.0)
    output, series = spool.func.jet(
        f, ({"a": a, "l": (c,)}, b), ({"a": [one], "l": (([number(1.0)]),)}, [one, one, one])
    )
    assert output["p"].tolist() == [3.0, 8.0]
    assert [t.tolist() for t in series["p"]] == [[4.0, 6.0], [2.0, 3.0], [2.0, 3.0]]
    np.testing.assert_allclose([t.item() for t in series["q"][0]], [1, 1 / 2, 1 / 6])
    assert [t.tolist() for t in series["q"][1]] == [[0.0, 0.0]] * 3
    assert [t.tolist() for t in series["q"][2]] == [0, 0, 0]


def test_normalised_coefficients_stay_in_range():
    x = spool.tensor(0.5)
    step = [spool.tensor(1.0)] + [spool.tensor(0.0)] * 49
    _, series = spool.func.jet(spool.exp, (x,), (step,))
    wanted = [math.exp(0.5) / math.factorial(k) for k in range(1, 51)]
    np.testing.assert_allclose([c.item() for c in series], wanted, rtol=1e-5, atol=1e-44)


def test_what_has_no_meaning_is_refused():
    x, one = number(1.0), number(1.0)
    jet = spool.func.jet
    with pytest.raises(spool.ShapeError, match="tangent of shape"):
        jet(spool.exp, (x,), ([row(1.0)],))
    with pytest.raises(spool.ShapeError, match="dtype float32"):
        jet(spool.exp, (x,), ([spool.tensor(1.0)],))
    with pytest.raises(ValueError, match="at least one"):
        jet(spool.exp, (x,), ([],))
    with pytest.raises(ValueError, match="1 to 64"):
        jet(spool.exp, (x,), ([one] * 65,))
    with pytest.raises(ValueError, match="structure"):
        jet(lambda a: a[0], ((x, x),), (([one],),))
    with pytest.raises(TypeError, match="list of coefficients"):
        jet(spool.exp, (x,), (one,))
    with pytest.raises(TypeError, match="tuple"):
        jet(spool.exp, x, ([one],))
    with pytest.raises(spool.DTypeError, match="floating"):
        jet(lambda a: a, (spool.tensor(1),), ([one],))
    with pytest.raises(TypeError, match="Tensors"):
        jet(lambda a: 1.0, (x,), ([one],))
    for n in (-1, 65, 1.5, True):
        with pytest.raises(ValueError, match="nth_derivative"):
            spool.func.nth_derivative(spool.exp, n)
    with pytest.raises(spool.DTypeError, match="floating"):
        spool.func.nth_derivative(spool.exp, 2)(spool.tensor(1))


def test_writing_to_what_is_outside_is_refused():
    outside = number(0.0)
    with pytest.raises(RuntimeError, match="outside of jet"):
        spool.func.nth_derivative(lambda x: outside.add_(x), 2)(number(1.0))
    with pytest.raises(RuntimeError, match="inside jet"):
        spool.func.nth_derivative(lambda x: spool.exp(x, out=outside), 2)(number(1.0))


def test_series_do_not_outlive_their_level():
    kept = []
    spool.func.nth_derivative(lambda x: kept.append(x) or x, 2)(number(1.0))
    with pytest.raises(RuntimeError, match="jet"):
        kept[0] * 2
    assert "jet_tensor" in repr(kept[0])


# ---- nth_derivative and laplacian -------------------------------------------------------------------------------------------


def test_nth_derivative_of_shapes_and_further_arguments():
    third = spool.func.nth_derivative(lambda x, c, power=5: (c * x**power, {"s": x.sin()}), 3)
    x = spool.tensor([[0.5, 1.0, 2.0]], dtype=spool.float64)
    p, rest = third(x, 2.0)
    np.testing.assert_allclose(p.numpy(), 120 * x.numpy() ** 2)
    np.testing.assert_allclose(rest["s"].numpy(), -np.cos(x.numpy()))
    assert third(x, 2.0, power=2)[0].tolist() == [[0.0, 0.0, 0.0]]
    same = spool.func.nth_derivative(lambda x: x * 2, 0)
    assert same(x).tolist() == (x * 2).tolist()
    assert spool.func.nth_derivative(spool.exp, 2)(spool.ones(0)).shape == (0,)


def network(lib, weights):
    def f(x):
        for w in weights[:-1]:
            x = lib.tanh(x @ w)
        return x @ weights[-1]

    return f


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_nth_derivative_of_a_network_is_torchs(order):
    rng = np.random.default_rng(0)
    sizes = [(1, 8), (8, 8), (8, 1)]
    weights = [rng.standard_normal(size) * 0.5 for size in sizes]
    x = rng.standard_normal((5, 1))
    theirs = network(torch, [torch.tensor(w) for w in weights])
    for _ in range(order):
        theirs = (lambda f: torch.func.grad(lambda x: f(x).sum()))(theirs)
    mine = spool.func.nth_derivative(network(spool, [spool.tensor(w) for w in weights]), order)
    np.testing.assert_allclose(
        mine(spool.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy(), rtol=1e-9, atol=1e-9
    )


def test_no_function_with_a_recurrence_falls_back():
    before = spool._C._jet_fallbacks()
    f = lambda x: spool.tanh(x).exp() / (x.sin() + 2) + spool.sigmoid(x).sqrt().rsqrt() * x**3  # noqa: E731
    spool.func.nth_derivative(f, 20)(row(0.1, 0.2))
    assert spool._C._jet_fallbacks() == before


def test_laplacian_is_the_trace_of_the_hessian():
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal((4, 4)), rng.standard_normal(4), rng.standard_normal((2, 2))

    def f(lib, w):
        return lambda x: (lib.tanh(w @ x) * x.exp()).sum()

    hessian = torch.func.hessian(f(torch, torch.tensor(w)))(torch.tensor(x))
    mine = spool.func.laplacian(f(spool, spool.tensor(w)))(spool.tensor(x))
    np.testing.assert_allclose(mine.item(), torch.trace(hessian).item(), rtol=1e-10)
    both = spool.func.laplacian(lambda a, b: {"v": a**2 * b.sum() + (b**3).sum()}, argnums=(0, 1))
    got = both(spool.tensor(x), spool.tensor(y))["v"].numpy()
    np.testing.assert_allclose(got, 2 * y.sum() + 6 * y.sum() * np.ones(4), rtol=1e-10)
    assert spool.func.laplacian(lambda x: x.sum())(spool.ones(0)).item() == 0


# ---- nesting ---------------------------------------------------------------------------------------------------------------

D = {
    "grad": lambda f: lambda x: spool.func.grad(lambda y: f(y).sum())(x),
    "jvp": lambda f: lambda x: spool.func.jvp(f, (x,), (spool.ones_like(x),))[1],
    "jet1": lambda f: spool.func.nth_derivative(f, 1),
    "jet2": lambda f: spool.func.nth_derivative(f, 2),
    "vmap": lambda f: lambda x: spool.func.vmap(f)(x.unsqueeze(0)).squeeze(0),
    "vjp": lambda f: lambda x: spool.func.vjp(f, x)[1](spool.ones_like(x))[0],
}


@pytest.mark.parametrize("outer", D)
@pytest.mark.parametrize("inner", D)
def test_nesting_with_other_transforms(outer, inner):
    order = {"vmap": 0, "jet2": 2}.get(outer, 1) + {"vmap": 0, "jet2": 2}.get(inner, 1)
    x = row(0.3, -0.8, 1.2)
    got = D[outer](D[inner](lambda x: spool.sin(x) * spool.tanh(x) + 1 / (2 + x * x)))(x)
    f = lambda x: spool.sin(x) * spool.tanh(x) + 1 / (2 + x * x)  # noqa: E731
    for _ in range(order):
        f = D["jvp"](f)
    np.testing.assert_allclose(got.numpy(), f(x).numpy(), rtol=1e-9, atol=1e-9)


def test_perturbations_are_not_confused():
    inner = lambda x: spool.func.nth_derivative(lambda y: x * y * y, 2)(number(3.0))  # noqa: E731
    assert spool.func.nth_derivative(lambda x: x * inner(x), 2)(number(5.0)).item() == 4.0
    assert spool.func.grad(lambda x: x * inner(x))(number(5.0)).item() == 20.0
    assert spool.func.jvp(lambda x: x * inner(x), (number(5.0),), (number(1.0),))[1].item() == 20.0


def test_on_the_tape_below():
    x = row(0.5, 1.5).requires_grad_()
    spool.func.nth_derivative(spool.exp, 3)(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([0.5, 1.5]))


def test_writes_and_views():
    def f(x):
        y = x * 1
        y[0] = y[1] * y[2]
        v = y[1:]
        v.mul_(x[0])
        y.exp_()
        return y * v.sum()

    x = row(0.3, 0.7, -0.2)
    for order in (1, 2, 3):
        g = f
        for _ in range(order):
            g = D["jvp"](g)
        got = spool.func.nth_derivative(f, order)(x)
        np.testing.assert_allclose(got.numpy(), g(x).numpy(), rtol=1e-10)
