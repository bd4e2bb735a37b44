"""How Python arguments reach an op: position, keyword, overload, operator; and what is said about wrong ones."""

import inspect

import numpy as np
import pytest

import spool


def values(tensor):
    return tensor.numpy().tolist()


@pytest.fixture
def x():
    return spool.tensor([[1.0, 2.0], [3.0, 4.0]])


# ---- calls that mean the same -----------------------------------------------------------------------


def test_overload_by_kind(x):
    assert values(spool.add(x, x)) == values(x.add(x)) == values(x + x) == values(2 * x)
    assert values(spool.add(x, 1)) == values(x.add(1.0)) == values(x + 1) == values(1 + x)
    assert values(x.add(x, alpha=2)) == values(spool.add(x=x, y=x, alpha=2)) == values(x * 3)


def test_scalar_on_the_left(x):
    assert values(10 - x) == [[9.0, 8.0], [7.0, 6.0]]
    assert values(12 / x) == [[12.0, 6.0], [4.0, 3.0]]
    assert values(2 < x) == values(x > 2) == [[False, False], [True, True]]


@pytest.mark.parametrize(
    "number", [2, 2.0, True, np.float32(2), np.float64(2), np.int64(2), np.int8(2)]
)
def test_numbers(x, number):
    assert values(x * number) == (np.array(values(x)) * float(number)).tolist()
    assert values(x.mul(number)) == values(x * number)


def test_numpy_bool_stays_bool():
    x = spool.tensor([1, 2])
    assert (x * np.bool_(True)).dtype == spool.int64


def test_in_place_returns_the_tensor(x):
    y = x
    assert x.add_(1) is x and x.mul_(x) is x
    x += 1
    x *= 2.0
    assert x is y and values(x) == [[10.0, 20.0], [34.0, 52.0]]


def test_out(x):
    out = spool.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert spool.add(x, x, out=out) is out and values(out) == values(x + x)
    assert values(spool.add(x, x, out=None)) == values(x + x)


def test_sizes_together_or_spread(x):
    for y in (
        x.reshape(4, 1),
        x.reshape((4, 1)),
        x.reshape([4, -1]),
        x.reshape(shape=(4, 1)),
        spool.reshape(x, (4, 1)),
        x.reshape(np.int64(4), 1),
        x.reshape(np.array([4, 1])),
    ):
        assert tuple(y.shape) == (4, 1)
    assert tuple(x.reshape(4).shape) == (4,) and tuple(x.sum(()).shape) in ((), (2, 2))


def test_dims(x):
    assert (
        values(x.sum(1))
        == values(x.sum((1,)))
        == values(x.sum(dim=[-1]))
        == values(spool.sum(x, dim=1))
    )
    assert tuple(x.sum(1, True).shape) == tuple(x.sum(dim=1, keepdim=True).shape) == (2, 1)
    assert x.sum(dim=None).item() == x.sum().item() == 10


def test_optional_tensor(x):
    assert (
        values(spool.linear(x, x))
        == values(spool.linear(x, x, None))
        == values(spool.linear(x, x, b=None))
    )


def test_choice(x):
    target = spool.tensor([0, 1])
    assert spool.nll_loss(x, target, reduction="sum").item() == -5
    assert spool.nll_loss(x, target).item() == -2.5


def test_keyword_that_is_not_interned(x):
    assert values(x.sum(**{"".join(["d", "im"]): 1})) == values(x.sum(1))


def test_subclass_is_a_tensor(x):
    class Special(spool.Tensor):
        pass

    y = x.as_subclass(Special) if hasattr(x, "as_subclass") else None
    if y is not None:
        assert values(y + y) == values(x + x) and values(spool.add(y, 1)) == values(x + 1)


# ---- wrong ones ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: spool.add(x, "s"),
            "add: argument 'y' must be a Tensor or a number, not str; it takes:\n  add(Tensor x, Tensor y)",
        ),
        (lambda x: spool.add(1, x), "add: argument 'x' must be a Tensor, not int"),
        (lambda x: spool.add(x), "add: argument 'y' is missing"),
        (lambda x: spool.add(x, x, x), "add: too many positional arguments, at most 2 fit"),
        (lambda x: spool.add(x, x, beta=1), "add: unexpected argument 'beta'"),
        (lambda x: spool.add(x, x, y=x), "add: argument 'y' is given twice"),
        (lambda x: spool.add(x, x, out=1), "add: out must be a Tensor, not int"),
        (lambda x: x.add_(x, out=x), "unexpected argument 'out'"),
        (
            lambda x: x.sum(dim="x"),
            "sum: dim must be an int or a sequence of ints, not str; it takes:\n  sum(Tensor x, int[]? dim=None",
        ),
        (lambda x: x.sum(dim=1.5), "not float"),
        (lambda x: x.sum(1, 2), "sum: keepdim must be a bool, not int"),
        (lambda x: x.sum(1, True, spool.float64), "too many positional arguments, at most 3 fit"),
        (lambda x: x.reshape(), "reshape: argument 'shape' is missing"),
        (lambda x: x.reshape(2, "x"), "reshape: shape must be an int, not str"),
        (lambda x: x.reshape(4, shape=(4,)), "argument 'shape' is given twice"),
        (lambda x: x.transpose(0), "transpose: argument 'dim1' is missing"),
        (lambda x: spool.linear(x, x, 3), "linear: b must be a Tensor, not int"),
        (lambda x: x + "s", "unsupported operand type"),
        (lambda x: x @ 2, "unsupported operand type"),
        (lambda x: x < None, "not supported between instances"),
        (lambda x: spool.exp(2.0), "exp: x must be a Tensor, not float"),
        (lambda x: x.exp(1), "exp: too many positional arguments"),
    ],
)
def test_type_error(x, call, message):
    with pytest.raises(TypeError) as caught:
        call(x)
    assert message in str(caught.value)
    assert values(x) == [[1.0, 2.0], [3.0, 4.0]]


def test_unknown_choice(x):
    with pytest.raises(
        ValueError, match="nll_loss: reduction is 'max', expected one of 'none', 'mean', 'sum'"
    ):
        spool.nll_loss(x, spool.tensor([0, 1]), reduction="max")


def test_number_beyond_64_bits(x):
    for call in (lambda: x * 2**70, lambda: 2**70 + x, lambda: x.mul(2**70), lambda: x.sum(2**70)):
        with pytest.raises(OverflowError, match="beyond 64 bits"):
            call()


def test_comparison_with_something_else(x):
    assert (x == None) is False and (x != "s") is True  # noqa: E711


# ---- what is said about them -----------------------------------------------------------------------------


def test_documentation():
    assert (
        spool.sum.__doc__.startswith("Sum of the elements")
        and "Parameters\n----------\n" in spool.sum.__doc__
    )
    assert (
        str(inspect.signature(spool.Tensor.sum))
        == "(self, /, dim=None, keepdim=False, *, dtype=None)"
    )
    assert "In-place version of add()" in spool.Tensor.add_.__doc__


def test_every_op_is_documented():
    for name, function in vars(spool._C).items():
        if inspect.isbuiltin(function) and not name.startswith("_"):
            assert function.__doc__, name
