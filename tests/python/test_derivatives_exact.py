"""Derivatives of functions of one number against mpmath's: orders 1 to 4 by nested grad, by forward mode and by
``nth_derivative``; Taylor coefficients to order 8."""

import math

import mpmath
import numpy as np
import pytest

import spool

F = spool.nn.functional
mp = mpmath.mp
POINTS = (0.3, 0.85, 1.7)
SQRT2 = math.sqrt(2)


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def normal_cdf(x):
    return (1 + mp.erf(x / mp.sqrt(2))) / 2


def softplus(x):
    return mp.log1p(mp.exp(x))


# name -> (Spool's, mpmath's, what the points are multiplied with)
FUNCTIONS = {
    "exp": (spool.exp, mp.exp, 1),
    "exp2": (spool.exp2, lambda x: mp.power(2, x), 1),
    "expm1": (spool.expm1, mp.expm1, 1),
    "log": (spool.log, mp.log, 1),
    "log2": (spool.log2, lambda x: mp.log(x, 2), 1),
    "log10": (spool.log10, mp.log10, 1),
    "log1p": (spool.log1p, mp.log1p, 1),
    "sqrt": (spool.sqrt, mp.sqrt, 1),
    "rsqrt": (spool.rsqrt, lambda x: 1 / mp.sqrt(x), 1),
    "reciprocal": (spool.reciprocal, lambda x: 1 / x, 1),
    "square": (spool.square, lambda x: x * x, 1),
    "cube": (lambda x: x**3, lambda x: x**3, 1),
    "tenth power": (lambda x: x**10, lambda x: x**10, 1),
    "power -3": (lambda x: x**-3, lambda x: x**-3, 1),
    "power 2.7": (lambda x: x**2.7, lambda x: mp.power(x, mp.mpf(2.7)), 1),
    "power of itself": (lambda x: x**x, lambda x: mp.power(x, x), 1),
    "2 to the power": (lambda x: 2.5**x, lambda x: mp.power(mp.mpf(2.5), x), 1),
    "sin": (spool.sin, mp.sin, 1),
    "cos": (spool.cos, mp.cos, 1),
    "tan": (spool.tan, mp.tan, 0.5),
    "asin": (spool.asin, mp.asin, 0.5),
    "acos": (spool.acos, mp.acos, 0.5),
    "atan": (spool.atan, mp.atan, 1),
    "sinh": (spool.sinh, mp.sinh, 1),
    "cosh": (spool.cosh, mp.cosh, 1),
    "tanh": (spool.tanh, mp.tanh, 1),
    "asinh": (spool.asinh, mp.asinh, 1),
    "acosh": (lambda x: spool.acosh(x + 1.5), lambda x: mp.acosh(x + 1.5), 1),
    "atanh": (spool.atanh, mp.atanh, 0.5),
    "sinc": (spool.sinc, mp.sincpi, 1),
    "erf": (spool.erf, mp.erf, 1),
    "erfc": (spool.erfc, mp.erfc, 1),
    "erfinv": (spool.erfinv, mp.erfinv, 0.4),
    "lgamma": (spool.lgamma, mp.loggamma, 1),
    "digamma": (spool.digamma, mp.digamma, 1),
    "polygamma 2": (lambda x: spool.polygamma(2, x), lambda x: mp.polygamma(2, x), 1),
    "sigmoid": (spool.sigmoid, sigmoid, 1),
    "logit": (spool.logit, lambda x: mp.log(x / (1 - x)), 0.5),
    "logsigmoid": (F.logsigmoid, lambda x: -softplus(-x), 1),
    "softplus": (F.softplus, softplus, 1),
    "silu": (F.silu, lambda x: x * sigmoid(x), 1),
    "gelu": (F.gelu, lambda x: x * normal_cdf(x), 1),
    "gelu by tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf(0.044715) * x**3))),
        1,
    ),
    "mish": (F.mish, lambda x: x * mp.tanh(softplus(x)), 1),
    "softsign": (F.softsign, lambda x: x / (1 + abs(x)), 1),
    "elu": (lambda x: F.elu(-x), lambda x: mp.expm1(-x), 1),
    "logaddexp": (
        lambda x: spool.logaddexp(x, 2 * x),
        lambda x: mp.log(mp.exp(x) + mp.exp(2 * x)),
        1,
    ),
    "xlogy": (lambda x: spool.xlogy(x, x + 1), lambda x: x * mp.log(x + 1), 1),
    "atan2": (lambda x: spool.atan2(x, x * x + 1), lambda x: mp.atan2(x, x * x + 1), 1),
    "hypot": (lambda x: spool.hypot(x, x + 2), lambda x: mp.sqrt(x**2 + (x + 2) ** 2), 1),
    "softmax": (
        lambda x: spool.softmax(spool.stack([x, x * x, x * 0]), 0)[1],
        lambda x: mp.exp(x * x) / (mp.exp(x) + mp.exp(x * x) + 1),
        1,
    ),
    "logsumexp": (
        lambda x: spool.logsumexp(spool.stack([x, x * x, x * 0]), 0),
        lambda x: mp.log(mp.exp(x) + mp.exp(x * x) + 1),
        1,
    ),
    "layer_norm": (
        lambda x: F.layer_norm(spool.stack([x, x * x, x * 0], -1), (3,))[..., 0],
        lambda x: (
            (x - (x + x * x) / 3)
            / mp.sqrt((x * x + x**4) / 3 - ((x + x * x) / 3) ** 2 + mp.mpf(1e-5))
        ),
        1,
    ),
    "product": (
        lambda x: spool.stack([x, x.sin(), x.exp(), x + 1]).prod(0),
        lambda x: x * mp.sin(x) * mp.exp(x) * (x + 1),
        1,
    ),
    "sin exp": (lambda x: spool.sin(x) * spool.exp(x), lambda x: mp.sin(x) * mp.exp(x), 1),
    "quotient": (
        lambda x: (x * x + 1) / (x**3 + 2 * x + 3),
        lambda x: (x * x + 1) / (x**3 + 2 * x + 3),
        1,
    ),
    "composed": (
        lambda x: spool.exp(spool.sin(spool.log(x + 1)) * spool.sqrt(x)),
        lambda x: mp.exp(mp.sin(mp.log(x + 1)) * mp.sqrt(x)),
        1,
    ),
    "gaussian": (lambda x: spool.exp(-x * x / 2), lambda x: mp.exp(-x * x / 2), 1),
    "damped": (
        lambda x: spool.cos(5 * x) / (1 + x * x),
        lambda x: mp.cos(5 * x) / (1 + x * x),
        1,
    ),
    "branches": (
        lambda x: spool.where(x > 0.5, x.sin(), x.exp()),
        lambda x: mp.sin(x) if x > 0.5 else mp.exp(x),
        1,
    ),
    "bounded": (lambda x: spool.clamp(x, 0.4, 1.0) ** 2 * x, None, 1),
    "matmul": (
        lambda x: spool.einsum("...ij,...jk->...", _matrix(x), _matrix(x)),
        lambda x: (lambda m: mp.fsum((m * m)[i, j] for i in range(2) for j in range(2)))(
            mp.matrix([[x, mp.sin(x)], [1, mp.exp(x)]])
        ),
        1,
    ),
}


