"""Trains a ResNet of three stages on MNIST: eager, under spool.jit, deployed as ONNX, and in PyTorch where that is installed.

    python resnet.py            # --peer insists on PyTorch, --help lists the rest

Checks what lenet.py checks, on a network with skipped layers and batch normalisation: its running statistics are written in
place at every step, and the deployed graph uses them.
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
