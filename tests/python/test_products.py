"""Products of many tensors: einsum and tensordot in all their forms, sums of products, as PyTorch's."""

import numpy as np
import pytest
import torch

import spool

SIZES = dict(i=2, j=3, k=4, l=5, a=2, b=3, c=4, d=5, e=2, A=2, C=4)
EQUATIONS = [
    "ij,jk->ik",
    "ij,jk",
    "bij,bjk->bik",
    "i,i->",
    "i,j->ij",
    "ii->i",
    "ii",
    "ij->ji",
    "ij->",
    "...ij,...jk->...ik",
    "ij,kj,lk->il",
    "ab,bc,cd,de->ae",
    "iij->j",
    "iji->ij",
    "aiia->i",
    "ijk,ijk->",
    "...,...",
    "i...->...i",
    "...i,i...->...",
    "ab...,b...->a...",
    "a,b,c->cab",
    "ij,ik->",
    "Ab,bC",
    " i j , j k -> k i ",
]


def arrays_of(equation, rng):
    arrays = []
    for term in equation.replace(" ", "").split("->")[0].split(","):
        shape = []
        for letter in term.replace("...", "."):
            shape += [2, 3] if letter == "." else [SIZES[letter]]
        arrays.append(rng.normal(size=shape))
    return arrays


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_is_torchs(equation):
    arrays = arrays_of(equation, np.random.default_rng(0))
    ours = [spool.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    got, wanted = spool.einsum(equation, *ours), torch.einsum(equation, *theirs)
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), atol=1e-12)
    (got * got).sum().backward()
    (wanted * wanted).sum().backward()
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("result", ["ij", "", "i", "j"])
def test_einsum_broadcasts_sizes_of_1(result):
    a, b = np.random.rand(1, 3), np.random.rand(4, 1)
    got = spool.einsum(f"ij,ij->{result}", spool.tensor(a), spool.tensor(b))
    np.testing.assert_allclose(
        got.numpy(), np.einsum(f"ij,ij->{result}", *np.broadcast_arrays(a, b))
    )


def test_einsum_by_numbers_and_of_a_list():
    a, b = np.random.rand(2, 5, 3), np.random.rand(4, 3)
    ours, theirs = (spool.tensor(a), spool.tensor(b)), (torch.tensor(a), torch.tensor(b))
    for form in ([0, ..., 27], [1, 27], [1, 0, ...]), ([0, 2, 1], [51, 1]):
        got = spool.einsum(*[v for pair in zip(ours, form) for v in pair], *form[2:])
        wanted = torch.einsum(*[v for pair in zip(theirs, form) for v in pair], *form[2:])
        np.testing.assert_allclose(got.numpy(), wanted.numpy())
    assert spool.einsum("abc,dc->ad", list(ours)).shape == (2, 4)


def test_einsum_takes_the_cheap_way():
    a, b, c = spool.ones(2, 3000), spool.ones(3000, 3000), spool.ones(3000)
    spool.synchronize()
    before = spool.memory_stats()["live_bytes"]
    spool._C._memory_reset_peak()
    assert spool.einsum("ai,ij,j->a", a, b, c).tolist() == [9e6, 9e6]
    assert spool.memory_stats()["peak_bytes"] - before < 3000 * 3000


@pytest.mark.parametrize(
    "equation, what",
    [
        ("ij,jk", "1 operand"),
        ("ij->k", "stands in no operand"),
        ("i", "has 1 letters"),
        ("ij->ii", "twice in the result"),
        ("i?", "not a letter"),
        ("ij->i->j", "more than one result"),
        ("...ij...", "not a letter"),
        ("ii", "stands for two|another one|dimensions 0 and 1|size 3 for i"),
    ],
)
def test_einsum_says_what_is_wrong(equation, what):
    with pytest.raises(ValueError, match=what):
        spool.einsum(equation, spool.ones(2, 3))


def test_einsum_compiled_and_mapped():
    def function(a, b):
        return spool.einsum("bij,bkj->bik", a, b)

    a, b = spool.randn(3, 4, 5), spool.randn(3, 2, 5)
    compiled = spool.jit(function)
    for _ in range(3):
        np.testing.assert_array_equal(compiled(a, b).numpy(), function(a, b).numpy())
    mapped = spool.func.vmap(lambda x, y: spool.einsum("ij,kj->ik", x, y))(a, b)
    np.testing.assert_allclose(mapped.numpy(), function(a, b).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "x, y, dims",
    [
        ((2, 3, 4), (3, 4, 5), 2),
        ((2, 3), (4,), 0),
        ((2, 3, 4), (4, 3, 2), ([0, 1], [2, 1])),
        ((3,), (3,), 1),
    ],
)
def test_tensordot_is_torchs(x, y, dims):
    x, y = np.random.rand(*x), np.random.rand(*y)
    got = spool.tensordot(spool.tensor(x), spool.tensor(y), dims)
    np.testing.assert_allclose(
        got.numpy(), torch.tensordot(torch.tensor(x), torch.tensor(y), dims).numpy()
    )


def test_tensordot_says_what_is_wrong():
    x = spool.ones(2, 3)
    with pytest.raises(spool.ShapeError, match="differ in size"):
        spool.tensordot(x, x, 1)
    with pytest.raises(ValueError, match="two lists"):
        spool.tensordot(x, x, ([0], [0], [1]))
    with pytest.raises(ValueError, match="twice"):
        spool.tensordot(x, x, ([0, 0], [0, 0]))


def test_factors_of_sums_of_products():
    nan = spool.full((2, 2), float("nan"))
    a = spool.ones(2, 3)
    assert spool.addmm(nan, a, a.t(), beta=0).tolist() == [[3.0, 3.0], [3.0, 3.0]]
    x = spool.ones(2, 2)
    x.addmm_(a, a.t(), alpha=2)
    assert x.tolist() == [[7.0, 7.0], [7.0, 7.0]]
    with pytest.raises(spool.DTypeError, match="alpha"):
        spool.addmm(x.long(), a.long(), a.t().long(), alpha=0.5)
    with pytest.raises(spool.ShapeError, match="broadcast"):
        spool.addmm(spool.ones(3, 2), a, a.t())