def _matrix(x):
    return spool.stack(
        [spool.stack([x, x.sin()], -1), spool.stack([spool.ones_like(x), x.exp()], -1)], -2
    )


def bounded(x):
    return mp.mpf(0.4) ** 2 * x if x < 0.4 else x if x > 1 else x**3


FUNCTIONS["bounded"] = (FUNCTIONS["bounded"][0], bounded, 1)


def exact(function, point, order):
    """Taylor coefficients, computed with 60 digits."""
    with mp.workdps(60):
        return [float(c) for c in mp.taylor(function, mp.mpf(point), order)]


def tensor(points):
    return spool.tensor(points, dtype=spool.float64)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def nested(step, function, order):
    for _ in range(order):
        function = step(function)
    return function


def by_grad(f):
    return lambda x: spool.func.grad(lambda y: f(y).sum())(x)


def by_jvp(f):
    return lambda x: spool.func.jvp(f, (x,), (spool.ones_like(x),))[1]


def test_there_are_sixty():
    assert len(FUNCTIONS) >= 60


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_exact(name):
    mine, theirs, scale = FUNCTIONS[name]
    points = [p * scale for p in POINTS]
    series = [exact(theirs, p, 8) for p in points]
    x = tensor(points)
    for order in range(1, 5):
        wanted = [s[order] * math.factorial(order) for s in series]
        close(spool.func.nth_derivative(mine, order)(x).numpy(), wanted)
        close(nested(by_grad, mine, order)(x).numpy(), wanted)
        close(nested(by_jvp, mine, order)(x).numpy(), wanted)
    step = [spool.ones_like(x)] + [spool.zeros_like(x)] * 7
    value, coefficients = spool.func.jet(mine, (x,), (step,))
    for order, got in enumerate([value, *coefficients]):
        close(got.numpy(), [s[order] for s in series])
