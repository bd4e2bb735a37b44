"""spool.jit: the bits and exceptions of eager, compiled where it can be, and what explain says where it cannot."""

import functools
import gc
import inspect
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import spool
import spool.nn.functional as F

RNG = np.random.default_rng(7)


def tensor(*shape, dtype=np.float32, **kwargs):
    return spool.tensor(RNG.normal(size=shape).astype(dtype), **kwargs)


def bits(value):
    if isinstance(value, spool.Tensor):
        array = value.detach().numpy()
        return (str(array.dtype), array.shape, array.tobytes())
    if isinstance(value, (list, tuple)):
        return [bits(v) for v in value]
    return value


def outcome(function, args):
    try:
        return bits(function(*args))
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error)


def copies(args):
    return [
        a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, spool.Tensor) else a
        for a in args
    ]


def check(function, *calls, times=2):
    """Runs the calls (tuples of arguments) several times over, eagerly and jitted, each on copies; compares results and
    arguments afterwards. Returns what explain says."""
    jitted = spool.jit(function)
    for _ in range(times + 1):
        for args in calls:
            eager, compiled = copies(args), copies(args)
            assert outcome(jitted, compiled) == outcome(function, eager)
            assert bits(compiled) == bits(eager)
    return spool.explain(jitted, quiet=True)


def check_whole(function, *calls):
    report = check(function, *calls)
    assert report.compiled_ops == report.ops > 0, report.text
    assert report.breaks == 0, report.text
    return report


# ---- programs that are one graph


def test_pointwise_chain():
    check_whole(
        lambda a, b: spool.tanh(a * 0.5 + b) / (spool.exp(-a) + 2.0), (tensor(5, 7), tensor(5, 7))
    )


def test_mixed_dtypes_and_broadcasts():
    def f(a, b, i):
        return (a + b) * i, a > 0, spool.where(a > b, a, i)

    check_whole(f, (tensor(3, 4), tensor(4, dtype=np.float64), spool.tensor(np.arange(4))))


def test_several_results_and_arguments_given_back():
    def f(a):
        b = a + 1
        return a, b, b, b.transpose(0, 1), [b[0], a[1:]]

    check_whole(f, (tensor(3, 4),))
    jitted = spool.jit(f)
    for _ in range(3):
        x = tensor(3, 4)
        a, b, again, *_ = jitted(x)
        assert a is x and b is again


def test_in_place():
    def f(a, b):
        a.add_(b)
        a.mul_(2.0)
        c = a - b
        c.mul_(a)
        a[1:] = c[1:]
        a[0] = 3.0
        return c

    check_whole(f, (tensor(4, 5), tensor(4, 5)))


def test_in_place_through_views():
    def f(a):
        view, row = a.transpose(0, 1), a[1]
        before = row * 1.0
        view.mul_(3.0)
        row.add_(1.0)
        view[2] = row[:3].sum()
        b = a * 2
        b[:, 1].zero_()
        part = b[1:, 1:]
        b.add_(1.0)
        return before, row, part, view + 0

    check_whole(f, (tensor(4, 5),))


def test_arguments_that_share_storage():
    def f(a, b):
        c = b * 2
        a.add_(1.0)
        return c, b * 2, a + b

    jitted = spool.jit(f)
    for shift in (0, 1, 3, 0, 1, 3, 0, 1, 3):
        base = [spool.tensor(np.arange(10, dtype=np.float32)) for _ in range(2)]
        wanted, got = (
            [bits(g(x[:6], x[shift : shift + 6])), bits(x)] for g, x in zip((f, jitted), base)
        )
        assert got == wanted


def test_versions_are_bumped():
    @spool.jit
    def f(w):
        y = (w * w).sum()
        with spool.no_grad():
            w.add_(1.0)
        return y

    for _ in range(3):
        w = tensor(3, requires_grad=True)
        y = f(w)
        with pytest.raises(RuntimeError, match="mul"):
            y.backward()


def test_numbers_are_inputs():
    jitted = spool.jit(lambda a, s, t: a * s + t)
    a = tensor(3, 4)
    for n in range(6):
        assert bits(jitted(a, 0.3 * n, n - 2.5)) == bits(a * (0.3 * n) + (n - 2.5))
    report = spool.explain(jitted, quiet=True)
    assert report.graphs == 1 and report.rebuilds == 0


