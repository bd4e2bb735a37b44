"""Derivatives of higher order: Hessians, Hessian-vector products, n-th derivatives; and what backward costs beside forward.

Each function is written once for Spool, PyTorch and JAX, from the same numbers. A line gives milliseconds a call, best of the
rounds, and Spool's shares: of eager PyTorch's time (the better of torch.func and torch.autograd), and of JAX's compiled one.
`direct` are hessian(), hvp() and nth_derivative(), `nested` the same by nested grad. First calls are listed by themselves; with
--compile torch.compile is among the peers, which takes minutes.
"""

import argparse
import importlib
import os
import sys
import time

os.environ["SPOOL_HOT"] = "0"  # a hot loop would drop results that nobody reads
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import best_of, machine  # noqa: E402
from train import NETS, Net  # noqa: E402

import spool  # noqa: E402

GOAL = 0.15  # of eager PyTorch's time, for the direct ways
RATIO_GOAL = 2.2  # backward, in forwards


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


jax = optional("jax")
ARRAYS = {spool: spool.tensor, torch: torch.tensor}
FUNC = {spool: spool.func, torch: torch.func}
MATH = {spool: spool, torch: torch}
if jax:
    ARRAYS[jax], FUNC[jax], MATH[jax] = jax.numpy.array, jax, jax.numpy


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(lib, sizes):
    pairs = list(zip(sizes, sizes[1:]))
    return [ARRAYS[lib](random(i, *pair) * (0.7 / pair[0] ** 0.5)) for i, pair in enumerate(pairs)]


def network(lib, sizes):
    """Layers of tanh but for the last."""
    layers, tanh = weights(lib, sizes), MATH[lib].tanh

    def f(x):
        for w in layers[:-1]:
            x = tanh(x @ w)
        return x @ layers[-1]

    return f


def nested(lib, f, n):
    """The n-th derivative, elementwise, by grads of sums."""
    for _ in range(n):
        f = (lambda g: FUNC[lib].grad(lambda x: g(x).sum()))(f)
    return f


def by_create_graph(f, n):
    """The same by torch.autograd: each order records the one before."""

    def derivative(x):
        x = x.detach().requires_grad_()
        y = f(x)
        for k in range(n):
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=k < n - 1)
        return y

    return derivative


# ---- cases: name -> (ways of each library, of the array that they take) -----------------------------------------------------


def hessian_case(width, depth):
    """The Hessian of a scalar function of a vector."""

    def ways(lib):
        net = network(lib, [width] * depth + [1])
        f = lambda x: net(x).sum()  # noqa: E731
        func = FUNC[lib]
        found = {"func": func.hessian(f)}
        if lib is torch:
            found["autograd"] = lambda x: torch.autograd.functional.hessian(f, x, vectorize=True)
        if lib is spool:
            found["nested"] = func.jacfwd(func.grad(f))
        return found

    return ways, random(9, width)


def hvp_case(batch, width, depth):
    """The Hessian of a loss over a batch, times a vector."""

    def ways(lib):
        net, v = network(lib, [width] * depth + [1]), ARRAYS[lib](random(8, batch, width))
        f = lambda x: (net(x) ** 2).sum()  # noqa: E731
        func = FUNC[lib]
        forward_over_reverse = lambda x: func.jvp(func.grad(f), (x,), (v,))[1]  # noqa: E731
        if lib is torch:
            return {
                "func": forward_over_reverse,
                "autograd": lambda x: torch.autograd.functional.hvp(f, x, v)[1],
            }
        if lib is spool:
            return {"func": lambda x: func.hvp(f, (x,), (v,)), "nested": forward_over_reverse}
        return {"func": forward_over_reverse}

    return ways, random(9, batch, width)


def nth_case(make, x, n):
    """The n-th derivative of a function of one number, at many points."""

    def ways(lib):
        f = make(lib)
        found = {"func": nested(lib, f, n)}
        if lib is torch:
            found["autograd"] = by_create_graph(f, n)
        if lib is spool:
            found = {"func": spool.func.nth_derivative(f, n)}
            if n <= 6:
                found["nested"] = nested(lib, f, n)
        return found

    return ways, x


def sine_exponential(lib):
    sin, exp = MATH[lib].sin, MATH[lib].exp
    return lambda x: sin(x) * exp(x)


def cases():
    found = {}
    for width, depth in ((8, 3), (32, 2), (32, 3), (32, 6), (128, 3)):
        found[f"hessian {width}x{depth}"] = hessian_case(width, depth)
    for batch, width, depth in ((64, 32, 2), (64, 32, 4), (64, 128, 2), (256, 64, 3)):
        found[f"hvp {batch} {width}x{depth}"] = hvp_case(batch, width, depth)
    points = np.linspace(0, 1, 1000)
    for n in (2, 3, 4, 6, 8):
        found[f"nth {n} sin*exp"] = nth_case(sine_exponential, points, n)
    for width, depth in ((32, 2), (64, 3)):
        make = (lambda sizes: lambda lib: network(lib, sizes))([1] + [width] * (depth - 1) + [1])
        for n in (2, 4, 6, 8):
            found[f"nth {n} {width}x{depth}"] = nth_case(make, random(7, 64, 1), n)
    return found


