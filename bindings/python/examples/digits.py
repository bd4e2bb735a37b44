"""What mlp.py, lenet.py and resnet.py share: trains a network on MNIST in several ways and compares them.

A network is a function of a module of layers, ``spool.nn`` or ``torch.nn``, so that both libraries build the same one; both
start from the same weights and see the same batches. Each way runs in a process of its own, so that threads and peak memory
are its own. The images are the 5,000 digits of :func:`spool.data.mnist`: 4,000 to train on, 1,000 to test on.
"""

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

FIRST = 20  # losses that must agree before rounding has grown


def images_and_labels(train):
    """(float32 [n, 1, 28, 28] in [0, 1], int64 [n])"""
    import spool

    images, labels = spool.data.mnist(train).tensors
    return images.numpy(), labels.numpy()


def initial_weights(shapes, seed):
    """Uniform in +-1/sqrt(fan_in) for weights of two dimensions or more and for the bias behind each: {name: array}."""
    rng, drawn, bound = np.random.default_rng(seed), {}, None
    for name, shape in shapes.items():
        if name.endswith("weight"):
            bound = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else None
        if bound is not None and name.endswith(("weight", "bias")):
            drawn[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return drawn


def batches(count, options):
    """Index arrays of one run, epoch by epoch: the same for every way and library."""
    rng = np.random.default_rng(options.seed + 1)
    for _ in range(options.epochs):
        order = rng.permutation(count)
        yield [
            order[i : i + options.batch] for i in range(0, count - options.batch + 1, options.batch)
        ]


def progress(label, done, total, loss):
    if not sys.stderr.isatty() and done != total:
        return
    filled = 30 * done // total
    bar = f"{'#' * filled}{'.' * (30 - filled)}"
    end = "\n" if done == total else "\r"
    print(f"{label:14s} [{bar}] {done}/{total}  loss {loss:.4f} ", end=end, file=sys.stderr)


def rate_at(step, total, options):
    """Rises over the first `warmup` steps; the last quarter has a tenth of it."""
    rate = options.rate * min(1.0, (step + 1) / max(1, options.warmup))
    return rate / 10 if step >= 3 * total // 4 else rate


def train(label, step, images, labels, options, optimizer, on_step=None):
    """Runs the loop; returns (losses as a list of floats, seconds)."""
    losses, epochs = [], list(batches(len(labels), options))
    total, seconds = sum(map(len, epochs)), 0.0
    for epoch in epochs:
        start = time.perf_counter()
        for index in epoch:
            optimizer.param_groups[0]["lr"] = rate_at(len(losses), total, options)
            losses.append(step(images[index], labels[index]))
            if on_step is not None:
                on_step(len(losses))
        losses[-len(epoch) :] = [float(loss) for loss in losses[-len(epoch) :]]
        seconds += time.perf_counter() - start
        progress(label, len(losses), total, losses[-1])
    return losses, seconds


def result_of(mode, seconds, losses, predictions, **more):
    _, labels = images_and_labels(False)
    return {
        "mode": mode,
        "seconds": seconds,
        "losses": losses,
        "predictions": predictions,
        "accuracy": float((predictions == labels).mean()),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **more,
    }


def network_of(options, nn):
    """The example's network out of the layers of `nn`."""
    sys.path.insert(0, str(Path(__file__).parent))
    return importlib.import_module(options.example).network(nn)


def prepared(lib, options):
    """The network in training mode with its initial weights, its optimizer, and a step: loss of (images, labels)."""
    model = network_of(options, lib.nn)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    weights = initial_weights(shapes, options.seed)
    model.load_state_dict({k: lib.tensor(v) for k, v in weights.items()}, strict=False)
    optimizer = lib.optim.SGD(model.parameters(), lr=options.rate, momentum=0.9)

    def step(x, y):
        loss = lib.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return model, optimizer, step


def run_spool(mode, options):
    if mode == "eager":
        os.environ["SPOOL_HOT"] = "0"  # else the loop is found hot and runs in plans after 16 steps
    import spool

    spool.set_num_threads(options.threads)
    images, labels = images_and_labels(True)
    model, optimizer, step = prepared(spool, options)
    if mode == "jit":
        step = spool.jit(step)
    counts = []

    def on_step(number):
        stats = spool.launch.stats()
        counts.append((number, stats["eager_launches"], stats["plan_runs"]))

    losses, seconds = train(
        f"spool {mode}",
        lambda x, y: step(spool.tensor(x), spool.tensor(y)),
        images,
        labels,
        options,
        optimizer,
        on_step,
    )
    model.eval()
    test_images = spool.tensor(images_and_labels(False)[0])
    with spool.no_grad():
        predictions = model(test_images).numpy().argmax(1)
        if mode == "jit":
            spool.onnx.save(model, (test_images,), options.out / f"{options.example}.onnx")
    steady = check_counters(counts) if mode == "jit" else None
    return result_of(f"spool {mode}", seconds, losses, predictions, steady=steady)


def check_counters(counts):
    """From step 3 on: no eager launch, one plan run a step."""
    for (_, launches, plans), (number, launches_after, plans_after) in zip(counts[1:], counts[2:]):
        if launches_after != launches or plans_after != plans + 1:
            raise SystemExit(
                f"step {number}: {launches_after - launches} eager launches and {plans_after - plans} plan "
                f"runs, expected 0 and 1"
            )
    return f"steps 3 to {counts[-1][0]}: 0 eager launches, 1 plan run each"


def run_torch(options):
    import torch

    torch.set_num_threads(options.threads)
    images, labels = images_and_labels(True)
    model, optimizer, step = prepared(torch, options)
    losses, seconds = train(
        "PyTorch",
        lambda x, y: step(torch.from_numpy(x), torch.from_numpy(y)),
        images,
        labels,
        options,
        optimizer,
    )
    model.eval()
    with torch.no_grad():
        predictions = model(torch.from_numpy(images_and_labels(False)[0])).numpy().argmax(1)
    return result_of(f"PyTorch {torch.__version__}", seconds, losses, predictions)


def run_onnxruntime(options):
    import onnxruntime

    test_images, _ = images_and_labels(False)
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(
        str(options.out / f"{options.example}.onnx"), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {session.get_inputs()[0].name: test_images})
    return result_of("onnxruntime", time.perf_counter() - start, [], logits.argmax(1))


def in_process(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def draw(results, title, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for result in results:
        if result["losses"]:
            smooth = np.convolve(result["losses"], np.ones(20) / 20, "valid")
            axes.plot(smooth, label=result["mode"], alpha=0.8)
    axes.set(xlabel="step", ylabel="training loss (mean of 20 steps)", yscale="log", title=title)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def print_table(results):
    print(f"\n{'mode':22s} {'seconds':>8s} {'accuracy':>9s} {'peak memory':>12s}")
    for r in results:
        print(
            f"{r['mode']:22s} {r['seconds']:8.2f} {100 * r['accuracy']:8.1f}% {r['peak']:8.0f} MiB"
        )


def print_curves(results):
    """Mean losses of ten parts of the run, side by side."""
    print(f"\n{'mean loss of steps':22s}" + "".join(f"{r['mode']:>20s}" for r in results))
    for part in np.array_split(np.arange(len(results[0]["losses"])), 10):
        means = [np.mean([r["losses"][i] for i in part]) for r in results]
        print(f"{part[0] + 1:>5d} to {part[-1] + 1:<12d}" + "".join(f"{m:20.4f}" for m in means))


def check(condition, message):
    print(f"{'ok  ' if condition else 'FAIL'} {message}")
    return bool(condition)


def check_peer(eager, peer, allowed=1e-4):
    ours, theirs = np.array(eager["losses"][:FIRST]), np.array(peer["losses"][:FIRST])
    off = float(np.max(np.abs(ours - theirs) / np.abs(theirs)))
    return check(off <= allowed, f"first {FIRST} losses within {off:.1e} of PyTorch's, relative")


def parse(example, doc, arguments, epochs, rate, accuracy, warmup=0):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--peer", action="store_true", help="ask for PyTorch; an error without it")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=rate, help="of SGD with momentum 0.9")
    parser.add_argument("--warmup", type=int, default=warmup, help="steps until that rate")
    parser.add_argument("--seed", type=int, default=0, help="initial weights and batches")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written")
    options = parser.parse_args(arguments)
    options.example, options.wanted = example, accuracy if options.epochs >= epochs else 0
    return options


def compare(options, title):
    """Trains in every way that is there, prints what came of it; 0 if all checks hold."""
    has_torch = importlib.util.find_spec("torch") is not None
    if options.peer and not has_torch:
        raise SystemExit("--peer needs PyTorch: pip install torch")
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{title}, batch {options.batch}, {options.epochs} epochs, {options.threads} threads")
    eager, jitted = (in_process(run_spool, mode, options) for mode in ("eager", "jit"))
    deployed = in_process(run_onnxruntime, options)
    peers = [in_process(run_torch, options)] if has_torch else []
    results = [eager, jitted, deployed, *peers]
    draw(results, title, options.out / "training.png")
    print_table(results)
    print_curves([eager, *peers])
    print()
    steps = len(eager["losses"])
    good = check(
        eager["losses"] == jitted["losses"],
        f"losses of {steps} steps equal bit for bit, eager and jit",
    )
    good &= check(True, jitted["steady"])
    good &= check(
        (deployed["predictions"] == eager["predictions"]).all(),
        "the same 1,000 predictions by onnxruntime",
    )
    if options.wanted:
        good &= check(
            eager["accuracy"] >= options.wanted,
            f"accuracy {100 * eager['accuracy']:.1f} %, at least {100 * options.wanted:.0f} %",
        )
    for peer in peers:
        good &= check_peer(eager, peer)
    print(f"\nwritten: {options.out / options.example}.onnx, {options.out / 'training.png'}")
    return 0 if good else 1
