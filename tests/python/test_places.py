"""Indexed reading and writing, running results and parts in every layout, as PyTorch has them, whatever the threads."""

import numpy as np
import pytest
import torch

import spool

LAYOUTS = ["dense", "transposed", "stepped"]


def laid_out(array, layout):
    """The same values with other strides."""
    if layout == "transposed":
        return spool.tensor(np.ascontiguousarray(array.T)).permute(*range(array.ndim)[::-1])
    if layout == "stepped":
        wide = np.repeat(array, 2, axis=-1)
        return spool.tensor(wide)[..., ::2]
    return spool.tensor(array)


def numbers(rng, shape, dtype="float32"):
    return rng.integers(-9, 9, shape).astype(dtype)


def equal(ours, theirs):
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


SHAPES = [
    ((7,), (9,), 0),
    ((5, 40), (3, 90), 1),
    ((5, 40), (60, 33), 0),
    ((4, 3, 17), (4, 20, 9), 1),
    ((6, 5, 4), (2, 1, 30), 2),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "int16"])
@pytest.mark.parametrize(("shape", "index_shape", "dim"), SHAPES)
def test_an_index_for_each_element(shape, index_shape, dim, dtype, layout):
    rng = np.random.default_rng(0)
    x, src = numbers(rng, shape, dtype), numbers(rng, index_shape, dtype)
    index = rng.integers(0, shape[dim], index_shape)
    ours = [laid_out(a, layout) for a in (x, index, src)]
    theirs = [torch.from_numpy(a) for a in (x, index, src)]
    equal(spool.gather(ours[0], dim, ours[1]), torch.gather(theirs[0], dim, theirs[1]))
    equal(spool.scatter(*ours[:1], dim, *ours[1:]), torch.scatter(*theirs[:1], dim, *theirs[1:]))
    equal(
        spool.scatter_add(ours[0], dim, *ours[1:]), torch.scatter_add(theirs[0], dim, *theirs[1:])
    )
    for how in ["amax", "amin", "prod"] if dtype != "bool" else []:
        equal(
            spool.scatter_reduce(ours[0], dim, *ours[1:], how),
            torch.scatter_reduce(theirs[0], dim, *theirs[1:], how),
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
@pytest.mark.parametrize(
    ("shape", "n", "dim"),
    [((7,), 9, 0), ((5, 40), 8, 0), ((5, 40), 90, 1), ((4, 3, 17), 5, 1), ((4, 3, 17), 50, 2)],
)
def test_an_index_for_each_slice(shape, n, dim, dtype, layout):
    rng = np.random.default_rng(0)
    x = numbers(rng, shape, dtype)
    src = numbers(rng, [n if d == dim else s for d, s in enumerate(shape)], dtype)
    index = rng.integers(0, shape[dim], n)
    own, other, at = laid_out(x, layout), laid_out(src, layout), spool.tensor(index)
    theirs, places = torch.from_numpy(x), torch.from_numpy(index)
    equal(spool.index_select(own, dim, at), torch.index_select(theirs, dim, places))
    equal(
        spool.index_add(own, dim, at, other),
        torch.index_add(theirs, dim, places, torch.from_numpy(src)),
    )
    once = np.unique(index)  # PyTorch leaves open which of several counts
    part = np.take(src, range(len(once)), axis=dim)
    equal(
        spool.index_copy(own, dim, spool.tensor(once), laid_out(part, layout)),
        torch.index_copy(theirs, dim, torch.from_numpy(once), torch.from_numpy(part)),
    )


def test_empty_slices_have_indices_too():
    x, index = spool.zeros(3, 0), spool.tensor([7])
    for call in (
        lambda: spool.index_select(x, 0, index),
        lambda: spool.index_add(x, 0, index, spool.zeros(1, 0)),
    ):
        with pytest.raises(IndexError, match="7 is out of range"):
            call()


@pytest.mark.parametrize("strays", [[5], [-6], [0, 2**62], [-(2**63)]])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_stray_index_leaves_arguments_alone(strays, in_place):
    """Alone or among thousands, at the call or in the queue: the first one is named."""
    for n in (len(strays), 40_000):
        index = spool.tensor(np.r_[np.zeros(n - len(strays), "i8"), strays])
        x, src = spool.arange(5.0), spool.ones(n)
        for op, args in (("scatter_add", (src,)), ("scatter", (src,)), ("gather", ())):
            if in_place and not args:
                continue
            with pytest.raises(IndexError, match=f"index {strays[-1]} is out of range"):
                getattr(x, op + "_" * in_place)(0, index, *args).numpy()
            assert x.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 5000])
