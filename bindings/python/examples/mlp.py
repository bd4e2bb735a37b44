"""Trains an MLP (784-256-128-10) on MNIST: eager, under spool.jit, deployed as ONNX, and in PyTorch where that is installed.

    python mlp.py            # --peer insists on PyTorch, --help lists the rest

Checks what lenet.py checks, on the smallest network of its kind: most of a step is products of matrices, and what a library
adds to each op shows.

Measured with ``--peer --threads 1`` on a core of a shared Zen 3 server (12 epochs, batches of 32, SGD with momentum):

    mode                    seconds  accuracy  peak memory
    spool eager                1.01     94.3%       94 MiB
    spool jit                  1.10     94.3%       96 MiB
    onnxruntime                0.03     94.3%       92 MiB
    PyTorch 2.13.0+cpu         2.70     94.1%      343 MiB

    mean loss of steps           spool eager   PyTorch
        1 to 150                      0.8424    0.8424
      601 to 750                      0.0591    0.0677
     1351 to 1500                     0.0024    0.0033

The first 20 losses agree to 1.2e-07, relative; losses are those of eager and jit alike.
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
