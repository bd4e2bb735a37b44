"""Random programs to differentiate, over the op table, for Spool and PyTorch alike.

``python random_gradients.py 17`` prints the program of seed 17 as a script that runs by itself and prints its gradients.

A program takes a few leaves to one number. Its statements are ops of the table with the arguments of their samples, whose
floating tensors are made from variables that are there (by views, indexing, broadcasting, and functions that keep them where
the op is smooth), custom functions, and blocks of writes through views and at indices. Each statement runs as it is written; one whose results
are too large, infinite or of too few digits is taken out again. What is drawn depends on the seed and on Spool's values alone.
"""

import argparse
import random
from dataclasses import dataclass, field
from math import inf, nan  # noqa: F401 - of the programs

import numpy as np
import peers
import torch
from samples import RANDOM, drawn, is_tensor, load
from torch.nn.attention import SDPBackend, sdpa_kernel

import spool

SAMPLES = [s for s in load() if s.differentiable and s.op not in RANDOM]
LARGE = 256  # elements of an argument, and
HIGH = 100.0  # magnitude of a result, above which it is not taken
DENSE = {"as_strided", "as_strided_scatter", "view", "view_as", "view_as_complex"}  # take no others
SHAPES = [(3, 4), (4,), (2, 3), (1, 4), (), (2, 2, 3), (6,)]

FUNCTIONS = '''
class Product(lib.autograd.Function):
    """Two results, one of which is saved, and an argument that is no tensor."""

    @staticmethod
    def forward(x, y, power):
        return x * y**power, (x * 0.3).exp()

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.power = inputs
        ctx.save_for_backward(x, y, output[1])
        ctx.save_for_forward(x, y, output[1])

    @staticmethod
    def backward(ctx, g, h):
        x, y, e = ctx.saved_tensors
        slope = ctx.power * y ** (ctx.power - 1)
        return g * y**ctx.power + h * e * 0.3, g * x * slope, None

    @staticmethod
    def jvp(ctx, tx, ty, t_power):
        x, y, e = ctx.saved_tensors
        slope = ctx.power * y ** (ctx.power - 1)
        return tx * y**ctx.power + ty * x * slope, tx * e * 0.3


class Tripled(lib.autograd.Function):
    """Writes its argument."""

    @staticmethod
    def forward(x):
        return x.mul_(3.0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_dirty(*inputs)

    @staticmethod
    def backward(ctx, g):
        return g * 3.0

    @staticmethod
    def jvp(ctx, t):
        return t.mul_(3.0) if lib.__name__ == "torch" else t * 3.0


class Same(lib.autograd.Function):
    """Returns a view of its argument."""

    @staticmethod
    def forward(x):
        return x.reshape(-1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shape = tuple(inputs[0].shape)

    @staticmethod
    def backward(ctx, g):
        return g.reshape(ctx.shape)

    @staticmethod
    def jvp(ctx, t):
        return t.reshape(-1)
'''


def elements(spec):
    return int(np.prod(np.shape(spec["values"]) if spec["tensor"] == "data" else spec["shape"]))


def specs_of(value):
    if is_tensor(value):
        return [value]
    return [v for v in value if is_tensor(v)] if isinstance(value, list) else []


def small(sample):
    values = [*sample.args, *sample.kwargs.values()]
    return all(elements(s) <= LARGE for v in values for s in specs_of(v))


def by_op():
    table = {}
    for sample in filter(small, SAMPLES):
        table.setdefault(sample.op, []).append(sample)
    return table


TABLE = by_op()


def literal(array):
    """The array as the text of a tensor; `lib` is the library."""
    dtype = f"lib.{array.dtype.name}"
    if array.size == 0:
        return f"lib.zeros({list(array.shape)}, dtype={dtype})"
    return f"lib.tensor({array.tolist()}, dtype={dtype})"


def contiguous(value):
    if isinstance(value, list):
        return [contiguous(v) for v in value]
    return value.contiguous() if isinstance(value, torch.Tensor) else value


