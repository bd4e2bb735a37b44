"""The C examples that need data: they train to what the same networks reach in Python."""

import re
import subprocess
from pathlib import Path

import pytest

import spool
import spool.data

PROGRAMS = Path(spool.__file__).parents[2] / "c"


def run(name, *arguments):
    if not PROGRAMS.is_dir():
        pytest.skip("an installed package, without the C examples")
    command = [PROGRAMS / f"example_{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_lenet_learns_the_digits(tmp_path):
    spool.data.save_mnist(tmp_path)
    done = run("lenet", tmp_path)
    assert done.returncode == 0, done.stderr
    epochs = [
        tuple(map(float, found))
        for found in re.findall(r"loss ([\d.]+)  test accuracy ([\d.]+)", done.stdout)
    ]
    assert len(epochs) == 12
    assert epochs[-1][0] < 0.1 < epochs[0][0]
    assert epochs[-1][1] >= 96


def test_lenet_says_what_is_wrong_with_its_files(tmp_path):
    done = run("lenet", tmp_path)
    assert done.returncode == 2
    assert "train-images-idx3-ubyte: not a readable IDX file" in done.stderr
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    assert run("lenet", tmp_path).returncode == 2
    assert run("lenet").returncode == 2
