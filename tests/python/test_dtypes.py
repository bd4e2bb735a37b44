"""Number types: promotion, conversion, arithmetic, printing and sharing of all dtypes, against PyTorch's."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

import spool

NAMES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
)
HALVES = ("float16", "bfloat16")
SHAPES = ((2,), ())
each = pytest.mark.parametrize("name", NAMES)


def name_of(tensor):
    return str(tensor.dtype).split(".")[-1]


def pair(values, name):
    """The same tensor of Spool and of PyTorch."""
    wanted = torch.tensor(values, dtype=torch.float64).to(getattr(torch, name))
    return spool.tensor(wanted.tolist(), dtype=getattr(spool, name)), wanted


def same(got, wanted):
    assert name_of(got) == name_of(wanted)
    assert tuple(got.shape) == tuple(wanted.shape)
    np.testing.assert_array_equal(np.array(got.tolist()), np.array(wanted.tolist()))


# ---- promotion ----


@each
def test_tensors_promote_as_torchs(name):
    for other, shapes in itertools.product(NAMES, itertools.product(SHAPES, SHAPES)):
        results = [
            lib.ones(shapes[0], dtype=getattr(lib, name))
            + lib.ones(shapes[1], dtype=getattr(lib, other))
            for lib in (spool, torch)
        ]
        assert name_of(results[0]) == name_of(results[1]), (name, other, shapes)


@each
def test_numbers_promote_as_torchs(name):
    for number, shape in itertools.product((True, 2, 2.5), SHAPES):
        for op in (lambda x, y: x * y, lambda x, y: x / y):
            results = [
                op(lib.ones(shape, dtype=getattr(lib, name)), number) for lib in (spool, torch)
            ]
            assert name_of(results[0]) == name_of(results[1]), (name, number, shape)


@each
def test_result_types_are_torchs(name):
    for other, shapes in itertools.product(NAMES, itertools.product(SHAPES, SHAPES)):
        found, wanted = [
            lib.result_type(
                lib.ones(shapes[0], dtype=getattr(lib, name)),
                lib.ones(shapes[1], dtype=getattr(lib, other)),
            )
            for lib in (spool, torch)
        ]
        assert str(found).split(".")[-1] == str(wanted).split(".")[-1], (name, other, shapes)
        kinds = [getattr(lib, other) for lib in (spool, torch)]
        found = spool.promote_types(getattr(spool, name), kinds[0])
        assert str(found)[6:] == str(torch.promote_types(getattr(torch, name), kinds[1]))[6:]
        assert spool.can_cast(getattr(spool, name), kinds[0]) == torch.can_cast(
            getattr(torch, name), kinds[1]
        )
    for number in (True, 2, 2.5):
        x, y = (lib.ones(2, dtype=getattr(lib, name)) for lib in (spool, torch))
        assert str(spool.result_type(x, number))[6:] == str(torch.result_type(y, number))[6:]
    with pytest.raises(TypeError, match="neither"):
        spool.result_type(spool.ones(2), "2")


@each
def test_limits_are_torchs(name):
    ours, theirs = getattr(spool, name), getattr(torch, name)
    if theirs.is_floating_point:
        fields, info = (
            ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution"),
            "finfo",
        )
    else:
        fields, info = ("bits", "max", "min"), "iinfo"
    if name == "bool":
        with pytest.raises(TypeError, match="integer dtype"):
            spool.iinfo(ours)
        return
    found, wanted = getattr(spool, info)(ours), getattr(torch, info)(theirs)
    for field in fields:
        assert getattr(found, field) == pytest.approx(getattr(wanted, field), rel=1e-12), field
    assert name in repr(found)
    with pytest.raises(TypeError, match="expected a"):
        getattr(spool, "iinfo" if info == "finfo" else "finfo")(ours)


# ---- conversion ----

NUMBERS = [0, 1, -1, 2.7, -3.9, 100, 200, 300, -129, 40000, 1e6, 1e9, -1e9, 1e-3, 1e-6, 0.1]
NUMBERS += [65504, 65519, 65520, 6.1e-5, 5.9e-8, 2.9e-8, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8]


@each
def test_conversions_are_torchs(name):
    x, wanted = pair(NUMBERS, name)
    same(x, wanted)
    for other in NAMES:
        same(x.to(getattr(spool, other)), wanted.to(getattr(torch, other)))
        same(x[::2].to(getattr(spool, other)), wanted[::2].to(getattr(torch, other)))


@pytest.mark.parametrize("name", HALVES)
def test_every_half_and_back(name):
    """All 65536 of them widen as PyTorch's do, and every float32 near one rounds as it does there."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    halves = bits.view(getattr(torch, name))
    x = spool.from_dlpack(halves)
    wide = halves.float()
    np.testing.assert_array_equal(x.float().numpy(), wide.numpy())
    with np.errstate(invalid="ignore"):
        around = [np.nextafter(wide.numpy(), np.float32(s)) for s in (-np.inf, np.inf)]
    near = np.concatenate([*around, wide.numpy()])
    between = (wide[1:] + wide[:-1]).numpy() / 2
    near = np.concatenate([near, between, np.float32([np.inf, -np.inf, np.nan, -0.0])])
    got = spool.tensor(near).to(getattr(spool, name))
    wanted = torch.from_numpy(near).to(getattr(torch, name))
    same(got, wanted)
    assert (np.signbit(got.float().numpy()) == np.signbit(wanted.float().numpy()))[
        ~np.isnan(near)
    ].all()


