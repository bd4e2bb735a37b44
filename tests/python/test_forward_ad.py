"""Dual levels: tangents beside PyTorch's, what lives how long, and levels entered and left in every order."""

import threading

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad as torch_fw

import spool
from spool.autograd import forward_ad as fw

POINT = np.array([[0.3, -0.7, 1.1], [0.5, 1.2, -0.4]])
WAY = np.array([[1.0, 0.5, -2.0], [0.1, 3.0, -1.0]])


def f(x):
    y = x.tanh() * x
    y[0] = y[1] * 2.0  # also through writes
    return (y * y.exp()).sum(0)


def along(lib, forward, function, point=POINT, way=WAY):
    with forward.dual_level():
        dual = forward.make_dual(lib.tensor(point), lib.tensor(way))
        return forward.unpack_dual(function(dual))


def same(got, wanted):
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), 1e-12, 1e-12)


def test_tangents_are_torchs():
    got, wanted = along(spool, fw, f), along(torch, torch_fw, f)
    assert isinstance(got, fw.UnpackedDualTensor) and got._fields == wanted._fields
    same(got.primal, wanted.primal)
    same(got.tangent, wanted.tangent)


def test_complex_tangents_are_torchs():
    point, way = POINT + 1j * WAY, WAY - 2j * POINT

    def function(z):
        return (z * z.conj() * z).exp().abs()

    got, wanted = (along(*of, function, point, way) for of in ((spool, fw), (torch, torch_fw)))
    same(got.tangent, wanted.tangent)


def test_what_has_no_tangent_gives_none():
    plain = spool.tensor(POINT)
    assert fw.unpack_dual(plain) == (plain, None)
    with fw.dual_level():
        assert fw.unpack_dual(plain).tangent is None
        assert fw.unpack_dual(spool.ones(3) * 2).tangent is None
        dual = fw.make_dual(plain, spool.ones_like(plain))
        assert fw.unpack_dual(dual.detach() > 0).tangent is None


def test_a_tangent_made_inside_the_level_is_a_constant():
    with fw.dual_level():
        dual = fw.make_dual(spool.ones(3) * 2, spool.ones(3) * 5)
        primal, tangent = fw.unpack_dual(dual * dual)
    assert (primal + 0).tolist() == [4, 4, 4]
    assert (tangent + 0).tolist() == [20, 20, 20]


def test_a_dual_shares_memory_and_history_of_its_primal():
    x = spool.tensor(POINT, requires_grad=True)
    with fw.dual_level():
        value, tangent = fw.unpack_dual(f(fw.make_dual(x, spool.tensor(WAY))))
    (grad,) = spool.autograd.grad(tangent.sum(), x, retain_graph=True)
    tx = torch.tensor(POINT, requires_grad=True)
    with torch_fw.dual_level():
        wanted = torch_fw.unpack_dual(f(torch_fw.make_dual(tx, torch.tensor(WAY)))).tangent
    same(grad, torch.autograd.grad(wanted.sum(), tx)[0])
    assert value.requires_grad
    plain = spool.zeros(3)
    with fw.dual_level():
        fw.make_dual(plain, spool.ones(3)).add_(1)
    assert plain.tolist() == [1, 1, 1]


def test_levels_nest():
    with fw.dual_level() as outer:
        x = fw.make_dual(spool.tensor(3.0), spool.tensor(1.0))
        with fw.dual_level() as inner:
            assert (outer, inner) == (0, 1)
            y = fw.make_dual(x, spool.tensor(1.0))
            first = fw.unpack_dual(y**3).tangent
            assert fw.unpack_dual(x, level=0).tangent.item() == 1
        second = fw.unpack_dual(first).tangent
    assert second.item() == 18


def test_levels_mix_with_transforms():
    x, way = spool.tensor(POINT), spool.tensor(WAY)
    wanted = spool.func.jvp(lambda v: f(v).sum(), (x,), (way,))[1]

    def tangent(v, w):
        with fw.dual_level():
            return fw.unpack_dual(f(fw.make_dual(v, w)).sum()).tangent

    for got in spool.func.vmap(tangent)(spool.stack([x, x]), spool.stack([way, way * 2])):
        assert got.item() == pytest.approx(wanted.item()) or got.item() == pytest.approx(
            2 * wanted.item()
        )
    over = spool.func.grad(lambda v: tangent(v, way))(x)
    with fw.dual_level():
        dual = fw.make_dual(x, way)
        under = fw.unpack_dual(spool.func.grad(lambda v: f(v).sum())(dual)).tangent
    same(over, under)


def test_a_module_of_dual_parameters():
    layer = spool.nn.Linear(3, 2).double()
    x, ways = spool.tensor(POINT), [spool.randn(2, 3, dtype=spool.float64), spool.ones(2).double()]
    with fw.dual_level():
        weight, bias = (fw.make_dual(p, w) for p, w in zip(layer.parameters(), ways))
        tangent = fw.unpack_dual(spool.nn.functional.linear(x, weight, bias)).tangent
    same(tangent, x @ ways[0].T + ways[1])


# ---- what is refused -----------------------------------------------------------------------------------------------------


def test_outside_of_a_level():
    x = spool.tensor(POINT)
    with pytest.raises(spool.SpoolError, match="with dual_level"):
        fw.make_dual(x, x)
    with pytest.raises(spool.SpoolError, match="with dual_level"):
        fw.exit_dual_level()
    with pytest.raises(spool.SpoolError, match="with dual_level"):
        fw.unpack_dual(x, level=0)


