"""spool.amp: which dtype ops run in, against PyTorch's lists; gradients, nesting, threads, regions, transforms."""

import threading

import numpy as np
import pytest

import spool
from spool import nn
from spool.amp import autocast

torch = pytest.importorskip("torch")


def f32(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def run(lib, call, *arrays, dtype="bfloat16", narrow=False):
    """In a block of autocast; of the tensors that `narrow` asks for, every other one is in its dtype."""
    half = getattr(lib, dtype)
    tensors = [lib.tensor(a) for a in arrays]
    tensors = [t.to(half) if narrow and i % 2 == 0 else t for i, t in enumerate(tensors)]
    with lib.autocast("cpu", dtype=half):
        return call(lib, *tensors)


def name_of(dtype):
    return str(dtype).split(".")[-1]


# PyTorch's lists of its GPUs; what its CPU list lacks is compared with PyTorch in float32.
LOW = {
    "matmul": (lambda lib, a, b: a @ b, [(3, 4), (4, 5)]),
    "mm": (lambda lib, a, b: lib.mm(a, b), [(3, 4), (4, 5)]),
    "bmm": (lambda lib, a, b: lib.bmm(a, b), [(2, 3, 4), (2, 4, 5)]),
    "addmm": (lambda lib, c, a, b: lib.addmm(c, a, b), [(3, 5), (3, 4), (4, 5)]),
    "baddbmm": (lambda lib, c, a, b: lib.baddbmm(c, a, b), [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    "linear": (lambda lib, x, w, b: lib.nn.functional.linear(x, w, b), [(2, 4), (3, 4), (3,)]),
    "conv1d": (lambda lib, x, w: lib.conv1d(x, w), [(1, 2, 8), (3, 2, 3)]),
    "conv2d": (lambda lib, x, w: lib.conv2d(x, w), [(1, 2, 6, 6), (3, 2, 3, 3)]),
}
FULL = {
    "exp": lambda lib, x: x.exp(),
    "log1p": lambda lib, x: lib.log1p(x.abs()),
    "pow": lambda lib, x: x**2,
    "sum": lambda lib, x: x.sum(),
    "prod": lambda lib, x: x.prod(),
    "cumsum": lambda lib, x: x.cumsum(0),
    "softmax": lambda lib, x: lib.softmax(x, -1),
    "log_softmax": lambda lib, x: lib.log_softmax(x, -1),
    "norm": lambda lib, x: lib.linalg.vector_norm(x),
    "layer_norm": lambda lib, x: lib.nn.functional.layer_norm(x, (4,)),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", LOW)
def test_products_in_half_precision(name, dtype):
    call, shapes = LOW[name]
    arrays = [f32(*s) for s in shapes]
    ours, theirs = (run(lib, call, *arrays, dtype=dtype) for lib in (spool, torch))
    assert name_of(ours.dtype) == name_of(theirs.dtype) == dtype
    np.testing.assert_allclose(ours.float().numpy(), theirs.float().numpy(), 2e-2, 2e-2)


@pytest.mark.parametrize("name", FULL)
def test_what_loses_digits_in_float32(name):
    x = f32(3, 4)
    ours = run(spool, FULL[name], x, narrow=True)
    wanted = FULL[name](torch, torch.tensor(x).bfloat16().float())
    assert ours.dtype == spool.float32
    np.testing.assert_allclose(ours.numpy(), wanted.numpy(), 1e-5, 1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda lib, a, b: lib.cat([a, b]),
        lambda lib, a, b: lib.stack([a, b]),
        lambda lib, a, b: lib.addcmul(a, b, a),
        lambda lib, a, b: lib.atan2(a, b),
    ],
)
def test_the_widest_of_several(call):
    a = f32(4)
    assert run(spool, call, a, a, narrow=True).dtype == spool.float32
    assert name_of(run(torch, call, a, a, narrow=True).dtype) == "float32"


def test_others_stay_as_they_are():
    x, d = spool.ones(3, 3), spool.ones(3, 3, dtype=spool.float64)
    with autocast("cpu"):
        assert (x + x).dtype == spool.float32
        assert (x.bfloat16() * 2).dtype == spool.bfloat16
        assert (d @ d).dtype == spool.float64
        assert spool.nn.functional.relu(x.bfloat16()).dtype == spool.bfloat16
        x.exp_()
    assert x.dtype == spool.float32


def test_nesting():
    x = spool.ones(2, 2)
    assert not spool.amp.is_autocast_enabled() and (x @ x).dtype == spool.float32
    with autocast("cpu"):
        assert spool.amp.is_autocast_enabled()
        with autocast("cpu", enabled=False):
            assert not spool.amp.is_autocast_enabled()
            assert (x @ x).dtype == spool.float32
            assert spool.mm(x, x).dtype == spool.float32
            with autocast("cpu", dtype=spool.float16):
                assert spool.amp.get_autocast_dtype() == spool.float16
                assert (x @ x).dtype == spool.float16
        assert (x @ x).dtype == spool.bfloat16
    assert (x @ x).dtype == spool.float32
    with pytest.raises(KeyError), autocast("cpu"):
        raise KeyError
    assert (x @ x).dtype == spool.float32


def test_decorated_and_threads():
    x, seen = spool.ones(2, 2), []

    @autocast("cpu")
    def product(a):
        return a @ a

    assert product(x).dtype == spool.bfloat16 and product.__name__ == "product"
    with autocast("cpu"):
        other = threading.Thread(target=lambda: seen.append((x @ x).dtype))
        other.start()
        other.join()
    assert seen == [spool.float32]


def net(lib):
    values = [f32(8, 6), f32(4, 8)]
    a, b = (lib.nn.Parameter(lib.tensor(v)) for v in values)

    def loss(x):
        h = lib.nn.functional.linear(x, a).relu()
        return lib.nn.functional.cross_entropy(
            lib.nn.functional.linear(h, b).float(), lib.tensor([0, 1, 3])
        )

    return loss, (a, b)


@pytest.mark.parametrize("inside", [False, True])
def test_gradients(inside):
    """Of the parameters' dtype; backward runs as recorded, wherever it is called."""

    def grads(lib):
        loss, params = net(lib)
        with lib.autocast("cpu", dtype=lib.bfloat16):
            value = loss(lib.tensor(f32(3, 6)))
            if inside:
                value.backward()
        if not inside:
            value.backward()
        return [value, *(p.grad for p in params)]

    for ours, theirs in zip(grads(spool), grads(torch)):
        assert ours.dtype == spool.float32 and theirs.dtype == torch.float32
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), 5e-2, 2e-2)


def test_regions_tell_modes_apart():
    """A jitted step gives eager's bits in each mode, however they alternate."""

    def losses(step_of):
        loss, params = net(spool)
        opt = spool.optim.Adam(params, lr=0.01)

        def step(x):
            value = loss(x)
            value.backward()
            opt.step()
            opt.zero_grad()
            return value.detach()

        step, found = step_of(step), []
        for i in range(12):
            with autocast("cpu", enabled=i % 3 != 0):
                found.append(step(spool.tensor(f32(3, 6) + i)).item())
        return found, step

    eager, _ = losses(lambda f: f)
    jitted, step = losses(spool.jit)
    assert eager == jitted
    assert spool.explain(step, quiet=True).compiled_ops > 0


def test_inside_a_region():
    def f(x):
        with autocast("cpu"):
            return (x @ x).sum()

    g = spool.jit(f)
    x = spool.tensor(f32(4, 4))
    assert [g(x).item() for _ in range(4)] == [f(x).item()] * 4


def test_transforms_within_and_around():
    w, x = spool.tensor(f32(4, 4)), spool.tensor(f32(3, 4))

    def loss(w, x):
        return (x @ w).float().tanh().sum()

    def cast_loss(w, x):
        with autocast("cpu"):
            return loss(w, x)

    wanted = spool.func.grad(cast_loss)(w, x)
    assert wanted.dtype == spool.float32
    with autocast("cpu"):
        got = spool.func.grad(loss)(w, x)
        rows = spool.func.vmap(lambda row: row @ w)(x)
        assert spool.amp.is_autocast_enabled()
    assert got.dtype == spool.float32 and got.tolist() == wanted.tolist()
    assert rows.dtype == spool.bfloat16
    _, tangent = spool.func.jvp(lambda w: cast_loss(w, x), (w,), (spool.ones(4, 4),))
    np.testing.assert_allclose(tangent.item(), wanted.sum().item(), 5e-2, 5e-2)


def test_training_with_modules():
    spool.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    opt = spool.optim.AdamW(layers.parameters(), lr=0.05)
    x = spool.tensor(f32(32, 4))
    y = x.sum(1, keepdim=True).tanh()
    first = last = None
    for _ in range(60):
        with autocast("cpu"):
            loss = nn.functional.mse_loss(layers(x).float(), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        last = loss.item()
        first = last if first is None else first
    assert last < 0.1 * first


def test_errors():
    for call, error in (
        (lambda: autocast("cuda"), RuntimeError),
        (lambda: autocast(3), ValueError),
        (lambda: autocast("cpu", dtype=spool.float32), ValueError),
        (lambda: spool._C._autocast_push(spool.int64, True), ValueError),
    ):
        with pytest.raises(error):
            call()
    level = spool._C._autocast_push(spool.bfloat16, True)
    spool._C._autocast_pop(level)
    with pytest.raises(ValueError):
        spool._C._autocast_pop(level)


def scaled_run(lib, steps=12):
    """Losses that overflow now and then: scales, and parameters, after each step."""
    w = lib.nn.Parameter(lib.tensor([1.0, -2.0]))
    opt = lib.optim.SGD([w], lr=0.1)
    scaler = lib.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    seen = []
    for i in range(steps):
        opt.zero_grad()
        loss = (w * w).sum() * (float("inf") if i in (4, 5) else 1.0)
        scaler.scale(loss).backward()
        if i % 2:
            scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
        seen.append((scaler.get_scale(), *w.tolist()))
    return seen, scaler


def test_gradient_scaling():
    (ours, scaler), (theirs, other) = scaled_run(spool), scaled_run(torch)
    np.testing.assert_allclose(ours, theirs, 1e-6)
    assert scaler.state_dict() == other.state_dict()
    again = spool.amp.GradScaler()
    again.load_state_dict(scaler.state_dict())
    assert again.get_scale() == scaler.get_scale()
    off = spool.amp.GradScaler(enabled=False)
    assert off.scale(3) == 3 and off.get_scale() == 1.0 and off.state_dict() == {}


def test_gradient_scaling_errors():
    w = nn.Parameter(spool.ones(2))
    w.grad = spool.ones(2)
    opt, scaler = spool.optim.SGD([w], lr=0.1), spool.amp.GradScaler()
    with pytest.raises(RuntimeError, match="No inf checks"):
        scaler.update()
    scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(opt)
    scaler.step(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(opt)
    with pytest.raises(ValueError, match="growth"):
        spool.amp.GradScaler(growth_factor=1.0)
    with pytest.raises(RuntimeError, match="empty"):
        spool.amp.GradScaler().load_state_dict({})


@pytest.mark.parametrize("dtype", [spool.float32, spool.float64, spool.float16, spool.bfloat16])
def test_all_finite(dtype):
    big = spool.ones(20_000, dtype=dtype)
    assert spool.all_finite([big, big[::3], spool.zeros(0, dtype=dtype)]).item()
    for bad in (float("inf"), float("-inf"), float("nan")):
        for at in (0, 777, 19_999):
            x = big.clone()
            x[at] = bad
            assert not spool.all_finite([big, x]).item()
            assert not spool.all_finite([x[at % 2 :: 2] if at % 2 else x[::1]]).item()
    with pytest.raises(spool.DTypeError):
        spool.all_finite([spool.tensor([1])])
