"""vmap: every op of the table runs batched, whatever is mapped, and gives what a loop gives."""

from itertools import combinations

import numpy as np
import pytest
from samples import (
    RANDOM,
    READING,
    UNSET,
    arrays_of,
    float_positions,
    load,
    normal_like,
    outputs,
    run,
    tensor_at,
    tensor_positions,
    to_spool,
    with_tensors,
)

import spool
from spool import _C
from spool.func import grad, jet, jvp, vmap

SIZE = 3
DRAWN = RANDOM | UNSET
SAMPLES = [s for s in load() if s.op not in DRAWN and tensor_positions(arrays_of(s)[0])]
every = pytest.mark.parametrize("sample", SAMPLES, ids=[s.id for s in SAMPLES])
smooth = pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if s.differentiable],
    ids=[s.id for s in SAMPLES if s.differentiable],
)


@pytest.fixture(autouse=True)
def no_fallback(request):
    before = spool.func.vmap_fallbacks()
    yield
    assert spool.func.vmap_fallbacks() == before or "loud" in request.node.name


def examples(array, rng):
    """SIZE arrays like this one, along a new first dimension; whole numbers and truth values stay in range."""
    if array.dtype.kind in "fc":
        return np.stack([(array * f).astype(array.dtype) for f in rng.uniform(0.5, 1.5, SIZE)])
    flat = array.reshape(-1)
    return np.stack([rng.permutation(flat).reshape(array.shape) for _ in range(SIZE)])


def mapped_inputs(positions):
    """Which of the tensors are mapped: all choices of up to three, else each, and all."""
    if len(positions) > 3:
        return [[p] for p in positions] + [positions]
    sizes = range(1, len(positions) + 1)
    return [list(c) for n in sizes for c in combinations(positions, n)]


def close(got, wanted, tolerance):
    for a, b in zip((g.detach().numpy() for g in got), wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def loop(function, stacks):
    """The results for each example, stacked."""
    each = [
        [o.detach().numpy() for o in outputs(function(*[spool.tensor(s[n]) for s in stacks]))]
        for n in range(SIZE)
    ]
    return [np.stack(parts) for parts in zip(*each)]


def check(function, stacks, tolerance, in_dim=0):
    moved = [spool.tensor(np.moveaxis(s, 0, in_dim).copy()) for s in stacks]
    got = outputs(vmap(function, in_dims=in_dim)(*moved))
    close(got, loop(function, stacks), tolerance)


def arguments(sample, dtype="float32"):
    """(args, kwargs, positions of tensors, the examples' values at each)"""
    args, kwargs = arrays_of(sample, dtype)
    positions = tensor_positions(args)
    rng = np.random.default_rng(3)
    return args, kwargs, positions, {p: examples(tensor_at(args, p), rng) for p in positions}


def writes_shared(sample, mapped):
    """copy_() of mapped values into what all examples share, which is an error."""
    return sample.op == "copy" and (0, None) not in mapped


@every
def test_any_inputs_mapped(sample):
    args, kwargs, positions, stacks = arguments(sample)
    for mapped in mapped_inputs(positions):

        def one(*slices, mapped=mapped):
            return run(sample, with_tensors(args, mapped, slices), kwargs)

        # A view of a number's parts is one only where these lie side by side.
        for in_dim in (0,) if sample.op == "view_as_complex" else (0, -1):
            try:
                check(one, [stacks[p] for p in mapped], 2e-5, in_dim)
            except ValueError as error:
                assert writes_shared(sample, mapped) and "all examples share" in str(error)
            except NotImplementedError as error:  # the size of the result depends on values
                assert sample.op in READING and "inside vmap" in str(error)


@pytest.mark.parametrize("first", ["bool", "int32", "int64", "float32", "float64", "complex64"])
@pytest.mark.parametrize("second", ["uint8", "int64", "float32", "float64"])
def test_promotion(first, second):
    """A mapped number stays a number, which gives way to tensors with dimensions."""
    rng = np.random.default_rng(0)
    for ranks in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1)]:
        x, y = (
            (rng.random((SIZE, *[2] * n)) * 3).astype(d) for n, d in zip(ranks, (first, second))
        )
        for function in (lambda a, b: a * b, lambda a, b: spool.where(a != b, a, b)):
            check(function, [x, y], 1e-6)
            check(lambda a, f=function: f(a, spool.tensor(y[0])), [x], 1e-6)
            check(lambda b, f=function: f(spool.tensor(x[0]), b), [y], 1e-6)


