"""x[...] and x[...] = values beside PyTorch: any mix of slices, ints, None, ..., index tensors and masks."""

import numpy as np
import pytest
import torch

import spool

S = slice


def index(values):
    return np.array(values, dtype=np.int64)


def mask(*shape, seed=0):
    return np.random.default_rng(seed).random(shape) < 0.5


KEYS = [
    (index([0, 2, 2]),),
    (index([[0, 1], [2, 0]]),),
    (S(None), index([1, -1])),
    (index([0, 1]), index([2, 3])),
    (index([[0], [1]]), index([2, 3])),
    (index([0, 1]), S(None), index([2, 3])),
    (S(None), index([0, 1]), index([2, 3])),
    (index([0, 1, 2]), index([2, 3, 0]), index([4, -5, 1])),
    (index(0), index([2, 3])),
    (S(1, None), index([1, 0]), S(0, 5, 2)),
    (None, index([0, 1]), None, index([2, 3])),
    (..., index([0, 4, 4])),
    (index([1]), ..., index([0, 4])),
    (1, index([0, 3])),
    (index([0, 2]), 1),
    (index([0, 2]), 1, index([3, 4])),
    (mask(3),),
    (mask(3, 4),),
    (mask(3, 4, 5),),
    (S(None), mask(4)),
    (S(None), mask(4, 5)),
    (mask(3) | True, index([0, 1, 2])),
    (mask(3, 4, seed=1), S(1, 3)),
    (..., mask(5, seed=2)),
    (S(None), None, mask(4, seed=3)),
    (True,),
    (False,),
    (True, index([0, 1])),
    (
        index(
            [],
        ),
    ),
    (index([]), index([])),
    ([0, 2],),
    ([[0, 1], [1, 2]],),
    ([0, 1], [1, 2]),
    (S(None), [True, False, True, True]),
    (range(2),),
    ((0, 1), S(None)),
    (S(None), S(None, None, 2), index([0, 0, 0])),
    (S(0, 2), index([[1, 2, 3], [0, 0, 1]]), index([0, 1, 2])),
]
IDS = [str(i) for i in range(len(KEYS))]


def key_of(key, library):
    make = spool.tensor if library is spool else torch.from_numpy
    return tuple(make(np.asarray(k)) if isinstance(k, np.ndarray) else k for k in key)


def base(library, dtype="float64", turned=False):
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(dtype)
    if not turned:
        return library.tensor(array) if library is spool else torch.from_numpy(array)
    array = np.ascontiguousarray(array.transpose(2, 0, 1))
    made = spool.tensor(array) if library is spool else torch.from_numpy(array)
    return made.permute(1, 2, 0)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_reading(key, turned):
    got = base(spool, turned=turned)[key_of(key, spool)]
    wanted = base(torch, turned=turned)[key_of(key, torch)]
    assert tuple(got.shape) == tuple(wanted.shape)
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_writing(key, turned):
    """A number; a tensor of the place's shape; one that broadcasts; and +=."""
    shape = base(torch)[key_of(key, torch)].shape
    rng = np.random.default_rng(1)
    values = [2.5, rng.normal(size=tuple(shape)), rng.normal(size=tuple(shape)[-1:])]
    for value in values:
        results = []
        for library in (spool, torch):
            x = base(library, turned=turned)
            if isinstance(value, np.ndarray):
                right = spool.tensor(value) if library is spool else torch.from_numpy(value)
            else:
                right = value
            x[key_of(key, library)] = right
            x[key_of(key, library)] += right
            results.append(x.numpy())
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_gradients(key):
    """Of what is read twice over, and of what is written, in the base and in the values."""
    results = []
    shape = tuple(base(torch)[key_of(key, torch)].shape)
    value = np.random.default_rng(1).normal(size=shape)
    for library in (spool, torch):
        x = base(library).requires_grad_()
        w = (spool.tensor(value) if library is spool else torch.from_numpy(value)).requires_grad_()
        grad = library.autograd.grad
        part = x[key_of(key, library)]
        first = grad((part * part * part).sum(), x, create_graph=True)[0]
        second = grad((first * first).sum(), x)[0]
        y = x * x
        y[key_of(key, library)] = w * w
        (y * y).sum().backward()
        results.append((first, second, x.grad, w.grad))
    for k, (got, wanted) in enumerate(zip(*results)):
        if k == 3 and repeats(key):
            continue  # which of several writers gets the gradient is not defined
        np.testing.assert_allclose(
            got.detach().numpy(), wanted.detach().numpy(), rtol=1e-12, atol=1e-12
        )


