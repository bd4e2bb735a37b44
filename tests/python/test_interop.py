"""Memory shared with others: NumPy, the buffer protocol, DLPack."""

import array
import copy
import gc
import pickle
import threading
import weakref

import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import spool

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8]
DTYPES += [np.bool_]


@given(
    npst.arrays(
        st.sampled_from(DTYPES), npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    ),
    st.data(),
)
def test_round_trip(original, data):
    axes = data.draw(st.permutations(range(original.ndim)))
    view = original.transpose(axes)
    if view.ndim and view.shape[0]:
        view = view[data.draw(st.integers(0, view.shape[0] - 1)) :]
    for x in (spool.from_numpy(view), spool.tensor(view)):
        assert x.dtype.itemsize == view.dtype.itemsize and x.shape == view.shape
        np.testing.assert_array_equal(x.numpy(), view)
        assert x.numpy().dtype == view.dtype
        assert repr(x.tolist()) == repr(view.tolist())


def test_from_numpy_shares_both_ways():
    a = np.arange(6.0).reshape(2, 3)
    x = spool.from_numpy(a)
    a[0, 0] = 42
    assert x[0, 0].item() == 42
    x[1] = -1
    assert a[1].tolist() == [-1, -1, -1]
    x.T[0].mul_(2)
    assert a[:, 0].tolist() == [84, -2]
    y = x + 1
    a[...] = 0
    assert y[0, 0].item() == 85


def test_numpy_shares_both_ways():
    x = spool.zeros(2, 2)
    a = x.numpy()
    a[0, 0] = 3
    x[1, 1] = 4
    assert x.tolist() == a.tolist() == [[3, 0], [0, 4]]
    assert a.base is not None
    del x
    gc.collect()
    assert a.tolist() == [[3, 0], [0, 4]]


def test_owner_lives_as_long_as_the_tensor():
    class Owner(np.ndarray):
        pass

    a = np.ones(3).view(Owner)
    reference = weakref.ref(a)
    x = spool.from_numpy(a)
    view = x[1:]
    del a, x
    gc.collect()
    assert reference() is not None and view.tolist() == [1, 1]
    del view
    gc.collect()
    assert reference() is None


def test_read_only_arrays():
    a = np.ones(2)
    a.flags.writeable = False
    x = spool.from_numpy(a)
    assert (x + 1).tolist() == [2, 2]
    with pytest.raises(ValueError):
        x.add_(1)
    assert not x.numpy().flags.writeable
    with pytest.raises(BufferError):
        x.__dlpack__()
    with pytest.raises((BufferError, TypeError)):
        memoryview(x).cast("B")[0] = 1
    assert a.tolist() == [1, 1]


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: np.ones(3)[::-1], ValueError),
        (lambda: np.ones(3, dtype=np.uint32), spool.DTypeError),
        (lambda: np.ones(3, dtype=np.clongdouble), spool.DTypeError),
        (lambda: np.array(["a"]), spool.DTypeError),
        (lambda: np.ones(3, dtype=">f4"), spool.DTypeError),
        (lambda: np.array([object()]), (spool.DTypeError, ValueError)),
        (lambda: np.frombuffer(b"\0" * 9, dtype=np.int8)[1:].view(np.float64), ValueError),
        (lambda: [1, 2], TypeError),
        (lambda: b"ab", TypeError),
        (lambda: np.ones((1,) * 13), spool.ShapeError),
    ],
)
def test_from_numpy_refuses(make, error):
    with pytest.raises(error):
        spool.from_numpy(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(3, dtype=np.clongdouble),
        lambda: np.array(["a"]),
        lambda: np.array([1], dtype="M8[s]"),
        lambda: np.array([2**63], dtype=np.uint64),
        lambda: np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        lambda: "text",
        lambda: b"bytes",
        lambda: None,
        lambda: {},
        lambda: object(),
        lambda: [None],
        lambda: [1, "a"],
        lambda: [[1], 2],
        lambda: [[1, 2], [3]],
        lambda: [2**70],
    ],
)
def test_tensor_refuses(make):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        spool.tensor(make())


