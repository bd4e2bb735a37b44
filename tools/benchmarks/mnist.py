"""The training loop of an example on MNIST, Spool eager and jit against PyTorch: time and accuracy over several seeds.

Each run is a process of its own; the libraries take turns seed by seed, so that a slow phase of the machine hits all.
"""

import argparse
import importlib
import statistics
import sys
from pathlib import Path

from timing import machine

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bindings" / "python" / "examples"))

import digits  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", nargs="?", choices=["mlp", "lenet", "resnet"], default="mlp")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    own = parser.parse_args()
    arguments = ["--epochs", str(own.epochs), "--out", str(ROOT / "out")]
    options = importlib.import_module(own.net).options(arguments)
    options.out.mkdir(exist_ok=True)
    print(
        f"{machine()}; {own.net}; {options.threads} threads; {own.seeds} seeds, {own.epochs} epochs of batch {options.batch}"
    )
    runs = {"eager": [], "jit": [], "torch": []}
    for options.seed in range(own.seeds):
        runs["eager"].append(digits.in_process(digits.run_spool, "eager", options))
        runs["torch"].append(digits.in_process(digits.run_torch, options))
        runs["jit"].append(digits.in_process(digits.run_spool, "jit", options))
    torch_best = min(result["seconds"] for result in runs["torch"])
    print(
        f"{'':8s}{'best s':>8s}{'of torch':>10s}{'accuracy %, mean':>18s}{'min':>7s}{'max':>7s}{'peak MiB':>10s}"
    )
    for name, results in runs.items():
        accuracies = [100 * result["accuracy"] for result in results]
        seconds = min(result["seconds"] for result in results)
        print(
            f"{name:8s}{seconds:8.2f}{seconds / torch_best:10.3f}{statistics.mean(accuracies):18.2f}{min(accuracies):7.1f}"
            f"{max(accuracies):7.1f}{max(result['peak'] for result in results):10.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
