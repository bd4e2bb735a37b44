"""Third derivatives of every differentiable sample, in float64: by the tape thrice and in forward mode thrice, against
differences of second derivatives, which were made by the tape twice.

test_samples.py does the same for the first and second order, so that each order rests on differences of the one before.
Layers that keep statistics, or have kernels of their own for their derivatives, are checked as users call them, in mixed modes, too.
"""

import numpy as np
import pytest
from samples import (
    arrays_of,
    float_positions,
    load,
    normal_like,
    outputs,
    run,
    with_tensors,
)
from test_samples import EXACT, case_of, dot, finite_difference, first_derivative, inner

import spool
from spool.nn import functional as F

STEP = 1e-5
WEIGHT = np.array(0.7 - 0.3j)  # of all results alike; its real part, of real ones


def second_derivative(function, along, then):
    return first_derivative(first_derivative(function, along), then)


def bends(function, points, ways):
    """Whether the second derivative is not the same everywhere."""
    leaves = [spool.tensor(p, requires_grad=True) for p in points]
    first = first_derivative(function, ways[0])(*leaves)
    if not getattr(first, "requires_grad", False):
        return False
    second = first_derivative(lambda *_: first, ways[1])(*leaves)
    return getattr(second, "requires_grad", False)


def cubed(sample):
    """Like the samples' functions, of the results' cubes: of a linear op, this bends."""
    args, kwargs = arrays_of(sample, "float64")
    positions = [p for p in float_positions(args) if p[0] in sample.differentiable]

    def function(*tensors):
        full = with_tensors(args, positions, tensors)
        outs = [o for o in outputs(run(sample, full, kwargs)) if o.dtype in EXACT]
        return sum(inner(o * o * o, WEIGHT if o.is_complex() else WEIGHT.real) for o in outs)

    return function


def by_tape(function, points, ways):
    """The third derivative along three ways: the gradient of the second derivative."""
    leaves = [spool.tensor(p, requires_grad=True) for p in points]
    value = second_derivative(function, ways[0], ways[1])(*leaves)
    grads = spool.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return dot([g.numpy() for g in grads], ways[2])


def forward(function, ways):
    tangents = tuple(map(spool.tensor, ways))
    return lambda *x: spool.func.jvp(function, x, tangents)[1]


def by_forward_mode(function, points, ways):
    for way in ways:
        function = forward(function, way)
    return function(*map(spool.tensor, points)).item()


def by_both(function, points, ways):
    """The gradient of a second derivative in forward mode."""
    second = forward(forward(function, ways[0]), ways[1])
    tensors = tuple(map(spool.tensor, points))
    grads = spool.func.grad(second, argnums=tuple(range(len(tensors))))(*tensors)
    return sum(inner(g, w).item() for g, w in zip(grads, ways[2]))


def by_differences(function, points, ways):
    second = second_derivative(function, ways[0], ways[1])
    return finite_difference(second, points, ways[2], STEP)


def ways_of(points):
    rng = np.random.default_rng(6)
    return [[normal_like(rng, p) for p in points] for _ in range(3)]


def check(function, points, modes, rtol=1e-4):
    ways = ways_of(points)
    wanted = by_tape(function, points, ways)
    assert np.isfinite(wanted)
    assert wanted == pytest.approx(by_differences(function, points, ways), rtol, 1e-5)
    for mode in modes:
        assert mode(function, points, ways) == pytest.approx(wanted, 1e-8, 1e-8), mode.__name__


# ---- samples of the table ------------------------------------------------------------------------------------------------

SMOOTH = [s for s in load() if s.differentiable]
CHECKED = set()


@pytest.mark.parametrize("sample", SMOOTH, ids=[s.id for s in SMOOTH])
def test_third_derivative(sample):
    function, points, _ = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    CHECKED.add(sample.op)
    if not bends(function, points, ways_of(points)):
        function = cubed(sample)
        if not bends(function, points, ways_of(points)):
            pytest.skip("constant, or without elements")
    check(function, points, [by_forward_mode])


