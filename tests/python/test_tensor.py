"""The Tensor object: attributes, indexing, conversion, copies, identity, and what the garbage collector sees of it."""

import copy
import gc
import inspect
import pickle
import threading
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import spool

NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
DTYPES = {name: np.dtype(name) for name in NAMES}


def grid():
    return spool.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def same(x, array):
    array = np.asarray(array)
    assert tuple(x.shape) == array.shape
    np.testing.assert_array_equal(x.detach().numpy(), array)


# ---- making ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, dtype",
    [
        (1, spool.int64),
        (1.5, spool.float32),
        (True, spool.bool),
        ([], spool.float32),
        ([1, 2.5], spool.float32),
        ([True, 2], spool.int64),
        ([[1], [2]], spool.int64),
        (np.float64(2), spool.float64),
        (np.float32(2), spool.float32),
        (np.int32([1, 2]), spool.int32),
        (np.uint8(7), spool.uint8),
        (np.float16([0.5, 65504]), spool.float16),
        (np.uint16([7, 65535]), spool.int64),
        (np.array([True]), spool.bool),
        (memoryview(b"ab").cast("b"), spool.int8),
        ([np.ones(2), np.zeros(2)], spool.float32),
        ([spool.tensor(1), spool.tensor(2)], spool.int64),
        (range(3), spool.int64),
        ((1.0, np.float64(2.0)), spool.float32),
    ],
)
def test_tensor_takes_dtype_from_data(data, dtype):
    x = spool.tensor(data)
    assert x.dtype is dtype
    same(
        x,
        np.asarray(
            data
            if not isinstance(data, list) or not data or not isinstance(data[0], spool.Tensor)
            else [d.item() for d in data]
        ).astype(DTYPES[str(dtype)[6:]]),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensor_casts_data(dtype):
    for data in (
        [[0, 1], [2, 3]],
        [[0.0, 1.9], [-2.9, 3.0]],
        np.array([0.0, -1.5]),
        np.array([[7, 0]], dtype=np.int16),
        3,
        2.7,
        True,
    ):
        same(
            spool.tensor(data, dtype=getattr(spool, dtype)), np.asarray(data).astype(DTYPES[dtype])
        )


def test_tensor_copies_strided_and_foreign_order():
    base = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for view in (base[:, ::2], base.transpose(2, 0, 1), base[::-1, :, ::-1], base[:, :0]):
        same(spool.tensor(view), view)
    array = np.ones(3, dtype=np.float32)
    x = spool.tensor(array)
    array[0] = 5
    same(x, [1, 1, 1])


def test_tensor_of_tensor_is_a_leaf_copy():
    x = spool.ones(2, requires_grad=True)
    y = spool.tensor(x * 2)
    assert y.is_leaf and not y.requires_grad
    y[0] = 9
    same(x, [1, 1])


def test_as_tensor_shares_what_it_can():
    array = np.zeros(2)
    x = spool.as_tensor(array)
    array[0] = 3
    assert x[0].item() == 3
    assert spool.as_tensor(x) is x
    assert spool.as_tensor(array, dtype=spool.float32).dtype is spool.float32
    same(spool.as_tensor(np.int8([1, 2])), [1, 2])


def test_creation():
    same(spool.zeros(2, 3), np.zeros((2, 3)))
    same(spool.ones((2, 3), dtype=spool.int64), np.ones((2, 3), dtype=np.int64))
    same(spool.zeros(size=(2,)), [0, 0])
    assert spool.zeros().shape == () and spool.empty(0, 2).shape == (0, 2)
    same(spool.full((2,), 7), np.array([7, 7]))
    same(spool.full(size := (2, 1), fill_value=True), np.full(size, True))
    same(spool.arange(4), np.arange(4))
    same(spool.arange(1, 2, 0.25), np.arange(1, 2, 0.25).astype(np.float32))
    same(spool.arange(5, 0, step=-2), np.arange(5, 0, -2))
    x = grid().double()
    assert spool.zeros_like(x).dtype is spool.float64
    same(spool.full_like(x, 2, dtype=spool.int64), np.full((2, 3), 2))
    same(x.new_ones(2), np.ones(2))
    same(x.new_full((1,), 3), np.full(1, 3.0))
    same(x.new_tensor([1]), np.ones(1))
    assert spool.rand(3, requires_grad=True).requires_grad
    spool.manual_seed(3)
    first = spool.randn(5)
    spool.manual_seed(3)
    same(spool.randn(5), first.numpy())


# ---- attributes ------------------------------------------------------------------------------------------------------------


def test_attributes():
    x = grid()
    assert x.shape == (2, 3) and isinstance(x.shape, tuple) and x.shape.numel() == 6
    assert repr(x.shape) == "spool.Size([2, 3])"
    assert x.size() == x.shape and x.size(0) == 2 and x.size(-1) == 3 and x.size(dim=1) == 3
    assert x.stride() == (3, 1) and x.stride(0) == 3 and x.T.stride() == (1, 3)
    assert x.ndim == x.dim() == 2 and x.numel() == 6 and len(x) == 2
    assert x.itemsize == x.element_size() == 4 and x.nbytes == 24
    assert x.is_contiguous() and not x.T.is_contiguous() and x[1].storage_offset() == 3
    assert (
        x.dtype is spool.float32 is spool.float and x.is_floating_point() and x.dtype.itemsize == 4
    )
    assert str(x.device) == "cpu" and x.device == "cpu" and x.device.type == "cpu"
    assert x.data_ptr() == x[0].data_ptr() == x[1].data_ptr() - 12
    assert x.mT.shape == (3, 2) and x.type() == "spool.FloatTensor"


def test_numbers():
    assert (
        float(spool.tensor(2.5)) == 2.5
        and int(spool.tensor(-2.7)) == -2
        and bool(spool.tensor([[1]]))
    )
    assert [10, 20, 30][spool.tensor(2)] == 30 and f"{spool.tensor(1.25):.1f}" == "1.2"
    assert spool.tensor(2**53 + 1).item() == 2**53 + 1
    assert isinstance(spool.tensor(True).item(), bool)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(grid())
    with pytest.raises(TypeError, match="index"):
        [1][spool.tensor(0.0)]


def test_tolist_and_iteration():
    assert grid().T.tolist() == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    assert spool.tensor(3).tolist() == 3 and spool.zeros(2, 0).tolist() == [[], []]
    assert [row.tolist() for row in grid()] == grid().tolist()
    assert 3.0 in grid() and 7 not in grid()
    with pytest.raises(TypeError):
        iter(spool.tensor(1))
    with pytest.raises(TypeError):
        len(spool.tensor(1))


def test_repr():
    x = grid()
    assert repr(x) == "tensor([[1., 2., 3.],\n        [4., 5., 6.]])"
    x.requires_grad_()
    assert repr(x).endswith("]], requires_grad=True)")
    assert repr((x * 2).sum()) == "tensor(42., grad_fn=<SumBackward>)"
    assert repr(spool.tensor([1, 2])) == "tensor([1, 2])"
    assert "float64" in repr(x.detach().double())


@pytest.mark.parametrize("module", [spool, spool.func, spool.autograd, spool.launch])
def test_public_functions_have_signature_and_doc(module):
    for name in getattr(module, "__all__", [n for n in dir(module) if n[0] != "_"]):
        found = getattr(module, name)
        if callable(found) and not isinstance(found, type):
            assert found.__doc__, name
            assert inspect.signature(found) is not None
            assert found.__name__ == name


def test_hash_is_identity():
    x = grid()
    assert len({x, x, grid()}) == 2
    assert {x: 1}[x] == 1


# ---- indexing --------------------------------------------------------------------------------------------------------------

ints = st.integers(-4, 4)
items = st.one_of(
    ints,
    st.slices(5),
    st.none(),
    st.just(Ellipsis),
    st.lists(st.integers(-2, 1), min_size=1, max_size=4),
)


@settings(max_examples=300)
@given(st.lists(items, max_size=4).map(tuple))
def test_indexing_is_numpys(key):
    array = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    if sum(isinstance(k, list) for k in key) > 1 or any(
        isinstance(k, slice) and (k.step or 1) < 0 for k in key
    ):
        return
    # NumPy moves a list's dimension to the front when an int stands apart from it: PyTorch does, too; here it stays.
    if any(isinstance(k, list) for k in key) and any(isinstance(k, int) for k in key):
        return
    x = spool.tensor(array)
    try:
        wanted = array[key]
    except IndexError:
        with pytest.raises(IndexError):
            x[key]
        return
    same(x[key], wanted)
    y, copied = spool.tensor(array), array.copy()
    y[key] = 7
    copied[key] = 7
    same(y, copied)
    values = np.arange(wanted.size, dtype=np.float32).reshape(wanted.shape)
    if not any(isinstance(k, list) and len({v % 2 for v in k}) < len(k) for k in key):
        y[key] = spool.tensor(values)
        copied[key] = values
        same(y, copied)


def test_masks():
    x, array = grid(), np.arange(1.0, 7, dtype=np.float32).reshape(2, 3)
    same(x[x > 2], array[array > 2])
    same(x[spool.tensor([True, False])], array[[True, False]])
    same(x[:, spool.tensor([True, False, True])], array[:, [True, False, True]])
    x[x > 4] = 0
    array[array > 4] = 0
    same(x, array)
    x[x == 0] = spool.tensor([8.0, 9.0])
    array[array == 0] = [8, 9]
    same(x, array)
    x[spool.tensor([False, True])] = -1
    array[[False, True]] = -1
    same(x, array)
    with pytest.raises(IndexError, match="mask"):
        x[spool.tensor([True, False, True])]


def test_index_tensors():
    x, array = grid(), np.arange(1.0, 7, dtype=np.float32).reshape(2, 3)
    same(x[spool.tensor([[0, 1], [1, 0]])], array[[[0, 1], [1, 0]]])
    same(x[spool.tensor([0, 1]), spool.tensor([2, -1])], array[[0, 1], [2, -1]])
    same(x[np.array([1, 1])], array[[1, 1]])
    same(x[np.int64(1)], array[1])
    same(x[[]], array[[]])
    same(x[spool.tensor(1), spool.tensor(0)], array[1, 0])
    y = spool.tensor(np.arange(24.0).reshape(2, 3, 4), requires_grad=True)
    y[:, [0, 2], [1, 3]].sum().backward()
    wanted = np.zeros((2, 3, 4))
    wanted[:, [0, 2], [1, 3]] = 1
    same(y.grad, wanted)


def test_assignment_broadcasts_casts_and_records():
    x = spool.zeros(2, 3)
    x[0] = [1, 2, 3]
    x[:, 1] = spool.tensor(9)
    x[1] = np.array([4.0, 5.0, 6.0])
    x[0, 2] = True
    same(x, [[1, 9, 1], [4, 5, 6]])
    x[...] = spool.ones(1, 1, 3)
    same(x, np.ones((2, 3)))
    w = spool.tensor([2.0], requires_grad=True)
    y = spool.zeros(3)
    y[1:] = w * 3
    y.sum().backward()
    same(w.grad, [6])


@pytest.mark.parametrize(
    "key, error",
    [
        (5, IndexError),
        ((0, 0, 0), IndexError),
        ("a", TypeError),
        (1.5, TypeError),
        (slice(None, None, -1), ValueError),
        ([5], IndexError),
        ([0.5], IndexError),
        ((Ellipsis, Ellipsis), IndexError),
        (slice(None, None, 0), ValueError),
        (2**70, OverflowError),
    ],
)
def test_bad_indices(key, error):
    with pytest.raises(error):
        grid()[key]
    with pytest.raises(error):
        grid()[key] = 1


# ---- conversion and copies -------------------------------------------------------------------------------------------------


def test_to():
    x = grid()
    assert x.to(spool.float32) is x and x.float() is x and x.cpu() is x and x.to("cpu") is x
    assert x.to(spool.float32, copy=True) is not x
    assert (
        x.double().dtype
        is x.to(dtype=spool.float64).dtype
        is x.to("cpu", spool.float64).dtype
        is spool.float64
    )
    assert x.long().dtype is x.to(int).dtype is spool.int64 and x.bool().dtype is spool.bool
    assert (
        x.to(spool.tensor([1])).dtype
        is x.type_as(spool.tensor(1)).dtype
        is x.type(spool.int64).dtype
        is spool.int64
    )
    with pytest.raises(TypeError):
        x.to(3)
    with pytest.raises(NotImplementedError, match="cuda"):
        x.to("cuda")


class Parameter(spool.Tensor):
    """A subclass with an attribute and a method of its own."""

    def __new__(cls, data, name="p"):
        return super().__new__(cls, data)

    def __init__(self, data, name="p"):
        self.name = name

    def double_sum(self):
        return (self * 2).sum()


def test_subclasses_and_attributes_survive():
    p = Parameter(spool.tensor([1.0, 2.0]), name="weight")
    p.requires_grad_()
    assert isinstance(p, Parameter) and p.name == "weight" and type(p * 2) is spool.Tensor
    p.double_sum().backward()
    assert p.grad is p.grad
    grad = p.grad
    p.grad.note = "kept"
    del grad
    gc.collect()
    assert p.grad.note == "kept"
    holder = [p]
    identity = id(p)
    del p
    gc.collect()
    assert id(holder[0]) == identity and holder[0].name == "weight"
    with pytest.raises(TypeError, match="__slots__"):
        type("Slotted", (spool.Tensor,), {"__slots__": ("a",)})(grid())


def test_subclass_shares_values():
    base = spool.zeros(2)
    p = Parameter(base)
    p[0] = 4
    same(base, [4, 0])


def test_deepcopy_and_pickle():
    x = Parameter(spool.tensor([1.0, 2.0]), name="w")
    x.requires_grad = True
    x.extra = [1, 2]
    (x * x).sum().backward()
    pair = copy.deepcopy({"a": x, "b": x})
    y = pair["a"]
    assert y is pair["b"] and y is not x and type(y) is Parameter and y.requires_grad
    assert y.extra == [1, 2] and y.extra is not x.extra
    same(y.grad, x.grad.numpy())
    z = pickle.loads(pickle.dumps(x))
    assert type(z) is Parameter and z.requires_grad and z.extra == [1, 2]
    same(z, x.detach().numpy())
    same(copy.copy(x), x.detach().numpy())
    for dtype in DTYPES:
        value = spool.tensor([[1, 0, 3]], dtype=getattr(spool, dtype)).T
        same(pickle.loads(pickle.dumps(value)), value.numpy())
    assert pickle.loads(pickle.dumps((spool.float64, x.shape))) == (spool.float64, x.shape)
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(x * 2)


def test_data():
    x = spool.ones(2, requires_grad=True)
    x.data[0] = 5
    assert not x.data.requires_grad
    same(x, [5, 1])
    exported = x.detach().numpy()
    x.data = spool.zeros(3)
    assert x.shape == (3,) and x.requires_grad and x.is_leaf
    np.testing.assert_array_equal(exported, [5, 1])
    with pytest.raises(TypeError):
        x.data = spool.zeros(3, dtype=spool.int64)


# ---- the tape from Python --------------------------------------------------------------------------------------------------


def test_grad_and_grad_fn():
    x = spool.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    assert x.is_leaf and x.grad is None and x.grad_fn is None and not y.is_leaf and y.requires_grad
    assert y.grad_fn.name() == "SumBackward"
    ((mul, _),) = y.grad_fn.next_functions
    assert mul.next_functions[0][0].variable is x and mul == y.grad_fn.next_functions[0][0]
    y.backward(retain_graph=True)
    y.backward(gradient=spool.tensor(2.0))
    same(x.grad, [6, 12])
    x.grad = None
    assert x.grad is None
    x.grad = spool.ones(2)
    x.grad.zero_()
    same(x.grad, [0, 0])
    del x.grad
    assert x.grad is None


def test_hooks():
    x = spool.ones(2, requires_grad=True)
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    with x.register_hook(lambda g: g * 2):
        (x * 3).sum().backward()
    handle.remove()
    handle.remove()
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]]
    same(x.grad, [9, 9])
    y = x * 2
    y.retain_grad()
    after = []
    x.register_post_accumulate_grad_hook(lambda t: after.append(t is x))
    y.sum().backward()
    same(y.grad, [1, 1])
    assert after == [True]


