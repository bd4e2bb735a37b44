"""Random programs over the op table, in float64: values, first and second derivatives beside PyTorch's, forward mode beside
the tape, and both beside differences of values.

500 programs, 10,000 with SPOOL_TEST_FULL=1. What fails is printed as a script that runs by itself; random_gradients.py SEED
prints it again.
"""

from collections import Counter

import numpy as np
import pytest
import random_gradients as programs
import torch
from samples import FULL, normal_like
from test_sample_gradients import differs, why_listed

import spool

COUNT, BLOCK = (10_000, 250) if FULL else (500, 50)
SHARE = 0.95 if FULL else 0.9  # of the table's differentiable ops, that have to be drawn
SECOND = 5  # every how many programs second derivatives are compared with differences, too
DRAWN, DONE = set(), Counter()


class Run:
    """A program's results and derivatives in one library."""

    def __init__(self, program, library, ways):
        self.library = library
        self.leaves = [library.tensor(a, requires_grad=True) for a in program.leaves.values()]
        self.loss, self.results = program.run(library, *self.leaves)
        self.ways = [library.tensor(w) for w in ways]

    def gradient(self, of, create_graph):
        if not of.requires_grad:
            return [self.library.zeros_like(x) for x in self.leaves]
        return self.library.autograd.grad(
            of, self.leaves, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )

    def derivatives(self):
        """The gradient, and the derivative of the gradient along the ways."""
        first = self.gradient(self.loss, True)
        slope = sum((g * w).sum() for g, w in zip(first, self.ways))
        second = self.gradient(slope, False)
        return [numbers(first), numbers(second)]


def numbers(tensors):
    return [
        t.detach().resolve_conj().resolve_neg().numpy()
        if isinstance(t, torch.Tensor)
        else t.numpy(force=True)
        for t in tensors
    ]


def listed(program, order):
    return any(why_listed(s, order) for s in program.samples)


def unsteady(program, k, value):
    """Whether the last bits of the leaves decide a result: there it jumps, and what is right is open."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        leaves = [a * (1 + 4e-16 * normal_like(rng, a)) for a in program.leaves.values()]
        other = numbers(program.run(spool, *map(spool.tensor, leaves))[1])[k]
        if differs([other], [value], 1e-3):
            return True
    return False


def compare_with_torch(program, run, first, second):
    known = not listed(program, "first order")
    with torch.set_grad_enabled(known):
        wanted = Run(program, torch, [w.numpy() for w in run.ways])
    for k, pair in enumerate(zip(numbers(run.results), numbers(wanted.results))):
        difference = differs([pair[0]], [pair[1]], 1e-8)
        if difference and unsteady(program, k, pair[0]):
            DONE["kinks"] += 1
            return
        assert difference is None, f"value of {program.results[k]}: {difference}"
    DONE["values"] += 1
    if not known:
        return
    by_torch = wanted.derivatives() if not listed(program, "second order") else None
    if by_torch is None:
        by_torch = [numbers(wanted.gradient(wanted.loss, False)), None]
    assert differs(first, by_torch[0], 1e-7) is None, "gradient"
    DONE["gradients"] += 1
    if by_torch[1] is not None:  # where PyTorch's is NaN, for want of a limit, ours is 0
        known = [np.where(np.isnan(w), w, g) for g, w in zip(second, by_torch[1])]
        assert differs(known, by_torch[1], 1e-6) is None, "second derivatives"
        DONE["second derivatives"] += 1


def slope(gradients, ways):
    return sum(float((np.asarray(g) * w).sum()) for g, w in zip(gradients, ways))


def compare_with_differences(function, wanted, scale, what):
    """Differences over several steps; where they differ among themselves, something turns in between, and none counts."""
    found = []
    for step in (1e-6, 1e-5, 1e-7):
        found.append((function(step) - function(-step)) / (2 * step))
        if abs(found[-1] - wanted) <= 1e-4 * abs(wanted) + 1e-5 * scale:
            DONE[what] += 1
            return
    one_sided = [(function(h) - function(0)) / h for h in (1e-7, -1e-7)]
    if any(abs(d - wanted) <= 1e-4 * abs(wanted) + 1e-4 * scale for d in one_sided):
        DONE["kinks"] += 1
        return
    spread = max(found) - min(found)
    assert spread > 1e-2 * max(abs(f) for f in found), f"{what}: {wanted}, by differences {found}"
    DONE["kinks"] += 1


def moved(program, ways, step):
    return [spool.tensor(a + step * w) for a, w in zip(program.leaves.values(), ways)]


def pushed(program, library, ways):
    points, along = (tuple(map(library.tensor, a)) for a in (program.leaves.values(), ways))
    return library.func.jvp(lambda *x: program.run(library, *x)[0], points, along)[1].item()


def check(seed):
    program = programs.program_of(seed)
    rng = np.random.default_rng(seed + 1)
    ways, others = ([normal_like(rng, a) for a in program.leaves.values()] for _ in range(2))
    run = Run(program, spool, ways)
    first, second = run.derivatives()
    compare_with_torch(program, run, first, second)
    along = slope(first, ways)
    scale = 1 + sum(float(np.abs(g * w).sum()) for g, w in zip(first, ways))

    tangent = pushed(program, spool, ways)
    if np.isnan(tangent):  # at a point without a limit that the result does not depend on
        assert listed(program, "forward mode") or np.isnan(pushed(program, torch, ways))
        DONE["nan"] += 1
    else:
        assert tangent == pytest.approx(along, 1e-9, 1e-9 * scale), "forward mode"

    DRAWN.update(program.ops)
    DONE.update(program.custom)
    DONE["programs"] += 1
    if not program.whole:
        return
    if np.isnan(along):  # so is PyTorch's, at a point without a derivative
        assert not listed(program, "first order")
        DONE["nan"] += not np.isnan(tangent)
        return

    def value(step):
        return program.run(spool, *moved(program, ways, step))[0].item()

    compare_with_differences(value, along, scale, "differences")
    if seed % SECOND == 0:

        def gradient(step):
            at = Run(program, spool, ways)
            at.leaves = [t.requires_grad_() for t in moved(program, others, step)]
            at.loss, _ = program.run(spool, *at.leaves)
            return slope(numbers(at.gradient(at.loss, False)), ways)

        bend = slope(second, others)
        scale = 1 + sum(float(np.abs(g * w).sum()) for g, w in zip(second, others))
        compare_with_differences(gradient, bend, scale, "second differences")


@pytest.mark.parametrize("block", range(COUNT // BLOCK))
def test_random_programs(block):
    for seed in range(BLOCK * block, BLOCK * (block + 1)):
        try:
            check(seed)
        except Exception as error:
            raise AssertionError(
                f"seed {seed}: {type(error).__name__}: {error}\n\n{programs.program_of(seed).script()}"
            ) from error


def test_share_of_the_table(capsys):
    if DONE["programs"] < COUNT:
        pytest.skip("only some of the programs were run")
    ops = {s.op for s in programs.load() if s.differentiable}
    with capsys.disabled():
        print(
            f"\nrandom programs: {len(DRAWN)} of {len(ops)} differentiable ops drawn; {dict(DONE)}"
        )
    assert len(DRAWN) >= SHARE * len(ops), sorted(ops - DRAWN)
    assert DONE["values"] > 0.99 * COUNT
    assert DONE["gradients"] > 0.7 * COUNT
    assert DONE["kinks"] + DONE["nan"] < 0.03 * COUNT
