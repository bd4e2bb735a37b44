"""Bits depend on values, shapes and strides alone: not on mode, threads, alignment of the memory, or what ran before."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import samples

FULL = os.environ.get("SPOOL_TEST_FULL") == "1"
COUNT = 300 if FULL else 60
MODES = {
    "blocking": {"SPOOL_LAUNCH_BLOCKING": "1", "SPOOL_NUM_THREADS": "1"},
    "two threads": {"SPOOL_LAUNCH_BLOCKING": "1", "SPOOL_NUM_THREADS": "2"},
    "queue everything": {"SPOOL_QUEUE_MIN_US": "0", "SPOOL_NUM_THREADS": "2"},
    "hot at once": {"SPOOL_HOT_MIN": "1", "SPOOL_NUM_THREADS": "1"},
}


def misaligned(spool, array):
    """The values at an address that is a multiple of their size and nothing more."""
    room = np.zeros(array.size + 1, array.dtype)
    view = room[1:].reshape(array.shape)
    view[...] = array
    return spool.from_numpy(view)


def strided(spool, array):
    wide = np.zeros((array.shape[0], array.shape[1] * 2), array.dtype)
    wide[:, ::2] = array
    return spool.tensor(wide)[:, ::2]


def padded(spool, array):
    wide = np.zeros((array.shape[0], array.shape[1] + 7), array.dtype)
    wide[:, 3:-4] = array
    return spool.tensor(wide)[:, 3:-4]


def digest(tensor):
    return hashlib.sha1(tensor.detach().numpy().tobytes()).hexdigest()[:16]


def results(spool, case):
    """Digests of gemms, reductions and pointwise chains of one random size; equal memory layouts must agree at once."""
    rng = np.random.default_rng(case)
    m, n, k = (int(x) for x in rng.integers(1, 301, 3))
    m, n = 1 if case % 10 in (2, 5) else m, 1 if case % 10 in (3, 6) else n
    dtype = [np.float32, np.float64][case % 2]
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    ta, tb = spool.tensor(a), spool.tensor(b)
    lines = []

    def chain(x):
        return spool.tanh(x * 0.5 + 1.0) / (spool.exp(-x) + 2.0)

    def work(x, y):
        return [
            x @ y,
            x.sum(),
            x.sum(0),
            x.sum(1),
            x.amax(1),
            x.mean(),
            chain(x),
            spool.log_softmax(x, 1),
        ]

    plain = [digest(t) for t in work(ta, tb)]
    lines.append(plain)
    assert [digest(t) for t in work(misaligned(spool, a), misaligned(spool, b))] == plain, (
        f"case {case}: misaligned"
    )
    lines.append([digest(t) for t in work(strided(spool, a), strided(spool, b))])
    assert [lines[-1][i] for i in (0, 6)] == [plain[i] for i in (0, 6)], (
        f"case {case}: strided gemm, pointwise"
    )
    for x, y in (
        (padded(spool, a), tb),
        (ta, padded(spool, b)),
        (strided(spool, a), padded(spool, b)),
    ):
        assert digest(x @ y) == plain[0], f"case {case}: padded gemm"
    lines.append(
        [
            digest((ta.transpose(0, 1).transpose(0, 1)) @ tb.clone()),
            digest(spool.tensor(a.T.copy()).T @ tb),
        ]
    )
    jitted = spool.jit(work)
    for _ in range(3):
        assert [digest(t) for t in jitted(ta, tb)] == plain, f"case {case}: jit"
    return lines


def main():
    import spool

    first, last = map(int, sys.argv[1].split(":"))
    for case in range(first, last):
        print(json.dumps(results(spool, case)), flush=True)


def run(knobs):
    process = subprocess.run(
        [sys.executable, __file__, f"0:{COUNT}"],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **knobs},
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.splitlines()


@pytest.fixture(scope="module")
def reference():
    return run(MODES["blocking"])


@pytest.mark.parametrize("mode", [m for m in MODES if m != "blocking"])
def test_bits_do_not_depend_on_the_mode(mode, reference):
    assert len(reference) == COUNT
    for case, (line, wanted) in enumerate(zip(run(MODES[mode]), reference)):
        assert line == wanted, f"case {case}: python {Path(__file__).name} {case}:{case + 1}"


def pointwise_samples():
    """One sample of every pointwise op whose tensors are all floating."""
    found = {}
    for sample in samples.load():
        specs = [v for v in sample.args if samples.is_tensor(v)]
        floating = specs and all(
            v["tensor"] in ("normal", "positive", "unit", "distinct") for v in specs
        )
        if floating and not sample.kwargs and "pointwise" in sample.entry["flags"]:
            found.setdefault(sample.op, sample)
    return [found[op] for op in sorted(found) if not found[op].complex]


def of_all_sizes(rng, dtype):
    sizes = [1, 1, 1, 10, 200, 1e5, 1e9, 1e16, 1e30, 1e-30]
    values = np.concatenate([rng.normal(size=40) * size for size in sizes]).astype(dtype)
    return rng.permutation(np.concatenate([values, [np.inf, -np.inf, np.nan, 0.0, -0.0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sample", pointwise_samples(), ids=lambda sample: sample.op)
def test_bits_do_not_depend_on_neighbours(sample, dtype):
    import spool

    rng, function = np.random.default_rng(11), samples.caller(sample)
    values = [of_all_sizes(rng, dtype) if samples.is_tensor(v) else v for v in sample.args]

    def result(part):
        args = [
            spool.tensor(v[part].copy()) if samples.is_tensor(s) else v
            for s, v in zip(sample.args, values)
        ]
        return function(*args).numpy()

    whole = result(slice(None))
    alone = np.concatenate([result(slice(i, i + 1)) for i in range(len(whole))])
    np.testing.assert_array_equal(alone, whole)


if __name__ == "__main__":
    main()