def test_hook_errors_are_the_users():
    x = spool.ones(2, requires_grad=True)
    handle = x.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        x.sum().backward()
    handle.remove()
    handle = x.register_hook(lambda g: "text")
    with pytest.raises(TypeError, match="hook"):
        x.sum().backward()
    handle.remove()
    x.sum().backward()
    same(x.grad, [1, 1])


def test_autograd_grad():
    x = spool.tensor([1.0, 2.0], requires_grad=True)
    unused = spool.ones(1, requires_grad=True)
    y = (x * x * x).sum()
    (first,) = spool.autograd.grad(y, x, create_graph=True)
    (second,) = spool.autograd.grad(first.sum(), [x])
    same(second, [6, 12])
    assert x.grad is None
    assert spool.autograd.grad((x * 1).sum(), [x, unused], allow_unused=True)[1] is None
    same(spool.autograd.grad((x * 1).sum(), [x, unused], materialize_grads=True)[1], [0])
    same(
        spool.autograd.grad([x * 1, x * 2], x, grad_outputs=[spool.ones(2), spool.ones(2)])[0],
        [3, 3],
    )
    with pytest.raises(RuntimeError):
        spool.autograd.grad((x * 1).sum(), [x, unused])
    spool.autograd.backward([(x * x).sum(), x.sum()])
    same(x.grad, [3, 5])


