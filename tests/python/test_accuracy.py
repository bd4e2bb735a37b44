"""Every elementwise function within its bound of the exact value, in units in the last place, by mpmath.

A function of one floating tensor in the op table has a reference here or is exact; a new one without either fails.
"""

import csv
import math
import zlib
from pathlib import Path

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf
from samples import FULL, load

import spool

COUNT = 20_000 if FULL else 2_000
MEASURED = Path(__file__).resolve().parents[2] / "ops/accuracy.csv"
BOUND = 2.0
BOUNDS = dict.fromkeys(["tanh", "erf", "gelu", "sigmoid"], 4.0)


def sinc(x):
    return mpf(1) if x == 0 else mpmath.sinpi(x) / (mpmath.pi * x)


def selu(x):
    scale, alpha = mpf(1.0507009873554805), mpf(1.6732632423543772)
    return scale * (x if x > 0 else alpha * mpmath.expm1(x))


REFERENCES = {
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "exp": mpmath.exp,
    "log": mpmath.log,
    "sqrt": mpmath.sqrt,
    "tanh": mpmath.tanh,
    "exp2": lambda x: mpf(2) ** x,
    "expm1": mpmath.expm1,
    "log2": lambda x: mpmath.log(x) / mpmath.ln2,
    "log10": mpmath.log10,
    "log1p": mpmath.log1p,
    "logit": lambda x: mpmath.log(x / (1 - x)),
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "atan": mpmath.atan,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "asinh": mpmath.asinh,
    "acosh": mpmath.acosh,
    "atanh": mpmath.atanh,
    "sinc": sinc,
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "lgamma": mpmath.loggamma,
    "digamma": mpmath.digamma,
    "erfinv": mpmath.erfinv,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "softplus": lambda x: x if x > 20 else mpmath.log1p(mpmath.exp(x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "celu": lambda x: x if x > 0 else mpmath.expm1(x),
    "selu": selu,
    "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
    "logsigmoid": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "softsign": lambda x: x / (1 + abs(x)),
}
# Exact, correctly rounded by a single operation, or a chain of two of them that is the definition.
PLAIN = set(
    "abs sign sgn angle neg floor ceil trunc round frac square relu leaky_relu hardtanh hardswish hardsigmoid clone "
    "conj_physical".split()
)
DOMAINS = {  # all numbers where nothing else is said
    **dict.fromkeys(["log", "log2", "log10", "sqrt", "rsqrt"], (0, np.inf)),
    **dict.fromkeys(["lgamma", "digamma"], (0, np.inf)),  # zeros lie between poles below
    **dict.fromkeys(["asin", "acos", "atanh", "erfinv"], (-1, 1)),
    "log1p": (-1, np.inf),
    "logit": (0, 1),
    "acosh": (1, np.inf),
}
LARGEST = dict.fromkeys(["erfc", "gelu"], 1e3)  # beyond it they are constant, and mpmath takes long
FROM_ZERO = {"digamma": 0.01}  # about its root, the distance from that counts: two numbers cancel
HARD = [
    0.25,
    0.5,
    0.75,
    1,
    1.5,
    2,
    10,
    20,
    88,
    90,
    91.5,
    708,
    713,
    *np.arange(1, 40) * np.pi / 4,
    *np.exp(range(8)),
]


def functions():
    """Public names of the table's functions of one floating tensor (and numbers with defaults)."""
    names = {}
    for sample in load():
        entry = sample.entry
        one = [a for a in sample.args if isinstance(a, dict)]
        if "pointwise" not in entry["flags"] or len(one) != 1 or "." in sample.op:
            continue
        if len(sample.args) == 1 and not sample.kwargs and "function" in entry["variants"]:
            names[sample.op] = entry
    return names


def arguments(name, dtype):
    """Random arguments of all sizes, others near where functions turn, and these themselves."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    largest = LARGEST.get(name, float(np.finfo(dtype).max) ** 0.999)
    sizes = np.exp(rng.uniform(np.log(np.finfo(dtype).tiny), np.log(largest), COUNT // 4))
    hard = np.array(HARD)
    near = rng.choice(hard, COUNT // 4) * (
        1 + rng.normal(size=COUNT // 4) * 10.0 ** rng.integers(-8, 0)
    )
    x = np.concatenate([sizes, near, hard, rng.normal(size=COUNT // 4) * 4, rng.random(COUNT // 4)])
    x = np.concatenate([x, -x]).astype(dtype)
    x = x[(x > low) & (x < high) & (np.abs(x) <= largest)]
    return rng.permutation(x)[:COUNT]


def distances(got, exact):
    """|got - exact| in units in the last place of exact, where that is a normal number."""
    info = np.finfo(got.dtype)
    for value, wanted in zip(got, exact):
        if not info.tiny <= abs(wanted) <= info.max:
            continue
        unit = mpf(float(np.spacing(abs(got.dtype.type(float(wanted))))))
        yield abs(mpf(float(value)) - wanted) / unit if np.isfinite(value) else mpf("inf")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_distance_from_the_exact_value(name, dtype):
    assert farthest(name, dtype) <= BOUNDS.get(name, BOUND)


def farthest(name, dtype):
    x = arguments(name, dtype)
    got = getattr(spool, name)(spool.tensor(x)).numpy()
    with mp.workprec(160):
        exact = [REFERENCES[name](mpf(float(v))) for v in x]
        least = FROM_ZERO.get(name, 0)
        pairs = [(g, e) for g, e in zip(got, exact) if abs(e) >= least]
        found = [
            float(d) for d in distances(np.array([g for g, _ in pairs]), [e for _, e in pairs])
        ]
    assert len(found) > COUNT // 10
    return max(found)


def times_log(x, y):
    return x * mpmath.log(y)


def log_of_sum(x, y, base=mpmath.e):
    return max(x, y) + mpmath.log1p(base ** -abs(x - y)) / mpmath.log(base)


def of_all_sizes(rng, n, most):
    """Two of either sign, half of them near each other."""
    x, other = np.exp(rng.uniform(-most, most, (2, n)))
    y = np.where(
        rng.random(n) < 0.5, np.minimum(x, np.exp(most / 2)) * np.exp(rng.normal(size=n)), other
    )
    return x * rng.choice([-1, 1], n), y * rng.choice([-1, 1], n)


def near_one(rng, n):
    return np.exp(rng.normal(size=n) * 10.0 ** rng.integers(-6, 1, n))


def mixed(rng, n):
    x, y = rng.normal(size=(2, n)) * 10.0 ** rng.integers(-2, 3, n)
    return x, np.where(rng.random(n) < 0.5, x + y / 10, y)


# Functions of two tensors: (exact, arguments of a random generator and a largest exponent).
OF_TWO = {
    "atan2": (mpmath.atan2, of_all_sizes),
    "hypot": (mpmath.hypot, of_all_sizes),
    "pow": (mpmath.power, lambda rng, n, most: (near_one(rng, n), rng.normal(size=n) * most)),
    "xlogy": (times_log, lambda rng, n, most: (rng.normal(size=n) * 10, near_one(rng, n))),
    "logaddexp": (log_of_sum, lambda rng, n, most: mixed(rng, n)),
    "logaddexp2": (lambda x, y: log_of_sum(x, y, mpf(2)), lambda rng, n, most: mixed(rng, n)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(OF_TWO))
def test_functions_of_two(name, dtype):
    exact, draw = OF_TWO[name]
    most = np.log(float(np.finfo(dtype).max)) * 0.95
    x, y = (v.astype(dtype) for v in draw(np.random.default_rng(5), COUNT, most))
    got = getattr(spool, name)(spool.tensor(x), spool.tensor(y)).numpy()
    with mp.workprec(160):
        wanted = [exact(mpf(float(a)), mpf(float(b))) for a, b in zip(x, y)]
        found = np.array(
            [next(iter(distances(got[i : i + 1], [w])), 0) for i, w in enumerate(wanted)]
        )
    assert np.count_nonzero(found) > COUNT // 3
    if name.startswith("logaddexp"):  # a sum of two terms, which may cancel: in units of the larger
        larger = np.maximum(x, y)
        units = [np.spacing(np.abs(v)) for v in (got, larger, got - larger)]
        found = found * units[0] / np.max(units, 0)
    assert found.max() <= BOUND


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_gelu_by_tanh(dtype):
    x = arguments("gelu", dtype)
    got = spool.nn.functional.gelu(spool.tensor(x), approximate="tanh").numpy()
    with mp.workprec(160):
        factor = 2 * mpmath.sqrt(2 / mpmath.pi)
        numbers = [mpf(float(v)) for v in x]
        exact = [v / (1 + mpmath.exp(-factor * (v + mpf("0.044715") * v**3))) for v in numbers]
        assert max(map(float, distances(got, exact))) <= BOUNDS["gelu"]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_polygamma(n, dtype):
    rng = np.random.default_rng(n)
    x = np.concatenate([np.exp(rng.uniform(-1, 5, COUNT // 10)), np.arange(1, 40) / 2]).astype(
        dtype
    )
    got = spool.polygamma(n, spool.tensor(x)).numpy()
    with mp.workprec(160):
        exact = [mpmath.psi(n, mpf(float(v))) for v in x]
        assert max(float(d) for d in distances(got, exact)) <= BOUND


def test_gamma_below_zero_and_at_poles():
    """Between poles, where zeros lie: to 1e-13 of the largest of what is added; infinite where PyTorch's are."""
    x = np.array([-0.5, -1.25, -7.75, -3.1, -100.5, -1e4 - 0.25])
    for name, exact in (
        ("digamma", mpmath.digamma),
        ("lgamma", lambda v: mpmath.re(mpmath.loggamma(v))),
    ):
        got = getattr(spool, name)(spool.tensor(x)).numpy()
        np.testing.assert_allclose(got, [float(exact(v)) for v in x], 1e-12, 1e-12)
    for n in (1, 2, 3):
        got = spool.polygamma(n, spool.tensor(x)).numpy()
        np.testing.assert_allclose(got, [float(mpmath.psi(n, v)) for v in x], 1e-12, 1e-11)
    ends = spool.tensor([0.0, -0.0, -1.0, -2.0, math.inf, math.nan])
    assert spool.digamma(ends).tolist()[:2] == [-math.inf, math.inf]
    assert (
        np.isnan(spool.digamma(ends).numpy()[[2, 3, 5]]).all()
        and spool.digamma(ends)[4] == math.inf
    )
    assert np.isposinf(spool.lgamma(ends).numpy()[:5]).all()
    assert np.isposinf(spool.polygamma(1, ends).numpy()[:4]).all()
    assert spool.polygamma(1, ends).numpy()[4] == 0
    assert spool.erfinv(spool.tensor([-1.0, 1.0, -0.0])).tolist() == [-math.inf, math.inf, -0.0]
    assert spool.erfinv(spool.tensor([1.5, math.nan])).isnan().all()
    with pytest.raises(ValueError, match="n is -1"):
        spool.polygamma(-1, ends)


def test_what_was_measured_is_in_the_op_reference():
    """SPOOL_TEST_FULL=1 python test_accuracy.py writes it anew."""
    with MEASURED.open(newline="") as file:
        rows = {row["op"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(REFERENCES)
    for name, row in rows.items():
        bound = BOUNDS.get(name, BOUND)
        assert float(row["bound"]) == bound
        assert max(float(row["float32"]), float(row["float64"])) <= bound


def test_every_function_has_a_bound():
    floating = set()
    for name in functions():
        try:
            result = getattr(spool, name)(spool.tensor([0.5]))
        except TypeError:  # of integers alone
            continue
        if result.dtype == spool.float32:
            floating.add(name)
    assert floating - PLAIN - set(REFERENCES) == set()


def main():
    with MEASURED.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["op", "float32", "float64", "bound"])
        for name in sorted(REFERENCES):
            found = [f"{farthest(name, dtype):.2f}" for dtype in (np.float32, np.float64)]
            rows.writerow([name, *found, f"{BOUNDS.get(name, BOUND):g}"])


if __name__ == "__main__":
    main()
