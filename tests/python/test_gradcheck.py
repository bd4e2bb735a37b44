"""gradcheck: what is right passes, what is wrong is found and shown, in every mode."""

import re

import numpy as np
import pytest
import torch

import spool
from spool.autograd import GradcheckError, gradcheck, gradgradcheck

EVERY = {
    "check_forward_ad": True,
    "check_batched_grad": True,
    "check_batched_forward_grad": True,
    "check_grad_dtypes": True,
}
EVERY_SECOND = {
    "check_fwd_over_rev": True,
    "check_batched_grad": True,
    "check_grad_dtypes": True,
}
speed = pytest.mark.parametrize("fast", [False, True], ids=["slow", "fast"])


def real(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return spool.tensor(rng.normal(size=shape), requires_grad=True)


def imaginary(*shape):
    rng = np.random.default_rng(3)
    values = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return spool.tensor(values, requires_grad=True)


RIGHT = {
    "one": (spool.tanh, [real(2, 3)]),
    "several": (lambda x, y: (x * y, x.sum(0), y.exp()), [real(2, 3), real(3)]),
    "numbers between": (
        lambda x, n, flags, y: (x * y * n, x.argmax(), y),
        [real(3), 2, None, real(3, seed=1)],
    ),
    "no dimensions": (lambda x: x * x, [real()]),
    "no elements": (lambda x: x * x, [real(0, 3)]),
    "written in place": (lambda x: x.clone().mul_(x), [real(4)]),
    "complex": (lambda z: (z * z.conj() * 3 + z.exp(), z.abs()), [imaginary(2, 2)]),
    "complex to real": (lambda z: z.abs().sum() * z.angle(), [imaginary(3)]),
    "real to complex": (lambda x, y: spool.complex(x, y * x).exp(), [real(3), real(3, seed=1)]),
    "power of zero": (lambda x: 0 ** (x * x + 0.5), [real(3)]),
    "zero to a power": (lambda x: spool.zeros(3).double() ** (x * x + 0.5), [real(3)]),
    "sinc near zero": (
        spool.sinc,
        [spool.tensor([0.0, 1e-20, 1e-4, 0.2, 0.4], dtype=spool.float64, requires_grad=True)],
    ),
    "transposed": (lambda x: x @ x.T, [real(3, 2).detach().T.requires_grad_()]),
}


@speed
@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_pass(name, fast):
    function, inputs = RIGHT[name]
    values = [x.tolist() if isinstance(x, spool.Tensor) else x for x in inputs]
    assert gradcheck(function, inputs, fast_mode=fast, **EVERY) is True
    assert gradgradcheck(function, inputs, fast_mode=fast, **EVERY_SECOND) is True
    # They were moved and put back.
    assert [x.tolist() if isinstance(x, spool.Tensor) else x for x in inputs] == values


# ---- what is wrong -------------------------------------------------------------------------------------------------------

X, Y, Z = real(2, 2), real(2, seed=1), imaginary(2)
WRONG = {
    "half of a square": (lambda x: x * x.detach(), [X]),
    "one of two inputs": (lambda x, y: x * y.detach() * y, [X, Y]),
    "one of two outputs": (lambda x, y: (x * y, x * x.detach()), [X, Y]),
    "conjugate": (lambda z: z * z.detach().conj(), [Z]),
    "all": (lambda x: x.detach() * 2, [X]),
}


@speed
@pytest.mark.parametrize("name", WRONG)
def test_wrong_derivatives_are_found(name, fast):
    function, inputs = WRONG[name]
    with pytest.raises(GradcheckError):
        gradcheck(function, inputs, fast_mode=fast)
    assert gradcheck(function, inputs, fast_mode=fast, raise_exception=False) is False
    # PyTorch finds the same.
    assert not torch.autograd.gradcheck(
        function,
        [torch.tensor(x.detach().numpy(), requires_grad=True) for x in inputs],
        fast_mode=fast,
        raise_exception=False,
    )


@speed
def test_wrong_second_derivatives_are_found(fast):
    def function(x):
        """x * x with the right gradient, whose own derivative is 0 instead of 2."""
        y = x.detach().requires_grad_()
        return x * x + (x - y) * (x.detach() - x)

    assert gradcheck(function, X, fast_mode=fast)
    with pytest.raises(GradcheckError):
        gradgradcheck(function, X, fast_mode=fast)
    assert gradgradcheck(function, X, fast_mode=fast, raise_exception=False) is False


@speed
def test_wrong_tangents_are_found(fast):
    only_forward = {"check_backward_ad": False, "check_forward_ad": True, "fast_mode": fast}
    with pytest.raises(GradcheckError, match="forward mode mismatch for output 0 .* input 1"):
        gradcheck(lambda x, y: x * y * y.detach(), [X, Y], **only_forward)


class Square(spool.autograd.Function):
    """x * x and 3 x; `fault` says what is wrong."""

    @staticmethod
    def forward(ctx, x, fault):
        ctx.fault = fault
        ctx.set_materialize_grads(fault != "undefined")
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x * x, x * 3

    @staticmethod
    def backward(ctx, grad, other):
        (x,) = ctx.saved_tensors
        if other is None:
            other = grad  # should be zero
        if grad is None:
            return other * 3, None
        slope = x if ctx.fault == "backward" else 2 * x
        if ctx.fault == "second":
            slope = slope.detach()
        return grad * slope + other * 3, None

    @staticmethod
    def jvp(ctx, tangent, _):
        (x,) = ctx.saved_tensors
        return tangent * (x if ctx.fault == "jvp" else 2 * x), tangent * 3


@speed
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("backward", "Jacobian mismatch for output 0 with respect to input 0"),
        ("jvp", "computed with forward mode mismatch for output 0"),
        ("undefined", "handle undefined output grads as zeros"),
    ],
)
def test_faults_of_custom_functions(fault, message, fast):
    options = {"fast_mode": fast, "check_forward_ad": fault == "jvp"}
    assert gradcheck(Square.apply, (X, "none"), check_forward_ad=True, fast_mode=fast)
    with pytest.raises(GradcheckError, match=message):
        gradcheck(Square.apply, (X, fault), **options)


