"""Differences, integrals, blocks, covariances, ranks, closeness, places: as PyTorch's, edge values and all."""

import numpy as np
import pytest
import torch

import spool

NAN = float("nan")
rng = np.random.default_rng(0)


def both(*arrays):
    arrays = [np.asarray(a) for a in arrays]
    return [spool.tensor(a) for a in arrays], [torch.from_numpy(a.copy()) for a in arrays]


def same(got, wanted, exact=True):
    got = list(got) if isinstance(got, tuple) else [got]
    wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
    for a, b in zip(got, wanted):
        assert tuple(a.shape) == tuple(b.shape)
        assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
        close = (0, 0) if exact else (1e-12, 1e-12)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), *close)


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
def test_quantiles(name, interpolation):
    x = rng.normal(size=(4, 7))
    x[1, 3] = x[2] = NAN
    (ours, q), (theirs, their_q) = both(x, [0.0, 0.3, 0.5, 1.0])
    for keepdim in False, True:
        for dim in None, 0, 1:
            for a, b in ((q, their_q), (0.4, 0.4), (q[1], their_q[1])):
                same(
                    getattr(spool, name)(ours, a, dim, keepdim, interpolation=interpolation),
                    getattr(torch, name)(theirs, b, dim, keepdim, interpolation=interpolation),
                    False,
                )
    with pytest.raises(ValueError, match="share"):
        getattr(ours, name)(1.5)
    with pytest.raises(ValueError, match="no element"):
        getattr(spool, name)(spool.ones(0), 0.5)


def test_medians_without_nan():
    x = rng.normal(size=(4, 6))
    x[1, :4] = x[2] = NAN
    (ours,), (theirs,) = both(x)
    same(ours.nanmedian(), theirs.nanmedian())
    for dim in 0, 1:
        got, wanted = ours.nanmedian(dim, True), theirs.nanmedian(dim, True)
        same(got.values, wanted.values)
    assert spool.nanmedian(spool.tensor([NAN, NAN])).isnan().item()


def test_mode_takes_the_smallest_of_the_most_frequent():
    (ours,), (theirs,) = both(rng.integers(0, 4, (5, 30)))
    for dim in 0, 1:
        got, wanted = ours.mode(dim), theirs.mode(dim)
        same(got.values, wanted.values)
        picked = ours.gather(dim, got.indices.unsqueeze(dim)).squeeze(dim)
        np.testing.assert_array_equal(picked.numpy(), got.values.numpy())


def test_covariances_of_one_variable_and_of_weights():
    (x, f, a), (tx, tf, ta) = both(rng.normal(size=(3, 6)), rng.integers(1, 4, 6), rng.random(6))
    same(spool.cov(x, fweights=f), torch.cov(tx, fweights=tf), False)
    same(spool.cov(x, fweights=f, aweights=a), torch.cov(tx, fweights=tf, aweights=ta), False)
    same(spool.cov(x[0]), torch.cov(tx[0]), False)
    same(spool.cov(x[:1]), torch.cov(tx[:1]), False)
    same(spool.corrcoef(x), torch.corrcoef(tx), False)
    assert abs(spool.corrcoef(x[0]).item() - 1) < 1e-12


def test_closeness():
    values = [0.0, -0.0, 1.0, 1.00000001, NAN, float("inf"), float("-inf"), 1e9]
    grid = np.array(np.meshgrid(values, values)).reshape(2, -1)
    (x, y), (tx, ty) = both(*grid)
    for equal_nan in False, True:
        same(spool.isclose(x, y, equal_nan=equal_nan), torch.isclose(tx, ty, equal_nan=equal_nan))
    assert spool.allclose(x, x, equal_nan=True) is True
    assert x.allclose(x) is False and x.equal(x) is False
    assert spool.equal(spool.ones(2), spool.ones(2)) is True
    assert spool.equal(spool.ones(2), spool.ones(1, 2)) is False
    same(
        spool.isclose(x.long() * 0 + 3, y.long() * 0 + 3),
        torch.isclose(tx.long() * 0, ty.long() * 0),
    )
    with pytest.raises(ValueError, match="tolerances"):
        spool.isclose(x, y, rtol=-1)


def test_isin_of_nan_alone_and_infinities():
    for elements, others in (([NAN, float("-inf")], [NAN]), ([1.0, 7.0], [NAN, 1.0, NAN])):
        (x, y), (tx, ty) = both(elements, others)
        same(spool.isin(x, y), torch.isin(tx, ty))


def test_isin_of_both_signs_of_zero_and_nan():
    (x, y), (tx, ty) = both([0.0, -0.0, NAN, 3.0], [-0.0, NAN, 7.0])
    same(spool.isin(x, y), torch.isin(tx, ty))
    same(spool.isin(x, y, invert=True), torch.isin(tx, ty, invert=True))