@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_places_of_masks(n, share):
    mask = np.random.default_rng(n).random(n) < share
    x = np.arange(n, dtype="f4")
    ours, theirs = spool.tensor(x), torch.from_numpy(x)
    m, tm = spool.tensor(mask), torch.from_numpy(mask)
    np.testing.assert_array_equal(ours[m].numpy(), theirs[tm].numpy())
    np.testing.assert_array_equal(spool.nonzero(m).numpy(), torch.nonzero(tm).numpy())
    got, wanted = ours.masked_scatter(m, -ours), theirs.masked_scatter(tm, -theirs)
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "float16"])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((9,), 0), ((7, 30), 0), ((7, 30), 1), ((70, 3, 5), 0), ((70, 3, 5), 1), ((3, 5, 70), 2)],
)
def test_running_results(shape, dim, dtype, layout):
    x = np.random.default_rng(0).integers(-2, 3, shape).astype(dtype)
    own, theirs = laid_out(x, layout), torch.from_numpy(x)
    equal(spool.cumsum(own, dim), torch.cumsum(theirs, dim))
    equal(spool.cumprod(own, dim), torch.cumprod(theirs, dim))
    for name in ["cummax", "cummin"]:
        ours, peers = getattr(spool, name)(own, dim), getattr(torch, name)(theirs, dim)
        equal(ours.values, peers.values)
        equal(ours.indices, peers.indices)


def run_all(threads):
    spool.set_num_threads(threads)
    rng = np.random.default_rng(0)
    x, y = (spool.tensor(rng.normal(size=(300, 700)).astype("f4")) for _ in range(2))
    index = spool.tensor(rng.integers(0, 300, (300, 700)))
    line = spool.tensor(rng.integers(0, 300, 900))
    long = spool.tensor(rng.normal(size=(900, 700)).astype("f4"))
    results = [spool.gather(x, d, index) for d in (0, 1)]
    results += [spool.scatter_add(x, d, index, y) for d in (0, 1)]
    results += [spool.scatter(x, d, index, y) for d in (0, 1)]
    results += [
        spool.scatter_reduce(x, d, index, y, how)
        for d in (0, 1)
        for how in ("prod", "amax", "mean")
    ]
    results += [spool.index_add(x, 0, line, long), spool.index_copy(x, 0, line, long)]
    results += [spool.cumsum(x, d) for d in (0, 1)] + [spool.searchsorted(spool.sort(x).values, y)]
    return [r.numpy().tobytes() for r in results]


def test_threads_change_no_bit():
    threads = spool.get_num_threads()
    try:
        assert run_all(1) == run_all(4)
    finally:
        spool.set_num_threads(threads)


# ---- parts ----


def parts_loss(lib, x):
    a, b, c = lib.split(x, [2, 3, 1], 1)
    rows = x.unbind(0)
    windows = [x[:, i : i + 3] for i in range(4)]
    loss = (a * a).sum() + (c * c * c).sum()  # b goes unused
    loss = loss + (rows[0] * rows[2]).sum()
    return loss + sum(((w * w).sum() * (i + 1) for i, w in enumerate(windows)), 0 * loss)


def test_gradients_of_parts():
    x = np.random.default_rng(0).normal(size=(3, 6))
    own, theirs = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    parts_loss(spool, own).backward()
    parts_loss(torch, theirs).backward()
    np.testing.assert_allclose(own.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)


def test_second_gradients_of_parts():
    x = np.random.default_rng(0).normal(size=(3, 6))
    own, theirs = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    (g,) = spool.autograd.grad(parts_loss(spool, own), [own], create_graph=True)
    (h,) = torch.autograd.grad(parts_loss(torch, theirs), [theirs], create_graph=True)
    (gg,) = spool.autograd.grad((g * g).sum(), [own])
    (hh,) = torch.autograd.grad((h * h).sum(), [theirs])
    np.testing.assert_allclose(gg.numpy(), hh.numpy(), rtol=1e-12)