def test_nesting_too_deep_or_endless():
    deep = []
    for _ in range(20):
        deep = [deep]
    with pytest.raises(spool.ShapeError):
        spool.tensor(deep)
    endless = []
    endless.append(endless)
    with pytest.raises(spool.ShapeError):
        spool.tensor(endless)


def test_sequences_that_change_while_read():
    class Trap(list):
        pass

    data = Trap([[1.0, 2.0], [3.0, 4.0]])

    class Evil(float):
        def __float__(self):
            data[1] = []
            return 1.0

    class Number:
        def __float__(self):
            data[1].clear()
            return 1.0

    data[0][0] = Number()
    with pytest.raises((RuntimeError, ValueError)):
        spool.tensor(data)


def test_requires_grad_shares_nothing():
    x = spool.ones(2, requires_grad=True)
    for share in (
        lambda: x.numpy(),
        lambda: np.asarray(x),
        lambda: x.__dlpack__(),
        lambda: memoryview(x),
    ):
        with pytest.raises((RuntimeError, BufferError), match="detach"):
            share()
    assert x.detach().numpy().tolist() == x.numpy(force=True).tolist() == [1, 1]


def test_numpy_functions_take_tensors():
    x = spool.tensor([[1.0, 4.0], [9.0, 16.0]])
    assert np.sqrt(x).tolist() == [[1, 2], [3, 4]]
    assert np.array(x, dtype=np.float64).dtype == np.float64
    assert np.asarray(x).base is not None and np.array(x).tolist() == x.tolist()
    assert np.asarray(spool.tensor([1, 2])).dtype == np.int64


def test_buffer_protocol():
    x = spool.tensor([[1, 2], [3, 4]])
    view = memoryview(x)
    assert view.shape == (2, 2) and view.tolist() == [[1, 2], [3, 4]] and view.itemsize == 8
    assert memoryview(x.T).strides == (8, 16)
    assert bytes(x.T) == np.ascontiguousarray(x.numpy().T).tobytes()
    assert spool.tensor(array.array("d", [1.0, 2.0])).dtype is spool.float64
    assert spool.from_numpy(array.array("q", [1, 2])).tolist() == [1, 2]
    with pytest.raises(BufferError, match="contiguous"):
        array.array("b").frombytes(x.T)


def test_dlpack():
    t = torch.arange(6.0).reshape(2, 3)
    x = spool.from_dlpack(t)
    t[0, 0] = 9
    assert x[0, 0].item() == 9
    y = torch.from_dlpack(x.T)
    y[0, 0] = 5
    assert t[0, 0].item() == 5
    assert np.from_dlpack(spool.ones(2)).tolist() == [1, 1]
    assert spool.from_dlpack(np.ones(3)).dtype is spool.float64
    assert torch.from_dlpack(spool.tensor([True])).dtype is torch.bool
    assert x.__dlpack_device__() == (1, 0)
    capsule = x.__dlpack__()
    del capsule
    used = spool.ones(2).__dlpack__()
    spool.from_dlpack(used)
    with pytest.raises(ValueError):
        spool.from_dlpack(used)
    with pytest.raises(BufferError):
        spool.from_dlpack(torch.ones(2, dtype=torch.uint16))
    with pytest.raises((AttributeError, TypeError)):
        spool.from_dlpack([1])


def test_foreign_memory_is_released_from_other_threads():
    class Owner(np.ndarray):
        pass

    references = []

    def work():
        a = np.ones(1000).view(Owner)
        references.append(weakref.ref(a))
        x = spool.from_numpy(a)
        (x * 2).sum().item()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.synchronize()
    gc.collect()
    assert all(r() is None for r in references)


