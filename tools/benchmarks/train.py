"""One step of training: forward, backward, optimizer; Spool eager and jitted against PyTorch in one process.

Each net is written once, in the names that both libraries share, and starts from the same numbers; PyTorch's optimizers are
told to be fused. A step ends when its loss is read and nothing is left to do. The losses of the second step are compared.
With --memory each way has a process of its own; the first three steps, in which jit traces and compiles, count by themselves.
"""

import argparse
import multiprocessing
import re
import sys
from pathlib import Path

import numpy as np
import torch
from timing import best_of, machine

import spool


class Net:
    """Parameters made on demand, in the order of their first use, equal in both libraries."""

    def __init__(self, lib, seed=0):
        self.lib, self.f = lib, lib.nn.functional
        self.rng, self.made, self.buffers = np.random.default_rng(seed), {}, {}

    def tensor(self, values):
        return self.lib.tensor(np.asarray(values))

    def param(self, name, *shape, value=None):
        if name not in self.made:
            bound = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
            values = self.rng.uniform(-bound, bound, shape).astype(np.float32)
            if value is not None:
                values[...] = value
            self.made[name] = self.lib.nn.Parameter(self.tensor(values))
        return self.made[name]

    def linear(self, name, x, n_out):
        n_in = x.shape[-1]
        return self.f.linear(
            x, self.param(f"{name}.w", n_out, n_in), self.param(f"{name}.b", n_out, value=0)
        )

    def conv(self, name, x, n_out, size, stride=1, padding=0, bias=True):
        w = self.param(f"{name}.w", n_out, x.shape[1], size, size)
        b = self.param(f"{name}.b", n_out, value=0) if bias else None
        return self.lib.conv2d(x, w, b, stride=stride, padding=padding)

    def layer_norm(self, name, x):
        n = x.shape[-1]
        return self.f.layer_norm(
            x, (n,), self.param(f"{name}.w", n, value=1), self.param(f"{name}.b", n, value=0)
        )

    def batch_norm(self, name, x):
        n = x.shape[1]
        if name not in self.buffers:
            self.buffers[name] = (self.lib.zeros(n), self.lib.ones(n))
        w, b = self.param(f"{name}.w", n, value=1), self.param(f"{name}.b", n, value=0)
        return self.f.batch_norm(x, *self.buffers[name], w, b, training=True)

    def images(self, n, channels, size):
        return self.tensor(self.rng.normal(size=(n, channels, size, size)).astype(np.float32))

    def classes(self, shape, n):
        return self.tensor(self.rng.integers(0, n, shape))


def mlp(net, batch=64):
    """784-256-256-10, batch 64, SGD with momentum."""
    x, y = net.images(batch, 1, 28).reshape(batch, 784), net.classes((batch,), 10)

    def loss():
        h = net.lib.relu(net.linear("a", x, 256))
        h = net.lib.relu(net.linear("b", h, 256))
        return net.f.cross_entropy(net.linear("c", h, 10), y)

    return loss, ("SGD", {"lr": 0.01, "momentum": 0.9})


def lenet(net, batch=64):
    """LeNet-5 with largest values pooled, batch 64 of 28x28, SGD."""
    x, y = net.images(batch, 1, 28), net.classes((batch,), 10)

    def loss():
        h = net.f.max_pool2d(net.lib.relu(net.conv("a", x, 6, 5, padding=2)), 2)
        h = net.f.max_pool2d(net.lib.relu(net.conv("b", h, 16, 5)), 2)
        h = net.lib.relu(net.linear("c", h.reshape(batch, 400), 120))
        h = net.lib.relu(net.linear("d", h, 84))
        return net.f.cross_entropy(net.linear("e", h, 10), y)

    return loss, ("SGD", {"lr": 0.01})


def gpt(net, batch=8, layers=2, width=128, heads=4, length=64, words=256):
    """A GPT of 2 layers, 128 wide, on 8 x 64 tokens, AdamW."""
    x, y = net.classes((batch, length), words), net.classes((batch * length,), words)
    mask = net.tensor(np.triu(np.full((length, length), -1e9, np.float32), 1))
    size = width // heads

    def attention(name, h):
        q, k, v = (
            net.linear(f"{name}.{part}", h, width)
            .reshape(batch, length, heads, size)
            .transpose(1, 2)
            for part in "qkv"
        )
        weights = net.f.softmax(q @ k.transpose(2, 3) * size**-0.5 + mask, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        return net.linear(f"{name}.o", mixed, width)

    def loss():
        h = net.param("words", words, width)[x] + net.param("places", length, width)
        for i in range(layers):
            h = h + attention(f"{i}", net.layer_norm(f"{i}.n", h))
            wide = net.linear(f"{i}.up", net.layer_norm(f"{i}.m", h), 4 * width)
            h = h + net.linear(f"{i}.down", net.lib.nn.functional.relu(wide), width)
        h = net.linear("head", net.layer_norm("n", h), words)
        return net.f.cross_entropy(h.reshape(batch * length, words), y)

    return loss, ("AdamW", {"lr": 1e-3})


def resnet(net, batch=16):
    """A ResNet of 8 layers (16, 32, 64 channels), batch 16 of 32x32, SGD with momentum and decay."""
    x, y = net.images(batch, 3, 32), net.classes((batch,), 10)

    def block(name, h, n, stride):
        out = net.conv(f"{name}.a", h, n, 3, stride, 1, bias=False)
        out = net.lib.relu(net.batch_norm(f"{name}.an", out))
        out = net.batch_norm(f"{name}.bn", net.conv(f"{name}.b", out, n, 3, 1, 1, bias=False))
        if stride != 1:
            h = net.batch_norm(f"{name}.cn", net.conv(f"{name}.c", h, n, 1, stride, bias=False))
        return net.lib.relu(out + h)

    def loss():
        h = net.lib.relu(net.batch_norm("n", net.conv("in", x, 16, 3, 1, 1, bias=False)))
        for i, n in enumerate((16, 32, 64)):
            h = block(f"{i}", h, n, 1 if i == 0 else 2)
        return net.f.cross_entropy(net.linear("out", h.mean((2, 3)), 10), y)

    return loss, ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4})


