"""Random numbers: reproducible, in every mode, and distributed as they should be."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import spool


def test_dropout_drops_and_scales():
    x = spool.ones(100, 1000, requires_grad=True)
    y = spool.dropout(x, 0.3)
    kept = (y.detach().numpy() != 0).mean()
    assert abs(kept - 0.7) < 0.01
    np.testing.assert_allclose(y.detach().numpy().max(), 1 / 0.7, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert (spool.dropout(x, 0.3).detach().numpy() != y.detach().numpy()).any()


def test_dropout_without_training_and_at_the_ends():
    x = spool.randn(3, 4)
    np.testing.assert_array_equal(spool.dropout(x, 0.9, False).numpy(), x.numpy())
    np.testing.assert_array_equal(spool.dropout(x, 0.0).numpy(), x.numpy())
    assert spool.dropout(x, 1.0).numpy().any() == False  # noqa: E712
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="probability"):
            spool.dropout(x, p)
    with pytest.raises(TypeError, match="dropout"):
        spool.dropout(spool.tensor([1]))


def test_dropout_depends_on_seed_and_place_alone():
    x = spool.randn(301, 77)
    results = []
    for view in (x, x.t().contiguous().t()):
        spool.manual_seed(3)
        results.append((spool.dropout(view), spool.rand(3)))
    for a, b in zip(*results):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_dropout_in_compiled_training_is_eagers():
    def step(x, w):
        w = w.detach().requires_grad_()
        y = (spool.dropout(x @ w, 0.4) ** 2).sum()
        y.backward()
        return w.grad

    x, w = spool.randn(8, 6), spool.randn(6, 5)
    compiled = spool.jit(step)
    runs = []
    for function in (step, compiled):
        spool.manual_seed(1)
        runs.append([function(x, w).numpy() for _ in range(5)])
    for eager, jitted in zip(*runs):
        np.testing.assert_array_equal(eager, jitted)
    report = spool.explain(compiled, quiet=True)
    assert report.breaks == 0, report.reasons


def test_dropout_under_transforms():
    x = spool.randn(5, 6)
    spool.manual_seed(2)
    value, tangent = spool.func.jvp(spool.dropout, (x,), (x,))
    np.testing.assert_array_equal(value.numpy(), tangent.numpy())
    spool.manual_seed(2)
    gradient = spool.func.grad(lambda t: (spool.dropout(t) * x).sum())(x)
    np.testing.assert_allclose(gradient.numpy(), value.numpy(), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="different"):
        spool.func.vmap(spool.dropout)(x)
    mapped = spool.func.vmap(spool.dropout, randomness="different")(spool.ones(50, 40))
    assert len({tuple(row) for row in mapped.tolist()}) > 40


def test_generators_are_streams_of_their_own():
    g, h = spool.Generator(), spool.Generator()
    g.manual_seed(5)
    h.manual_seed(5)
    spool.manual_seed(5)
    drawn = [
        (spool.randn(3, generator=s) if s else spool.randn(3)).tolist()
        for s in (g, h, None, g, h, None)
    ]
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3] == drawn[4] == drawn[5]
    state = g.get_state()
    a = spool.rand(2, generator=g)
    g.set_state(state)
    np.testing.assert_array_equal(spool.rand(2, generator=g).numpy(), a.numpy())
    assert g.initial_seed() == 5 and g.seed() == g.initial_seed() != 5
    before = spool.get_rng_state().tolist()
    x = spool.empty(4).normal_(generator=g).uniform_(0, 1, generator=g)
    (
        spool.multinomial(x, 2, generator=g),
        spool.randperm(5, generator=g),
        spool.bernoulli(x, generator=g),
    )
    assert spool.get_rng_state().tolist() == before
    assert spool.manual_seed(1) is spool.default_generator
    spool.rand(3, generator=spool.default_generator)
    assert spool.get_rng_state().tolist()[1] > 0
    with pytest.raises(TypeError, match="Generator"):
        spool.rand(3, generator=4)
    with pytest.raises(TypeError, match="generator"):
        spool.ones(3).exp(generator=g)


def test_randperm_is_a_permutation():
    spool.manual_seed(0)
    p = spool.randperm(1000)
    assert sorted(p.tolist()) == list(range(1000)) and p.tolist() != list(range(1000))
    first = [spool.randperm(3).tolist() for _ in range(600)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert 60 < first.count(order) < 145
    assert spool.randperm(3, dtype=spool.float32).dtype == spool.float32


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_draws_by_probability(replacement):
    spool.manual_seed(3)
    p = spool.tensor([0.0, 1.0, 3.0, 0.0, 6.0])
    rows = spool.multinomial(p.expand(4000, 5), 2, replacement)
    counts = np.bincount(rows[:, 0].numpy(), minlength=5) / 4000
    np.testing.assert_allclose(counts, p.numpy() / 10, atol=0.03)
    again = (rows[:, 0] == rows[:, 1]).float().mean().item()
    assert again > 0.3 if replacement else again == 0
    for bad in ([1.0, -1.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, 0.0]):
        if not replacement or bad != [1.0, 0.0]:
            with pytest.raises(ValueError, match="multinomial"):
                spool.multinomial(spool.tensor(bad), 2, replacement)
            rows = spool.tensor([[0.5, 0.5], bad])
            with pytest.raises(ValueError, match="multinomial"):
                spool.func.vmap(lambda x: spool.multinomial(x, 2, replacement))(rows)


@pytest.mark.parametrize(
    "fill, mean, std",
    [
        (lambda x: x.normal_(2, 3), 2, 3),
        (lambda x: x.uniform_(-1, 3), 1, 4 / 12**0.5),
        (lambda x: x.exponential_(2), 0.5, 0.5),
        (lambda x: x.geometric_(0.25), 4, 12**0.5),
        (lambda x: x.log_normal_(0, 0.5), np.exp(0.125), 0.6039),
        (lambda x: x.random_(10), 4.5, 8.25**0.5),
        (lambda x: x.random_(-3, 4), 0, 2),
        (lambda x: x.bernoulli_(0.2), 0.2, 0.4),
        (lambda x: spool.normal(spool.full_like(x, 2), 3.0), 2, 3),
        (lambda x: spool.normal(2.0, spool.full_like(x, 3)), 2, 3),
        (lambda x: spool.normal(spool.full_like(x, 2), spool.full_like(x, 3)), 2, 3),
        (lambda x: spool.normal(2.0, 3.0, (40000,)), 2, 3),
        (lambda x: spool.rand_like(x), 0.5, 12**-0.5),
        (lambda x: spool.randn_like(x), 0, 1),
        (lambda x: spool.randint_like(x, 2, 5), 3, (2 / 3) ** 0.5),
    ],
)
def test_moments_of_distributions(fill, mean, std):
    spool.manual_seed(11)
    x = fill(spool.empty(40000, dtype=spool.float64)).numpy()
    assert abs(x.mean() - mean) < 4 * std / 200 and abs(x.std() / std - 1) < 0.05


def test_cauchy_and_the_largest_random_numbers():
    x = spool.empty(20001).cauchy_(1, 2)
    assert abs(np.median(x.numpy()) - 1) < 0.1
    assert spool.zeros(100, dtype=spool.int64).random_().max() > 2**60
    assert 2**22 < spool.zeros(100).random_().max() <= 2**24


def test_creation_takes_device_and_requires_grad():
    for make in (
        lambda **k: spool.eye(3, **k),
        lambda **k: spool.linspace(0, 1, 3, **k),
        lambda **k: spool.arange(3.0, **k),
        lambda **k: spool.randn(2, **k),
        lambda **k: spool.empty((2, 3), **k),
        lambda **k: spool.full((2,), 1.5, **k),
        lambda **k: spool.rand_like(spool.ones(2), **k),
        lambda **k: spool.normal(0.0, 1.0, (2,), **k),
    ):
        assert make(device="cpu", requires_grad=True).requires_grad
        assert not make(device=None).requires_grad
        with pytest.raises(NotImplementedError, match="cuda"):
            make(device="cuda")
    with pytest.raises(spool.DTypeError):
        spool.arange(3, requires_grad=True)


def test_creation_is_torchs():
    for ours, theirs in (
        (spool.arange(5), torch.arange(5)),
        (spool.arange(end=5), torch.arange(end=5)),
        (spool.arange(1, 2.5, 0.5), torch.arange(1, 2.5, 0.5)),
        (spool.arange(start=1, end=7, step=2), torch.arange(start=1, end=7, step=2)),
        (spool.eye(3, 2), torch.eye(3, 2)),
        (spool.logspace(-2, 2, 5), torch.logspace(-2, 2, 5)),
        (spool.tril_indices(4, 5, -1), torch.tril_indices(4, 5, -1)),
        (spool.triu_indices(4, 5, 2), torch.triu_indices(4, 5, 2)),
        (spool.scalar_tensor(2), torch.scalar_tensor(2)),
    ):
        assert str(ours.dtype).split(".")[-1] == str(theirs.dtype).split(".")[-1]
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    assert (
        spool.empty(2, 3).shape == (2, 3)
        and spool.empty_like(spool.ones(2).long()).dtype == spool.int64
    )


DRAW = """
import zlib, spool
spool.manual_seed(9)
for dtype in (spool.float32, spool.float64, spool.bfloat16):
    for draw in (spool.rand, spool.randn):
        for n in (1, 31, 5003):
            print(zlib.crc32(draw(n, dtype=dtype).double().numpy().tobytes()))
x = spool.ones(4099)
print(zlib.crc32(spool.dropout(x, 0.3).numpy().tobytes()))
print(zlib.crc32(spool.randint(-5, 1000, (4099,)).numpy().tobytes()))
"""


def test_numbers_are_the_same_on_every_instruction_set_and_any_number_of_threads():
    outputs = set()
    for knobs in ({}, {"SPOOL_ISA": "baseline"}, {"SPOOL_NUM_THREADS": "3"}):
        run = subprocess.run(
            [sys.executable, "-c", DRAW],
            env={**os.environ, **knobs},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(run.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_numbers_are_box_and_mullers(dtype):
    """Of the uniform numbers that the same seed yields."""
    spool.manual_seed(4)
    u = spool.rand(100_000, dtype=getattr(spool, dtype)).numpy().astype("f8")
    spool.manual_seed(4)
    z = spool.randn(100_000, dtype=getattr(spool, dtype)).numpy()
    r, turn = np.sqrt(-2 * np.log1p(-u[0::2])), 2 * np.pi * u[1::2]
    wanted = np.stack([r * np.cos(turn), r * np.sin(turn)], 1).ravel()
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(z, wanted, 4 * eps, 40 * eps)  # of the turn, too