def test_numpy_operands_do_not_lose_history():
    x = spool.tensor([1.0, 2.0], requires_grad=True)
    for operation in (lambda: np.ones(2) * x, lambda: x * np.ones(2), lambda: np.ones(2) @ x):
        with pytest.raises(TypeError, match="unsupported operand"):
            operation()
    assert (np.float32(2) * x).requires_grad
    assert (x * np.float64(2)).tolist() == [2.0, 4.0]


def test_numpy_functions_see_values():
    x = spool.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.maximum(x, 2.5).tolist() == [[2.5, 2.5], [3, 4]]
    assert np.add.reduce(x, axis=0).tolist() == [4, 6]
    assert (np.array(3.0) - x).tolist() == [[2, 1], [0, -1]]
    assert ((np.float64(2) < x) == (x > 2)).tolist() == [[True, True], [True, True]]
    out = np.zeros((2, 2), dtype=np.float32)
    np.exp(x, out=out)
    np.exp(x, out=x)
    np.testing.assert_array_equal(x.numpy(), out)
    with pytest.raises(RuntimeError, match="detach"):
        np.sqrt(spool.ones(2, requires_grad=True))


ALL = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16")
ALL += ("float32", "float64")
every_dtype = pytest.mark.parametrize("name", ALL)


def numbers(name):
    """Strided, so that whoever takes it has to look at strides."""
    return spool.tensor([[0, 1, 2], [3, 1, 0]]).to(getattr(spool, name)).t()


@every_dtype
def test_pytorch_both_ways(name):
    """Shared, not copied: what one side writes, the other reads."""
    x = numbers(name)
    there = torch.from_dlpack(x)
    assert there.dtype == getattr(torch, name) and there.tolist() == x.tolist()
    there[0, 1] = 1
    assert x[0, 1].item() == 1
    back = spool.from_dlpack(there)
    assert back.dtype == x.dtype and back.stride() == x.stride()
    back[2, 0] = 0
    assert there[2, 0].item() == 0 and x[2, 0].item() == 0


@every_dtype
def test_jax_both_ways(name):
    jax = pytest.importorskip("jax")
    x = numbers(name)
    wide = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        there = jax.dlpack.from_dlpack(x.contiguous())
        assert str(there.dtype) == name and there.tolist() == x.tolist()
        back = spool.from_dlpack(there)
    finally:
        jax.config.update("jax_enable_x64", wide)
    assert back.dtype == x.dtype and back.tolist() == x.tolist()


@every_dtype
def test_pickles_and_copies(name):
    x = numbers(name)
    for twin in (pickle.loads(pickle.dumps(x)), copy.copy(x), copy.deepcopy(x)):
        assert twin.dtype == x.dtype and twin.tolist() == x.tolist()
    base = numbers(name)
    a, b = copy.deepcopy((base, base[1]))
    assert a.storage_offset() == base.storage_offset() and b.tolist() == base[1].tolist()


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_module_and_optimizer_as_one(twin_of):
    """A copy of both goes on like the original, with the copied module's own parameters."""
    spool.manual_seed(0)
    net = spool.nn.Sequential(spool.nn.Linear(3, 4), spool.nn.Tanh(), spool.nn.Linear(4, 2))
    opt = spool.optim.AdamW(net.parameters(), lr=0.1, amsgrad=True)

    def step(net, opt):
        opt.zero_grad()
        net(spool.ones(2, 3)).square().sum().backward()
        opt.step()

    step(net, opt)
    other_net, other_opt = twin_of((net, opt))
    assert other_opt.param_groups[0]["params"][0] is other_net[0].weight
    assert (
        isinstance(other_net[0].weight, spool.nn.Parameter)
        and other_net[0].weight is not net[0].weight
    )
    for _ in range(3):
        step(net, opt)
        step(other_net, other_opt)
    assert [p.tolist() for p in net.parameters()] == [p.tolist() for p in other_net.parameters()]
