"""Every sample of every op: PyTorch's values, dtypes and gradients; forward mode; vmap; compiled bits."""

from collections import defaultdict

import numpy as np
import pytest
from peers import expected
from samples import (
    GATHERING,
    RANDOM,
    READING,
    UNSET,
    arrays_of,
    bits,
    caller,
    float_positions,
    load,
    normal_like,
    outputs,
    python_kwargs,
    run,
    tensor_at,
    tensor_positions,
    to_spool,
    with_tensors,
)

import spool

SAMPLES = load()
EXACT = (spool.float64, spool.complex128)
# Ops by the mode in which a sample of theirs was run.
EXERCISED = defaultdict(set)
VIEWS = {"view", "may_view", "composite"}  # a composite may be nothing but views
every = pytest.mark.parametrize("sample", SAMPLES, ids=[s.id for s in SAMPLES])
smooth = pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if s.differentiable],
    ids=[s.id for s in SAMPLES if s.differentiable],
)


def close(got, wanted, rtol=2e-6, atol=1e-6):
    got = got.detach().numpy() if isinstance(got, spool.Tensor) else got
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_is_torchs(sample, dtype):
    args, kwargs = arrays_of(sample, dtype)
    got = outputs(run(sample, list(map(to_spool, args)), kwargs))
    EXERCISED["value"].add(sample.op)
    if sample.op in RANDOM:
        assert np.isfinite(got[0].numpy()).all()
        return
    for value, wanted in zip(got, expected(sample, dtype), strict=True):
        assert tuple(value.shape) == tuple(wanted.shape)
        assert str(value.dtype).split(".")[-1] == str(wanted.dtype).split(".")[-1]
        if sample.op in UNSET:
            continue
        EXERCISED["PyTorch's value"].add(sample.op)
        exact = value.dtype not in (spool.float32, spool.complex64)
        close(value, wanted.resolve_conj().numpy(), *((1e-12, 1e-12) if exact else (2e-5, 1e-5)))


def strided(array):
    """The same values in other memory: every second element of a larger, misaligned, transposed block."""
    if array.ndim == 0:
        return spool.tensor(array)
    wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2 + 1), array.dtype)
    wide[..., 1::2] = array
    view = spool.tensor(np.ascontiguousarray(wide.T)).permute(*range(array.ndim - 1, -1, -1))
    return view[(slice(None),) * (array.ndim - 1) + (slice(1, None, 2),)]


@every
def test_layout_does_not_change_values(sample):
    if sample.op in RANDOM | UNSET or sample.op.startswith(("as_strided", "view")):
        pytest.skip("random, or about the layout itself")
    EXERCISED["layout"].add(sample.op)
    args, kwargs = arrays_of(sample)
    dense = outputs(run(sample, list(map(to_spool, args)), kwargs))
    other = outputs(
        run(
            sample,
            with_tensors(
                args,
                tensor_positions(args),
                [strided(tensor_at(args, p)) for p in tensor_positions(args)],
            ),
            kwargs,
        )
    )
    for a, b in zip(dense, other):
        close(a, b.detach().numpy(), 2e-6, 1e-6)


def inner(t, weight):
    """The sum of t * weight, of complex numbers over their parts: the real part of t * conj(weight)."""
    if t.is_complex():
        weight = np.asarray(weight)
        return inner(t.real, weight.real.copy()) + inner(t.imag, weight.imag.copy())
    return (t * spool.tensor(weight)).sum()


def scalar_function(sample, args, kwargs, positions, weights):
    """The inexact arguments -> sum(weights * op(...)), over float64 and complex128."""

    def function(*tensors):
        full = with_tensors(args, positions, tensors)
        total = 0
        for out, weight in zip(outputs(run(sample, full, kwargs)), weights):
            if out.dtype in EXACT:
                total = total + inner(out, weight)
        return total

    return function


