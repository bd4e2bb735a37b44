"""Functions of complex numbers: how exact they are, C's special values, bits that depend on nothing but the operands."""

import itertools

import mpmath
import numpy as np
import pytest
from mpmath import mpc
from samples import FULL

import spool

NAMES = ("complex64", "complex128")
each = pytest.mark.parametrize("name", NAMES)
COUNT = 4000 if FULL else 300
EDGES = (0.0, -0.0, 0.5, -2.0, 1e-30, 80.0, -750.0, 3e38, np.inf, -np.inf, np.nan)

# In units of the last place of the whole number. Those with an unbounded argument of exp lose its size in complex128,
# as C's do.
REFERENCES = {
    "abs": (lambda z: abs(z), 1),
    "angle": (mpmath.arg, 1),
    "reciprocal": (lambda z: 1 / z, 4),
    "sgn": (lambda z: z / abs(z), 2),
    "sqrt": (mpmath.sqrt, 3),
    "rsqrt": (lambda z: 1 / mpmath.sqrt(z), 6),
    "exp": (mpmath.exp, 3),
    "exp2": (lambda z: mpc(2) ** z, 8),
    "expm1": (mpmath.expm1, 4),
    "log": (mpmath.log, 2),
    "log2": (lambda z: mpmath.log(z) / mpmath.ln2, 3),
    "log10": (mpmath.log10, 3),
    "log1p": (lambda z: mpmath.log(1 + z), 3),
    "sin": (mpmath.sin, 3),
    "cos": (mpmath.cos, 3),
    "tan": (mpmath.tan, 6),
    "asin": (mpmath.asin, 3),
    "acos": (mpmath.acos, 3),
    "atan": (mpmath.atan, 3),
    "sinh": (mpmath.sinh, 3),
    "cosh": (mpmath.cosh, 3),
    "tanh": (mpmath.tanh, 6),
    "asinh": (mpmath.asinh, 3),
    "acosh": (mpmath.acosh, 3),
    "atanh": (mpmath.atanh, 3),
    "sigmoid": (lambda z: 1 / (1 + mpmath.exp(-z)), 8),
    "sinc": (lambda z: mpmath.sin(mpmath.pi * z) / (mpmath.pi * z), 12),
}
BY_NUMPY = "sqrt exp log sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh".split()
IN_NUMPY = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
IN_NUMPY |= {f"{k}h": f"{v}h" for k, v in IN_NUMPY.items()}
BINARY = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "logaddexp": lambda x, y: spool.logaddexp(x, y),
    "eq": lambda x, y: x == y,
    "lerp": lambda x, y: spool.lerp(x, y, y),
    "alpha": lambda x, y: spool.add(x, y, alpha=3),
}
UNARY = {name: (lambda n: lambda x: getattr(spool, n)(x))(name) for name in REFERENCES}
UNARY |= {
    "neg": lambda x: -x,
    "isnan": spool.isnan,
    "whole powers": lambda x: spool.cat([x**n for n in (0, 1, 2, 3, 5, -1, -2)]),
    "other powers": lambda x: spool.cat([x**n for n in (0.5, -0.5, 1.5, 100)]),
    "a number": lambda x: spool.cat([x * 2, x + 2, 2 - x, x / 3, 2 / x]),
    "bool": lambda x: x.to(spool.bool),
    "parts": lambda x: spool.complex(x.imag, x.real),
}


