"""Bad input: the right exception, a message that names op, shapes and remedy, a traceback that ends at the user's line."""

import re
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import numpy as np
import pytest

import spool
import spool.nn.functional as F

x23 = spool.ones(2, 3)
x34 = spool.ones(3, 4)
ints = spool.tensor([1, 2, 3])


def raised(call):
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - examined
        return error
    raise AssertionError("nothing was raised")


CASES = [
    (lambda: x23 + x34, spool.ShapeError, r"add.*\(2, 3\).*\(3, 4\)"),
    (lambda: x23 @ x23, spool.ShapeError, r"matmul.*\(2, 3\).*\(2, 3\)"),
    (lambda: x23.view(7), spool.ShapeError, r"view.*\(2, 3\)"),
    (lambda: x23.reshape(-1, -1), (ValueError, spool.ShapeError), "reshape"),
    (lambda: x23.sum(4), IndexError, "sum.*4"),
    (lambda: x23.sum((0, 0)), ValueError, "sum"),
    (lambda: x23.permute(0), spool.ShapeError, "permute"),
    (lambda: x23.transpose(0, 5), IndexError, "transpose"),
    (lambda: x23.squeeze(3), IndexError, "squeeze"),
    (lambda: x23.expand(3, 3), spool.ShapeError, "expand"),
    (lambda: x23.size(2), IndexError, "size"),
    (lambda: x23[2], IndexError, "2"),
    (lambda: x23.T.T.mT.view(6), (ValueError, spool.ShapeError), "view"),
    (lambda: spool.zeros(-1), spool.ShapeError, "-1"),
    (lambda: spool.zeros(2**40, 2**40), MemoryError, ""),
    (lambda: spool.zeros(2**62), MemoryError, ""),
    (lambda: spool.zeros(*[1] * 13), spool.ShapeError, "12"),
    (lambda: spool.zeros("a"), TypeError, "zeros: size"),
    (lambda: spool.zeros(1.5), TypeError, "zeros: size"),
    (lambda: spool.zeros(2**70), OverflowError, "64 bits"),
    (lambda: spool.zeros(2, dtype="float32"), TypeError, "dtype"),
    (lambda: spool.zeros(2, requires_grad=1), TypeError, "requires_grad"),
    (lambda: spool.zeros(2, color="red"), TypeError, "color"),
    (lambda: spool.zeros(2, device="cuda"), NotImplementedError, "cuda"),
    (lambda: spool.zeros(2, dtype=spool.int64, requires_grad=True), spool.DTypeError, ""),
    (lambda: spool.full((2,)), TypeError, "fill_value"),
    (lambda: spool.tensor(), TypeError, "tensor"),
    (lambda: spool.tensor(1, 2), TypeError, "tensor"),
    (lambda: spool.tensor(data=1, color=2), TypeError, "color"),
    (lambda: spool.arange(0, 5, 0), ValueError, "step"),
    (lambda: spool.matmul(x23), TypeError, "matmul"),
    (lambda: spool.matmul(x23, x34, x34), TypeError, "matmul"),
    (lambda: spool.matmul(x23, [[1.0]]), TypeError, "matmul"),
    (lambda: spool.tanh("a"), TypeError, "tanh"),
    (lambda: spool.tanh(y=x23), TypeError, "tanh"),
    (lambda: x23.sum(dimension=1), TypeError, "dimension"),
    (lambda: x23.sum(keepdim=2), TypeError, "keepdim"),
    (lambda: x23 + "a", TypeError, "unsupported operand"),
    (lambda: x23 + None, TypeError, "unsupported operand"),
    (lambda: x23 < [1], TypeError, "not supported"),
    (lambda: x23.item(), spool.ShapeError, r"\(2, 3\)"),
    (lambda: x23.backward(), RuntimeError, ""),
    (lambda: x23.to("nowhere"), NotImplementedError, "nowhere"),
    (lambda: ints.requires_grad_(), spool.DTypeError, "int64"),
    (lambda: setattr(x23, "requires_grad", "yes"), TypeError, "requires_grad"),
    (lambda: setattr(x23, "grad", 3), TypeError, "grad"),
    (lambda: setattr(x23, "shape", (6,)), AttributeError, "shape"),
    (lambda: x23.no_such_thing, AttributeError, "no_such_thing"),
    (lambda: ints.mean(), spool.DTypeError, "mean"),
    (lambda: F.cross_entropy(x23, spool.tensor([0, 5])), IndexError, "5"),
    (lambda: F.cross_entropy(x23, spool.tensor([0.0, 1.0])), spool.DTypeError, "int64"),
    (lambda: F.cross_entropy(x23, spool.tensor([0, 1]), reduction="max"), ValueError, "reduction"),
    (lambda: F.cross_entropy(x23, spool.tensor([0])), spool.ShapeError, "cross_entropy|nll_loss"),
    (lambda: F.linear(x23, x34), spool.ShapeError, "linear"),
    (lambda: x23.index_select(0, ints), IndexError, "index_select"),
    (lambda: x23.index_select(0, x23), (spool.DTypeError, spool.ShapeError), "index_select"),
    (lambda: x23.gather(1, spool.tensor([[7]])), IndexError, "gather"),
    (lambda: x23.expand(4, 2, 3).add_(1), (ValueError, RuntimeError), ""),
    (lambda: spool.set_num_threads(0), ValueError, "0"),
    (lambda: spool.set_num_threads("a"), TypeError, "set_num_threads"),
    (lambda: spool.manual_seed("a"), TypeError, ""),
    (lambda: spool.func.grad(lambda v: v)(x23), spool.ShapeError, "one element"),
    (lambda: spool.func.grad(lambda v: 3.0)(x23), TypeError, "Tensor"),
    (lambda: spool.func.grad(lambda v: v.sum())(3.0), TypeError, "float"),
    (lambda: spool.func.grad(lambda v: v.sum())(ints), spool.DTypeError, "int64"),
    (lambda: spool.func.grad(lambda v: v.sum(), argnums=2)(x23), IndexError, "argnums"),
    (lambda: spool.func.vmap(lambda a, b: a)(x23, x34), spool.ShapeError, r"\[2, 3\]"),
    (lambda: spool.func.vmap(lambda a: a, in_dims=5)(x23), IndexError, "in_dims"),
    (lambda: spool.func.vmap(lambda a: a, in_dims=None)(x23), ValueError, "in_dims"),
    (lambda: spool.func.vmap(lambda a: 1)(x23), TypeError, "vmap"),
    (lambda: spool.func.vmap(lambda a: a.item())(ints), (RuntimeError, NotImplementedError), ""),
    (lambda: spool.func.vmap(lambda a: spool.rand(2))(x23), RuntimeError, "random"),
    (lambda: spool.func.jvp(lambda v: v, (x23,), (x34,)), spool.ShapeError, r"\(3, 4\)"),
    (lambda: spool.func.jvp(lambda v: v, x23, x23), TypeError, "tuple"),
]