def test_random_numbers_are_fresh_and_the_same():
    def f(a):
        return a + spool.rand(3, 4), spool.randn(5)

    jitted = spool.jit(f)
    spool.manual_seed(3)
    eager = [bits(f(spool.ones(3, 4))) for _ in range(5)]
    spool.manual_seed(3)
    assert [bits(jitted(spool.ones(3, 4))) for _ in range(5)] == eager
    assert len({str(e) for e in eager}) == 5


def test_closures_and_globals_are_live():
    box = {"w": tensor(3), "n": 1.0}
    jitted = spool.jit(lambda a: a * box["w"] + box["n"])
    a = tensor(3)
    for n in range(5):
        box["w"], box["n"] = tensor(3), float(n)
        assert bits(jitted(a)) == bits(a * box["w"] + box["n"])


def test_slices_of_one_array_of_batches():
    data = tensor(64, 5)
    jitted = spool.jit(lambda x: (x * 2).sum())
    for i in range(0, 64, 8):
        assert bits(jitted(data[i : i + 8])) == bits((data[i : i + 8] * 2).sum())
    report = spool.explain(jitted, quiet=True)
    assert report.graphs == 1


# ---- training


def mlp(sizes, dtype=np.float32):
    rng = np.random.default_rng(0)
    weights = []
    for m, n in zip(sizes, sizes[1:]):
        weights.append(
            spool.tensor(rng.normal(size=(n, m)).astype(dtype) * m**-0.5, requires_grad=True)
        )
        weights.append(spool.tensor(np.zeros(n, dtype), requires_grad=True))
    return weights


def step_of(weights):
    def step(x, y, rate):
        w1, b1, w2, b2 = weights
        loss = F.cross_entropy(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2), y)
        loss.backward()
        with spool.no_grad():
            for w in weights:
                w.sub_(w.grad, alpha=rate)
                w.grad = None
        return loss.detach()

    return step


def batches(n):
    rng = np.random.default_rng(1)
    for i in range(n):
        yield (
            spool.tensor(rng.normal(size=(16, 8)).astype(np.float32)),
            spool.tensor(rng.integers(0, 5, 16)),
            0.1 / (i + 1),
        )


def test_training_step_is_one_plan():
    eager, compiled = mlp([8, 12, 5]), mlp([8, 12, 5])
    plain, step = step_of(eager), spool.jit(step_of(compiled))
    for number, batch in enumerate(batches(12), 1):
        wanted = plain(*batch)
        before = spool.launch.stats()
        loss = step(*batch)
        after = spool.launch.stats()
        if number >= 3:
            assert after["eager_launches"] == before["eager_launches"]
            assert after["plan_runs"] == before["plan_runs"] + 1
        assert bits(loss) == bits(wanted)
    assert bits(compiled) == bits(eager)
    report = spool.explain(step, quiet=True)
    assert report.graphs == 1 and report.breaks == 0 and report.compiled_ops == report.ops, (
        report.text
    )


def test_gradients_that_accumulate():
    def run(wrap):
        w = spool.tensor(np.arange(6, dtype=np.float32).reshape(2, 3), requires_grad=True)

        def step(x):
            (x @ w).sum().backward()
            return w.grad * 1.0

        step = wrap(step)
        return [bits(step(spool.ones(2, 2) * float(i))) for i in range(6)]

    assert run(spool.jit) == run(lambda f: f)


def test_gradients_of_gradients():
    def f(x):
        (g,) = spool.autograd.grad((spool.tanh(x) * x).sum(), [x], create_graph=True)
        (h,) = spool.autograd.grad((g * g).sum(), [x])
        return g.detach(), h

    check_whole(f, (tensor(4, requires_grad=True),))


def test_backward_outside_of_the_call():
    forward = spool.jit(lambda w, x: (spool.tanh(x @ w)).sum())
    grads = []
    for function in (forward, lambda w, x: (spool.tanh(x @ w)).sum()):
        for _ in range(4):
            w = spool.tensor(np.ones((3, 2), np.float32), requires_grad=True)
            function(w, spool.ones(4, 3)).backward()
            grads.append(bits(w.grad))
    assert len(set(map(str, grads))) == 1


# ---- other ways and breaks


