"""Results whose size depends on values: places, different elements, counts, repeats, as PyTorch's."""

import numpy as np
import pytest
import torch

import spool


def pair(array):
    array = np.asarray(array)
    return spool.tensor(array), torch.from_numpy(array.copy())


def same(got, wanted):
    got = got if isinstance(got, tuple) else (got,)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted):
        assert tuple(a.shape) == tuple(b.shape)
        assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2), (0, 3), (2, 0)])
def test_nonzero_is_torchs(shape):
    ours, theirs = pair(np.random.default_rng(1).integers(0, 2, shape))
    same(spool.nonzero(ours), torch.nonzero(theirs))
    same(ours.nonzero(as_tuple=True), theirs.nonzero(as_tuple=True))
    same(spool.argwhere(ours), torch.argwhere(theirs))


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("name", ["unique", "unique_consecutive"])
@pytest.mark.parametrize("dtype", ["int64", "float32", "float64", "bool"])
def test_unique_is_torchs(name, dim, dtype):
    array = (
        np.random.default_rng(2).integers(0, 2 if dim is not None else 6, (5, 4, 2)).astype(dtype)
    )
    ours, theirs = pair(array)
    for inverse in False, True:
        for counts in False, True:
            same(
                getattr(spool, name)(ours, return_inverse=inverse, return_counts=counts, dim=dim),
                getattr(torch, name)(theirs, return_inverse=inverse, return_counts=counts, dim=dim),
            )


def test_unique_of_nothing_of_many_and_of_nan():
    same(spool.unique(spool.ones(0)), torch.unique(torch.ones(0)))
    same(spool.unique(spool.tensor(3)), torch.unique(torch.tensor(3)))
    ours, theirs = pair(np.random.default_rng(3).integers(0, 1000, 20000))
    same(ours.unique(True, True, True), theirs.unique(True, True, True))
    got, counts = spool.unique(spool.tensor([float("nan"), 1.0, float("nan")]), return_counts=True)
    assert counts.tolist() == [1, 1, 1] and got.tolist()[0] == 1
    assert spool.unique(spool.tensor([-0.0, 0.0])).numel() == 1


def test_bincount_is_torchs():
    ours, theirs = pair(np.random.default_rng(4).integers(0, 7, 50))
    weights, their_weights = pair(np.random.default_rng(5).random(50))
    same(ours.bincount(), theirs.bincount())
    same(spool.bincount(ours, minlength=12), torch.bincount(theirs, minlength=12))
    np.testing.assert_allclose(
        ours.bincount(weights).numpy(), theirs.bincount(their_weights).numpy(), rtol=1e-14
    )
    same(spool.bincount(ours, weights.float()), torch.bincount(theirs, their_weights.float()))
    for bad in spool.tensor([-1, 2]), spool.ones(2, 2).long():
        with pytest.raises(ValueError, match="bincount"):
            spool.bincount(bad)


def test_histc_is_torchs():
    x = np.append(np.random.default_rng(6).normal(size=200), [np.nan, -1.0, 2.0]).astype("float32")
    ours, theirs = pair(x)
    same(spool.histc(ours, 7, -1, 2), torch.histc(theirs, 7, -1, 2))
    same(ours[:200].histc(5), theirs[:200].histc(5))
    with pytest.raises(ValueError, match="finite"):
        spool.histc(ours, 5)


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_repeat_interleave_is_torchs(dim):
    x = np.random.default_rng(7).random((3, 4))
    ours, theirs = pair(x)
    n = 12 if dim is None else x.shape[dim]
    repeats, their_repeats = pair(np.random.default_rng(8).integers(0, 4, n))
    same(ours.repeat_interleave(3, dim), theirs.repeat_interleave(3, dim))
    same(ours.repeat_interleave(repeats, dim), theirs.repeat_interleave(their_repeats, dim))
    same(spool.repeat_interleave(repeats), torch.repeat_interleave(their_repeats))
    ours.requires_grad_()
    theirs.requires_grad_()
    (ours.repeat_interleave(repeats, dim) ** 2).sum().backward()
    (theirs.repeat_interleave(their_repeats, dim) ** 2).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy())
    with pytest.raises(ValueError, match="repeats"):
        spool.repeat_interleave(ours, repeats - 9, dim)


def test_regions_go_on_behind_what_is_counted():
    @spool.jit
    def function(x):
        return (x[x.abs().nonzero()[:, 0]] * 2).sum() + spool.unique(x.long()).numel()

    for values in [[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]]:
        x = spool.tensor(values)
        assert function(x).item() == sum(values) * 2 + len(set(values))


def test_not_inside_vmap():
    with pytest.raises(NotImplementedError):
        spool.func.vmap(spool.nonzero)(spool.ones(2, 3))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [0, 3, 17, 16384, 70001])
@pytest.mark.parametrize("classes", [1, 5, 512, 513, 5000])
def test_count_classes(n, classes, threads):
    values = np.random.default_rng(n).integers(0, classes, (n, 2))[:, 0]
    expected = np.bincount(values, minlength=classes)
    before = spool.get_num_threads()
    spool.set_num_threads(threads)
    try:
        got = spool.count_classes(spool.tensor(values), classes)
        assert got.numpy().tolist() == expected.tolist()
        assert spool.bincount(spool.tensor(values)).tolist() == np.bincount(values).tolist()
    finally:
        spool.set_num_threads(before)


@pytest.mark.parametrize("stray", [-1, 7, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("place", [0, 5, 8, 20000])
def test_count_classes_refuses_other_numbers(stray, place):
    values = np.zeros(20001, "i8")
    values[place] = stray
    with pytest.raises(IndexError, match="expected numbers from 0 to 6"):
        spool.count_classes(spool.tensor(values), 7).numpy()


def test_count_classes_says_what_is_wrong():
    with pytest.raises(ValueError, match="num_classes is -1"):
        spool.count_classes(spool.tensor([0]), -1)
    with pytest.raises(ValueError, match="expected one dimension"):
        spool.count_classes(spool.tensor([[0]]), 1)