@speed
def test_faults_of_second_derivatives_of_custom_functions(fast):
    assert gradgradcheck(Square.apply, (X, "none"), fast_mode=fast)
    assert gradcheck(Square.apply, (X, "second"), fast_mode=fast)
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradgradcheck(Square.apply, (X, "second"), fast_mode=fast)


def test_the_message_shows_what_and_where():
    x = spool.tensor([1.0, 2.0, 3.0], dtype=spool.float64, requires_grad=True)
    y = spool.tensor([[4.0]], dtype=spool.float64, requires_grad=True)

    def function(x, n, y):
        z = x * y
        z[0, 2] = z[0, 2].detach() ** 2
        return n, z

    with pytest.raises(GradcheckError) as caught:
        gradcheck(function, (x, 7, y))
    text = str(caught.value)
    assert "Jacobian mismatch for output 1 with respect to input 0" in text
    numerical, analytical = re.search(r"numerical:(.*)\nanalytical:(.*)\nThe", text, re.S).groups()
    assert "96." in numerical and "96." not in analytical
    assert "largest difference is 96, where the element [0, 2] of the output" in text
    assert "by the element [2] of the input: numerical 96, analytical 0" in text
    assert isinstance(caught.value, spool.SpoolError)


def test_the_message_names_parts_of_complex_numbers():
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda z: (z * 3).real.detach() + z.imag, imaginary(2))
    assert "of the output is differentiated by the real part of element [0]" in str(caught.value)
    assert "Rows alternate between the real and imaginary parts of the input" in str(caught.value)
    assert "Columns" not in str(caught.value)


def test_nan_is_no_derivative():
    x = spool.tensor([1.0, -1.0], dtype=spool.float64, requires_grad=True)
    with pytest.raises(GradcheckError, match=r"element \[1\].*numerical nan"):
        gradcheck(spool.sqrt, x)


