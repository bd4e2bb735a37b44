"""Images in other sizes against PyTorch: values and gradients of every mode, layers, errors."""

import numpy as np
import pytest
import torch

import spool
from spool.nn import functional as F

MODES = [
    ("nearest", None),
    ("nearest-exact", None),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
    ("area", None),
]
SIZES = [
    {"size": (9, 13)},
    {"size": 3},
    {"size": (7, 1)},
    {"scale_factor": 2},
    {"scale_factor": (1.7, 0.6)},
    {"scale_factor": 2.4, "recompute_scale_factor": True},
]


def compare(x, mode, corners, more, rtol):
    found = []
    for functions, leaf in (
        (F, spool.tensor(x, requires_grad=True)),
        (torch.nn.functional, torch.tensor(x, requires_grad=True)),
    ):
        y = functions.interpolate(leaf, mode=mode, align_corners=corners, **more)
        (y * y).sum().backward()
        found.append((y.detach().numpy(), leaf.grad.numpy()))
    for a, b in zip(*found):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol, rtol)


@pytest.mark.parametrize("mode, corners", MODES)
@pytest.mark.parametrize("more", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_are_torchs(mode, corners, more, dtype):
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8)).astype(dtype)
    compare(x, mode, corners, more, 1e-5 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("mode, corners", [("nearest", None), ("linear", True), ("linear", False)])
@pytest.mark.parametrize("more", [{"size": 17}, {"scale_factor": 0.4}, {"size": 1}], ids=str)
def test_signals_are_torchs(mode, corners, more):
    compare(np.random.default_rng(1).normal(size=(2, 3, 9)), mode, corners, more, 1e-11)


@pytest.mark.parametrize("step", [0.3, 1 / 3, 0.7, 1.1, 2.9])
def test_nearest_takes_the_same_elements(step):
    """Positions are rounded down: one bit decides."""
    x = np.arange(100.0, dtype=np.float32).reshape(1, 1, 10, 10)
    for mode in ("nearest", "nearest-exact"):
        got = F.interpolate(spool.tensor(x), scale_factor=step * 3, mode=mode)
        wanted = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=step * 3, mode=mode)
        np.testing.assert_array_equal(got.numpy(), wanted.numpy())


MODULES = [
    ("Upsample", {"scale_factor": 2, "mode": "bilinear"}),
    ("Upsample", {"size": (5, 6)}),
    ("UpsamplingNearest2d", {"scale_factor": 3}),
    ("UpsamplingBilinear2d", {"size": 9}),
    ("PixelShuffle", {"upscale_factor": 2}),
    ("PixelUnshuffle", {"downscale_factor": 2}),
]


@pytest.mark.parametrize("name, kwargs", MODULES)
def test_modules_are_torchs(name, kwargs):
    x = np.random.default_rng(2).normal(size=(2, 4, 6, 8)).astype(np.float32)
    ours, theirs = getattr(spool.nn, name)(**kwargs), getattr(torch.nn, name)(**kwargs)
    got, wanted = ours(spool.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy()
    np.testing.assert_allclose(got, wanted, 1e-6, 1e-6)
    assert repr(ours) == repr(theirs)


def test_threads_do_not_change_bits():
    x, found = spool.randn(8, 16, 40, 40, requires_grad=True), []
    for threads in (1, 2):
        spool.set_num_threads(threads)
        x.grad = None
        y = F.interpolate(x, scale_factor=2, mode="bicubic")
        (y * y).sum().backward()
        found.append((y.detach().numpy().tobytes(), x.grad.numpy().tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda x: F.interpolate(x), ValueError, "one of size"),
        (lambda x: F.interpolate(x, 2, 2), ValueError, "one of size"),
        (lambda x: F.interpolate(x, (2, 2, 2)), ValueError, "expected one or 2"),
        (lambda x: F.interpolate(x, 2, mode="linear"), spool.ShapeError, "3 dimensions"),
        (lambda x: F.interpolate(x, 2, mode="best"), ValueError, "mode"),
        (lambda x: F.interpolate(x, 2, align_corners=True), ValueError, "align_corners"),
        (lambda x: F.interpolate(x, 2, antialias=True), NotImplementedError, "antialias"),
        (lambda x: F.interpolate(x, 0), ValueError, "at least 1"),
        (lambda x: F.interpolate(x.long(), 2), TypeError, "float"),
        (lambda x: F.interpolate(x[..., :0], 2), spool.ShapeError, "without elements"),
        (lambda x: F.pixel_shuffle(x, 2), spool.ShapeError, "factor"),
        (lambda x: F.pixel_unshuffle(x, 0), ValueError, "at least 1"),
    ],
)
def test_errors_say_what_to_do(call, error, says):
    with pytest.raises(error, match=says):
        call(spool.randn(1, 2, 4, 4))
