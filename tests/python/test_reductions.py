"""Reductions and running results beside PyTorch: NaN, infinities, ties, empty and strided inputs, accuracy, errors."""

import numpy as np
import pytest
import torch

import spool

pytestmark = pytest.mark.filterwarnings("ignore:.*(degrees of freedom|non-contiguous)")
NAN, INF = float("nan"), float("inf")
EDGES = [
    [[1.0, NAN, 3.0], [-INF, 2.0, INF], [0.0, -0.0, 0.0], [-INF, -INF, -INF]],
    [[NAN, NAN, NAN], [INF, INF, -INF], [2.0, 2.0, 1.0], [-1.0, -1.0, 5.0]],
]


def same(got, wanted, rtol=2e-6, atol=1e-6):
    """Values, shapes and dtypes of a tensor or of several."""
    if isinstance(got, tuple):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted):
            same(a, b, rtol, atol)
        return
    assert tuple(got.shape) == tuple(wanted.shape)
    assert str(got.dtype).split(".")[-1] == str(wanted.dtype).split(".")[-1]
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=rtol, atol=atol)


CALLS = {
    "amax": lambda m, x, d: m.amax(x, d),
    "amin": lambda m, x, d: m.amin(x, d),
    "max": lambda m, x, d: m.max(x, d),
    "min": lambda m, x, d: m.min(x, d, True),
    "argmax": lambda m, x, d: m.argmax(x, d),
    "argmin": lambda m, x, d: m.argmin(x, d),
    "prod": lambda m, x, d: m.prod(x, d),
    "any": lambda m, x, d: m.any(x, d),
    "all": lambda m, x, d: m.all(x, d, True),
    "count_nonzero": lambda m, x, d: m.count_nonzero(x, d),
    "nansum": lambda m, x, d: m.nansum(x, d),
    "nanmean": lambda m, x, d: m.nanmean(x, d),
    "var": lambda m, x, d: m.var(x, d),
    "std": lambda m, x, d: m.std(x, d, correction=0),
    "var_mean": lambda m, x, d: m.var_mean(x, d),
    "logsumexp": lambda m, x, d: m.logsumexp(x, d),
    "softmax": lambda m, x, d: m.softmax(x, d),
    "norm 2": lambda m, x, d: m.linalg.vector_norm(x, 2, d),
    "norm 1": lambda m, x, d: m.linalg.vector_norm(x, 1, d),
    "norm 0": lambda m, x, d: m.linalg.vector_norm(x, 0, d),
    "norm inf": lambda m, x, d: m.linalg.vector_norm(x, INF, d),
    "norm -inf": lambda m, x, d: m.linalg.vector_norm(x, -INF, d),
    "norm 3.5": lambda m, x, d: m.linalg.vector_norm(x, 3.5, d),
    "cumsum": lambda m, x, d: m.cumsum(x, d),
    "cumprod": lambda m, x, d: m.cumprod(x, d),
    "cummax": lambda m, x, d: m.cummax(x, d),
    "cummin": lambda m, x, d: m.cummin(x, d),
    "logcumsumexp": lambda m, x, d: m.logcumsumexp(x, d),
    "sort": lambda m, x, d: m.sort(x, dim=d, stable=True),
    "sort down": lambda m, x, d: m.sort(x, dim=d, descending=True, stable=True),
    "topk": lambda m, x, d: m.topk(x, 2, d)[0],
    "kthvalue": lambda m, x, d: m.kthvalue(x, 2, d)[0],
    "median": lambda m, x, d: m.median(x, d)[0],
}
calls = pytest.mark.parametrize("name", CALLS)


@calls
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_nan_infinities_and_ties(name, dim):
    data = np.array(EDGES, np.float32)
    if name == "var_mean":
        pytest.skip("PyTorch's mean of infinities is NaN here, other than its mean()")
    same(CALLS[name](spool, spool.tensor(data), dim), CALLS[name](torch, torch.tensor(data), dim))


