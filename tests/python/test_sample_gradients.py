"""Every differentiable sample beside PyTorch in float64: gradients, second order, forward mode; kinks and ties, too.

Where PyTorch has no such derivative or a wrong one, the sample is listed here, and an entry that is no longer needed fails.
test_samples.py checks the same derivatives by finite differences, coarsely, and those listed here as well.
"""

import itertools
import warnings
from collections import defaultdict

import numpy as np
import pytest
import torch
from peers import call, to_torch
from samples import (
    arrays_of,
    float_positions,
    has_complex,
    load,
    normal_like,
    outputs,
    run,
    tensor_at,
    with_tensors,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

import spool

# By op, or by sample where it is not all of the op's.
NO_RULE = "PyTorch has no such derivative"
EMPTY = "PyTorch's raises an error for a result without elements"
WRONG_AT_NONE = "PyTorch's raises an error for a bias without a weight"
INVERTED = "PyTorch's passes the gradient where it was overwritten, and none elsewhere"
TRUNCATED = "PyTorch's is 0 where the exponent is negative: it takes 2 ** y for whole"
ZERO = "PyTorch's is zero, silently"
FLOAT32 = "PyTorch's constant has the digits of float32"
NOT_TORCHS = {
    "first order": {
        "floor_divide": NO_RULE,
        "floor_divide.scalar": NO_RULE,
        "floor_divide.rscalar": NO_RULE,
        "remainder.rscalar": NO_RULE,
        "adaptive_avg_pool((2, 5, 4), [0, 2])": EMPTY,
        "adaptive_max_pool(distinct((2, 5, 4)), [0, 2])": EMPTY,
        "as_strided_scatter": INVERTED,
        "embedding(int64((3, 2), 0, 5), (5, 4)) complex": NO_RULE,
        "select_scatter((5, 4), (4,), 0, 1) complex": NO_RULE,
        "slice_scatter((5, 4), (2, 4), 0, 1, 3) complex": NO_RULE,
        "view_as_real(complex64((0, 2)))": EMPTY,
        "hardsigmoid": FLOAT32,
        "group_norm((2, 4, 5), 4, None, (4,), 0.1)": WRONG_AT_NONE,
        "fill.tensor(complex64((3, 4)), ())": NO_RULE,
        "nan_to_num((3, 4)) complex": NO_RULE,
        "ldexp((3, 4), int64((3, 4), -3, 4))": TRUNCATED,
        "ldexp((3, 4), int64((3, 4), -3, 4)) complex": TRUNCATED,
    },
    "second order": {
        "cdist": NO_RULE,
        "layer_norm((4,), [4], None, (4,), 0.1)": WRONG_AT_NONE,
        "logit.within(data([0.0, 1.0, 0.5, 2.0, -1.0]), 0.25)": "PyTorch's is NaN where x (1 - x) is 0",
        "pow.rscalar(pos((3,)), 0)": "PyTorch's is NaN: it multiplies log(0) by 0",
    },
    "forward mode": {
        "cdist": NO_RULE,
        "floor_divide": NO_RULE,
        "floor_divide.scalar": NO_RULE,
        "floor_divide.rscalar": NO_RULE,
        "remainder.rscalar": NO_RULE,
        "index_reduce": NO_RULE,
        "scatter_fold((3, 4), 1, int64((3, 2), 0, 4), (3, 2), 'prod')": ZERO,
        "scatter_fold(data([2.0, 0.0, 3.0, 0.5]), 0, data([1, 0, 0, 3, 3], 'int64'), data([1.5, -1.0, 0.0, 0.0, 2.0]), 'prod')": ZERO,
        "scatter_reduce(pos((3, 4)), 1, int64((3, 5), 0, 4), pos((3, 5)), 'prod', include_self=False)": ZERO,
        "logcumsumexp((0, 3), 0)": EMPTY,
        "hardsigmoid": FLOAT32,
        "ldexp((3, 4), int64((3, 4), -3, 4))": TRUNCATED,
        "ldexp((3, 4), int64((3, 4), -3, 4)) complex": TRUNCATED,
    },
}
# The second order is made of the first.
NOT_TORCHS["second order"].update(NOT_TORCHS["first order"])
COMPARED, LISTED, DIFFERED_AT_TIES = defaultdict(set), defaultdict(set), defaultdict(bool)


class Case:
    """A sample's differentiable arguments in float64, directions to move them in and weights of its results."""

    def __init__(self, sample, change=None):
        self.sample = sample
        self.args, self.kwargs = arrays_of(sample, "float64")
        self.positions = [p for p in float_positions(self.args) if p[0] in sample.differentiable]
        self.points = [tensor_at(self.args, p) for p in self.positions]
        if change:
            change(self)
        rng = np.random.default_rng(4)
        results = arrays(self.of_spool(*map(spool.tensor, self.points)))
        self.directions = [normal_like(rng, p) for p in self.points]
        self.weights = [normal_like(rng, r) for r in results]

    def of_spool(self, *tensors):
        out = run(self.sample, with_tensors(self.args, self.positions, tensors), self.kwargs)
        return tuple(t for t in outputs(out) if t.dtype in (spool.float64, spool.complex128))

    def of_torch(self, *tensors):
        args = with_tensors(self.args, self.positions, tensors, to_torch)
        with sdpa_kernel(SDPBackend.MATH):  # of its kernels, the one with a second derivative
            out = call(self.sample, args, self.kwargs)
        return tuple(t for t in out if t.dtype in (torch.float64, torch.complex128))


def gradient(library, outs, leaves, weights, create_graph):
    """Zeros where nothing leads from the outputs to the leaves."""
    kept = [(out, w) for out, w in zip(outs, weights) if out.requires_grad]
    if not kept:
        return [library.zeros_like(t) for t in leaves]
    outs, weights = zip(*kept)
    return library.autograd.grad(
        outs,
        leaves,
        weights,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def first_order(library, function, case):
    leaves, weights = tensors(library, case.points), tensors(library, case.weights)
    return arrays(gradient(library, function(*leaves), leaves, weights, False))


def second_order(library, function, case):
    """The derivative of the gradient along the directions, by the arguments and by the weights."""
    leaves, weights = tensors(library, case.points), tensors(library, case.weights)
    first = gradient(library, function(*leaves), leaves, weights, True)
    ways = [library.tensor(d) for d in case.directions]
    return arrays(gradient(library, first, leaves + weights, ways, False))


def forward_mode(library, function, case):
    points, ways = (tuple(map(library.tensor, a)) for a in (case.points, case.directions))
    return arrays(library.func.jvp(function, points, ways)[1])


def tensors(library, values):
    return [library.tensor(v, requires_grad=True) for v in values]


def arrays(values):
    return [t.numpy(force=True) for t in values]


ORDERS = {"first order": first_order, "second order": second_order, "forward mode": forward_mode}


def differentiable(sample):
    """Whether there is a floating argument to differentiate by, and a result that keeps its digits."""
    if not sample.differentiable:
        return False
    case = Case(sample)
    return bool(case.points and case.weights)


SMOOTH = [s for s in load() if differentiable(s)]
smooth = pytest.mark.parametrize("sample", SMOOTH, ids=[s.id for s in SMOOTH])


def why_listed(sample, order):
    listed = NOT_TORCHS[order]
    return listed.get(sample.id) or listed.get(sample.op)


def differs(got, wanted, rtol=1e-9):
    """What about the arrays differs, or None."""
    if [a.shape for a in got] != [a.shape for a in wanted]:
        return f"shapes {[a.shape for a in got]}, PyTorch's {[a.shape for a in wanted]}"
    for i, (a, b) in enumerate(zip(got, wanted)):
        largest = np.abs(b[np.isfinite(b)]).max(initial=1e-4)
        if not np.allclose(a, b, rtol, rtol * largest, equal_nan=True):
            return f"the one by argument {i}: {a.tolist()}, PyTorch's {b.tolist()}"
    return None


def torchs(function, case):
    """PyTorch's arrays, or its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(torch, case.of_torch, case)
    except (RuntimeError, NotImplementedError, IndexError) as error:
        return error


@pytest.mark.parametrize("order", ORDERS)
@smooth
def test_derivatives_are_torchs(sample, order):
    case = Case(sample)
    got, wanted = ORDERS[order](spool, case.of_spool, case), torchs(ORDERS[order], case)
    failed = isinstance(wanted, Exception)
    difference = wanted if failed else differs(got, wanted)
    if why_listed(sample, order):
        LISTED[order].add(sample.id)
        assert difference is not None, "PyTorch agrees now: take it off the list"
    else:
        COMPARED[order].add(sample.id)
        assert difference is None


# Where functions turn: what their derivatives are there is convention, and PyTorch's.
TURNS = [0.0, -0.0, 0.3, -0.3, 0.5, -0.5, 0.6, 1, -1, 2, -2, 3, -3, 4, 6, -6, 20, 21, -20]
REAL = [s for s in SMOOTH if not has_complex(s) and s.op != "masked_fill"]
POINTWISE = [s for s in REAL if "pointwise" in s.entry["flags"] and len(Case(s).points) <= 2]
OTHERS = [s for s in REAL if s not in POINTWISE]
NOT_AT_TURNS = {
    "logit.within": "PyTorch's gradient is NaN at some numbers out of bounds",
    "sinc": "PyTorch's derivative by its weight is NaN at 0",
    "digamma": "at poles PyTorch's is what rounding leaves of infinity",
    "polygamma": "at poles PyTorch's is what rounding leaves of infinity",
}
OPEN = {"sort", "topk", "kthvalue", "mode"}  # which of equal elements is named is open
NOT_AT_TIES = {
    "cdist(distinct((3, 4)), distinct((2, 4)), 1e999)": "which of equal differences counts is open",
    "div.mode((3, 4), pos((4,)), rounding_mode='trunc')": "PyTorch's is 0 of a quotient by 0, too",
    "power_sum(pos((70, 5)), 0.5, dim=0)": "what it is compared with is no function of PyTorch's",
    "scatter_reduce(distinct((3, 4)), 1, int64((3, 2), 0, 4), distinct((3, 2)), 'amin', include_self=False)": (
        "PyTorch's gives a share to the element that is left out"
    ),
    "index_reduce(distinct((3, 4)), 1, int64((3,), 0, 4), distinct((3, 3)), 'amax', include_self=False)": (
        "PyTorch's gives a share to the element that is left out"
    ),
}


def at_turns(case):
    """Every combination of the places where functions turn; other arguments as long."""
    grid = np.array(list(itertools.product(TURNS, repeat=len(case.points))), float)
    case.points = list(grid.T.copy())
    for i, value in enumerate(case.args):
        if isinstance(value, np.ndarray) and (i, None) not in case.positions:
            case.args[i] = np.resize(value, len(grid))


@pytest.mark.parametrize("sample", POINTWISE, ids=[s.id for s in POINTWISE])
def test_gradients_at_kinks(sample):
    """The gradient, and that it is as linear in the weights of the results as PyTorch's."""
    if sample.op in NOT_AT_TURNS or why_listed(sample, "second order"):
        pytest.skip("listed above")
    if not all(p.size for p in Case(sample).points):
        pytest.skip("empty")
    case = Case(sample, at_turns)
    first, second = torchs(first_order, case), torchs(second_order, case)
    assert not isinstance(first, Exception) and not isinstance(second, Exception)
    assert differs(first_order(spool, case.of_spool, case), first) is None
    inside = np.isfinite(first).all(0)
    by_weight = second_order(spool, case.of_spool, case)[len(case.points)]
    assert differs([by_weight[inside]], [second[len(case.points)][inside]]) is None


@pytest.mark.parametrize("values", [[0], [1], [-1, 0, 1]], ids=str)
@pytest.mark.parametrize("sample", OTHERS, ids=[s.id for s in OTHERS])
def test_gradients_at_ties(sample, values):
    def tied(case):
        rng = np.random.default_rng(5)
        case.points = [
            np.asarray(rng.choice(np.array(values, float), p.shape)) for p in case.points
        ]

    if sample.op in OPEN or why_listed(sample, "first order"):
        pytest.skip("open, or listed above")
    case = Case(sample, tied)
    wanted = torchs(first_order, case)
    assert not isinstance(wanted, Exception)
    difference = differs(first_order(spool, case.of_spool, case), wanted)
    if sample.id in NOT_AT_TIES:
        DIFFERED_AT_TIES[sample.id] |= difference is not None
    else:
        assert difference is None


def accounted(order):
    """Ops of the table with a sample compared, and with none but listed ones; all others fail."""
    compared = {s.op for s in SMOOTH if s.id in COMPARED[order]}
    listed = {s.op for s in SMOOTH if s.id in LISTED[order]} - compared
    assert compared | listed == {s.op for s in load() if s.differentiable}
    return compared, listed


def test_coverage_beside_torch(request, capsys):
    """Every differentiable op in every order beside PyTorch or listed with the reason; printed."""
    ran = {item.name for item in request.session.items}
    wanted = {f"test_derivatives_are_torchs[{s.id}-{order}]" for s in SMOOTH for order in ORDERS}
    if not wanted <= ran:
        pytest.skip("only some of the samples were run")
    lines = []
    for order in ORDERS:
        compared, listed = accounted(order)
        samples = len(COMPARED[order]), len(SMOOTH)
        line = f"{order} {len(compared)} of {len(compared | listed)} ops, {samples[0]} of {samples[1]} samples"
        lines.append(line + f" (by differences alone: {', '.join(sorted(listed))})" * bool(listed))
        names = {s.id for s in SMOOTH} | {s.op for s in SMOOTH}
        assert set(NOT_TORCHS[order]) <= names
    with capsys.disabled():
        print("\nderivatives beside PyTorch: " + "; ".join(lines))
    assert all(DIFFERED_AT_TIES.values()), "agrees at ties: take it off the list"
