"""Pointwise ops beside PyTorch's on every dtype, on edge values, broadcast and strided; operators; derivatives at kinks."""

import operator

import numpy as np
import pytest
import torch

import spool

EDGE = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.25, 1e-8, -1e-8, 88.5, -104.0]
SPECIAL = [np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-40]
ARRAYS = {
    "float32": np.array(EDGE + SPECIAL, np.float32),
    "float64": np.array(EDGE + SPECIAL),
    "int64": np.array([0, 1, -1, 2, -2, 3, 7, -7, 63, 64, -65, 2**40, -(2**63)]),
    "bool": np.array([True, False, True]),
}
UNARY = (
    "abs sign signbit floor ceil trunc round frac square reciprocal rsqrt isnan isinf isfinite isposinf isneginf "
    "logical_not bitwise_not neg relu sqrt exp log tanh exp2 expm1 log2 log10 log1p sin cos tan asin acos atan sinh cosh "
    "asinh acosh atanh erf erfc sigmoid logit nan_to_num softsign hardswish hardsigmoid relu6 selu silu "
    "softplus elu celu leaky_relu hardtanh mish logsigmoid"
).split()
BINARY = (
    "add sub mul div maximum minimum fmax fmin clamp_min clamp_max copysign remainder fmod floor_divide pow "
    "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift "
    "eq ne lt le gt ge atan2 hypot xlogy logaddexp"
).split()
FLOATING = {"softsign", "relu6", "hardtanh", "hypot", "logaddexp"}  # one side takes more dtypes
WHOLE = {"remainder", "fmod", "floor_divide"}  # PyTorch raises for a tensor's 0


def torch_op(name):
    return getattr(torch, name, None) or getattr(torch.nn.functional, name)


TIES = {"maximum", "minimum", "fmax", "fmin", "clamp_min", "clamp_max"}  # which zero is unspecified


def same(got, wanted, rtol=2e-6, signs=True):
    assert str(got.dtype).split(".")[-1] == str(wanted.dtype).split(".")[-1]
    got, wanted = got.detach().numpy(), wanted.detach().numpy()
    assert got.shape == wanted.shape
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted)
        return
    np.testing.assert_allclose(
        got, wanted, rtol=rtol if got.dtype == np.float32 else 1e-14, atol=1e-44
    )
    zero = (got == 0) & (wanted == 0) & signs
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wanted[zero]))


def both(name, arrays, **kwargs):
    """Spool's result and PyTorch's; (None, None) where both refuse the dtypes."""
    if name in FLOATING and any(a.dtype.kind != "f" for a in arrays):
        return None, None
    try:
        wanted = torch_op(name)(*[torch.tensor(a) for a in arrays], **kwargs)
    except (RuntimeError, NotImplementedError):
        with pytest.raises((TypeError, ValueError)):
            getattr(spool, name)(*map(spool.tensor, arrays), **kwargs)
        return None, None
    return getattr(spool, name)(*map(spool.tensor, arrays), **kwargs), wanted


@pytest.mark.parametrize("dtype", list(ARRAYS))
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    x = ARRAYS[dtype]
    if name in ("silu", "mish"):  # PyTorch's exp(-x) overflows below -88, where these are not 0 yet
        x = x[~((x < -88) & np.isfinite(x))] if x.dtype.kind == "f" else x
    got, wanted = both(name, [x])
    if wanted is not None:
        same(got, wanted)


def grid(name, dtypes):
    """Every value of one dtype against every value of another, but for whole numbers by 0."""
    x, y = (ARRAYS[d] for d in dtypes)
    if name in WHOLE:
        x, y = (a[(a != 0) & (a != -(2**63))] if a.dtype.kind == "i" else a for a in (x, y))
        y = y[y != 0] if y.dtype.kind == "b" and x.dtype.kind in "bi" else y
    if name in WHOLE or name == "pow":  # beyond 2 ** 60 PyTorch's own quotients are wrong
        x, y = (a[~(np.abs(a) > 1e20)] if a.dtype.kind == "f" else a for a in (x, y))
        x, y = (a[(a == 0) | ~(np.abs(a) < 1e-20)] if a.dtype.kind == "f" else a for a in (x, y))
    return x[:, None], y[None, :]


@pytest.mark.parametrize("right", list(ARRAYS))
@pytest.mark.parametrize("left", list(ARRAYS))
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, left, right):
    got, wanted = both(name, grid(name, (left, right)))
    if wanted is not None:
        same(got, wanted, signs=name not in TIES)


@pytest.mark.parametrize("name", BINARY)
def test_strided_and_broadcast(name):
    rng = np.random.default_rng(0)
    whole = name.startswith("bitwise")
    x = rng.integers(0, 9, (6, 5, 8)) if whole else rng.normal(size=(6, 5, 8)).astype(np.float32)
    y = rng.integers(1, 9, (8, 1)) if whole else (rng.random((8, 1)) + 0.5).astype(np.float32)
    x = abs(x) if name == "pow" else x
    for cut in (
        lambda t: t[::2, 1:, :3].permute(2, 0, 1)[:, :, None],
        lambda t: t.transpose(0, 2)[::3],
    ):
        got = getattr(spool, name)(cut(spool.tensor(x))[..., 0, :, None], spool.tensor(y)[2, 0])
        wanted = torch_op(name)(torch_cut(cut, x)[..., 0, :, None], torch.tensor(y)[2, 0])
        same(got, wanted, 2e-5)