@pytest.mark.parametrize("case", CASES, ids=[str(i) for i in range(len(CASES))])
def test_message_and_line(case):
    call, kind, pattern = case
    error = raised(call)
    assert isinstance(error, kind), repr(error)
    assert re.search(pattern, str(error)), str(error)
    frames = traceback.extract_tb(error.__traceback__)
    assert Path(frames[-1].filename) == Path(__file__), frames[-1]
    # The process goes on.
    assert (spool.ones(2) + 1).tolist() == [2, 2]


def test_hierarchy():
    assert issubclass(spool.SpoolError, RuntimeError)
    assert issubclass(spool.ShapeError, (spool.SpoolError, ValueError)) and issubclass(
        spool.ShapeError, ValueError
    )
    assert issubclass(spool.DTypeError, spool.SpoolError) and issubclass(
        spool.DTypeError, TypeError
    )
    assert issubclass(spool.FormatError, ValueError)


def test_tape_misuse():
    w = spool.ones(3, requires_grad=True)
    loss = (w * w).sum()
    loss.backward()
    error = raised(loss.backward)
    assert isinstance(error, spool.SpoolError) and "retain_graph" in str(error)
    error = raised(lambda: w.add_(1))
    assert isinstance(error, spool.SpoolError) and "leaf" in str(error) and "no_grad" in str(error)
    y = w * 2
    z = (y * y).sum()
    y.add_(1)
    error = raised(z.backward)
    assert isinstance(error, spool.SpoolError) and "mul" in str(error)
    error = raised(lambda: (w * 2).backward())
    assert isinstance(error, RuntimeError)
    error = raised(lambda: spool.autograd.grad(w.sum(), spool.ones(1, requires_grad=True)))
    assert "allow_unused" in str(error)
    assert isinstance(raised(lambda: spool.ones(2).register_hook(print)), RuntimeError)
    assert isinstance(raised(lambda: w.register_hook(3)), TypeError)
    assert isinstance(raised(lambda: setattr(w * 2, "requires_grad", False)), RuntimeError)


def test_failed_calls_change_nothing():
    x = spool.ones(2, 3)
    version = x._version
    for call in (
        lambda: x.add_(x34),
        lambda: x.copy_(x34),
        lambda: x.__setitem__(0, x34),
        lambda: x.__setitem__(5, 1),
    ):
        raised(call)
    assert x._version == version and x.tolist() == [[1.0] * 3] * 2