@calls
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_strided_inputs(name, dim):
    data = np.random.default_rng(0).normal(size=(7, 150, 9)).astype(np.float32) * 0.9
    for view in (
        lambda x: x.permute(2, 0, 1) if dim == 0 else x.permute(0, 2, 1),
        lambda x: x[:, ::2, 1::3],
        lambda x: x[:1].expand(4, 150, 9),
    ):
        got = CALLS[name](spool, view(spool.tensor(data)), dim)
        # dense for PyTorch, whose median of an expanded tensor is wrong
        same(got, CALLS[name](torch, view(torch.tensor(data)).contiguous(), dim), 2e-5, 1e-5)


@calls
@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_and_truth(name, dtype):
    data = np.random.default_rng(1).integers(-2, 3, (4, 5))
    x, y = (m.tensor(data.astype(dtype)) for m in (spool, torch))
    try:
        wanted = CALLS[name](torch, y, 1)
    except (RuntimeError, TypeError):
        if name in ("topk", "kthvalue", "median"):
            return  # these order truth values, too
        with pytest.raises((spool.DTypeError, TypeError, ValueError)):
            CALLS[name](spool, x, 1)
        return
    same(CALLS[name](spool, x, 1), wanted)


@calls
@pytest.mark.parametrize("dim", [0, 1])
def test_empty_inputs(name, dim):
    """The same results, or an error in both."""
    x, y = spool.tensor(np.zeros((0, 3), np.float32)), torch.zeros(0, 3)
    try:
        wanted = CALLS[name](torch, y, dim)
    except (RuntimeError, IndexError) as error:
        with pytest.raises((ValueError, IndexError, RuntimeError)) as found:
            CALLS[name](spool, x, dim)
        assert "(0, 3)" in str(found.value), (found.value, error)
        return
    same(CALLS[name](spool, x, dim), wanted)


@calls
def test_a_dimension_out_of_range(name):
    with pytest.raises(IndexError, match="2"):
        CALLS[name](spool, spool.tensor(np.zeros((2, 3), np.float32)), 2)


@pytest.mark.parametrize(
    "name", ["max", "min", "amax", "prod", "norm 1", "norm 2", "norm inf", "norm 3.5", "std",
             "logsumexp", "nansum", "cumprod", "cummax", "logcumsumexp", "softmax"]
)  # fmt: skip
def test_gradients_at_zeros_and_ties(name):
    """First and second order, at zeros for products and norms, at ties for extrema."""
    data = np.array([[2.0, 0.0, 2.0], [0.0, -3.0, 0.0], [1.0, 4.0, 2.5], [0.0, 0.0, 0.0]])

    def gradients(m):
        x = m.tensor(data.tolist(), dtype=m.float64, requires_grad=True)
        out = CALLS[name](m, x, 1)
        out = out[0] if isinstance(out, tuple) else out
        weight = m.arange(1.0, out.numel() + 1, dtype=m.float64)
        (g,) = m.autograd.grad((out * weight.reshape(out.shape)).sum(), [x], create_graph=True)
        if not g.requires_grad:
            return (g,)
        second = m.autograd.grad((g * g).sum(), [x], allow_unused=True)[0]
        return (g,) if second is None else (g, second)

    for got, wanted in zip(gradients(spool), gradients(torch)):
        got, wanted = got.detach().numpy(), wanted.numpy(force=True)
        known = np.isfinite(wanted)  # PyTorch's own second derivatives are NaN at some zeros
        np.testing.assert_allclose(got[known], wanted[known], rtol=1e-9, atol=1e-9)


def test_third_derivative_of_a_product_with_zeros():
    def product(x):
        return x.prod()

    third = spool.func.grad(
        lambda x: spool.func.grad(lambda y: spool.func.grad(product)(y)[0])(x)[1]
    )
    got = third(spool.tensor([0.0, 0.0, 0.0, 5.0], dtype=spool.float64)).numpy()
    np.testing.assert_array_equal(got, [0, 0, 5, 0])


def test_results_have_names():
    x = spool.tensor([[1.0, 5.0], [7.0, 2.0]])
    found = x.max(1)
    assert found.values.tolist() == [5, 7] and found.indices.tolist() == [1, 0]
    values, indices = found
    assert values is found[0] and indices is found[1]
    assert type(found).__name__ == "max" and x.cummax(0).indices.shape == (2, 2)
    mapped = spool.func.vmap(lambda row: row.max(0))(x)
    assert type(mapped) is type(found) and mapped.indices.tolist() == [1, 0]
    jitted = spool.jit(lambda y: y.max(0))
    assert jitted(x).values.tolist() == [7, 5] and jitted(x).indices.tolist() == [1, 0]