def test_a_backward_that_differs_from_run_to_run():
    def function(x):
        y = x * 2
        runs = []

        def jitter(grad):
            runs.append(1)
            return grad + 1e-7 * len(runs)

        y.register_hook(jitter)
        return y

    with pytest.raises(GradcheckError, match="not reentrant"):
        gradcheck(function, X)
    assert gradcheck(function, X, nondet_tol=1e-4, check_undefined_grad=False)


def test_a_backward_that_is_not_linear_in_its_weight():
    def function(x):
        y = x * 1
        y.register_hook(lambda grad: grad + 1e-7)
        return y

    with pytest.raises(GradcheckError, match="not multiplied by grad_output"):
        gradcheck(function, X)
    assert gradcheck(function, X, check_undefined_grad=False)


def test_tolerances_count():
    def function(x):
        y = x * 1
        y.register_hook(lambda grad: grad * 1.01)
        return y

    assert not gradcheck(function, X, raise_exception=False)
    assert gradcheck(function, X, rtol=0.02)
    assert gradcheck(function, X, rtol=0.0, atol=0.02)


# ---- arguments -----------------------------------------------------------------------------------------------------------


def test_inputs_that_cannot_be_checked():
    with pytest.raises(ValueError, match="no input is a floating point"):
        gradcheck(spool.tanh, spool.ones(2))
    with pytest.raises(ValueError, match="input 0 is expanded"):
        gradcheck(spool.tanh, spool.ones(1).double().expand(3).requires_grad_())
    with pytest.warns(UserWarning, match="Input #0 .* spool.float32"):
        gradcheck(lambda x: x * 2, spool.ones(2, requires_grad=True), eps=0.5)


def test_arguments_that_contradict_each_other():
    for options in (
        {"check_backward_ad": False},
        {"check_backward_ad": False, "check_forward_ad": True, "check_batched_grad": True},
        {"check_batched_forward_grad": True},
    ):
        with pytest.raises(ValueError, match="gradcheck: "):
            gradcheck(spool.tanh, X, **options)
    with pytest.raises(ValueError, match="both are False"):
        gradgradcheck(spool.tanh, X, check_rev_over_rev=False)
    with pytest.raises(ValueError, match="2 grad_outputs for 1 outputs"):
        gradgradcheck(spool.tanh, X, (X, X))


def test_grad_outputs_of_ones_own():
    weights = spool.ones(2, 2, dtype=spool.float64, requires_grad=True)
    assert gradgradcheck(spool.tanh, X, weights)
    assert gradgradcheck(spool.tanh, X, gen_non_contig_grad_outputs=True)


def test_an_exception_of_the_function_arrives_and_inputs_are_put_back():
    x = real(3)
    before = x.tolist()

    def function(x):
        if x.tolist() != before:
            raise LookupError("mine")
        return x * 2

    for fast in (False, True):
        with pytest.raises(LookupError, match="mine"):
            gradcheck(function, x, fast_mode=fast)
        assert x.tolist() == before


def test_parameters_reached_by_a_closure():
    layer = spool.nn.Linear(3, 2).double()
    x = real(4, 3)
    assert gradcheck(lambda *_: layer(x).tanh(), (x, *layer.parameters()))
    assert gradgradcheck(lambda *_: layer(x).tanh(), (x, *layer.parameters()))


def test_random_numbers_are_left_alone():
    spool.manual_seed(3)
    wanted = spool.rand(2).tolist()
    spool.manual_seed(3)
    gradcheck(spool.tanh, X, fast_mode=True, **EVERY)
    gradgradcheck(spool.tanh, X)
    assert spool.rand(2).tolist() == wanted


def test_results_that_no_input_changes():
    assert gradcheck(lambda x: spool.ones(2).double(), X)
    assert gradcheck(lambda x: (x * 0, 3), X)


def test_second_derivative_of_sgn_at_zero_is_zero():
    z = spool.zeros(2, dtype=spool.complex128, requires_grad=True)
    (grad,) = spool.autograd.grad(spool.sgn(z).real.sum(), z, create_graph=True)
    (second,) = spool.autograd.grad(grad.real.sum(), z)
    assert grad.tolist() == second.tolist() == [0, 0]