def case_of(sample):
    """(function, float64 arrays at which to differentiate, directions)"""
    args, kwargs = arrays_of(sample, "float64")
    positions = [p for p in float_positions(args) if p[0] in sample.differentiable]
    rng = np.random.default_rng(1)
    results = outputs(run(sample, list(map(to_spool, args)), kwargs))
    if any(r.dtype in (spool.float32, spool.complex64) for r in results) or not any(
        r.dtype in EXACT for r in results
    ):
        positions = []  # rounded to less than the differences need, or no number at all
    weights = [normal_like(rng, r.detach().numpy()) for r in results]
    points = [tensor_at(args, p) for p in positions]
    directions = [normal_like(rng, p) for p in points]
    return scalar_function(sample, args, kwargs, positions, weights), points, directions


def dot(arrays, others):
    return sum(
        float((np.conj(np.asarray(a)) * np.asarray(b)).sum().real) for a, b in zip(arrays, others)
    )


def finite_difference(function, points, directions, step):
    moved = [
        [spool.tensor(p + sign * step * d) for p, d in zip(points, directions)] for sign in (1, -1)
    ]
    return (function(*moved[0]).item() - function(*moved[1]).item()) / (2 * step)


def gradients(function, points, create_graph=False):
    leaves = [spool.tensor(p, requires_grad=True) for p in points]
    return spool.autograd.grad(
        function(*leaves),
        leaves,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    ), leaves