@dataclass
class Program:
    """Lines for both libraries; `calls` are what the lines of PyTorch call by number."""

    seed: int
    leaves: dict = field(default_factory=dict)  # name: array
    lines: list = field(default_factory=list)  # (text for Spool, text for PyTorch)
    calls: list = field(default_factory=list)
    ops: set = field(default_factory=set)
    custom: set = field(default_factory=set)
    samples: list = field(default_factory=list)
    results: list = field(default_factory=list)
    whole: bool = True  # False: a part is detached, so that differences show more than the gradient
    code: dict = field(default_factory=dict)

    def body(self, place):
        return "\n".join("    " + line[place].replace("\n", "\n    ") for line in self.lines)

    def function(self, library):
        """The program as a function of its leaves, in the library's tensors; returns (number, results)."""
        name = library.__name__
        if name not in self.code:
            text = f"def program({', '.join(self.leaves)}):\n{self.body(int(library is torch))}\n"
            scope = {"lib": library, "call": self.call, "inf": inf, "nan": nan, "__name__": name}
            exec(FUNCTIONS, scope)
            exec(compile(text, f"<{name} {self.seed}>", "exec"), scope)
            self.code[name] = scope["program"]
        return self.code[name]

    def call(self, number, *args, **kwargs):
        """PyTorch's results. Dense tensors: some of its ops refuse others, and batch norm takes expanded weights for dense."""
        return peers.call(self.calls[number], [contiguous(a) for a in args], kwargs)

    def run(self, library, *tensors):
        if library is not torch:
            return self.function(library)(*tensors)
        with sdpa_kernel(SDPBackend.MATH):  # of its kernels, the one with a second derivative
            return self.function(library)(*tensors)

    def script(self):
        """Text that runs by itself."""
        made = "\n".join(
            f"{name} = {literal(array)}.requires_grad_()" for name, array in self.leaves.items()
        )
        names = ", ".join(self.leaves)
        uses = any(".apply(" in line[0] for line in self.lines)
        functions = f"\n{FUNCTIONS}" if uses else ""
        return (
            f'"""random_gradients.py, seed {self.seed}"""\nfrom math import inf, nan\n\nimport spool as lib\n{functions}\n\n'
            f"def program({names}):\n{self.body(0)}\n\n\n{made}\nloss, results = program({names})\n"
            f"print(loss)\nprint(lib.autograd.grad(loss, [{names}], allow_unused=True))\n"
        )