PEAK_BATCH = 256
WAYS = ("torch", "eager", "jit")
NETS = {"mlp": mlp, "lenet": lenet, "gpt": gpt, "resnet": resnet}


class Training:
    """A net and its optimizer; calling it makes one step and keeps the loss."""

    def __init__(self, lib, build, jitted=False, **sizes):
        net, self.lib = Net(lib), lib
        self.loss, (kind, options) = build(net, **sizes)
        self.loss()  # makes the parameters
        options = {**options, **({"fused": True} if lib is torch else {})}
        self.optimizer = getattr(lib.optim, kind)(list(net.made.values()), **options)
        self.turn = spool.jit(self.eager) if jitted else self.eager
        self.first = self.turn().item()

    def eager(self):
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def __call__(self):
        loss = self.turn().item()
        if self.lib is spool:
            spool.synchronize()  # nothing is left for another's time
        return loss


def resident(key):
    """VmRSS or VmHWM of this process, in MiB."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+)", text)[1]) / 1024


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again


def peaks_of(way, name, threads):
    """MiB that the first three steps at PEAK_BATCH, and three later ones, add at most to what the process held after steps with a
    batch of 1."""
    lib = torch if way == "torch" else spool
    lib.set_num_threads(threads)
    small = Training(lib, NETS[name], way == "jit", batch=1)
    small(), small()
    del small
    before = resident("VmRSS")
    forget_peak()
    training = Training(lib, NETS[name], way == "jit", batch=PEAK_BATCH)
    training(), training()
    first = resident("VmHWM") - before
    forget_peak()
    for _ in range(3):
        training()
    return first, resident("VmHWM") - before


def compare_memory(name, options):
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {w: pool.apply(peaks_of, (w, name, options.threads)) for w in WAYS}
    first, later = ([peaks[w][i] for w in WAYS] for i in (0, 1))
    text = "".join(f"{peak:10.1f}" for peak in later)
    print(f"{name:10s}{text}{later[1] / later[0]:12.3f}{later[2] / later[0]:10.3f}", end="")
    print(f"   first steps:{first[1] / first[0]:7.3f}{first[2] / first[0]:7.3f}")


def compare(name, options):
    trainings = {
        "torch": Training(torch, NETS[name]),
        "eager": Training(spool, NETS[name]),
        "jit": Training(spool, NETS[name], jitted=True),
    }
    second = [training() for training in trainings.values()]  # after one update
    agree = np.allclose(second, second[0], rtol=1e-3)
    best = best_of(trainings, options.rounds, options.seconds)
    times = "".join(f"{best[key] * 1e3:10.3f}" for key in trainings)
    ratios = [best[key] / best["torch"] for key in ("eager", "jit")]
    text = f"{name:10s}{times}{ratios[0]:12.3f}{ratios[1]:10.3f}"
    print(text + ("" if agree else f"   losses differ: {second}"))
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="net", help=f"of {', '.join(NETS)}; all if none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a round and library")
    parser.add_argument("--memory", action="store_true", help="peak memory in place of time")
    options = parser.parse_args()
    if set(options.nets) - set(NETS):
        parser.error(f"there is no net {', '.join(sorted(set(options.nets) - set(NETS)))}")
    torch.set_num_threads(options.threads)
    spool.set_num_threads(options.threads)
    what = f"ms a step, best of {options.rounds} rounds"
    if options.memory:
        what = f"MiB that steps with a batch of {PEAK_BATCH} need at most"
    print(f"{machine()}; {options.threads} threads; {what}; PyTorch {torch.__version__}")
    print(f"{'':10s}{'torch':>10s}{'eager':>10s}{'jit':>10s}{'eager/torch':>12s}{'jit/torch':>10s}")
    for name in options.nets or NETS:
        (compare_memory if options.memory else compare)(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
