"""Checkpointing: the bits of the program without it, in less memory; what would be wrong is found."""

import gc
import weakref

import numpy as np
import pytest
import torch
import torch.utils.checkpoint

import spool
from spool import nn
from spool.nn import functional as F
from spool.utils.checkpoint import (
    CheckpointError,
    checkpoint,
    checkpoint_sequential,
    set_checkpoint_early_stop,
)


class Block(nn.Module):
    """With dropout, a residual, normalisation and a write in place."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.down, self.drop = nn.Linear(2 * width, width), nn.Dropout(0.3)

    def forward(self, x, scale=1.0):
        h = self.up(self.norm(x))
        h = F.gelu(h)
        h[:, 0] = h[:, 1] * 2
        return x + self.drop(self.down(h)).mul_(scale)


def blocks(count=3, width=8):
    spool.manual_seed(1)
    return [Block(width) for _ in range(count)]


def plainly(function, *args, **kwargs):
    return function(*args, **kwargs)


def losses(how, layers, x):
    for layer in layers:
        x = how(layer, x, scale=0.7)
    return (x * x).mean()


def outcome(how, layers, build=losses):
    """The loss, gradients, second derivatives, and the next random number."""
    spool.manual_seed(2)
    x = spool.tensor(np.random.default_rng(0).normal(size=(4, 8)), dtype=spool.float32)
    x.requires_grad_()
    params = [x, *(p for layer in layers for p in layer.parameters())]
    loss = build(how, layers, x)
    grads = spool.autograd.grad(
        loss, params, create_graph=True, allow_unused=True, materialize_grads=True
    )
    second = spool.autograd.grad(sum((g * g).sum() for g in grads), params, allow_unused=True)
    numbers = [loss, *grads, *(s for s in second if s is not None), spool.rand(3)]
    return [t.detach().numpy().tobytes() for t in numbers]


def nested(how, layers, x):
    def inner(x):
        return how(layers[1], how(layers[0], x)).tanh()

    def outer(x):
        return how(layers[2], how(inner, x) * 2) + how(inner, x)

    return how(outer, x).sum()


def trees(how, layers, x):
    def function(pair, more, *, key):
        a, (b,) = pair["a"], more
        return {"out": layers[0](a) * key[0], "rest": [b * 2, 3]}

    result = how(function, {"a": x, "n": 1}, (x * 2,), key=[x.exp(), "text"])
    assert result["rest"][1] == 3
    return (result["out"] * result["rest"][0]).sum()


def two_uses(how, layers, x):
    y = how(layers[0], x)
    return (y * how(layers[0], y)).sum() + y.sum()


@pytest.mark.parametrize("build", [losses, nested, trees, two_uses])
@pytest.mark.parametrize("early_stop", [True, False])
def test_bits_are_those_without(build, early_stop):
    layers = blocks()
    with set_checkpoint_early_stop(early_stop):
        assert outcome(checkpoint, layers, build) == outcome(plainly, layers, build)


def test_values_are_torchs():
    def program(lib, how):
        x = lib.tensor([[0.3, -0.7], [1.1, 0.4]], dtype=lib.float64, requires_grad=True)

        def function(x, y=None):
            z = x @ x.tanh()
            z[0] = z[1].clone() * y
            return z.exp()

        loss = how(function, x, y=x[0] * 2, use_reentrant=False).sum()
        (grad,) = lib.autograd.grad(loss, x, create_graph=True)
        return [loss, grad, *lib.autograd.grad(grad.sum(), x)]

    for got, wanted in zip(
        program(spool, checkpoint), program(torch, torch.utils.checkpoint.checkpoint)
    ):
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), 1e-12)


def test_backward_accumulates_as_without():
    grads = []
    for how in (checkpoint, plainly):
        layers = blocks()
        spool.manual_seed(2)
        for _ in range(2):
            losses(how, layers, spool.ones(4, 8)).backward()
        grads.append([p.grad.numpy().tobytes() for layer in layers for p in layer.parameters()])
    assert grads[0] == grads[1]


def count_of_runs(early_stop=True, **options):
    runs = []

    def function(x):
        runs.append("begins")
        y = (x * x).exp()
        runs.append("ends")
        return y.sum()

    x = spool.ones(3, requires_grad=True)
    loss = checkpoint(function, x, early_stop=early_stop, **options)
    return runs, loss, x


def test_runs_once_more_for_each_backward_and_stops_early():
    runs, loss, x = count_of_runs()
    spool.autograd.grad(loss, x, retain_graph=True)
    assert runs == ["begins", "ends", "begins"]
    loss.backward()
    assert runs == ["begins", "ends", "begins", "begins"]
    runs, loss, _ = count_of_runs(early_stop=False)
    loss.backward()
    assert runs == ["begins", "ends", "begins", "ends"]


def test_without_grad_mode_nothing_is_kept():
    alive = []

    def function(x):
        y = x * x
        alive.append(weakref.ref(y))
        return y.sum()

    with spool.no_grad():
        assert not checkpoint(function, spool.ones(3, requires_grad=True)).requires_grad
    assert alive[0]() is None


def peak(how):
    layers = [nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(8)]
    x = spool.randn(2048, 64, requires_grad=True)
    spool.synchronize()
    before = spool.memory_stats()["live_bytes"]
    spool._C._memory_reset_peak()
    y = x
    for layer in layers:
        y = how(layer, y)
    y.sum().backward()
    spool.synchronize()
    return spool.memory_stats()["peak_bytes"] - before


def test_memory():
    """Of 8 layers each keeps its input; what is inside, and its gradients, are there for one layer at a time."""
    inside, between = 2 * 2048 * 256 * 4, 2048 * 64 * 4
    plain, saved = peak(plainly), peak(checkpoint)
    assert plain > 8 * inside
    assert saved < 8 * between + 4 * inside


def test_nothing_is_left_afterwards():
    layers = blocks(1)
    gone = []

    class Mark:
        pass

    def run():
        mark = Mark()
        gone.append(weakref.ref(mark))
        x = spool.ones(4, 8, requires_grad=True)
        loss = checkpoint(lambda x: (mark, layers[0](x))[1], x).sum()
        loss.backward()
        return loss

    loss = run()
    gc.collect()
    assert gone[0]() is None  # the values were given out: nobody needs the function any more
    assert loss.item() is not None


def test_autocast_is_that_of_the_first_run():
    layer, x = nn.Linear(8, 8), spool.ones(4, 8)
    dtypes = []

    def function(x):
        y = layer(x)
        dtypes.append(y.dtype)
        return y.tanh().float().sum()

    with spool.autocast("cpu", dtype=spool.bfloat16):
        first = checkpoint(function, x)
    second = checkpoint(function, x)
    first.backward()
    with spool.autocast("cpu", dtype=spool.bfloat16):
        second.backward()
    assert dtypes == [spool.bfloat16, spool.float32] * 1 + [spool.bfloat16, spool.float32]


def test_random_numbers_may_differ():
    drawn = []

    def function(x):
        drawn.append(spool.rand(1).item())
        return (x * x).exp().sum()

    x = spool.ones(3, requires_grad=True)
    checkpoint(function, x).backward()
    checkpoint(function, x, preserve_rng_state=False).backward()
    assert drawn[0] == drawn[1] and drawn[2] != drawn[3]


def test_context_fn():
    class Noted:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *error):
            seen.append("end")

    seen = []
    x = spool.ones(3, requires_grad=True)
    loss = checkpoint(spool.exp, x, context_fn=lambda: (Noted("first"), Noted("again"))).sum()
    assert seen == ["first", "end"]
    loss.backward()
    assert seen == ["first", "end", "again", "end"]


def test_jit_and_hot_regions():
    layers = blocks()

    def step(x):
        return spool.autograd.grad(
            losses(checkpoint, layers, x), [p for p in layers[0].parameters()]
        )

    for layer in layers:
        layer.eval()
    x = spool.ones(4, 8)
    wanted = [g.numpy().tobytes() for g in step(x)]
    jitted = spool.jit(step)
    for _ in range(4):
        assert [g.numpy().tobytes() for g in jitted(x)] == wanted


# ---- transforms ----------------------------------------------------------------------------------------------------------


def f(x):
    y = x.tanh() * x
    y[0] = y[1] * 2.0
    return (y * y.exp()).sum()


@pytest.mark.parametrize(
    "transform",
    [
        lambda t, f: t.grad(f),
        lambda t, f: t.hessian(f),
        lambda t, f: t.jacrev(t.jacrev(f)),
        lambda t, f: t.jacfwd(t.jacfwd(f)),
        lambda t, f: lambda x: t.vmap(t.grad(f))(spool.stack([x, x * 2])),
        lambda t, f: lambda x: t.jvp(t.grad(f), (x,), (x * 0 + 1,))[1],
        lambda t, f: t.grad(lambda x: (t.grad(f)(x) ** 2).sum()),
    ],
    ids=range(7),
)
def test_inside_transforms(transform):
    x = spool.tensor([0.3, -0.7, 1.1], dtype=spool.float64)
    wanted = transform(spool.func, f)(x)
    got = transform(spool.func, lambda x: checkpoint(f, x))(x)
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), 1e-12)


@pytest.mark.parametrize("transform", [spool.func.vmap, spool.func.jacfwd])
def test_when_the_transform_has_ended_it_cannot_run_again_and_says_so(transform):
    rows = spool.ones(2, 3, dtype=spool.float64, requires_grad=True)
    with pytest.raises(spool.SpoolError, match="made inside (vmap|jvp)"):
        transform(lambda x: checkpoint(spool.exp, x))(rows).exp().sum().backward()


# ---- what is wrong -------------------------------------------------------------------------------------------------------


def differing(first, then):
    """A part that is another function when it runs again."""
    functions = [first, then]
    x = spool.ones(3, requires_grad=True)
    return checkpoint(lambda x: functions.pop(0)(x), x, early_stop=False).sum(), x


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (lambda x: x.exp(), lambda x: x.exp().exp(), "saved 1 tensors for its gradient, and more"),
        (lambda x: x.exp().exp(), lambda x: x.exp(), "saved 2 tensors for its gradient, but 1"),
        (lambda x: x.exp(), lambda x: x[:2].exp(), r"of shape \(3,\).*and .* of shape \(2,\)"),
        (lambda x: x.exp(), lambda x: x.double().exp(), "spool.float64"),
    ],
)
def test_functions_that_differ_from_run_to_run(first, then, message):
    with pytest.raises(CheckpointError, match=message):
        differing(first, then)[0].backward()


def test_what_was_written_to_in_between():
    layer = nn.Linear(3, 3)
    x = spool.ones(2, 3, requires_grad=True)
    loss = checkpoint(lambda x: layer(x).tanh(), x).sum()
    with spool.no_grad():
        layer.weight.add_(1)
    with pytest.raises(CheckpointError, match="must not be written to"):
        loss.backward()
    y = x * 2
    loss = checkpoint(lambda y: y.exp().exp(), y).sum()
    y.add_(1)
    with pytest.raises(CheckpointError, match="argument, .* was modified by an in-place"):
        loss.backward()


def test_a_saved_value_that_the_function_overwrites():
    def function(x):
        y = x.exp()
        z = y * y
        y.add_(1)
        return z.exp() + y

    x = spool.ones(3, requires_grad=True)
    with pytest.raises(spool.SpoolError, match="in-place operation"):
        checkpoint(function, x).sum().backward()


def test_an_exception_in_the_second_run_arrives_and_leaves_all_as_it_was():
    runs = []

    def function(x):
        runs.append(1)
        if len(runs) == 2:
            raise KeyError("mine")
        return x.exp().exp()

    x = spool.ones(3, requires_grad=True)
    loss = checkpoint(function, x).sum()
    spool.manual_seed(3)
    wanted = spool.rand(2).tolist()
    spool.manual_seed(3)
    with pytest.raises(KeyError, match="mine"):
        loss.backward(retain_graph=True)
    assert spool.rand(2).tolist() == wanted
    loss.backward()
    assert x.grad.tolist() == pytest.approx([float(np.exp(np.exp(1) + 1))] * 3)


def test_arguments():
    x = spool.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="determinism_check must be"):
        checkpoint(spool.exp, x, determinism_check="exact")
    with pytest.raises(ValueError, match="0 segments of 2 functions"):
        checkpoint_sequential([spool.exp, spool.tanh], 0, x)
    with pytest.raises(TypeError, match="unexpected arguments other"):
        checkpoint_sequential([spool.exp], 1, x, other=2)
    unchecked, x = differing(lambda x: x.exp(), lambda x: x.exp().exp())
    del unchecked
    functions = [lambda x: x.exp(), lambda x: x.exp().exp()]
    checkpoint(lambda x: functions.pop(0)(x), x, determinism_check="none").sum().backward()


@pytest.mark.parametrize("segments", [1, 2, 3, 4])
def test_sequential(segments):
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 8))
    grads = []
    for how in (lambda x: checkpoint_sequential(model, segments, x), model):
        spool.manual_seed(4)
        x = spool.ones(4, 8, requires_grad=True)
        (how(x) ** 2).sum().backward()
        grads.append(x.grad.numpy().tobytes())
    assert grads[0] == grads[1]