class Writer:
    """Grows one program and runs it along the way: `values` holds what each variable is."""

    def __init__(self, seed):
        self.random, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.program = Program(seed)
        self.values = {}
        self.scope = {"lib": spool, "inf": inf, "nan": nan, "__name__": "spool"}
        exec(FUNCTIONS, self.scope)
        self.count = 0
        for name in "abc"[: self.random.randrange(1, 4)]:
            array = self.numbers.normal(size=self.random.choice(SHAPES)) * 0.8
            self.program.leaves[name] = array = np.asarray(array)
            self.values[name] = self.scope[name] = spool.tensor(array, requires_grad=True)
        self.pending = []
        self.detaches = self.random.random() < 0.1

    # Lines: pending until the statement that they make up is taken.

    def line(self, text, for_torch=None):
        exec(compile(text, f"<seed {self.program.seed}>", "exec"), self.scope)
        self.pending.append((text, for_torch or text))

    def fresh(self, text, for_torch=None):
        """A new variable; its name."""
        name = f"t{self.count}"
        self.count += 1
        self.line(f"{name} = {text}", f"{name} = {for_torch or text}")
        return name

    def value(self, name):
        return self.scope[name]

    def take(self, names):
        """The pending lines become part of the program, the variables can be used; unless a value is out of bounds."""
        lines, self.pending = self.pending, []
        found = [self.scope[n] for n in names]
        if not all(sound(v) for v in found):
            return False
        self.program.lines += lines
        self.values.update(zip(names, found))
        return True

    # Arguments.

    def pick(self):
        return self.random.choice([n for n, v in self.values.items() if v.numel()])

    def real(self):
        """The name or text of some real variable."""
        name = self.pick()
        if not self.values[name].is_complex():
            return name
        return self.fresh(self.random.choice([f"{name}.real", f"{name}.imag * 1.0"]))

    def fitted(self, shape):
        """A real variable of that shape: by a view or an index of one that is there."""
        name = self.real()
        have, count = tuple(self.value(name).shape), int(np.prod(shape))
        n = self.value(name).numel()
        ways = [lambda: self.indexed(name, n, count, shape)]
        if have == tuple(shape):
            ways += [lambda: name] * 3
        if have == tuple(shape)[::-1] and len(shape) == 2:
            ways += [lambda: self.fresh(f"{name}.transpose(0, 1)")] * 2
        if expands(have, shape) and count:
            ways += [lambda: self.apart(self.fresh(f"{name}.expand({list(shape)})"))] * 2
        if n >= count:
            ways += [lambda: self.sliced(name, n, count, shape)] * 2
        return self.random.choice(ways)()

    def indexed(self, name, n, count, shape):
        places = [self.random.randrange(n) for _ in range(count)]
        index = literal(np.array(places, dtype=np.int64))
        return self.apart(self.fresh(f"{name}.reshape(-1)[{index}].reshape({list(shape)})"))

    def apart(self, name):
        """Elements that are there several times, told apart: ops have other derivatives at ties and where nothing varies."""
        shape = tuple(self.value(name).shape)
        if self.value(name).numel() < 2:
            return name
        factors = literal(self.numbers.uniform(0.6, 1.4, shape).round(3))
        return self.fresh(f"{name} * {factors}")

    def sliced(self, name, n, count, shape):
        step = self.random.choice([1, 2]) if n >= 2 * count else 1
        start = self.random.randrange(n - step * count + 1)
        part = f"{start}:{start + step * count}:{step}" if step > 1 else f"{start}:{start + count}"
        return self.fresh(f"{name}.reshape(-1)[{part}].reshape({list(shape)})")

    def tame(self, name):
        """The variable, made smaller if it is large."""
        value = self.value(name)
        if value.numel() and float(value.detach().abs().max()) > 2.5:
            return self.fresh(f"lib.tanh({name} * 0.5) * 1.5")
        return name if self.random.random() < 0.7 else self.fresh(f"{name} * {self.number()}")

    def number(self):
        return round(self.random.choice([-1, 1]) * self.random.uniform(0.3, 1.4), 3)

    def constant(self, spec, imaginary):
        array = np.asarray(drawn(spec, self.numbers, "float64"))
        if imaginary and array.dtype.kind == "f":
            array = array + 1j * self.numbers.uniform(-1, 1, array.shape)
        return self.fresh(literal(np.asarray(array)))

    def variable(self, spec, imaginary):
        """A tensor as the spec says, made from variables."""
        shape = np.shape(spec["values"]) if spec["tensor"] == "data" else tuple(spec["shape"])
        if imaginary or spec["tensor"] == "complex64":
            parts = self.of_kind(spec, shape), self.tame(self.fitted(shape))
            return self.fresh(f"lib.complex({parts[0]}, {parts[1]})")
        return self.of_kind(spec, shape)

    def of_kind(self, spec, shape):
        kind, name = spec["tensor"], self.fitted(shape)
        if kind == "positive":
            return self.fresh(f"lib.sigmoid({name}) + 0.5")
        if kind == "unit":
            return self.fresh(f"lib.sigmoid({name}) * 0.8 + 0.1")
        if kind in ("distinct", "data"):  # near values without ties, or what the sample is about
            base = self.constant(spec, False)
            return self.fresh(f"lib.tanh({name}) * 0.03 + {base}")
        return self.tame(name)

    def argument(self, sample, position, value):
        """The text of an argument."""
        specs = specs_of(value)
        if not specs:
            return repr(value)
        names = []
        for spec in specs:
            moves = position in sample.differentiable and spec["tensor"] not in ("int64", "boolean")
            moves = moves and (spec["tensor"] != "data" or spec["dtype"] == "float32")
            if moves and (not self.moved or self.random.random() < 0.8):
                self.moved = True
                name = self.variable(spec, sample.complex)
                names.append(self.dense(name) if sample.op in DENSE else name)
            else:
                names.append(self.constant(spec, sample.complex))
        return names[0] if is_tensor(value) else f"[{', '.join(names)}]"

    def dense(self, name):
        """In memory of its own, row by row, in PyTorch as well, whose elementwise ops keep strides."""
        shape = list(self.value(name).shape)
        return self.fresh(f"({name}.reshape(-1) * 1.0).reshape({shape})")

    def keyword(self, name, value):
        if is_tensor(value):
            return self.constant(value, False)
        return f"lib.{value}" if name == "dtype" and isinstance(value, str) else repr(value)

    # Statements.

    def op(self):
        """One op of the table; all are drawn alike."""
        sample = self.random.choice(TABLE[self.random.choice(list(TABLE))])
        self.moved = False
        args = [self.argument(sample, i, v) for i, v in enumerate(sample.args)]
        words = {k: self.keyword(k, v) for k, v in sample.kwargs.items()}
        if not self.moved:
            return
        number = len(self.program.calls)
        self.program.calls.append(sample)
        given = ", ".join([*args, *(f"{k}={v}" for k, v in words.items())])
        out = self.fresh(called(sample, args, given), f"call({number}, {given})")
        names = [out]
        made = self.value(out)
        if isinstance(made, (tuple, list)):
            names = [self.fresh(f"{out}[{i}]") for i in range(len(made))]
        else:
            self.pending[-1] = (self.pending[-1][0], self.pending[-1][1] + "[0]")
        kept = [n for n in names if kept_dtype(self.value(n))]
        if kept and self.take(kept):
            self.program.ops.add(sample.op)
            self.program.samples.append(sample)

    def in_place(self):
        """An op of the table that writes its first argument, through a view or not, or a tensor's part."""
        inplace = [op for op in TABLE if "inplace" in TABLE[op][0].entry["variants"]]
        sample = self.random.choice(TABLE[self.random.choice(inplace)])
        if sample.complex or not all(map(alike, specs_of(sample.args[0]))):
            return
        self.moved = True
        first = sample.args[0]
        own = self.fresh(f"{self.of_kind(first, tuple(first['shape']))} * 1.0")
        target = own
        if first["shape"] and self.random.random() < 0.5:
            target = self.fresh(self.random.choice([f"{own}[...]", f"{own}.transpose(0, -1)"]))
            if tuple(self.value(target).shape) != tuple(first["shape"]):
                target = own
        args = [self.argument(sample, i + 1, v) for i, v in enumerate(sample.args[1:])]
        words = {k: self.keyword(k, v) for k, v in sample.kwargs.items()}
        given = ", ".join([*args, *(f"{k}={v}" for k, v in words.items())])
        number = len(self.program.calls)
        self.program.calls.append(sample)
        both = f"{target}.clone(){', ' * bool(given)}{given}"
        try:
            self.line(
                f"{target}.{sample.entry['python']}_({given})",
                f"{target}.copy_(call({number}, {both})[0])",
            )
        except (
            spool.ShapeError,
            spool.DTypeError,
        ):  # the result does not fit what it is to be written to
            self.pending = []
            return
        after = self.fresh(f"{own} * {own}") if self.random.random() < 0.5 else own
        if self.take([own, after]):
            self.program.ops.add(sample.op)
            self.program.samples.append(sample)

    def custom(self):
        """A function with derivatives of its own."""
        x = self.tame(self.real())
        shape = tuple(self.value(x).shape)
        kind = self.random.choice(["Product", "Tripled", "Same"])
        if kind == "Same":
            self.take([self.fresh(f"Same.apply({x})")])
        elif kind == "Product":
            y = self.tame(self.fitted(shape))
            both = self.fresh(f"Product.apply({x}, {y}, {self.random.choice([1, 2])})")
            self.take([self.fresh(f"{both}[{i}]") for i in range(2)])
        else:
            own = self.fresh(f"{x} * 1.0")
            early = self.fresh(f"{own}[..., None]")
            part = self.random.choice(["", "[0]", "[..., 0]", "[::2]"]) if shape else ""
            self.line(f"Tripled.apply({own}{part})")
            self.take([own, early])
        self.program.custom.add(kind)

    def writes(self):
        """A tensor of our own, written through views and indices, and read through others."""
        shape = self.random.choice([(3, 4), (4, 3), (2, 2, 3), (5,)])
        own = self.fresh(f"{self.tame(self.fitted(shape))} * 1.0")
        early = self.fresh(own + self.random.choice(["[0]", "[1:]", "[..., None]"]))
        for _ in range(self.random.randrange(1, 4)):
            at = self.place(shape)
            part = tuple(eval(f"{own}{at}", self.scope).shape)
            source = self.tame(self.fitted(part)) if self.random.random() < 0.7 else self.number()
            how = self.random.choice(["{0} = {1}", "{0} -= {1}", "{0} = {0}.clone() * {1}"])
            self.line(how.format(f"{own}{at}", source))
        late = self.fresh(
            own + self.random.choice([".reshape(-1)", ".transpose(0, -1)", "[..., 0]"])
        )
        self.take([own, early, late])

    def place(self, shape):
        """The text of an index: slices, numbers, lists of places, masks; each place once."""
        last = shape[-1]
        low = self.random.randrange(last)
        kinds = [f"[{self.random.randrange(shape[0])}]", f"[..., {low}:]", "[::2]", "[...]"]
        chosen = self.random.sample(range(last), 2)
        kinds.append(f"[..., {literal(np.array(chosen, dtype=np.int64))}]")
        mask = self.numbers.random(shape[0]) < 0.6
        kinds.append(f"[{literal(mask)}]")
        if len(shape) > 1:
            kinds += [f"[1:, ..., {low}]", f"[:, None, ..., {low}]", f"[-1, ..., {low}]"]
        return self.random.choice(kinds)

    def arithmetic(self):
        """Two variables of any shapes that broadcast."""
        x = self.pick()
        shape = list(self.values[x].shape)
        for i in range(len(shape)):
            if self.random.random() < 0.3:
                shape[i] = 1
        y = self.tame(self.fitted(tuple(shape[self.random.randrange(len(shape) + 1) :])))
        how = self.random.choice(
            ["{0} + {1}", "{0} - {1}", "{1} * {0}", "{0} / ({1} * {1} + 1.5)", "{0} * {0} * {1}"]
        )
        self.take([self.fresh(how.format(x, y))])

    def constant_part(self):
        """What is detached or computed without a tape has no gradient: PyTorch's comparison sees that."""
        x = self.pick()
        how = self.random.choice(["{0}.detach() * {0}", "{0} * {1} + {0}.detach()"])
        if self.take([self.fresh(how.format(x, self.number()))]):
            self.program.whole = False

    def statement(self):
        kinds = [(self.op, 12), (self.writes, 1.5), (self.arithmetic, 2), (self.in_place, 2)]
        kinds.append((self.custom, 1.5))
        if self.detaches:
            kinds.append((self.constant_part, 3))
        self.random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]()

    def finished(self):
        for _ in range(self.random.randrange(9, 16)):
            self.statement()
            self.pending = []
        used = [n for n in self.values if n not in self.program.leaves]
        self.program.results = used
        terms = []
        for name in used:
            value = self.values[name]
            for part in (f"{name}.real", f"{name}.imag") if value.is_complex() else (name,):
                weight = round(self.random.uniform(0.3, 1.3), 3)
                terms.append(
                    f"    ({part} * lib.linspace(-0.4, {weight}, {value.numel()}, dtype=lib.float64)"
                )
                terms[-1] += f".reshape({list(value.shape)})).sum(),"
        self.line("terms = [\n" + "\n".join(terms) + "\n]")
        self.line("loss = sum(terms)")
        self.program.lines += self.pending
        self.program.lines.append((f"return loss, [{', '.join(used)}]",) * 2)
        return self.program


