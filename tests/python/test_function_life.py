"""Custom functions under jit, autocast and threads; memory, failing allocations, and rings through ctx."""

import gc
import threading
import weakref

import numpy as np
import pytest
from functions import (
    BOTH,
    POINT,
    make_cube,
    make_double_,
    make_exp,
    make_once,
    make_reverse,
    numbers,
    point,
)

import spool
from spool.autograd import Function

# ---- modules, jit, autocast --------------------------------------------------------------------------------------------


def test_inside_jit():
    cube, exp = make_cube(spool), make_exp(spool)

    class Host(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return spool.tensor(np.sqrt(x.detach().numpy()))

        @staticmethod
        def backward(ctx, g):
            return g / (2 * ctx.saved_tensors[0].sqrt())

    def step(w, x):
        y = cube.apply(w * x) + exp.apply(w).tanh()
        loss = (Host.apply(y * y + 1) * x).sum()
        loss.backward()
        grad = w.grad * 1
        w.grad = None
        return loss.detach(), grad

    jitted = spool.jit(step)
    for i in range(6):
        w = spool.tensor(POINT * (i + 1) / 3, requires_grad=True)
        x = spool.tensor(POINT + i)
        for got, wanted in zip(jitted(w, x), step(w, x)):
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())


def test_training_under_jit():
    cube = make_cube(spool)

    def make():
        w = spool.tensor(POINT, requires_grad=True)
        opt = spool.optim.SGD([w], lr=0.01)

        def step():
            loss = (cube.apply(w) ** 2).sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss.detach()

        return step

    eager, jitted = make(), spool.jit(make())
    assert [eager().item() for _ in range(8)] == [jitted().item() for _ in range(8)]


def test_autocast_reaches_forward():
    class Product(Function):
        @staticmethod
        def forward(a, b):
            return a @ b

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return g.to(a.dtype) @ b.T, a.T @ g.to(a.dtype)

    a = spool.ones(2, 2, requires_grad=True)
    with spool.autocast("cpu", dtype=spool.bfloat16):
        y = Product.apply(a, a)
        assert y.dtype == spool.bfloat16
        inside = spool.func.grad(lambda v: Product.apply(v, v).sum())(a.detach())
    y.sum().backward()
    assert a.grad.dtype == spool.float32
    assert numbers(a.grad) == numbers(inside) == [[4, 4], [4, 4]]


# ---- threads, memory, rings ------------------------------------------------------------------------------------------------


def test_threads():
    shared = point(spool, [1.0, 2.0])
    product = make_cube(spool)
    together = product.apply(shared)
    problems = []

    def work(k):
        try:
            for _ in range(30):
                own = point(spool, [float(k)])
                product.apply(own).backward()
                assert numbers(own.grad) == [3.0 * k * k]
                (g,) = spool.autograd.grad(together.sum(), shared, retain_graph=True)
                assert numbers(g) == [3, 12]
        except BaseException as problem:  # noqa: BLE001 - handed to the main thread
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


class Marker:
    pass


@BOTH
def test_ctx_dies_with_its_graph(lib):
    alive = []

    class Notes(make_exp(lib)):
        @staticmethod
        def forward(ctx, x):
            ctx.marker = Marker()
            alive.append(weakref.ref(ctx.marker))
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = point(lib, [1.0])
    y = Notes.apply(x)
    z = y.sum()
    del y
    z.backward()
    gc.collect()
    assert alive[-1]() is not None
    del z
    gc.collect()
    assert alive[-1]() is None
    with lib.no_grad():
        Notes.apply(x)
    gc.collect()
    assert alive[-1]() is None


def test_inputs_are_not_kept_by_the_node():
    x = point(spool, [1.0])
    big = spool.ones(10)
    kept = weakref.ref(big)

    class Ignores(Function):
        @staticmethod
        def forward(ctx, x, other, marker):
            return x * other.sum()

        @staticmethod
        def backward(ctx, g):
            return g, None, None

    marker = Marker()
    gone = weakref.ref(marker)
    y = Ignores.apply(x, big, marker)
    del big, marker
    assert kept() is None and gone() is None
    y.backward()


@pytest.mark.parametrize("how", ["result", "result of two", "ctx", "class"])
def test_rings_through_ctx_are_collected(how):
    alive = []

    def make():
        class Ring(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.marker = Marker()
                alive.append(weakref.ref(ctx.marker))
                y = x * 2
                if how == "ctx":
                    ctx.myself = ctx
                elif how != "class":
                    ctx.y = y
                return (y, x * 3) if how == "result of two" else y

            @staticmethod
            def backward(ctx, *g):
                return g[0] * 2

        y = Ring.apply(point(spool, [1.0]))
        if how == "class":
            Ring.last = y
        (y[0] if how == "result of two" else y).sum().backward()

    gc.collect()
    before = spool.memory_stats()["live_blocks"]
    make()
    gc.collect()
    assert alive[0]() is None
    assert spool.memory_stats()["live_blocks"] <= before


def test_memory_is_flat():
    cube, exp, double = make_cube(spool), make_exp(spool), make_double_(spool)
    x = point(spool, [0.5, 1.0])

    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise KeyError

    def program():
        y = cube.apply(double.apply(exp.apply(x) * 1))
        (g,) = spool.autograd.grad(y.sum(), x, create_graph=True)
        g.sum().backward()
        spool.func.vmap(spool.func.grad(spool.func.grad(cube.apply)))(x.detach())
        spool.func.hessian(lambda v: cube.apply(v).sum())(x.detach())
        with pytest.raises(KeyError):
            Fails.apply(x).sum().backward()
        with pytest.raises(RuntimeError):
            make_once(spool).apply(x).sum().backward(create_graph=True)
            x.grad.sum().backward()
        x.grad = None

    def live():
        gc.collect()
        spool.synchronize()
        return spool.memory_stats()["live_blocks"]

    with spool.hot(False):
        program()
        before = live()
        for _ in range(20):
            program()
        assert live() <= before


def test_a_deep_tape():
    """Thousands of functions neither overflow the stack when run nor when freed."""
    exp = make_reverse(spool, lambda x: x * 1)
    x = point(spool, [1.0])
    y = x
    for _ in range(20_000):
        y = exp.apply(y)
    y.backward()
    assert numbers(x.grad) == [1]


@pytest.mark.parametrize("which", ["tape", "transforms"])
def test_every_allocation_may_fail(which):
    cube, exp, double = make_cube(spool), make_exp(spool), make_double_(spool)
    x = point(spool, [0.5, 1.0])
    at = x.detach()

    def program():
        if which == "tape":
            y = cube.apply(double.apply(exp.apply(x) * 1))
            (g,) = spool.autograd.grad(y.sum(), x, create_graph=True)
            g.sum().backward()
            x.grad = None
        else:
            spool.func.vmap(spool.func.grad(spool.func.grad(cube.apply)))(at)
            spool.func.vmap(lambda v: spool.func.jvp(cube.apply, (v,), (v,)))(at)

    def live():
        gc.collect()
        spool.synchronize()
        return spool.memory_stats()["live_blocks"]

    with spool.hot(False):
        program()
        before = live()
        for nth in range(1, 2000):
            spool._C._memory_fail_nth(nth)
            try:
                program()
                done = True
            except MemoryError:
                done = False
            finally:
                spool._C._memory_fail_nth(0)
            x.grad = None
            if done:
                break
        assert done
        assert live() <= before