def test_overloads():
    x = spool.tensor([[1.0, 5.0], [7.0, 2.0]])
    assert spool.max(x).item() == 7 and spool.min(x).item() == 1
    assert spool.max(x, spool.tensor(4.0)).tolist() == [[4, 5], [7, 4]]
    assert spool.min(x, spool.tensor(4.0)).tolist() == [[1, 4], [4, 2]]
    y = torch.tensor([[1.0, 5.0], [7.0, 2.0]])
    for call in (
        lambda t: t.var(1, False),
        lambda t: t.var(dim=0, unbiased=False, keepdim=True),
        lambda t: t.var(unbiased=False),
        lambda t: t.std(0),
        lambda t: t.std(correction=0),
        lambda t: t.std((0, 1), unbiased=True),
    ):
        same(call(x), call(y))


@pytest.mark.parametrize("name", ["sum", "mean", "var", "logsumexp", "norm", "cumsum"])
def test_ten_million_floats(name):
    """No worse than NumPy in float32, the truth being NumPy's in float64."""
    data = np.random.default_rng(2).random(10_000_000, np.float32) + 100
    x = spool.tensor(data)
    if name == "cumsum":
        got, numpys = x.cumsum(0).numpy(), np.cumsum(data)
        truth = np.cumsum(data.astype(np.float64))
        assert np.abs(got - truth).max() <= np.abs(numpys - truth).max()
        return
    run = {
        "sum": (lambda v: v.sum(), np.sum),
        "mean": (lambda v: v.mean(), np.mean),
        "var": (lambda v: v.var(correction=0), np.var),
        "logsumexp": (
            lambda v: v.logsumexp(0),
            lambda v: np.log(np.sum(np.exp(v - v.max()))) + v.max(),
        ),
        "norm": (lambda v: v.norm(), lambda v: np.sqrt(np.sum(v * v))),
    }[name]
    truth = float(run[1](data.astype(np.float64)))
    got, numpys = abs(run[0](x).item() - truth), abs(float(run[1](data)) - truth)
    assert got <= max(numpys, abs(truth) * 2**-24)


@pytest.mark.parametrize(
    "shape, dim", [((300_001,), 0), ((60, 5000), 1), ((5000, 60), 0), ((9, 70, 500), 1)]
)
def test_threads_do_not_change_running_results(shape, dim):
    x = spool.tensor(np.random.default_rng(3).normal(size=shape).astype(np.float32))
    before = spool.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            spool.set_num_threads(threads)
            found.append([x.cumsum(dim).numpy().tobytes(), x.max(dim).values.numpy().tobytes(),
                          x.cummax(dim).indices.numpy().tobytes(), x.prod(dim).numpy().tobytes()])  # fmt: skip
    finally:
        spool.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("n", [1, 15, 17, 300, 511, 512, 5000])
