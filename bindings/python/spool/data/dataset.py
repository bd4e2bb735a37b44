"""Datasets: what has a length and items, or can be iterated over."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Any, Iterable, Sequence

from .. import _C
from .sampler import generator_of

__all__ = [
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "Subset",
    "TensorDataset",
    "random_split",
]


class Dataset:
    """The base of datasets with items by number. A subclass defines ``__getitem__`` and ``__len__``.

    It may define ``__getitems__``, which takes a list of numbers and returns a list of items, where that is faster.
    """

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset):
    """The base of datasets that are iterated over. A subclass defines ``__iter__``.

    With worker processes each of them iterates over its own copy: :func:`get_worker_info` tells which part is whose.
    """

    def __iter__(self):
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")


class TensorDataset(Dataset):
    """Tensors side by side: item i is the tuple of their i-th entries.

    Parameters
    ----------
    *tensors : Tensor
        Of equal size in dimension 0.

    Raises
    ------
    ShapeError
        The sizes differ, or a tensor has no dimension.
    """

    def __init__(self, *tensors: _C.Tensor):
        for t in tensors:
            if not isinstance(t, _C.Tensor):
                raise TypeError(f"TensorDataset: expected Tensors, got {type(t).__name__}")
        sizes = [tuple(t.shape[:1]) for t in tensors]
        if not sizes or () in sizes or len(set(sizes)) > 1:
            raise _C.ShapeError(
                "TensorDataset: tensors must agree in the size of dimension 0, got shapes "
                f"{[tuple(t.shape) for t in tensors]}"
            )
        self.tensors = tensors

    def __getitem__(self, index):
        return tuple(t[index] for t in self.tensors)

    def __len__(self):
        return len(self.tensors[0])

    def collated(self, indices: Sequence[int]) -> list:
        """What the items of these numbers are as a batch, without making them one by one."""
        count = len(self)
        places = _C.tensor([i + count if i < 0 else i for i in indices], dtype=_C.int64)
        return [t.index_select(0, places) for t in self.tensors]


class Subset(Dataset):
    """The items of a dataset that ``indices`` names, in that order.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index):
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices):
        places = [self.indices[i] for i in indices]
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(places)
        return [self.dataset[i] for i in places]

    def __len__(self):
        return len(self.indices)


class ConcatDataset(Dataset):
    """Datasets one after the other.

    Parameters
    ----------
    datasets : iterable of Dataset
    """

    def __init__(self, datasets: Iterable[Dataset]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise TypeError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"ConcatDataset: index {index} is out of range for {len(self)} items")
        index %= len(self)
        place = bisect.bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[place - 1] if place else 0
        return self.datasets[place][index - before]

    def __len__(self):
        return self.cumulative_sizes[-1]


def _lengths(lengths, total):
    if not math.isclose(sum(lengths), 1) or sum(lengths) > 1 + 1e-9:
        return list(lengths)
    if any(not 0 <= share <= 1 for share in lengths):
        raise ValueError(f"random_split: shares must be between 0 and 1, got {list(lengths)}")
    counts = [math.floor(total * share) for share in lengths]
    for i in range(total - sum(counts)):
        counts[i % len(counts)] += 1
    return counts


def random_split(dataset: Dataset, lengths: Sequence[float], generator=None) -> list[Subset]:
    """Split a dataset into parts that do not overlap, at random.

    Parameters
    ----------
    dataset : Dataset
    lengths : sequence of int, or of float
        How many items each part gets; or shares that add up to 1, where what rounding leaves over goes to the first parts.
    generator : numpy.random.Generator, optional
        Where chance comes from; by default from Spool's own random numbers.

    Returns
    -------
    list of Subset

    Raises
    ------
    ValueError
        The lengths do not add up to the dataset's.

    Examples
    --------
    >>> from spool.data import random_split
    >>> [len(part) for part in random_split(range(10), [0.7, 0.3])]
    [7, 3]
    """
    counts = _lengths(lengths, len(dataset))
    if sum(counts) != len(dataset):
        raise ValueError(
            f"random_split: lengths {list(lengths)} do not add up to the {len(dataset)} items of the dataset"
        )
    order = generator_of(generator).permutation(len(dataset)).tolist()
    ends = list(itertools.accumulate(counts))
    return [Subset(dataset, order[end - n : end]) for n, end in zip(counts, ends)]