def torch_cut(cut, array):
    return cut(torch.tensor(array))


OPERATORS = {
    "float32": [operator.floordiv, operator.mod, operator.pow, operator.truediv],
    "int64": [
        operator.floordiv,
        operator.mod,
        operator.and_,
        operator.or_,
        operator.xor,
        operator.lshift,
        operator.rshift,
    ],
    "bool": [operator.and_, operator.or_, operator.xor],
}


@pytest.mark.parametrize(
    "dtype,op", [(d, o) for d, ops in OPERATORS.items() for o in ops], ids=lambda v: str(v)
)
def test_operators(dtype, op):
    x, y = (ARRAYS[dtype][1:4], ARRAYS[dtype][4:7]) if dtype != "bool" else (ARRAYS["bool"],) * 2
    x, y = (
        np.where(a == 0, 3, np.abs(a)).astype(a.dtype) if a.dtype != bool else a for a in (x, y)
    )
    number = {"float32": 1.5, "int64": 3, "bool": True}[dtype]
    a, b, ta, tb = spool.tensor(x), spool.tensor(y), torch.tensor(x), torch.tensor(y)
    same(op(a, b), op(ta, tb))
    same(op(a, number), op(ta, number))
    same(op(number, a), op(number, ta))
    inplace = getattr(operator, "i" + op.__name__.strip("_"))
    same(inplace(a.clone(), b), inplace(ta.clone(), tb))
    same(inplace(a.clone(), number), inplace(ta.clone(), number))


def test_unary_operators():
    x = ARRAYS["int64"][:7]
    same(~spool.tensor(x), ~torch.tensor(x))
    same(~spool.tensor([True, False]), ~torch.tensor([True, False]))
    same(abs(spool.tensor(x)), abs(torch.tensor(x)))


KINKS = [
    ("abs", {}),
    ("sign", {}),
    ("hardswish", {}),
    ("hardtanh", {}),
    ("relu6", {}),
    ("leaky_relu", {}),
    ("elu", {}),
    ("selu", {}),
    ("softplus", {}),
    ("floor", {}),
    ("round", {}),
    ("relu", {}),
    ("clamp", {"min": -1.0, "max": 1.0}),
    ("clamp_min", {"min": 0.5}),
    ("clamp_max", {"max": -0.5}),
    ("pow", {"exponent": 2}),
    ("pow", {"exponent": 0}),
    ("fmod", {"y": 0.5}),
    ("remainder", {"y": 0.5}),
]


@pytest.mark.parametrize("name,kwargs", KINKS, ids=[f"{n} {k}" for n, k in KINKS])
def test_gradient_at_kinks(name, kwargs):
    x = np.array(EDGE)
    leaf, wanted = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    getattr(spool, name)(leaf, **kwargs).sum().backward()
    torch_op(name)(wanted, *kwargs.values()).sum().backward()
    same(leaf.grad, wanted.grad)


@pytest.mark.parametrize(
    "name", ["maximum", "minimum", "fmax", "fmin", "clamp_min", "clamp_max", "pow"]
)
def test_gradient_at_ties(name):
    x = np.array([0.0, 1.0, 2.0, 2.0, np.nan, 3.0])
    y = np.array([0.0, 2.0, 1.0, 2.0, 1.0, np.nan])
    leaves = [spool.tensor(a, requires_grad=True) for a in (x, y)]
    wanted = [torch.tensor(a, requires_grad=True) for a in (x, y)]
    getattr(spool, name)(*leaves).sum().backward()
    torch_op(name)(*wanted).sum().backward()
    for a, b in zip(leaves, wanted):
        same(a.grad, b.grad)


def test_clamp_bounds():
    x = np.array([-2.0, -0.5, 0.0, 0.5, 2.0, np.nan], np.float32)
    for low, high in ((-1, 1), (None, 1), (-1, None), (1, -1), (float("nan"), 1), (0.0, 0.0)):
        same(spool.tensor(x).clamp(low, high), torch.tensor(x).clamp(low, high))
    same(spool.tensor([1, 5]).clamp(2, 3.5), torch.tensor([1, 5]).clamp(2, 3.5))
    with pytest.raises(ValueError, match="both None"):
        spool.tensor(x).clamp()
    with pytest.raises(TypeError, match="bool"):
        spool.tensor([True]).clamp(False, True)