def test_reading_in_the_middle():
    def f(a):
        b = a * 2
        if b.sum().item() > 0:
            b = b + 1
        return b * b

    report = check(f, (spool.ones(3, 3),), (-spool.ones(3, 3),))
    assert report.compiled_ops == report.ops, report.text
    assert report.breaks == 1
    assert any("test_jit.py" in reason and "read" in reason for reason in report.reasons)


@pytest.mark.parametrize(
    "read", [lambda t: t.numpy().sum(), repr, lambda t: t.tolist(), lambda t: float(t.sum()), bool]
)
def test_every_way_of_reading(read):
    def f(a):
        b = a + 1
        return [b * 2, str(read(b.sum())), b - 1]

    check(f, (tensor(4),))


def test_shapes_that_change():
    report = check_whole(
        lambda a: (a * 2).sum(0), (tensor(3, 4),), (tensor(5, 4),), (tensor(2, 2),)
    )
    assert report.graphs == 3


def test_shapes_that_never_repeat():
    jitted = spool.jit(lambda a: (a * 2 + 1).sum())
    for n in range(1, 60):
        a = tensor(n)
        assert bits(jitted(a)) == bits((a * 2 + 1).sum())
    report = spool.explain(jitted, quiet=True)
    assert any("differ" in reason for reason in report.reasons) and any(
        "dropped" in reason for reason in report.reasons
    )


def test_attribute_that_varies_breaks_there_only():
    def f(a, i):
        b = spool.exp(a * 0.5) + 1
        c = b[i]
        return c * 2 + 1

    jitted = spool.jit(f)
    a = tensor(50, 3)
    for i in range(40):
        assert bits(jitted(a, i)) == bits(f(a, i))
    report = spool.explain(jitted, quiet=True)
    assert report.compiled_ops >= report.ops - 1, report.text


def test_flow_that_changes():
    def f(a, way):
        b = a + 1
        b = spool.exp(b) if way == 0 else spool.tanh(b) if way == 1 else b
        return (b * 2).sum()

    a = tensor(4)
    check_whole(f, (a, 0), (a, 1), (a, 2))


def test_exceptions():
    def f(a, b):
        c = a * 2
        a.add_(1.0)
        return c + b

    report = check(f, (tensor(3, 4), tensor(5)))
    assert report.compiled_ops == report.ops == 2


def test_exceptions_that_are_caught():
    def f(a, b):
        c = a * 2
        try:
            c = c + b
        except RuntimeError as error:
            c = c - len(str(error))
        return c * 2

    check_whole(f, (tensor(3, 4), tensor(5)))


def test_index_out_of_range_raises_at_its_call():
    lines = []

    def f(x, index):
        y = x * 2
        try:
            z = spool.index_select(y, 0, index)
        except IndexError as error:
            lines.append(str(error))
            return y
        return z + 1

    good, bad = spool.tensor([0, 2]), spool.tensor([0, 7])
    report = check(f, (tensor(3, 2), good), (tensor(3, 2), bad), (tensor(3, 2), good))
    assert report.compiled_ops == report.ops == 3
    assert len(set(lines)) == 1 and "7" in lines[0]


def test_index_computed_in_the_call():
    def f(x):
        best = spool.argmax(x, 1)
        return spool.gather(x, 1, best.unsqueeze(1)) * 2

    report = check(f, (tensor(4, 5),))
    assert report.compiled_ops == report.ops and report.breaks == 1


def test_memory_shared_with_numpy():
    array = np.zeros((3, 4), np.float32)
    shared = spool.from_numpy(array)

    def f(a, n):
        array[0] = n
        b = a + shared
        array[0] = 2 * n
        c = b * shared
        shared[1].add_(1.0)
        d = c - shared
        return [b, c, d, float(array[1, 0])]

    jitted = spool.jit(f)
    a = tensor(3, 4)
    for n in range(5):
        results = []
        for function in (f, jitted):
            array[...] = 0.5
            results.append(bits(function(a, float(n))))
        assert results[0] == results[1]
    report = spool.explain(jitted, quiet=True)
    assert report.breaks == 1 and report.compiled_ops == report.ops - 1, report.text


def test_numpy_view_of_a_result_is_live():
    def f(a):
        b = a + 1
        b.numpy()[0] = 100
        return b * 2

    check(f, (tensor(3),))


