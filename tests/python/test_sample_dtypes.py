"""Every sample in the dtypes narrower than those the kernels compute in, against PyTorch.

A half result is what float32 yields, rounded once: one step off at most, since float32 sums differ in their last bits.
Integers are equal.
"""

import numpy as np
import pytest
import torch
from peers import TORCH, call
from samples import (
    RANDOM,
    arrays_of,
    has_complex,
    is_list,
    load,
    outputs,
    run,
    tensor_at,
    tensor_positions,
)

import spool

HALVES = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
INTEGERS = ("uint8", "int8", "int16", "int32")
SAMPLES = [s for s in load() if s.op not in RANDOM and not has_complex(s)]
# Of integers, PyTorch computes these, too; Spool wants a floating dtype and says so. Some only where
# a number of the signature has a fraction, which PyTorch drops.
REFUSES_FRACTIONS = {
    "addbmm",
    "addcmul.value",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "constant_pad_nd",
    "masked_fill.scalar",
    "pad",
}
REFUSES_INTEGERS = {
    "conv1d",
    "conv2d",
    "convolution",
    "convolution_input",
    "convolution_weight",
    "hardtanh",
    "linear",
    "linear_scan",
    "log_softmax",
    "relu6",
    "sigmoid_backward",
    "softmax",
    "softsign",
    "tanh_backward",
    "threshold",
}
TIES = {"sort", "topk", "kthvalue", "median.dim", "mode"}  # which of equal ones is named is open
MISSING = ("not implemented for", "not supported", "unsupported", "expected scalar type")


def kinds(sample):
    args, _ = arrays_of(sample)
    return {tensor_at(args, p).dtype.kind for p in tensor_positions(args)}


FLOATING = [s for s in SAMPLES if "f" in kinds(s)]


def narrowed(array, name):
    """A PyTorch tensor of this dtype in place of a floating one; others as they are."""
    tensor = torch.from_numpy(array.copy())
    if array.dtype.kind != "f":
        return tensor
    if name in HALVES:
        return tensor.to(getattr(torch, name))
    whole = torch.nan_to_num(tensor * 3, 0, 7, 0 if name == "uint8" else -7)
    return (whole.abs() if name == "uint8" else whole).to(getattr(torch, name))


def arguments(sample, name):
    """(PyTorch's arguments, Spool's, keyword arguments)"""
    args, kwargs = arrays_of(sample)

    def made(value):
        if isinstance(value, np.ndarray):
            return narrowed(value, name)
        return [narrowed(v, name) for v in value] if is_list(value) else value

    def shared(value):
        if isinstance(value, torch.Tensor):
            return spool.from_dlpack(value.clone())
        return [shared(v) for v in value] if isinstance(value, list) else value

    theirs = list(map(made, args))
    ours = list(map(shared, theirs))
    return theirs, ours, kwargs


def wide(value):
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    return list(map(wide, value)) if isinstance(value, list) else value


def torchs(sample, theirs, kwargs):
    """PyTorch's results, and those of float32 in place of halves; None where it refuses the arguments."""
    try:
        exact = call(sample, list(map(wide, theirs)), kwargs)
    except (RuntimeError, TypeError, NotImplementedError, IndexError):
        return None
    try:
        return call(sample, theirs, kwargs), exact
    except (RuntimeError, TypeError, NotImplementedError) as error:
        if not any(text in str(error) for text in MISSING):
            return None
    tensors = [t for v in theirs for t in (v if isinstance(v, list) else [v])]
    half = next(t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.dtype.itemsize == 2)
    return [r.to(half) if r.dtype == torch.float32 else r for r in exact], exact


def dtype_name(tensor):
    return str(tensor.dtype).split(".")[-1]


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("sample", FLOATING, ids=[s.id for s in FLOATING])
def test_halves(sample, name):
    theirs, ours, kwargs = arguments(sample, name)
    found = torchs(sample, theirs, kwargs)
    if found is None:
        pytest.skip("PyTorch refuses it")
    for mine, other, exact in zip(outputs(run(sample, ours, kwargs)), *found, strict=True):
        assert dtype_name(mine) == dtype_name(other)
        assert tuple(mine.shape) == tuple(other.shape)
        value, right = mine.double().numpy(), exact.to(other.dtype).double().numpy()
        largest = np.abs(right[np.isfinite(right)]).max(initial=0)
        step = HALVES[name] if dtype_name(other) == name else 2e-6
        least = 2.0**-14 * step if name == "float16" else 0  # below, float16 has fixed steps
        np.testing.assert_allclose(value, right, 1.01 * step, 1e-5 * largest + least)
        if sample.op in TIES:
            break


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("sample", FLOATING, ids=[s.id for s in FLOATING])
def test_integers(sample, name):
    theirs, ours, kwargs = arguments(sample, name)
    try:
        expected = call(sample, theirs, kwargs)
    except (RuntimeError, TypeError, NotImplementedError, IndexError):
        return refuses_or_agrees_with_int64(sample, ours, kwargs)
    if refused(sample, kwargs):
        with pytest.raises(spool.DTypeError):
            run(sample, ours, kwargs)
        return None
    try:
        got = outputs(run(sample, ours, kwargs))
    except spool.DTypeError:
        assert sample.op in TORCH  # no function of PyTorch's, but these tests' own
        return None
    for mine, other in zip(got, expected, strict=True):
        tested = sample.op in ("any", "all")  # PyTorch's of uint8 are uint8
        assert dtype_name(mine) == ("bool" if tested else dtype_name(other))
        assert tuple(mine.shape) == tuple(other.shape)
        np.testing.assert_allclose(mine.double().numpy(), other.double().numpy(), 1e-5, 1e-6)
        if sample.op in TIES:
            break
    return None


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
@pytest.mark.parametrize("sample", FLOATING, ids=[s.id for s in FLOATING])
def test_compiled_bits_are_eagers(sample, name):
    _, ours, kwargs = arguments(sample, name)
    positions = [i for i, value in enumerate(ours) if isinstance(value, spool.Tensor)]

    def function(*tensors):
        args = list(ours)
        for i, tensor in zip(positions, tensors, strict=True):
            args[i] = tensor
        return run(sample, args, kwargs)

    tensors = [ours[i] for i in positions]
    try:
        eager = raw_bits(function(*tensors))
    except (TypeError, ValueError, RuntimeError):
        pytest.skip("an error, as of integers in test_integers")
    compiled = spool.jit(function)
    for _ in range(3):
        assert raw_bits(compiled(*tensors)) == eager


def raw_bits(value):
    return [
        (
            t.dtype,
            tuple(t.shape),
            torch.from_dlpack(t.detach().contiguous()).flatten().view(torch.uint8).tolist(),
        )
        for t in outputs(value)
    ]


def refused(sample, kwargs):
    fraction = any(isinstance(v, float) for v in [*sample.args, *kwargs.values()])
    return sample.op in REFUSES_INTEGERS or (sample.op in REFUSES_FRACTIONS and fraction)


def refuses_or_agrees_with_int64(sample, ours, kwargs):
    """What PyTorch has no kernel for is an error, or what int64 gives."""
    long = [v.long() if isinstance(v, spool.Tensor) and "int" in dtype_name(v) else v for v in ours]
    try:
        got = outputs(run(sample, ours, kwargs))
    except (TypeError, ValueError, RuntimeError):
        return
    for mine, other in zip(got, outputs(run(sample, long, kwargs)), strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.to(mine.dtype).numpy())