def repeats(key):
    count = torch.zeros(3, 4, 5)
    places = torch.arange(60).reshape(3, 4, 5)[key_of(key, torch)].flatten()
    return len(places.unique()) < len(places) or count is None


@pytest.mark.parametrize("accumulate", [False, True])
def test_index_put(accumulate):
    rows, columns = index([0, 2, 0, 1]), index([1, 1, 1, 3])
    for value in (np.float64(2.0), np.random.default_rng(0).normal(size=(4, 5))):
        results = []
        for library in (spool, torch):
            make = spool.tensor if library is spool else torch.from_numpy
            values = make(np.asarray(value))
            x = base(library)
            y = x.index_put((make(rows), make(columns)), values, accumulate)
            assert x.index_put_((make(rows), make(columns)), values, accumulate) is x
            results.append((x.numpy(), y.numpy()))
        np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


def test_in_every_mode():
    x, rows, columns = base(spool), spool.tensor([2, 0, 1]), spool.tensor([[1], [3]])

    def function(x, rows, columns):
        y = x * 2
        y[rows, columns] = y[0, 0] - 1
        return y[:, columns] + y[rows, None, columns, 1:2].sum()

    wanted = function(x, rows, columns).numpy()
    compiled = spool.jit(function)
    for _ in range(3):
        np.testing.assert_array_equal(compiled(x, rows, columns).numpy(), wanted)
    batched = spool.func.vmap(lambda t, r: t[r, :, [0, 1, 2]])(
        spool.stack([x, x * 2]), spool.stack([rows, rows.flip(0)])
    )
    np.testing.assert_array_equal(batched[1].numpy(), (x * 2)[rows.flip(0), :, [0, 1, 2]].numpy())


def test_masks_and_embeddings():
    for library in (spool, torch):
        assert library.tensor([[1, 2], [3, 4]]).masked_select(
            library.tensor([[True, False], [True, True]])
        ).tolist() == [1, 3, 4]
    assert spool.one_hot(spool.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    _, tangent = spool.func.jvp(
        lambda x: (x * spool.one_hot(x.argsort())).sum(),
        (spool.tensor([2.0, 1.0]),),
        (spool.tensor([1.0, 3.0]),),
    )
    assert tangent.item() == 4.0
    weight = spool.randn(4, 3).requires_grad_()
    spool.embedding(spool.tensor([[0, 1], [1, 1]]), weight, 0).sum().backward()
    assert weight.grad.tolist() == [[0.0] * 3, [3.0] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: x[spool.tensor([3])], IndexError, "3 is out of range for dimension 0"),
        (lambda x: x[spool.tensor([0]), spool.tensor([9])], IndexError, "index 9"),
        (lambda x: x[spool.tensor([0, 1]), spool.tensor([0, 1, 2])], ValueError, "index 1"),
        (lambda x: x[spool.tensor([1.0])], IndexError, "float32"),
        (lambda x: x[spool.tensor([True, False])], IndexError, "mask of shape"),
        (lambda x: x[::-1], ValueError, "step"),
        (lambda x: x[0, 0, 0, 0], IndexError, "4 indices"),
        (lambda x: x[..., ...], IndexError, "more than one"),
        (lambda x: x["a"], TypeError, "str"),
        (lambda x: x.__setitem__(spool.tensor([0, 1]), spool.zeros(3, 4, 5)), ValueError, "expand"),
        (lambda x: spool.one_hot(spool.tensor([-1]), 3), IndexError, "class -1"),
        (lambda x: spool.one_hot(spool.tensor([3]), 3), IndexError, "class 3"),
        (lambda x: spool.one_hot(spool.tensor([-2])), IndexError, "class -2"),
        (lambda x: x.masked_select(spool.tensor([1])), TypeError, "expected bool"),
        (lambda x: spool.embedding(spool.tensor([0]), x), ValueError, "two dimensions"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(base(spool))