@every
def test_vmap_of_vmap(sample):
    if sample.op in READING:
        pytest.skip("of a shape that values decide")
    args, kwargs, positions, stacks = arguments(sample)
    values = [spool.tensor(stacks[p]) for p in positions]

    def one(*slices):
        return run(sample, with_tensors(args, positions, slices), kwargs)

    wanted = [o.detach().numpy() for o in outputs(vmap(one)(*values))]
    twice = [spool.stack([v, v.flip([0])], 1) for v in values]
    got = outputs(vmap(vmap(one), in_dims=1, out_dims=1)(*twice))
    close([g.select(1, 0) for g in got], wanted, 1e-6)
    close([g.select(1, 1) for g in got], [w[::-1] for w in wanted], 1e-6)
    if len(positions) < 2 or sample.op == "copy":
        return

    def apart(first, *rest):
        return vmap(lambda *r: one(first, *r))(*rest)

    got = outputs(vmap(apart, in_dims=(0, *[None] * (len(values) - 1)))(*values))
    close([spool.diagonal(g, 0, 0, 1).movedim(-1, 0) for g in got], wanted, 1e-6)


# ---- with derivatives ----------------------------------------------------------------------------------------------------


def weighed(out, weight):
    if out.is_complex():
        return weighed(out.real, weight.real.copy()) + weighed(out.imag, weight.imag.copy())
    return (out * spool.tensor(weight)).sum()


class Derivatives:
    """Derivatives of a sample in float64 as functions of the tensors at `mapped`."""

    def __init__(self, sample):
        self.sample = sample
        self.args, self.kwargs, self.positions, self.stacks = arguments(sample, "float64")
        self.by = [p for p in float_positions(self.args) if p[0] in sample.differentiable]
        rng = np.random.default_rng(1)
        results = outputs(run(sample, list(map(to_spool, self.args)), self.kwargs))
        self.weights = [
            normal_like(rng, r.detach().numpy())
            if r.is_floating_point() or r.is_complex()
            else None
            for r in results
        ]
        self.along = [normal_like(rng, tensor_at(self.args, p)) for p in self.by]
        self.numbers = tuple(range(len(self.by)))

    @property
    def any(self):
        return bool(self.by) and any(w is not None for w in self.weights)

    def at(self, mapped, slices):
        """(the tensors to differentiate by, a function of these)"""
        full = with_tensors(self.args, mapped, slices)

        def function(*tensors):
            now = [list(v) if isinstance(v, list) else v for v in full]
            return run(self.sample, with_tensors(now, self.by, tensors, lambda v: v), self.kwargs)

        return [tensor_at(full, p) for p in self.by], function

    def total(self, function):
        def scalar(*tensors):
            pairs = zip(outputs(function(*tensors)), self.weights)
            parts = [weighed(o, w) for o, w in pairs if w is not None]
            return sum(parts[1:], parts[0])

        return scalar

    def gradient(self, mapped, *slices):
        points, function = self.at(mapped, slices)
        return grad(self.total(function), self.numbers)(*points)

    def second(self, mapped, *slices):
        points, function = self.at(mapped, slices)

        def slope(*tensors):
            grads = grad(self.total(function), self.numbers)(*tensors)
            parts = [weighed(g, d) for g, d in zip(grads, self.along)]
            return sum(parts[1:], parts[0])

        return grad(slope, self.numbers)(*points)

    def forward(self, mapped, *slices):
        points, function = self.at(mapped, slices)
        tangents = tuple(map(spool.tensor, self.along))
        return jvp(function, tuple(points), tangents)[1]

    def series(self, mapped, *slices):
        points, function = self.at(mapped, slices)
        along = tuple((spool.tensor(d), spool.tensor(d * 0.5)) for d in self.along)
        return list(jet(self.total(function), tuple(points), along)[1])


