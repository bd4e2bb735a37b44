"""Every op of the table that PyTorch has by the same name, on small and large tensors: Spool's share of PyTorch's time.

Arguments are those of the op's first sample that can be enlarged: each size other than 1 becomes the same larger one, so that
what fitted together still does (64 elements a tensor, then about a million); numbers stay as they are. Ops that take complex
numbers are run with complex64, too, as `<op> complex`. Convolutions have sizes of their own. Both libraries get the same
arguments and threads, and their results are compared. Views and ops that only one of the two has are left out.
"""

import argparse
import fnmatch
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from timing import best_of, machine

os.environ["SPOOL_HOT"] = "0"  # a hot loop would drop results that nobody reads

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

import peers  # noqa: E402
import samples  # noqa: E402

import spool  # noqa: E402

# Sizes by the rank of the largest tensor.
SIZES = {"small": {1: 64, 2: 8, 3: 4, 4: 3}, "large": {1: 1 << 20, 2: 1024, 3: 101, 4: 32}}
GOALS = {"small": 0.4, "large": 0.9}
WORST = 2.0
# Input and weight, for which one size is not any other.
CONVOLUTIONS = {
    "conv1d": {"small": ((1, 2, 32), (2, 2, 3)), "large": ((16, 32, 2048), (32, 32, 3))},
    "conv2d": {"small": ((1, 1, 8, 8), (1, 1, 3, 3)), "large": ((8, 32, 64, 64), (32, 32, 3, 3))},
}
CONVOLUTIONS.update({name.replace("v", "v_transpose"): v for name, v in CONVOLUTIONS.items()})
# Of numbers in [0, 1) that are all the op's own affair: nothing to compare, and dropout would return its input at p = 0.
RANDOM = {
    "rand": lambda library, x: library.rand(len(x)),
    "randn": lambda library, x: library.randn(len(x)),
    "randint": lambda library, x: library.randint(0, 100, (len(x),)),
    "randperm": lambda library, x: library.randperm(len(x)),
    "dropout": lambda library, x: library.nn.functional.dropout(x, 0.5, True),
    "bernoulli": lambda library, x: library.bernoulli(x),
    "bernoulli.p": lambda library, x: x.bernoulli_(0.25),
    "uniform": lambda library, x: x.uniform_(),
    "normal": lambda library, x: x.normal_(),
    "exponential": lambda library, x: x.exponential_(),
    "multinomial": lambda library, x: library.multinomial(x, 16, True),
}
LARGEST = 1 << 24  # elements of a result
# Names that mean something else in PyTorch, where conj is a view that computes nothing.
LEFT_OUT = {"convolution", "copy", "cast", "dropout.train", "conj", "adjoint"}


def tensor_specs(sample):
    for value in [*sample.args, *sample.kwargs.values()]:
        if samples.is_tensor(value):
            yield value
        elif isinstance(value, list):
            yield from (v for v in value if samples.is_tensor(v))


def enlarged(spec, size, known):
    """The spec with each size other than 1 replaced; integers below one of the known sizes go up to the new one."""
    new = {**spec, "shape": [n if n == 1 else size for n in spec["shape"]]}
    if spec["tensor"] == "int64" and spec["high"] in known:
        new["high"] = size
    return new


def mapped(value, change):
    if samples.is_tensor(value):
        return change(value)
    if isinstance(value, list) and any(samples.is_tensor(v) for v in value):
        return [mapped(v, change) for v in value]
    return value


def usable(sample):
    specs = list(tensor_specs(sample))
    known = specs and all(spec["tensor"] != "data" for spec in specs)
    return known and all(spec["shape"] and 0 not in spec["shape"] for spec in specs)


def arguments(sample, kind):
    """NumPy arrays and numbers: (args, kwargs); None where the op does not admit any."""
    rng = np.random.default_rng(0)
    if sample.op in CONVOLUTIONS:
        return [rng.normal(size=s).astype("f4") for s in CONVOLUTIONS[sample.op][kind]], {}
    rank = max(len(spec["shape"]) for spec in tensor_specs(sample))
    size = SIZES[kind].get(rank)
    known = {n for spec in tensor_specs(sample) for n in spec["shape"]} - {1}
    if size is None:
        return None

    def change(spec):
        array = samples.make_array(enlarged(spec, size, known), rng, "float32")
        if not (sample.complex and array.dtype == np.float32):
            return array
        return array + 1j * rng.normal(size=array.shape).astype("f4")

    args = [mapped(v, change) for v in sample.args]
    return args, {k: mapped(v, change) for k, v in sample.kwargs.items()}


def converted(values, tensor):
    def convert(value):
        if isinstance(value, np.ndarray):
            return tensor(value)
        if is_arrays(value):
            return [tensor(v) for v in value]
        return value

    args, kwargs = values
    return [convert(v) for v in args], {k: convert(v) for k, v in kwargs.items()}


def results(value):
    values = value if isinstance(value, (tuple, list)) else [value]
    values = [v.resolve_conj() if isinstance(v, torch.Tensor) else v for v in values]
    return [v.numpy() for v in values if hasattr(v, "numpy")]


def same(ours, theirs):
    ours, theirs = results(ours), results(theirs)
    return len(ours) == len(theirs) and all(
        a.shape == b.shape
        and np.allclose(a.astype(complex), b.astype(complex), 1e-2, 1e-3, equal_nan=True)
        for a, b in zip(ours, theirs)
    )