def test_hooks_see_the_gradients_of_parts():
    x, seen = spool.tensor(np.arange(6.0), requires_grad=True), []
    parts = spool.split(x, [2, 2, 2])
    for i, part in enumerate(parts):
        part.register_hook(lambda g, i=i: seen.append((i, g.tolist())) or g * 10)
    sum(part.sum() * (i + 1) for i, part in enumerate(parts)).backward()
    assert sorted(seen) == [(0, [1.0, 1.0]), (1, [2.0, 2.0]), (2, [3.0, 3.0])]
    assert x.grad.tolist() == [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]


# ---- products at zeros ----

FACTORS = [[0.0, 2.0, -1.5], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.5, -2.0, 0.5]]


def second_of(lib, f, x):
    (g,) = lib.autograd.grad(f(x), [x], create_graph=True)
    weights = lib.tensor(np.linspace(0.5, 2.0, x.numel()).reshape(tuple(x.shape)))
    (h,) = lib.autograd.grad((g * weights).sum(), [x], allow_unused=True, create_graph=True)
    (k,) = lib.autograd.grad((h * h + h).sum(), [x], allow_unused=True)
    return [g, h, k]


def product_by_hand(rows, index, n):
    """The sum of squares of what becomes of ones, the elements at one place multiplied in."""
    total = 0
    for j in range(rows.shape[1]):
        places = [1.0 + 0 * rows[0, j]] * n
        for i in range(rows.shape[0]):
            places[index[i][j]] = places[index[i][j]] * rows[i, j]
        for p in places:
            total = total + p * p + p
    return total


def test_all_derivatives_of_scattered_products():
    index = [[1, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]]
    own = spool.tensor(np.array(FACTORS), requires_grad=True)
    theirs = torch.tensor(FACTORS, dtype=torch.float64, requires_grad=True)

    def scattered(src):
        ones = spool.ones(2, 3, dtype=spool.float64)
        p = spool.scatter_reduce(ones, 0, spool.tensor(index), src, "prod")
        return (p * p + p).sum()

    for a, b in zip(
        second_of(spool, scattered, own),
        second_of(torch, lambda s: product_by_hand(s, index, 2), theirs),
    ):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_all_derivatives_of_what_products_begin_with():
    x = np.array([[0.0, 2.0, 0.0], [3.0, 0.0, -1.0]])
    src = torch.tensor([[0.0, 0.0], [2.0, 0.5]], dtype=torch.float64)
    index = torch.tensor([[1, -1], [1, 0]]) % 3
    own, theirs = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)

    def scattered(t):
        p = spool.scatter_reduce(
            t, 1, spool.tensor(index.numpy()), spool.tensor(src.numpy()), "prod"
        )
        return (p * p * p + p).sum()

    def by_hand(t):
        total = 0
        for i in range(2):
            row = [t[i, k] for k in range(3)]
            for j in range(2):
                row[index[i, j]] = row[index[i, j]] * src[i, j]
            total = total + sum(p * p * p + p for p in row)
        return total

    for a, b in zip(second_of(spool, scattered, own), second_of(torch, by_hand, theirs)):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["prod", "cumprod"])
def test_all_derivatives_of_products(name):
    own = spool.tensor(np.array(FACTORS), requires_grad=True)
    theirs = torch.tensor(FACTORS, dtype=torch.float64, requires_grad=True)

    def by_hand(t):
        total = 0
        for i in range(t.shape[0]):
            p = t[i, 0]
            steps = [p]
            for j in range(1, t.shape[1]):
                p = p * t[i, j]
                steps.append(p)
            total = total + sum(s * s + s for s in (steps[-1:] if name == "prod" else steps))
        return total

    def ours(t):
        p = getattr(spool, name)(t, 1)
        return (p * p + p).sum()

    for a, b in zip(second_of(spool, ours, own), second_of(torch, by_hand, theirs)):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)