def test_results_dropped_or_kept():
    kept = []

    def f(a, keep):
        b = a * 2
        c = b + 1
        if keep:
            kept.append(b)
        return c

    jitted = spool.jit(f)
    for n in range(12):
        a = tensor(3)
        assert bits(jitted(a, n % 3 == 0)) == bits(a * 2 + 1)
        if n % 3 == 0:
            assert bits(kept[-1]) == bits(a * 2)
    assert spool.explain(jitted, quiet=True).rebuilds <= 4


# ---- calls


def test_nested_recursive_and_methods():
    class Model:
        def __init__(self):
            self.w = tensor(4)

        @spool.jit
        def forward(self, x):
            """What it does."""
            return x * self.w

        @spool.jit
        def twice(self, x):
            return self.forward(self.forward(x)) + 1

    model, x = Model(), tensor(4)
    for _ in range(4):
        assert bits(model.twice(x)) == bits(x * model.w * model.w + 1)
    assert spool.explain(model.twice, quiet=True).compiled_ops == 3
    assert Model.forward.__name__ == "forward" and Model.forward.__doc__ == "What it does."
    assert list(inspect.signature(model.forward).parameters) == ["x"]

    @spool.jit
    def power(x, n):
        return x if n == 0 else power(x * 2, n - 1)

    for _ in range(3):
        assert bits(power(x, 3)) == bits(x * 2 * 2 * 2)


def test_decorator_forms():
    def f(x, *, by=2):
        return x * by

    assert spool.jit(spool.jit(f)).__wrapped__ is f
    assert bits(spool.jit()(f)(spool.ones(2), by=3)) == bits(spool.ones(2) * 3)
    assert bits(spool.jit(functools.partial(f, by=5))(spool.ones(2))) == bits(spool.ones(2) * 5)
    with pytest.raises(TypeError, match="callable"):
        spool.jit(3)
    with pytest.raises(TypeError, match=r"spool\.jit"):
        spool.explain(f)


def test_generators_run_outside():
    @spool.jit
    def f(x):
        for _ in range(3):
            x = x * 2
            yield x

    assert bits(list(f(spool.ones(2)))) == bits([spool.ones(2) * n for n in (2.0, 4.0, 8.0)])


@pytest.fixture
def turns():
    """Threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(work, arguments):
    wrong = []

    def run(*args):
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001 - handed over
            wrong.append(error)

    threads = [threading.Thread(target=run, args=args) for args in arguments]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong


@pytest.mark.parametrize("rows", [8, 300])
def test_threads_on_one_function(rows, turns):
    """Kernels for 300 rows run without the interpreter lock."""
    w = tensor(64, 64)

    def f(x):
        y = spool.tanh(x @ w)
        y.transpose(0, 1).mul_(0.5)
        if y.sum().item() > 0:
            y = y + 1
        return (y * y).sum(0), y

    jitted = spool.jit(f)

    def work(x, expected):
        for _ in range(300):
            assert bits(jitted(x)) == expected

    in_threads(work, [(x, bits(f(x))) for x in (tensor(rows, 64) for _ in range(4))])


def test_threads_that_record_at_once(turns):
    """One thread's path grows while another follows it; both meet the same storages."""
    w = tensor(64, 64)

    def f(x, way):
        y = spool.tanh(x @ w)
        for i in range(way):
            y = y * 1.5 if i % 2 else spool.relu(y)
        if way % 2:
            y.sum().item()
        leaf = x.detach().clone().requires_grad_()
        ((leaf @ w) * y).sum().backward()
        return (y * y).sum(0), leaf.grad

    xs = [tensor(n, 64) for n in (8, 300, 8, 300)]
    expected = [[bits(f(x, way)) for way in range(5)] for x in xs]
    for _ in range(10):
        jitted = spool.jit(f)

        def work(n, jitted=jitted):
            rng = np.random.default_rng(n)
            for way in rng.integers(0, 5, 12):
                assert bits(jitted(xs[n], int(way))) == expected[n][way]

        in_threads(work, [(n,) for n in range(4)])


def test_another_thread_touches_what_is_deferred():
    def f(a):
        b = a * 2
        box = []
        thread = threading.Thread(target=lambda: box.append(b + 1))
        thread.start()
        thread.join()
        b.add_(1.0)
        return b, box[0]

    check(f, (tensor(5),))


