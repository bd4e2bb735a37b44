"""Random programs over tensors, and what each gives under one mode.

``python random_programs.py --mode jit --seeds 0:500`` runs the programs of these seeds and prints one JSON object a line:
seed, a digest of every result's bits, and the exception, if any, with its type and line. The test starts one process a
mode, because the library reads its knobs once, and compares the lines.

A program is source text, so that an exception has a line. It mixes arithmetic, views, in-place ops through views, slices
assigned, NumPy writing into shared arrays between ops, reads that decide branches, exceptions caught and not, gradients,
and another thread that computes on the same tensors.
"""

import argparse
import hashlib
import json
import random
import threading
import traceback

import numpy as np

UNARY = [
    "spool.exp({0} * 0.1)",
    "spool.tanh({0})",
    "spool.relu({0})",
    "-{0}",
    "spool.sqrt({0} * {0} + 0.5)",
]
BINARY = [
    "{0} + {1}",
    "{0} - {1}",
    "{0} * {1}",
    "{0} / ({1} * {1} + 1.5)",
    "spool.maximum({0}, {1})",
    "spool.where({0} > {1}, {0}, {1} * 0.5)",
    "spool.add({0}, {1}, alpha=0.25)",
]
SCALAR = ["{0} * {1}", "{0} + {1}", "{1} - {0}", "{0} / {1}"]


