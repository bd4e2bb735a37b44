"""What one small op costs from Python: Spool, NumPy, PyTorch and JAX in one process on one core.

The table gives microseconds a call (best of the rounds) and Spool's share of PyTorch's time. With --instructions it also
gives callgrind's instructions an op, which do not depend on how busy the machine is.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys

import numpy as np
from timing import best_of, machine

os.environ["SPOOL_HOT"] = "0"  # a hot loop would drop results that nobody reads

import spool  # noqa: E402

# What is required of each case: Spool's share of PyTorch's time.
GOALS = {
    "a + b": 0.15,
    "a * 2.0": 0.15,
    "a @ b": 0.2,
    "recorded a + b": 0.2,
    "(x*b).sum() backward": 0.12,
    "20 dependent adds": 0.15,
    "a[1:3]": 0.25,
    "a.reshape(64)": 0.25,
    "a.T + b (strided)": 0.15,
    "a + row (broadcast)": 0.15,
    "5x7 a + b": 0.15,
    "100x100 a + b": None,
    "float64 a + b": 0.15,
    "int64 a + b": 0.15,
    "exp": 0.15,
    "sum": None,
}


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def chain(a, b):
    y = a
    for _ in range(20):
        y = y + b
    return y


def cases_of(lib, make, grad=None):
    """name -> callable for one library; make(shape, dtype) yields its array, grad(x) a leaf that records."""
    a, b = make((8, 8), "float32"), make((8, 8), "float32")
    row = make((8,), "float32")
    odd, odd2 = make((5, 7), "float32"), make((5, 7), "float32")
    big, big2 = make((100, 100), "float32"), make((100, 100), "float32")
    d, d2 = make((8, 8), "float64"), make((8, 8), "float64")
    i, i2 = make((8, 8), "int64"), make((8, 8), "int64")
    exp = lib.exp
    cases = {
        "a + b": lambda: a + b,
        "a * 2.0": lambda: a * 2.0,
        "a @ b": lambda: a @ b,
        "20 dependent adds": lambda: chain(a, b),
        "a[1:3]": lambda: a[1:3],
        "a.reshape(64)": lambda: a.reshape(64),
        "a.T + b (strided)": lambda: a.T + b,
        "a + row (broadcast)": lambda: a + row,
        "5x7 a + b": lambda: odd + odd2,
        "100x100 a + b": lambda: big + big2,
        "float64 a + b": lambda: d + d2,
        "int64 a + b": lambda: i + i2,
        "exp": lambda: exp(a),
        "sum": lambda: a.sum(),
    }
    if grad is not None:
        x = grad(make((8, 8), "float32"))

        def backward():
            (x * b).sum().backward()
            x.grad = None

        cases["recorded a + b"] = lambda: x + b
        cases["(x*b).sum() backward"] = backward
    return cases


def numbers(shape, dtype):
    return (np.random.default_rng(0).random(shape) * 4).astype(dtype)


def libraries():
    found = {
        "spool": cases_of(
            spool, lambda s, d: spool.tensor(numbers(s, d)), lambda x: x.requires_grad_()
        )
    }
    found["numpy"] = cases_of(np, numbers)
    torch, jax = optional("torch"), optional("jax")
    if torch is not None:
        torch.set_num_threads(1)
        found["torch"] = cases_of(
            torch, lambda s, d: torch.from_numpy(numbers(s, d)), lambda x: x.requires_grad_()
        )
    if jax is not None:
        import jax.numpy as jnp

        found["jax"] = cases_of(jnp, lambda s, d: jnp.asarray(numbers(s, d)))
    return found


def instructions(case, library="spool"):
    """Callgrind instructions of one call: the difference of two loop lengths, so that start-up cancels."""
    counts = []
    for loops in (1000, 3000):
        run = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                sys.executable,
                __file__,
                "--loop",
                case,
                "--library",
                library,
                "--count",
                str(loops),
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        counts.append(int(re.search(r"Collected : (\d+)", run.stderr).group(1)))
    return (counts[1] - counts[0]) / 2000


def loop(options):
    make = {"spool": lambda s, d: spool.tensor(numbers(s, d))}[options.library]
    call = cases_of(spool, make, lambda x: x.requires_grad_())[options.loop]
    for _ in range(options.count):
        call()


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="also count instructions (needs valgrind; minutes)",
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--core", type=int, default=None, help="core to pin to (default: the last usable one)"
    )
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    parser.add_argument("--library", default="spool", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    if options.loop:
        return loop(options)
    core = max(os.sched_getaffinity(0)) if options.core is None else options.core
    os.sched_setaffinity(0, {core})
    spool.set_num_threads(1)
    found = libraries()
    names = list(found)
    print(
        f"{machine()}; pinned to core {core}; float32 8x8 unless said; us a call, best of {options.rounds} rounds"
    )
    columns = "".join(f"{name:>9s}" for name in names)
    print(
        f"{'':24s}{columns}{'of torch':>10s}{'goal':>7s}"
        + (f"{'instr.':>9s}" if options.instructions else "")
    )
    missed = 0
    for case, goal in GOALS.items():
        best = best_of({name: found[name].get(case) for name in names}, options.rounds)
        share = best["spool"] / best["torch"] if "torch" in best else float("nan")
        missed += goal is not None and not share <= goal
        row = "".join(
            f"{best[name] * 1e6:9.3f}" if name in best else f"{'-':>9s}" for name in names
        )
        text = f"{case:24s}{row}{share:10.3f}" + (f"{goal:7.2f}" if goal else f"{'':7s}")
        if options.instructions:
            text += f"{instructions(case):9.0f}"
        print(text + ("  over" if goal is not None and not share <= goal else ""))
    print(f"{missed} cases over their goal" if missed else "all cases within their goals")
    return 0


if __name__ == "__main__":
    sys.exit(main())