def test_grad_mode():
    x = spool.ones(2, requires_grad=True)
    with spool.no_grad():
        assert not (x * 2).requires_grad and not spool.is_grad_enabled()
        with spool.enable_grad():
            assert (x * 2).requires_grad
        assert not spool.is_grad_enabled()
    shared = spool.no_grad()
    with shared, shared:
        pass
    assert spool.is_grad_enabled()

    @spool.no_grad()
    def quiet(y):
        """Its doc."""
        return y * 2

    @spool.no_grad
    def quiet_too(y):
        return y * 2

    assert (
        not quiet(x).requires_grad
        and not quiet_too(x).requires_grad
        and quiet.__doc__ == "Its doc."
    )
    spool.set_grad_enabled(False)
    assert not spool.is_grad_enabled()
    spool.set_grad_enabled(True)
    with spool.set_grad_enabled(False):
        assert not spool.is_grad_enabled()
    assert spool.is_grad_enabled()
    with pytest.raises(KeyError):
        with spool.no_grad():
            raise KeyError
    assert spool.is_grad_enabled()
    modes = []
    with spool.no_grad():
        thread = threading.Thread(target=lambda: modes.append(spool.is_grad_enabled()))
        thread.start()
        thread.join()
    assert modes == [True]


def test_detach():
    x = spool.ones(2, requires_grad=True)
    y = (x * 2).detach_()
    assert y.is_leaf and not y.requires_grad
    z = x.detach()
    z[0] = 4
    same(x, [4, 1])


