"""Random numbers: reproducible, in every mode, and distributed as they should be."""

import numpy as np
import pytest

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