# ---- measuring -------------------------------------------------------------------------------------------------------------


def ready(lib, function, x):
    """A call that ends when its result is there."""
    if lib is spool:
        return lambda: (function(x), spool.synchronize())
    if lib is torch:
        return lambda: function(x)
    return lambda: function(x).block_until_ready()


def first_call(lib, function, x):
    start = time.perf_counter()
    ready(lib, function, x)()
    return time.perf_counter() - start


def slow_for_torch(name):
    """Nested orders above 6, which double PyTorch's and JAX's work each time."""
    return name.startswith(("nth 8",))


def contestants(case, name, options):
    """name -> (library, function, array), and seconds of first calls."""
    ways, x = case
    here = {lib: ARRAYS[lib](x) for lib in ARRAYS}
    mine, theirs = ways(spool), ways(torch)
    found = {"direct": (spool, mine["func"]), "jit": (spool, spool.jit(mine["func"]))}
    if "nested" in mine:
        found["nested"] = (spool, mine["nested"])
    if not slow_for_torch(name):
        found |= {
            "torch.func": (torch, theirs["func"]),
            "torch.autograd": (torch, theirs["autograd"]),
        }
    if options.compile and not slow_for_torch(name):
        found["torch.compile"] = (torch, torch.compile(theirs["func"]))
    if jax and not slow_for_torch(name):
        found["jax"] = (jax, jax.jit(ways(jax)["func"]))
    return {key: (lib, f, here[lib]) for key, (lib, f) in found.items()}


def differ(found):
    """Which ways do not agree with Spool's direct one."""
    values = {key: np.asarray(f(x)) for key, (_, f, x) in found.items()}
    scale = np.abs(values["direct"]).max()
    return [k for k, v in values.items() if not np.abs(v - values["direct"]).max() <= 1e-3 * scale]


COLUMNS = ("direct", "jit", "nested", "torch.func", "torch.autograd", "torch.compile", "jax")


def compare(name, case, options):
    found = contestants(case, name, options)
    first = {
        key: first_call(*found[key]) for key in ("jit", "torch.compile", "jax") if key in found
    }
    wrong = differ(found)
    best = best_of(
        {key: ready(*parts) for key, parts in found.items()}, options.rounds, options.seconds
    )
    peers = [best[key] for key in ("torch.func", "torch.autograd") if key in best]
    shares = [
        best["direct"] / min(peers) if peers else None,
        best["jit"] / best["jax"] if "jax" in best else None,
        first["jit"] / first["jax"] if "jax" in first else None,
    ]
    times = "".join(f"{best[k] * 1e3:15.4f}" if k in best else f"{'-':>15s}" for k in COLUMNS)
    text = "".join(f"{s:13.3f}" if s is not None else f"{'-':>13s}" for s in shares)
    print(f"{name:18s}{times}{text}" + (f"   differ: {wrong}" if wrong else ""), flush=True)
    return shares[0]


def backward_ratio(name, options):
    """Milliseconds of forward and of backward, as the step of training takes them."""
    lib = spool
    net = Net(lib)
    loss, _ = NETS[name](net)
    loss()
    params = list(net.made.values())

    def forward():
        with lib.no_grad():
            loss()
        lib.synchronize()

    def both():
        loss().backward()
        for p in params:
            p.grad = None
        lib.synchronize()

    best = best_of({"forward": forward, "both": both}, options.rounds, options.seconds)
    ratio = (best["both"] - best["forward"]) / best["forward"]
    print(f"{name:18s}{best['forward'] * 1e3:15.3f}{best['both'] * 1e3:15.3f}{ratio:15.3f}")
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="case", help="beginnings of names; all if none")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.02, help="of a round and way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spool.set_num_threads(1)
    jax_version = f"JAX {jax.__version__}" if jax else "no JAX"
    print(f"{machine()}; 1 thread; ms a call; PyTorch {torch.__version__}, {jax_version}")
    heads = "".join(f"{c:>15s}" for c in COLUMNS)
    print(f"{'':18s}{heads}{'direct/torch':>13s}{'jit/jax':>13s}{'first/jax':>13s}")
    chosen = {
        name: case
        for name, case in cases().items()
        if not options.cases or name.startswith(tuple(options.cases))
    }
    shares = [compare(name, case, options) for name, case in chosen.items()]
    shares = [s for s in shares if s is not None]
    if shares:
        above = sum(s > GOAL for s in shares)
        print(f"{len(shares) - above} of {len(shares)} at most {GOAL} of eager PyTorch's time")
    if not options.cases or "backward" in options.cases:
        print(f"{'':18s}{'forward':>15s}{'with backward':>15s}{'ratio':>15s}   goal {RATIO_GOAL}")
        for name in ("lenet", "gpt"):
            backward_ratio(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
