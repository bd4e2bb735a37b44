"""Roots and fixed points: derivatives of any order, in any mode, against closed forms; what does not converge is an error."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import spool
from spool.func.krylov import gmres

func = spool.func


def numbers(*values):
    return spool.tensor(list(values), dtype=spool.float64)


def number(value):
    return spool.tensor(value, dtype=spool.float64)


def newton(function, x):
    """For functions of each element by itself."""
    for _ in range(60):
        value, slope = func.jvp(function, (x,), (spool.ones_like(x),))
        x = x - value / slope
    return x


def cube_root(a):
    return func.custom_root(lambda x, a: x**3 - a, newton, spool.ones_like(a) * 1.5, a)


def square_root(a):
    return func.fixed_point(lambda x, a: (x + a / x) / 2, spool.ones_like(a), a)


def power_rule(power, order, x):
    """The derivative of x ** power."""
    return np.prod([power - k for k in range(order)]) * np.asarray(x) ** (power - order)


CASES = [(cube_root, 1 / 3), (square_root, 1 / 2)]
MODES = {
    "grad": lambda f: func.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: func.jvp(f, (x,), (spool.ones_like(x),))[1],
}
close = np.testing.assert_allclose


@pytest.mark.parametrize("root, power", CASES)
@pytest.mark.parametrize(
    "modes", ["", "g", "j", "gg", "jj", "gj", "jg", "ggg", "gjg", "jjj", "gggg"]
)
def test_any_order_in_any_mode(root, power, modes):
    f = root
    for mode in modes:
        f = MODES["grad" if mode == "g" else "jvp"](f)
    x = [0.5, 2.0, 9.0]
    close(f(numbers(*x)).numpy(), power_rule(power, len(modes), x), rtol=1e-9)


@pytest.mark.parametrize("root, power", CASES)
def test_on_the_tape(root, power):
    x = numbers(0.5, 2.0).requires_grad_()
    y = root(x)
    for order in range(1, 4):
        (y,) = spool.autograd.grad(y.sum(), x, create_graph=True)
        close(y.detach().numpy(), power_rule(power, order, [0.5, 2.0]), rtol=1e-9)
    assert not root(numbers(1.0)).requires_grad
    with spool.no_grad():
        assert not root(x).requires_grad


@pytest.mark.parametrize("root, power", CASES)
def test_mapped(root, power):
    x = numbers(0.5, 2.0, 9.0)
    for order in range(3):
        f = root
        for _ in range(order):
            f = func.grad(f)
        close(func.vmap(f)(x).numpy(), power_rule(power, order, x.numpy()), rtol=1e-9)
    wanted = np.diag(power_rule(power, 1, x.numpy()))
    close(func.jacrev(root)(x).numpy(), wanted, rtol=1e-9, atol=1e-12)
    close(func.jacfwd(root)(x).numpy(), wanted, rtol=1e-9, atol=1e-12)
    second = np.diag(power_rule(power, 2, x.numpy()))
    close(func.hessian(lambda x: root(x).sum())(x).numpy(), second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("root, power", CASES)
def test_in_taylor_mode(root, power):
    for order in range(1, 6):
        got = func.nth_derivative(root, order)(numbers(0.5, 2.0)).numpy()
        close(got, power_rule(power, order, [0.5, 2.0]), rtol=1e-8)
    got = func.grad(lambda x: func.nth_derivative(root, 2)(x).sum())(numbers(2.0)).numpy()
    close(got, power_rule(power, 3, [2.0]), rtol=1e-8)


def test_one_start_for_mapped_arguments():
    roots = func.vmap(
        lambda a, b: func.fixed_point(lambda x, a, b: spool.cos(x) * a + b, number(0.1), a, b),
        in_dims=(0, None),
    )(numbers(0.2, 0.4), number(0.3))
    for x, a in zip(roots.tolist(), (0.2, 0.4)):
        close(np.cos(x) * a + 0.3, x, rtol=1e-12)


def test_systems_and_trees_of_arguments():
    rng = np.random.default_rng(0)
    w = spool.tensor(rng.standard_normal((5, 5)) * 0.15)
    p = {"w": w, "b": [spool.tensor(rng.standard_normal(5))], "n": spool.tensor(2)}

    def layer(x, p):
        return spool.tanh(p["w"] @ x + p["b"][0]) * p["n"] / 2

    def loss(p, steps=None):
        x = spool.zeros(5, dtype=spool.float64)
        if steps is None:
            x = func.fixed_point(layer, x, p)
        for _ in range(steps or 0):
            x = layer(x, p)
        return (x**3).sum()

    def floats(f):
        return lambda w, b, **k: f({"w": w, "b": [b], "n": p["n"]}, **k)

    args = (w, p["b"][0])
    close(loss(p).item(), loss(p, 100).item(), rtol=1e-12)
    for got, wanted in zip(
        func.grad(floats(loss), (0, 1))(*args), func.grad(floats(loss), (0, 1))(*args, steps=100)
    ):
        close(got.numpy(), wanted.numpy(), rtol=1e-9, atol=1e-12)
    vector = spool.tensor(rng.standard_normal(5))
    close(
        func.hvp(lambda b: loss({**p, "b": [b]}), (args[1],), (vector,)).numpy(),
        func.hvp(lambda b: loss({**p, "b": [b]}, 100), (args[1],), (vector,)).numpy(),
        rtol=1e-8,
        atol=1e-11,
    )


def test_steps_are_not_kept():
    """The tape of a solution does not grow with the number of steps."""

    def live(steps):
        x = number(1.0).requires_grad_()
        before = spool.memory_stats()["live_blocks"]
        y = func.fixed_point(lambda x, a: x + (a - x) / steps, number(0.0), x, max_iter=100_000)
        after = spool.memory_stats()["live_blocks"]
        assert y.requires_grad
        return after - before

    assert live(2) == live(200)


def test_what_does_not_converge_is_an_error():
    with pytest.raises(RuntimeError, match="no convergence in 50 steps"):
        func.fixed_point(lambda x, a: x * 2 + a, number(1.0), number(1.0), max_iter=50)
    with pytest.raises(RuntimeError, match="no convergence"):
        func.fixed_point(lambda x, a: x * x + a, number(10.0), number(1.0))
    with pytest.raises(RuntimeError, match="no convergence"):
        func.grad(lambda a: func.fixed_point(lambda x, a: -x + a, number(0.3), a))(number(1.0))
    with pytest.raises(RuntimeError, match="did not find a root"):
        func.custom_root(lambda x, a: x - a, lambda f, x: x, number(1.0), number(2.0))
    with pytest.raises(RuntimeError, match="did not find a root"):
        func.custom_root(lambda x, a: x - a, lambda f, x: x * np.nan, number(1.0), number(2.0))
    with pytest.raises(spool.ShapeError, match="solve must return"):
        func.custom_root(lambda x, a: x - a, lambda f, x: 1.0, number(1.0), number(2.0))
    loose = func.custom_root(lambda x, a: x - a, lambda f, x: x, number(1.0), number(1.1), tol=0.2)
    assert loose.item() == 1.0


def test_singular_equations_have_no_derivative():
    def double_root(a):  # (x - a)^2 = 0
        return func.custom_root(lambda x, a: (x - a) ** 2, lambda f, x: x, number(1.0), a)

    with pytest.raises(RuntimeError, match="singular"):
        func.grad(double_root)(number(1.0))


def test_what_is_closed_over_must_not_be_differentiated_by():
    a = number(2.0).requires_grad_()
    with pytest.raises(RuntimeError, match="arguments"):
        func.fixed_point(lambda x: (x + a / x) / 2, number(1.0))
    with pytest.raises(RuntimeError, match="grad"):
        func.grad(lambda a: func.fixed_point(lambda x: (x + a / x) / 2, number(1.0)))(number(2.0))
    with pytest.raises(RuntimeError, match="jvp"):
        func.jvp(
            lambda a: func.fixed_point(lambda x: (x + a / x) / 2, number(1.0)),
            (number(2.0),),
            (number(1.0),),
        )
    with spool.no_grad():
        close(func.fixed_point(lambda x: (x + a / x) / 2, number(1.0)).item(), 2**0.5)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="x0"):
        func.fixed_point(lambda x: x, 1.0)
    with pytest.raises(TypeError, match="x0"):
        func.custom_root(lambda x: x, newton, spool.tensor(1))
    with pytest.raises(TypeError, match="arguments"):
        func.fixed_point(lambda x, a: x, number(1.0), 2.0)


EXAMPLE = Path(__file__).parents[2] / "bindings/python/examples/differentiable_program.py"


@pytest.mark.skipif(not EXAMPLE.exists(), reason="an installed package, without the examples")
def test_a_whole_program(capsys):
    """Pre-processing, a network, a while loop with an implicit gradient and a soft sort, to the first parameter."""
    spec = importlib.util.spec_from_file_location("differentiable_program", EXAMPLE)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert program.main(["--steps", "4", "--images", "10"]) == 0
    assert "ok" in capsys.readouterr().out


# ---- linear systems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_gmres_solves_any_regular_system(size):
    rng = np.random.default_rng(size)
    matrix, right = rng.standard_normal((size, size)), rng.standard_normal(size)
    a, b = spool.tensor(matrix), spool.tensor(right)
    close(gmres(lambda w: a @ w, b).numpy(), np.linalg.solve(matrix, right), rtol=1e-7)
    assert gmres(lambda w: a @ w, b * 0).tolist() == [0.0] * size


def test_gmres_takes_a_step_for_each_eigenvalue():
    steps = []
    a = spool.diag(numbers(*([1.0, 2.0, 5.0] * 30)))
    b = spool.ones(90, dtype=spool.float64)
    gmres(lambda w: (steps.append(1), a @ w)[1], b)
    assert len(steps) == 3


@pytest.mark.parametrize("matrix", [[[0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])
def test_gmres_says_that_a_system_is_singular(matrix):
    a = spool.tensor(matrix, dtype=spool.float64)
    b = spool.tensor([1.0, 2.0][: len(matrix)], dtype=spool.float64)
    with pytest.raises(RuntimeError, match="singular"):
        gmres(lambda w: a @ w, b)
