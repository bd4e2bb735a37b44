"""The tape against PyTorch: random programs of views, slices and in-place writes; nested transforms; hooks; threads."""

import contextlib
import gc
import random
import threading
import weakref

import numpy as np
import pytest
import torch

import spool

# ---- random programs: the same calls on both, then the same gradients, or an error in both -----------------------------


def view_of(rng, t):
    """A random view of t; t is from either library."""
    kind = rng.choice(["slice", "select", "transpose", "reshape", "unsqueeze", "expand", "none"])
    if kind == "slice" and t.ndim and t.shape[0] > 1:
        return t[1:] if rng.random() < 0.5 else t[::2]
    if kind == "select" and t.ndim > 1:
        return t[rng.randrange(t.shape[0])]
    if kind == "transpose" and t.ndim > 1:
        return t.transpose(0, 1)
    if kind == "reshape":
        return t.reshape(-1)
    if kind == "unsqueeze" and t.ndim < 3:
        return t.unsqueeze(0)
    if kind == "expand" and t.ndim and t.shape[0] == 1:
        return t.expand(3, *t.shape[1:])
    return t


def compatible(a, b):
    """Whether b broadcasts to a's shape."""
    sizes = zip(reversed(a.shape), reversed(b.shape))
    return b.ndim <= a.ndim and all(n == m or m == 1 for n, m in sizes)


def step(rng, lib, values):
    """Does one random thing; what is chosen depends on rng and on shapes alone."""
    kind = rng.choice(
        [
            "view",
            "view",
            "view",
            "binary",
            "unary",
            "write",
            "write",
            "write",
            "number",
            "detach",
            "no_grad",
        ]
    )
    a, b = rng.choice(values), rng.choice(values)
    number = rng.choice([0.5, 2.0, -1.5])
    if kind == "view":
        values.append(view_of(rng, a))
    elif kind == "unary":
        values.append(getattr(a, rng.choice(["tanh", "neg", "relu", "clone"]))())
    elif kind == "binary" and compatible(a, b):
        values.append(a * b if rng.random() < 0.5 else a + b * number)
    elif kind == "number":
        values.append(a * number)
    elif kind == "detach" and rng.random() < 0.3:
        values.append(a.detach())
    elif kind == "no_grad" and rng.random() < 0.5:
        with lib.no_grad():
            values.append(view_of(rng, a) * number)
    elif kind == "write":
        write(rng, a, b, number)


def write(rng, a, b, number):
    _ = a.grad_fn  # PyTorch notices only at a look that a view's base has got a history
    kind = rng.choice(["add_", "mul_", "copy_", "fill_", "mul_number", "setitem"])
    if kind == "fill_":
        a.fill_(number)
    elif kind == "mul_number":
        a.mul_(number)
    elif kind == "setitem" and a.ndim:
        a[0] = number
    elif compatible(a, b) and kind != "setitem":
        getattr(a, kind)(b)


def run_program(lib, seed):
    """Gradients (None where there is none) of the leaves, values of all tensors; or what went wrong, and where."""
    rng = random.Random(seed)
    data = np.random.default_rng(seed)
    leaves = [lib.tensor(data.normal(size=s)) for s in ((3, 4), (4,), (1, 4))]
    for leaf in leaves[:2]:
        leaf.requires_grad_()
    values = [*leaves, leaves[0] * 1.0, leaves[1] * 1.0, lib.tensor(data.normal(size=(3, 4)))]
    try:
        for _ in range(12):
            step(rng, lib, values)
        needs = [v.requires_grad for v in values]
        total = 0
        for v in values[3:]:
            total = total + (v * v).sum()
        grads = lib.autograd.grad(total, leaves[:2], create_graph=True, allow_unused=True)
        second = sum((g * g).sum() for g in grads if g is not None)
        again = (
            lib.autograd.grad(second, leaves[:2], allow_unused=True)
            if getattr(second, "requires_grad", False)
            else [None, None]
        )
    except (RuntimeError, ValueError) as error:
        return ("error", str(error))
    numbers = [None if g is None else g.detach().numpy().copy() for g in (*grads, *again)]
    return needs, [v.detach().numpy().copy() for v in values], numbers


