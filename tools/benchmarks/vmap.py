"""vmap beside torch.func's: small functions, per-example gradients, ensembles; one thread each, ratios within one run.

tools/bench vmap [case ...]      cases whose name contains one of these words
"""

import os
import sys

os.environ.setdefault("SPOOL_NUM_THREADS", "1")
os.environ["SPOOL_HOT"] = "0"  # a hot loop would drop results that nobody reads

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import best_of, machine  # noqa: E402

import spool  # noqa: E402

torch.set_num_threads(1)


def normal(*shape, scale=1.0):
    values = np.random.default_rng(sum(shape)).normal(size=shape) * scale
    return values.astype(np.float32)


def whole(high, *shape):
    return np.random.default_rng(sum(shape)).integers(0, high, shape)


def small(lib, f):
    return lambda a, b: a * b + 1


def chain(lib, f):
    def function(a, b):
        for _ in range(10):
            a = lib.tanh(a * b + 1)
        return a.sum()

    return function


def mlp(lib, f):
    def function(w, x):
        h = f.relu(f.linear(x, w[0], w[1]))
        return f.linear(f.relu(f.linear(h, w[2], w[3])), w[4], w[5])

    return function


def mlp_loss(lib, f):
    output = mlp(lib, f)
    return lambda w, x, y: f.cross_entropy(output(w, x).unsqueeze(0), y.unsqueeze(0))


def cnn_loss(lib, f):
    def function(w, x, y):
        h = f.max_pool2d(f.relu(f.conv2d(x.unsqueeze(0), w[0], w[1], padding=1)), 2)
        h = f.max_pool2d(f.relu(f.conv2d(h, w[2], w[3], padding=1)), 2)
        return f.cross_entropy(f.linear(h.flatten(1), w[4], w[5]), y.unsqueeze(0))

    return function


def transformer_loss(lib, f):
    def function(w, x):
        length, width = x.shape

        def heads(t):
            return t.reshape(length, 4, width // 4).transpose(0, 1)

        q, k, v = map(
            heads, f.linear(f.layer_norm(x, (width,), w[0], w[1]), w[2], w[3]).chunk(3, -1)
        )
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + f.linear(y.transpose(0, 1).reshape(length, width), w[4], w[5])
        x = x + f.linear(f.gelu(f.linear(x, w[6], w[7])), w[8], w[9])
        return (x * x).mean()

    return function


def picture(lib, f):
    return lambda w, b, x: f.conv2d(x, w, b, padding=1)


def normalised(lib, f):
    return lambda x, w, b: f.group_norm(x, 4, w, b)


def product(lib, f):
    return lambda x, w: w @ x


def picked(lib, f):
    return lambda x, i: x[i].sum(0).cumsum(0)


WIDTH = 32
MLP = [(64, 32), (64,), (64, 64), (64,), (10, 64), (10,)]
BLOCK = [(WIDTH,), (WIDTH,), (3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,)]
BLOCK += [(4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), (WIDTH,)]


def cnn_weights(size):
    return [(8, 1, 3, 3), (8,), (16, 8, 3, 3), (16,), (10, 16 * (size // 4) ** 2), (10,)]


def weights(shapes, *lead):
    return [normal(*lead, *shape, scale=0.2) for shape in shapes]


CASES = {  # what is mapped, its derivative or itself, in_dims, arguments
    "a * b + 1, 8 examples of 4": (small, False, 0, [normal(8, 4), normal(8, 4)]),
    "30 small ops": (chain, False, 0, [normal(8, 4), normal(8, 4)]),
    "gradients of 30 small ops": (chain, True, 0, [normal(8, 4), normal(8, 4)]),
    "gradients of an MLP, 64 examples": (
        mlp_loss,
        True,
        (None, 0, 0),
        [weights(MLP), normal(64, 32), whole(10, 64)],
    ),
    "gradients of a CNN, 32 of 28 x 28": (
        cnn_loss,
        True,
        (None, 0, 0),
        [weights(cnn_weights(28)), normal(32, 1, 28, 28), whole(10, 32)],
    ),
    "gradients of a CNN, 8 of 16 x 16": (
        cnn_loss,
        True,
        (None, 0, 0),
        [weights(cnn_weights(16)), normal(8, 1, 16, 16), whole(10, 8)],
    ),
    "gradients of attention, 16 of 16 x 32": (
        transformer_loss,
        True,
        (None, 0),
        [weights(BLOCK), normal(16, 16, WIDTH)],
    ),
    "ensemble of 16 MLPs": (mlp, False, (0, None), [weights(MLP, 16), normal(64, 32)]),
    "ensemble of 8 convolutions": (
        picture,
        False,
        (0, 0, None),
        [normal(8, 16, 8, 3, 3), normal(8, 16), normal(4, 8, 16, 16)],
    ),
    "group_norm": (
        normalised,
        False,
        (0, None, None),
        [normal(32, 4, 16, 8, 8), normal(16), normal(16)],
    ),
    "matrix times vectors": (product, False, (0, None), [normal(256, 64), normal(64, 64)]),
    "rows picked": (picked, False, 0, [normal(64, 50, 16), whole(50, 64, 20)]),
}


def tensors(value, lib):
    return [tensors(v, lib) for v in value] if isinstance(value, list) else lib.tensor(value)


def leaves(value):
    return (
        [v for part in value for v in leaves(part)] if isinstance(value, (list, tuple)) else [value]
    )


def mapped(lib, f, t, case):
    """The case as a call that waits for its results."""
    build, derive, in_dims, arguments = case
    function = build(lib, f)
    function = t.vmap(t.grad(function) if derive else function, in_dims=in_dims)
    given = tensors(arguments, lib)

    def call():
        return [v.detach().numpy() for v in leaves(function(*given))]

    return call


def main():
    words = sys.argv[1:]
    print(f"{machine()}, one thread\n")
    print(f"{'':40} {'Spool':>9} {'PyTorch':>9}   ratio")
    for name, case in CASES.items():
        if words and not any(word in name for word in words):
            continue
        calls = {
            "Spool": mapped(spool, spool.nn.functional, spool.func, case),
            "PyTorch": mapped(torch, torch.nn.functional, torch.func, case),
        }
        for a, b in zip(*(call() for call in calls.values())):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(1, abs(b).max()))
        best = best_of(calls)
        ours, theirs = (best[peer] * 1e6 for peer in calls)
        print(f"{name:40} {ours:6.0f} us {theirs:6.0f} us   {ours / theirs:.2f}", flush=True)


if __name__ == "__main__":
    main()