def test_infinities_and_nan_to_integers():
    x = spool.tensor([float("inf"), float("-inf"), float("nan"), 1e30])
    assert x.int().tolist() == [-(2**31)] * 4
    assert x.long().tolist() == [-(2**63)] * 4
    assert x.bool().tolist() == [True] * 4


def test_methods_convert():
    x = spool.tensor([0.0, 1.5])
    for method, name in (
        ("half", "float16"),
        ("bfloat16", "bfloat16"),
        ("float", "float32"),
        ("double", "float64"),
        ("byte", "uint8"),
        ("char", "int8"),
        ("short", "int16"),
        ("int", "int32"),
        ("long", "int64"),
        ("bool", "bool"),
    ):
        assert getattr(x, method)().dtype is getattr(spool, name)
        assert getattr(x, method)().type() == getattr(torch.zeros(1), method)().type().replace(
            "torch", "spool"
        )
    assert (spool.half, spool.short, spool.int) == (spool.float16, spool.int16, spool.int32)


# ---- arithmetic ----


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bool"])
@pytest.mark.parametrize("n", [1, 7, 64, 1000, 20000])
def test_arithmetic_is_torchs(name, n):
    rng = np.random.default_rng(n)
    values = rng.integers(-200, 200, (2, n)) if "int" in name else rng.normal(size=(2, n)) * 100
    (x, a), (y, b) = (pair(v.tolist(), name) for v in values)
    for op in (
        lambda p, q: p + q,
        lambda p, q: p - q,
        lambda p, q: p * q,
        lambda p, q: p / (q + (q == 0)),
        lambda p, q: -p,
        lambda p, q: p < q,
        lambda p, q: p == q,
        lambda p, q: p * 3 - 1,
        lambda p, q: p.relu(),
    ):
        same(op(x, y), op(a, b))
        same(op(x[::3], y[::3]), op(a[::3], b[::3]))
    same(spool.where(x < y, x, y), torch.where(a < b, a, b))


@pytest.mark.parametrize("name", HALVES)
def test_halves_round_the_float32_result_once(name):
    dtype = getattr(spool, name)
    x = spool.tensor(np.random.default_rng(1).uniform(0.1, 4, 3000)).to(dtype)
    for op in (spool.exp, spool.log, spool.tanh, spool.sqrt, lambda t: t**3, lambda t: 1 / t):
        assert op(x).tolist() == op(x.float()).to(dtype).tolist()


@each
def test_fused_bits_are_eagers(name):
    x = spool.tensor(np.arange(-40, 60) / 7).to(getattr(spool, name))

    def chain(t):
        u = t * t + t
        return spool.where(u > 1, u, t) * 2 + u.long(), (u * 0.3).relu() * t

    for got, wanted in zip(spool.jit(chain)(x), chain(x)):
        assert got.dtype is wanted.dtype
        assert got.tolist() == wanted.tolist()


WHOLE = [n for n in NAMES if "float" not in n]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bool"])
def test_quotients_bounds_and_signs_are_torchs(name):
    x, a = pair([-128, -7, -3, -1, 0, 1, 3, 7, 127, 100], name)
    y, b = pair([3, -2, 5, -1, 7, 2, -4, 9, 10, 33], name)
    for op in ("remainder", "floor_divide", "fmod", "minimum", "maximum"):
        same(getattr(spool, op)(x, y), getattr(torch, op)(a, b))
    same(x.clamp(-5, 50), a.clamp(-5, 50)) if name != "uint8" else None
    same(x.abs(), a.abs())
    same(x.sign(), a.sign())
    same(x.square(), a.square())
    same(x.logical_not(), a.logical_not())
    same(x.masked_fill(x > 3, 1), a.masked_fill(a > 3, 1))


@pytest.mark.parametrize("name", WHOLE)
def test_bits_are_torchs(name):
    x, a = pair([-128, -7, -3, -1, 0, 1, 3, 7, 127, 100], name)
    y, b = pair([3, 2, 5, 1, 7, 2, 4, 6, 1, 3], name)
    for op in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        same(getattr(spool, op)(x, y), getattr(torch, op)(a, b))
    same(spool.bitwise_not(x), torch.bitwise_not(a))
    if name != "bool":
        same(spool.bitwise_left_shift(x, y), torch.bitwise_left_shift(a, b))
        same(spool.bitwise_right_shift(x, y), torch.bitwise_right_shift(a, b))


# ---- moving elements ----