@smooth
def test_of_derivatives(sample):
    d = Derivatives(sample)
    if not d.any:
        pytest.skip("no floating argument, or no floating result")
    for mapped in mapped_inputs(d.positions):
        for kind in (d.gradient, d.second, d.forward, d.series):

            def one(*slices, mapped=mapped, kind=kind):
                return kind(mapped, *slices)

            try:
                check(one, [d.stacks[p] for p in mapped], 1e-7)
            except ValueError as error:
                assert writes_shared(sample, mapped) and "all examples share" in str(error)
            except NotImplementedError as error:
                assert sample.op in READING and "inside vmap" in str(error)


@smooth
def test_derivatives_of_it(sample):
    """grad and jvp of vmap are vmap of grad and jvp."""
    d = Derivatives(sample)
    mapped = d.by
    if not d.any or sample.op in READING or writes_shared(sample, mapped):
        pytest.skip("no floating argument or result, or of a shape that values decide")
    stacks = [spool.tensor(d.stacks[p]) for p in mapped]

    def one(*slices):
        points, function = d.at(mapped, slices)
        return d.total(function)(*points)

    got = grad(lambda *t: vmap(one)(*t).sum(), d.numbers)(*stacks)
    close(got, loop(lambda *s: d.gradient(mapped, *s), [d.stacks[p] for p in mapped]), 1e-7)
    along = tuple(spool.tensor(np.stack([v] * SIZE)) for v in d.along)
    got = jvp(vmap(one), tuple(stacks), along)[1]
    gradients = vmap(lambda *s: d.gradient(mapped, *s))(*stacks)
    wanted = sum(weighed(g, a.numpy()).item() for g, a in zip(gradients, along))
    close([got.sum()], [np.float64(wanted)], 1e-7)


# ---- allocations that fail ----------------------------------------------------------------------------------------------

OF_MANY = {"pointwise", "dims", "leading", "shape", "create", "none"}
ONE_EACH = list(
    {s.entry["batch"] + s.op: s for s in SAMPLES if s.entry["batch"] not in OF_MANY}.values()
)


@pytest.mark.parametrize("sample", ONE_EACH, ids=[s.id for s in ONE_EACH])
def test_allocation_failure(sample):
    args, kwargs, positions, stacks = arguments(sample)
    values = [spool.tensor(stacks[p]) for p in positions]
    mapped = vmap(lambda *slices: run(sample, with_tensors(args, positions, slices), kwargs))
    with spool.hot(False):
        mapped(*values)
        before, done, nth = spool.memory_stats()["live_blocks"], False, 0
        while not done and nth < 600:
            nth += 1
            _C._memory_fail_nth(nth)
            try:
                mapped(*values)
                done = True
            except MemoryError:
                pass
            finally:
                _C._memory_fail_nth(0)
        assert done and nth > 3 and spool.memory_stats()["live_blocks"] <= before


# ---- what has no rule, and what cannot have one --------------------------------------------------------------------------


def test_every_op_has_a_rule_or_a_body():
    entries = {s.op: s.entry for s in load()}
    assert set(entries) == set(spool.op_names())
    without = {
        n for n, e in entries.items() if e["batch"] == "none" and "composite" not in e["flags"]
    }
    assert not without


def test_a_missing_rule_is_loud_and_counted(capfd):
    x = spool.tensor(np.arange(6.0).reshape(3, 2))
    before = spool.func.vmap_fallbacks()
    _C._vmap_loop_always(True)
    try:
        got = vmap(lambda r: spool.cumsum(spool.cumsum(r, 0), 0))(x)
    finally:
        _C._vmap_loop_always(False)
    np.testing.assert_array_equal(got.numpy(), vmap(lambda r: r.cumsum(0).cumsum(0))(x).numpy())
    said = capfd.readouterr().err
    assert said.count("cumsum") == 1 and "slice by slice" in said
    after = spool.func.vmap_fallbacks()
    assert after["cumsum"] == before.get("cumsum", 0) + 2
    report = spool.explain(quiet=True)
    assert report.fallbacks == after and f"cumsum slice by slice, {after['cumsum']}" in report.text
    jitted = spool.jit(lambda r: r * 2)
    jitted(x)
    assert "cumsum slice by slice" in spool.explain(jitted, quiet=True).text