# ---- the garbage collector -------------------------------------------------------------------------------------------------


class Witness:
    """Something to hold a weak reference to."""


def collected(make):
    reference = make()
    gc.collect()
    return reference() is None


def test_cycles_are_collected():
    def through_dict():
        x, w = spool.ones(2), Witness()
        x.self, x.witness = x, w
        return weakref.ref(w)

    def through_hook():
        x, w = spool.ones(2, requires_grad=True), Witness()
        x.register_hook(lambda g: (x, w))
        return weakref.ref(w)

    def through_hook_of_inner():
        x, w = spool.ones(2, requires_grad=True) * 2, Witness()
        x.register_hook(lambda g: (x, w))
        return weakref.ref(w)

    def through_handle():
        x, w = spool.ones(2, requires_grad=True), Witness()
        x.handle = x.register_hook(lambda g: w)
        return weakref.ref(w)

    def through_grad():
        x, w = spool.ones(2, requires_grad=True), Witness()
        x.sum().backward()
        x.grad.leaf, x.grad.witness = x, w
        return weakref.ref(w)

    for make in (through_dict, through_hook, through_hook_of_inner, through_handle, through_grad):
        assert collected(make), make.__name__


def test_collector_spares_hooks_that_the_tape_needs():
    seen = []

    def build():
        x = spool.ones(2, requires_grad=True)
        y = x * 2
        y.register_hook(lambda g, y=y: seen.append(y.shape))
        return x, (y * 3).sum()

    x, z = build()
    gc.collect()
    z.backward()
    assert seen == [(2,)]
    same(x.grad, [6, 6])


