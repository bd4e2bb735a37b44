"""Layers and losses as functions: the ops of these names, called directly.

relu(x)                                        max(x, 0)
linear(x, w, b=None)                           x @ w.T + b
bilinear(x1, x2, w, b=None)                    x1 @ w[k] @ x2 + b[k]
log_softmax(x, dim)                            x - log(sum(exp(x)))
nll_loss(x, target, *, reduction='mean')       -x[i, target[i]], reduced
cross_entropy(x, target, *, reduction='mean')  nll_loss(log_softmax(x, 1), target)
"""

from .. import _C
from .._C import cross_entropy, linear, log_softmax, nll_loss, relu, tanh

__all__ = ["bilinear", "cross_entropy", "linear", "log_softmax", "nll_loss", "relu", "tanh"]


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
