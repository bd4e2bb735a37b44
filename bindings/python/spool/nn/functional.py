"""Layers and losses as functions: the ops of these names, called directly.

relu(x)                                        max(x, 0); and the other activations
linear(x, w, b=None)                           x @ w.T + b
bilinear(x1, x2, w, b=None)                    x1 @ w[k] @ x2 + b[k]
softmax(x, dim), softmin(x, dim)               exp(x) / sum(exp(x)), the same of -x
log_softmax(x, dim)                            x - log(sum(exp(x)))
layer_norm, rms_norm, group_norm, instance_norm, batch_norm, normalize, local_response_norm
scaled_dot_product_attention(query, key, value, attn_mask=None, ...)
dropout(x, p=0.5, training=True)               also dropout1d, dropout2d, alpha_dropout
cross_entropy(x, target, ...)                  and the other losses and distances: functional_losses.py
max_pool2d(x, kernel_size, ...)                and the other functions of signals and images: functional_images.py
"""

from .. import _C
from .._C import (
    batch_norm,
    celu,
    dropout,
    elu,
    embedding,
    gelu,
    group_norm,
    hardsigmoid,
    hardswish,
    hardtanh,
    instance_norm,
    layer_norm,
    leaky_relu,
    linear,
    local_response_norm,
    log_softmax,
    logsigmoid,
    mish,
    normalize,
    one_hot,
    prelu,
    relu,
    relu6,
    rms_norm,
    scaled_dot_product_attention,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softsign,
    tanh,
    threshold,
)
from . import functional_images, functional_losses
from .functional_images import *  # noqa: F403
from .functional_losses import *  # noqa: F403

__all__ = [
    "alpha_dropout",
    "batch_norm",
    "bilinear",
    "celu",
    "dropout",
    "dropout1d",
    "dropout2d",
    "elu",
    "embedding",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "mish",
    "normalize",
    "one_hot",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    *functional_losses.__all__,
    *functional_images.__all__,
]


@_C._boundary
def glu(input, dim=-1):
    """The first half along ``dim`` times the sigmoid of the second (Dauphin et al., 2017).

    Raises
    ------
    ShapeError
        The size along ``dim`` is odd.
    """
    if input.shape[dim] % 2:
        raise _C.ShapeError(
            f"glu: dimension {dim} of a tensor of shape {tuple(input.shape)} has no halves"
        )
    first, second = input.chunk(2, dim)
    return first * _C.sigmoid(second)


@_C._boundary
def hardshrink(input, lambd=0.5):
    """x where ``abs(x) > lambd``, otherwise 0."""
    return _C.where((input >= -lambd) & (input <= lambd), 0.0, input)


@_C._boundary
def softshrink(input, lambd=0.5):
    """x moved towards 0 by ``lambd``, and 0 where it would pass it."""
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd}")
    return input - input.clamp(-lambd, lambd)


@_C._boundary
def tanhshrink(input):
    """``x - tanh(x)``"""
    return input - _C.tanh(input)


def _feature_dropout(op, input, p, training, ranks):
    if input.ndim not in ranks:
        raise _C.ShapeError(
            f"{op}: expected {ranks[0]} or {ranks[1]} dimensions, got a tensor of shape {tuple(input.shape)}"
        )
    if not training or p == 0:
        return input
    features = input.shape[: input.ndim - ranks[0] + 1]
    ones = _C.ones(*features, *[1] * (ranks[0] - 1), dtype=input.dtype)
    return input * dropout(ones, p)


@_C._boundary
def dropout1d(input, p=0.5, training=True):
    """Drops whole channels of ``(N, C, L)`` or ``(C, L)`` with probability ``p``, the others divided by ``1 - p``."""
    return _feature_dropout("dropout1d", input, p, training, (2, 3))


@_C._boundary
def dropout2d(input, p=0.5, training=True):
    """Drops whole channels of ``(N, C, H, W)`` or ``(C, H, W)`` with probability ``p``, the others divided by ``1 - p``."""
    return _feature_dropout("dropout2d", input, p, training, (3, 4))


@_C._boundary
def alpha_dropout(input, p=0.5, training=False):
    """Dropout that keeps mean 0 and variance 1, for :func:`selu` (Klambauer et al., 2017).

    Dropped elements become selu's lower limit; the result is scaled and shifted.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"alpha_dropout: p must be a probability, got {p}")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0
    limit = -1.7580993408473766
    scale = ((1 - p) * (1 + p * limit**2)) ** -0.5
    kept = dropout(_C.ones_like(input), p) != 0
    return (_C.where(kept, input, limit) - p * limit) * scale


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
