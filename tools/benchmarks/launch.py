"""What the launch queue costs and gains, what a busy neighbour costs, and what importing costs.

1. queue against blocking: the same training step and the same op-then-read, each mode in a process of its own, the
   processes taking turns;
2. overlap: NumPy work between ops, as long as the ops' own;
3. the training step with one core kept busy by another process, against its quiet time, for Spool and PyTorch;
4. ``import spool`` on top of ``import numpy``.
"""

import argparse
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time

import numpy as np
from timing import calls_for, machine, seconds_a_call

ROUNDS = 12


def measure(case, library, env):
    """Seconds a call of one case in a fresh process."""
    run = subprocess.run(
        [sys.executable, __file__, "--case", case, "--library", library],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    if run.returncode != 0:
        raise SystemExit(f"{case} in {library} failed:\n{run.stderr}")
    return float(run.stdout)


def best(function, seconds=0.5):
    """Seconds a call, in the best of blocks of calls: what one call leaves in the queue, the next one pays."""
    count = calls_for(function, 0.02)
    lowest, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        lowest = min(lowest, seconds_a_call(function, count))
    return lowest


def middle(function, seconds=1.5):
    """Mean time of a call: what a busy neighbour costs does not show in the best one."""
    function()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        function()
        count += 1
    return (time.perf_counter() - start) / count


def library_of(name):
    if name == "torch":
        import torch
        import torch.nn.functional as F

        torch.set_num_threads(2)
        return torch, F, torch.from_numpy
    import spool
    import spool.nn.functional as F

    spool.set_num_threads(2)
    return spool, F, spool.tensor


def training_step(name):
    lib, F, make = library_of(name)
    rng = np.random.default_rng(0)
    x, y = make(rng.random((64, 784), np.float32)), make(rng.integers(0, 10, 64))
    sizes = [784, 256, 128, 10]
    weights = []
    for n, m in zip(sizes, sizes[1:]):
        weights += [
            make((rng.random((m, n), np.float32) - 0.5) / 10),
            make(np.zeros(m, np.float32)),
        ]
    for w in weights:
        w.requires_grad_()

    def step():
        w1, b1, w2, b2, w3, b3 = weights
        loss = F.cross_entropy(
            F.linear(F.relu(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)), w3, b3), y
        )
        loss.backward()
        with lib.no_grad():
            for w in weights:
                w.sub_(w.grad, alpha=0.001)
                w.grad = None
        return loss.item()

    return step


def op_and_read(name):
    lib, _, make = library_of(name)
    a = make(np.random.default_rng(0).random((512, 512), np.float32))
    return lambda: (a @ a).sum().item()


def overlap(name):
    """Ten matrix products with as much NumPy work between them as one takes."""
    lib, _, make = library_of(name)
    lib.set_num_threads(1)
    a = make(np.random.default_rng(0).random((384, 384), np.float32))
    work = np.random.default_rng(1).random(400_000)
    product = best(lambda: (a @ a).sum().item(), 0.3)
    share = max(1, int(len(work) * product / best(lambda: np.sin(work), 0.3)))
    work = work[: min(share, len(work))]

    def step():
        y = a
        for _ in range(10):
            y = a @ a
            np.sin(work)
        return y.sum().item()

    return step


CASES = {"training step": training_step, "op and read": op_and_read, "NumPy between ops": overlap}


def burn(core):
    os.sched_setaffinity(0, {core})
    while True:
        pass


def compare_queue():
    for case in CASES:
        times = {"queue": [], "blocking": []}
        for _ in range(ROUNDS):
            times["queue"].append(measure(case, "spool", {}))
            times["blocking"].append(measure(case, "spool", {"SPOOL_LAUNCH_BLOCKING": "1"}))
        queue, blocking = min(times["queue"]), min(times["blocking"])
        print(
            f"{case:20s} queue {queue * 1e6:9.1f} us   blocking {blocking * 1e6:9.1f} us   queue/blocking {queue / blocking:.3f}"
            f"   gain {blocking / queue:.2f}x"
        )


def compare_busy():
    for library in ["spool"] + (["torch"] if importlib.util.find_spec("torch") else []):
        quiet = min(measure("busy", library, {}) for _ in range(ROUNDS // 2))
        hog = multiprocessing.get_context("spawn").Process(
            target=burn, args=(max(os.sched_getaffinity(0)),), daemon=True
        )
        hog.start()
        time.sleep(0.5)
        try:
            busy = min(measure("busy", library, {}) for _ in range(ROUNDS // 2))
        finally:
            hog.kill()
            hog.join()
        print(
            f"busy neighbour, {library:6s} quiet {quiet * 1e6:9.1f} us   busy {busy * 1e6:9.1f} us   busy/quiet {busy / quiet:.2f}"
        )


def import_seconds(statement):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def compare_import():
    statements = ["import numpy", "import numpy, spool"]
    times = [
        min(column)
        for column in zip(*[[import_seconds(s) for s in statements] for _ in range(ROUNDS)])
    ]
    print(
        f"import numpy {times[0]:.3f} s, with spool {times[1]:.3f} s: {times[1] - times[0]:+.3f} s"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--library", default="spool", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case == "busy":
        print(middle(training_step(options.library)))
        return 0
    if options.case:
        print(best(CASES[options.case](options.library)))
        return 0
    print(f"{machine()}; 2 threads; best of {ROUNDS} processes each, taking turns")
    compare_queue()
    compare_busy()
    compare_import()
    return 0


if __name__ == "__main__":
    sys.exit(main())