def test_whole_numbers_divisors_and_multiples():
    (x, y), (tx, ty) = both(rng.integers(-50, 50, (30,)), rng.integers(-50, 50, (30,)))
    same(spool.gcd(x, y), torch.gcd(tx, ty))
    same(spool.lcm(x, y), torch.lcm(tx, ty))
    least = spool.tensor([-(2**63)])
    assert spool.gcd(least, spool.tensor([6])).item() == 2
    with pytest.raises(spool.DTypeError):
        spool.gcd(x.float(), y)


def test_steps_powers_and_angles():
    (x, v), (tx, tv) = both([-1.0, 0.0, -0.0, 2.0, NAN], [0.5, 0.25, 3.0, 1.0, 1.0])
    same(spool.heaviside(x, v), torch.heaviside(tx, tv))
    (a, b), (ta, tb) = both(
        [-1e308, -700.0, 3.0, 1e4, float("inf"), float("-inf")],
        [5.0, -701.0, 3.0, -1e4, 0.0, float("-inf")],
    )
    same(spool.logaddexp2(a, b), torch.logaddexp2(ta, tb), False)
    same(spool.float_power(spool.tensor([2, 3]), -1), torch.float_power(torch.tensor([2, 3]), -1))
    same(spool.float_power(2, spool.tensor([2, 3])), torch.float_power(2, torch.tensor([2, 3])))
    same(spool.ldexp(x, spool.tensor([3])), torch.ldexp(tx, torch.tensor([3])))


def test_blocks_and_tuples():
    (a, b), (ta, tb) = both(rng.normal(size=(2, 3)), rng.normal(size=(1, 2)))
    same(spool.block_diag(a, b), torch.block_diag(ta, tb))
    (x,), (tx,) = both(np.arange(6))
    for r, again in ((2, False), (3, True), (0, False), (6, False), (7, False)):
        same(spool.combinations(x, r, again), torch.combinations(tx, r, again))
    with pytest.raises(ValueError, match="ways"):
        spool.combinations(spool.arange(200), 50)


def test_places_from_the_end_and_out_of_range():
    x = spool.arange(6.0).reshape(2, 3)
    assert spool.take(x, spool.tensor([0, -1])).tolist() == [0, 5]
    x.put_(spool.tensor([0, 0]), spool.tensor([1.0, 2.0]), accumulate=True)
    assert x.tolist()[0][0] == 3
    x.index_fill_(1, spool.tensor([-1]), 9)
    assert x[:, 2].tolist() == [9, 9]
    for call in (
        lambda: spool.take(x, spool.tensor([6])),
        lambda: x.put(spool.tensor([-7]), spool.ones(1)),
        lambda: x.index_fill(0, spool.tensor([2]), 1),
    ):
        with pytest.raises(IndexError, match="out of range"):
            call()
    with pytest.raises(spool.ShapeError, match="as many"):
        x.put(spool.tensor([0]), spool.ones(2))


def test_integrals_and_differences():
    (y, x), (ty, tx) = both(rng.normal(size=(3, 5)), np.sort(rng.random(5)))
    same(spool.trapezoid(y, x), torch.trapezoid(ty, tx), False)
    same(spool.trapz(y, dx=0.5, dim=0), torch.trapz(ty, dx=0.5, dim=0), False)
    same(spool.cumulative_trapezoid(y, x), torch.cumulative_trapezoid(ty, tx), False)
    same(spool.diff(y, n=2, dim=0, append=y[:1]), torch.diff(ty, n=2, dim=0, append=ty[:1]))
    with pytest.raises(spool.ShapeError, match="points"):
        spool.trapezoid(y, x[:3])