def too_large(sample, kind):
    """Whether the result outgrows the arguments, as that of outer does: told by a smaller one."""
    if kind == "small" or sample.op in CONVOLUTIONS:
        return False
    small, large = (arguments(sample, k) for k in ("small", "large"))
    args, kwargs = converted(small, spool.tensor)
    n = sum(r.size for r in results(run_plain(sample, args, kwargs)))
    before, after = (max(a.size for a in arrays(v)) for v in (small, large))
    return n > 4 * before and n * (after / before) ** 2 > LARGEST


def arrays(values):
    for value in [*values[0], *values[1].values()]:
        yield from [value] if isinstance(value, np.ndarray) else value if is_arrays(value) else []


def is_arrays(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], np.ndarray)


def run_plain(sample, args, kwargs):
    return samples.caller(sample)(*args, **samples.python_kwargs(kwargs, spool))


def random_calls(op, kind):
    values = np.random.default_rng(0).random(SIZES[kind][1], "f4")
    ours, theirs = spool.tensor(values), torch.tensor(values)

    def waited():
        result = RANDOM[op](spool, ours)
        spool.synchronize()
        return result

    return {"spool": waited, "torch": lambda: RANDOM[op](torch, theirs)}, ""


def calls(sample, kind):
    """Both libraries' calls, or why there are none."""
    if sample.op in RANDOM:
        return random_calls(sample.op, kind)
    other = peers.by_name(sample.entry["python"])
    values = arguments(sample, kind)
    if other is None:
        return None, "PyTorch has no such name"
    if values is None:
        return None, "of an unusual rank"
    own = samples.caller(sample)
    try:
        if too_large(sample, kind):
            return None, "the result would be too large"
        args, kwargs = converted(values, spool.tensor)
        peer_args, peer_kwargs = converted(values, torch.from_numpy)
        kwargs = samples.python_kwargs(kwargs, spool)
        peer_kwargs = samples.python_kwargs(peer_kwargs, torch)
        ours = own(*args, **kwargs)
        theirs = other(*peer_args, **peer_kwargs)
    except Exception as error:  # whatever a library does not take is not comparable
        return None, f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    if not same(ours, theirs):
        return None, "the results differ"

    def plain():
        return own(*args, **kwargs)

    def waited():
        result = own(*args, **kwargs)
        spool.synchronize()
        return result

    return {
        "spool": plain if kind == "small" else waited,
        "torch": lambda: other(*peer_args, **peer_kwargs),
    }, ""


def cases():
    """op -> its usable samples, in table order."""
    found = {}
    for sample in samples.load():
        entry = sample.entry
        if sample.op.endswith(".rscalar") or sample.op in LEFT_OUT:
            continue
        if sample.complex and (sample.op in RANDOM or sample.op in CONVOLUTIONS):
            continue
        if "view" in entry["flags"]:
            continue
        if {"function", "method"} & set(entry["variants"]) or sample.op in RANDOM:
            tries = found.setdefault(sample.op + " complex" * sample.complex, [])
            if usable(sample) or sample.op in RANDOM:
                tries.append(sample)
    return found


def measure(op, tries, kind, options):
    """(seconds of Spool, of PyTorch), or why not."""
    why = "no sample that can be enlarged"
    for sample in tries:
        both, reason = calls(sample, kind)
        if both:
            best = best_of(both, options.rounds, options.seconds)
            return (best["spool"], best["torch"]), ""
        why = reason
    return None, why


def report(kind, ratios):
    if not ratios:
        return
    values = sorted(ratios.values())
    median, over = statistics.median(values), {k: v for k, v in ratios.items() if v > WORST}
    print(
        f"{kind}: {len(values)} ops, median {median:.3f} (goal {GOALS[kind]}), worst {values[-1]:.2f} (goal {WORST:g})"
    )
    for op in sorted(over, key=over.get, reverse=True):
        print(f"    {op:32s}{over[op]:8.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ops", nargs="*", metavar="op", help="names, or patterns such as 'arg*'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.005, help="of a round and library")
    parser.add_argument("--sizes", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--left-out", action="store_true", help="also say what is left out and why")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spool.set_num_threads(options.threads)
    kinds = list(SIZES) if options.sizes == "both" else [options.sizes]
    print(
        f"{machine()}; {options.threads} threads; float32; us a call, best of {options.rounds} rounds; "
        f"PyTorch {torch.__version__}"
    )
    print(f"{'':32s}" + "".join(f"{kind:>11s}{'torch':>11s}{'ratio':>8s}" for kind in kinds))
    ratios, left_out = {kind: {} for kind in kinds}, {}
    for op, tries in cases().items():
        if options.ops and not any(fnmatch.fnmatch(op, pattern) for pattern in options.ops):
            continue
        row = f"{op:32s}"
        for kind in kinds:
            times, why = measure(op, tries, kind, options)
            if times is None:
                left_out[op] = why
                row += f"{'-':>11s}{'-':>11s}{'-':>8s}"
                continue
            ratios[kind][op] = times[0] / times[1]
            row += f"{times[0] * 1e6:11.2f}{times[1] * 1e6:11.2f}{ratios[kind][op]:8.3f}"
        if any(op in found for found in ratios.values()):
            print(row, flush=True)
    for kind in kinds:
        report(kind, ratios[kind])
    for op, why in left_out.items() if options.left_out else ():
        print(f"left out: {op}: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