def spread(seed=0):
    """Numbers of many sizes, some with an absolute value near 1, some near a zero or a pole of the functions."""
    rng = np.random.default_rng(seed)
    turn = np.exp(1j * rng.uniform(-np.pi, np.pi, COUNT))
    size = np.concatenate([10.0 ** rng.uniform(-6, 1, COUNT // 2), rng.normal(1, 1e-6, COUNT // 4)])
    near = np.pi / 2 * rng.integers(-3, 4, COUNT // 4) + rng.normal(0, 1e-6, COUNT // 4)
    return np.concatenate([turn[: len(size)] * size, near + 1j * rng.normal(0, 1e-3, len(near))])


def edges(name):
    with np.errstate(over="ignore"):
        parts = np.array(EDGES, "f4" if name == "complex64" else "f8")
    return np.array([complex(a, b) for a, b in itertools.product(parts, repeat=2)], name)


def bits(array):
    """What has no sign or payload of NaN to compare."""
    flat = array.view(array.real.dtype) if array.dtype.kind == "c" else array
    return np.where(flat != flat, 1, flat.view(f"u{flat.itemsize}"))


@each
@pytest.mark.parametrize("op", REFERENCES)
def test_functions_are_exact_to_a_few_units(op, name):
    reference, bound = REFERENCES[op]
    x = spread().astype(name)
    got = getattr(spool, op)(spool.tensor(x)).numpy()
    eps = np.finfo(name).eps
    with mpmath.workdps(60):
        for z, mine in zip(x, got):
            wanted = reference(mpc(complex(z)))
            size = abs(wanted)
            assert abs(mpc(complex(mine)) - wanted) <= bound * eps * size, (z, mine, wanted)


@each
def test_logarithms_near_one_keep_their_real_part(name):
    rng = np.random.default_rng(0)
    turn = np.exp(1j * rng.uniform(-np.pi, np.pi, COUNT))
    x = (turn * (1 + 10.0 ** rng.uniform(-16, -1, COUNT))).astype(name)
    got = spool.log(spool.tensor(x)).real.numpy()
    with mpmath.workdps(60):
        for z, mine in zip(x, got):
            wanted = mpmath.log(abs(mpc(complex(z))))
            assert abs(float(mine) - wanted) <= 2 * np.finfo(name).eps * abs(wanted), z


@each
@pytest.mark.parametrize("op", BY_NUMPY)
def test_special_values_are_cs(op, name):
    x = edges(name)
    got = getattr(spool, op)(spool.tensor(x)).numpy()
    with np.errstate(all="ignore"):  # in complex128, since the table is of what C says of both
        wanted = getattr(np, IN_NUMPY.get(op, op))(x.astype("complex128")).astype(name)
    for part in ("real", "imag"):
        mine, theirs = getattr(got, part), getattr(wanted, part)
        np.testing.assert_allclose(mine, theirs, 16 * np.finfo(name).eps, err_msg=op)
        zero = theirs == 0
        np.testing.assert_array_equal(np.signbit(mine[zero]), np.signbit(theirs[zero]), op)


@each
def test_absolute_values_neither_overflow_nor_underflow(name):
    least, most = np.finfo(name).tiny, np.finfo(name).max / 2
    x = np.array([3 + 4j, 3e-4 + 4e-4j, 1j]) * np.array([[1], [least], [most / 4]])
    x = x.astype(name)
    with mpmath.workdps(40):
        wanted = np.array([float(abs(mpc(complex(z)))) for z in x.flat]).reshape(x.shape)
    got, eps = spool.tensor(x).abs().numpy(), np.finfo(name).eps
    np.testing.assert_allclose(got, wanted, 2 * eps, np.finfo(name).smallest_subnormal)
    for z in (complex(np.inf, np.nan), complex(np.nan, -np.inf)):
        assert spool.tensor(z, dtype=getattr(spool, name)).abs().item() == np.inf


@each
@pytest.mark.parametrize("op", UNARY)
def test_an_elements_bits_depend_on_it_alone(op, name):
    x = np.concatenate([spread(1)[:61].astype(name), edges(name)])
    rng, f = np.random.default_rng(0), UNARY[op]

    def results(array):
        return bits(f(spool.tensor(array)).numpy().reshape(-1, len(array)).T.copy())

    wanted = results(x)
    for n in (1, 2, 3, 5, 9):
        at = rng.integers(0, len(x) - n)
        np.testing.assert_array_equal(results(x[at : at + n]), wanted[at : at + n])
    order = rng.permutation(len(x))
    np.testing.assert_array_equal(results(x[order]), wanted[order])
    at = int(rng.integers(0, len(x)))
    np.testing.assert_array_equal(results(np.repeat(x[at], 7)), wanted[[at] * 7])
    one = f(spool.tensor(x[at : at + 1]).expand(7)).numpy().reshape(-1, 7).T.copy()
    np.testing.assert_array_equal(bits(one), wanted[[at] * 7])
    big = np.resize(x, 40000)
    np.testing.assert_array_equal(results(big), np.resize(wanted, (40000, *wanted.shape[1:])))


@each
@pytest.mark.parametrize("op", BINARY)
def test_a_pairs_bits_depend_on_it_alone(op, name):
    rng, f = np.random.default_rng(0), BINARY[op]
    x = np.concatenate([spread(1)[:50].astype(name), edges(name), np.array([2, 1j, 0.5], name)])
    y = rng.permutation(np.concatenate([x, np.array([2, 3, -1, 0.5, 0, 7], name)]))[: len(x)]
    wanted = bits(f(spool.tensor(x), spool.tensor(y)).numpy().reshape(-1, 1))
    for at in range(0, len(x), 7):
        one, other = spool.tensor(x[at : at + 1]), spool.tensor(y[at : at + 1])
        np.testing.assert_array_equal(
            bits(f(one, other).numpy().reshape(-1, 1)), wanted[at : at + 1]
        )
        splat = f(spool.tensor(x[at : at + 9]), other.expand(min(9, len(x) - at))).numpy()
        np.testing.assert_array_equal(bits(splat.reshape(-1, 1))[0], wanted[at])
    order = rng.permutation(len(x))
    again = f(spool.tensor(x[order]), spool.tensor(y[order])).numpy().reshape(-1, 1)
    np.testing.assert_array_equal(bits(again), wanted[order])