@smooth
def test_gradient_first_order(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    EXERCISED["gradient"].add(sample.op)
    grads, _ = gradients(function, points)
    close(
        dot([g.numpy() for g in grads], directions),
        finite_difference(function, points, directions, 1e-6),
        1e-5,
        1e-6,
    )


def layouts_of(array):
    """Tensors of the array's values: dense, expanded where it is constant, transposed, with gaps."""
    wide = np.repeat(array[..., None], 2, -1)
    return [
        spool.tensor(array),
        spool.tensor(array.reshape(-1)[:1].reshape(())).expand(array.shape),
        spool.tensor(array.T.copy()).permute(list(range(array.ndim))[::-1]),
        spool.tensor(wide).select(-1, 0),
    ]


@smooth
def test_gradient_whatever_the_layout_of_what_comes_in(sample):
    args, kwargs = arrays_of(sample)
    leaves, wanted = list(map(to_spool, args)), None
    positions = [p for p in float_positions(args) if p[0] in sample.differentiable]
    targets = [tensor_at(leaves, p) for p in positions]
    for target in targets:
        target.requires_grad_()
    out = outputs(run(sample, leaves, kwargs))[0]
    if not out.requires_grad or out.numel() == 0:
        pytest.skip("nothing to differentiate")
    ones = np.ones(tuple(out.shape), out.detach().numpy().dtype)
    for layout in layouts_of(ones):
        grads = spool.autograd.grad(out, targets, layout, retain_graph=True, allow_unused=True)
        got = [None if g is None else g.numpy() for g in grads]
        wanted = wanted or got
        for one, other in zip(got, wanted):
            np.testing.assert_array_equal(one, other)


def first_derivative(function, directions):
    """A function whose value is the derivative along `directions`, itself differentiable."""

    def derivative(*tensors):
        leaves = [t if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        grads = spool.autograd.grad(
            function(*leaves), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = 0
        for g, d in zip(grads, directions):
            total = total + inner(g, d)
        return total

    return derivative


@smooth
def test_gradient_second_order(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    EXERCISED["second order"].add(sample.op)
    rng = np.random.default_rng(2)
    others = [normal_like(rng, p) for p in points]
    derivative = first_derivative(function, directions)
    leaves = [spool.tensor(p, requires_grad=True) for p in points]
    value = derivative(*leaves)
    if not value.requires_grad:
        wanted = finite_difference(derivative, points, others, 1e-5)
        close(0.0, wanted, 1e-4, 1e-4)
        return
    grads = spool.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    close(
        dot([g.numpy() for g in grads], others),
        finite_difference(derivative, points, others, 1e-5),
        1e-4,
        1e-5,
    )


@smooth
def test_forward_mode(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    EXERCISED["forward mode"].add(sample.op)
    grads, _ = gradients(function, points)
    _, tangent = spool.func.jvp(
        function, tuple(map(spool.tensor, points)), tuple(map(spool.tensor, directions))
    )
    close(tangent.item(), dot([g.numpy() for g in grads], directions), 1e-9, 1e-9)


@every
def test_vmap_is_a_loop(sample):
    args, kwargs = arrays_of(sample)
    tensors = tensor_positions(args)
    if not tensors or sample.op in RANDOM or sample.op in READING:
        pytest.skip("no tensor argument, random, or of a shape that values decide")
    EXERCISED["vmap"].add(sample.op)
    for batched in [tensors] + ([[tensors[0]]] if len(tensors) > 1 else []):
        rng = np.random.default_rng(3)
        stacks = {p: np.stack([np.asarray(tensor_at(args, p))] * 3) for p in batched}
        for i, stack in stacks.items():
            if stack.dtype.kind in "fc":
                stacks[i] = (stack * rng.uniform(0.5, 1.5, (3,) + (1,) * (stack.ndim - 1))).astype(
                    stack.dtype
                )

        def one(*slices, where=batched):
            return run(sample, with_tensors(args, where, slices), kwargs)

        got = outputs(spool.func.vmap(one)(*[spool.tensor(stacks[i]) for i in batched]))
        for k, value in enumerate(got):
            wanted = np.stack(
                [
                    outputs(one(*[spool.tensor(stacks[i][n]) for i in batched]))[k].numpy()
                    for n in range(3)
                ]
            )
            close(value, wanted, 2e-5, 1e-6)


@every
def test_compiled_bits_are_eagers(sample):
    args, kwargs = arrays_of(sample)
    op = caller(sample)
    keywords = python_kwargs(kwargs, spool)

    def function(*tensors):
        return op(*with_tensors(args, positions, tensors), **keywords)

    positions = tensor_positions(args)
    tensors = [to_spool(tensor_at(args, p)) for p in positions]
    jitted = spool.jit(function)
    if sample.op in RANDOM:
        spool.manual_seed(5)
        eager = [bits(function(*tensors)) for _ in range(4)]
        spool.manual_seed(5)
        assert [bits(jitted(*tensors)) for _ in range(4)] == eager
    else:
        wanted = bits(function(*tensors))
        for _ in range(4):
            assert bits(jitted(*tensors)) == wanted or sample.op in UNSET
    EXERCISED["compiled"].add(sample.op)
    report = spool.explain(jitted, quiet=True)
    assert report.compiled_ops >= 0.9 * report.ops, report.reasons
    assert report.breaks == 0 or sample.op in READING | GATHERING, report.reasons
    assert report.ops > 0 or not VIEWS.isdisjoint(sample.entry["flags"])


def test_every_op_has_samples():
    ops = {s.op for s in SAMPLES}
    assert len(ops) >= 60 and len(SAMPLES) >= 3 * len(ops)


def promised(entry, samples):
    """The modes in which an op's samples have to be run."""
    name, modes = entry["name"], {"value", "compiled"}
    tensors = any(tensor_positions(arrays_of(s)[0]) for s in samples)
    if tensors and name not in RANDOM:
        if not name.startswith(("as_strided", "view")):
            modes.add("layout")
        if name not in READING:
            modes.add("vmap")
    if entry["differentiable"]:
        modes |= {"gradient", "second order", "forward mode"}
    return modes


def test_coverage_of_the_table(request, capsys):
    """Every op in every mode it is meant for, by the samples above; printed."""
    ran = {item.name for item in request.session.items}
    if not all(f"test_compiled_bits_are_eagers[{s.id}]" in ran for s in SAMPLES):
        pytest.skip("only some of the samples were run")
    wanted, missing = defaultdict(set), []
    for name, entry in {s.op: s.entry for s in SAMPLES}.items():
        for mode in promised(entry, [s for s in SAMPLES if s.op == name]):
            wanted[mode].add(name)
            missing += [(name, mode)] * (name not in EXERCISED[mode])
    wanted["PyTorch's value"] = wanted["value"] - RANDOM - UNSET  # these have its dtype and shape
    covered = [f"{m} {len(n & EXERCISED[m])} of {len(n)}" for m, n in sorted(wanted.items())]
    with capsys.disabled():
        print(f"\ncoverage of the op table by samples: {', '.join(covered)}")
    assert not missing
    assert wanted["PyTorch's value"] <= EXERCISED["PyTorch's value"]
    assert {s.op for s in SAMPLES} == set(spool.op_names())
