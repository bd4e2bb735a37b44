"""Layers and losses as functions: the ops of these names, called directly.

relu(x)                                        max(x, 0)
linear(x, w, b=None)                           x @ w.T + b
bilinear(x1, x2, w, b=None)                    x1 @ w[k] @ x2 + b[k]
softmax(x, dim), softmin(x, dim)               exp(x) / sum(exp(x)), the same of -x
log_softmax(x, dim)                            x - log(sum(exp(x)))
layer_norm, rms_norm, group_norm, instance_norm, batch_norm, normalize, local_response_norm
scaled_dot_product_attention(query, key, value, attn_mask=None, ...)
nll_loss(x, target, *, reduction='mean')       -x[i, target[i]], reduced
cross_entropy(x, target, *, reduction='mean')  nll_loss(log_softmax(x, 1), target)
mse_loss(input, target, *, reduction='mean')   (input - target)^2, reduced; also l1_loss, smooth_l1_loss, huber_loss
max_pool2d(x, kernel_size, ...)                and the other functions of signals and images: functional_images.py
"""

import warnings

from .. import _C
from .._C import (
    batch_norm,
    cross_entropy,
    group_norm,
    instance_norm,
    layer_norm,
    linear,
    local_response_norm,
    log_softmax,
    nll_loss,
    normalize,
    relu,
    rms_norm,
    scaled_dot_product_attention,
    softmax,
    softmin,
    tanh,
)
from . import functional_images
from .functional_images import *  # noqa: F403

__all__ = [
    "batch_norm",
    "bilinear",
    "cross_entropy",
    "group_norm",
    "huber_loss",
    "instance_norm",
    "l1_loss",
    "layer_norm",
    "linear",
    "local_response_norm",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "normalize",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "tanh",
    *functional_images.__all__,
]


@_C._boundary
def bilinear(input1, input2, weight, bias=None):
    """``input1 @ weight[k] @ input2 + bias[k]`` for every output feature k.

    Parameters
    ----------
    input1 : Tensor
        ``(*, in1)``
    input2 : Tensor
        ``(*, in2)``, with the same leading sizes.
    weight : Tensor
        ``(out, in1, in2)``
    bias : Tensor, optional
        ``(out,)``

    Returns
    -------
    Tensor
        ``(*, out)``

    Raises
    ------
    ShapeError
        The shapes do not fit.
    """
    if weight.ndim != 3 or input1.shape[:-1] != input2.shape[:-1]:
        raise _C.ShapeError(
            f"bilinear: inputs of shapes {tuple(input1.shape)} and {tuple(input2.shape)} with a weight of shape "
            f"{tuple(weight.shape)}; expected (*, in1), (*, in2) and (out, in1, in2)"
        )
    out, in1, in2 = weight.shape
    if input1.shape[-1:] != (in1,) or input2.shape[-1:] != (in2,):
        raise _C.ShapeError(
            f"bilinear: inputs of shapes {tuple(input1.shape)} and {tuple(input2.shape)}, but the weight of shape "
            f"{tuple(weight.shape)} takes {in1} and {in2} features"
        )
    lead = tuple(input1.shape[:-1])
    rows = input1.reshape(-1, in1) if input1.numel() else input1.reshape(_C.Size(lead).numel(), in1)
    left = (rows @ weight.permute(1, 0, 2).reshape(in1, out * in2)).reshape(rows.shape[0], out, in2)
    result = (left * input2.reshape(rows.shape[0], 1, in2)).sum(2).reshape(*lead, out)
    return result if bias is None else result + bias


def _difference(op, input, target):
    if input.shape != target.shape:
        warnings.warn(
            f"{op}: a target of shape {tuple(target.shape)} is broadcast with an input of shape {tuple(input.shape)}, "
            "which is seldom meant; reshape one of them",
            stacklevel=3,
        )
    return input - target


def _reduced(op, losses, reduction):
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"{op}: reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


@_C._boundary
def mse_loss(input, target, *, reduction="mean"):
    """The square of ``input - target``.

    Parameters
    ----------
    input, target : Tensor
        Floating point, of one shape; others are broadcast, with a warning.
    reduction : {'mean', 'sum', 'none'}

    Returns
    -------
    Tensor
        The input's shape for 'none', otherwise one number.

    Raises
    ------
    ShapeError
        The shapes do not broadcast.
    ValueError
        There is no such reduction.
    """
    difference = _difference("mse_loss", input, target)
    return _reduced("mse_loss", difference * difference, reduction)


@_C._boundary
def l1_loss(input, target, *, reduction="mean"):
    """The absolute value of ``input - target``, whose derivative at 0 is 0.

    Parameters, result and errors are those of :func:`mse_loss`.
    """
    return _reduced("l1_loss", _difference("l1_loss", input, target).abs(), reduction)


@_C._boundary
def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """With ``d = abs(input - target)``: ``d**2 / (2 * beta)`` below ``beta``, ``d - beta / 2`` from there on.

    Parameters
    ----------
    beta : float
        Where the parabola ends; 0 makes it :func:`l1_loss`.

    Others, result and errors are those of :func:`mse_loss`; ValueError for a negative ``beta``.
    """
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    d = _difference("smooth_l1_loss", input, target).abs()
    losses = d if beta == 0 else _C.where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)
    return _reduced("smooth_l1_loss", losses, reduction)


@_C._boundary
def huber_loss(input, target, *, reduction="mean", delta=1.0):
    """With ``d = abs(input - target)``: ``d**2 / 2`` up to ``delta``, ``delta * (d - delta / 2)`` from there on (Huber, 1964).

    Parameters
    ----------
    delta : float
        Where the parabola ends, positive.

    Others, result and errors are those of :func:`mse_loss`; ValueError if ``delta`` is not positive.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    d = _difference("huber_loss", input, target).abs()
    losses = _C.where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta)
    return _reduced("huber_loss", losses, reduction)
