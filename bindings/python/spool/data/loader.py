"""``DataLoader``: batches of a dataset, made here or by worker processes, in an order that does not depend on which."""

from __future__ import annotations

import itertools
import multiprocessing
from typing import Any, Callable, Iterable

from .collate import default_collate, default_convert
from .dataset import Dataset, IterableDataset, TensorDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler, draw_seed
from .worker import BATCH, END, Crew, Fetcher, WorkerTraceback

__all__ = ["DataLoader"]


class DataLoader:
    """Batches of a dataset.

    Iterating yields them in the sampler's order, whatever the number of workers.

    Parameters
    ----------
    dataset : Dataset or IterableDataset
        Anything with ``__getitem__`` and ``__len__`` will do.
    batch_size : int or None
        Items a batch; None for items one by one.
    shuffle : bool, optional
        Take items at random, each once a pass.
    sampler : Sampler or iterable, optional
        In which order to take items, in place of ``shuffle``.
    batch_sampler : iterable of lists, optional
        In place of ``batch_size``, ``shuffle``, ``sampler`` and ``drop_last``.
    num_workers : int
        Processes that make batches; 0: made here, when asked for.
    collate_fn : callable, optional
        Makes a batch of a list of items; :func:`default_collate` by default.
    pin_memory : bool
        Without effect: the CPU is the one device there is.
    drop_last : bool
        Leave out a last batch that is smaller.
    timeout : float
        Seconds to wait for a worker; 0 for ever.
    worker_init_fn : callable, optional
        Called with the worker's number in each process, after seeding.
    multiprocessing_context : str or context, optional
        How processes are started.
    generator : numpy.random.Generator, optional
        Where chance comes from; by default from Spool's own random numbers.
    prefetch_factor : int, optional
        Batches that each worker makes in advance, 2 by default.
    persistent_workers : bool
        Keep processes from one pass to the next.

    Raises
    ------
    ValueError
        Options that exclude each other, or are out of range.
    RuntimeError
        While iterating: a worker died, or ``timeout`` passed. What a worker raises is raised here again, with the
        worker's traceback as its cause.

    Examples
    --------
    >>> import spool
    >>> from spool.data import DataLoader, TensorDataset
    >>> data = TensorDataset(spool.arange(5), spool.ones(5))
    >>> [x.tolist() for x, y in DataLoader(data, batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ):
        self._iterable = isinstance(dataset, IterableDataset)
        _check(self._iterable, batch_size, shuffle, sampler, batch_sampler, drop_last)
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.num_workers, self.timeout, self.generator = num_workers, timeout, generator
        self.pin_memory, self.worker_init_fn = pin_memory, worker_init_fn
        self.persistent_workers = persistent_workers
        self.prefetch_factor = prefetch_factor if prefetch_factor or not num_workers else 2
        self.multiprocessing_context = multiprocessing_context
        if sampler is None and not self._iterable:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        if batch_sampler is not None:
            self.batch_size, self.drop_last = None, False
        elif batch_size is not None and not self._iterable:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        elif batch_size is not None:
            BatchSampler((), batch_size, drop_last)  # for its checks
        self.sampler, self.batch_sampler = sampler, batch_sampler
        batched = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)
        self._fetch = {
            "dataset": dataset,
            "iterable": self._iterable,
            "batched": batched,
            "collate": self.collate_fn,
            "drop_last": drop_last,
            "direct": type(dataset) is TensorDataset and self.collate_fn is default_collate,
        }
        self._crew: Crew | None = None

    def _tasks(self):
        """What each batch is made of: numbers, or how many for an iterable dataset."""
        if self._iterable:
            return itertools.repeat(range(self.batch_size or 0))
        return iter(self.sampler if self.batch_sampler is None else self.batch_sampler)

    def __iter__(self):
        seed = (
            draw_seed()
        )  # in any case, so that what is random later does not depend on num_workers
        return self._made_by_workers(seed) if self.num_workers else self._made_here()

    def __len__(self):
        if not self._iterable:
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)
        count = len(self.dataset)
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def _made_here(self):
        fetch = Fetcher(**self._fetch)
        for task in self._tasks():
            try:
                batch = fetch(task)
            except StopIteration:
                if not self._iterable:
                    raise RuntimeError("DataLoader: the dataset raised StopIteration") from None
                return
            yield batch

    # ---- workers

    def _new_crew(self, seed):
        context = self.multiprocessing_context
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context)
        options = {
            "num_workers": self.num_workers,
            "dataset": self.dataset,
            "init": self.worker_init_fn,
            "fetch": self._fetch,
        }
        return Crew(options, context, seed)

    def _made_by_workers(self, seed):
        crew = self._crew if self.persistent_workers else None
        if crew is None or not crew.close.alive:
            crew = self._new_crew(seed)
            if self.persistent_workers:
                self._crew = crew
        try:
            yield from _Pass(self, crew)
        finally:
            if not self.persistent_workers:
                crew.close()

    def __getstate__(self):
        return {**self.__dict__, "_crew": None}


class _Pass:
    """One iteration over the batches that a crew makes: tasks go round among workers, results come in order."""

    def __init__(self, loader: DataLoader, crew: Crew):
        self.crew, self.timeout, self.iterable = crew, loader.timeout, loader._iterable
        self.round = crew.begin()
        self.tasks = loader._tasks()
        self.working = list(range(crew.count))  # an iterable dataset ends in each worker for itself
        self.asked: dict = {}  # place: worker
        self.sent = self.wanted = 0
        for _ in range(loader.prefetch_factor * crew.count):
            self._ask()

    def _ask(self):
        if not self.working:
            return
        task = next(self.tasks, None)
        if task is None:
            return
        worker = self.working[self.sent % len(self.working)]
        self.asked[self.sent] = worker
        self.sent += 1
        self.crew.ask(worker, self.sent - 1, task)

    def __iter__(self):
        while self.wanted < self.sent:
            if self.round != self.crew.round:
                raise RuntimeError(
                    "DataLoader: with persistent workers, a new pass ends the one before it"
                )
            place, worker = self.wanted, self.asked.pop(self.wanted)
            kind, value = self.crew.take(place, worker, self.timeout)
            self.wanted += 1
            if kind == END and self.iterable:
                if worker in self.working:
                    self.working.remove(worker)
                self._ask()
                continue
            self._ask()
            if kind != BATCH:
                _raise(worker, value)
            yield value


def _raise(worker, value):
    if value is None:
        raise RuntimeError("DataLoader: the dataset raised StopIteration")
    error, text = value
    raise error from WorkerTraceback(f"DataLoader worker {worker}", text)


def _check(iterable, batch_size, shuffle, sampler, batch_sampler, drop_last):
    if iterable and shuffle:
        raise ValueError("DataLoader with IterableDataset: expected unspecified shuffle option")
    if iterable and (sampler is not None or batch_sampler is not None):
        raise ValueError("DataLoader with IterableDataset: expected unspecified sampler option")
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None and (
        batch_size != 1 or shuffle or sampler is not None or drop_last
    ):
        raise ValueError(
            "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
        )
    if batch_size is None and drop_last:
        raise ValueError("batch_size=None is mutually exclusive with drop_last")


def _check_workers(num_workers, timeout, prefetch_factor, persistent_workers):
    if num_workers < 0:
        raise ValueError(
            f"num_workers option should be non-negative, got {num_workers}; use num_workers=0 to disable multiprocessing"
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError("prefetch_factor option could only be specified with num_workers > 0")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError("prefetch_factor option should be positive")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")
