"""The op table's samples as calls: tensors made, the op called by its public name, PyTorch's answer beside it."""

import json
import os
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import spool

RANDOM = {  # ops whose values no two calls share
    "rand",
    "randn",
    "randint",
    "randint.upto",
    "bernoulli",
    "bernoulli.p",
    "uniform",
    "normal",
    "dropout",
    "dropout.train",
    "normal.tensors",
    "normal.mean",
    "normal.std",
    "normal.sized",
    "exponential",
    "geometric",
    "log_normal",
    "cauchy",
    "random",
    "random.upto",
    "random.range",
    "rand_like",
    "randn_like",
    "randint_like",
    "randint_like.upto",
    "randperm",
    "randperm.whole",
    "multinomial",
}
UNSET = {"empty"}  # ops whose values mean nothing
YIELDS_COMPLEX = {"complex", "polar", "view_as_complex"}  # whatever goes in
GATHERING = {  # ops that gather at places which they compute: these are checked between two regions
    "mode",
    "nanmedian",
    "nanmedian.dim",
    "quantile",
    "quantile.number",
    "nanquantile",
    "nanquantile.number",
}
READING = {  # ops whose result depends on values that they read
    "masked_select",
    "masked_scatter",
    "multinomial",
    "nonzero",
    "argwhere",
    "unique",
    "unique_consecutive",
    "bincount",
    "histc",
    "repeat_interleave.each",
    "repeat_interleave.counts",
}
COMPLEX = {"float32": np.complex64, "float64": np.complex128}
FULL = os.environ.get("SPOOL_TEST_FULL") == "1"


@dataclass
class Sample:
    """One argument list of one op."""

    op: str
    entry: dict
    text: str
    args: list
    kwargs: dict = field(default_factory=dict)
    complex: bool = False  # floating tensors get an imaginary part

    @property
    def id(self):
        return f"{self.op}({self.text})" + (" complex" if self.complex else "")

    @property
    def differentiable(self):
        """Positions of the arguments that a gradient flows to."""
        return self.entry["differentiable"]


# Ops with the number on the left, as operators.
REFLECTED = {
    "sub": lambda x, y: y - x,
    "div": lambda x, y: y / x,
    "pow": lambda x, y: y**x,
    "floor_divide": lambda x, y: y // x,
    "remainder": lambda x, y: y % x,
    "bitwise_left_shift": lambda x, y: y << x,
    "bitwise_right_shift": lambda x, y: y >> x,
}


def load():
    """All samples; the first one of each op that takes complex numbers once more, with such numbers."""
    table = json.loads(Path(spool.__file__).with_name("_samples.json").read_text())
    samples = []
    for entry in table["ops"]:
        for sample in entry["samples"]:
            samples.append(
                Sample(entry["name"], entry, sample["text"], sample["args"], sample["kwargs"])
            )
        if entry["complex"] and entry["family"] != "complex":
            samples += [replace(s, complex=True) for s in samples[-len(entry["samples"]) :][:1]]
    return samples


def has_complex(sample):
    """Whether complex numbers go in or come out, which ONNX files and narrow dtypes do not have."""
    args, _ = arrays_of(sample)
    kinds = {tensor_at(args, p).dtype.kind for p in tensor_positions(args)}
    return "c" in kinds or sample.op in YIELDS_COMPLEX


def is_tensor(spec):
    return isinstance(spec, dict) and "tensor" in spec


def make_array(spec, rng, dtype):
    """The NumPy array a tensor argument stands for; floating ones in `dtype`."""
    return np.asarray(drawn(spec, rng, dtype))