def test_transforms_within():
    def f(x):
        g = spool.func.grad(lambda v: (v * v * v).sum())
        return g(x), spool.func.vmap(lambda row: row.sum() * 2)(x)

    check(f, (tensor(3, 4),))


def test_within_transforms():
    def f(x):
        return spool.tanh(x * 2).sum()

    jitted, x = spool.jit(f), tensor(3, 4)
    for _ in range(4):
        assert bits(spool.func.vmap(jitted)(x)) == bits(spool.func.vmap(f)(x))
        assert bits(spool.func.grad(jitted)(x)) == bits(spool.func.grad(f)(x))
        assert bits(spool.func.vmap(spool.func.grad(jitted))(x)) == bits(
            spool.func.vmap(spool.func.grad(f))(x)
        )


def test_reads_at_ever_other_places_stay_bounded():
    def f(x, k):
        for i in range(20):
            x = x * 1.5 if i % 3 else spool.tanh(x)
            if k >> i & 1:
                x.sum().item()
        return x

    jitted, x = spool.jit(f), tensor(3)
    rng = np.random.default_rng(0)
    for _ in range(300):
        k = int(rng.integers(0, 1 << 20))
        assert bits(jitted(x, k)) == bits(f(x, k))
    assert spool.explain(jitted, quiet=True).graphs <= 256


def test_no_leak():
    jitted = spool.jit(lambda a: (a * 2 + 1).sum())
    a = tensor(100, 100)
    for _ in range(3):
        jitted(a)
    gc.collect()
    before = spool.memory_stats()["live_bytes"]
    for _ in range(100):
        jitted(a)
    gc.collect()
    assert spool.memory_stats()["live_bytes"] <= before


def test_explain_prints(capsys):
    jitted = spool.jit(lambda a: (a * 2 + 1).sum())
    for _ in range(3):
        jitted(spool.ones(3))
    report = spool.explain(jitted)
    assert capsys.readouterr().out == report.text
    assert "3 ops" in report.text and "mul.scalar" in report.ir
    assert "test_jit.py" in report.ir
    assert repr(report) == "Explanation(graphs=1, ops=3, compiled_ops=3, breaks=0, rebuilds=0)"


# ---- hot regions

LOOP = """
import numpy as np
import spool

w = spool.tensor(np.full((64, 64), 0.01, np.float32), requires_grad=True)
x = spool.tensor(np.random.default_rng(0).random((256, 64), np.float32))
losses = []
for step in range(60):
    loss = spool.tanh(x @ w).sum()
    loss.backward()
    with spool.no_grad():
        w.sub_(w.grad, alpha=0.001 / (step + 1))
        w.grad = None
    losses.append(loss.detach())
    if step % 10 == 9:
        losses = [float(v) for v in losses]
print(losses, w.detach().numpy().tobytes().hex()[:64])
print(spool.launch.stats()["plan_runs"])
"""


def run_loop(**knobs):
    run = subprocess.run(
        [sys.executable, "-c", LOOP],
        capture_output=True,
        text=True,
        env={**os.environ, **knobs},
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    results, plan_runs = run.stdout.splitlines()
    return results, int(plan_runs)


def test_hot_loops_are_found():
    results, plan_runs = run_loop(SPOOL_HOT="0")
    assert plan_runs == 0
    for knobs, least in (({}, 20), ({"SPOOL_HOT_MIN": "3"}, 25), ({"SPOOL_HOT_MIN": "1"}, 50)):
        same, plan_runs = run_loop(**knobs)
        assert same == results
        assert plan_runs >= least, knobs


def test_hot_is_switched():
    before = spool.hot(False)
    try:
        assert bits(spool.ones(3) + 1) == bits(spool.tensor([2.0, 2.0, 2.0]))
        with spool.hot(True):
            pass
    finally:
        before.__exit__()


def test_jit_is_switched_off():
    source = (
        "import spool; f = spool.jit(lambda x: x + 1); [f(spool.ones(2)) for _ in range(4)]; "
        "print(spool.launch.stats()['plan_runs'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env={**os.environ, "SPOOL_JIT": "0", "SPOOL_HOT": "0"},
    )
    assert run.stdout.split() == ["0"], run.stderr