def test_tracebacks_skip_the_package_but_not_the_users_functions():
    def inner(v):
        return v @ spool.ones(7)

    for call in (
        lambda: spool.func.vmap(inner)(x23),
        lambda: spool.func.vmap(spool.func.grad(inner))(x23),
        lambda: spool.func.jacrev(inner)(spool.ones(3)),
        lambda: spool.no_grad()(inner)(spool.ones(3)),
    ):
        error = raised(call)
        frames = traceback.extract_tb(error.__traceback__)
        assert frames[-1].name == "inner" and all(
            Path(f.filename) == Path(__file__) for f in frames
        ), frames


def test_exceptions_of_user_functions_pass_through():
    class Mine(Exception):
        pass

    def fail(v):
        raise Mine

    for transform in (
        spool.func.grad,
        spool.func.vmap,
        spool.func.jacrev,
        spool.func.jacfwd,
        spool.func.hessian,
    ):
        assert isinstance(raised(lambda transform=transform: transform(fail)(spool.ones(2))), Mine)
    # Levels came off: nothing is left behind.
    assert spool.func.grad(lambda v: v.sum())(spool.ones(2)).tolist() == [1, 1]


def test_tensors_that_outlive_their_transform():
    leaked = []

    def f(v):
        leaked.append(v)
        return (v * v).sum()

    for transform, argument in (
        (spool.func.grad(f), spool.ones(2)),
        (spool.func.vmap(f), spool.ones(2, 2)),
    ):
        leaked.clear()
        transform(argument)
        error = raised(lambda: leaked[0] + 1)
        assert isinstance(error, (spool.SpoolError, NotImplementedError)) and "transform" in str(
            error
        )
        repr(leaked[0])


def run_python(code, **environment):
    import os

    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )


def test_import_is_light():
    done = run_python(
        "import sys, spool; print('numpy' in sys.modules, 'spool.func' in sys.modules); spool.func.grad; spool.nn"
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_keyboard_interrupt_during_waits():
    done = run_python("""
        import os, signal, threading, spool
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        x = spool.randn(700, 700)
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            for _ in range(5000):
                y = (x @ x).sum().item()
        except KeyboardInterrupt:
            print("interrupted", (spool.ones(2) + 1).tolist())
    """)
    assert done.stdout.startswith("interrupted [2.0, 2.0]"), done.stderr


def test_signals_in_the_middle_of_products():
    done = run_python(
        """
        import signal, spool
        signal.signal(signal.SIGALRM, lambda *_: None)
        x = spool.randn(400, 700)
        wanted = (x @ x.t()).tolist()
        signal.setitimer(signal.ITIMER_REAL, 5e-4, 5e-4)
        results = [x @ x.t() for _ in range(100)]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(all(y.tolist() == wanted for y in results))
    """,
        SPOOL_LAUNCH_BLOCKING="1",
    )
    assert done.stdout == "True\n", done.stderr


def test_an_index_is_checked_at_the_call_of_an_op_that_runs_later():
    done = run_python(
        """
        import numpy as np, spool
        x, index = spool.randn(600, 600), spool.tensor(np.zeros((600, 1), np.int64))
        before = spool.launch.stats()
        y = (x @ x).gather(1, index)
        after = spool.launch.stats()
        print(after["inline_runs"] - before["inline_runs"], after["synchronizations"] - before["synchronizations"])
        z = x @ x
        try:
            z.gather(1, index + 600)
        except IndexError as error:
            print(error)
        print((y.numpy() == z.numpy()[:, :1]).all())
    """,
        SPOOL_QUEUE_MIN_US="100",
    )
    assert done.stdout.splitlines() == [
        "0 0",
        "gather: index 600 is out of range for dimension 1 of size 600: indices go from -600 to 599",
        "True",
    ], done.stderr


def test_exit_with_live_tensors_and_queued_work():
    code = """
        import spool, numpy as np
        x = spool.randn(300, 300, requires_grad=True)
        keep = spool.from_numpy(np.ones(5))
        hook = x.register_hook(lambda g: print(keep))
        y = x @ x @ x
    """
    for extra in ({}, {"SPOOL_QUEUE_MIN_US": "0"}):
        done = run_python(code, **extra)
        assert done.returncode == 0, done.stderr


def test_messages_name_arguments_of_wrong_kind():
    assert (
        str(raised(lambda: spool.from_numpy([1])))
        == "from_numpy: array must be a NumPy array or another buffer, not list"
    )
    assert "not numpy.ndarray" in str(raised(lambda: spool.autograd.grad([np.ones(1)], x23)))