def drawn(spec, rng, dtype):
    kind = spec["tensor"]
    if kind == "data":
        return np.array(
            spec["values"], dtype=spec["dtype"] if spec["dtype"] != "float32" else dtype
        )
    shape = tuple(spec["shape"])
    if kind == "int64":
        return rng.integers(spec["low"], spec["high"], shape)
    if kind == "boolean":
        return rng.random(shape) < 0.5
    if kind == "distinct":
        count = int(np.prod(shape))
        grid = rng.uniform(0.01, 0.09)  # of its own, so that two tensors do not tie either
        return (rng.permutation(count).reshape(shape) * 0.1 - 0.05 * count + grid).astype(dtype)
    if kind == "positive":
        return (rng.random(shape) + 0.5).astype(dtype)
    if kind == "unit":
        return (rng.random(shape) * 0.8 + 0.1).astype(dtype)
    if kind == "complex64":
        parts = rng.normal(size=(2, *shape))
        return (parts[0] + 1j * parts[1]).astype(COMPLEX[dtype])
    return np.asarray(rng.normal(size=shape)).astype(dtype)


def normal_like(rng, array):
    """Normal numbers, complex ones for complex ones, in float64's precision."""
    parts = [np.asarray(rng.normal(size=array.shape)) for _ in range(1 + (array.dtype.kind == "c"))]
    return parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]


def arrays_of(sample, dtype="float32"):
    """The sample's arguments with arrays in place of tensor specs: (args, kwargs)."""
    rng = np.random.default_rng(zlib.crc32(sample.id.encode()))

    def one(spec):
        array = make_array(spec, rng, dtype)
        if sample.complex and array.dtype.kind == "f":
            return np.asarray(array + 1j * rng.uniform(-1, 1, array.shape)).astype(COMPLEX[dtype])
        return array

    def made(value):
        if is_tensor(value):
            return one(value)
        if isinstance(value, list) and value and all(is_tensor(v) for v in value):
            return [one(v) for v in value]
        return value

    return [made(v) for v in sample.args], {k: made(v) for k, v in sample.kwargs.items()}


def to_spool(value):
    if isinstance(value, np.ndarray):
        return spool.tensor(value)
    if is_list(value):
        return [spool.tensor(v) for v in value]
    return value


def python_kwargs(kwargs, library):
    """Keyword arguments with arrays as the library's tensors, and names of dtypes as its dtypes."""
    return {k: in_library(k, v, library) for k, v in kwargs.items()}


def in_library(name, value, library):
    if isinstance(value, np.ndarray):
        return library.tensor(value)
    return getattr(library, value) if name == "dtype" and isinstance(value, str) else value


def caller(sample):
    """The op as a function of its arguments, through the name that users call it by."""
    name, variants = sample.entry["python"], sample.entry["variants"]
    if sample.op.endswith(".rscalar"):
        return REFLECTED[name]
    if "function" in variants:
        return getattr(spool, name, None) or getattr(spool._C, name)  # _C: in Python by other means
    if "method" in variants:
        return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)
    return lambda x, *args, **kwargs: getattr(x.clone(), name + "_")(*args, **kwargs)


def run(sample, args, kwargs):
    return caller(sample)(*args, **python_kwargs(kwargs, spool))


def is_list(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], np.ndarray)


def tensor_positions(args):
    """Where the tensors among the arguments are: (argument, place in it if that is a list, else None)."""
    found = []
    for i, value in enumerate(args):
        if isinstance(value, np.ndarray):
            found.append((i, None))
        elif is_list(value):
            found += [(i, k) for k in range(len(value))]
    return found


def float_positions(args):
    """Where the floating and complex tensors among the arguments are."""
    return [p for p in tensor_positions(args) if tensor_at(args, p).dtype.kind in "fc"]


def tensor_at(args, position):
    i, k = position
    return args[i] if k is None else args[i][k]


def with_tensors(args, positions, values, convert=to_spool):
    """The arguments as spool's, or what else `convert` makes of them, with these values at these positions."""
    full = list(map(convert, args))
    for (i, k), value in zip(positions, values):
        if k is None:
            full[i] = value
        else:
            full[i][k] = value
    return full


def bits(value):
    return [(t.dtype, tuple(t.shape), t.detach().numpy().tobytes()) for t in outputs(value)]


def outputs(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]