def test_coverage_at_third_order(request, capsys):
    ran = {item.name for item in request.session.items}
    if not all(f"test_third_derivative[{s.id}]" in ran for s in SMOOTH):
        pytest.skip("only some of the samples were run")
    ops = {s.op for s in SMOOTH}
    with capsys.disabled():
        print(f"\nthird derivatives: {len(CHECKED)} of {len(ops)} differentiable ops")
    assert CHECKED == ops


# ---- layers, as they are called ------------------------------------------------------------------------------------------


def weighed(function):
    """The sum of weights times a function's result: of one tensor, all of whose elements count differently."""

    def total(*tensors):
        y = function(*tensors)
        return (y * (1 + spool.arange(y.numel(), dtype=spool.float64).reshape(y.shape).sin())).sum()

    return total


def batch_norm(x, weight, bias):
    return F.batch_norm(x, None, None, weight, bias, training=True)


def instance_norm(x, weight, bias):
    return F.instance_norm(x, weight=weight, bias=bias)


TARGET = spool.tensor([2, 0, 3, -100])
CHANCES = spool.tensor(np.random.default_rng(8).dirichlet(np.ones(4), 4))
LAYERS = {
    "softmax": (lambda x: F.softmax(x, -1), [(3, 4)]),
    "log_softmax": (lambda x: F.log_softmax(x, 0), [(3, 4)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, TARGET, label_smoothing=0.1), [(4, 4)]),
    "cross_entropy of chances": (lambda x: F.cross_entropy(x, CHANCES), [(4, 4)]),
    "attention": (F.scaled_dot_product_attention, [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 3)]),
    "attention, causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        [(2, 3, 4)] * 3,
    ),
    "attention, mask": (F.scaled_dot_product_attention, [(2, 3, 4), (2, 5, 4), (2, 5, 4), (3, 5)]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), [(2, 3, 6), (4, 3, 3), (4,)]),
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=2),
        [(2, 4, 5, 5), (4, 2, 3, 3), (4,)],
    ),
    "conv_transpose2d": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        [(1, 2, 3, 3), (2, 3, 2, 2)],
    ),
    "batch_norm": (batch_norm, [(5, 3), (3,), (3,)]),
    "batch_norm of images": (batch_norm, [(2, 3, 2, 2), (3,), (3,)]),
    "instance_norm": (instance_norm, [(2, 3, 4), (3,), (3,)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(3, 4), (4,), (4,)]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), [(3, 4), (4,)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 3), (4,), (4,)]),
    "normalize": (F.normalize, [(3, 4)]),
    "norm": (lambda x: x.norm(dim=1), [(3, 4)]),
    "norm of order 3": (lambda x: x.norm(3, dim=0), [(3, 4)]),
    "var": (lambda x: x.var(0), [(4, 3)]),
    "std": (lambda x: x.std(1), [(4, 3)]),
    "gelu": (F.gelu, [(3, 4)]),
    "silu": (F.silu, [(3, 4)]),
    "logsumexp": (lambda x: x.logsumexp(1), [(3, 4)]),
    "matmul": (lambda x, y: (x @ y).tanh(), [(2, 3, 4), (4, 2)]),
    "cumprod": (lambda x: x.cumprod(0), [(4, 2)]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_third_derivative_of_a_layer(name):
    layer, shapes = LAYERS[name]
    rng = np.random.default_rng(7)
    points = [rng.normal(size=shape) for shape in shapes]
    check(weighed(lambda *x: layer(*x) ** 2), points, [by_forward_mode, by_both])


def test_statistics_without_history_would_be_found():
    """The mistake that this file is about: a third derivative that takes what it saved for a constant."""

    def forgetful(x):
        centred = x - x.mean(0)
        var = (centred * centred).mean(0) + 1e-5
        once = (centred / var.sqrt()) ** 3
        return (once + (var - var.detach()) ** 3).sum()

    points = [np.random.default_rng(7).normal(size=(5, 3))]
    with pytest.raises(AssertionError):
        check(forgetful, points, [])
