"""Worker processes: what runs in them, and the crew of them that a loader asks for batches.

    loader   --(round, number, indices)-->   worker    one pipe each way and worker
             <--(round, number, kind, value)--

Invariants
----------
1. The loader never waits for a worker to take a task: a thread of the worker does nothing but receive them. So a worker that
   waits until its result is read cannot keep the loader from reading it.
2. A worker ends when it is told to, when its pipe closes, or when its parent is gone.
3. Results of an earlier round (an iterator given up) are dropped.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import random
import signal
import sys
import threading
import time
import traceback
import weakref
from typing import Any, NamedTuple

from .. import _C

__all__ = ["Crew", "Fetcher", "WorkerInfo", "get_worker_info"]

BATCH, END, ERROR = "batch", "end", "error"
_PARENT_CHECK_S = 5.0


class WorkerInfo(NamedTuple):
    """What a worker process knows of itself."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The id, number of workers, seed and dataset of this worker process; None outside of one."""
    return _info


class WorkerTraceback(Exception):
    """The cause of an error that came from a worker: the traceback there, as text."""

    def __str__(self):
        return f"\n\nOriginal traceback, in {self.args[0]}:\n\n{self.args[1]}"


class Fetcher:
    """Makes a batch (or an item) of numbers, or of the next ones of an iterable dataset."""

    def __init__(
        self, dataset, iterable: bool, batched: bool, collate, drop_last: bool, direct: bool
    ):
        self.dataset, self.batched, self.collate = dataset, batched, collate
        self.drop_last, self.direct = drop_last, direct
        self.iterator = iter(dataset) if iterable else None
        self.size = 0

    def __call__(self, indices):
        """Raises StopIteration where an iterable dataset ends."""
        if self.iterator is not None:
            return self._next(indices)
        if not self.batched:
            return self.collate(self.dataset[indices])
        if self.direct:
            return self.dataset.collated(indices)
        if hasattr(self.dataset, "__getitems__"):
            return self.collate(self.dataset.__getitems__(indices))
        return self.collate([self.dataset[i] for i in indices])

    def _next(self, indices):
        if not self.batched:
            return self.collate(next(self.iterator))
        items = [item for _, item in zip(indices, self.iterator)]
        if not items or (self.drop_last and len(items) < len(indices)):
            raise StopIteration
        return self.collate(items)


# ---- in the worker


def _seed_all(seed: int) -> None:
    _C.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def _portable(error: BaseException) -> BaseException:
    """The error itself where it survives the way through a pipe, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # noqa: BLE001 - whatever an exception class does when it is made anew
        return RuntimeError(f"{type(error).__name__}: {error}")


def _answer(results, task, kind, value):
    try:
        results.send((*task, kind, value))
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit from None
    except Exception as error:  # noqa: BLE001 - a batch that cannot be pickled is the user's to see
        results.send((*task, ERROR, (_portable(error), traceback.format_exc())))


def _receive(tasks, inbox, parent):
    while True:
        try:
            if tasks.poll(_PARENT_CHECK_S):
                inbox.put(tasks.recv())
            elif os.getppid() != parent:
                os._exit(1)
        except (EOFError, OSError):
            inbox.put(None)
            return


def _work(options, number, seed, tasks, results, inherited, parent) -> None:
    """The main function of a worker process. `inherited` is what a fork leaves open of the loader's ends."""
    global _info
    for connection in inherited:
        connection.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loader's process decides
    _C.set_num_threads(1)
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks, inbox, parent), daemon=True).start()
    fetchers: dict = {}
    while True:
        task = inbox.get()
        if task is None:
            return
        round_, place, indices = task
        try:
            if round_ not in fetchers:
                _seed_all(seed + round_ * options["num_workers"])
                _info = WorkerInfo(number, options["num_workers"], seed, options["dataset"])
                if not fetchers and options["init"] is not None:
                    options["init"](number)
                fetchers = {round_: Fetcher(**options["fetch"])}
            value, kind = fetchers[round_](indices), BATCH
        except StopIteration:
            value, kind = None, END
        except Exception as error:  # noqa: BLE001 - raised again where the batch is asked for
            value, kind = (_portable(error), traceback.format_exc()), ERROR
        _answer(results, (round_, place), kind, value)


# ---- in the loader's process


def _dismiss(owner, processes, tasks, results):
    """Ends workers: politely, then not."""
    if os.getpid() != owner:
        return  # a copy of the crew in a forked process
    for connection in tasks:
        try:
            connection.send(None)
        except OSError:
            pass  # it is gone already
    for connection in (*tasks, *results):
        connection.close()
    deadline = time.monotonic() + 2.0
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.terminate()
            process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()


class Crew:
    """Worker processes, and the tasks that are under way."""

    def __init__(self, options: dict, context, seed: int):
        self.count = options["num_workers"]
        self.processes, self.tasks, self.results = [], [], []
        self.round = -1
        self.waiting: dict = {}
        for number in range(self.count):
            theirs, ours = context.Pipe(duplex=False)
            mine, answers = context.Pipe(duplex=False)
            forks = context.get_start_method() == "fork"
            inherited = [*self.tasks, *self.results, ours, mine] if forks else []
            process = context.Process(
                target=_work,
                args=(options, number, seed + number, theirs, answers, inherited, os.getpid()),
                daemon=True,
            )
            process.start()
            theirs.close()
            answers.close()
            self.processes.append(process)
            self.tasks.append(ours)
            self.results.append(mine)
        self.close = weakref.finalize(
            self, _dismiss, os.getpid(), self.processes, self.tasks, self.results
        )

    def begin(self) -> int:
        """A new round: what is under way of the last one no longer counts."""
        self.round += 1
        self.waiting = {}
        return self.round

    def ask(self, worker: int, place: int, indices) -> None:
        """Gives a worker the task to make the batch of that place."""
        try:
            self.tasks[worker].send((self.round, place, indices))
        except OSError:
            self._lost(worker)

    def take(self, place: int, worker: int, timeout: float):
        """(kind, value) of a place, as soon as it is there."""
        deadline = time.monotonic() + timeout if timeout else None
        while place not in self.waiting:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = multiprocessing.connection.wait(
                [*self.results, self.processes[worker].sentinel], left
            )
            if not ready:
                raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
            read = [c for c in self.results if c in ready]
            for connection in read:
                self._read(connection)
            if not read:
                self._lost(worker)
        return self.waiting.pop(place)

    def _read(self, connection):
        try:
            round_, place, kind, value = connection.recv()
        except (EOFError, OSError):
            self._lost(self.results.index(connection))
        if round_ == self.round:
            self.waiting[place] = kind, value

    def _lost(self, worker):
        process = self.processes[worker]
        process.join(1.0)
        pid, code = process.pid, process.exitcode
        self.close()
        raise RuntimeError(
            f"DataLoader worker {worker} (pid {pid}) exited unexpectedly with exit code {code}. "
            "num_workers=0 shows errors where they happen"
        ) from None
