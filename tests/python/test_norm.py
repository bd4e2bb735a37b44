"""Normalisation against PyTorch: sizes beyond one block, running statistics, all orders of derivatives, accuracy, bits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import spool

RNG = np.random.default_rng(7)


def both(*shape, dtype=np.float32, scale=1.0, shift=0.0):
    x = (RNG.normal(size=shape) * scale + shift).astype(dtype)
    return spool.tensor(x), torch.from_numpy(x.copy())


def close(got, wanted, rtol=2e-5, atol=2e-5):
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=rtol, atol=atol)


CASES = {  # function, shape, shape for higher orders, where the weights' sizes stand in the shape
    "layer": (lambda m, x, w, b: m.layer_norm(x, [x.shape[-1]], w, b), (70, 1030), (3, 4), [-1]),
    "layer, two dimensions": (
        lambda m, x, w, b: m.layer_norm(x, list(x.shape[1:]), w, None),
        (9, 6, 40),
        (2, 3, 2),
        [1, 2],
    ),
    "rms": (lambda m, x, w, b: m.rms_norm(x, [x.shape[-1]], w), (70, 1030), (3, 4), [-1]),
    "group": (lambda m, x, w, b: m.group_norm(x, 3, w, b), (4, 6, 13, 11), (2, 6, 2), [1]),
    "instance": (
        lambda m, x, w, b: m.instance_norm(x, None, None, w, b),
        (4, 6, 130),
        (2, 2, 4),
        [1],
    ),
    "batch": (
        lambda m, x, w, b: m.batch_norm(x, None, None, w, b, True),
        (7, 6, 25, 29),
        (3, 2, 2, 2),
        [1],
    ),
    "batch of rows": (
        lambda m, x, w, b: m.batch_norm(x, None, None, w, b, True),
        (150, 130),
        (5, 3),
        [1],
    ),
    "batch, running": (
        lambda m, x, w, b: m.batch_norm(x, w.detach() * 0.5, w.detach() ** 2 + 0.5, w, b, False),
        (7, 6, 25, 29),
        (3, 2, 2, 2),
        [1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name):
    function, shape, _, at = CASES[name]
    n = [shape[i] for i in at]
    pairs = [both(*shape, shift=3.0), both(*n), both(*n), both(*shape)]
    ours, theirs = ([p[i] for p in pairs] for i in (0, 1))
    for leaves in (ours, theirs):
        for t in leaves[:3]:
            t.requires_grad_()
    y, z = function(spool.nn.functional, *ours[:3]), function(TF, *theirs[:3])
    close(y, z)
    (y * ours[3]).sum().backward()
    (z * theirs[3]).sum().backward()
    for a, b in zip(ours[:3], theirs[:3]):
        if b.grad is not None:
            close(a.grad, b.grad, 2e-4, 2e-4)


def by_definition(name, x, w, b):
    """The normalisation in plain ops: PyTorch's own has no third derivative to go by, its statistics lose their history."""
    if name == "batch, running":
        return TF.batch_norm(x, w.detach() * 0.5, w.detach() ** 2 + 0.5, w, b)
    if name == "group":
        groups = x.reshape(x.shape[0], 3, -1)
        y = by_definition("layer", groups, 1, 0).reshape(x.shape)
        return y * w[:, None] + b[:, None]
    over = {"layer": [-1], "rms": [-1], "instance": [2], "layer, two dimensions": [1, 2]}.get(name)
    if over is None:
        over = [d for d in range(x.dim()) if d != 1]
    d = x if name == "rms" else x - x.mean(over, keepdim=True)
    eps = torch.finfo(x.dtype).eps if name == "rms" else 1e-5
    z = d * ((d * d).mean(over, keepdim=True) + eps).rsqrt()
    if name in ("rms", "layer, two dimensions"):
        return z * w
    if name != "layer":
        w, b = (t.reshape(-1, *[1] * (x.dim() - 2)) for t in (w, b))
    return z * w + b