# ---- random numbers ------------------------------------------------------------------------------------------------------

DRAWS = {
    "rand": lambda x: spool.rand(4),
    "randn": lambda x: spool.randn(2, 2),
    "randint": lambda x: spool.randint(0, 1000000, (4,)),
    "randperm": lambda x: spool.randperm(20),
    "rand_like": spool.rand_like,
    "dropout": lambda x: spool.dropout(x + 1),
    "dropout of what is shared": lambda x: spool.dropout(spool.ones(30)),
    "bernoulli": lambda x: spool.bernoulli(x * 0 + 0.5),
    "normal": lambda x: spool.normal(x, 1.0),
    "in place": lambda x: x.clone().uniform_(),
    "multinomial": lambda x: spool.multinomial(x + 1, 20, True),
}
DRAWN_FROM = spool.tensor(np.zeros((5, 30)))


@pytest.mark.parametrize("name", DRAWS)
def test_randomness(name):
    draw = DRAWS[name]
    with pytest.raises(NotImplementedError, match="randomness="):
        vmap(draw)(DRAWN_FROM)
    rows = vmap(draw, randomness="same")(DRAWN_FROM).tolist()
    assert all(row == rows[0] for row in rows)
    rows = vmap(draw, randomness="different")(DRAWN_FROM).tolist()
    assert len({str(row) for row in rows}) == 5
    inner = vmap(draw, randomness="different")
    cube = vmap(inner, randomness="same")(spool.stack([DRAWN_FROM] * 3)).tolist()
    assert cube[0] == cube[1] == cube[2] and cube[0][0] != cube[0][1]


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_derivatives_drop_what_was_dropped(randomness):
    x = spool.tensor(np.random.default_rng(0).normal(size=(6, 20)))

    def both(row):
        def dropped(t):
            out = spool.dropout(t)
            return (out * out).sum(), out

        gradient, out = grad(dropped, has_aux=True)(row)
        return gradient, out

    gradient, out = vmap(both, randomness=randomness)(x)
    np.testing.assert_allclose(gradient.numpy(), 4 * out.numpy())
    value, tangent = vmap(
        lambda row: jvp(spool.dropout, (row,), (spool.ones(20).double(),)), randomness=randomness
    )(x)
    np.testing.assert_allclose(value.numpy(), (tangent * x).numpy())
    assert 0 < (tangent == 0).sum().item() < tangent.numel()


def test_what_was_dropped_outside_is_dropped_for_all_examples():
    x = spool.tensor(np.random.default_rng(0).normal(size=20), requires_grad=True)
    out = spool.dropout(x)
    spool.rand(3)
    rows = vmap(lambda g: spool.autograd.grad(out, x, g, retain_graph=True)[0])(
        spool.tensor(np.eye(20))
    )
    np.testing.assert_allclose((rows @ x.detach()).numpy(), out.detach().numpy())


def test_numbers_are_used_once():
    """What vmap draws for a tensor that is not mapped is not drawn again."""
    spool.manual_seed(1)
    first = vmap(lambda x: spool.dropout(spool.ones(40)), randomness="different")(DRAWN_FROM)
    after = spool.dropout(spool.ones(200)).reshape(5, 40)
    for row in first.tolist():
        assert row not in after.tolist()


# ---- writing -------------------------------------------------------------------------------------------------------------


def reversed_by(make):
    """A function that writes what it returns element by element."""

    def function(x):
        y = make(x)
        for i in range(x.shape[0]):
            y[x.shape[0] - 1 - i] = x[i] * 2
        return y

    return function