@pytest.mark.parametrize("kind", ["few values", "floats", "int64", "bool"])
def test_sorting_beside_torch(n, kind):
    """Every length that another algorithm serves, with ties, infinities, NaN and zeros of both signs."""
    rng = np.random.default_rng(n)
    data = {
        "few values": rng.choice(np.array([0.0, -0.0, 1, -1, INF, -INF, NAN], np.float32), (3, n)),
        "floats": rng.normal(size=(3, n)) * 10.0 ** rng.integers(-30, 30, (3, n)),
        "int64": rng.integers(-(2**62), 2**62, (3, n)),
        "bool": rng.integers(0, 2, (3, n)).astype(bool),
    }[kind]
    x, y = spool.tensor(data), torch.tensor(data)
    for descending in (False, True):
        same(x.sort(1, descending), y.sort(dim=1, descending=descending, stable=True))
        same(x.T.sort(0, descending), y.T.sort(dim=0, descending=descending, stable=True))
    same(x.argsort(), y.argsort(stable=True))
    for k in {1, n // 2, min(n, 64), min(n, 65), n}:
        for largest in (False, True):
            found, wanted = x.topk(k, 1, largest), y.sort(dim=1, descending=largest, stable=True)
            same(found, (wanted[0][:, :k], wanted[1][:, :k]))


def test_searchsorted_beside_torch():
    rng = np.random.default_rng(4)
    rows = np.sort(rng.integers(0, 20, (4, 30)), 1).astype(np.float32)
    values = rng.integers(-1, 22, (4, 300)).astype(np.float32)
    values[0, :3] = INF, -INF, NAN
    for right in (False, True):
        for sequence in (rows, rows[0]):
            got = spool.searchsorted(spool.tensor(sequence), spool.tensor(values), right=right)
            same(got, torch.searchsorted(torch.tensor(sequence), torch.tensor(values), right=right))
        got = spool.bucketize(spool.tensor(values.T), spool.tensor(rows[1]), right=right)
        same(got, torch.bucketize(torch.tensor(values.T), torch.tensor(rows[1]), right=right))
    with pytest.raises(spool.ShapeError, match="one dimension"):
        spool.searchsorted(spool.tensor(rows[:2]), spool.tensor(values))
    with pytest.raises(spool.DTypeError, match="float32 and x is int64"):
        spool.searchsorted(spool.tensor(rows), spool.tensor(np.ones((4, 2), np.int64)))


def test_k_out_of_range():
    x = spool.tensor([[1.0, 2.0]])
    for call in (
        lambda: x.topk(3),
        lambda: x.topk(-1),
        lambda: x.kthvalue(0),
        lambda: x.kthvalue(3),
    ):
        with pytest.raises(ValueError, match="k is .* 2 elements"):
            call()


# ---- moments, norms, logarithms of sums: no digits lost, nothing of x's size held

LARGE = {
    "sum": (lambda x: x.sum(), lambda a: a.sum()),
    "mean": (lambda x: x.mean(), lambda a: a.mean()),
    "var": (lambda x: x.var(correction=0), lambda a: a.var()),
    "norm": (lambda x: x.norm(), lambda a: np.sqrt((a * a).sum())),
    "logsumexp": (
        lambda x: x.logsumexp(0),
        lambda a: np.log(np.exp(a - a.max()).sum()) + a.max(),
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_ten_million_values_lose_no_more_digits_than_numpys(name):
    ours, numpys = LARGE[name]
    data = (np.random.default_rng(3).normal(size=10_000_000) * 2 + 100).astype(np.float32)
    exact = float(numpys(data.astype(np.float64)))
    unit = float(np.spacing(np.float32(exact)))
    got = abs(float(ours(spool.tensor(data)).item()) - exact)
    assert got <= max(abs(float(numpys(data)) - exact), unit)


@pytest.mark.parametrize("name", ["var", "norm", "logsumexp", "norm of order 3"])
@pytest.mark.parametrize("dim", [0, 1])
def test_nothing_of_the_arguments_size_is_held(name, dim):
    call = {
        "var": lambda x: x.var(dim),
        "norm": lambda x: x.norm(2, dim),
        "logsumexp": lambda x: x.logsumexp(dim),
        "norm of order 3": lambda x: x.norm(3, dim),
    }[name]
    x = spool.randn(2000, 1500)
    before = spool.memory_stats()["live_bytes"]
    spool._C._memory_reset_peak()
    call(x).numpy()
    assert spool.memory_stats()["peak_bytes"] - before < 1_500_000


@pytest.mark.parametrize("shape, dim", [((3, 70000), 1), ((9000, 70), 0), ((4, 5000, 3), 1)])
def test_sequences_of_several_parts(shape, dim):
    data = np.random.default_rng(4).normal(size=shape).astype(np.float32) + 3
    x, t = spool.tensor(data), torch.from_numpy(data.astype(np.float64))
    wide = spool.tensor(np.repeat(data[..., None], 2, -1))[..., 0]
    for call in (
        lambda m, v: m.var(v, dim),
        lambda m, v: m.norm(v, 2, dim),
        lambda m, v: m.norm(v, 3, dim),
        lambda m, v: m.logsumexp(v, dim),
    ):
        wanted = call(torch, t).numpy()
        for value in (x, wide):
            np.testing.assert_allclose(call(spool, value).numpy(), wanted, rtol=2e-6)