@each
def test_moving_is_by_size(name):
    x, a = pair((np.arange(60).reshape(4, 15) % 100).tolist(), name)
    index = np.array([[2, 0, 1], [3, 3, 0]])
    for spelling in ("int64", "int32"):
        i, j = spool.tensor(index).to(getattr(spool, spelling)), torch.tensor(index)
        same(spool.gather(x, 0, i), torch.gather(a, 0, j))
        same(x.index_select(0, i[0]), a.index_select(0, j[0]))
        same(x[i[1]], a[j[1]])
    same(x.T.clone(), a.T.clone())
    same(x.T.reshape(60), a.T.reshape(60))
    same(x.T.contiguous()[::2], a.T.contiguous()[::2])
    same(x.expand(2, 4, 15) + 0, a.expand(2, 4, 15) + 0)
    same(x.as_strided((3, 2), (2, 5)).clone(), a.as_strided((3, 2), (2, 5)).clone())
    y, b = x.clone(), a.clone()
    y[1, ::2] = 1
    b[1, ::2] = 1
    y[0] = x[3]
    b[0] = a[3]
    same(y, b)
    same(x.clone().copy_(spool.full((15,), 2.7)), a.clone().copy_(torch.full((15,), 2.7)))


# ---- reductions and products ----


@each
def test_reductions_are_torchs(name):
    x, a = pair((np.arange(60).reshape(4, 15) - 20).tolist(), name)
    same(x.sum(), a.sum())
    same(x.sum(dim=1), a.sum(dim=1))
    same(x.T.sum(dim=0), a.T.sum(dim=0))
    same(x.amax(dim=0), a.amax(dim=0))
    if name != "bool":
        same(x.argmax(dim=1), a.argmax(dim=1))
    if "float" in name:
        same(x.mean(), a.mean())


@pytest.mark.parametrize("name", HALVES)
def test_sums_of_halves_are_those_of_float32_rounded_once(name):
    dtype = getattr(spool, name)
    x = spool.tensor(np.random.default_rng(2).normal(size=(37, 5000))).to(dtype)
    assert x.sum(dim=1).tolist() == x.float().sum(dim=1).to(dtype).tolist()
    assert x.sum(dim=0).tolist() == x.float().sum(dim=0).to(dtype).tolist()
    ones = spool.ones(70000, dtype=dtype)
    assert ones.mean().item() == 1


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bool"])
def test_products_are_torchs(name):
    rng = np.random.default_rng(3)
    x, a = pair(rng.integers(-9, 9, (5, 7)).tolist(), name)
    y, b = pair(rng.integers(-9, 9, (7, 6)).tolist(), name)
    same(x @ y, a @ b)
    same(x @ y[:, 0], a @ b[:, 0])
    same(x.T @ x, a.T @ a)
    if name in HALVES:
        x, y = x * 0.37, y * 1.13
        assert (x @ y).tolist() == (x.float() @ y.float()).to(x.dtype).tolist()


@pytest.mark.parametrize("name", HALVES)
def test_gradients_of_halves(name):
    values = np.random.default_rng(4).normal(size=(4, 5)).tolist()
    x, a = pair(values, name)
    x.requires_grad_(), a.requires_grad_()
    (x * x.tanh() @ x.T).sum().backward()
    (a * a.tanh() @ a.T).sum().backward()
    assert x.grad.dtype is x.dtype
    close = {"float16": 1e-2, "bfloat16": 6e-2}[name]
    np.testing.assert_allclose(x.grad.tolist(), a.grad.tolist(), rtol=close, atol=close)


@pytest.mark.parametrize("name", HALVES)
def test_random_halves_stay_below_one(name):
    x = spool.rand(20000, dtype=getattr(spool, name)).float()
    assert x.amax().item() < 1
    assert abs(x.mean().item() - 0.5) < 0.01
    assert abs(spool.randn(20000, dtype=getattr(spool, name)).float().mean().item()) < 0.03


# ---- text, sharing, pickle ----


@each
def test_printing_is_torchs(name):
    for values in ([0, 1, 2], [[0.5, 1.25], [100, 3]], [1000, 0.01], [], 3):
        x, a = pair(values, name)
        assert repr(x) == repr(a).replace("torch.", "spool.")


@each
def test_dlpack_both_ways(name):
    x, a = pair([1, 0, 3], name)
    same(spool.from_dlpack(a), a)
    same(x, torch.from_dlpack(x))


@each
def test_numpy_both_ways(name):
    if name == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    else:
        dtype = np.dtype(name)
    array = np.array([0, 1, 3]).astype(dtype)
    x = spool.from_numpy(array)
    assert x.dtype is getattr(spool, name)
    assert spool.tensor(array).dtype is x.dtype
    x[1] = 0
    assert array[1] == 0
    back = x.numpy()
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def test_numpy_without_bfloat16_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(spool.DTypeError, match="ml_dtypes"):
        spool.ones(2, dtype=spool.bfloat16).numpy()


@each
def test_pickle_and_copies(name):
    x, a = pair([0, 1, 7], name)
    same(pickle.loads(pickle.dumps(x)), a)
    same(copy.deepcopy(x), a)
    assert pickle.loads(pickle.dumps(x.dtype)) is x.dtype
