"""Pooling against PyTorch: geometries at random, edge values, places, planes too large for one piece, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as TF

import spool
from spool.nn import functional as F


@st.composite
def windows(draw):
    """(shape, keywords of a window) that have at least one window."""
    n = draw(st.integers(1, 2))
    size = [draw(st.integers(1, 13)) for _ in range(n)]
    kernel = [draw(st.integers(1, 4)) for _ in range(n)]
    dilation = [draw(st.integers(1, 3)) for _ in range(n)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    for i in range(n):
        if size[i] + 2 * padding[i] < dilation[i] * (kernel[i] - 1) + 1:
            kernel[i], padding[i] = 1, 0
    stride = [draw(st.integers(1, 4)) for _ in range(n)]
    lead = draw(st.sampled_from([(3,), (2, 3)]))
    more = {"stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    return (*lead, *size), kernel, dilation, more


def tied(shape, dtype, seed=0):
    """Few different values, so that there are ties; some NaN and infinities."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shape).astype(dtype)
    if x.dtype.kind == "f" and x.size:
        for value in (np.nan, np.inf, -np.inf):
            x.reshape(-1)[rng.integers(0, x.size, 2)] = value
    return x


@settings(max_examples=150, deadline=None)
@given(windows(), st.sampled_from(["float32", "float64", "int64"]))
def test_max_pool_is_torchs_with_ties_and_nan(window, dtype):
    shape, kernel, dilation, more = window
    name = f"max_pool{len(kernel)}d"
    x = tied(shape, dtype)
    got = getattr(F, name)(spool.tensor(x), kernel, dilation=dilation, return_indices=True, **more)
    wanted = getattr(TF, name)(
        torch.from_numpy(x), kernel, dilation=dilation, return_indices=True, **more
    )
    np.testing.assert_array_equal(got[0].numpy(), wanted[0].numpy())
    alone = getattr(F, name)(spool.tensor(x), kernel, dilation=dilation, **more)
    np.testing.assert_array_equal(alone.numpy(), got[0].numpy())
    inside = wanted[1] < np.prod(shape[-len(kernel) :])  # PyTorch's, of a window of padding alone
    np.testing.assert_array_equal(got[1].numpy()[inside], wanted[1].numpy()[inside])


@settings(max_examples=150, deadline=None)
@given(windows(), st.booleans(), st.sampled_from([None, 3, -2]))
def test_avg_pool_and_its_gradient_are_torchs(window, count_include_pad, divisor):
    shape, kernel, _, more = window
    n = len(kernel)
    more["padding"] = [min(p, k // 2) for p, k in zip(more["padding"], kernel)]
    if any(s + 2 * p < k for s, p, k in zip(shape[-n:], more["padding"], kernel)):
        return
    more["count_include_pad"] = count_include_pad
    if n == 2:
        more["divisor_override"] = divisor
    x = np.random.default_rng(1).normal(size=shape)
    ours = spool.tensor(x, requires_grad=True)
    theirs = torch.from_numpy(x).requires_grad_()
    got = getattr(F, f"avg_pool{n}d")(ours, kernel, **more)
    wanted = getattr(TF, f"avg_pool{n}d")(theirs, kernel, **more)
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), 1e-12, 1e-12)
    weights = np.random.default_rng(2).normal(size=tuple(wanted.shape))
    (got * spool.tensor(weights)).sum().backward()
    (wanted * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), 1e-12, 1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 130, 140), (1, 300, 9), (1, 2, 20000), (70, 9, 5, 6)])
@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 1, 1), (3, 2, 1), (5, 7, 2)])
def test_planes_in_many_pieces(shape, kernel, stride, padding):
    n = 2 if len(shape) == 4 else 1
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    for kind in ("max_pool", "avg_pool"):
        results = []
        for library, functions, make in ((spool, F, spool.tensor), (torch, TF, torch.tensor)):
            leaf = make(x, requires_grad=True)
            y = getattr(functions, f"{kind}{n}d")(leaf, kernel, stride, padding)
            library.sin(y * 3).sum().backward()
            results.append((y.detach().numpy(), leaf.grad.numpy()))
        np.testing.assert_allclose(results[0][0], results[1][0], 2e-6, 2e-6)
        np.testing.assert_allclose(results[0][1], results[1][1], 2e-5, 2e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 12, (3, None), (None, 1)])
