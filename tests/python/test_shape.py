"""Shape ops beside PyTorch: geometry of views, writing through them, errors."""

import numpy as np
import pytest
import torch

import spool


def pair(*shape):
    array = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return spool.tensor(array), torch.from_numpy(array)


VIEWS = [
    ((2, 3, 4), lambda x: x.flatten(1)),
    ((2, 3, 4), lambda x: x.flatten()),
    ((6, 4), lambda x: x.unflatten(0, (2, 3))),
    ((6, 4), lambda x: x.unflatten(0, (-1, 3))),
    ((2, 3, 4), lambda x: x.movedim(0, -1)),
    ((2, 3, 4), lambda x: x.movedim((0, 2), (2, 0))),
    ((2, 3, 4), lambda x: x.swapaxes(0, 2)),
    ((2, 3), lambda x: x.t()),
    ((5, 4), lambda x: x.narrow(0, 1, 3)),
    ((5, 4), lambda x: x.narrow(1, -2, 2)),
    ((3, 1), lambda x: x.broadcast_to((2, 3, 4))),
    ((4, 5), lambda x: x.diagonal()),
    ((4, 5), lambda x: x.diagonal(2)),
    ((4, 5), lambda x: x.diagonal(-1)),
    ((2, 4, 5), lambda x: x.diagonal(1, 2, 0)),
    ((7,), lambda x: x.unfold(0, 3, 2)),
    ((3, 8), lambda x: x.unfold(-1, 2, 3)),
    ((5, 4), lambda x: x.t().narrow(0, 1, 2).diagonal()),
]


@pytest.mark.parametrize("shape, view", VIEWS)
def test_views_lie_in_memory_as_torchs(shape, view):
    x, theirs = pair(*shape)
    got, wanted = view(x), view(theirs)
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    assert (tuple(got.shape), got.stride()) == (tuple(wanted.shape), wanted.stride())
    assert got.storage_offset() == wanted.storage_offset()


@pytest.mark.parametrize("shape, view", [v for i, v in enumerate(VIEWS) if i not in (10, 16)][:14])
def test_writes_through_views_reach_the_base_and_its_gradient(shape, view):
    """The view is made before anything requires grad; grad mode was on."""
    results = []
    for library, x in zip((spool, torch), pair(*shape)):
        base = x * 1
        part = view(base)
        w = library.full(tuple(part.shape), 2.0, requires_grad=True)
        part.mul_(w * w)
        (base * base).sum().backward()
        results.append((base.detach().numpy(), w.grad.numpy()))
    for got, wanted in zip(*results):
        np.testing.assert_array_equal(got, wanted)


COPIES = [
    ((2, 3), lambda x: x.repeat(2, 2)),
    ((2, 3), lambda x: x.repeat(0, 1)),
    ((2, 3), lambda x: x.repeat(1, 1)),
    ((2, 3), lambda x: x.tile((2,))),
    ((2, 3), lambda x: x.flip(0)),
    ((2, 3), lambda x: x.flip((0, 1))),
    ((33, 40), lambda x: x.t().flip(0)),
    ((2, 40, 40), lambda x: x.permute(2, 0, 1).flip(1, 2)),
    ((2, 3), lambda x: x.fliplr()),
    ((2, 3), lambda x: x.flipud()),
    ((2, 3), lambda x: x.roll(1)),
    ((2, 3), lambda x: x.roll((1, -1), (0, 1))),
    ((70, 70), lambda x: x.tril()),
    ((70, 90), lambda x: x.t().triu(-3)),
    ((3, 4, 5), lambda x: x.permute(2, 1, 0).tril(1)),
    ((3, 4), lambda x: x.diag(1)),
    ((3,), lambda x: x.diag(-1)),
    ((2, 3), lambda x: x.diag_embed(1, 0, -1)),
    ((4, 5), lambda x: x.diagonal_scatter(x[0, :4], 1)),
]


@pytest.mark.parametrize("shape, function", COPIES)
def test_copies_are_torchs_and_new(shape, function):
    x, theirs = pair(*shape)
    got, wanted = function(x), function(theirs)
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    if got.numel():
        assert got.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("dtype", ["bool", "int64", "float64"])
def test_any_dtype(dtype):
    array = np.array([[1, 0, 1], [0, 1, 1]], dtype)
    x, theirs = spool.tensor(array), torch.from_numpy(array)
    for function in (
        lambda t: t.flip(0, 1),
        lambda t: t.tril(),
        lambda t: t.t().triu(),
        lambda t: t.roll(1, 1),
        lambda t: t.diag(),
        lambda t: t[0].diag_embed(),
    ):
        np.testing.assert_array_equal(function(x).numpy(), function(theirs).numpy())


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "int64", "complex128"])
@pytest.mark.parametrize("shape", [(70_000, 2), (2, 5000, 3), (300, 40, 3), (3, 7, 5, 15, 2)])
def test_copies_with_short_rows(shape, dtype):
    """Rows of few elements, many of them: repeated, permuted, cut out of longer ones, written to."""
    array = (np.random.default_rng(0).integers(0, 100, shape) % 7).astype(dtype)
    x, y = spool.tensor(array), torch.from_numpy(array)

    def check(ours, theirs):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())

    check(spool.repeat_interleave(x, 2, -1), torch.repeat_interleave(y, 2, -1))
    check(x.movedim(-1, 0).contiguous(), y.movedim(-1, 0).contiguous())
    check(x.movedim(0, -1)[..., :5].contiguous(), y.movedim(0, -1)[..., :5].contiguous())
    check(x[..., 1:].contiguous(), y[..., 1:].contiguous())
    wide, torchs = spool.zeros(*shape[:-1], 9, dtype=x.dtype), torch.zeros(*shape[:-1], 9).to(y)
    wide[..., ::4] = x[..., :1]
    torchs[..., ::4] = y[..., :1]
    check(wide, torchs)


def test_triangles_in_place():
    for name in ("tril_", "triu_"):
        x, theirs = pair(5, 7)
        assert getattr(x.t(), name)(1) is not None
        getattr(theirs.t(), name)(1)
        np.testing.assert_array_equal(x.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: x.flatten(1, 0), ValueError, "end_dim"),
        (lambda x: x.unflatten(0, (2, 2)), ValueError, "unflatten"),
        (lambda x: x.movedim((0, 0), (0, 1)), ValueError, "twice"),
        (lambda x: x.movedim((0, 1), (0,)), ValueError, "movedim"),
        (lambda x: x.narrow(0, 2, 2), ValueError, "narrow"),
        (lambda x: x.narrow(0, 9, 0), IndexError, "narrow"),
        (lambda x: x.diagonal(0, 1, 1), ValueError, "dim1 and dim2"),
        (lambda x: x.unfold(0, 4, 1), ValueError, "windows"),
        (lambda x: x.repeat(2), ValueError, "repeats"),
        (lambda x: x.repeat(2, -1), ValueError, "repeats"),
        (lambda x: x.flip(0, 0), ValueError, "twice"),
        (lambda x: x.roll((1, 2), 0), ValueError, "shifts"),
        (lambda x: x[0].tril(), ValueError, "two dimensions"),
        (lambda x: spool.zeros(1, 1, 1).t(), ValueError, "mT"),
        (lambda x: spool.zeros(1, 1, 1).diag(), ValueError, "diag"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(spool.zeros(3, 3))