def same(got, wanted):
    zero = np.zeros(())
    np.testing.assert_allclose(
        zero if got is None else got, zero if wanted is None else wanted, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("block", range(20))
def test_random_programs_have_torchs_gradients(block):
    ran = 0
    for seed in range(50 * block, 50 * block + 50):
        got, wanted = run_program(spool, seed), run_program(torch, seed)
        if "error" in (got[0], wanted[0]):
            # PyTorch gives up where an in-place op overwrites its own input, of which Spool keeps a copy.
            kept = wanted[0] == "error" and "modified by an inplace operation" in wanted[1]
            assert got[0] == wanted[0] or kept, (seed, got[:2], wanted[:2])
            continue
        ran += 1
        assert got[0] == wanted[0], seed
        for g, w in zip(got[1] + got[2], wanted[1] + wanted[2]):
            same(g, w)
    assert ran > 5


@pytest.mark.parametrize(
    "write",
    [lambda t: t.clamp_(0.1), lambda t: t.logit_(eps=None), lambda t: t[1:].clamp_(max=0.5)],
    ids=["clamp", "logit", "view"],
)
def test_composites_in_place(write):
    """What their ops save is the written tensor's value before."""
    grads = []
    for lib in (spool, torch):
        x = lib.tensor([0.3, 0.05, 0.7], dtype=lib.float64, requires_grad=True)
        t = x * 1.0
        write(t)
        grads.append(lib.autograd.grad((t * t).sum(), x)[0].numpy())
    same(*grads)


@pytest.mark.parametrize("op", ["sigmoid_", "exp_", "tanh_", "sqrt_", "reciprocal_"])
@pytest.mark.parametrize(
    "view", [lambda t: t[...], lambda t: t[0], lambda t: t.transpose(0, 1)[1:]], ids=range(3)
)
def test_second_derivative_of_a_write_through_a_view(view, op):
    """The op saves its result, which is a part of what the base has become."""
    rows = []
    for lib in (spool, torch):
        x = lib.tensor([[0.3, 0.7], [1.1, 0.4]], dtype=lib.float64, requires_grad=True)
        t = x * 1.0
        getattr(view(t), op)()
        (grad,) = lib.autograd.grad((t * t).sum(), x, create_graph=True)
        (second,) = lib.autograd.grad(grad.sum(), x, create_graph=True)
        rows.append([grad, second, *lib.autograd.grad(second.sum(), x)])
    for got, wanted in zip(*rows):
        same(got.detach().numpy(), wanted.detach().numpy())


# ---- nested transforms ----------------------------------------------------------------------------------------------------


def f(x):
    y = x.tanh() * x
    y[0] = y[1] * 2.0  # also through writes
    return (y * y.exp()).sum()


def torch_f(x):
    y = x.tanh() * x
    y = torch.cat([(y[1] * 2.0).unsqueeze(0), y[1:]])
    return (y * y.exp()).sum()


POINT = np.array([0.3, -0.7, 1.1])
ROWS = np.stack([POINT, -POINT, POINT * 0.5, POINT + 0.2])


@pytest.mark.parametrize(
    "build",
    [
        lambda t, f: t.grad(f),
        lambda t, f: t.grad(lambda x: (t.grad(f)(x) ** 2).sum()),
        lambda t, f: t.grad(lambda x: t.grad(lambda y: (t.grad(f)(y) ** 2).sum())(x).sum()),
        lambda t, f: t.jacrev(t.grad(f)),
        lambda t, f: t.jacfwd(t.grad(f)),
        lambda t, f: t.jacrev(t.jacfwd(f)),
        lambda t, f: t.hessian(f),
        lambda t, f: lambda x: t.jvp(t.grad(f), (x,), (x * 0 + 1,))[1],
        lambda t, f: lambda x: t.grad(lambda y: t.jvp(f, (y,), (y * 0 + 1,))[1])(x),
        lambda t, f: lambda x: t.jvp(lambda y: t.jvp(f, (y,), (y * 0 + 1,))[1], (x,), (x * 2,))[1],
    ],
)
def test_transforms_nest_as_torchs(build):
    x, tx = spool.tensor(POINT), torch.tensor(POINT)
    wanted = build(torch.func, torch_f)(tx)
    same(build(spool.func, f)(x).numpy(), wanted.numpy())
    rows = spool.func.vmap(build(spool.func, f))(spool.tensor(ROWS))
    for row, point in zip(rows.numpy(), ROWS):
        same(row, build(torch.func, torch_f)(torch.tensor(point)).numpy())


def test_vjp_of_several_results_may_be_used_afterwards():
    outputs, pull = spool.func.vjp(lambda x: (x * 2.0, x * x), spool.tensor(POINT))
    (grad,) = pull(outputs)
    same((grad + 0.0).numpy(), 4 * POINT + 2 * POINT**3)


def test_grad_of_vmap_of_grad():
    def inner(lib, function):
        return lambda x: (lib.vmap(lib.grad(function))(x) ** 2).sum()

    got = spool.func.grad(inner(spool.func, f))(spool.tensor(ROWS))
    same(got.numpy(), torch.func.grad(inner(torch.func, torch_f))(torch.tensor(ROWS)).numpy())


@pytest.mark.parametrize("outer", ["grad", "jvp"])
@pytest.mark.parametrize("inner", ["grad", "jvp"])
def test_perturbations_are_not_confused(outer, inner):
    def derivative(how, function, at):
        if how == "grad":
            return spool.func.grad(function)(at)
        return spool.func.jvp(function, (at,), (at * 0 + 1,))[1]

    x = spool.tensor(3.0)
    assert (
        derivative(
            outer, lambda x: x * derivative(inner, lambda y: x + y, spool.tensor(1.0)), x
        ).item()
        == 1
    )
    assert derivative(outer, lambda x: x * derivative(inner, lambda y: x * y, x), x).item() == 6


def test_vmap_of_in_dims_and_out_dims():
    a, b = np.arange(12.0).reshape(3, 4), np.arange(8.0).reshape(4, 2)
    got = spool.func.vmap(lambda x, y: x @ y, in_dims=(0, None), out_dims=1)(
        spool.tensor(a), spool.tensor(b)
    )
    same(got.numpy(), (a @ b).T)


def test_writing_a_mapped_value_into_a_shared_tensor_says_so():
    shared = spool.zeros(3)
    with pytest.raises(ValueError, match="all examples share"):
        spool.func.vmap(lambda row: shared.add_(row))(spool.tensor(ROWS, dtype=spool.float32))
    assert shared.numpy().tolist() == [0, 0, 0]


def test_values_inside_a_transform_cannot_be_read():
    with pytest.raises(Exception, match="vmap"):
        spool.func.vmap(lambda row: row.sum().item())(spool.tensor(ROWS))


def test_a_failing_function_leaves_no_level_behind():
    def fails(x):
        raise KeyError("mine")

    for transform in (
        spool.func.grad,
        spool.func.vmap,
        lambda g: lambda x: spool.func.jvp(g, (x,), (x,)),
    ):
        with pytest.raises(KeyError, match="mine"):
            transform(fails)(spool.tensor(POINT))
    assert (spool.tensor(POINT) * 2).numpy().tolist() == (POINT * 2).tolist()


# ---- random programs: forward, reverse and batched derivatives agree ------------------------------------------------------


class Recording:
    """What step() needs of a library, but without no_grad, which stops a tape and not a tangent."""

    no_grad = contextlib.nullcontext


def random_function(seed):
    def function(x, w):
        rng = random.Random(seed)
        values = [x * 1.0, w * 1.0, x.tanh(), (x * w).sum(dim=0), w * x[0]]
        for _ in range(10):
            step(rng, Recording, values)
        return sum((v * v * 0.5 + v.tanh()).sum() for v in values)

    return function


def compare_modes(function, xs, ws, along):
    """False if the program writes over what its gradient needs."""
    t = spool.func
    first = [spool.tensor(xs[0]), spool.tensor(ws[0])]
    tangents = [spool.tensor(a) for a in along]
    reverse = t.grad(function, argnums=(0, 1))

    def forward(*args):
        return t.jvp(function, args, tuple(tangents))[1]

    try:
        grads = reverse(*first)
    except (RuntimeError, ValueError):
        return False
    slope = sum(float((g.numpy() * a).sum()) for g, a in zip(grads, along))
    same(forward(*first).numpy(), slope)
    batch = spool.tensor(xs), spool.tensor(ws)
    for k, rows in enumerate(zip(*(g.numpy() for g in t.vmap(reverse)(*batch)))):
        for row, wanted in zip(rows, reverse(spool.tensor(xs[k]), spool.tensor(ws[k]))):
            same(row, wanted.numpy())
    same(t.vmap(forward)(*batch).numpy()[0], slope)
    over_reverse = t.jvp(reverse, tuple(first), tuple(tangents))[1]
    over_forward = t.grad(forward, argnums=(0, 1))(*first)
    for a, b in zip(over_reverse, over_forward):
        same(a.numpy(), b.numpy())
    return True


@pytest.mark.parametrize("block", range(8))
def test_modes_of_differentiation_agree(block):
    ran = 0
    for seed in range(15 * block, 15 * block + 15):
        data = np.random.default_rng(seed)
        xs, ws = data.normal(size=(2, 3, 4)) * 0.5, data.normal(size=(2, 4)) * 0.5
        ran += compare_modes(
            random_function(seed), xs, ws, [data.normal(size=(3, 4)), data.normal(size=4)]
        )
    assert ran > 3


# ---- objects, hooks, threads --------------------------------------------------------------------------------------------


def test_grad_is_one_object_and_grows_in_place():
    x = spool.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    grad = x.grad
    (x * x).sum().backward()
    assert x.grad is grad
    assert grad.numpy().tolist() == [4, 8]


def test_hooks_from_python():
    x = spool.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    first = x.register_hook(lambda g: seen.append("first") or g * 2)
    x.register_hook(lambda g: seen.append(g.numpy().tolist()))
    x.sum().backward()
    first.remove()
    x.sum().backward()
    assert seen == ["first", [2, 2], [1, 1]]
    assert x.grad.numpy().tolist() == [3, 3]


def test_an_exception_in_a_hook_reaches_the_caller():
    x = spool.tensor([1.0], requires_grad=True)

    def broken(grad):
        raise LookupError("mine")

    handle = x.register_hook(broken)
    with pytest.raises(LookupError, match="mine"):
        (x * 2).sum().backward()
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.item() == 2


def test_a_graph_dies_with_its_last_tensor():
    x = spool.tensor([1.0], requires_grad=True)

    class Marker:
        def __call__(self, grad):
            return None

    marker = Marker()
    y = x * 2
    y.register_hook(marker)
    z = y.sum()
    alive = weakref.ref(marker)
    del marker, y
    gc.collect()
    assert alive() is not None
    del z
    gc.collect()
    assert alive() is None


def test_backward_on_several_threads():
    shared = spool.tensor(np.ones((64, 64)), requires_grad=True)
    problems = []

    def work(k):
        try:
            for _ in range(20):
                own = spool.tensor(np.full((64, 64), float(k)), requires_grad=True)
                spool.autograd.backward((own @ own).sum())
                assert np.all(own.grad.numpy() == 2 * 64 * k)
                (g,) = spool.autograd.grad((shared * own.detach()).sum(), [shared])
                assert np.all(g.numpy() == k)
        except BaseException as problem:  # noqa: BLE001 - handed to the main thread
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