def test_after_the_level():
    with fw.dual_level():
        dual = fw.make_dual(spool.tensor(POINT), spool.tensor(WAY))
    for use in (lambda: dual + 1, lambda: fw.unpack_dual(dual)):
        with pytest.raises(spool.SpoolError, match="unpack_dual"):
            use()
    with fw.dual_level():
        with pytest.raises(spool.SpoolError, match="has ended"):
            fw.unpack_dual(dual)


@pytest.mark.parametrize(
    ("tensor", "tangent", "error", "message"),
    [
        ([1.0, 2.0], [1.0], spool.ShapeError, r"\(1,\) for a tensor of shape \(2,\)"),
        ([1, 2], [1, 2], spool.DTypeError, "floating point or complex"),
        ([1.0, 2.0], [1j, 2j], spool.DTypeError, "convert it with"),
    ],
)
def test_tangents_that_do_not_fit(tensor, tangent, error, message):
    with fw.dual_level(), pytest.raises(error, match=message):
        fw.make_dual(spool.tensor(tensor), spool.tensor(tangent))


def test_arguments_of_wrong_type():
    x = spool.tensor(POINT)
    with fw.dual_level():
        with pytest.raises(TypeError, match="tangent must be a Tensor, not int"):
            fw.make_dual(x, 1)
        with pytest.raises(TypeError, match="level must be an int"):
            fw.make_dual(x, x, level="0")
        with pytest.raises(ValueError, match="there is no level 3"):
            fw.make_dual(x, x, level=3)
        with pytest.raises(TypeError, match="must be a Tensor"):
            fw.unpack_dual(1)


def test_a_second_tangent_at_one_level():
    x = spool.tensor(POINT)
    with fw.dual_level():
        dual = fw.make_dual(x, x)
        with pytest.raises(spool.SpoolError, match="has a tangent at this level already"):
            fw.make_dual(dual, x)
        with pytest.raises(spool.SpoolError, match="tangent has a tangent"):
            fw.make_dual(x, dual)


def test_tensors_of_a_transform_entered_inside():
    x = spool.tensor(POINT)
    with fw.dual_level():
        dual = fw.make_dual(x, x)
        for inner in (
            lambda row: fw.unpack_dual(row * dual[0]).tangent,
            lambda row: fw.make_dual(row, x[0]),
            lambda row: fw.make_dual(x[0], row),
        ):
            with pytest.raises(spool.SpoolError, match="belongs to vmap"):
                spool.func.vmap(inner)(x)
        for transform, name in (
            (lambda f: spool.func.grad(f)(x), "grad"),
            (lambda f: spool.func.jvp(f, (x,), (x,)), "jvp"),
            (lambda f: spool.func.jet(f, (x,), ((x, x),)), "jet"),
        ):
            with pytest.raises(spool.SpoolError, match=f"belongs to {name}"):
                transform(lambda v: fw.unpack_dual(v * dual).primal.sum())


def test_levels_left_in_the_wrong_order():
    def leave(row):
        fw.exit_dual_level()
        return row

    with fw.dual_level():
        with pytest.raises(spool.SpoolError, match="still runs"):
            spool.func.vmap(leave)(spool.tensor(POINT))
        with fw.dual_level():
            with pytest.raises(spool.SpoolError, match="not the innermost"):
                fw.exit_dual_level(level=0)
        dual = fw.make_dual(spool.tensor(2.0), spool.tensor(1.0))
        assert fw.unpack_dual(dual * dual).tangent.item() == 4


def test_a_level_that_the_transform_around_it_ended():
    def enters(row):
        fw.enter_dual_level()
        return row.sum()

    with pytest.raises(spool.SpoolError, match="made inside jvp"):
        spool.func.vmap(enters)(spool.tensor(POINT))
    with pytest.raises(spool.SpoolError, match="has ended"):
        fw.make_dual(spool.tensor(1.0), spool.tensor(1.0))
    fw.exit_dual_level()
    with fw.dual_level() as level:
        assert level == 0


def test_an_exception_leaves_the_level():
    with pytest.raises(KeyError), fw.dual_level():
        raise KeyError("mine")
    with pytest.raises(spool.SpoolError, match="no dual level"):
        fw.exit_dual_level()


def test_each_thread_has_its_own_levels():
    found = []

    def work():
        x = spool.tensor(POINT)
        found.append(fw.unpack_dual(x).tangent)
        with fw.dual_level() as level:
            found.append(level)
            found.append(fw.unpack_dual(fw.make_dual(x, x) * 2).tangent.tolist())

    with fw.dual_level():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [None, 0, (2 * POINT).tolist()]


def test_as_a_decorator():
    @fw.dual_level()
    def slope(x):
        return fw.unpack_dual(fw.make_dual(x, spool.ones_like(x)) ** 2).tangent

    assert slope(spool.tensor([3.0])).tolist() == [6]


def test_allocations_that_fail_leave_no_level():
    x = spool.tensor(POINT)

    def run():
        with fw.dual_level():
            return fw.unpack_dual(fw.make_dual(x, x) * x).tangent

    wanted = run()
    for n in range(1, 200):
        spool._C._memory_fail_nth(n)
        try:
            got = run()
        except MemoryError:
            continue
        finally:
            spool._C._memory_fail_nth(0)
            with pytest.raises(spool.SpoolError, match="no dual level"):
                fw.exit_dual_level()
        same(got, wanted)
        break
    else:
        raise AssertionError("it never came through")
