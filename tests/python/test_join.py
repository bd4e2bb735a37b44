"""cat, stack and their like, and what takes tensors apart, beside PyTorch."""

import numpy as np
import pytest
import torch

import spool


def pair(shape, seed=0, dtype="float32"):
    array = np.asarray(np.random.default_rng(seed).normal(size=shape)).astype(dtype)
    return spool.tensor(array), torch.from_numpy(array)


def same(got, wanted):
    assert tuple(got.shape) == tuple(wanted.shape)
    assert str(got.dtype).split(".")[-1] == str(wanted.dtype).split(".")[-1]
    np.testing.assert_array_equal(got.detach().numpy(), wanted.detach().numpy())


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 200])
def test_many_inputs_and_their_gradients(count):
    """More inputs than a launch's slot holds, and more than a mask of them has bits."""
    xs = [spool.tensor([float(i)], requires_grad=i % 3 != 1) for i in range(count)]
    weights = spool.arange(count, dtype=spool.float32)
    (spool.cat(xs) * weights).sum().backward()
    for i, x in enumerate(xs):
        assert x.grad is None if i % 3 == 1 else x.grad.item() == i
    stacked = spool.stack([x.detach() for x in xs], 1)
    assert stacked.tolist() == [[float(i) for i in range(count)]]


@pytest.mark.parametrize("name", ["cat", "stack"])
def test_many_inputs_in_every_mode(name):
    op = getattr(spool, name)
    xs = [spool.tensor(np.full((2, 3), i, np.float32)) for i in range(20)]

    def function(*tensors):
        return op([t * 2 for t in tensors], 1)

    wanted = function(*xs).numpy()
    compiled = spool.jit(function)
    for _ in range(3):
        np.testing.assert_array_equal(compiled(*xs).numpy(), wanted)
    report = spool.explain(compiled, quiet=True)
    assert report.breaks == 0 and report.compiled_ops == report.ops
    _, tangent = spool.func.jvp(function, tuple(xs), tuple(xs))
    np.testing.assert_array_equal(tangent.numpy(), wanted)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "int64", "complex128"])
