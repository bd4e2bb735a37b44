"""Trains an MLP (784-256-128-10) on MNIST: eager, under spool.jit, deployed as ONNX, and in PyTorch where that is installed.

    python mlp.py            # --peer insists on PyTorch, --help lists the rest

Checks what lenet.py checks, on the smallest network of its kind: most of a step is products of matrices, and what a library
adds to each op shows.
"""

import sys

import digits


def network(nn):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def options(arguments=None):
    return digits.parse("mlp", __doc__, arguments, epochs=12, rate=0.05, accuracy=0.93)


def main(arguments=None):
    return digits.compare(options(arguments), "MLP 784-256-128-10 on MNIST, 4,000 + 1,000 images")


if __name__ == "__main__":
    sys.exit(main())