def sound(value):
    """Finite numbers of no great size, few enough of them."""
    if value.numel() > 2 * LARGE:
        return False
    return not value.numel() or float(value.detach().abs().max()) < HIGH


def kept_dtype(value):
    return value.dtype in (spool.float64, spool.complex128)


def alike(spec):
    return spec["tensor"] in ("normal", "positive", "unit", "distinct")


def expands(have, want):
    sizes = zip(reversed(have), reversed(want))
    return len(have) <= len(want) and all(n == m or n == 1 for n, m in sizes)


SIGNS = {
    "sub": "-",
    "div": "/",
    "pow": "**",
    "floor_divide": "//",
    "remainder": "%",
    "bitwise_left_shift": "<<",
    "bitwise_right_shift": ">>",
}


def called(sample, args, given):
    """The call of an op as users write it."""
    name, variants = sample.entry["python"], sample.entry["variants"]
    if sample.op.endswith(".rscalar"):
        return f"{args[1]} {SIGNS[name]} {args[0]}"
    if "function" in variants:
        return f"lib.{name}({given})" if hasattr(spool, name) else f"lib._C.{name}({given})"
    rest = given[len(args[0]) + 2 :]
    if "method" in variants:
        return f"{args[0]}.{name}({rest})"
    return f"{args[0]}.clone().{name}_({rest})"


def program_of(seed):
    return Writer(seed).finished()


def main():
    parser = argparse.ArgumentParser(description="Print a program as a script.")
    parser.add_argument("seed", type=int)
    print(program_of(parser.parse_args().seed).script())


if __name__ == "__main__":
    main()
