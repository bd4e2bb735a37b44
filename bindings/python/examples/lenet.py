"""Trains LeNet on MNIST: eager, under spool.jit, deployed as ONNX, and in PyTorch where that is installed.

    python lenet.py            # --peer insists on PyTorch, --help lists the rest

What it shows, and checks as it goes:

1. eager training with a tape, in plain Python;
2. the same step under ``spool.jit``, optimizer included: equal losses bit for bit, and from step 3 on no kernel launched one
   by one but one compiled plan a step;
3. ``lenet.onnx`` run by onnxruntime: the same 1,000 predictions;
4. the same network in PyTorch, with the same initial weights and batches: the first 20 losses agree to 1e-4.

Measured with ``--peer --threads 1`` on a core of a shared Zen 3 server (12 epochs, batches of 32, SGD with momentum):

    mode                    seconds  accuracy  peak memory
    spool eager                4.63     96.3%      143 MiB
    spool jit                  4.87     96.3%      145 MiB
    onnxruntime                0.05     96.3%      133 MiB
    PyTorch 2.13.0+cpu        13.61     96.4%      385 MiB

    mean loss of steps           spool eager   PyTorch
        1 to 150                      1.4131    1.4131
      601 to 750                      0.0676    0.0676
     1351 to 1500                     0.0062    0.0066

The first 20 losses agree to 2.1e-07, relative; losses are those of eager and jit alike.
"""

import sys

import digits


def network(nn):
    """LeNet-5 (LeCun et al., 1998) with today's activations and pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def options(arguments=None):
    return digits.parse("lenet", __doc__, arguments, epochs=12, rate=0.02, accuracy=0.96)


def main(arguments=None):
    status = digits.compare(options(arguments), "LeNet on MNIST, 4,000 + 1,000 images")
    print(
        "next: change the network in bindings/python/examples/lenet.py; print(spool.explain(step))\n"
        "says what the jit did with it; `tools/bench dispatch` compares ops with NumPy, PyTorch and JAX;\n"
        "build/bindings/python/spool/ops.md lists every op."
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
