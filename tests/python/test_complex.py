"""Complex numbers: storage, arithmetic, refusals and gradients, against PyTorch's."""

import copy
import itertools
import pickle
import re

import numpy as np
import pytest
import torch
from samples import load, make_array, run

import spool
from spool import _C

NAMES = ("complex64", "complex128")
CLOSE = {"complex64": 2e-5, "complex128": 1e-12, "float32": 2e-5, "float64": 1e-12}
REALS = ("bool", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
each = pytest.mark.parametrize("name", NAMES)


def name_of(tensor):
    return str(tensor.dtype).split(".")[-1]


def numbers(shape, seed=0, low=0.3):
    """Of absolute values between low and low + 1, away from branch cuts of the functions tested."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.3, 1.2, shape) * rng.choice([-1, 1], shape)
    return (rng.random(shape) + low) * np.exp(1j * angle)


def pair(array, name="complex64"):
    """The same tensor of Spool and of PyTorch."""
    array = np.asarray(array).astype(name)
    return spool.tensor(array), torch.from_numpy(array.copy())


def close(got, wanted, factor=1):
    assert name_of(got) == name_of(wanted)
    assert tuple(got.shape) == tuple(wanted.shape)
    bound = CLOSE.get(name_of(wanted), 0) * factor
    np.testing.assert_allclose(
        got.detach().numpy(), wanted.detach().resolve_conj().numpy(), bound, bound
    )


def bits(tensor):
    return name_of(tensor), tuple(tensor.shape), tensor.detach().contiguous().numpy().tobytes()


# ---- dtypes ----


@each
def test_promotion_is_torchs(name):
    for other, shapes in itertools.product(REALS + NAMES, itertools.product([(2,), ()], repeat=2)):
        mine, theirs = (
            lib.ones(shapes[0], dtype=getattr(lib, name))
            + lib.ones(shapes[1], dtype=getattr(lib, other))
            for lib in (spool, torch)
        )
        if name_of(theirs) == "complex32":  # of halves, which Spool has no complex dtype for
            assert name_of(mine) == "complex64"
            continue
        assert name_of(mine) == name_of(theirs), (name, other, shapes)


def test_complex_numbers_promote_as_torchs():
    for name, shape in itertools.product(REALS + NAMES, [(2,), ()]):
        for op in (
            lambda x: x * 2j,
            lambda x: 2j + x,
            lambda x: x == 1j,
        ):
            mine, theirs = (op(lib.ones(shape, dtype=getattr(lib, name))) for lib in (spool, torch))
            wanted = name_of(theirs).replace("complex32", "complex64")
            assert name_of(mine) == wanted, (name, shape)
    x = spool.ones(2, dtype=spool.float64)
    assert spool.result_type(x, 1j) is spool.complex128
    assert spool.result_type(spool.ones(2), spool.tensor(1j, dtype=spool.complex128)) is (
        spool.complex64
    )


@each
def test_what_a_dtype_says(name):
    dtype, theirs = getattr(spool, name), getattr(torch, name)
    assert dtype.is_complex and not dtype.is_floating_point and dtype.is_signed
    assert dtype.itemsize == theirs.itemsize
    assert spool.ones(1, dtype=dtype).is_complex()
    assert spool.finfo(dtype).eps == torch.finfo(theirs).eps
    assert (spool.cfloat, spool.cdouble) == (spool.complex64, spool.complex128)
    with pytest.raises(TypeError):
        spool.iinfo(dtype)


@each
def test_conversions_are_torchs(name):
    x, a = pair([0, 1.7 - 2j, -3.2 + 0.5j, 1j], name)
    for other in REALS + NAMES:
        with pytest.warns(UserWarning, match="imaginary") if other in REALS[1:] else nothing():
            mine = x.to(getattr(spool, other))
        if other == "uint8":  # of negative numbers there, whatever the machine makes
            mine, theirs = mine[:2], a[:2].real.to(torch.uint8)
        else:
            theirs = a.to(getattr(torch, other))
        assert mine.double().tolist() == theirs.double().tolist() if other in REALS else True
        back = mine.to(getattr(spool, name))
        assert back.dtype is getattr(spool, name)
    assert x.cfloat().dtype is spool.complex64 and x.cdouble().dtype is spool.complex128


class nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


@each
def test_data_both_ways(name):
    values = [[1 + 2j, -0.5j], [3, 0]]
    x, a = pair(values, name)
    assert x.tolist() == a.tolist()
    assert spool.tensor(values).dtype is spool.complex64
    assert spool.tensor(values, dtype=getattr(spool, name)).tolist() == values
    assert x[0, 0].item() == 1 + 2j and isinstance(x[0, 0].item(), complex)
    assert bool(x[0, 1]) and not bool(x[1, 1])
    for call in (float, int):
        with pytest.raises(TypeError):
            call(x[0, 0])
    with pytest.raises(TypeError, match="complex"):
        spool.tensor([1j], dtype=spool.float32)
    with pytest.raises(TypeError, match="complex"):
        spool.ones(2)[0] = 1j
    shared = x.numpy()
    shared[0, 0] = 9
    assert x[0, 0].item() == 9
    assert spool.from_numpy(shared[:, ::2]).tolist() == [[9], [3]]
    assert spool.tensor(shared[::-1, ::-1]).tolist() == shared[::-1, ::-1].tolist()
    close(spool.from_dlpack(a), a)
    close(x, torch.from_dlpack(x))
    close(pickle.loads(pickle.dumps(x)), torch.from_dlpack(x))
    close(copy.deepcopy(x), torch.from_dlpack(x))
    x[0] = 2j
    x[1, 1] = x[0, 0] + 1
    assert x.tolist() == [[2j, 2j], [3, 1 + 2j]]


@each
def test_printing_is_torchs(name):
    for values in (
        [1 + 2j, -1j],
        [[0.5 + 1.25j, 100], [1j, -3 - 0.001j]],
        [1e6 + 1j, 1e-6],
        [],
        3 - 0.5j,
        [complex(float("nan"), 1), complex(1, float("-inf"))],
        np.arange(1200) * (1 + 0.5j),
        numbers((3, 30)),
    ):
        x, a = pair(values, name)
        assert repr(x) == repr(a).replace("torch.", "spool.")


# ---- moving elements ----


@each
def test_moving_is_by_size(name):
    x, a = pair(numbers((4, 15)), name)
    i, j = spool.tensor([[2, 0, 1]]), torch.tensor([[2, 0, 1]])
    mask = np.arange(15) % 2 == 0
    m, n = spool.tensor(mask), torch.tensor(mask)
    for mine, theirs in (
        (x.T.clone(), a.T.clone()),
        (x.T.reshape(60), a.T.reshape(60)),
        (x[::2, 1::3] + 0, a[::2, 1::3] + 0),
        (x.expand(2, 4, 15).contiguous(), a.expand(2, 4, 15).contiguous()),
        (spool.gather(x, 0, i), torch.gather(a, 0, j)),
        (x[i[0]], a[j[0]]),
        (x[:, m], a[:, n]),
        (spool.cat([x, x[:2]]), torch.cat([a, a[:2]])),
        (spool.stack([x.T, x.T], 1), torch.stack([a.T, a.T], 1)),
        (spool.where(m, x, x * 2), torch.where(n, a, a * 2)),
        (spool.where(m, x, 1.5), torch.where(n, a, 1.5)),
        (x.masked_fill(m, 2j), a.masked_fill(n, 2j)),
        (x.flip(1), a.flip(1)),
        (x.tril(), a.tril()),
        (x.diagonal(1), a.diagonal(1)),
        (spool.scatter_add(x, 0, i, x[:1, :3]), torch.scatter_add(a, 0, j, a[:1, :3])),
        (x.index_add(0, i[0], x[:3]), a.index_add(0, j[0], a[:3])),
        (x.unfold(1, 4, 3) + 0, a.unfold(1, 4, 3) + 0),
        (spool.zeros_like(x), torch.zeros_like(a)),
    ):
        assert bits(mine)[:2] == (name_of(theirs), tuple(theirs.shape))
        np.testing.assert_array_equal(mine.numpy(), theirs.resolve_conj().numpy())


@each
def test_parts_are_views(name):
    x, a = pair(numbers((3, 4)), name)
    for lib, t in ((spool, x), (torch, a)):
        t.real[0] = 5
        t.imag *= 2
        t.T.imag[1] = -1
        lib.view_as_real(t)[2, :, 0] += 1
        t.real = t.real + 1
    close(x, a)
    close(x.real, a.real)
    close(x.T.imag, a.T.imag)
    close(spool.view_as_real(x[1:, ::2]), torch.view_as_real(a[1:, ::2]))
    parts, theirs = spool.view_as_real(x).clone(), torch.view_as_real(a).clone()
    both = spool.view_as_complex(parts)
    parts[0, 0] = 7
    theirs[0, 0] = 7
    close(both, torch.view_as_complex(theirs))
    for bad, error in (
        (spool.ones(3), spool.ShapeError),
        (spool.ones(2, 2, dtype=spool.int64), spool.DTypeError),
        (spool.ones(2, 2).T, None),
        (spool.ones(3, 2)[:, :].as_strided((3, 2), (1, 1)), ValueError),
    ):
        if error:
            with pytest.raises(error):
                spool.view_as_complex(bad)
    with pytest.raises(spool.DTypeError):
        spool.ones(2).imag  # noqa: B018
    y = spool.ones(2)
    assert y.real is y


@each
def test_random_parts(name):
    dtype = getattr(spool, name)
    x = spool.randn(20000, dtype=dtype)
    assert abs(x.mean().abs().item()) < 0.03
    for part in (x.real, x.imag):
        assert abs((part * part).mean().item() - 0.5) < 0.03
    y = spool.rand(20000, dtype=dtype)
    for part in (y.real, y.imag):
        assert 0 <= part.amin().item() and part.amax().item() < 1
        assert abs(part.mean().item() - 0.5) < 0.02


# ---- arithmetic ----

UNARY = (
    "neg square reciprocal sqrt rsqrt exp exp2 log log2 log10 sin cos tan asin acos atan sinh cosh tanh asinh atanh sigmoid "
    "acosh expm1 log1p sinc abs angle sgn conj conj_physical real imag isnan isinf isfinite logical_not sum mean"
).split()
BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}
SIZES = (0, 1, 3, 8, 33, 1000, 20000)


@each
@pytest.mark.parametrize("op", UNARY)
def test_functions_are_torchs(op, name):
    for n in SIZES:
        x, a = pair(numbers(n, n), name)
        close(getattr(spool, op)(x), getattr(torch, op)(a), 8)
        close(getattr(spool, op)(x[::3]), getattr(torch, op)(a[::3]), 8)
        if n:
            close(getattr(spool, op)(x[:1].expand(4)), getattr(torch, op)(a[:1].expand(4)), 8)


@each
@pytest.mark.parametrize("op", BINARY)
def test_operators_are_torchs(op, name):
    call = BINARY[op]
    for n in SIZES:
        (x, a), (y, b) = pair(numbers(n, n), name), pair(numbers(n, n + 1), name)
        close(call(x, y), call(a, b), 8)
        close(call(x, x), call(a, a), 8)
        close(call(x[::2], y[::2]), call(a[::2], b[::2]), 8)
        for number in (2, -0.5, 3, 0.5, 1.5 - 1j):
            close(call(x, number), call(a, number), 8)
            if op not in ("eq", "ne"):
                close(call(number, x), call(number, a), 8)
        real, their_real = x.real.clone(), a.real.clone()
        close(call(x, real), call(a, their_real), 8)
        close(call(real, x), call(their_real, a), 8)
    for zero in (0, 2, 1j):
        x, a = pair([0, 1j, 2], name)
        close(x**zero, a**zero, 8) if zero != 1j else None


@each
def test_quotients_neither_overflow_nor_underflow(name):
    largest = spool.finfo(getattr(spool, name)).max / 4
    x = spool.tensor([largest * (1 + 1j), 1j / largest], dtype=getattr(spool, name))
    np.testing.assert_allclose((x / x).numpy(), 1, 1e-5)
    assert abs(x[0]).item() < float("inf") and abs(x[1]).item() > 0


@each
def test_reductions_are_torchs(name):
    x, a = pair(numbers((5, 7, 40)), name)
    for kwargs in (
        {},
        {"dim": 0},
        {"dim": -1},
        {"dim": (0, -1), "keepdim": True},
        {"dim": 1},
    ):
        for op in ("sum", "mean"):
            close(getattr(x, op)(**kwargs), getattr(a, op)(**kwargs), 8)
            close(getattr(x.T, op)(**kwargs), getattr(a.permute(2, 1, 0), op)(**kwargs), 8)
    for dim in (0, 1, -1):
        close(x.cumsum(dim), a.cumsum(dim), 8)
    close(x[0, 0, 0].sum(), a[0, 0, 0].sum())
    close(x[0, 0, 0].cumsum(0), a[0, 0, 0].cumsum(0))
    close(x[:0].sum(), a[:0].sum())
    close(x.any(), a.any())
    close(x.all(dim=0), a.all(dim=0))


@each
@pytest.mark.parametrize("size", [1, 2, 7, 40, 130])
def test_products_are_torchs(name, size):
    (x, a), (y, b) = pair(numbers((size, 9)), name), pair(numbers((9, size), 1), name)
    for call in (
        lambda p, q: p @ q,
        lambda p, q: q @ p,
        lambda p, q: p @ q[:, 0],
        lambda p, q: p[0] @ q,
        lambda p, q: p.T @ p,
        lambda p, q: p[0] @ p[0],
        lambda p, q: p.expand(3, size, 9) @ q,
        lambda p, q: p[:, ::2] @ q[::2],
        lambda p, q: p.mH @ p,
    ):
        close(call(x, y), call(a, b), 16)
    close(spool.vdot(x[0], y[:, 0]), torch.vdot(a[0], b[:, 0]), 16)
    close(spool.dot(x[0], y[:, 0]), torch.dot(a[0], b[:, 0]), 16)
    close(spool.bmm(x[None], y[None]), torch.bmm(a[None], b[None]), 16)
    bias, theirs = pair(numbers(size, 2), name)
    close(spool.nn.functional.linear(x, x, bias), torch.nn.functional.linear(a, a, theirs), 16)


@each
@pytest.mark.parametrize("n", [1, 15, 17, 512, 513, 70001])
def test_dot_products_of_long_vectors(name, n):
    a, b = (numbers(n, i).astype(name) for i in range(2))
    x, y = spool.tensor(a), spool.tensor(b)
    wide = a.astype(np.clongdouble), b.astype(np.clongdouble)
    for call, exact in (
        (spool.dot, sum(wide[0] * wide[1])),
        (spool.vdot, sum(wide[0].conj() * wide[1])),
    ):
        error = abs(call(x, y).numpy() - exact) / np.sum(abs(wide[0] * wide[1]))
        assert error < np.finfo(a.real.dtype).eps
    assert spool.vdot(x, y).numpy().tobytes() == spool.dot(x.conj(), y).numpy().tobytes()
    with pytest.raises(spool.SpoolError, match="expected complex numbers"):
        spool.conj_dot(x.real, y.real)


@each
def test_made_of_parts(name):
    real = {"complex64": "float32", "complex128": "float64"}[name]
    (x, a), (y, b) = (pair(numbers((3, 4), i).real, real) for i in range(2))
    close(spool.complex(x, y), torch.complex(a, b))
    close(spool.polar(x, y), torch.polar(a, b))
    with pytest.raises(spool.DTypeError):
        spool.complex(x, spool.ones(3, 4, dtype=spool.int64))
    for values in ([1.0, -2, 0, float("nan")], [1, -2, 0]):
        u, v = spool.tensor(values), torch.tensor(values)
        close(u.angle(), v.angle())
        close(u.sgn(), v.sgn())
        close(u.conj(), v.conj())


@pytest.mark.parametrize(
    "op", ["maximum", "floor", "sort", "relu", "argmax", "clamp_min", "erf", "sign", "nansum"]
)
def test_what_has_no_meaning_says_so(op):
    args = {"maximum": (spool.ones(2),), "clamp_min": (0,)}.get(op, ())
    with pytest.raises(spool.DTypeError, match="complex64.*real"):
        getattr(spool, op)(spool.tensor([1j, 2]), *args)


@pytest.mark.parametrize("sample", load(), ids=lambda s: s.id)
def test_every_op_takes_complex_numbers_or_refuses_them(sample):
    """No op that the table does not say to take them yields anything."""
    rng = np.random.default_rng(0)
    found = []

    def made(spec):
        array = make_array(spec, rng, "float32")
        if array.dtype != np.float32:
            return spool.tensor(array)
        found.append(1)
        return spool.tensor(array * (1 + 0.5j))

    def argument(value):
        if isinstance(value, dict) and "tensor" in value:
            return made(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [made(v) for v in value]
        return value

    args = [argument(v) for v in sample.args]
    kwargs = {k: argument(v) for k, v in sample.kwargs.items()}
    if not found or sample.entry["complex"]:
        pytest.skip("in test_samples")
    with pytest.raises((spool.SpoolError, TypeError, ValueError)):
        run(sample, args, kwargs)


@each
def test_products_and_moments_are_torchs(name):
    for shape in ((5, 7, 40), (3,), (), (0, 3), (2, 20000), (40000,)):
        x, a = pair(numbers(shape, low=0.5), name)
        for call in (
            lambda t: t.prod(),
            lambda t: t.prod(-1),
            lambda t: t.T.prod(0, True) if t.dim() == 2 else t.prod(0, True),
            lambda t: t.cumprod(-1),
            lambda t: t.cumprod(0),
            lambda t: t[..., ::2].cumprod(-1) if t.dim() else t,
        ):
            close(call(x), call(a), 400 if name == "complex64" and max(shape or [0]) > 100 else 40)
        if 0 in shape or not shape:
            continue
        for call in (
            lambda t: t.var(),
            lambda t: t.std(0, correction=0),
            lambda t: t.norm(),
            lambda t: t.norm(1, 0),
            lambda t: t.norm(float("-inf")),
            lambda t: lib_of(t).linalg.vector_norm(t, 3),
        ):
            close(call(x), call(a), 40)


def test_numbers_near_zero_keep_their_digits():
    x, a = pair([1e-9 + 1e-10j, -1e-12 + 3e-9j, 1e-300j, 0], "complex128")
    np.testing.assert_allclose(spool.expm1(x).numpy(), a.expm1().numpy(), 1e-14)
    np.testing.assert_allclose(spool.log1p(x).numpy(), a.log1p().numpy(), 1e-14)
    big = spool.tensor([800 + 1j, -800 + 2j])
    assert spool.logaddexp(big, big.flip(0)).isfinite().all()


@each
def test_made_of_one_number(name):
    dtype, theirs = getattr(spool, name), getattr(torch, name)
    close(spool.full((2, 3), 1 - 2j), torch.full((2, 3), 1 - 2j))
    close(spool.full((2,), 0.1j, dtype=dtype), torch.full((2,), 0.1j, dtype=theirs))
    x, a = pair([1j, 2], name)
    close(spool.full_like(x, 0.1j), torch.full_like(a, 0.1j))
    close(x.new_full((2,), 0.1 + 3j), a.new_full((2,), 0.1 + 3j))
    close(x.new_zeros(2), a.new_zeros(2))
    close(x.clone().fill_(0.1 - 1j), a.clone().fill_(0.1 - 1j))
    for call in ("zeros_like", "ones_like"):
        close(getattr(spool, call)(x), getattr(torch, call)(a))
    close(spool.eye(3, 2, dtype=dtype), torch.eye(3, 2, dtype=theirs))
    close(spool.linspace(0, 1, 5, dtype=dtype), torch.linspace(0, 1, 5, dtype=theirs))
    assert spool.full((2,), 1j, requires_grad=True).requires_grad
    for refused in (
        lambda: spool.full((2,), 1j, dtype=spool.float32),
        lambda: spool.full_like(spool.ones(2), 1j),
        lambda: spool.ones(2).new_full((2,), 1j),
        lambda: spool.ones(2).fill_(1j),
    ):
        with pytest.raises(spool.DTypeError, match="complex"):
            refused()
    assert 1j in x and 2 in x and 2 + 0j in x and 3j not in x and 1 not in x
    assert 1j not in spool.ones(2) and 1 + 0j in spool.ones(2)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("Adam", {"lr": 0.1, "amsgrad": True}),
        ("AdamW", {"lr": 0.1}),
        ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.5}),
        ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5}),
        ("Adamax", {"lr": 0.1}),
        ("RAdam", {"lr": 0.1, "betas": (0.5, 0.9)}),
        ("Adadelta", {"lr": 0.5}),
    ],
)
def test_optimizers_step_as_torchs(kind, options):
    results = []
    for library, i in ((spool, 0), (torch, 1)):
        x = pair(numbers((3, 4)), "complex128")[i].requires_grad_()
        y = pair(numbers((3,), 1).real, "float64")[i].requires_grad_()
        target = pair(numbers((3, 4), 2), "complex128")[i]
        optimizer = getattr(library.optim, kind)([x, y], **options)
        for _ in range(4):
            optimizer.zero_grad()
            (((x * y[:, None] - target).abs() ** 2).sum()).backward()
            optimizer.step()
        state = optimizer.state_dict()["state"].get(0, {})
        results.append(
            [x, y, *(v for k, v in sorted(state.items()) if k != "step" and v is not None)]
        )
    for mine, theirs in zip(*results):
        close(mine, theirs, 50)


# ---- gradients ----

SMOOTH = {
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "pow2": lambda x, y: x**2 + y**3 + x**-1,
    "number": lambda x, y: 2.5 * x - y / 2 + 1j * x + (1 + 1j) / y + 2**x,
    "matmul": lambda x, y: x @ y.T,
    "dot": lambda x, y: x[0] @ y[0],
    "abs": lambda x, y: x.abs() + (x * y).abs(),
    "angle": lambda x, y: x.angle() * y.abs(),
    "sgn": lambda x, y: x.sgn() * y,
    "conj": lambda x, y: x.conj() * y + y.conj() * x.conj() * x,
    "parts": lambda x, y: x.real * y.imag + x.imag,
    "where": lambda x, y: where_of(x)(x.real > 0.5, x * y, y),
    "index": lambda x, y: x[1:, ::2] * y[:-1, ::2],
    "mean": lambda x, y: (x * y).mean(0) + x.sum() + y.cumsum(1),
    "mixed": lambda x, y: x.real * y + x.imag.exp(),
    "prod": lambda x, y: x.prod() * y.prod(0) + y.prod(1, True),
    "prod of zeros": lambda x, y: (x * with_zeros(y)).prod(1),
    "cumprod": lambda x, y: x.cumprod(1) * y.cumprod(0),
    "cumprod of zeros": lambda x, y: (x * with_zeros(y)).cumprod(1),
    "var": lambda x, y: x.var() * y + y.var(0),
    "std": lambda x, y: x.std(1, keepdim=True) * y + y.std(),
    "var_mean": lambda x, y: sum(lib_of(x).var_mean(x * y, 0)),
    "norm": lambda x, y: x.norm() * y + y.norm(dim=0) + y.norm(1) + x.norm(float("inf")),
    "norm of another order": lambda x, y: x.norm(3, dim=1, keepdim=True) * y + y.norm(0),
    "vector_norm": lambda x, y: lib_of(x).linalg.vector_norm(x * y, 2.5, 1),
    "lerp": lambda x, y: lib_of(x).lerp(x, y, x * 0.2) + x.lerp(y, 0.3) + x.lerp(y, y + 1),
    "logaddexp": lambda x, y: lib_of(x).logaddexp(x, y),
    "silu": lambda x, y: silu(x * y),
    "normalize": lambda x, y: lib_of(x).nn.functional.normalize(x * y, dim=0),
    "cov": lambda x, y: x.cov() * 2 + lib_of(x).cov(y, aweights=weights_like(x)),
    "corrcoef": lambda x, y: (x * y).corrcoef(),
    "pad": lambda x, y: lib_of(x).nn.functional.pad(x * y, (1, 2), value=0.5),
    "diff": lambda x, y: x.diff() * y[:, 1:] + lib_of(x).trapezoid(y, dim=0)[1:],
    "places": lambda x, y: x.take(index_like(x)) * y.take(index_like(x)),
    "float_power": lambda x, y: x.float_power(2.5) * y.float_power(2),
    "vdot": lambda x, y: lib_of(x).vdot(x[0], y[0]),
    "made": lambda x, y: lib_of(x).complex(x.real, y.imag) * lib_of(x).polar(x.abs(), y.angle()),
    "view": lambda x, y: lib_of(x).view_as_real(x * y) ** 2,
    "views": lambda x, y: lib_of(x).view_as_complex(lib_of(x).view_as_real(x) * 2) * y,
    "cast": lambda x, y: (x.real.to(x.dtype) * y).to(lib_of(x).complex128),
}
SMOOTH |= {
    name: (lambda n: lambda x, y: getattr(x, n)() * y)(name)
    for name in (
        "neg square reciprocal sqrt rsqrt exp exp2 log log2 log10 sin cos tan asin acos atan sinh cosh tanh asinh acosh "
        "atanh sigmoid expm1 log1p sinc"
    ).split()
}


def with_zeros(x):
    return x * lib_of(x).tensor([[1.0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]])[: len(x)]


def silu(x):
    """PyTorch's has no gradient of complex numbers, and another tangent than its value's."""
    return x * torch.sigmoid(x) if lib_of(x) is torch else spool.nn.functional.silu(x)


def weights_like(x):
    return lib_of(x).tensor([0.5, 1.0, 2.0, 1.5], dtype=lib_of(x).float64)


def index_like(x):
    return lib_of(x).tensor([5, 0, 5, 7])


def lib_of(x):
    return torch if isinstance(x, torch.Tensor) else spool


def where_of(x):
    return lib_of(x).where


def weighted(out):
    """A real number of all that out is; its gradient is not symmetric in the parts."""
    return (out.real * 1.5 + out.imag * 0.7).sum() if out.is_complex() else (out * 1.5).sum()


@pytest.mark.parametrize("case", SMOOTH)
def test_gradients_are_torchs(case):
    grads = []
    for library, i in ((spool, 0), (torch, 1)):
        x = pair(numbers((3, 4)), "complex128")[i].requires_grad_()
        y = pair(numbers((3, 4), 1), "complex128")[i].requires_grad_()
        first = library.autograd.grad(weighted(SMOOTH[case](x, y)), [x, y], create_graph=True)
        again = sum(weighted(g.sin()) for g in first)
        second = library.autograd.grad(again, [x, y])
        grads.append([*first, *second])
    for mine, theirs in zip(*grads):
        close(mine, theirs, 50)


@pytest.mark.parametrize("case", SMOOTH)
def test_forward_derivatives_are_torchs(case):
    (x, a), (y, b), (u, p), (v, q) = (pair(numbers((3, 4), i), "complex128") for i in range(4))
    mine = spool.func.jvp(SMOOTH[case], (x, y), (u, v))
    theirs = torch.func.jvp(SMOOTH[case], (a, b), (p, q))
    for m, t in zip(mine, theirs):
        close(m, t, 50)


@pytest.mark.parametrize("case", [c for c in SMOOTH if c not in ("dot", "vdot", "matmul")])
def test_compiled_bits_are_eagers(case):
    for name in NAMES:
        x, y = (pair(numbers((3, 4), i), name)[0] for i in range(2))
        eager = bits(SMOOTH[case](x, y))
        compiled = spool.jit(SMOOTH[case])
        for _ in range(3):
            assert bits(compiled(x, y)) == eager

        def gradient(p, q):
            return spool.func.grad(lambda u: weighted(SMOOTH[case](u, q)))(p)

        eager, compiled = bits(gradient(x, y)), spool.jit(gradient)
        for _ in range(3):
            assert bits(compiled(x, y)) == eager


@pytest.mark.parametrize("case", [c for c in SMOOTH if c not in ("dot", "vdot", "index", "mean")])
def test_vmap_is_a_loop(case):
    x, y = (pair(numbers((3, 2, 4), i), "complex128")[0] for i in range(2))
    mapped = spool.func.vmap(SMOOTH[case])(x, y)
    close(mapped, torch.from_dlpack(spool.stack([SMOOTH[case](x[i], y[i]) for i in range(3)])))


@each
def test_gradients_at_zero(name):
    grads = []
    for i in range(2):
        x = pair([0, 1j], name)[i].requires_grad_()
        (x.abs() + x.angle() + x.sgn().real).sum().backward()
        grads.append(x.grad)
    close(*grads)


def test_backward_wants_a_real_root():
    x = spool.tensor([1 + 1j], requires_grad=True)
    with pytest.raises(spool.SpoolError, match="real"):
        (x * 2).sum().backward()
    (x * 2).sum().backward(spool.tensor(1 + 1j))
    assert x.grad.tolist() == [2 + 2j]
    with pytest.raises(TypeError, match="real"):
        spool.func.grad(lambda t: t.sum())(x.detach())


def test_descent_finds_the_minimum():
    target = spool.tensor([1 - 2j, 0.5j])
    x = spool.zeros(2, dtype=spool.complex64, requires_grad=True)
    for _ in range(100):
        x.grad = None
        ((x - target).abs() ** 2).sum().backward()
        with spool.no_grad():
            x -= 0.1 * x.grad
    np.testing.assert_allclose(x.detach().numpy(), target.numpy(), 1e-4, 1e-4)


def test_writing_to_parts_with_a_tape():
    grads = []
    for i in range(2):
        x = pair(numbers((3,)), "complex128")[i].requires_grad_()
        y = x * 2
        y.mul_(x)
        y[0] = 3j
        y += x.conj()
        weighted(y).backward()
        grads.append(x.grad)
    close(*grads, 10)


def part_times(y):
    y.real.mul_(y.imag.clone())
    return y


def part_filled(y):
    y.imag[0] = 3
    y[1:].real += 1
    return y


def parts_of_a_row(y):
    lib_of(y).view_as_real(y)[1].mul_(lib_of(y).view_as_real(y)[0].clone())
    y.T.imag.sin_()
    return y


def part_copied(y):
    y[0].real.copy_(y[1].imag.clone().sin() * y[2].real.clone().exp())
    y.imag.zero_()
    return y * y


def numbers_in_parts(y):
    parts = lib_of(y).view_as_real(y * y).clone()
    lib_of(y).view_as_complex(parts).mul_(y)
    lib_of(y).view_as_complex(parts)[1:].mul_(1j)
    lib_of(y).view_as_complex(parts).real[:, 1].mul_(y.imag[:, 0])
    return parts


def strided_part(y):
    y.imag.as_strided((2, 3), (2, 4), 1).mul_(y[:2, :3].real.clone())
    return y


def part_assigned(y):
    y.real = y.imag.clone().sin() * y.clone().abs()
    return y


WRITES = [
    part_times,
    part_filled,
    parts_of_a_row,
    part_copied,
    numbers_in_parts,
    strided_part,
    part_assigned,
]


@pytest.mark.parametrize("write", WRITES)
def test_writing_to_one_part_leaves_the_other(write):
    found = []
    for library, i in ((spool, 0), (torch, 1)):
        x = pair(numbers((3, 4)), "complex128")[i].requires_grad_()
        y = write(x * (2 - 1j))
        first = library.autograd.grad(weighted(y * y), x, create_graph=True)[0]
        second = library.autograd.grad(weighted(first.sin()), x)[0]
        found.append([y, first, second])
    for mine, theirs in zip(*found):
        close(mine, theirs, 50)


@pytest.mark.parametrize("write", WRITES)
def test_writing_to_one_part_in_transforms_and_regions(write):
    x, y, u = (pair(numbers((3, 4), i), "complex128")[0] for i in range(3))

    def function(p):
        return write(p * (2 - 1j)) * 1.5

    _, tangent = spool.func.jvp(function, (x,), (u,))
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    weight = pair(numbers(tuple(out.shape), 5), "complex128")[0]
    weight = weight if out.is_complex() else weight.real.clone()
    grad = spool.autograd.grad(out, leaf, weight)[0]
    wanted = (weight.conj() * tangent).real.sum() if out.is_complex() else (weight * tangent).sum()
    np.testing.assert_allclose((grad.conj() * u).real.sum().item(), wanted.item(), 1e-9)
    if write is not strided_part:  # as_strided counts from the start of the storage
        mapped = spool.func.vmap(function)(spool.stack([x, y]))
        for got, one in zip(mapped, (x, y)):
            np.testing.assert_allclose(got.numpy(), function(one).numpy(), 1e-12)
    wanted, compiled = bits(function(x)), spool.jit(function)
    for _ in range(3):
        assert bits(compiled(x)) == wanted


def test_abs_in_place_would_change_the_dtype():
    for x in (spool.tensor([3 + 4j]), spool.tensor([3 + 4j], requires_grad=True) * 1):
        with pytest.raises(spool.DTypeError, match="abs_.*float32.*complex64"):
            x.abs_()
        assert x.tolist() == [3 + 4j]
    jitted = spool.jit(lambda t: (t * 1).abs_())
    for _ in range(3):
        with pytest.raises(spool.DTypeError, match="abs_"):
            jitted(spool.tensor([3 + 4j]))


# ---- files ----


def test_safetensors_has_complex64(tmp_path):
    x = spool.tensor([1 + 2j, 3])
    spool.safetensors.save_file({"x": x}, tmp_path / "x.safetensors")
    assert spool.safetensors.load_file(tmp_path / "x.safetensors")["x"].tolist() == x.tolist()
    with pytest.raises(spool.DTypeError):
        spool.safetensors.save_file({"x": x.cdouble()}, tmp_path / "y.safetensors")


@each
def test_text_of_a_graph_keeps_both_parts(name):
    x, w = (pair(numbers((2, 2), i), name)[0] for i in range(2))
    _C.capture_begin((x,))
    graph = _C.capture_end(((x * w + 2).exp(),))
    again = _C.graph_parse(graph.text())
    assert again.text() == re.sub(r" *#.*", "", graph.text())
    assert bits(again.run(x)[0]) == bits((x * w + 2).exp())


def test_onnx_refuses(tmp_path):
    with pytest.raises(NotImplementedError, match="complex64"):
        spool.onnx.save(lambda t: (t * 2j).abs(), (spool.ones(3),), tmp_path / "x.onnx")