@pytest.mark.parametrize(
    "make",
    [
        spool.zeros_like,
        spool.empty_like,
        lambda x: spool.full_like(x, 3.0),
        lambda x: x.new_zeros(4),
        lambda x: x.new_full((4,), 1.0),
        lambda x: x.clone(),
    ],
)
def test_what_is_made_like_a_mapped_tensor_can_be_written(make):
    x = spool.tensor(np.random.default_rng(0).normal(size=(3, 4)))
    function = reversed_by(make)
    np.testing.assert_array_equal(vmap(function)(x).numpy(), x.numpy()[:, ::-1] * 2)
    gradient = vmap(grad(lambda t: (function(t) ** 2).sum()))(x)
    np.testing.assert_allclose(gradient.numpy(), 8 * x.numpy())
    tangent = jvp(vmap(function), (x,), (x,))[1]
    np.testing.assert_array_equal(tangent.numpy(), x.numpy()[:, ::-1] * 2)
    twice = vmap(vmap(function))(spool.stack([x, x + 1]))
    np.testing.assert_array_equal(twice.numpy()[1], (x.numpy() + 1)[:, ::-1] * 2)


IN_PLACE = {
    "add_": lambda x, y: x.add_(y),
    "mul_": lambda x, y: x.mul_(y.sum()),
    "clamp_": lambda x, y: x.clamp_(-0.5, 0.5),
    "copy_": lambda x, y: x.copy_(y.sum(0)),
    "fill_": lambda x, y: x.fill_(y[0, 0]),
    "masked_fill_": lambda x, y: x.masked_fill_(y > 0, 7.0),
    "index_add_": lambda x, y: x.index_add_(0, spool.tensor([1, 1]), y[:2]),
    "index_copy_": lambda x, y: x.index_copy_(1, spool.tensor([2]), y[:, :1]),
    "scatter_": lambda x, y: x.scatter_(1, y.argsort(1), y),
    "scatter_add_": lambda x, y: x.scatter_add_(0, (y > 0).long(), y),
    "zero_": lambda x, y: x.zero_(),
    "part": lambda x, y: x[1].add_(y[0]),
    "column": lambda x, y: x[:, 1].mul_(y[:, 0]),
    "setitem": lambda x, y: x.__setitem__((slice(None), 1), y[:, 0]),
    "setitem by mask": lambda x, y: x.__setitem__(y > 0, 3.0),
    "setitem by index": lambda x, y: x.__setitem__(y.argsort(0)[:, 0], y),
    "index_put_": lambda x, y: x.index_put_((y.argsort(0)[:, 0],), y, accumulate=True),
    "view": lambda x, y: x.view(-1).add_(y.reshape(-1)),
    "transposed": lambda x, y: x.t().copy_(y.t()),
}


@pytest.mark.parametrize("in_dim", [0, -1])
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name, in_dim):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, SIZE, 3, 3))

    def one(a, b):
        c = a * 1
        IN_PLACE[name](c, b)
        return c

    check(one, [x, y], 1e-12, in_dim)
    check(lambda a: one(a, spool.tensor(y[0])), [x], 1e-12, in_dim)
    check(lambda a, b: grad(lambda t: (one(t, b) ** 3).sum())(a), [x, y], 1e-12, in_dim)
    given = spool.tensor(np.moveaxis(x, 0, in_dim).copy())
    vmap(lambda a, b: (IN_PLACE[name](a, b), a)[1], in_dims=(in_dim, 0))(given, spool.tensor(y))
    wanted = loop(one, [x, y])[0]
    np.testing.assert_allclose(np.moveaxis(given.numpy(), in_dim, 0), wanted, rtol=1e-12)


def test_out():
    x = spool.tensor(np.random.default_rng(0).normal(size=(3, 4)))
    functions = [
        lambda r: spool.exp(r, out=spool.empty_like(r)),
        lambda r: spool.exp(r, out=r.new_empty(4)) * 2,
        lambda r: spool.exp(x[0], out=spool.zeros_like(r)),
        lambda r: spool.cat([r, x[1]], out=r.new_zeros(8)),
        lambda r: spool.matmul(x, r, out=r.new_zeros(3)),
        lambda r: spool.exp(x[0], out=spool.zeros(4).double()) + r,
    ]
    for function in functions:
        check(function, [x.numpy()], 1e-12)