def test_plain_tensors_are_not_tracked():
    x = grid()
    assert not gc.is_tracked(x) and not gc.is_tracked(x + 1)
    x.note = 1
    assert gc.is_tracked(x)


def test_weak_references():
    x = grid()
    reference = weakref.ref(x)
    assert reference() is x
    del x
    assert reference() is None


def test_memory_comes_back():
    def work():
        x = spool.randn(64, 64, requires_grad=True)
        (x @ x).sum().backward()
        return x.grad.numpy().sum()

    for _ in range(40):  # also lets what repeats become a hot region, whose buffers stay
        work()
    gc.collect()
    before = spool.memory_stats()["live_bytes"]
    for _ in range(20):
        work()
    gc.collect()
    assert spool.memory_stats()["live_bytes"] <= before


ARRAY = np.arange(6.0).reshape(2, 3)
CALLS = {
    "tensor of lists": lambda x: spool.tensor([[1, 2.0], [3, 4]]),
    "tensor of an array": lambda x: spool.tensor(ARRAY.T, dtype=spool.float32),
    "shared": lambda x: spool.from_numpy(ARRAY) + 1,
    "exported": lambda x: x.numpy() + memoryview(x).nbytes,
    "dlpack": lambda x: spool.from_dlpack(x.__dlpack__()),
    "indexed": lambda x: (x[0], x[:, 1:], x[None, ..., 0], x[[1, 0]], x[x > 2], x[[0, 1], [1, 2]]),
    "assigned": lambda x: [x.clone().__setitem__(key, 1.0) for key in (0, (0, 1), [1], x > 2)],
    "listed": lambda x: (x.tolist(), x[0].tolist(), repr(x)),
    "copied": lambda x: (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.to(spool.float64)),
    "created": lambda x: (spool.zeros(2, requires_grad=True), spool.rand(3), x.new_full((2,), 1)),
    "subclassed": lambda x: Parameter(x, name="n").name,
    "hooked": lambda x: x.detach().requires_grad_().register_hook(print).remove(),
    "differentiated": lambda x: spool.autograd.grad((w := x.clone().requires_grad_()).sum(), [w]),
    "transformed": lambda x: spool.func.hessian(lambda v: (v * v * v).sum())(x[0]),
    "mapped": lambda x: spool.func.vmap(lambda v: v.sum())(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_failing_allocations(name):
    """Allocation 1, 2, 3, ... fails: MemoryError each time, until the call succeeds; nothing leaks."""
    x = grid()
    call = CALLS[name]
    call(x)
    gc.collect()
    before = spool.memory_stats()["live_blocks"]
    for nth in range(1, 1000):
        spool._C._memory_fail_nth(nth)
        try:
            call(x)
            break
        except MemoryError:
            pass
        finally:
            spool._C._memory_fail_nth(0)
    else:
        raise AssertionError("still failing")
    gc.collect()
    assert spool.memory_stats()["live_blocks"] <= before + 2
    same(x, grid().numpy())


def test_finalizers_and_resurrection():
    kept = []

    class Final(spool.Tensor):
        def __del__(self):
            kept.append(self)

    x = Final(spool.tensor([3.0]))
    x.tag = "t"
    del x
    gc.collect()
    assert kept[0].tag == "t" and kept[0].item() == 3.0


def test_threads():
    x = spool.randn(16, 16)
    wanted = (x @ x).sum().item()
    got = []

    def work():
        for _ in range(200):
            got.append((x @ x).sum().item())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(got) == {wanted} and len(got) == 800


def test_results_are_pytorchs():
    array = np.random.randn(3, 4).astype(np.float32)
    x, t = spool.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    for lib, v in ((spool, x), (torch, t)):
        y = (lib.tanh(v) * v[0] + v[:, 1:2] / 2).sum()
        y.backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-5, atol=1e-6)