def test_adaptive_pools_are_torchs(size):
    x = np.random.default_rng(4).normal(size=(2, 3, 7, 10))
    got, wanted = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    for tensor, functions in ((got, F), (wanted, TF)):
        mean = functions.adaptive_avg_pool2d(tensor, size)
        largest, at = functions.adaptive_max_pool2d(tensor, size, return_indices=True)
        (mean.exp().sum() + (largest * 2).exp().sum()).backward()
        tensor.found = [mean, largest, at, tensor.grad]
    for a, b in zip(got.found, wanted.found):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-11, 1e-11)


def test_threads_do_not_change_bits():
    x = spool.randn(64, 16, 40, 40, requires_grad=True)
    found = []
    for threads in (1, 2):
        spool.set_num_threads(threads)
        x.grad = None
        y = F.max_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1)
        (y * y).sum().backward()
        found.append((y.detach().numpy().tobytes(), x.grad.numpy().tobytes()))
    assert found[0] == found[1]


MODULES = [
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 11)),
    ("MaxPool2d", (2,), {}, (2, 3, 8, 9)),
    ("MaxPool2d", ((3, 2),), {"dilation": 2, "ceil_mode": True, "return_indices": True}, (3, 9, 9)),
    ("AvgPool1d", (3,), {"padding": 1, "count_include_pad": False}, (2, 3, 11)),
    ("AvgPool2d", (3, 2), {"padding": 1, "divisor_override": 4}, (2, 3, 8, 9)),
    ("AdaptiveAvgPool1d", (4,), {}, (2, 3, 11)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (2, 3, 8, 9)),
    ("AdaptiveMaxPool1d", (4,), {"return_indices": True}, (2, 3, 11)),
    ("AdaptiveMaxPool2d", (3,), {}, (2, 3, 8, 9)),
]


@pytest.mark.parametrize("name, args, kwargs, shape", MODULES)
def test_modules_are_torchs(name, args, kwargs, shape):
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    ours, theirs = (
        getattr(spool.nn, name)(*args, **kwargs),
        getattr(torch.nn, name)(*args, **kwargs),
    )
    got, wanted = ours(spool.tensor(x)), theirs(torch.from_numpy(x))
    pairs = zip(got, wanted) if isinstance(wanted, tuple) else [(got, wanted)]
    for a, b in pairs:
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-6, 1e-6)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda x: F.max_pool2d(x, 2, padding=2), ValueError, "half of a window"),
        (lambda x: F.max_pool2d(x, 5), spool.ShapeError, "smaller window"),
        (lambda x: F.max_pool2d(x, 0), ValueError, "kernel_size is 0"),
        (lambda x: F.max_pool2d(x, 2, 0), ValueError, "stride is 0"),
        (lambda x: F.max_pool2d(x, [1, 2, 3]), ValueError, "one or 2"),
        (lambda x: F.max_pool1d(x[0, 0, 0], 2), spool.ShapeError, "expected 3 dimensions"),
        (lambda x: F.max_pool2d(x > 0, 2), TypeError, "bool"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "divisor_override"),
        (lambda x: F.avg_pool2d(x.long(), 2), TypeError, "float"),
        (lambda x: F.adaptive_avg_pool2d(x, -1), ValueError, "output_size is -1"),
        (lambda x: F.adaptive_max_pool2d(x[..., :0], 2), spool.ShapeError, "without elements"),
        (lambda x: F.max_pool2d(x, 2**40, padding=2**39), ValueError, "too large"),
        (
            lambda x: spool.max_pool_gather(x, spool.full((1, 2, 1, 1), 16), [4, 4]),
            IndexError,
            "out of range",
        ),
        (
            lambda x: spool.max_pool_scatter(x, spool.full((1, 2, 4, 4), -1), [4, 4]),
            IndexError,
            "out of range",
        ),
    ],
)
def test_errors_say_what_to_do(call, error, says):
    with pytest.raises(error, match=says):
        call(spool.randn(1, 2, 4, 4))
        spool.synchronize()