@pytest.mark.parametrize("shape, dim", [((2000, 3), 0), ((3, 500, 70), 1), ((50, 300), -1)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16", "int8"])
def test_slices_by_index_whatever_the_layout_and_the_threads(shape, dim, dtype):
    x = spool.tensor(rng.integers(0, 2, shape)).to(getattr(spool, dtype))
    n = x.size(dim)
    index = spool.tensor(rng.integers(-n, n, 1000))
    taken = x.index_select(dim, index)
    wanted = np.take(x.numpy(), index.numpy() % n, dim)
    np.testing.assert_array_equal(taken.numpy(), wanted)
    added = spool.zeros_like(x).index_add(dim, index, taken)
    turned = taken.transpose(0, -1).contiguous().transpose(0, -1)
    again = spool.zeros_like(x).index_add(dim, index, turned)
    np.testing.assert_array_equal(added.numpy(), again.numpy())
    if dtype == "int64":
        total = np.zeros(x.shape, np.int64)
        np.add.at(np.moveaxis(total, dim, 0), index.numpy() % n, np.moveaxis(wanted, dim, 0))
        np.testing.assert_array_equal(added.numpy(), total)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_reductions_at_places(reduce, include_self):
    x, src = rng.normal(size=(4, 5)), rng.normal(size=(4, 7))
    index = rng.integers(0, 5, (4, 7))
    x[0, 0] = src[1, :2] = src[2, 3] = 0
    results = []
    for library, make in (spool, spool.tensor), (torch, torch.tensor):
        a, b, i = make(x).requires_grad_(), make(src).requires_grad_(), make(index)
        y = library.scatter_reduce(a, 1, i, b, reduce, include_self=include_self)
        (y * make(np.arange(20.0).reshape(4, 5))).sum().backward()
        results.append([t.detach().numpy() for t in (y, a.grad, b.grad)])
    for got, wanted in zip(*results):
        np.testing.assert_allclose(got, wanted, 1e-12, 1e-12)
    x[1, 2], src[0, 0] = NAN, NAN
    (ours, ours_src), (theirs, their_src) = both(x, src)
    got = ours.scatter_reduce(1, spool.tensor(index), ours_src, reduce, include_self=include_self)
    wanted = theirs.scatter_reduce(
        1, torch.tensor(index), their_src, reduce, include_self=include_self
    )
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), 1e-12)
    ours, theirs = spool.tensor(x).nan_to_num(), torch.tensor(x).nan_to_num()
    if reduce != "sum":
        got = ours.index_reduce(
            0, spool.tensor([1, 1, 3]), ours[:3], reduce, include_self=include_self
        )
        wanted = theirs.index_reduce(
            0, torch.tensor([1, 1, 3]), theirs[:3], reduce, include_self=include_self
        )
        np.testing.assert_allclose(got.numpy(), wanted.numpy())
    whole, their_whole = ours.long(), theirs.long()
    got = whole.scatter_reduce(1, spool.tensor(index), whole.new_ones(4, 7) * 5, reduce)
    wanted = their_whole.scatter_reduce(
        1, torch.tensor(index), their_whole.new_ones(4, 7) * 5, reduce
    )
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())


# ---- distances of rows ----


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize(
    "shapes", [((5, 3), (4, 3)), ((2, 1, 40, 70), (3, 17, 70)), ((130, 65), (33, 65))]
)
def test_cdist_is_pytorchs(shapes, p):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s) for s in shapes)
    ours = [spool.tensor(v, requires_grad=True) for v in (a, b)]
    theirs = [torch.tensor(v, requires_grad=True) for v in (a, b)]
    x, y = spool.cdist(*ours, p), torch.cdist(*theirs, p)
    np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), 1e-12)
    g = rng.normal(size=tuple(y.shape))
    x.backward(spool.tensor(g)), y.backward(torch.tensor(g))
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), 1e-9, 1e-9)


def test_cdist_of_views_and_halves():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 20)).astype("f4"), rng.normal(size=(33, 9)).astype("f4")
    x, y = spool.tensor(a).t(), spool.tensor(b)[::2]
    wanted = np.sqrt(((a.T[:, None].astype("f8") - b[::2][None]) ** 2).sum(-1))
    np.testing.assert_allclose(spool.cdist(x, y).numpy(), wanted, 1e-6)
    half = spool.cdist(x.bfloat16(), y.bfloat16())
    assert half.dtype == spool.bfloat16
    np.testing.assert_allclose(half.float().numpy(), wanted, 0.02)


def test_cdist_keeps_the_digits_of_small_distances():
    rng = np.random.default_rng(2)
    a = (rng.normal(size=(40, 64)) * 1e-3 + 100).astype("f4")
    wanted = np.sqrt(((a[:, None].astype("f8") - a[None]) ** 2).sum(-1))
    x = spool.tensor(a, requires_grad=True)
    d = spool.cdist(x, x)
    np.testing.assert_allclose(d.detach().numpy(), wanted, 1e-6)
    spool.cdist(x, x.detach()).sum().backward()
    away = a[:, None].astype("f8") - a[None]
    safe = np.where(wanted == 0, 1, wanted)[..., None]
    np.testing.assert_allclose(x.grad.numpy(), (away / safe).sum(1), 1e-3, 1e-3)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_cdist_of_equal_rows_has_finite_derivatives(p):
    x = spool.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    (g,) = spool.autograd.grad(spool.cdist(x, x.detach(), p).sum(), [x], create_graph=True)
    (h,) = spool.autograd.grad((g * g).sum(), [x])
    assert np.isfinite(g.detach().numpy()).all() and np.isfinite(h.numpy()).all()


def test_cdist_refuses_what_does_not_fit():
    x = spool.zeros(3, 4)
    with pytest.raises(ValueError, match="expected"):
        spool.cdist(x, spool.zeros(3, 5))
    with pytest.raises(ValueError, match="broadcast"):
        spool.cdist(spool.zeros(2, 3, 4), spool.zeros(3, 3, 4))
    with pytest.raises(ValueError, match="0 or more"):
        spool.cdist(x, x, -1.0)
    with pytest.raises(TypeError, match="cdist"):
        spool.cdist(x.long(), x.long())
