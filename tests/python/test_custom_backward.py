"""spool.autograd.custom_backward: a backward of one's own for functions and Module classes."""

import numpy as np
import pytest
from functions import NESTED, POINT, composed, numbers, plain, point

import spool


def test_custom_backward_of_a_function():
    seen = []

    def backward(inputs, output, grad):
        x, pair, scale = inputs
        seen.append((numbers(x), [numbers(t) for t in pair["pair"]], scale, numbers(output[1])))
        total = grad[0]["sum"] * 10
        return total, {"pair": (total * 2, None)}, None

    @spool.autograd.custom_backward(backward)
    def combine(x, pair, scale=2.0):
        """Its doc."""
        return {"sum": (x + pair["pair"][0]) * scale}, pair["pair"][1] * 1

    x, a, b = (point(spool, [v]) for v in (1.0, 2.0, 3.0))
    out = combine(x, {"pair": (a, b)}, scale=4.0)
    assert combine.__name__ == "combine" and combine.__doc__ == "Its doc."
    assert out[0]["sum"].grad_fn.name() == "combineBackward"
    (out[0]["sum"] + out[1]).backward()
    assert [numbers(t.grad) for t in (x, a)] == [[10], [20]]
    assert b.grad is None or numbers(b.grad) == [0]
    assert seen == [([1], [[2], [3]], 4.0, [3])]


def test_custom_backward_in_every_transform():
    def backward(inputs, output, grad):
        (x,) = inputs
        return grad * 3 * x * x

    @spool.autograd.custom_backward(backward)
    def cube(x):
        return x * x * x

    class Cube:
        apply = staticmethod(cube)

    for build in NESTED:
        got = build(spool.func, composed(Cube, spool))(spool.tensor(POINT)).numpy()
        wanted = build(spool.func, plain(spool))(spool.tensor(POINT)).numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-9)


def make_linear(backward):
    @spool.autograd.custom_backward(backward)
    class Linear(spool.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = spool.nn.Parameter(spool.tensor([[1.0, 2.0]]))
            self.inner = spool.nn.Linear(2, 2)
            self.tied = self.inner

        def forward(self, x, *, bias=0.0):
            return self.inner(x) @ self.weight.T + bias

    return Linear


def linear_backward(module, inputs, output, grad):
    (x,) = inputs
    w, v = module.weight, module.inner.weight
    return grad @ w @ v, {
        "weight": grad.T @ module.tied(x),
        "inner.weight": (grad @ w).T @ x,
        "inner.bias": (grad @ w).sum(0),
    }


def test_custom_backward_of_a_module():
    net = make_linear(linear_backward)()
    x = spool.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)

    def grads(forward):
        net.zero_grad()
        x.grad = None
        forward(x).sin().sum().backward()
        return [t.grad.numpy().copy() for t in (x, *net.parameters())]

    wanted = grads(lambda v: net.inner(v) @ net.weight.T + 1.5)
    for got, want in zip(grads(lambda v: net(v, bias=1.5)), wanted):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    jitted = spool.jit(lambda v: net(v, bias=1.5))
    for _ in range(3):
        for got, want in zip(grads(jitted), wanted):
            np.testing.assert_allclose(got, want, rtol=1e-5)
    (first,) = spool.autograd.grad(net(x).sin().sum(), x, create_graph=True)
    second = spool.autograd.grad(first.sum(), net.weight)[0]
    (first,) = spool.autograd.grad((net.inner(x) @ net.weight.T).sin().sum(), x, create_graph=True)
    np.testing.assert_allclose(
        second.numpy(), spool.autograd.grad(first.sum(), net.weight)[0].numpy(), rtol=1e-4
    )


def test_custom_backward_of_a_module_whose_parameters_are_transformed():
    net = make_linear(linear_backward)()
    x = spool.tensor([[1.0, 2.0], [3.0, -1.0]])
    table = net._parameters
    weight = table["weight"]

    def loss(w, forward):
        table["weight"] = w
        try:
            return forward(x).sin().sum()
        finally:
            table["weight"] = weight

    def plain_forward(v):
        return net.inner(v) @ net.weight.T

    start = weight.detach()
    for build in (spool.func.grad, spool.func.hessian):
        got = build(lambda w: loss(w, net))(start)
        wanted = build(lambda w: loss(w, plain_forward))(start)
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4)
    rows = spool.stack([start, start * 2])
    got = spool.func.vmap(spool.func.grad(lambda w: loss(w, net)))(rows)
    wanted = spool.func.vmap(spool.func.grad(lambda w: loss(w, plain_forward)))(rows)
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4)
    assert net.weight is weight


def test_what_custom_backward_returns_is_checked():
    x = point(spool, [1.0, 2.0])

    def check(backward, *args, match):
        function = spool.autograd.custom_backward(backward)(lambda *a: a[0] * 1)
        with pytest.raises(RuntimeError, match=match):
            function(*args).sum().backward()

    check(lambda i, o, g: g, x, x, match="backward returned 1 gradients, expected 2")
    check(lambda i, o, g: (g, g, g), x, x, match="backward returned 3 gradients, expected 2")
    check(lambda i, o, g: (g, [g]), x, (x, x), match="a list as the gradient of argument 1")
    check(lambda i, o, g: (g, g), x, [x, x], match="a Tensor as the gradient of argument 1")
    check(lambda i, o, g: (g, g), x, 3, match="a Tensor as the gradient of argument 1")
    data = spool.ones(2, 2, requires_grad=True)
    with pytest.raises(
        RuntimeError, match="Linear: backward returned no gradients for the parameters"
    ):
        make_linear(lambda m, i, o, g: (g @ m.weight,))()(data).sum().backward()
    with pytest.raises(RuntimeError, match=r"Linear: backward returned gradients for \['other'\]"):
        make_linear(lambda m, i, o, g: ((g,), {"other": g}))()(data).sum().backward()
    make_linear(lambda m, i, o, g: (g @ m.weight, {}))()(data).sum().backward()
    assert numbers(data.grad) == [[1, 2], [1, 2]]
    with pytest.raises(TypeError, match="custom_backward: backward must be callable, not int"):
        spool.autograd.custom_backward(3)
    with pytest.raises(TypeError, match="decorates functions and Module classes, not int"):
        spool.autograd.custom_backward(linear_backward)(int)
    keyword = spool.autograd.custom_backward(linear_backward)(lambda *, x: x)
    with pytest.raises(TypeError, match="the Tensor x= can be given by keyword alone"):
        keyword(x=x)