class Writer:
    """Grows one program: lines, and the shape of every variable."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lines = []
        self.shapes = {"a": (4, 6), "b": (4, 6), "v": (6,), "m": (6, 4), "shared": (4, 6)}
        self.depth = 1

    def line(self, text):
        self.lines.append("    " * self.depth + text)

    def fresh(self, text, shape):
        name = f"t{len(self.shapes)}"
        self.line(f"{name} = {text}")
        self.shapes[name] = shape
        return name

    def pick(self, want=None):
        names = [n for n, shape in self.shapes.items() if want is None or shape == want]
        return self.random.choice(names) if names else None

    def number(self):
        return round(self.random.uniform(0.2, 1.8), 3)

    # Each statement kind is a method; statement() draws one.

    def unary(self):
        x = self.pick()
        self.fresh(self.random.choice(UNARY).format(x), self.shapes[x])

    def binary(self):
        x = self.pick()
        y = (
            self.pick(self.shapes[x])
            if self.random.random() < 0.8
            else ("v" if self.shapes[x][-1:] == (6,) else x)
        )
        self.fresh(self.random.choice(BINARY).format(x, y), self.shapes[x])

    def scalar(self):
        x = self.pick()
        self.fresh(self.random.choice(SCALAR).format(x, self.number()), self.shapes[x])

    def view(self):
        x = self.pick()
        shape = self.shapes[x]
        if len(shape) == 2:
            low = self.random.randrange(shape[0])
            high = self.random.randrange(low + 1, shape[0] + 1)
            self.random.choice(
                [
                    lambda: self.fresh(f"{x}.transpose(0, 1)", shape[::-1]),
                    lambda: self.fresh(f"{x}[{low}:{high}]", (high - low, shape[1])),
                    lambda: self.fresh(f"{x}[{low}]", (shape[1],)),
                    lambda: self.fresh(f"{x}[:, ::2]", (shape[0], (shape[1] + 1) // 2)),
                    lambda: self.fresh(
                        f"{x}.reshape({shape[0] * shape[1]})", (shape[0] * shape[1],)
                    ),
                ]
            )()
        elif shape:
            self.fresh(f"{x}.unsqueeze(0).expand(3, {shape[0]})", (3, *shape))

    def reduce(self):
        x = self.pick()
        if len(self.shapes[x]) == 2:
            dim = self.random.randrange(2)
            self.fresh(f"{x}.sum({dim})", (self.shapes[x][1 - dim],))
        else:
            self.fresh(f"{x}.{self.random.choice(['sum', 'mean'])}()", ())

    def matmul(self):
        pairs = [
            (x, y)
            for x, s in self.shapes.items()
            for y, t in self.shapes.items()
            if len(s) == len(t) == 2 and s[1] == t[0]
        ]
        if pairs:
            x, y = self.random.choice(pairs)
            self.fresh(f"({x} @ {y}) * 0.1", (self.shapes[x][0], self.shapes[y][1]))

    def own(self):
        """A variable that may be written: a fresh copy, so that expanded views and leaves are left alone."""
        x = self.pick()
        return self.fresh(f"{x}.clone()", self.shapes[x])

    def in_place(self):
        x = self.own()
        shape = self.shapes[x]
        y = self.pick(shape)
        kind = self.random.randrange(6)
        if kind == 0:
            self.line(f"{x}.add_({y}, alpha={self.number()})")
        elif kind == 1:
            self.line(f"{x}.mul_({self.number()})")
        elif kind == 2 and shape:
            self.line(f"{x}[0] = {self.number()}")
        elif kind == 3 and len(shape) == 2:
            low = self.random.randrange(shape[0])
            self.line(f"{x}[{low}:] = {y}[{low}:]")
        elif kind == 4 and len(shape) == 2:
            self.line(
                f"{x}.transpose(0, 1)[{self.random.randrange(shape[1])}].mul_({self.number()})"
            )
        else:
            view = self.fresh(
                f"{x}[1:]"
                if shape and shape[0] > 1
                else f"{x}.view({', '.join(map(str, shape))})"
                if shape
                else f"{x}.unsqueeze(0)",
                (shape[0] - 1, *shape[1:]) if shape and shape[0] > 1 else shape or (1,),
            )
            self.line(f"{view} += {self.number()}")

    def numpy_write(self):
        row = self.random.randrange(4)
        self.line(f"array[{row}] *= {self.number()}")
        self.line(f"array[{row}, {self.random.randrange(6)}] = {self.number()}")

    def numpy_view(self):
        x = self.own()
        self.line(f"{x}.numpy()[...] *= 0.5")

    def branch(self):
        x = self.pick()
        y = self.pick()
        self.line(f"if {x}.sum().item() > {self.number()}:")
        self.depth += 1
        name = self.fresh(f"{y} * {self.number()}", self.shapes[y])
        self.depth -= 1
        self.line("else:")
        self.line(f"    {name} = {y} + {self.number()}")

    def caught(self):
        self.line("try:")
        self.line(
            f"    {self.random.choice(['a + m', 'a @ b', 'a.reshape(5)', 'v[9]', 'a.sum(4)'])}"
        )
        self.line("except (RuntimeError, IndexError, ValueError) as error:")
        self.line("    notes.append(type(error).__name__)")

    def thread(self):
        x, y = self.own(), self.pick()
        result = f"t{len(self.shapes)}"
        self.line(f"{result} = in_thread(lambda: {y} * 0.5 + {y})")
        self.shapes[result] = self.shapes[y]
        self.line(f"{x}.add_(0.5)")

    def gradient(self):
        x = self.pick((4, 6))
        leaf = self.fresh(f"{x}.detach().clone().requires_grad_()", (4, 6))
        loss = self.fresh(f"(spool.tanh({leaf} * b) @ m * {self.number()}).sum()", ())
        self.line(f"{loss}.backward()")
        self.fresh(f"{leaf}.grad + 0", (4, 6))
        for name in (leaf, loss):
            self.line(f"{name} = {name}.detach()")

    def statement(self):
        kinds = [
            (self.binary, 6),
            (self.unary, 4),
            (self.scalar, 4),
            (self.view, 4),
            (self.in_place, 4),
            (self.reduce, 2),
            (self.matmul, 2),
            (self.gradient, 1),
            (self.numpy_write, 1),
            (self.numpy_view, 0.3),
            (self.branch, 0.5),
            (self.caught, 0.5),
            (self.thread, 0.3),
        ]
        self.random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]()

    def program(self):
        for _ in range(self.random.randrange(8, 28)):
            self.statement()
        if self.random.random() < 0.1:
            self.line(
                self.random.choice(["a + m", "a.reshape(7)", "v.sum(3)", "spool.where(a, b, v[7])"])
            )
        results = self.random.sample(sorted(self.shapes), min(6, len(self.shapes)))
        self.line(f"return [{', '.join(results)}]")
        return (
            "def program(spool, a, b, v, m, shared, array, notes, in_thread):\n"
            + "\n".join(self.lines)
            + "\n"
        )


def source_of(seed):
    return Writer(seed).program()


def in_thread(function):
    box = []

    def work():
        try:
            box.append(function())
        except Exception as error:  # noqa: BLE001 - handed over
            box.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]


def inputs(spool, seed):
    rng = np.random.default_rng(seed)
    a, b, v, m, array = (
        rng.normal(size=shape).astype(np.float32)
        for shape in [(4, 6), (4, 6), (6,), (6, 4), (4, 6)]
    )
    return [spool.tensor(x) for x in (a, b, v, m)] + [spool.from_numpy(array), array]


def digest(values):
    return [
        hashlib.sha1(t.detach().numpy().tobytes() + str(tuple(t.shape)).encode()).hexdigest()[:16]
        for t in values
    ]


def call(spool, program, seed):
    """Digests of the results and notes, or type and line of the exception."""
    notes = []
    try:
        results = program(spool, *inputs(spool, seed), notes, in_thread)
        return {"results": digest(results), "notes": notes}
    except Exception as error:  # noqa: BLE001 - compared
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if f.filename.startswith("<program")
        ]
        return {"error": type(error).__name__, "line": frames[-1].lineno, "notes": notes}


def run(seed, mode):
    import spool

    scope = {}
    exec(compile(source_of(seed), f"<program {seed}>", "exec"), scope)
    program = scope["program"]
    line = {"seed": seed}
    if mode != "jit":
        line.update(call(spool, program, seed))
        if mode == "hot":
            line["again"] = call(spool, program, seed)
        return line
    program = spool.jit(program)
    calls = [call(spool, program, seed) for _ in range(4)]
    line.update(calls[0])
    line["again"] = next((c for c in calls if c != calls[0]), calls[0])
    report = spool.explain(program, quiet=True)
    line.update(ops=report.ops, compiled_ops=report.compiled_ops)
    return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", default="plain")
    parser.add_argument("--seeds", default="0:500")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, help="print the program of this seed")
    options = parser.parse_args()
    if options.show is not None:
        print(source_of(options.show))
        return
    import spool

    spool.set_num_threads(options.threads)
    first, last = map(int, options.seeds.split(":"))
    for seed in range(first, last):
        print(json.dumps(run(seed, options.mode)), flush=True)


if __name__ == "__main__":
    main()