@pytest.mark.parametrize("name", CASES)
def test_third_order_is_the_definitions(name):
    function, _, shape, at = CASES[name]
    n = [shape[i] for i in at]
    pairs = [both(*s, dtype=np.float64) for s in (shape, n, n)]
    directions = [both(*shape, dtype=np.float64) for _ in range(3)]

    def third(library, normalised, index):
        x, w, b = (p[index].clone().requires_grad_() for p in pairs)
        value = (normalised(x, w, b) ** 2 * directions[0][index]).sum()
        for d in directions[1:]:
            gx, gw = library.autograd.grad(value, [x, w], create_graph=True)
            value = (gx * d[index]).sum() + (gw * gw).sum()
        return library.autograd.grad(value, [x, w])

    got = third(spool, lambda *a: function(spool.nn.functional, *a), 0)
    wanted = third(torch, lambda *a: by_definition(name, *a), 1)
    for a, b in zip(got, wanted):
        close(a, b, 1e-8, 1e-8)


@pytest.mark.parametrize("shape", [(5, 4, 3, 2), (6, 4), (2, 4, 600)])
@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_running_statistics_are_torchs(shape, momentum):
    ours, theirs = zip(both(4), both(4))
    for _ in range(3):
        x, y = both(*shape, scale=2.0, shift=1.0)
        close(
            spool.batch_norm(x, *ours, None, None, True, momentum),
            TF.batch_norm(y, *theirs, None, None, True, momentum),
        )
        if x.ndim > 2:
            spool.instance_norm(x, *ours, None, None, True, momentum)
            TF.instance_norm(y, *theirs, None, None, True, momentum)
        for a, b in zip(ours, theirs):
            close(a, b, 1e-5, 1e-6)


def test_statistics_keep_digits_beside_a_large_mean():
    x = (RNG.normal(size=(3, 5000)) + 1e4).astype(np.float32)
    wanted = (x.astype(np.float64) - x.mean(1, dtype=np.float64, keepdims=True)) / np.sqrt(
        x.astype(np.float64).var(1, keepdims=True) + 1e-5
    )
    got = spool.layer_norm(spool.tensor(x), [5000]).numpy()
    assert np.abs(got - wanted).max() < 1e-3
    out, mean, var = spool.batch_norm_train(spool.tensor(x.T.copy()))
    np.testing.assert_allclose(mean.numpy(), x.mean(1, dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(var.numpy(), x.astype(np.float64).var(1), rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_bits_do_not_depend_on_layout_and_threads(name):
    function, shape, _, at = CASES[name]
    n = [shape[i] for i in at]
    x, w, b, gy = (both(*s)[0] for s in (shape, n, n, shape))
    results, threads = [], spool.get_num_threads()
    wide = spool.zeros(*shape, 2)
    wide[..., 0] = x
    try:
        for count, value in [(1, x), (2, x), (2, wide[..., 0])]:
            spool.set_num_threads(count)
            leaves = [t.clone().requires_grad_() for t in (w, b)]
            value = value.detach().requires_grad_()
            y = function(spool.nn.functional, value, *leaves)
            y.backward(gy)
            parts = [y, value.grad, *(t.grad for t in leaves)]
            results.append([None if p is None else p.detach().numpy().tobytes() for p in parts])
    finally:
        spool.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: spool.layer_norm(x, [5]), "normalized_shape"),
        (lambda x: spool.layer_norm(x, [4], x), "weight has shape"),
        (lambda x: spool.group_norm(x, 3), "do not divide"),
        (lambda x: spool.batch_norm(x), "training to True"),
        (lambda x: spool.batch_norm(x[:1], training=True), "one value a channel"),
        (lambda x: spool.batch_norm(x[0]), "expected \\(N, C\\)"),
        (lambda x: spool.layer_norm(x.long(), [4]), "expected"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises((spool.SpoolError, ValueError, TypeError), match=message):
        call(spool.zeros(2, 4))