def test_whole_numbers_by_zero():
    x, zero = spool.tensor([7, -7, 0]), spool.tensor([0, 0, 0])
    for op in (operator.floordiv, operator.mod, spool.fmod):
        assert op(x, zero).tolist() == [0, 0, 0]
        for _ in range(3):
            op(x, 2)
            with pytest.raises(ValueError, match="by 0"):
                op(x, 0)
    least = spool.tensor([-(2**63)])
    assert (least // -1).tolist() == [-(2**63)] and (least % -1).tolist() == [0]


def test_remainders_of_far_quotients_are_exact():
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        wide = 30 if dtype == np.float32 else 290
        x = (rng.normal(size=4000) * 10.0 ** rng.uniform(-wide, wide, 4000)).astype(dtype)
        y = (rng.normal(size=4000) * 10.0 ** rng.uniform(-wide, wide, 4000)).astype(dtype)
        np.testing.assert_array_equal(
            spool.fmod(spool.tensor(x), spool.tensor(y)).numpy(), np.fmod(x, y)
        )


def test_masked_fill_keeps_the_dtype():
    x, mask = spool.tensor([1, 2, 3]), spool.tensor([True, False, True])
    assert x.masked_fill(mask, 9).tolist() == [9, 2, 9]
    assert x.masked_fill(mask, True).dtype == spool.int64
    with pytest.raises(TypeError, match="cannot hold"):
        x.masked_fill(mask, 1.5)
    with pytest.raises(TypeError, match="mask != 0"):
        x.masked_fill(x, 1)
    y = spool.tensor([1.0, 2.0, 3.0])
    y.masked_fill_(mask, float("-inf"))
    assert y.tolist() == [float("-inf"), 2.0, float("-inf")]


def test_where_of_numbers():
    cond = [True, False]
    for x, y in ((1.0, 2), (1, 2), (True, 2), (True, False), (0.5, True)):
        same(spool.where(spool.tensor(cond), x, y), torch.where(torch.tensor(cond), x, y))
    same(
        spool.where(spool.tensor(cond), 1.5, spool.tensor([1, 2])),
        torch.where(torch.tensor(cond), 1.5, torch.tensor([1, 2])),
    )


def test_rounding_mode():
    x, y = np.array([7, -7, 8, -8]), np.array([2, 2, -3, -3])
    for mode in ("floor", "trunc", None):
        for a, b in ((x, y), (x * 1.5, y * 0.7), (x, y * 0.5)):
            same(
                spool.div(spool.tensor(a), spool.tensor(b), rounding_mode=mode),
                torch.div(torch.tensor(a), torch.tensor(b), rounding_mode=mode),
            )
        same(spool.tensor(x).div(3, rounding_mode=mode), torch.tensor(x).div(3, rounding_mode=mode))
    with pytest.raises(ValueError, match="'trunc', 'floor'"):
        spool.div(spool.tensor(x), 2, rounding_mode="up")


@pytest.mark.parametrize("value", [None, 1, 0.3, -2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_products_round_at_every_step_from_the_left(dtype, value):
    rng = np.random.default_rng(0)
    x, a, b = (rng.normal(size=s).astype(dtype) for s in ((5, 37), (37,), (5, 1)))
    scaled = a if value is None else a * np.dtype(dtype).type(value)
    kwargs = {} if value is None else {"value": value}
    args = [spool.tensor(v) for v in (x, a, b)]
    np.testing.assert_array_equal(spool.addcmul(*args, **kwargs).numpy(), x + scaled * b)
    np.testing.assert_array_equal(spool.addcdiv(*args, **kwargs).numpy(), x + scaled / b)
    factor = {} if value is None else {"alpha": value}
    outer = spool.addr(args[0], args[2].squeeze(1), args[1], **factor)
    scaled = b if value is None else b * np.dtype(dtype).type(value)
    np.testing.assert_array_equal(outer.numpy(), x + scaled * a)


@pytest.mark.parametrize("value", [None, 2])
def test_sums_of_products_promote(value):
    kwargs = {} if value is None else {"value": value}
    dtypes = ["int32", "int64", "float32", "float64", "complex64", "bfloat16"]
    for x in dtypes:
        for a in dtypes:
            for b in dtypes:
                ours = [spool.tensor([2.0, 3.0]).to(getattr(spool, d)) for d in (x, a, b)]
                theirs = [torch.tensor([2.0, 3.0]).to(getattr(torch, d)) for d in (x, a, b)]
                for name in ("addcmul", "addcdiv"):
                    if name == "addcdiv" and {a, b} <= {"int32", "int64"}:
                        with pytest.raises(TypeError, match="tensor1 and tensor2 are of integers"):
                            spool.addcdiv(*ours, **kwargs)
                        continue
                    result = getattr(spool, name)(*ours, **kwargs)
                    wanted = getattr(torch, name)(*theirs, **kwargs)
                    assert str(result.dtype).split(".")[-1] == str(wanted.dtype).split(".")[-1]
                    np.testing.assert_allclose(
                        result.to(spool.complex128).numpy(),
                        wanted.to(torch.complex128).numpy(),
                        1e-2,
                    )
    with pytest.raises(TypeError, match="value is 0.5 and the result is int64"):
        spool.addcmul(*[spool.tensor([1, 2])] * 3, value=0.5)