@pytest.mark.parametrize("widths", [(1, 1), (1, 2, 1), (3, 0, 16, 5), (9000, 1, 40000)])
def test_runs_of_any_length(dtype, widths):
    """Rows made of runs of each element size; rows longer than a thread's share."""
    pairs = [pair((30_000 // max(widths) + 2, n), i, dtype) for i, n in enumerate(widths)]
    same(spool.cat([x for x, _ in pairs], 1), torch.cat([y for _, y in pairs], 1))
    same(spool.cat([x.t() for x, _ in pairs]), torch.cat([y.t() for _, y in pairs]))
    same(spool.stack([pairs[0][0]] * 3, -1), torch.stack([pairs[0][1]] * 3, -1))


def test_behind_the_queue():
    a = spool.randn(600, 600)
    product = a @ a
    joined = spool.cat([product] * 9)
    np.testing.assert_array_equal(joined.numpy()[-600:], product.numpy())


@pytest.mark.parametrize(
    "dtypes", [("int64", "float32"), ("bool", "int64"), ("float32", "float64")]
)
def test_dtypes_are_promoted(dtypes):
    arrays = [np.array([[1, 0]], d) for d in dtypes]
    for name in ("cat", "stack"):
        got = getattr(spool, name)([spool.tensor(a) for a in arrays])
        same(got, getattr(torch, name)([torch.from_numpy(a) for a in arrays]))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_strided_inputs_and_out(dim):
    (a, ta), (b, tb) = pair((3, 4, 5)), pair((3, 4, 5), 1)
    turned, theirs = a.permute(2, 0, 1), ta.permute(2, 0, 1)
    other, their_other = b.permute(2, 0, 1)[:], tb.permute(2, 0, 1)
    same(spool.cat([turned, other], dim), torch.cat([theirs, their_other], dim))
    same(spool.stack([turned, other], dim), torch.stack([theirs, their_other], dim))
    out = spool.zeros(*torch.cat([theirs, their_other], dim).shape[::-1]).permute(2, 1, 0)
    spool.cat([turned, other], dim, out=out)
    same(out, torch.cat([theirs, their_other], dim))


@pytest.mark.parametrize("dtype", ["int8", "float32", "complex128"])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_parts_of_other_tensors(dim, dtype):
    """Runs that lie apart, and one that counts for many."""
    x, y = pair((6, 70, 8), 0, dtype)
    starts = [slice(2, 5), slice(0, 2), slice(5, 6), slice(4, 1)]
    parts = [tuple(s if d == dim else slice(None) for d in range(3)) for s in starts]
    same(spool.cat([x[p] for p in parts], dim), torch.cat([y[p] for p in parts], dim))
    x, y = x[:1].expand(5, 70, 8), y[:1].expand(5, 70, 8)
    same(spool.cat([x, x[:, 3:]], 1), torch.cat([y, y[:, 3:]], 1))
    same(spool.stack([x, x], dim), torch.stack([y, y], dim))


@pytest.mark.parametrize("shift", [1, 8, 63, 64, 65, -1, -8])
def test_far_pieces_a_few_bytes_apart(shift):
    x, y = pair((300_001,), 0, "int8")
    same(spool.roll(x, shift), torch.roll(y, shift))


SPLITS = [
    ("split", (3,), {}),
    ("split", ([1, 4, 2],), {}),
    ("split", (2, -1), {}),
    ("split", (100,), {}),
    ("chunk", (3,), {}),
    ("chunk", (4, 1), {}),
    ("chunk", (9,), {}),
    ("tensor_split", (3,), {}),
    ("tensor_split", ([1, 5],), {"dim": 0}),
    ("tensor_split", ([1, -2, 9],), {"dim": 1}),
    ("unbind", (), {}),
    ("unbind", (1,), {}),
]


@pytest.mark.parametrize("name, args, kwargs", SPLITS, ids=[f"{n}{a}{k}" for n, a, k in SPLITS])
def test_parts_are_torchs(name, args, kwargs):
    x, theirs = pair((7, 6))
    for made in (getattr(spool, name)(x, *args, **kwargs), getattr(x, name)(*args, **kwargs)):
        wanted = getattr(theirs, name)(*args, **kwargs)
        assert isinstance(made, tuple) and len(made) == len(wanted)
        for part, right in zip(made, wanted):
            same(part, right)
            assert part.stride() == right.stride()
            assert part.storage_offset() == right.storage_offset()


def test_parts_are_views():
    base = spool.zeros(6)
    w = spool.tensor([1.0, 2.0], requires_grad=True)
    first, second, third = base.chunk(3)
    second.copy_(w * w)
    assert base.tolist() == [0, 0, 1, 4, 0, 0]
    (base * base).sum().backward()
    assert w.grad.tolist() == [4, 32]
    x = spool.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    a, b = x.split(2)
    (a * b * b).sum().backward()
    assert x.grad.tolist() == [9, 16, 6, 16]
    empty = spool.zeros(0, 3)
    assert [tuple(p.shape) for p in empty.split(2)] == [(0, 3)]
    assert [tuple(p.shape) for p in empty.chunk(3)] == [
        tuple(p.shape) for p in torch.zeros(0, 3).chunk(3)
    ]
    assert spool.zeros(0).unbind() == ()


def test_grids():
    a, b = [spool.arange(n) for n in (3, 2)]
    ta, tb = [torch.arange(n) for n in (3, 2)]
    for indexing in ("ij", "xy"):
        for got, wanted in zip(
            spool.meshgrid(a, b, indexing=indexing), torch.meshgrid(ta, tb, indexing=indexing)
        ):
            same(got, wanted)
    x, y = pair((3, 1))
    for got, wanted in zip(spool.broadcast_tensors(x, a), torch.broadcast_tensors(y, ta)):
        same(got, wanted)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: spool.cat([]), ValueError, "cat: no tensors"),
        (lambda: spool.stack([]), ValueError, "stack: no tensors"),
        (lambda: spool.cat([spool.zeros(2, 3), spool.zeros(2, 4)]), ValueError, "dimension 0"),
        (lambda: spool.cat([spool.zeros(2, 3), spool.zeros(2)]), ValueError, "tensor 1"),
        (lambda: spool.cat([spool.zeros(2)], 1), IndexError, "cat"),
        (lambda: spool.cat([spool.zeros(())]), IndexError, "cat"),
        (lambda: spool.stack([spool.zeros(2), spool.zeros(3)]), ValueError, "tensor 1"),
        (lambda: spool.cat(spool.zeros(2)), TypeError, "sequence of Tensors"),
        (lambda: spool.zeros(4).split([1, 2]), ValueError, "add up to 3"),
        (lambda: spool.zeros(4).split([5]), ValueError, "part 0"),
        (lambda: spool.zeros(4).split(0), ValueError, "split_size"),
        (lambda: spool.zeros(4).chunk(0), ValueError, "chunks"),
        (lambda: spool.zeros(()).unbind(), ValueError, "unbind"),
        (lambda: spool.zeros(4).split(2, 1), IndexError, "split"),
        (lambda: spool.zeros(4).split(2, dims=1), TypeError, "dims"),
        (lambda: spool.meshgrid(spool.zeros(2, 2)), ValueError, "meshgrid"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("name", ["hsplit", "vsplit", "dsplit"])
@pytest.mark.parametrize("where", [2, [1, 3], []])
def test_split_along_a_named_dimension(name, where):
    x = np.random.rand(4, 6, 8)
    got = getattr(spool, name)(spool.tensor(x), where)
    wanted = getattr(torch, name)(torch.tensor(x), where)
    assert len(got) == len(wanted) == len(getattr(spool.tensor(x), name)(where))
    for a, b in zip(got, wanted):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(spool.ShapeError, match="divisible|dimensions"):
        getattr(spool, name)(spool.tensor(x), 5)


def test_split_with_sizes():
    x = spool.arange(6)
    assert [p.tolist() for p in x.split_with_sizes([1, 2, 3])] == [[0], [1, 2], [3, 4, 5]]
    with pytest.raises(TypeError, match="list"):
        spool.split_with_sizes(x, 2)


@pytest.mark.parametrize("name", ["atleast_1d", "atleast_2d", "atleast_3d"])
def test_at_least_so_many_dimensions(name):
    ours, theirs = getattr(spool, name), getattr(torch, name)
    shapes = [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 4)]
    for shape in shapes:
        assert ours(spool.ones(shape)).shape == tuple(theirs(torch.ones(shape)).shape)
    several = ours(*[spool.ones(s) for s in shapes])
    assert [v.shape for v in several] == [v.shape for v in theirs(*[torch.ones(s) for s in shapes])]
    assert isinstance(ours([spool.ones(2)]), tuple)


def test_broadcast_shapes():
    assert spool.broadcast_shapes((2, 1), (1, 3), 3) == (2, 3)
    assert spool.broadcast_shapes() == ()
    with pytest.raises(spool.ShapeError, match="broadcast"):
        spool.broadcast_shapes((2,), (3,))


def test_synonyms_are_the_same_ops():
    x, y = spool.tensor([0.5, -0.25]), spool.tensor([0.25, 0.5])
    for name, other in [("acos", "arccos"), ("abs", "absolute"), ("neg", "negative")]:
        assert getattr(spool, other)(x).tolist() == getattr(spool, name)(x).tolist()
        assert getattr(x, other)().tolist() == getattr(x, name)().tolist()
    assert spool.greater(x, 0).tolist() == [True, False]
    assert spool.clip(x, 0, 0.25).tolist() == [0.25, 0]
    assert spool.concat([x, y]).tolist() == spool.cat([x, y]).tolist()
    assert x.clone().divide_(y).tolist() == [2, -0.5]
    assert "Another name of acos" in spool.arccos.__doc__
    assert spool.pow(2, y * 4).tolist() == [2, 4]