def test_errors_say_what_to_do():
    x = spool.tensor(np.ones((3, 4)))
    shared = spool.zeros(4).double()
    f, mean, var = spool.nn.functional, spool.zeros(2).double(), spool.ones(2).double()
    for function, kind, match in [
        (lambda r: shared.add_(r), ValueError, "zeros_like"),
        (lambda r: spool.exp(r, out=shared), ValueError, "zeros_like"),
        (lambda r: spool.exp(r, out=r.new_empty(3)), spool.ShapeError, "exp: .*equal"),
        (lambda r: spool.exp(r, out=spool.zeros_like(r).int()), spool.DTypeError, "exp: .*hold"),
        (lambda r: r.sum().item(), NotImplementedError, "item: inside vmap.*return it"),
        (lambda r: r if r.sum() > 0 else -r, NotImplementedError, "inside vmap.*where"),
        (lambda r: r[r > 0], NotImplementedError, "index: .*where"),
        (lambda r: r.masked_select(r > 0), NotImplementedError, "masked_select: .*where"),
        (lambda r: r.nonzero(), NotImplementedError, "nonzero: .*inside vmap"),
        (lambda r: r.unique(), NotImplementedError, "unique: .*sort"),
        (lambda r: spool.bincount(r.long()), NotImplementedError, "bincount: .*one_hot"),
        (lambda r: spool.one_hot(r.long()), NotImplementedError, "one_hot: .*num_classes"),
        (
            lambda r: f.batch_norm(r.reshape(2, 2), mean, var, training=True),
            ValueError,
            "track_run",
        ),
        (lambda r: r.numpy(), NotImplementedError, "inside vmap"),
    ]:
        with pytest.raises(kind, match=match):
            vmap(function)(x)
    np.testing.assert_array_equal(vmap(lambda r: r * 2)(x).numpy(), 2 * x.numpy())


def test_running_statistics_of_each_example():
    """An ensemble of layers that are trained: their statistics are mapped as well."""
    rng = np.random.default_rng(0)
    x, mean, var = rng.normal(size=(3, 5, 2)), np.zeros((3, 2)), np.ones((3, 2))

    def one(x, mean, var):
        mean, var = mean * 1, var * 1
        return spool.nn.functional.batch_norm(x, mean, var, training=True), mean, var

    check(one, [x, mean, var], 1e-12)
    check(
        lambda x: spool.nn.functional.batch_norm(x, spool.tensor(mean[0]), spool.tensor(var[0])),
        [x],
        1e-12,
    )


def test_no_examples():
    none = spool.zeros(0, 2, 3, 5, 5)
    w, b = spool.ones(4, 3, 3, 3), spool.ones(4)
    functions = {
        (0, 2, 4, 3, 3): lambda x: spool.conv2d(x, w, b),
        (0, 2, 3, 5): lambda x: spool.softmax(x, 1).sum(-1),
        (0, 6): lambda x: spool.layer_norm(x, [5, 5]).amax((2, 3)).reshape(6),
        (0,): lambda x: x.sum(),
    }
    for shape, function in functions.items():
        assert vmap(function)(none).shape == shape
    gradient = grad(lambda t: vmap(functions[0, 2, 4, 3, 3])(t).sum())(none)
    assert gradient.shape == none.shape


# ---- programs, against PyTorch -------------------------------------------------------------------------------------------


def normal(*shape, scale=0.3):
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape) * scale


def mlp(lib, f):
    def loss(w, x):
        hidden = lib.tanh(f.linear(x, w[0], w[1]))
        return (f.softplus(f.linear(hidden, w[2], w[3])) ** 2).sum()

    return loss, [normal(7, 5), normal(7), normal(3, 7), normal(3)], normal(4, 5)


def convnet(lib, f):
    def loss(w, x):
        h = f.max_pool2d(lib.tanh(f.conv2d(x.unsqueeze(0), w[0], w[1], padding=1)), 2)
        h = f.group_norm(f.conv2d(h, w[2], stride=2, groups=2), 2, w[3], w[4])
        h = lib.sigmoid(f.conv_transpose2d(h, w[5], w[6], stride=2))
        h = f.avg_pool2d(h, 2, padding=1).flatten(1)
        return -f.log_softmax(f.linear(h, w[7]), 1)[0, 1]

    w = [normal(4, 2, 3, 3), normal(4), normal(6, 2, 2, 2), normal(6), normal(6)]
    w += [normal(6, 3, 3, 3), normal(3), normal(5, 27)]
    return loss, w, normal(4, 2, 8, 8)


