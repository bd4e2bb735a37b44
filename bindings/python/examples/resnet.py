"""Trains a ResNet of three stages on MNIST: eager, under spool.jit, deployed as ONNX, and in PyTorch where that is installed.

    python resnet.py            # --peer insists on PyTorch, --help lists the rest

Checks what lenet.py checks, on a network with skipped layers and batch normalisation: its running statistics are written in
place at every step, and the deployed graph uses them.

Measured with ``--peer --threads 1`` on a core of a shared Zen 3 server (8 epochs, batches of 32, SGD with momentum, whose rate
rises over the first 100 steps):

    mode                    seconds  accuracy  peak memory
    spool eager               55.90     97.2%      403 MiB
    spool jit                 52.82     97.2%      437 MiB
    onnxruntime                0.33     97.2%      189 MiB
    PyTorch 2.13.0+cpu        63.62     97.3%      567 MiB

    mean loss of steps           spool eager   PyTorch
        1 to 100                      1.9406    1.9453
      501 to 600                      0.0991    0.0929
      901 to 1000                     0.0289    0.0241

The first 20 losses agree to 1.6e-05, relative; losses are those of eager and jit alike. Without the rising rate the two part by
1.4e-03 in these 20 steps: PyTorch's float32 losses are then 1.7e-03 from its own in float64, Spool's 4e-04, and in float64 both
agree to 1e-14.
"""

import sys

import digits


def network(nn, widths=(16, 32, 64)):
    """A ResNet of 8 layers (He et al., 2016): one block a stage, the second and third at half the resolution each."""

    class Block(nn.Module):
        def __init__(self, n_in, n_out, stride):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
                nn.BatchNorm2d(n_out),
            )
            self.skip = nn.Identity()
            if stride != 1 or n_in != n_out:
                self.skip = nn.Sequential(
                    nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
                )
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.body(x) + self.skip(x))

    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(1, first, 3, 1, 1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        Block(first, first, 1),
        Block(first, second, 2),
        Block(second, third, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, 10),
    )


def options(arguments=None):
    return digits.parse(
        "resnet", __doc__, arguments, epochs=8, rate=0.02, accuracy=0.97, warmup=100
    )


def main(arguments=None):
    return digits.compare(options(arguments), "ResNet on MNIST, 4,000 + 1,000 images")


if __name__ == "__main__":
    sys.exit(main())
