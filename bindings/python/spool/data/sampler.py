"""Samplers: in which order items are taken.

Chance comes from Spool's random numbers: a sampler draws one seed from them when it is iterated over, so that
:func:`spool.manual_seed` and a restored state give equal orders.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Sequence, Sized

from .. import _C

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "draw_seed",
    "generator_of",
]


def draw_seed() -> int:
    """53 random bits of Spool's stream."""
    return int(_C.rand(1, dtype=_C.float64).item() * 2**53)


def generator_of(generator: Any = None) -> Any:
    """A numpy.random.Generator: the one given, or one seeded by Spool's stream."""
    if generator is not None:
        return generator
    import numpy as np

    return np.random.default_rng(draw_seed())


class Sampler:
    """The base of samplers: iterating over one yields numbers of items."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


class SequentialSampler(Sampler):
    """All items in order.

    Parameters
    ----------
    data_source : Dataset
    """

    def __init__(self, data_source: Sized):
        self.data_source = data_source

    def __iter__(self):
        return iter(range(len(self.data_source)))

    def __len__(self):
        return len(self.data_source)


class RandomSampler(Sampler):
    """Items at random.

    Parameters
    ----------
    data_source : Dataset
    replacement : bool
        Each draw is from all items; otherwise each item comes once before any comes again.
    num_samples : int, optional
        How many draws; as many as items by default.
    generator : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        ``num_samples`` is not positive.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator=None,
    ):
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got {replacement}")
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples <= 0):
            raise ValueError(
                f"num_samples should be a positive integer value, but got num_samples={num_samples}"
            )
        self.data_source, self.replacement = data_source, replacement
        self._num_samples, self.generator = num_samples, generator

    @property
    def num_samples(self) -> int:
        """How many draws an iteration makes."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self):
        rng, n, left = generator_of(self.generator), len(self.data_source), self.num_samples
        if left and not n:
            raise ValueError("RandomSampler: there are no items to draw from")
        while left > 0:
            count = min(left, 1 << 16) if self.replacement else min(left, n)
            drawn = rng.integers(n, size=count) if self.replacement else rng.permutation(n)[:count]
            yield from drawn.tolist()
            left -= count

    def __len__(self):
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """The items of a list of numbers, in random order.

    Parameters
    ----------
    indices : sequence of int
    generator : numpy.random.Generator, optional
    """

    def __init__(self, indices: Sequence[int], generator=None):
        self.indices, self.generator = indices, generator

    def __iter__(self):
        for i in generator_of(self.generator).permutation(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self):
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """Items at random, with probabilities in proportion to weights.

    Parameters
    ----------
    weights : sequence of float
        One an item, not negative, not all zero.
    num_samples : int
    replacement : bool
        Otherwise no item comes twice.
    generator : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        A weight is negative or not finite, all are zero, or there are fewer items than draws without replacement.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator=None,
    ):
        import numpy as np

        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(
                f"num_samples should be a positive integer value, but got num_samples={num_samples}"
            )
        values = weights.tolist() if isinstance(weights, _C.Tensor) else list(weights)
        self.weights = np.asarray(values, np.float64)
        if (
            self.weights.ndim != 1
            or not np.isfinite(self.weights).all()
            or (self.weights < 0).any()
        ):
            raise ValueError("weights should be a 1d sequence of finite numbers, none negative")
        if not self.weights.sum() > 0:
            raise ValueError("weights should not all be zero")
        if not replacement and (self.weights > 0).sum() < num_samples:
            raise ValueError(
                f"{num_samples} draws without replacement of {(self.weights > 0).sum()} items with a weight"
            )
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self):
        share = self.weights / self.weights.sum()
        rng = generator_of(self.generator)
        yield from rng.choice(len(share), self.num_samples, self.replacement, share).tolist()

    def __len__(self):
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of what another sampler yields.

    Parameters
    ----------
    sampler : Sampler or iterable
    batch_size : int
    drop_last : bool
        Leave out a last batch that is smaller.

    Raises
    ------
    ValueError
        ``batch_size`` is not positive.
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool):
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self):
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self):
        count = len(self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