def attention(lib, f):
    def loss(w, x):
        h = f.layer_norm(x, (6,), w[0], w[1])
        q, k, v = (t.reshape(5, 2, 3).transpose(0, 1) for t in f.linear(h, w[2], w[3]).chunk(3, -1))
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).reshape(5, 6)
        h = f.gelu(f.linear(x + y, w[4]))
        return (h.cumsum(0) * lib.softmax(h, -1)).mean()

    return (
        loss,
        [normal(6) + 1, normal(6), normal(18, 6), normal(18), normal(6, 6)],
        normal(4, 5, 6),
    )


def lookup(lib, f):
    def loss(w, x):
        places = x.argsort(-1)
        rows = w[0][places] * x.unsqueeze(-1)
        best = rows.gather(1, places[:4].unsqueeze(0).expand(6, 4) % 4)
        values, _ = lib.sort(best, 0)
        return (
            lib.logsumexp(values.index_select(0, places[:2]), 1).sum() * values.amax(1).cumsum(0)
        ).sum()

    return loss, [normal(6, 4)], normal(4, 6)


def recurrence(lib, f):
    def loss(w, x):
        h = lib.zeros_like(x[0])
        for t in range(3):
            h = lib.tanh(w[0] @ h + x[t] @ w[1])
        return (h * lib.where(h > 0, h, -h)).sum()

    return loss, [normal(5, 5), normal(5, 5)], normal(4, 3, 5)


def transformed(lib, f, t, build):
    """What the transforms t make of a program, by name."""
    loss, w, x = build(lib, f)
    w, x = list(map(lib.tensor, w)), lib.tensor(x)
    ones = [a * 0 + 1 for a in w]

    def along(weights, example):
        return t.jvp(lambda *v: loss(list(v), example), tuple(weights), tuple(ones))[1]

    def curvature(weights, example):
        return t.grad(lambda v: t.grad(lambda u: loss(u, example))(v)[0].sum())(weights)

    stacked = [lib.stack([a * s for s in (0.5, 1.0, 2.0)]) for a in w]
    return {
        "gradients": lambda: t.vmap(t.grad(loss), in_dims=(None, 0))(w, x),
        "gradients by examples": lambda: t.vmap(t.grad(loss, argnums=1), in_dims=(None, 0))(w, x),
        "directions": lambda: t.vmap(along, in_dims=(None, 0))(w, x),
        "second order": lambda: t.vmap(curvature, in_dims=(None, 0))(w, x),
        "ensemble": lambda: t.vmap(t.vmap(loss, in_dims=(None, 0)), in_dims=(0, None))(stacked, x),
        "gradients of an ensemble": lambda: t.vmap(
            t.vmap(t.grad(loss), in_dims=(None, 0)), in_dims=(0, None)
        )(stacked, x),
        "gradient of a batch": lambda: t.grad(
            lambda v: (t.vmap(loss, in_dims=(None, 0))(v, x) ** 2).sum()
        )(w),
        "rows": lambda: t.jacrev(lambda e: t.vmap(loss, in_dims=(None, 0))(w, e))(x),
        "columns": lambda: t.jacfwd(lambda e: t.vmap(loss, in_dims=(None, 0))(w, e))(x[:2]),
    }


@pytest.mark.parametrize("build", [mlp, convnet, attention, lookup, recurrence])
def test_programs_are_torchs(build):
    import torch

    ours = transformed(spool, spool.nn.functional, spool.func, build)
    theirs = transformed(torch, torch.nn.functional, torch.func, build)
    for name, function in theirs.items():
        wanted = outputs(function())
        for a, b in zip(outputs(ours[name]()), wanted, strict=True):
            np.testing.assert_allclose(
                a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-11, err_msg=name
            )
